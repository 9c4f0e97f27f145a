"""What a competent person writes without midinet: asyncio streams and mido's Parser.

Options: `uvloop`, whether it runs on that.
"""

import asyncio
from collections.abc import Callable

from mido import Parser

from . import process


async def main(role: str) -> None:
    clients: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        parser = Parser()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                others = [writer] if role == "echo" else list(clients - {writer})
                for message in parser:
                    frame = message.bin()
                    for other in others:
                        other.write(frame)
                for other in others:
                    await other.drain()
        except ConnectionError:
            pass
        finally:
            clients.discard(writer)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    process.ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()


role, options = process.begin_with_options("echo", "relay")
new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
if options.get("uvloop"):
    import uvloop

    new_loop = uvloop.new_event_loop
with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main(role))
