"""The blocking twins of midinet, for plain scripts.

`from midinet.sync import PortServer, connect` takes the place of `from mido.sockets import ...`. Its ports
are `mido.ports.BaseIOPort`s with mido's names, arguments and errors. One event loop in a background thread
serves all of them; it starts with the first port. What differs from mido's ports:

- Waiting costs no CPU, and a message is handed over when it arrives, not at the next poll.
- One slow or dead client never delays the server or its other clients.
- Calls from several threads are safe. A call from the loop's own thread raises UsageError instead of
  waiting for itself, and so does any call in a child process on a port that was opened before the fork.
- On POSIX systems Ctrl-C ends any blocked call at once; on Windows within a tenth of a second.
- A program that ends with open ports sends what is left, for a second at most, and ends.
- Closing a server closes the ports that it gave away by `accept` too.
"""

from ..address import format_address, parse_address
from ..gateways.discovery import Service
from .discovery import discover
from .ports import PortServer, SocketPort, connect

__all__ = [
    "PortServer",
    "Service",
    "SocketPort",
    "connect",
    "discover",
    "format_address",
    "parse_address",
]
