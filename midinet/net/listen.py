"""Listening sockets: every address of a host, IPv4 and IPv6, on one port number."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from ..address import format_address
from ..errors import ListenError

# How often another free port is looked for, when the one the system chose for the first address is taken
# on the second.
_TRIES = 20

# This machine has no such address, which is no fault while it has another one of that name.
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


async def open_listeners(host: str, portno: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets for every address of a host.

    Args:
        host: a name or an address; '' is every interface.
        portno: 0 lets the system choose one number, the same for every address.
        backlog: how many connections may wait in the system to be accepted.

    Raises:
        ListenError: none could be opened, or one is in use.
    """
    loop = asyncio.get_running_loop()
    where = format_address(host, portno)
    try:
        found = await loop.getaddrinfo(host or None, portno, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ListenError(
            getattr(error, "errno", None), f"cannot listen on {where}: unknown host or port"
        ) from error
    addresses: list[tuple[int, tuple[Any, ...]]] = list(
        dict.fromkeys((family, address) for family, _, _, _, address in found)
    )
    for _ in range(_TRIES):
        try:
            return _listen_on(addresses, backlog)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and portno == 0 and len(addresses) > 1:
                continue
            raise ListenError(error.errno, f"cannot listen on {where}: {_reason(error)}") from error
    raise ListenError(errno.EADDRINUSE, f"cannot listen on {where}: no port is free on all of its addresses")


def _listen_on(addresses: list[tuple[int, tuple[Any, ...]]], backlog: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            if sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
                continue
            sockets.append(sock)
            if os.name == "posix":
                # A server that is started again may listen at once. On Windows the same option would let
                # two servers listen on one port.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # IPv4 has a socket of its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            try:
                sock.bind(address)
                sock.listen(backlog)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
                sockets.pop().close()
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise absent or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


def _reason(error: OSError) -> str:
    return {
        errno.EADDRINUSE: "the port is in use",
        errno.EACCES: "not permitted",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }.get(error.errno or 0, error.strerror or str(error))
