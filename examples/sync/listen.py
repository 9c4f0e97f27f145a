"""Print what a server sends, until it closes.

python listen.py [host:port]
"""

import sys
from contextlib import suppress

from midinet.sync import connect, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with suppress(KeyboardInterrupt):
    for message in connect(host, portno):
        print(message, flush=True)
