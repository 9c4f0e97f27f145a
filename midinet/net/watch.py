"""What tells whether a peer is still with us: timers that watch for silence, and what it has taken."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import CloseReason
from ..wire.aside import ping

if TYPE_CHECKING:
    from .link import Link

# A peer that sends active sensing does so every 300 ms at least (MIDI 1.0 page 30); with 40 % more, as later
# revisions of the page have it, a slow clock or network is no reason to cut notes. In seconds.
_SENSING_S = 0.42
ACTIVE_SENSING = b"\xfe"

# Seconds of silence in the middle of a system exclusive message, after which it is given up: the slowest
# sampler's dump pauses for less.
_SYSEX_SILENCE_S = 10.0

# How many pings of a peer may stay without anything heard before it is taken for dead.
_PINGS = 3

# And the pause between them, as a part of dead_peer_timeout: a little less than a third, so that it is kept.
_PING_SHARE = 0.3

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


class Watch:
    """What is watched of one link's peer, once there is reason to: that it answers pings, that its active
    sensing goes on, and that it ends a system exclusive message. Whatever arrives feeds all of them."""

    __slots__ = ("_link", "_loop", "_pings", "_pulse", "_sensing", "_sysex", "_taken_when_asked")

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link) -> None:
        self._loop = loop
        self._link = link
        self._pulse: Watchdog | None = None
        self._pings = 0
        self._taken_when_asked = 0
        self._sensing: Watchdog | None = None
        self._sysex: Watchdog | None = None

    def heard(self, data: bytes) -> None:
        """Take note of what has arrived, after it was parsed."""
        if self._pulse is not None:
            self._pings = 0
            self._pulse.feed()
        if self._link.parser.in_sysex:
            if self._sysex is None:
                self._sysex = Watchdog(self._loop, _SYSEX_SILENCE_S, self._sysex_fell_silent)
            self._sysex.feed()
        elif self._sysex is not None:
            self._sysex.stop()
        if self._link.heeds_sensing and ACTIVE_SENSING in data:
            if self._sensing is None:
                self._sensing = Watchdog(self._loop, _SENSING_S, self._sensing_fell_silent)
            self._sensing.feed()
        elif self._sensing is not None and self._sensing.on:
            self._sensing.feed()

    def reads_again(self) -> None:
        """What the peer said while nobody listened is still to be read."""
        for watchdog in (self._sensing, self._sysex):
            if watchdog is not None and watchdog.on:
                watchdog.feed()

    def ask(self, timeout: float) -> None:
        """From now on ping the peer whenever it is silent, and give it up if it stays so for `timeout`
        seconds."""
        if self._pulse is None:
            self._pulse = Watchdog(self._loop, timeout * _PING_SHARE, self._ask)
            self._pulse.feed()

    def stop(self) -> None:
        """Watch no more."""
        for watchdog in (self._pulse, self._sensing, self._sysex):
            if watchdog is not None:
                watchdog.stop()
        # Watchdogs refer to this.
        self._pulse = self._sensing = self._sysex = None

    def _sensing_fell_silent(self) -> None:
        if not self._link.held:
            self._link.owner._link_fell_silent()
        elif self._sensing is not None:
            # It is this side that does not listen.
            self._sensing.feed()

    def _sysex_fell_silent(self) -> None:
        if not self._link.held:
            self._link.parser.abort_sysex()
        elif self._sysex is not None:
            self._sysex.feed()

    def _ask(self) -> None:
        if self._pulse is None:
            return
        link = self._link
        taken_before, self._taken_when_asked = self._taken_when_asked, link.count_taken()
        if link.held or (link.outbox.stalled and self._taken_when_asked != taken_before):
            # It is this side that does not listen, or the peer is so slow that no ping gets through, but it
            # takes what it is sent.
            self._pings = 0
        elif self._pings == _PINGS - 1:
            link.give_up(CloseReason.TIMEOUT)
            return
        self._pings += 1
        self._pulse.feed()
        link.say(ping())


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
