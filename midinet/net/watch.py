"""What tells whether a peer is still with us: timers that watch for silence, and what it has taken."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

# Where tcpi_bytes_acked stands in Linux's struct tcp_info (linux/tcp.h, since 4.1), 8 bytes.
_BYTES_ACKED = 120
_TCP_INFO_SIZE = _BYTES_ACKED + 8


class Watchdog:
    """Calls `expired` when it has not been fed for so long, and is then off until it is fed again.

    Feeding costs next to nothing: one timer is set for the whole time that it is being fed, and looks how
    much is left when it ends.

    Args:
        seconds: how long; it may be any time after that.
    """

    __slots__ = ("_expired", "_fed_at", "_loop", "_timer", "seconds")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[], object]
    ) -> None:
        self._loop = loop
        self.seconds = seconds
        self._expired = expired
        self._fed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self) -> None:
        """Begin to watch, or go on from now."""
        self._fed_at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self.seconds, self._look)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def on(self) -> bool:
        """Whether it watches."""
        return self._timer is not None

    def _look(self) -> None:
        left = self._fed_at + self.seconds - self._loop.time()
        # A clock's own grain is no reason for another timer.
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._timer = None
            self._expired()


def acknowledged(sock: Any) -> int | None:
    """Return how many bytes the peer's system has taken, or None where that cannot be known.

    What a transport has handed over says less. The system's send buffer has to be half empty before it takes
    more, and under TLS another buffer lies between: a peer that reads little by little would seem to stand
    still. Linux alone tells.

    Args:
        sock: a TCP socket, or what a transport gives for one.
    """
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return None
    return int(struct.unpack_from("=Q", info, _BYTES_ACKED)[0]) if len(info) == _TCP_INFO_SIZE else None
