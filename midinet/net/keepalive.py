"""Have the system find out that a peer has vanished, and no other: keepalive, user timeout, window probes.

- Keepalive (RFC 9293 section 3.8.4) asks a peer from whom nothing came. It runs while nothing is under way.
- The user timeout (RFC 5482) gives up when what was sent is not acknowledged.
- A peer that reads nothing closes its window, and its system goes on answering the probes of it (RFC 9293
  section 3.8.6.1). It is alive and stays connected, for ever. But Linux gives it up after the user timeout
  all the same, and without one it asks ever more seldom, so that a peer that vanishes is found hours later.
  So while something waits to be sent, the user timeout is moved on in time, which also bounds the time to the
  next probe, and a peer is given up here, when its system has answered nothing for so long.

Keepalive is everywhere; Linux alone has the rest. Elsewhere a peer that vanishes while data is under way is
found when the system gives it up, after minutes, unless it said HELLO and is pinged, or there is a
`stall_timeout`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

# As parts of dead_peer_timeout. How long nothing may have been heard of a peer that was asked: with two looks
# it is below the whole.
_SILENCE = 0.85
# The pauses between two looks, while something waits to be sent and else. The system's own timeout, of nearly
# the whole, has not passed by the first look at a peer that has just stopped reading.
_LOOK, _IDLE_LOOK = 0.05, 0.3
# How far the user timeout is ahead while something waits. Window probes come no further apart.
_AHEAD = 0.3

# Linux since 6.15 (linux/tcp.h): the longest pause between two retransmissions or probes, in ms from 1,000.
_TCP_RTO_MAX_MS = 44
_LEAST_RTO_MAX_MS = 1000

# Linux's struct tcp_info (linux/tcp.h): its size with tcpi_notsent_bytes, which is there since 4.6.
_TCP_INFO_SIZE = 148
_PROBES, _UNACKED, _LAST_DATA_RECEIVED, _UNSENT = 3, 24, 52, 144


class TcpInfo(NamedTuple):
    """What the system knows of a connection."""

    in_flight: int
    """Segments that were sent and not acknowledged."""
    unsent: int
    """Bytes that wait to be sent, most often because the peer's window is closed."""
    probes: int
    """Window probes since anything was heard of the peer."""
    silent_s: float
    """Seconds since anything was heard of it: data, or an acknowledgement."""


class Verdict(NamedTuple):
    """What follows from a look at a connection."""

    user_timeout_ms: int
    """What the user timeout has to be by now."""
    next_look_s: float
    """Seconds to the next look."""
    is_dead: bool
    """Whether the peer has vanished."""


class DeadPeerRule:
    """Whether a peer has vanished, and what its user timeout has to be. Pure: time is an argument.

    Args:
        timeout: the `dead_peer_timeout`, in seconds.
        now: a monotonic time in seconds.
        paced: the system is bounded in the time between two probes by another means, so that the user timeout
            may be far ahead, for a program that keeps its loop from looking.
    """

    __slots__ = ("_ahead_s", "_asked_in_vain", "_timeout", "_waits_since")

    def __init__(self, timeout: float, now: float, *, paced: bool = False) -> None:
        self._timeout = timeout
        self._ahead_s = timeout * (1.0 if paced else _AHEAD)
        # When nothing waited to be sent, for the last time. The system counts from then or later.
        self._waits_since = now
        # It was asked, and had not answered for too long, at the last look.
        self._asked_in_vain = False

    def look(self, info: TcpInfo, now: float) -> Verdict:
        """Return what follows from a connection's state as of now."""
        timeout = self._timeout
        if not info.unsent:
            self._waits_since = now
            self._asked_in_vain = False
            return Verdict(user_timeout_ms(timeout), timeout * _IDLE_LOOK, False)
        was_asked = bool(info.in_flight or info.probes)
        in_vain = was_asked and info.silent_s >= timeout * _SILENCE
        # An answer to a question that was just asked is still on its way.
        is_dead = in_vain and self._asked_in_vain
        self._asked_in_vain = in_vain
        ahead = now - self._waits_since + self._ahead_s
        return Verdict(int(ahead * 1000), timeout * _LOOK, is_dead)


def user_timeout_ms(timeout: float) -> int:
    """Return the user timeout for a `dead_peer_timeout` in seconds, as long as nothing waits to be sent."""
    # With keepalive Linux gives up at the first question after it, and it asks each second.
    return int(max(timeout - 1, 0.7 * timeout) * 1000)


class DeadPeerWatch:
    """Looks at a socket again and again, until it is stopped.

    Args:
        loop: the running loop.
        sock: a connected TCP socket, or what a transport gives for one.
        timeout: the `dead_peer_timeout`, in seconds, 2 at least.
        vanished: called once when the peer has vanished and the system has not seen that itself.

    Raises:
        OSError: the socket is not connected any more.
    """

    __slots__ = ("_loop", "_rule", "_sock", "_timer", "_user_timeout_ms", "_vanished")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: Any, timeout: float, vanished: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._vanished = vanished
        self._timer: asyncio.TimerHandle | None = None
        # Asked each second from the middle on.
        idle = max(1, int(timeout / 2))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # macOS calls TCP_KEEPIDLE so.
        _set(sock, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", idle)
        _set(sock, "TCP_KEEPINTVL", 1)
        _set(sock, "TCP_KEEPCNT", max(1, int(timeout) - idle - 1))
        self._user_timeout_ms = user_timeout_ms(timeout)
        _set(sock, "TCP_USER_TIMEOUT", self._user_timeout_ms)
        paced = _limit_pauses(sock, int(timeout * _AHEAD * 1000))
        self._rule = DeadPeerRule(timeout, loop.time(), paced=paced)
        if tcp_info(sock) is not None:
            self._timer = loop.call_later(timeout * _IDLE_LOOK, self._look)

    def stop(self) -> None:
        """Look no more, and refer to nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sock = None

    def _look(self) -> None:
        self._timer = None
        if (info := tcp_info(self._sock)) is None:
            return  # It is gone, which others are told.
        verdict = self._rule.look(info, self._loop.time())
        if verdict.is_dead:
            self._vanished()
            return
        if verdict.user_timeout_ms != self._user_timeout_ms:
            self._user_timeout_ms = verdict.user_timeout_ms
            try:
                _set(self._sock, "TCP_USER_TIMEOUT", verdict.user_timeout_ms)
            except OSError:
                return
        self._timer = self._loop.call_later(verdict.next_look_s, self._look)


def tcp_info(sock: Any) -> TcpInfo | None:
    """Return what the system knows of a connection, or None where it does not tell.

    Args:
        sock: a TCP socket, or what a transport gives for one.
    """
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return None
    if len(info) < _TCP_INFO_SIZE:
        return None
    # tcpi_last_data_recv, and behind it tcpi_last_ack_recv.
    silent_ms = min(struct.unpack_from("=II", info, _LAST_DATA_RECEIVED))
    return TcpInfo(
        in_flight=struct.unpack_from("=I", info, _UNACKED)[0],
        unsent=struct.unpack_from("=I", info, _UNSENT)[0],
        probes=info[_PROBES],
        silent_s=silent_ms / 1000,
    )


def _limit_pauses(sock: Any, pause_ms: int) -> bool:
    """Have the system ask again after so many ms at most. Returns whether it can."""
    if sys.platform != "linux":
        return False
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, max(pause_ms, _LEAST_RTO_MAX_MS))
    except OSError:
        return False
    return True


def _set(sock: Any, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
