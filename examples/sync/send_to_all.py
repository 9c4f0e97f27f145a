"""The other way round: a server that plays a note a second to every client.

python send_to_all.py [host:port]
"""

import sys
import time
from contextlib import suppress

from mido import Message

from midinet.sync import PortServer, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with suppress(KeyboardInterrupt), PortServer(host, portno) as server:
    while True:
        server.send(Message("note_on", note=60, velocity=100))
        time.sleep(0.5)
        server.send(Message("note_off", note=60))
        time.sleep(0.5)
