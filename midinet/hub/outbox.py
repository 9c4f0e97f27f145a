"""What one peer has still to be sent.

While the peer takes what it is given, an outbox keeps nothing: `offer` hands the bytes straight to the
transport. From the moment that the transport pushes back they stay here, where they are counted and
bounded, and the writer task of the peer's link takes them from here when it may write again.

What waits is bounded in bytes, messages and age. Past that, with `slow="thin"`, it gives way to the
difference: the outbox remembers the performance as of the last byte it handed over, and a peer that reads
again gets what takes it from there to the present one. What no performance holds (system exclusive, song
select, tune request) is kept in order, up to the hard bound. Three things never wait, being worth nothing
late: clock, active sensing, and note-ons after `LATE_NOTE_S`.

With `slow="disconnect"` everything waits, up to the hard bound, and then the peer is given up.

An outbox is also how a hub knows a peer: it is the origin of what the peer sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from ..wire.running import RunningStatus
from .difference import difference
from .performance import Performance
from .policy import SysexRule

SlowPolicy = Literal["thin", "disconnect"]

# Bytes that may wait for one peer, whatever they are. A bank of patches is 32 KiB; 100 stalled peers cost no
# more than 100 MiB.
DEFAULT_MAX_OUTBOX = 1 << 20

# Bytes, messages and seconds of backlog, past which a peer is better served with the difference. 256 KiB are
# 87,000 notes, a tenth of a second at the highest speed a peer can be sent anything; a second of playing
# that comes late is one that nobody wants to hear any more.
DEFAULT_SOFT_OUTBOX = 1 << 18
DEFAULT_SOFT_MESSAGES = 1 << 17
DEFAULT_SOFT_AGE_S = 1.0

# Seconds. A note that is struck later than this is a wrong note: at a moderate tempo it is the next eighth's.
LATE_NOTE_S = 0.2

# Bytes of backlog handed over at once.
_PIECE = 65536

# In bytes that are whole messages these are what they look like: no data byte is above 7F.
# A note-on, with the controller before it that belongs to it: portamento control or high resolution velocity.
NOTE_ON = re.compile(rb"(?:[\xb0-\xbf][\x54\x58][\x00-\x7f])?[\x90-\x9f][\x00-\x7f][\x01-\x7f]")
_KEPT = re.compile(rb"\xf0[\x00-\x7f]*\xf7|\xf3[\x00-\x7f]|\xf6")
_MOVED = re.compile(rb"[\xf2\xfa-\xfc\xff]")
_NEVER_WAITING = b"\xf8\xfe"
_CLOCK = b"\xf8"

# Where no transport stands: it has to be put where it shall be.
_NOWHERE = -1000


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """What may wait for one peer."""

    slow: SlowPolicy = "thin"
    max_bytes: int = DEFAULT_MAX_OUTBOX
    soft_bytes: int = DEFAULT_SOFT_OUTBOX
    soft_messages: int = DEFAULT_SOFT_MESSAGES
    soft_age: float = DEFAULT_SOFT_AGE_S


@dataclass(slots=True)
class OutboxStats:
    """What an outbox has handed over and what it could not. Every message is in `messages` and, if the peer
    does not get it, in one of the others."""

    messages: int = 0
    """Messages meant for the peer."""
    bytes: int = 0
    """Bytes handed to the transport."""
    dropped: int = 0
    """Dropped because the peer was gone, or because of the hard bound."""
    thinned: int = 0
    """Messages of a backlog that gave way to the difference."""
    late_notes: int = 0
    """Note-ons, and controllers that belong to one, that were not sent because they would have come too
    late."""
    late_clocks: int = 0
    """Clock and active sensing that were not sent because they would have come too late."""
    sysex_refused: int = 0
    """System exclusive messages that this peer may not hear."""
    caught_up: int = 0
    """Messages that were sent in place of a backlog."""
    episodes: int = 0
    """How often the peer was so slow that its backlog gave way, until it kept up again."""


@dataclass(slots=True)
class _Group:
    """A part of the backlog that is handed over as a whole, so that it is known what the peer has then."""

    entries: list[tuple[bytes, int, float]] = field(default_factory=list)
    size: int = 0
    # The performance after it; None while it may grow.
    after: Performance | None = None


@lru_cache(maxsize=1)
def kept_frames(data: bytes) -> list[bytes]:
    """Return the messages that no performance holds: system exclusive, song select, tune request.

    Outboxes that are offered the same data share the list, and its memory.

    Args:
        data: whole messages, joined.
    """
    return _KEPT.findall(data)


def _to_nobody(data: bytes = b"") -> None:
    pass


class Outbox:
    """The way out to one peer.

    Args:
        write: hands bytes to the transport, without waiting.
        overflow: called once, when the backlog passes the hard bound; from then on messages are dropped.
        limits: the bounds.
        running_status: leave out repeated status bytes.
    """

    __slots__ = (
        "_as_of",
        "_backlog",
        "_clocks_missed",
        "_in_episode",
        "_kept",
        "_lost_count",
        "_moved",
        "_overflow",
        "_performance",
        "_running",
        "_waiting_messages",
        "_write",
        "backlog_bytes",
        "grew_slow",
        "in_tune",
        "limits",
        "open",
        "stalled",
        "stats",
        "sysex",
        "sysex_stopped",
        "thinned",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        overflow: Callable[[], object],
        *,
        limits: OutboxLimits = OutboxLimits(),
        running_status: bool = False,
    ) -> None:
        self._write = write
        self._overflow = overflow
        self.limits = limits
        self._running = RunningStatus() if running_status else None
        # What the peer may hear; None is everything.
        self.sysex: SysexRule | None = None
        # Called when it may not hear what it was offered.
        self.sysex_stopped: Callable[[], object] = _to_nobody
        # Called when its backlog gives way, once until it keeps up again.
        self.grew_slow: Callable[[], object] = _to_nobody
        self._in_episode = False
        self.stats = OutboxStats()
        # What is offered still goes somewhere. A backlog can be drained after that has ended.
        self.open = True
        # The transport pushes back: what is offered waits here.
        self.stalled = False
        # The backlog gave way: the peer gets the difference when it reads again.
        self.thinned = False
        # The peer was told, live or by a snapshot, all that was set before it came. If not, the first
        # difference tells it everything.
        self.in_tune = True
        self.backlog_bytes = 0
        self._waiting_messages = 0
        # Lists, which cost a peer for which nothing waits a tenth of what a deque would.
        self._backlog: list[_Group] = []
        self._kept: list[bytes] = []
        # Clocks left out of this backlog, and whether the song was moved or halted meanwhile.
        self._clocks_missed = 0
        self._moved = self._lost_count = False
        # What this peer shall have by now, frozen; and what it has, as of the last byte handed over.
        self._performance: Callable[[Outbox], Performance] | None = None
        self._as_of: Performance | None = None

    def follow(self, performance: Callable[[Outbox], Performance] | None) -> None:
        """Catch up, when that is needed, with the performance that this returns for an outbox. None is
        nothing to catch up with: all that waits is sent."""
        self._performance = performance

    def offer(self, data: bytes, messages: int, now: float) -> None:
        """Send whole messages to the peer, at once if it keeps up. Never waits, never raises.

        Args:
            data: the messages' bytes.
            messages: how many they are.
            now: a monotonic time in seconds.
        """
        stats = self.stats
        stats.messages += messages
        if self.sysex is not None and (passed := self.sysex.pass_bytes(data))[1]:
            data, refused = passed
            stats.sysex_refused += refused
            self.sysex_stopped()
            messages -= refused
            if not data:
                return
        if not self.open:
            stats.dropped += messages
        elif self.stalled:
            self._hold(data, messages, now)
        elif self._running is not None:
            self._hand_over(data, now)
        else:
            stats.bytes += len(data)
            self._write(data)

    def say(self, aside: bytes) -> None:
        """Send an aside if the peer keeps up. Late, it would be of no use, and it is dropped."""
        if self.open and not self.stalled:
            if self._running is not None:
                self._running.forget()
            self.stats.bytes += len(aside)
            self._write(aside)

    def stall(self) -> None:
        """The transport pushes back."""
        if not self.stalled:
            self.stalled = True
            self._remember()

    def flow(self) -> None:
        """The transport takes what it is given again, and nothing waits."""
        self.stalled = self._in_episode = False
        self._as_of = None

    def drain(self, now: float) -> bool:
        """Hand over a piece of what waits. Returns whether more is left.

        Args:
            now: a monotonic time in seconds.
        """
        if self._backlog:
            group = self._backlog.pop(0)
            self.backlog_bytes -= group.size
            self._waiting_messages -= sum([messages for _, messages, _ in group.entries])
            self._as_of = group.after
            if group.after is not None and group.after.running and self._clocks_missed:
                # How many of the clocks that were left out belonged to this group, nobody knows. Should
                # the rest give way, it is not known where the peer stands.
                self._lost_count = True
            data = b"".join([self._in_time(data, at, now) for data, _, at in group.entries])
        else:
            count = size = 0
            while count < len(self._kept) and size < _PIECE:
                size += len(self._kept[count])
                count += 1
            self.backlog_bytes -= size
            data = b"".join(self._kept[:count])
            del self._kept[:count]
        if not self._backlog and not self._kept:
            data += self._catch_up(now)
            self._remember()
        if data:
            self._hand_over(data, now)
        return bool(self._backlog or self._kept or self.thinned)

    def close(self) -> None:
        """Drop what waits and whatever is offered from now on, and count it."""
        self.open = False
        self.stats.dropped += self._waiting_messages + len(self._kept)
        self._backlog.clear()
        self._kept.clear()
        self.backlog_bytes = self._waiting_messages = 0
        self._performance = self._as_of = None

    def let_go(self) -> None:
        """Refer to nothing any more. It is closed, and only counts."""
        self._write = self._overflow = self.sysex_stopped = self.grew_slow = _to_nobody

    def _hand_over(self, data: bytes, now: float) -> None:
        if self._running is not None:
            data = self._running.shorten(data, now)
        self.stats.bytes += len(data)
        self._write(data)

    # While the transport pushes back.

    def _hold(self, data: bytes, messages: int, now: float) -> None:
        limits = self.limits
        timely = data if limits.slow == "disconnect" else data.translate(None, _NEVER_WAITING)
        if len(timely) < len(data):
            self._clocks_missed += data.count(_CLOCK)
            self.stats.late_clocks += len(data) - len(timely)
            messages -= len(data) - len(timely)
            data = timely
            if not data:
                return
        if self.thinned:
            self._keep(data, messages)
            return
        size = self.backlog_bytes + len(data)
        if limits.slow == "thin" and self._performance is not None:
            if (
                size > min(limits.soft_bytes, limits.max_bytes)
                or self._waiting_messages + messages > limits.soft_messages
                or (self._backlog and now - self._backlog[0].entries[0][2] > limits.soft_age)
            ):
                self._thin()
                self._keep(data, messages)
                return
        elif size > limits.max_bytes and self._backlog:
            # One piece always finds room, however small the bound.
            self.stats.dropped += messages
            self.open = False
            self._overflow()
            return
        self._moved = self._moved or _MOVED.search(data) is not None
        if not self._backlog or self._backlog[-1].after is not None:
            self._backlog.append(_Group())
        group = self._backlog[-1]
        group.entries.append((data, messages, now))
        group.size += len(data)
        self.backlog_bytes = size
        self._waiting_messages += messages
        if group.size >= _PIECE and self._performance is not None:
            group.after = self._performance(self)

    def _thin(self) -> None:
        self.thinned = True
        if not self._in_episode:
            self._in_episode = True
            self.stats.episodes += 1
            self.grew_slow()
        backlog, self._backlog = self._backlog, []
        self.backlog_bytes = self._waiting_messages = 0
        for group in backlog:
            for data, messages, _ in group.entries:
                self._keep(data, messages)

    def _keep(self, data: bytes, messages: int) -> None:
        for frame in kept_frames(data):
            messages -= 1
            if self.backlog_bytes + len(frame) <= self.limits.max_bytes:
                self._kept.append(frame)
                self.backlog_bytes += len(frame)
            else:
                self.stats.dropped += 1
        self.stats.thinned += messages

    def _in_time(self, data: bytes, at: float, now: float) -> bytes:
        if now - at <= LATE_NOTE_S or self.limits.slow == "disconnect":
            return data
        timely = NOTE_ON.sub(b"", data)
        self.stats.late_notes += (len(data) - len(timely)) // 3
        return timely

    def _remember(self) -> None:
        if self._performance is not None and self.limits.slow == "thin":
            self._as_of = self._performance(self)

    def _known(self, present: Performance) -> Performance:
        """What the peer has, as far as that is known."""
        if self._as_of is not None:
            known = self._as_of.view(self)
        else:
            known = Performance()
            known.resets = present.resets
        if not self.in_tune:
            known.doubt(present)
            if known.running or known.clock or present.running or present.clock:
                # Whether the song plays for the peer, and where, nobody knows: it may have missed the start.
                known.running = known.running or present.running
                known.clock = _NOWHERE
        self.in_tune = True
        return known

    def _catch_up(self, now: float) -> bytes:
        """What is owed to a peer that has got all that was kept for it."""
        frames: list[bytes] = []
        if self._performance is not None and (self.thinned or self._clocks_missed):
            present = self._performance(self).view(self)
            before = present.copy()
            if self.thinned:
                before = self._known(present)
            elif present.running:
                before.clock -= self._clocks_missed
            if self._clocks_missed and (self._moved or (self.thinned and self._lost_count)):
                before.clock = _NOWHERE
            frames = difference(before, present, struck_since=now - LATE_NOTE_S)
            self.stats.caught_up += len(frames)
        self.thinned = self._moved = self._lost_count = False
        self._clocks_missed = 0
        return b"".join(frames)
