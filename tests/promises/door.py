"""Nobody who should not: a good client is in at once, whoever else only pretends to come in.

One server asks for a token, and peers drip a HELLO at it, a byte a second. Another speaks TLS too, and peers
stall in the handshake. midinet's own client comes in beside them, again and again. And a server that is out
of descriptors accepts again as soon as there are some.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import midinet
from benchmarks import servers
from benchmarks.crowd import PATIENCE_S, Crowd, connect, drain, send_some
from midinet.net.tls import tls_client_context
from tests.harness.certificates import certificates
from tests.promises.ends import is_connected
from tests.promises.finding import Finding

_MOST_IN_S = 0.2
_MOST_GONE_S = 6.0
_MOST_AGAIN_S = 1.0

_TOKEN = "benchmark"
_HELLO = b"\xf7MIDINET/1 HELLO\r\nName: " + b"x" * 64

# The first bytes of a TLS client's hello (RFC 8446 section 5.1): of its 512 bytes no more come.
_HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

# Seconds between the good client's visits.
_VISIT_S = 0.25

_DESCRIPTORS = 64


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    logging.getLogger("midinet").addHandler(logging.NullHandler())
    _allow_descriptors(options.drippers + options.handshakes + 200)
    limits: dict[str, Any] = {"max_clients": options.drippers + options.handshakes + 100, "tokens": [_TOKEN]}
    if options.quick:
        limits["hello_timeout"] = 1.0
    beside = f"beside {options.drippers:,} that drip and {options.handshakes} stalled TLS handshakes"
    made = certificates()
    files = {"cert": str(made.server_cert), "key": str(made.server_key)}
    with (
        servers.start("midinet_hub", "relay", options.cores, **limits) as dripped,
        servers.start("midinet_hub", "relay", options.cores, **files, **limits) as stalled,
    ):
        context = tls_client_context(made.ca)
        good = asyncio.run(_beside_bad(options, dripped.portno, stalled.portno, context))
    yield Finding(f"a good client is in {beside}", _MOST_IN_S, good[0], unit="s")
    yield Finding("... with TLS", _MOST_IN_S, good[1], unit="s")
    yield Finding("... when it came behind all of them at once", None, good[2], unit="s")
    yield Finding("... until the last of the bad is gone", _MOST_GONE_S, good[3], unit="s")
    yield _exhausted(options)


def _allow_descriptors(wanted: int) -> None:
    import resource  # Not on Windows.

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < wanted else max(wanted, 1024), hard))


async def _beside_bad(
    options: argparse.Namespace, dripped: int, stalled: int, context: ssl.SSLContext
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return the seconds of each good visit, plain and with TLS, of the first ones, that came behind all of
    the bad, and those until all of the bad were gone."""
    taken: list[float] = []
    taken_tls: list[float] = []
    with contextlib.ExitStack() as stack:
        bad: set[socket.socket] = set()
        drippers: list[socket.socket] = []
        gone: list[float] = []
        for number in range(options.drippers + options.handshakes):
            drips = number < options.drippers
            sock = stack.enter_context(connect(dripped if drips else stalled))
            bad.add(sock)
            if drips:
                drippers.append(sock)
            elif number % 2:
                sock.sendall(_HALF_HELLO)
        dripping_task = asyncio.create_task(_drip(drippers, bad), name="drip")
        looking_task = asyncio.create_task(_look(bad, gone), name="look")
        visits = ((dripped, None, taken), (stalled, context, taken_tls))
        # Who comes first waits behind all of the bad, who came at once: from then on they are there.
        behind = [await _visit(portno, tls) for portno, tls, _ in visits]
        there = time.perf_counter()
        while bad:
            for portno, tls, times in visits:
                times.append(await _visit(portno, tls))
            await asyncio.sleep(_VISIT_S)
            if time.perf_counter() - there > PATIENCE_S:
                raise TimeoutError(f"{len(bad)} of the bad are never let go")
        await looking_task
        dripping_task.cancel()
        await asyncio.gather(dripping_task, return_exceptions=True)
    return taken, taken_tls, behind, [max(gone) - there]


async def _visit(portno: int, context: ssl.SSLContext | None) -> float:
    """Return the seconds until midinet's own client is in."""
    start = time.perf_counter()
    async with asyncio.timeout(PATIENCE_S):
        async with midinet.connect("127.0.0.1", portno, token=_TOKEN, ssl=context):
            return time.perf_counter() - start


async def _drip(socks: list[socket.socket], bad: set[socket.socket]) -> None:
    """Send each its next byte once a second, a few at a time, so that the good are not behind them here."""
    share = max(1, len(socks) // 100)
    position = 0
    while True:
        for first in range(0, len(socks), share):
            for sock in socks[first : first + share]:
                if sock in bad:
                    with contextlib.suppress(ConnectionError):
                        send_some(sock, _HELLO[position : position + 1])
            await asyncio.sleep(share / len(socks))
        position = min(position + 1, len(_HELLO) - 1)


async def _look(bad: set[socket.socket], gone: list[float]) -> None:
    while bad:
        for sock in list(bad):
            if not is_connected(sock) or not drain(sock):
                gone.append(time.perf_counter())
                bad.discard(sock)
        await asyncio.sleep(0.05)


def _exhausted(options: argparse.Namespace) -> Finding:
    """A server whose descriptors are all in use, and how soon somebody who waits is in when some are free."""
    taken = []
    more: dict[str, Any] = {"max_descriptors": _DESCRIPTORS}
    with servers.start("midinet_hub", "relay", options.cores, **more) as server:
        for _ in range(options.rounds):
            with contextlib.ExitStack() as stack:
                witness = stack.enter_context(Crowd(server.portno, 1))
                sender = stack.enter_context(connect(server.portno))
                witness.settle(sender)
                others = [stack.enter_context(connect(server.portno)) for _ in range(_DESCRIPTORS)]
                late = stack.enter_context(Crowd(server.portno, 1))
                for _ in range(20):
                    witness.tell(sender, b"")
                    late.read(0.02)
                if late.heard[0]:
                    raise AssertionError("there were descriptors left")
                start = time.perf_counter()
                # As many as the system lets wait are in the queue before the late one, and go too.
                for sock in others:
                    sock.close()
                while not late.heard[0]:
                    if time.perf_counter() - start > PATIENCE_S:
                        raise TimeoutError("nobody is accepted any more")
                    sender.sendall(b"\x90\x3c\x40")
                    late.read(0.005)
                    witness.read()
                    drain(sender)
                taken.append(late.heard_at[0] - start)
    return Finding("out of descriptors, from the first free one to accepting", _MOST_AGAIN_S, taken, unit="s")
