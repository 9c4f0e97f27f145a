"""Play a note every half second, whatever becomes of the server.

python stay_connected.py [host:port]
"""

import asyncio
import sys
from contextlib import suppress

from mido import Message

from midinet import PortState, SocketPort, connect, parse_address


def show(port: SocketPort, state: PortState) -> None:
    print(f"{port.name} is {state.value}", flush=True)


async def main(host: str, portno: int) -> None:
    # With timeout=None it also waits for a server that is not there yet.
    async with connect(host, portno, reconnect=True, timeout=None, on_state=show) as port:
        show(port, port.state)
        while True:
            await port.send(Message("note_on", note=60))
            await asyncio.sleep(0.25)
            await port.send(Message("note_off", note=60))
            await asyncio.sleep(0.25)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")))
