"""Servers for tests, on ports that the system picks, and where they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import midinet.sync
from midinet import PortServer
from tests.harness.waiting import PATIENCE_S


def portno(server: PortServer | midinet.sync.PortServer) -> int:
    """Return the port number of a server."""
    return server.addresses[0][1]


@contextlib.asynccontextmanager
async def serving(host: str = "127.0.0.1", **options: Any) -> AsyncIterator[PortServer]:
    """Run a server for the time of a block, which fails if it takes longer than anything here does.

    Args:
        host: where it listens.
        options: of PortServer.
    """
    async with PortServer(host, 0, **options) as server, asyncio.timeout(3 * PATIENCE_S):
        yield server


def free_portno() -> int:
    """Return a port number at which nobody listens, for programs that cannot choose one themselves.

    Others may take it first: wherever a server says where it is, it gets 0 instead.
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
