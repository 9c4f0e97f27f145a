"""midinet with a person's code around it: every message is read, and sent to all clients."""

import asyncio

from midinet import PortServer

from . import process


async def main() -> None:
    async with PortServer("127.0.0.1", 0) as server:
        process.ready(server.addresses[0][1])
        async for message in server:
            await server.send(message)


process.begin("echo", "relay")
asyncio.run(main())
