"""What can be set for a connection, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..checks import check_count, check_effect, check_flag, check_number
from ..hub.outbox import (
    DEFAULT_MAX_OUTBOX,
    DEFAULT_SOFT_AGE_S,
    DEFAULT_SOFT_MESSAGES,
    DEFAULT_SOFT_OUTBOX,
    OutboxLimits,
    SlowPolicy,
)
from ..hub.policy import SysexRule, SysexWish
from ..wire.parser import DEFAULT_MAX_SYSEX

# Messages. At 1,000 messages/s it covers a second in which the program is busy elsewhere; past it, TCP
# tells the peers to wait.
DEFAULT_MAX_INBOX = 1024

# Seconds. Long enough for a peer on a bad network to take what is left, short enough to sit through.
DEFAULT_CLOSE_TIMEOUT = 2.0

# Bytes. With the kernel's own default, a peer that stopped reading would hide megabytes of notes there
# before anyone noticed; this is 20,000 notes, and costs a peer that reads no speed.
DEFAULT_SEND_BUFFER = 65536

# Off: many programs only ever send, and what waits for one that reads nothing is bounded.
DEFAULT_STALL_TIMEOUT = None

# Seconds. A cable that is pulled and put back in time is no reason to go; after ten, an audience has noticed.
DEFAULT_DEAD_PEER_TIMEOUT = 10.0

# Seconds of max_rate that may come at once, so that a chord is no reason to wait.
DEFAULT_BURST_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """The settings of one connection. `connect` and `PortServer` take each of them as a keyword.

    Raises:
        ValueError: a limit is out of range or has no effect, or `slow` or `sysex` is none of what it can be.
        TypeError: a limit is no number; None is only where that is said.
    """

    max_sysex: int = DEFAULT_MAX_SYSEX
    """The longest system exclusive message to pass on, in bytes with its F0 and F7."""
    max_inbox: int = DEFAULT_MAX_INBOX
    """Messages that may wait to be read before the socket is not read any more and the peer has to wait.
    Nothing is dropped, until the program has read nothing for 5 s: see `SocketPort`."""
    slow: SlowPolicy = "thin"
    """What becomes of a peer that does not read fast enough. "thin": past the soft bounds its backlog gives
    way, and when it reads again it gets what brings it to the present performance. "disconnect": all of it
    waits, up to `max_outbox`, and then the peer is disconnected."""
    max_outbox: int = DEFAULT_MAX_OUTBOX
    """The hard bound: bytes that may wait for the peer."""
    soft_outbox: int = DEFAULT_SOFT_OUTBOX
    """A soft bound: bytes of backlog."""
    soft_messages: int = DEFAULT_SOFT_MESSAGES
    """A soft bound: messages of backlog."""
    soft_age: float = DEFAULT_SOFT_AGE_S
    """A soft bound: how long the oldest of the backlog may have waited, in seconds."""
    stall_timeout: float | None = DEFAULT_STALL_TIMEOUT
    """A peer that takes nothing at all for so many seconds, while something waits for it, is disconnected.
    None is never: a peer that only sends stays connected, and `dead_peer_timeout` still holds."""
    dead_peer_timeout: float | None = DEFAULT_DEAD_PEER_TIMEOUT
    """Seconds until a peer that has vanished from the network is taken for dead: idle or not, and also when
    it read nothing before. At least 2; None leaves it to the system, which may take hours. A peer is alive as
    long as its system acknowledges, or answers that there is no room; of peers of midinet that have exchanged
    a HELLO the program itself is asked, and has to answer. It sets SO_KEEPALIVE, and where the platform has
    them TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT (RFC 5482) and TCP_RTO_MAX_MS. Linux alone
    has the last two. On macOS and Windows a peer without HELLO that vanishes while data is under way is found
    when the system gives up, after minutes, or by `stall_timeout`."""
    max_rate: float | None = None
    """Messages/s to take from the peer. Above it the socket is read more slowly, so that TCP pushes back;
    nothing is dropped. None is no limit."""
    rate_burst: int | None = None
    """Messages that may come at once above `max_rate`; None is a tenth of a second's worth."""
    sysex: SysexWish | None = None
    """Which system exclusive messages pass, both ways: True, False, or a collection of manufacturer IDs.
    None is all of them on loopback, for peers that showed a token or a client certificate, and for servers
    that one connected to; otherwise none."""
    release_notes: bool = True
    """Let go of the notes, pedals and bends that a connection held when it ends, for whatever reason."""
    send_buffer: int = DEFAULT_SEND_BUFFER
    """The size of the system's send buffer, in bytes."""
    close_timeout: float = DEFAULT_CLOSE_TIMEOUT
    """How long closing waits for the peer to take what is left, in seconds."""
    running_status: bool = False
    """Leave out repeated status bytes in what is sent. mido's ports lose notes then."""
    outbox: OutboxLimits = field(init=False)

    def __post_init__(self) -> None:
        check_count("max_sysex", self.max_sysex, 2)
        for name in ("max_inbox", "max_outbox", "soft_outbox", "soft_messages", "send_buffer"):
            check_count(name, getattr(self, name))
        check_count("rate_burst", self.rate_burst, or_none=True)
        for name in ("soft_age", "close_timeout"):
            check_number(name, getattr(self, name), least=0)
        for name in ("stall_timeout", "max_rate"):
            check_number(name, getattr(self, name), above=0, or_none=True)
        check_number("dead_peer_timeout", self.dead_peer_timeout, least=2, or_none=True)
        for name in ("release_notes", "running_status"):
            check_flag(name, getattr(self, name))
        if self.slow not in ("thin", "disconnect"):
            raise ValueError(f"slow must be 'thin' or 'disconnect', not {self.slow!r}")
        check_effect("rate_burst", self.rate_burst is not None, "max_rate", self.max_rate is not None)
        if self.sysex is not None:
            SysexRule(self.sysex)
        limits = OutboxLimits(
            slow=self.slow,
            max_bytes=self.max_outbox,
            soft_bytes=self.soft_outbox,
            soft_messages=self.soft_messages,
            soft_age=self.soft_age,
        )
        object.__setattr__(self, "outbox", limits)

    @property
    def burst(self) -> float:
        """Messages that may come at once."""
        if self.rate_burst is not None:
            return self.rate_burst
        return max((self.max_rate or 0) * DEFAULT_BURST_S, 1)


LINK_OPTION_NAMES = frozenset(option.name for option in fields(LinkOptions) if option.init)
