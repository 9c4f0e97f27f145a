"""Servers for tests, on ports that the system picks, and where they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
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


@contextlib.contextmanager
def reserved_portno() -> Iterator[int]:
    """Keep a port number for a program that cannot choose one itself.

    In the block the system gives it to nobody: it is bound to and not listened at, which servers with
    SO_REUSEADDR pass over. Wherever a server says where it is, it gets 0 instead.
    """
    with socket.socket() as sock:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        number = int(sock.getsockname()[1])
        if os.name != "posix":
            sock.close()  # It would keep everybody out.
        yield number
