"""Print what clients send: the smallest server.

python two_line_server.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from midinet import PortServer, parse_address


async def main(host: str, portno: int) -> None:
    async with PortServer(host, portno) as server:
        async for message in server:
            print(message, flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
