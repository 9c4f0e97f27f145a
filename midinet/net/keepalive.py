"""Have the system find out that a peer has vanished: TCP keepalive and the user timeout.

Keepalive (RFC 9293 section 3.8.4) asks a peer from whom nothing came; it runs only while nothing is under
way. The user timeout (RFC 5482) gives up when what was sent is not acknowledged. Both together cover an idle
connection and a busy one. The first is everywhere; Linux alone has the second, elsewhere it is left out.
"""

from __future__ import annotations

import socket


def find_dead_peers(sock: socket.socket, timeout: float) -> None:
    """Have a socket end when its peer was not heard of for `timeout` seconds, 2 at least.

    Raises:
        OSError: the socket is not connected any more.
    """
    # Asked each second from the middle on. With the user timeout set, Linux gives up at the first question
    # after it; so it has to be a second less than what was promised.
    idle = max(1, int(timeout / 2))
    questions = max(1, int(timeout) - idle - 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS calls TCP_KEEPIDLE so.
    _set(sock, "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", idle)
    _set(sock, "TCP_KEEPINTVL", 1)
    _set(sock, "TCP_KEEPCNT", questions)
    _set(sock, "TCP_USER_TIMEOUT", int((timeout - 1) * 1000))


def _set(sock: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
