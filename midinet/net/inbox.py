"""What has arrived and not been read yet.

An inbox is bounded: past `max_messages`, the port that fills it stops reading its socket, TCP tells the peer
to wait, and reading goes on when half of it has been taken. Nothing is dropped. What one read of a socket
brought is always taken in whole, so the bound may be passed by that much.

Frames wait here as frames and become Messages when someone reads them.

An inbox keeps the performance that was heard, by source, so that its reader can be told to let go of what a
source held that is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..hub.performance import Performance
from ..hub.release import release
from ..wire.parser import split_messages


class Source(Protocol):
    """Whoever fills an inbox, and can be told to go on after it was told to stop."""

    def _resume(self) -> None: ...
    def __hash__(self) -> int: ...


class Inbox:
    """A bounded queue of frames, or of (source, frame), for readers on one event loop.

    Args:
        max_messages: how many may wait before the sources are stopped.
        tagged: keep with each frame the source that it came from.
    """

    def __init__(self, max_messages: int, *, tagged: bool = False) -> None:
        self.max_messages = max_messages
        self._tagged = tagged
        self._entries: deque[Any] = deque()
        self._stopped: set[Source] = set()
        self._waiters: deque[Any] = deque()
        self._make_end: Callable[[], Exception] | None = None
        # Made when something arrives: most of ten thousand clients never say a word.
        self._heard: Performance | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def awaited(self) -> bool:
        """Whether a reader waits for something to arrive."""
        return bool(self._waiters)

    @property
    def ended(self) -> bool:
        """Whether nothing more will arrive and everything has been taken."""
        return self._make_end is not None and not self._entries

    def put(self, source: Source, data: bytes) -> bool:
        """Take in whole messages. Returns False when the source has to stop until its `_resume` is called."""
        if self._heard is None:
            self._heard = Performance()
        # Nobody asks here when a note was struck.
        owed = self._heard.observe(data, source, 0.0)
        self._append(source, split_messages(data))
        if owed:
            self._append(source, owed)
        if len(self._entries) < self.max_messages:
            return True
        self._stopped.add(source)
        return False

    def release(self, source: Source) -> None:
        """The source is gone: as its last messages, take in what lets go of what only it held."""
        if self._heard is not None:
            self._append(source, release(self._heard, (source,))[0])

    def _append(self, source: Source, frames: Sequence[bytes]) -> None:
        if self._tagged:
            self._entries.extend([(source, frame) for frame in frames])
        else:
            self._entries.extend(frames)
        if self._waiters:
            self._wake()

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Nothing more will arrive: once everything has been taken, readers get the error made here."""
        if self._make_end is None:
            self._make_end = make_error
        self._wake()

    def get_nowait(self) -> Any:
        """Return the next entry, or None when there is none now."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if self._stopped and self._low():
            self._resume_stopped()
        return entry

    async def get(self) -> Any:
        """Return the next entry, waiting for it. Cancelling loses nothing.

        Raises:
            Exception: what `end` was given, once everything has been taken.
        """
        while not self._entries:
            if self._make_end is not None:
                raise self._make_end()
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                # Still in the queue if it was cancelled before it was woken.
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.get_nowait()

    def take_all(self) -> list[Any]:
        """Return every entry and forget who was stopped: it is for the caller to let them go on."""
        entries = list(self._entries)
        self._entries.clear()
        self._stopped.clear()
        return entries

    def _wake(self) -> None:
        # Everybody: those who find nothing wait again. There is seldom more than one, and this way a reader
        # that is cancelled after it was woken takes nobody's turn.
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _low(self) -> bool:
        return len(self._entries) <= self.max_messages // 2

    def _resume_stopped(self) -> None:
        stopped, self._stopped = self._stopped, set()
        for source in stopped:
            source._resume()
