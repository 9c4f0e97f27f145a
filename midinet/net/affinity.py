"""The rule that a port or server is used on the event loop that made it, and on no other.

asyncio's objects are not thread-safe. What another thread sends would wait until something else wakes the
loop, and a `receive` from another loop would never be woken. So every method first asks whether its own loop
runs it, and raises UsageError where it does not. An iteration asks at its beginning, and wherever it would
wait. Properties may be read anywhere.
"""

from __future__ import annotations

import asyncio
import sys
from threading import get_ident

from ..errors import UsageError

if sys.version_info >= (3, 12):

    def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a loop runs the caller."""
        return asyncio._get_running_loop() is loop

else:

    def runs_here(loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a loop runs the caller."""
        # Python 3.11, which changes no more, makes a system call to tell the running loop. Its loops know
        # their thread, None while they do not run, and so most of what this costs a message is saved.
        thread = getattr(loop, "_thread_id", 0)
        return asyncio._get_running_loop() is loop if thread == 0 else thread == get_ident()


def check_loop(what: object, loop: asyncio.AbstractEventLoop) -> None:
    """Raise UsageError unless a loop runs the caller.

    Args:
        what: the port or server that was called.
        loop: the event loop that made it.
    """
    if not runs_here(loop):
        raise wrong_loop_error(what, loop)


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
