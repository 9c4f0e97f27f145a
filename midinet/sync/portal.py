"""One event loop in a background thread, for every blocking port of the process.

The thread is a daemon, so that a program ends when its own code does, and a function at exit closes what is
open before the interpreter goes. After a fork the child has no such thread: its copies of the ports refuse
to be used, and ports that it opens itself get a loop of its own.

To wake the thread takes longer than what it does for a message. So while the loop sleeps, another thread may
write one message in its place: see `Permit`, and `Outlet` for when.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ..errors import UsageError

logger = logging.getLogger("midinet.sync")

T = TypeVar("T")

# Ctrl-C that comes just before a wait for a lock is seen when the wait is over, and on Windows so is any. So
# the main thread, which is the one to see it, waits in pieces of so many seconds.
_PIECE_S = 0.1

# How long a program that ends waits for its open ports to send what is left, in seconds.
_EXIT_S = 1.0

# Seconds that the loop waits for a message that is being written in its place, and between two looks. Writing
# never blocks, so a thousandth is plenty, and nothing that goes wrong may stop the loop for good.
_MAX_WRITE_S = 0.1
_LOOK_S = 0.00002


def longest_wait() -> float | None:
    """Seconds that this thread may wait in one piece; None is as long as it takes."""
    return _PIECE_S if threading.current_thread() is threading.main_thread() else None


class _DaemonThreads(concurrent.futures.ThreadPoolExecutor):
    """An executor whose threads hold up nobody: Python waits for those of the standard one when it ends."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=run, name="midinet lookup", daemon=True).start()
        return future


class Permit:
    """Leave to write one message in the loop's place, for as long as one sleep of the loop lasts.

    A loop sleeps only when it has done everything that it was told. So whoever has looked at a connection and
    then finds the permit good still, has seen it as it is.
    """

    def __init__(self) -> None:
        # One item while it is good. To pop it is to take it.
        self._good = [True]
        self._written: list[tuple[bool, Callable[[bytes, int], object], bytes, int]] = []

    def write(self, descriptor: int, frame: bytes, wrote: Callable[[bytes, int], object]) -> bool:
        """In any thread: write a message without blocking. Returns whether that was done.

        Args:
            wrote: called on the loop, as the first thing when it wakes, with the message and how many bytes
                of it were written: all of them, nearly always.
        """
        try:
            # All of it is one step to Python: to take the permit, to write, and to say so. Nothing comes
            # between, neither Ctrl-C nor the code of a signal handler, which could wait for the loop.
            self._written.extend(
                zip(
                    map(list.pop, (self._good,)),
                    (wrote,),
                    (frame,),
                    map(os.write, (descriptor,), (frame,)),
                    strict=False,
                )
            )
        except IndexError:
            return False  # The loop woke, or another thread was faster.
        except OSError:
            # No room, or the link broke: the loop will find that too.
            self._good.append(True)
            return False
        return True

    def end(self) -> None:
        """On the loop: it woke. Wait for who is writing right now, and tell what was written."""
        patience = time.monotonic() + _MAX_WRITE_S
        while not self._written and time.monotonic() < patience:
            try:
                self._good.pop()
                return
            except IndexError:
                time.sleep(_LOOK_S)
        for _, wrote, frame, size in self._written:
            wrote(frame, size)


class _Selector(selectors.DefaultSelector):
    """A selector that gives out a permit each time that it waits."""

    permit: Permit | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self.permit = permit = Permit()
        try:
            return super().select(timeout)
        finally:
            permit.end()


class Closeable(Protocol):
    """What is open on the loop."""

    def _begin_close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Portal:
    """The way from any thread to the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._selector: _Selector | None = None
        # The others, Windows's and uvloop's, have no selector and give no permits.
        if type(self.loop) is asyncio.SelectorEventLoop and os.name == "posix":
            self.loop.close()
            self._selector = _Selector()
            self.loop = asyncio.SelectorEventLoop(self._selector)
        # It looks up host names, which may take long after anyone has lost interest.
        self.loop.set_default_executor(_DaemonThreads(1))
        self.forked = False
        # The interpreter is about to end. Threads that are left are daemons, and stay where they are: an
        # error raised in them now would only be noise on the way out.
        self.ending = False
        # Of the loop's thread alone: how to close what is open before the loop ends.
        self.opened: dict[Closeable, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run_loop, name="midinet loop", daemon=True)
        self._thread.start()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException as error:
                # A callback of a program called sys.exit(), for one. Without the loop every blocking port of
                # the process would wait for ever.
                logger.error("%s does not end midinet's own thread", repr(error))
            else:
                return

    def check(self) -> None:
        """Raise UsageError where a call can only fail: in a forked child, or on the loop's own thread."""
        if self.forked:
            raise UsageError("this port was opened before the fork: open a new one in the child process")
        if threading.get_ident() == self._thread.ident:
            raise UsageError(
                "a blocking port cannot be used from midinet's own event loop: use the async ports there"
            )
        self._stay_if_ending()

    def _stay_if_ending(self) -> None:
        if self.ending and threading.current_thread().daemon:
            threading.Event().wait()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call a function soon. Does not wait."""
        if not self.forked and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)

    @property
    def permit(self) -> Permit | None:
        """What the loop gave out when it fell asleep last, good or not; None if it gives out none."""
        return None if self._selector is None else self._selector.permit

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, wait for it, and return what it returns.

        An interrupt (Ctrl-C) cancels it.
        """
        try:
            self.check()
            if self.loop.is_closed():
                raise UsageError("the program is ending: midinet's event loop is closed")
        except UsageError:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        longest = longest_wait()
        try:
            while True:
                try:
                    return future.result(longest)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        raise
        except BaseException:
            future.cancel()
            self._stay_if_ending()
            raise

    def stop(self) -> None:
        """Close what is open, sending what is left, and end the loop and its thread."""
        if self.forked or not self._thread.is_alive():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._close_all(), self.loop).result(2 * _EXIT_S)
        except concurrent.futures.TimeoutError:
            pass
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _close_all(self) -> None:
        self.ending = True
        opened = dict(self.opened)
        for close in opened.values():
            close()
        try:
            async with asyncio.timeout(_EXIT_S):
                for port in opened:
                    with suppress(Exception):
                        await port.wait_closed()
        except TimeoutError:
            pass
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


_portal: Portal | None = None
_lock = threading.Lock()
# A loop that is collected while it is open complains; the child of a fork has nothing to close it with.
_forked: list[Portal] = []


def get_portal() -> Portal:
    """Return this process's portal, starting it on first use."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.stop)
        return _portal


def _after_fork() -> None:
    global _portal, _lock
    # Another thread may have held it at the fork.
    _lock = threading.Lock()
    if _portal is not None:
        _portal.forked = True
        _forked.append(_portal)
        _portal = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
