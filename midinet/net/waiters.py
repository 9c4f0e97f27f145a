"""Coroutines that wait for something to change."""

from __future__ import annotations

import asyncio


class Waiters:
    """Whoever waits for the next `wake`, in the order in which they came."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        # A dictionary, which keeps the order. Made when somebody waits: for most idle clients nobody does.
        self._futures: dict[asyncio.Future[None], None] | None = None

    async def wait(self) -> None:
        """Wait for `wake`. Cancelling is safe."""
        future = asyncio.get_running_loop().create_future()
        if self._futures is None:
            self._futures = {}
        self._futures[future] = None
        try:
            await future
        finally:
            del self._futures[future]

    def wake(self) -> None:
        """Wake everybody."""
        for future in self._futures or ():
            if not future.done():
                future.set_result(None)
