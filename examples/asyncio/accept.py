"""Take one client after another and print what each sends.

The next client waits until the one before has gone. What it sends meanwhile is not lost.

python accept.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from midinet import ConnectionLost, PortServer, parse_address


async def main(host: str, portno: int) -> None:
    async with PortServer(host, portno) as server:
        while True:
            client = await server.accept()
            with suppress(ConnectionLost):
                async for message in client:
                    print(message, flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
