"""Thousands that come and go leave nothing behind: memory, descriptors, threads.

The server has seen as many connections as it remembers before anything counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.crowd import PATIENCE_S, connect
from midinet.net.tls import tls_client_context
from tests.harness.certificates import Certificates, certificates
from tests.promises.finding import Finding

_MOST_MIB = 2.0
_TLS_SHARE = 0.2

# Connections beforehand, a few more than the thousand that a server remembers.
_WARM_UP = 1_200

# As many are there at once.
_AT_ONCE = 20

# A message that each sends, so that it is known to have been served before it goes.
_NOTE = b"\x90\x3c\x40"

# Seconds after the last has gone.
_SETTLE_S = 0.5


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    if not Path("/proc/self/statm").exists():
        yield Finding("memory after connects and disconnects", _MOST_MIB, unit="MiB", why_not="needs /proc")
        return
    with_tls = int(options.connects * _TLS_SHARE)
    plain = options.connects - with_tls
    mib, others = _grow(options, plain, None)
    yield Finding(f"memory after {plain:,} connects and disconnects", _MOST_MIB, [mib], unit="MiB")
    yield Finding("... descriptors and threads", 0, [others], unit="")
    tls_mib, others = _grow(options, with_tls, certificates())
    yield Finding(f"memory after {with_tls:,} with TLS", _MOST_MIB, [tls_mib], unit="MiB")
    yield Finding("... descriptors and threads, with TLS", 0, [others], unit="")
    yield Finding("... together", _MOST_MIB, [mib + tls_mib], unit="MiB")


def _grow(options: argparse.Namespace, count: int, made: Certificates | None) -> tuple[float, int]:
    """Return by how many MiB a server has grown, and by how many descriptors and threads."""
    context = tls_client_context(made.ca) if made is not None else None
    settle = _SETTLE_S / (5 if options.quick else 1)
    more: dict[str, Any] = {"cert": str(made.server_cert), "key": str(made.server_key)} if made else {}
    with servers.start("midinet_hub", "relay", options.cores, **more) as server:
        _come_and_go(server.portno, _AT_ONCE if options.quick else _WARM_UP, context)
        before = _state(server.pid, settle)
        _come_and_go(server.portno, count, context)
        after = _state(server.pid, settle)
    return after[0] - before[0], after[1] - before[1]


def _state(pid: int, settle: float) -> tuple[float, int]:
    time.sleep(settle)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return int(status["VmRSS"].split()[0]) / 1024, descriptors + int(status["Threads"])


def _come_and_go(portno: int, count: int, context: ssl.SSLContext | None) -> None:
    for _ in range(0, count, _AT_ONCE):
        with contextlib.ExitStack() as stack:
            socks: list[socket.socket] = []
            for _ in range(_AT_ONCE):
                sock = stack.enter_context(connect(portno))
                sock.settimeout(PATIENCE_S)
                if context is not None:
                    sock = stack.enter_context(context.wrap_socket(sock, server_hostname="127.0.0.1"))
                socks.append(sock)
            # All are in once the first hears the last.
            heard = b""
            socks[0].settimeout(0.05)
            end = time.perf_counter() + PATIENCE_S
            while not heard:
                if time.perf_counter() > end:
                    raise TimeoutError("the server does not serve everybody")
                socks[-1].sendall(_NOTE)
                with contextlib.suppress(TimeoutError):
                    heard = socks[0].recv(4096)
