"""Print what a server sends, until it closes.

python listen.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from midinet import connect, parse_address


async def main(host: str, portno: int) -> None:
    async with connect(host, portno) as port:
        async for message in port:
            print(message, flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
