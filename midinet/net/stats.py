"""The counts of a port, and their sum over the clients of a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CloseReason
from ..gateways.broker import BrokerStats
from ..wire.parser import DropStats

if TYPE_CHECKING:
    from .link import Link

# Connections that a server remembers after they have ended: an evening's worth of a busy hub.
MAX_REMEMBERED = 1000


@dataclass(slots=True, kw_only=True)
class PortStats(DropStats):
    """What went over a connection since it was made. Every drop is in one of these counts."""

    messages_received: int = 0
    bytes_received: int = 0
    messages_refused: int = 0
    """Messages received before the peer had been let in."""
    sysex_refused: int = 0
    """System exclusive messages dropped because they may not pass, either way."""
    messages_unread: int = 0
    """Messages received that gave way because the program did not read for 5 s. Those of a server's clients
    are in the sum of the server alone."""
    messages_sent: int = 0
    """Messages meant for the peer, with those that it did not get."""
    bytes_sent: int = 0
    """Bytes handed to the system."""
    messages_dropped: int = 0
    """Messages for the peer that were dropped because of the hard bound, or because it was gone."""
    messages_thinned: int = 0
    """Messages for the peer that gave way to the difference because it was too slow."""
    late_notes: int = 0
    """Note-ons for the peer that were not sent because they would have come too late."""
    late_clocks: int = 0
    """Clock and active sensing messages that were not sent for the same reason."""
    messages_caught_up: int = 0
    """Messages that brought the peer to the present performance, in place of those that were thinned."""
    slow_episodes: int = 0
    """How often the peer was so slow that its backlog gave way."""
    reconnects: int = 0
    """How often the port was connected again."""

    @classmethod
    def of(cls, link: Link) -> PortStats:
        """The counts of one link as they stand."""
        read, written = link.parser.stats, link.outbox.stats
        return cls(
            messages_received=read.messages,
            bytes_received=read.bytes,
            messages_refused=link.messages_refused,
            sysex_refused=link.sysex_refused + written.sysex_refused,
            messages_sent=written.messages,
            bytes_sent=written.bytes,
            messages_dropped=written.dropped,
            messages_thinned=written.thinned,
            late_notes=written.late_notes,
            late_clocks=written.late_clocks,
            messages_caught_up=written.caught_up,
            slow_episodes=written.episodes,
            **{name: getattr(read, name) for name in _DROPS},
        )

    def add(self, other: PortStats) -> None:
        """Add another port's counts to these."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


# Thousands of clients are summed up by these.
_COUNTS = tuple([count.name for count in fields(PortStats)])
_DROPS = tuple([drop.name for drop in fields(DropStats)])


class ClosedConnection(NamedTuple):
    """A connection that has ended."""

    name: str
    peer: tuple[str, int]
    reason: CloseReason
    seconds: float
    """How long it lasted."""
    stats: PortStats


@dataclass(slots=True, kw_only=True)
class ServerStats(PortStats):
    """The sums over all clients of a server, those that have gone with those that are there."""

    clients: int = 0
    """Clients there are now."""
    clients_waiting: int = 0
    """Those that nobody has adopted or accepted yet, with those that have gone and left something to read."""
    clients_total: int = 0
    """Clients there have been."""
    visitors: int = 0
    """Connections that have not been let in yet."""
    turned_away: int = 0
    """Connections that ended without having been let in, or whose first bytes were those of TLS or HTTP. They
    are in `closed` too."""
    closed: Counter[CloseReason] = field(default_factory=Counter)
    """How the connections that ended did so."""
    broker: BrokerStats | None = None
    """What went between this hub and those that a broker joins it with; None where there is no broker."""
