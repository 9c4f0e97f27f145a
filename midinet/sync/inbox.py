"""The two hand-overs between a program's threads and the loop's: an inbox for what has arrived, an outlet
for what is to be sent.

Both are deques, whose appends and pops are atomic, and a waiting thread is a lock that the other side
releases. The order of steps is what keeps a wake-up from being lost: a waiting side first makes itself
known, then looks once more, then waits; the other side first changes the deque, then wakes who is known.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import ConnectionLost, PortClosed
from ..net.inbox import END_OF_LATE, Inbox, Source
from ..net.tasks import BackgroundTask
from .portal import Closeable, Portal, longest_wait

# Messages that may be on their way to the loop before `send` waits for it: enough for the two threads to
# take turns of a millisecond.
MAX_OUTLET = 1024

# Bytes. Whoever sends a longer message waits until the loop has taken it. So what is on its way is never more
# than 256 KiB, a quarter of what may wait for a slow peer.
_LARGE = 256

# More messages than this at once are no chord but a flood. Then, and for so many seconds after it, speed is
# what counts, and the loop writes many at once: to write one alone takes as long.
_CHORD = 16
_FLOOD_S = 0.01


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
                longest = longest_wait()
                lock.acquire(timeout=-1 if longest is None else longest)
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
        # Of reading what waited in an inbox that gave way: one thread at a time.
        self._late_lock = threading.RLock()

    def put(self, source: Source, data: bytes) -> bool:
        if super().put(source, data):
            return True
        # A reader that emptied the inbox just before did not know of this source.
        if self._low():
            self._stopped.discard(source)
            return True
        return False

    def get_nowait(self) -> Any:
        if self._has_late:
            return self._get_timely()
        try:
            entry = self._entries.popleft()
        except IndexError:
            return None
        if entry is END_OF_LATE:
            # It gave way just now.
            self._entries.appendleft(entry)
            return self._get_timely()
        if self._stopped and self._low():
            self._portal.call(self._resume_stopped)
        return entry

    def _get_timely(self) -> Any:
        with self._late_lock:
            return super()._get_timely()

    def _read_on(self) -> None:
        self._portal.call(self._catch_up)

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
    """What is on its way from any thread to the loop, in the order in which it was sent.

    To wake the loop's thread takes longer than all that it does for a message. So a message that finds
    nothing before it, and the loop asleep, is written to the socket by the thread that sends it, and goes the
    way of any other only to be noted. Order is kept by three things. A loop that sleeps has written all that
    it had. While a message is written it stays asleep. And it has that message at the head of what gathers
    here before it does anything else. A flood, which the loop writes in few pieces, is left to it.

    Args:
        deliver: called on the loop with what has gathered, and how many bytes of that were written already.
            Where it raises PortClosed or ConnectionLost it is lost, as with any socket, and the next `send`
            of the port says so.
        room: called on the loop before that: None when it can be delivered now, otherwise something to await
            until it can.
        socket: called by any thread: the descriptor to write a message to, or None where it has to go
            through the loop.
    """

    def __init__(
        self,
        portal: Portal,
        deliver: Callable[[list[Any], int], None],
        room: Callable[[], Coroutine[Any, Any, None] | None],
        socket: Callable[[Any], int | None],
    ) -> None:
        self._portal = portal
        self._deliver = deliver
        self._room = room
        self._socket = socket
        # Of the loop: the message that was written before it knew of it, and how many of its bytes were.
        self._written: list[tuple[bytes, int]] = []
        self._gathered: deque[Any] = deque()
        self._called = False
        self._flood_until = 0.0
        self._waiters = Waiters(portal)
        self._room_task: BackgroundTask | None = None
        # Whether it takes no more. A sender that has not seen that yet may lose one message, and no second.
        self.ended = False

    def __len__(self) -> int:
        return len(self._gathered)

    def send(self, thing: Any, size: int) -> None:
        """Hand something over. Waits only while too much is on its way.

        Args:
            thing: what `deliver` gets in its list.
            size: how many bytes it is.
        """
        if not self._called and self._write(thing):
            self._call()
            return
        gathered = self._gathered
        gathered.append(thing)
        if not self._called:
            self._call()
        limit = MAX_OUTLET if size < _LARGE else 1
        while len(gathered) >= limit and not self.ended:
            self._waiters.wait_unless(lambda: len(gathered) < limit or self.ended)

    def _call(self) -> None:
        try:
            self._called = True
            self._portal.call(self.drain)
        except BaseException:  # Ctrl-C just here: the next one has to call again.
            self._called = False
            raise

    def _write(self, thing: Any) -> bool:
        """Write a message at once, if nothing is before it. Returns whether that was done."""
        permit = self._portal.permit
        if permit is None or self._gathered or time.monotonic() < self._flood_until:
            return False
        if (descriptor := self._socket(thing)) is None:
            return False
        return permit.write(descriptor, thing, self._wrote)

    def _wrote(self, frame: bytes, size: int) -> None:
        self._written.append((frame, size))
        if not self._called:  # Not yet, or Ctrl-C came first.
            self._portal.loop.call_soon(self.drain)

    def drain(self, *, force: bool = False) -> None:
        """On the loop: deliver what has gathered, now with `force`, otherwise when there is room."""
        self._called = False
        if not force:
            if self._room_task is not None:
                return
            if (room := self._room()) is not None:
                self._room_task = BackgroundTask(
                    self._drain_after(room), name="midinet outlet", failed=self._fail
                )
                return
        written, self._written = self._written, []
        things: list[Any] = [frame for frame, _ in written]
        while self._gathered:
            things.append(self._gathered.popleft())
        if things:
            if len(things) > _CHORD:
                self._flood_until = time.monotonic() + _FLOOD_S
            try:
                self._deliver(things, sum([size for _, size in written]))
            except (PortClosed, ConnectionLost):
                self.ended = True
            except BaseException:
                # Whoever waits to send would wait for ever.
                self.ended = True
                self._waiters.wake()
                raise
        self._waiters.wake()

    def _fail(self, error: Exception) -> None:
        self.ended = True
        self._gathered.clear()
        self._waiters.wake()

    def end(self) -> None:
        """On the loop: take no more, and deliver what has gathered."""
        # In this order: the loop's thread may have to wait at any point, and others go on sending.
        self.ended = True
        self.drain(force=True)

    def close(self, port: Closeable) -> None:
        """On the loop: end, and begin to close what it all went to."""
        self.end()
        port._begin_close()
        self._gathered.clear()
        self._waiters.wake()

    async def _drain_after(self, room: Coroutine[Any, Any, None]) -> None:
        await room
        self._room_task = None
        self.drain()
