"""The counts of a port, and their sum over the clients of a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from ..errors import CloseReason
from ..wire.parser import DropStats

if TYPE_CHECKING:
    from .link import Link


@dataclass(slots=True, kw_only=True)
class PortStats(DropStats):
    """What went over a connection since it was made. Every drop is in one of these counts."""

    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    """Messages meant for the peer, with those that were dropped."""
    bytes_sent: int = 0
    """Bytes handed to the system."""
    messages_dropped: int = 0
    """Messages for the peer that were dropped because it was too slow, or gone."""

    @classmethod
    def of(cls, link: Link) -> PortStats:
        """The counts of one link as they stand."""
        read, written = link.parser.stats, link.outbox.stats
        return cls(
            messages_received=read.messages,
            bytes_received=read.bytes,
            messages_sent=written.messages,
            bytes_sent=written.bytes,
            messages_dropped=written.dropped,
            **{drop.name: getattr(read, drop.name) for drop in fields(DropStats)},
        )

    def add(self, other: PortStats) -> None:
        """Add another port's counts to these."""
        for count in fields(PortStats):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))


@dataclass(slots=True, kw_only=True)
class ServerStats(PortStats):
    """The sums over all clients of a server, those that have gone with those that are there."""

    clients: int = 0
    """Connections there are now."""
    clients_waiting: int = 0
    """Those of them that nobody has adopted or accepted yet."""
    clients_total: int = 0
    """Connections there have been."""
    closed: Counter[CloseReason] = field(default_factory=Counter)
    """How the connections that ended did so."""
