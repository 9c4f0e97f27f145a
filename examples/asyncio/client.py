"""Play one note on a server.

python client.py [host:port]
"""

import asyncio
import sys

from mido import Message

from midinet import connect, parse_address


async def main(host: str, portno: int) -> None:
    async with connect(host, portno) as output:
        await output.send(Message("note_on", note=60, velocity=100))
        await asyncio.sleep(0.5)
        await output.send(Message("note_off", note=60))


asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
