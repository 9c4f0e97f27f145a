"""Running status on output: the status byte of a channel message is left out while it stays the same.

It saves a third of the bytes, and costs whoever joins or loses a byte the rest of the run, so it is an
option and off by default. Rules (MIDI 1.0 page A-1, and pages 5 and 33 for real-time): system exclusive,
system common and System Reset end the run, other real-time leaves it, and the status is repeated at least
once a second.
"""

from __future__ import annotations

import re

from .spec import COMPLETE_MESSAGE, FIRST_REAL_TIME, FIRST_SYSTEM, SYSTEM_RESET

# Page A-1 advises to repeat the status now and then; a second is the longest a receiver that missed it
# stays deaf.
REPEAT_S = 1.0

# The bytes to leave statuses out of are our own whole messages, however long.
_MESSAGE = re.compile(COMPLETE_MESSAGE.replace(b"{0,%d}", b"*"))


class RunningStatus:
    """The running status of one connection's output."""

    def __init__(self) -> None:
        self._status = -1
        self._said_at = 0.0

    def shorten(self, data: bytes, now: float) -> bytes:
        """Return `data`, which is whole messages, without the statuses the peer knows already.

        Args:
            now: a monotonic time in seconds.
        """
        out: list[bytes] = []
        for frame in _MESSAGE.findall(data):
            status = frame[0]
            if status >= FIRST_REAL_TIME:
                if status == SYSTEM_RESET:
                    self._status = -1
                out.append(frame)
            elif status >= FIRST_SYSTEM:
                self._status = -1
                out.append(frame)
            elif status == self._status and now - self._said_at < REPEAT_S:
                out.append(frame[1:])
            else:
                self._status = status
                self._said_at = now
                out.append(frame)
        return b"".join(out)

    def forget(self) -> None:
        """Something else was said, after which the peer knows no status."""
        self._status = -1
