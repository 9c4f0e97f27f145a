"""Connections that end, or that have ended, in ways that a port does not have."""

from __future__ import annotations

import select
import socket
import struct


def reset(sock: socket.socket) -> None:
    """Close a socket by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_connected(sock: socket.socket) -> bool:
    """Whether the other side has not ended a connection of which nothing is read."""
    poller = select.poll()
    # Linux tells a FIN by POLLRDHUP, macOS by POLLHUP, which nobody has to ask for.
    poller.register(sock, getattr(select, "POLLRDHUP", 0))
    return not poller.poll(0)
