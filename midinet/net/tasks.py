"""Background tasks: each has one owner, which is told when it dies.

asyncio says nothing of a task that ended with an error until nobody refers to it any more, and whoever waits
for what the task was to do waits for ever. So every task that nobody awaits is a `BackgroundTask`:

- An error that ends it is logged once, in one line. Its traceback goes with that line where DEBUG is enabled.
- Then its owner is called with the error, and fails with it or goes on without the task.
- Whoever else cancels it has made it fail. An event loop that ends cancels all tasks, so that is not logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..errors import UsageError

logger = logging.getLogger("midinet.tasks")

# Seconds. A cancellation can get lost: before Python 3.12 asyncio.wait_for returns its result instead, where
# that came at the same time. Longer than a task takes that ends in order.
CANCEL_AGAIN_S = 3.0


def _ignore(_: object) -> None:
    pass


class BackgroundTask:
    """A task of the running loop that one object owns.

    Args:
        work: the coroutine to run.
        name: the name of the task, for the log and for asyncio.
        failed: called on the loop with the error when the task dies. It is not called when the task returns
            or its owner cancels it.
        ended: called on the loop with this object when the task has ended, however that was; after `failed`.
    """

    __slots__ = ("_ended", "_failed", "_is_cancelled", "_task")

    def __init__(
        self,
        work: Coroutine[Any, Any, object],
        *,
        name: str,
        failed: Callable[[Exception], object] = _ignore,
        ended: Callable[[BackgroundTask], object] = _ignore,
    ) -> None:
        self._failed = failed
        self._ended = ended
        self._is_cancelled = False
        self._task = asyncio.get_running_loop().create_task(work, name=name)
        # Called also when it is cancelled before its first step.
        self._task.add_done_callback(self._on_done)

    def done(self) -> bool:
        """Whether the task has ended."""
        return self._task.done()

    def cancel(self) -> None:
        """End the task. Does not wait."""
        self._is_cancelled = True
        self._task.cancel()

    async def wait(self) -> None:
        """Wait until the task has ended, however that is. Cancelling is safe: it stops the waiting alone."""
        if not self._task.done():
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        """Cancel the task, again if need be, and wait until it has ended.

        Cancelling is safe: it stops the waiting alone.
        """
        while not self._task.done():
            self.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_AGAIN_S)

    def _on_done(self, task: asyncio.Task[object]) -> None:
        # In a circle, memory would stay until Python looks for circles.
        failed, self._failed = self._failed, _ignore
        ended, self._ended = self._ended, _ignore
        try:
            if not task.cancelled():
                error = task.exception()
                if isinstance(error, Exception):
                    _log(task.get_name(), error)
                    failed(error)
            elif not self._is_cancelled:
                failed(UsageError(f"{task.get_name()} was cancelled by somebody else"))
        finally:
            ended(self)


def _log(name: str, error: Exception) -> None:
    logger.error(
        "%s ended with an error that was not foreseen: %s: %s",
        name,
        type(error).__name__,
        error,
        exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
    )
