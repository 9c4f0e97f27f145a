"""The two hand-overs between a program's threads and the loop's: an inbox for what has arrived, an outlet
for what is to be sent.

Both are deques, whose appends and pops are atomic, and a waiting thread is a lock that the other side
releases. The order of steps is what keeps a wake-up from being lost: a waiting side first makes itself
known, then looks once more, then waits; the other side first changes the deque, then wakes who is known.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..errors import ConnectionLost, PortClosed
from ..net.inbox import Inbox, Source
from .portal import WAIT_S, Closeable, Portal

# Messages that may be on their way to the loop before `send` waits for it: enough for the two threads to
# take turns of a millisecond.
MAX_OUTLET = 1024

# Bytes. Whoever sends a longer message waits until the loop has taken it, so that 1,024 of them, 64 KiB each,
# cannot pile up.
_LARGE = 4096


class Waiters:
    """Threads that wait for something to change."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._locks: deque[threading.Lock] = deque()

    def __bool__(self) -> bool:
        return bool(self._locks)

    def wait_unless(self, ready: Callable[[], object]) -> None:
        """Wait for `wake`, unless `ready()` is true by then. May also return for no reason."""
        lock = threading.Lock()
        lock.acquire()
        self._locks.append(lock)
        try:
            if not ready():
                lock.acquire(timeout=WAIT_S)
        finally:
            try:
                self._locks.remove(lock)
            except ValueError:
                pass  # Woken.

    def wake(self) -> None:
        """Wake every thread that waits."""
        while not self._portal.ending:
            try:
                self._locks.popleft().release()
            except IndexError:
                return


class ThreadInbox(Inbox):
    """An inbox that the loop fills and any thread reads."""

    def __init__(self, portal: Portal, max_messages: int, *, tagged: bool = False) -> None:
        super().__init__(max_messages, tagged=tagged)
        self._portal = portal
        self._waiters: Any = Waiters(portal)

    def put(self, source: Source, frames: Sequence[bytes]) -> bool:
        if super().put(source, frames):
            return True
        # A reader that emptied the inbox just before did not know of this source.
        if self._low():
            self._stopped.discard(source)
            return True
        return False

    def get_nowait(self) -> Any:
        try:
            entry = self._entries.popleft()
        except IndexError:
            return None
        if self._stopped and self._low():
            self._portal.call(self._resume_stopped)
        return entry

    def wait(self, before: Callable[[], object] | None = None) -> Any:
        """Return the next entry, waiting for it.

        Args:
            before: called when there is nothing and this reader has been made known, before it waits.

        Raises:
            Exception: what `end` was given, once everything has been taken.
        """

        def ready() -> bool:
            if before is not None:
                before()
            return bool(self._entries) or self._make_end is not None

        while (entry := self.get_nowait()) is None:
            if self.ended:
                assert self._make_end is not None
                raise self._make_end()
            self._waiters.wait_unless(ready)
        return entry

    def _wake(self) -> None:
        self._waiters.wake()


class Outlet:
    """Frames on their way from any thread to the loop, in the order in which they were sent.

    Args:
        deliver: called on the loop with the frames that have gathered. Where it raises PortClosed or
            ConnectionLost they are lost, as with any socket, and the next `send` of the port says so.
        room: called on the loop before that: None when they can be delivered now, otherwise something to
            await until they can.
    """

    def __init__(
        self,
        portal: Portal,
        deliver: Callable[[list[bytes]], None],
        room: Callable[[], Coroutine[Any, Any, None] | None],
    ) -> None:
        self._portal = portal
        self._deliver = deliver
        self._room = room
        self._frames: deque[bytes] = deque()
        self._called = False
        self._waiters = Waiters(portal)
        self._room_task: asyncio.Task[None] | None = None
        self._ended = False

    def send(self, frame: bytes) -> None:
        """Hand a frame over. Waits only while too many are on their way."""
        self._frames.append(frame)
        if not self._called:
            self._called = True
            self._portal.call(self.drain)
        limit = MAX_OUTLET if len(frame) < _LARGE else 1
        while len(self._frames) >= limit and not self._ended:
            self._waiters.wait_unless(lambda: len(self._frames) < limit or self._ended)

    def drain(self, *, force: bool = False) -> None:
        """On the loop: deliver what has gathered, now with `force`, otherwise when there is room."""
        self._called = False
        if not force:
            if self._room_task is not None:
                return
            if (room := self._room()) is not None:
                self._room_task = self._portal.loop.create_task(
                    self._drain_after(room), name="midinet outlet"
                )
                return
        frames: list[bytes] = []
        while self._frames:
            frames.append(self._frames.popleft())
        if frames:
            try:
                self._deliver(frames)
            except (PortClosed, ConnectionLost):
                self.end()
        self._waiters.wake()

    def close(self, port: Closeable) -> None:
        """On the loop: deliver what has gathered, and begin to close what it was delivered to."""
        self.drain(force=True)
        port._begin_close()
        self.end()

    def end(self) -> None:
        """On the loop: nothing can be delivered any more."""
        self._ended = True
        self._frames.clear()
        self._waiters.wake()

    async def _drain_after(self, room: Coroutine[Any, Any, None]) -> None:
        await room
        self._room_task = None
        self.drain()
