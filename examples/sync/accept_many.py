"""Look after many clients, each by its own port, in a loop that also has other things to do.

python accept_many.py [host:port]
"""

import sys
import time
from contextlib import suppress

from midinet.sync import PortServer, parse_address

host, portno = parse_address(sys.argv[1] if sys.argv[1:] else "localhost:8080")

with suppress(KeyboardInterrupt), PortServer(host, portno) as server:
    clients = []
    while True:
        client = server.accept(block=False)
        if client:
            print(f"{client.name} connected", flush=True)
            clients.append(client)

        for client in clients:
            for message in client.iter_pending():
                print(f"{client.name} sent {message}", flush=True)

        for client in clients:
            if client.closed:
                print(f"{client.name} disconnected", flush=True)
        clients = [client for client in clients if not client.closed]

        time.sleep(0.005)  # The other things.
