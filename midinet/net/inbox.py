"""Messages that have arrived and were not read yet.

- An inbox is bounded: past `max_messages`, the port that fills it stops reading its socket, TCP tells the
  peer to wait, and reading goes on when half of it has been taken. While a program reads, nothing is dropped.
  What one read of a socket brought is always taken in whole, so the bound may be passed by that much.
- A full inbox that nobody has read for 5 s gives way (unread.py), and its sources are read on. To take an
  entry is to read. A program that reads again gets what waited, without the note-ons, which would come late,
  and then what brings it to the present state.
- Frames wait here as frames and become Messages when someone reads them.
- An inbox keeps the performance that was heard, by source, so that its reader can be told to let go of what a
  source held that is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..hub.outbox import NOTE_ON
from ..hub.performance import Performance
from ..hub.release import release
from ..wire.parser import split_messages
from .unread import Unread

logger = logging.getLogger("midinet.net")

# Seconds. A program that has not read a full inbox for so long has stopped reading: it only sends, or has
# read what it wanted.
UNREAD_PATIENCE_S = 5.0

# How often in that time it is looked whether anything was read.
_LOOKS = 5

# In an inbox that gave way, what comes behind all that waited then.
END_OF_LATE = object()


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
        # Whose loop the timer is on that looks whether anything is read; None never looks.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Entries that were ever put; how many had been read at the last look that found a new one; and when.
        self._arrived = 0
        self._reads_seen = 0
        self._read_at = 0.0
        # What arrives while nobody reads; None while somebody does. The entries before END_OF_LATE are late.
        self._unread: Unread | None = None
        self._has_late = False
        # Messages that gave way.
        self.messages_unread = 0
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
        return self._make_end is not None and not self._entries and self._unread is None

    def give_way_when_unread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give way from now on when it is full and nobody reads it. It belongs to a program that may read it.

        Args:
            loop: the loop that fills it.
        """
        self._loop = loop

    def put(self, source: Source, data: bytes) -> bool:
        """Take in whole messages. Returns False when the source has to stop until its `_resume` is called."""
        if self._heard is None:
            self._heard = Performance()
        if self._unread is not None:
            now = self._now()
            self._heard.observe(data, source, now)
            self.messages_unread += self._unread.put(source, data, len(split_messages(data)), now)
            return True
        # Nobody asks when a note was struck, before the inbox gives way.
        owed = self._heard.observe(data, source, 0.0)
        self._append(source, split_messages(data))
        if owed:
            self._append(source, owed)
        if len(self._entries) < self.max_messages:
            return True
        self._stopped.add(source)
        if self._timer is None and self._loop is not None:
            self._reads_seen, self._read_at = self._arrived - len(self._entries), self._now()
            self._timer = self._loop.call_later(UNREAD_PATIENCE_S / _LOOKS, self._look)
        return False

    def release(self, source: Source) -> None:
        """The source is gone: as its last messages, take in what lets go of what only it held."""
        if self._heard is None:
            return
        released = release(self._heard, (source,))[0]
        if self._unread is not None:
            self._unread.release(source)
        else:
            self._append(source, released)

    def _append(self, source: Source, frames: Sequence[bytes]) -> None:
        self._arrived += len(frames)
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
            self._look_no_more()
        self._wake()

    def get_nowait(self) -> Any:
        """Return the next entry, or None when there is none now."""
        if self._has_late:
            return self._get_timely()
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if self._stopped and self._low():
            self._resume_stopped()
        return entry

    def _get_timely(self) -> Any:
        """Return the next entry of an inbox that gave way, or None. The note-ons of before come too late."""
        if self._unread is not None:
            self._read_on()
        while self._entries:
            entry = self._entries.popleft()
            if entry is END_OF_LATE:
                self._has_late = False
                return self.get_nowait()
            if not _is_note_on(entry[1] if self._tagged else entry):
                if self._entries and self._entries[0] is END_OF_LATE:
                    # With nothing behind it, the inbox is empty.
                    self._entries.popleft()
                    self._has_late = False
                return entry
        return None

    async def get(self) -> Any:
        """Return the next entry, waiting for it. Cancelling loses nothing.

        Raises:
            Exception: what `end` was given, once everything has been taken.
        """
        while (entry := self.get_nowait()) is None:
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
        return entry

    def take_all(self) -> list[Any]:
        """Return every entry and forget who was stopped: it is for the caller to let them go on."""
        self._stopped.clear()
        self._look_no_more()
        if self._unread is not None:
            self._catch_up()
        return list(iter(self.get_nowait, None))

    # When nobody reads.

    def _now(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _look(self) -> None:
        self._timer = None
        if not self._stopped or self._make_end is not None:
            return
        reads, now = self._arrived - len(self._entries), self._now()
        if reads != self._reads_seen:
            self._reads_seen, self._read_at = reads, now
        elif now - self._read_at >= UNREAD_PATIENCE_S:
            self._give_way()
            return
        assert self._loop is not None
        self._timer = self._loop.call_later(UNREAD_PATIENCE_S / _LOOKS, self._look)

    def _look_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_way(self) -> None:
        assert self._heard is not None
        self._unread = Unread(self._heard.copy(), by_source=self._tagged)
        frames = [entry[1] if self._tagged else entry for entry in list(self._entries)]
        self.messages_unread += sum(map(_is_note_on, frames))
        # In this order: another thread may begin to read just now.
        self._has_late = True
        self._entries.append(END_OF_LATE)
        self._arrived += 1
        logger.info("nothing was read for %g s: what arrives gives way", UNREAD_PATIENCE_S)
        self._resume_stopped()

    def _read_on(self) -> None:
        """Have the reader catch up, on the loop that fills this inbox."""
        self._catch_up()

    def _catch_up(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            assert self._heard is not None
            for source, frame in unread.catch_up(self._heard, self._now()):
                self._append(source, (frame,))
            self._wake()

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
        self._look_no_more()
        stopped, self._stopped = self._stopped, set()
        for source in stopped:
            source._resume()


def _is_note_on(frame: bytes) -> bool:
    return NOTE_ON.fullmatch(frame) is not None
