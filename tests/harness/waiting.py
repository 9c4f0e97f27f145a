"""Waits for something to be so: `until` on an event loop, `wait_until` in a plain thread.

Both poll, since most of what tests wait for sets no event.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

# Far beyond what anything here takes, on a busy machine under coverage too: a wait that is over is a failure.
# Three of them, which is the most that a test takes, are below the faulthandler_timeout of pyproject.toml.
PATIENCE_S = 30.0

# Seconds between two looks at a condition, at first and at most: what takes long is looked at less often,
# which leaves a busy machine to those that are waited for.
_SHORTEST_S, _LONGEST_S = 0.001, 0.01

T = TypeVar("T")


async def until(condition: Callable[[], T], what: str = "what a test waits for") -> T:
    """Let the loop run until a condition is true, and return what it returned.

    Args:
        condition: called again and again until what it returns is true.
        what: the thing that is waited for, for the message of a failure.

    Raises:
        AssertionError: it is still not true after PATIENCE_S.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, _SHORTEST_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(pause_s)
        pause_s = min(1.2 * pause_s, _LONGEST_S)
    return result


def wait_until(condition: Callable[[], T], what: str = "what a test waits for") -> T:
    """Block until a condition is true, and return what it returned: `until` where there is no event loop."""
    deadline, pause_s = time.monotonic() + PATIENCE_S, _SHORTEST_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(pause_s)
        pause_s = min(1.2 * pause_s, _LONGEST_S)
    return result
