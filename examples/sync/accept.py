"""Take one client after another and print what each sends.

The next client waits until the one before has gone. What it sends meanwhile is not lost.

python accept.py [host:port]
"""

import sys
from contextlib import suppress

from midinet.sync import PortServer, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with suppress(KeyboardInterrupt), PortServer(host, portno) as server:
    while True:
        client = server.accept()
        for message in client:
            print(message, flush=True)
