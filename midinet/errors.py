"""The errors midinet raises, in one tree.

    MidinetError
     ├── ConnectError       (OSError)              a connection that could not be made
     │    ├── ConnectRefused  (ConnectionRefusedError)  nobody listens there
     │    ├── NotAuthorized   (PermissionError)         the server does not accept the token, or wants one
     │    └── ServerBusy                                the server has as many clients as it takes
     ├── ListenError        (OSError)              an address that cannot be listened on
     ├── PortClosed         (OSError, ValueError)  the port is closed, or closed while it was waited for
     ├── ConnectionLost     (ConnectionError)      the link broke: reset, timed out, or given up as too slow
     ├── DeviceError        (OSError)              a port of this machine that is missing or cannot be opened
     ├── UsageError         (RuntimeError)         a call that cannot work from where it was made
     └── MissingExtra       (ImportError)          an optional package is not installed

What a network causes is an OSError too, so code written for sockets catches it. PortClosed is also a
ValueError because mido raises that for a call on a closed port, and OSError for a port that closes
during the call.
"""

from __future__ import annotations

import enum


class CloseReason(enum.Enum):
    """Why a connection ended."""

    LOCAL = "closed here"
    PEER = "closed by the peer"
    LOST = "the connection broke"
    TIMEOUT = "the peer has vanished"
    SLOW = "the peer did not read fast enough"
    TLS = "the TLS handshake failed, or the peer spoke TLS to a plain port"
    HTTP = "the peer spoke HTTP to a MIDI port"
    NOT_ALLOWED = "the peer's address is not allowed"
    UNAUTHORIZED = "no token was shown that is accepted"
    BUSY = "there are too many clients"


class MidinetError(Exception):
    """The root of every error that midinet raises on purpose."""


class ConnectError(MidinetError, OSError):
    """A connection could not be made. `errno` is the system's, where it gave one."""


class ConnectRefused(ConnectError, ConnectionRefusedError):
    """The machine answered that nobody listens on that port."""


class NotAuthorized(ConnectError, PermissionError):
    """The server does not accept the token, or wants one. Trying again does not help."""


class ServerBusy(ConnectError):
    """The server has as many clients as it takes. Later there may be room."""


class ListenError(MidinetError, OSError):
    """An address cannot be listened on: in use, not this machine's, or not permitted."""


class PortClosed(MidinetError, OSError, ValueError):
    """The port is closed, by `close()` or in order by its peer."""


class ConnectionLost(MidinetError, ConnectionError):
    """The link broke. `reason` is a CloseReason; `__cause__` is the system's error, where there is one."""

    def __init__(self, message: str, reason: CloseReason = CloseReason.LOST) -> None:
        super().__init__(message)
        self.reason = reason


class DeviceError(MidinetError, OSError):
    """A port of this machine, or a MIDI system, that is not there or cannot be opened."""


class UsageError(MidinetError, RuntimeError):
    """A call that cannot work where it was made: from the loop's own thread, after a fork, on a port
    whose messages come through its server."""


class MissingExtra(MidinetError, ImportError):
    """An optional package is missing. The message names the `pip install` that brings it."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs an extra: pip install 'midinet[{extra}]'")
        self.extra = extra
