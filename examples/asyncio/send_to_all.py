"""The other way round: a server that plays a note a second to every client.

python send_to_all.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from mido import Message

from midinet import PortServer, parse_address


async def main(host: str, portno: int) -> None:
    async with PortServer(host, portno) as server:
        while True:
            await server.send(Message("note_on", note=60, velocity=100))
            await asyncio.sleep(0.5)
            await server.send(Message("note_off", note=60))
            await asyncio.sleep(0.5)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
