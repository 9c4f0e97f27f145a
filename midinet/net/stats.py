"""The counts of a port, and their sum over the clients of a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from ..errors import CloseReason

if TYPE_CHECKING:
    from .link import Link


@dataclass(slots=True)
class PortStats:
    """What went over a connection since it was made. Every drop is in one of these counts."""

    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    """Messages meant for the peer, with those that were dropped."""
    bytes_sent: int = 0
    """Bytes handed to the system."""
    messages_dropped: int = 0
    """Messages for the peer that were dropped because it was too slow, or gone."""
    stray_data: int = 0
    """Data bytes ignored because no status was in force."""
    stray_ends: int = 0
    """F7 bytes outside a system exclusive message."""
    undefined: int = 0
    """Undefined status bytes ignored."""
    unfinished: int = 0
    """Messages cut off by a status byte or by the end of the connection."""
    sysex_aborted: int = 0
    """System exclusive messages cut off in the same way."""
    sysex_too_long: int = 0
    """System exclusive messages longer than `max_sysex`."""

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
            stray_data=read.stray_data,
            stray_ends=read.stray_ends,
            undefined=read.undefined,
            unfinished=read.unfinished,
            sysex_aborted=read.sysex_aborted,
            sysex_too_long=read.sysex_too_long,
        )

    def add(self, other: PortStats) -> None:
        """Add another port's counts to these."""
        for count in fields(PortStats):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))


@dataclass(slots=True)
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
