"""Print what clients send: the server in two lines.

python two_line_server.py [host:port]
"""

import sys
from contextlib import suppress

from midinet.sync import PortServer, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with suppress(KeyboardInterrupt):
    for message in PortServer(host, portno):
        print(message, flush=True)
