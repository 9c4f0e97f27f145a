"""websockets' own broadcast, a MIDI message in each of its own, without what would only cost it time."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from . import process


async def main() -> None:
    clients: set[ServerConnection] = set()

    async def handle(client: ServerConnection) -> None:
        clients.add(client)
        try:
            async for message in client:
                broadcast(clients - {client}, message)
        except ConnectionClosed:
            pass  # Without the closing handshake.
        finally:
            clients.discard(client)

    async with serve(
        handle, "127.0.0.1", 0, backlog=1024, compression=None, ping_interval=None, max_queue=None
    ) as server:
        process.ready(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


process.begin("relay")
asyncio.run(main())
