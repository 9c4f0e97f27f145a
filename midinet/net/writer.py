"""A task that writes a backlog, and lives while there is one.

With a `stall_timeout` it gives up a peer that takes nothing for so long.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import CloseReason
from .tasks import BackgroundTask

if TYPE_CHECKING:
    from .link import Link

# How often in a stall_timeout it is looked whether a peer takes anything.
_LOOKS = 5


class Writer:
    """Hands over what waits in a link's outbox, whenever the transport takes more.

    Args:
        loop: the running loop.
        link: whose it is. It is told when nothing waits any more, or when the peer stands still.
        stall_timeout: how long a peer may take nothing at all, in seconds; None is for ever.
    """

    __slots__ = ("_link", "_loop", "_progress_at", "_stall_timeout", "_taken", "_task", "_timer", "_writable")

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, stall_timeout: float | None) -> None:
        self._loop = loop
        self._link = link
        self._stall_timeout = stall_timeout
        self._writable = asyncio.Event()
        # What the peer has taken so far, in bytes, and since when no more.
        self._taken = 0
        self._progress_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task = BackgroundTask(self._write(), name=f"midinet writer {link.peer}", failed=self._failed)
        self._look_for_progress()

    def pause(self) -> None:
        """The transport takes no more for now."""
        self._writable.clear()

    def resume(self) -> None:
        """The transport takes more."""
        self._writable.set()

    def stop(self) -> None:
        """Write no more: the connection is over."""
        self._task.cancel()
        self._watch_no_more()

    def _failed(self, error: Exception) -> None:
        self._link.error = error
        self._link.give_up(CloseReason.LOST)

    def _watch_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _write(self) -> None:
        outbox = self._link.outbox
        while True:
            await self._writable.wait()
            if not outbox.drain(self._loop.time()) and self._writable.is_set():
                break
        self._watch_no_more()
        self._link._written()

    def _look_for_progress(self) -> None:
        if self._stall_timeout is None or self._link.reason is not None:
            return
        now = self._loop.time()
        taken = self._link.count_taken()
        if taken != self._taken:
            self._taken = taken
            self._progress_at = now
        elif now - self._progress_at >= self._stall_timeout:
            self._link.give_up(CloseReason.SLOW)
            return
        self._timer = self._loop.call_later(self._stall_timeout / _LOOKS, self._look_for_progress)
