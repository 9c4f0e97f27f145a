"""Time that passes when a test says so, for what waits by the event loop's clock.

Everything in `midinet.net` does: silence, patience, retries. The system's own timers (TCP's, for a dead peer)
do not hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Loop iterations in which a question and its answer get through sockets of one process.
_ITERATIONS = 10


class Clock:
    """The clock of the running loop, which can be put forward: `clock = Clock()`, `await clock.skip(5.0)`.

    It takes asyncio's own loops; others have no clock to take hold of. It holds until the loop ends.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ahead_s = 0.0
        time = loop.time
        loop.time = lambda: time() + self._ahead_s  # type: ignore[method-assign]

    async def skip(self, seconds: float, *, step_s: float = 0.05) -> None:
        """Have so much time pass, in steps, after each of which peers in this process can answer each other.

        Args:
            seconds: beyond those that pass meanwhile.
            step_s: seconds of one step. Whatever is to happen in time has to wait for longer than that.
        """
        end_s = self._ahead_s + seconds
        while self._ahead_s < end_s:
            self._ahead_s = min(self._ahead_s + step_s, end_s)
            for _ in range(_ITERATIONS):
                await asyncio.sleep(0)

    async def skip_until(
        self, condition: Callable[[], object], *, step_s: float = 0.1, most_s: float = 60.0
    ) -> None:
        """Have time pass until a condition is true.

        Raises:
            AssertionError: it is still not true after `most_s` seconds.
        """
        end_s = self._ahead_s + most_s
        while not condition():
            assert self._ahead_s < end_s, f"it is still not so after {most_s} s"
            await self.skip(step_s, step_s=step_s)
