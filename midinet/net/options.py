"""What can be set for a connection, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

from ..hub.outbox import DEFAULT_MAX_OUTBOX
from ..wire.parser import DEFAULT_MAX_SYSEX

# Messages. At 1,000 messages/s it covers a second in which the program is busy elsewhere; past it, TCP
# tells the peers to wait.
DEFAULT_MAX_INBOX = 1024

# Seconds. Long enough for a peer on a bad network to take what is left, short enough to sit through.
DEFAULT_CLOSE_TIMEOUT = 2.0

# Bytes. With the kernel's own default, a peer that stopped reading would hide megabytes of notes there
# before anyone noticed; this is 20,000 notes, and costs a peer that reads no speed.
DEFAULT_SEND_BUFFER = 65536

# No limit may be set higher. It is beyond any use, and below what the system and `re` can count to.
_MOST = 1 << 30


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """The settings of one connection, checked."""

    max_sysex: int = DEFAULT_MAX_SYSEX
    max_inbox: int = DEFAULT_MAX_INBOX
    max_outbox: int = DEFAULT_MAX_OUTBOX
    send_buffer: int = DEFAULT_SEND_BUFFER
    close_timeout: float = DEFAULT_CLOSE_TIMEOUT
    running_status: bool = False

    def __post_init__(self) -> None:
        for name, least in (("max_sysex", 2), ("max_inbox", 1), ("max_outbox", 1), ("send_buffer", 1)):
            if not least <= getattr(self, name) <= _MOST:
                raise ValueError(f"{name} must be between {least} and {_MOST:,}")
        if self.close_timeout < 0:
            raise ValueError("close_timeout must not be negative")
