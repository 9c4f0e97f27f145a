"""Lines for standard output, written by a thread of their own.

A terminal that is stopped with Ctrl-S, or a pipe that nobody empties, blocks whoever writes to it. Here that
is a thread, and never the event loop: who has a line either has it dropped and counted while there is no
room (`offer`), or waits for room and lets the loop go on (`put`).

The thread writes to the descriptor itself. Through sys.stdout it would hold a lock that Python needs to end.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

# Lines. More than anybody reads at once; they take 0.2 MB.
DEFAULT_MAX_LINES = 2000


class OutputGone(Exception):
    """Nobody reads standard output any more, or it cannot be written: `cause` is the system's error."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Printer:
    """Writes lines to standard output. Made and used on one event loop, as an async context manager.

    Args:
        max_lines: how many may wait to be written.
        pause_s: how long the thread rests after each write, in seconds, to write many lines at once: each
            write is a change of threads, which costs the event loop more than the line itself.
        missed_line: says how many lines were dropped, which it has a `{}` for.

    Attributes:
        gone: a future that ends with OutputGone when there is nobody to write for.
    """

    def __init__(
        self,
        *,
        max_lines: int = DEFAULT_MAX_LINES,
        pause_s: float = 0.0,
        missed_line: str = "... {} lines not shown",
    ) -> None:
        self._max_lines = max_lines
        self._pause_s = pause_s
        self._missed_line = missed_line
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        # Guards all that follows but the constants. Nobody keeps it while waiting or writing.
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._missed = 0
        self._is_writing = False
        self._is_ending = False
        self._waiters: list[asyncio.Future[None]] = []
        self._output = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._watches_pipe = False

    async def __aenter__(self) -> Self:
        threading.Thread(target=self._write_lines, name="midinet printer", daemon=True).start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Let the thread end once it has nothing to write. To wait for that, `flush` before."""
        self._stop_watching()
        if self.gone.done():
            self.gone.exception()  # It may be that nobody cared, which is no fault.
        with self._changed:
            self._is_ending = True
            self._changed.notify()

    def offer(self, *words: object, spare: int = 0) -> None:
        """Write a line if there is room, and count it as missed otherwise.

        Args:
            words: what the line is made of; they become text only if there is room.
            spare: how many lines past the limit there is room for this one, in a case that matters more.
        """
        if len(self._lines) < self._max_lines + spare:
            line = " ".join(map(str, words))
            with self._changed:
                self._lines.append(line)
                self._changed.notify()
        else:
            with self._changed:
                self._missed += 1

    async def put(self, line: str) -> None:
        """Write a line, waiting for room. Cancelling is safe: a cancelled call writes nothing.

        Raises:
            OutputGone: there is nobody to write for.
        """
        while True:
            if self.gone.done():
                self.gone.result()
            with self._changed:
                if len(self._lines) < self._max_lines:
                    self._lines.append(line)
                    self._changed.notify()
                    return
                waiter = self._new_waiter()
            await waiter

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything is written, or nobody is there to write for.

        Args:
            timeout: how long to wait at most, in seconds; None is without end.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self.gone.done():
                    with self._changed:
                        if not (self._lines or self._missed or self._is_writing):
                            return
                        waiter = self._new_waiter()
                    await waiter
        except TimeoutError:
            pass

    def watch_reader(self) -> None:
        """Notice at once that the reader of a pipe has left, not at the next line: `| head -1` then ends."""
        try:
            if stat.S_ISFIFO(os.fstat(self._output).st_mode):
                # The writing end of a pipe becomes readable only when the other end is closed.
                self._loop.add_reader(self._output, self._lose, BrokenPipeError())
                self._watches_pipe = True
        except (OSError, NotImplementedError):
            pass  # The next line will tell.

    def _stop_watching(self) -> None:
        if self._watches_pipe:
            self._watches_pipe = False
            self._loop.remove_reader(self._output)

    def _lose(self, cause: OSError) -> None:
        self._stop_watching()
        if not self.gone.done():
            self.gone.set_exception(OutputGone(cause))
        with self._changed:
            waiters, self._waiters = self._waiters, []
        _finish(waiters)

    def _new_waiter(self) -> asyncio.Future[None]:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    # The thread.

    def _write_lines(self) -> None:
        while lines := self._next_lines():
            try:
                text = "".join(f"{line}\n" for line in lines)
                write_all(self._output, text.encode(self._encoding, "backslashreplace"))
            except OSError as error:
                self._tell(self._lose, error)
                return
            time.sleep(self._pause_s)

    def _next_lines(self) -> list[str]:
        with self._changed:
            self._is_writing = False
            self._wake_waiters()  # Those who wait for the end of a write.
            while not (self._lines or self._missed or self._is_ending):
                self._changed.wait()
            lines, self._lines = self._lines, []
            if self._missed:
                lines.append(self._missed_line.format(self._missed))
                self._missed = 0
            self._is_writing = bool(lines)
            self._wake_waiters()  # Those who wait for room.
            return lines

    def _wake_waiters(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            self._tell(_finish, waiters)

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            pass  # The loop is over: nobody waits.


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a descriptor, waiting for it as long as it takes.

    Raises:
        OSError: nobody is there to read it.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Somebody who shares the descriptor made it non-blocking.
            select.select([], [descriptor], [])


def _finish(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
