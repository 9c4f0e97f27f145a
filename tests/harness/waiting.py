"""Waits for something to be so: `until` on an event loop, `wait_until` in a plain thread.

Both poll, since the conditions of tests are about systems that set no event. Nothing else in the tests does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

# Far beyond what anything here takes, on a busy machine under coverage too: a wait that is over is a failure.
# Three of them, which is the most that a test takes, are below the faulthandler_timeout of pyproject.toml.
PATIENCE_S = 30.0

# Seconds between two looks at a condition.
_PERIOD_S = 0.001

T = TypeVar("T")


async def until(condition: Callable[[], T], what: str = "what a test waits for") -> T:
    """Let the loop run until a condition is true, and return what it returned.

    Args:
        condition: is called again and again; a mere look, without side effects that count.
        what: it is, for the message of the failure.

    Raises:
        AssertionError: it is still not true after PATIENCE_S.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(_PERIOD_S)
    return result


def wait_until(condition: Callable[[], T], what: str = "what a test waits for") -> T:
    """Block until a condition is true, and return what it returned: `until` where there is no event loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(_PERIOD_S)
    return result
