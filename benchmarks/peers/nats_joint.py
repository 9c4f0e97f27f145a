"""What joins servers through NATS with nats-py and nothing else: no MIDI, no order, no state, no bounds.

What a client says goes to the other clients here and to the broker, and what the broker brings to the clients
here. It shows what NATS, nats-py and asyncio cost by themselves.

Options: `broker`, its URL.
"""

import asyncio

import nats
from nats.aio.msg import Msg

from . import process

_SUBJECT = "joint"


async def main(*, broker: str) -> None:
    clients: set[asyncio.StreamWriter] = set()

    async def arrived(message: Msg) -> None:
        for client in clients:
            client.write(message.data)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.add(writer)
        try:
            while data := await reader.read(65536):
                for other in clients - {writer}:
                    other.write(data)
                await joint.publish(_SUBJECT, data)
        except ConnectionError:
            pass
        finally:
            clients.discard(writer)
            writer.close()

    joint = await nats.connect(broker, no_echo=True)
    await joint.subscribe(_SUBJECT, cb=arrived)
    await joint.flush()
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    process.ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()


_, options = process.begin_with_options("relay")
asyncio.run(main(**options))
