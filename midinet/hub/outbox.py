"""What one peer has still to be sent.

While the peer takes what it is given, an outbox keeps nothing: `offer` hands the bytes straight to the
transport. From the moment that the transport pushes back they stay here, where they are counted and
bounded, and the writer task of the peer's link takes them from here when it may write again.

An outbox is also how a hub knows a peer: it is the origin of what the peer sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..wire.running import RunningStatus

# Bytes that may wait for one peer. At 3 bytes a message and 1,000 messages/s this is five minutes of
# playing, far more than a network hiccup, and 100 stalled peers still cost no more than 100 MiB.
DEFAULT_MAX_OUTBOX = 1 << 20

# Bytes of backlog handed over at once.
_PIECE = 65536


@dataclass(slots=True)
class OutboxStats:
    """What an outbox has handed over and what it could not."""

    messages: int = 0
    """Messages meant for the peer."""
    bytes: int = 0
    """Bytes handed to the transport."""
    dropped: int = 0
    """Messages dropped because the peer was too slow for `max_outbox`, or was gone."""


class Outbox:
    """The way out to one peer.

    Args:
        write: hands bytes to the transport, without waiting.
        overflow: called once, when the backlog passes `max_bytes`; from then on messages are dropped.
        max_bytes: the bound of the backlog, in bytes.
        running_status: leave out repeated status bytes.
    """

    __slots__ = (
        "_backlog",
        "_overflow",
        "_running",
        "_write",
        "backlog_bytes",
        "max_bytes",
        "open",
        "stalled",
        "stats",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        overflow: Callable[[], None],
        *,
        max_bytes: int = DEFAULT_MAX_OUTBOX,
        running_status: bool = False,
    ) -> None:
        self._write = write
        self._overflow = overflow
        self._running = RunningStatus() if running_status else None
        self._backlog: deque[tuple[bytes, int]] = deque()
        self.backlog_bytes = 0
        self.max_bytes = max_bytes
        self.stats = OutboxStats()
        # The transport pushes back: what is offered waits here.
        self.stalled = False
        # What is offered still goes somewhere. A backlog can be drained after that has ended.
        self.open = True

    def offer(self, data: bytes, messages: int, now: float) -> None:
        """Send whole messages to the peer, at once if it keeps up. Never waits, never raises.

        Args:
            data: the messages' bytes.
            messages: how many they are.
            now: a monotonic time in seconds.
        """
        stats = self.stats
        stats.messages += messages
        if not self.open:
            stats.dropped += messages
        elif not self.stalled:
            self._hand_over(data, now)
        elif not self._backlog or self.backlog_bytes + len(data) <= self.max_bytes:
            # One piece always finds room, however small the bound.
            self._backlog.append((data, messages))
            self.backlog_bytes += len(data)
        else:
            stats.dropped += messages
            self.open = False
            self._overflow()

    def drain(self, now: float) -> bool:
        """Hand over a piece of the backlog. Returns whether more is left.

        Args:
            now: a monotonic time in seconds.
        """
        piece: list[bytes] = []
        size = 0
        while self._backlog and size < _PIECE:
            data, _ = self._backlog.popleft()
            size += len(data)
            piece.append(data)
        self.backlog_bytes -= size
        if piece:
            self._hand_over(b"".join(piece), now)
        return bool(self._backlog)

    def close(self) -> None:
        """Drop the backlog and whatever is offered from now on, and count it."""
        self.open = False
        self.stats.dropped += sum([messages for _, messages in self._backlog])
        self._backlog.clear()
        self.backlog_bytes = 0

    def _hand_over(self, data: bytes, now: float) -> None:
        if self._running is not None:
            data = self._running.shorten(data, now)
        self.stats.bytes += len(data)
        self._write(data)
