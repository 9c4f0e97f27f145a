"""Play a note every half second, whatever becomes of the server.

python stay_connected.py [host:port]
"""

import sys
import time
from contextlib import suppress

from mido import Message

from midinet.sync import connect, parse_address


def main(host: str, portno: int) -> None:
    # With timeout=None it also waits for a server that is not there yet.
    with connect(host, portno, reconnect=True, timeout=None) as port:
        while True:
            print(f"{port.name} is {port.state.value}", flush=True)
            port.send(Message("note_on", note=60))
            time.sleep(0.25)
            port.send(Message("note_off", note=60))
            time.sleep(0.25)


with suppress(KeyboardInterrupt):
    main(*parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080"))
