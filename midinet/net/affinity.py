"""The rule that a port or server is used on the event loop that made it, and on no other.

asyncio's objects are not thread-safe. What another thread sends would wait until something else wakes the
loop, and a `receive` from another loop would never be woken. So every method first compares the loop that
runs it with its own, and raises UsageError where these differ. Properties may be read anywhere.
"""

from __future__ import annotations

import asyncio

from ..errors import UsageError


def wrong_loop_error(what: object, loop: asyncio.AbstractEventLoop) -> UsageError:
    """Return the error of a call from another thread or event loop.

    Args:
        what: the port or server that was called.
        loop: the event loop that made it.
    """
    if loop.is_closed():
        return UsageError(f"{what!r} belongs to an event loop that has ended: open a new one in this one")
    return UsageError(
        f"{what!r} belongs to another event loop: hand the call to that one by "
        "asyncio.run_coroutine_threadsafe(...), or use midinet.sync, whose ports any thread may use"
    )


def check_loop(what: object, loop: asyncio.AbstractEventLoop) -> None:
    """Raise UsageError unless a loop runs the caller.

    On the paths that every message takes, the comparison stands in place of this call.

    Args:
        what: the port or server that was called.
        loop: the event loop that made it.
    """
    if asyncio._get_running_loop() is not loop:
        raise wrong_loop_error(what, loop)
