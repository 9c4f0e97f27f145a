"""midinet's hub."""

import asyncio

from midinet import PortServer

from . import process


async def main() -> None:
    async with PortServer("127.0.0.1", 0, relay=True) as server:
        process.ready(server.addresses[0][1])
        await server.wait_closed()


process.begin("relay")
asyncio.run(main())
