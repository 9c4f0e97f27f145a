"""Play one note on a server.

python client.py [host:port]
"""

import sys
import time

from mido import Message

from midinet.sync import connect, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with connect(host, portno) as output:
    output.send(Message("note_on", note=60, velocity=100))
    time.sleep(0.5)
    output.send(Message("note_off", note=60))
