"""What goes on for long, or comes in great numbers: connects and disconnects, and peers that take their time.

The numbers that are promised under the marker `full`, in a minute or two, and smaller ones otherwise. What
was measured is printed.

    python -m pytest -rP -m full tests/net/test_soak.py
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import socket
import ssl
import threading
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from mido import Message

from midinet import CloseReason, PortServer, connect
from midinet.net.stats import MAX_REMEMBERED
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.wire.aside import hello
from tests.harness.certificates import certificates
from tests.harness.clock import Clock
from tests.harness.raw import RawPeer
from tests.harness.servers import portno
from tests.harness.sizes import thorough
from tests.harness.waiting import PATIENCE_S, until

AT_ONCE = 10
# What the ring of connections that ended holds at most here; it has a test of its own.
REMEMBERED = 100

# Bytes that so many connects and disconnects may leave behind.
MEMORY = 2 << 20
# What tracemalloc sees is exact, so less will do: a thousand leaks of any object would be above this.
TRACED = 64 << 10

# Seconds. What is promised is 5, and all gone after 6.
# All of them have to be there until the good clients are in.
HELLO_TIMEOUT = 5.0
ALL_GONE = HELLO_TIMEOUT + 1.0
# Seconds until a good client is in. What is promised is 0.2; a busy machine gets ten times that.
IN_WITHIN = 2.0

TOKEN = "let-me-in"


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    gc.collect()
    try:
        # What has been freed and is kept for the next who asks is no leak: asyncio's TLS takes 256 KiB for
        # each connection, and frees them when its cycles are collected.
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # This is not the GNU C library.
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def standing(server: PortServer) -> dict[str, int]:
    """What there is, apart from memory."""
    gc.collect()
    assert server._door is not None
    return {
        "descriptors": descriptors(),
        "tasks": len(asyncio.all_tasks()),
        # The loop keeps as many for looking up names as it ever needed at once.
        "threads": sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),
        "clients": server.stats.clients,
        "places": server._crowd.clients,
        "visitors": server._door.visitors,
        "members": len(server._hub._members),
    }


async def come_and_go(server: PortServer, count: int, client_options: dict[str, Any]) -> None:
    """Connect, play a note that stays held, and go: a few at a time."""
    where = ("localhost", portno(server))

    async def come(number: int) -> None:
        async with connect(*where, **client_options) as port:
            await port.send(Message("note_on", note=number % 128))

    for begin in range(0, count, AT_ONCE):
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*[come(begin + number) for number in range(AT_ONCE)])
    await until(lambda: not server.stats.clients and not server.stats.visitors)


async def soak(server: PortServer, count: int, client_options: dict[str, Any]) -> None:
    # Until everything is loaded, cached and as large as it gets: the ring of those that are remembered too.
    remembered = min(REMEMBERED, count // 2)
    server._remembered = deque(maxlen=remembered)
    while len(server.closed_connections) < remembered:
        await come_and_go(server, AT_ONCE, client_options)
    before, memory = standing(server), resident()
    total = server.stats.clients_total
    await come_and_go(server, count, client_options)
    assert standing(server) == before
    grown = resident() - memory
    print(f"{count} connects: {grown / 1024:.0f} KiB more")
    assert grown <= MEMORY
    assert server.stats.clients_total - total == count
    assert len(server.closed_connections) == remembered


async def traced_growth(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """How many more bytes are allocated when work is done than before."""
    await work()
    gc.collect()
    tracemalloc.start()
    try:
        # What it allocates at its first traced run may replace what was allocated unseen.
        await work()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await work()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


@thorough("count", quick=200, full=10_000)
async def test_connects_and_disconnects_leave_nothing(count: int) -> None:
    async with PortServer("localhost", 0, relay=True) as server:
        await soak(server, count, {"name": "soak"})


@thorough("count", quick=20, full=2_000)
async def test_connects_and_disconnects_through_tls_leave_nothing(count: int) -> None:
    files = certificates()
    async with PortServer(
        "localhost",
        0,
        relay=True,
        tokens=[TOKEN],
        ssl=tls_server_context(files.server_cert, files.server_key),
    ) as server:
        await soak(server, count, {"token": TOKEN, "ssl": tls_client_context(files.ca)})


@thorough("count", quick=100, full=1_000)
async def test_connects_and_disconnects_leave_nothing_allocated(count: int) -> None:
    async with PortServer("localhost", 0, relay=True) as server:
        server._remembered = deque(maxlen=10)
        grown = await traced_growth(lambda: come_and_go(server, count, {"name": "soak"}))
    assert grown <= TRACED


async def test_the_connections_that_ended_last_are_remembered_and_no_more() -> None:
    async with PortServer("127.0.0.1", 0, allow=["::1"]) as server:
        for _ in range(MAX_REMEMBERED + 50):
            async with RawPeer(portno(server)):
                pass
        await until(lambda: server.stats.turned_away == MAX_REMEMBERED + 50)
        assert len(server.closed_connections) == MAX_REMEMBERED
        assert server.stats.closed == {CloseReason.NOT_ALLOWED: MAX_REMEMBERED + 50}


# Peers that take their time.


@contextlib.asynccontextmanager
async def peers(count: int, number: int) -> AsyncIterator[list[socket.socket]]:
    """So many connections, by hand."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", number))
            made.append(sock)
        yield made


def begun_tls_hello() -> bytes:
    """The first half of what a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    said = outgoing.read()
    return said[: len(said) // 2]


@contextlib.asynccontextmanager
async def drip(socks: list[socket.socket], pause_s: float) -> AsyncIterator[None]:
    """Meanwhile, send each of them a HELLO, a byte at a time."""

    async def go_on() -> None:
        for byte in hello("slow", TOKEN):
            for sock in socks:
                try:
                    sock.send(bytes((byte,)))
                except OSError:
                    pass  # It has been closed.
            await asyncio.sleep(pause_s)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def many_descriptors() -> Any:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def enter(server: PortServer, bad: int, **options: Any) -> float:
    """Seconds until a good client is in and is heard, while there are so many bad ones."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with connect("localhost", portno(server), token=TOKEN, **options) as port:
        await port.send(Message("note_on", note=1))
        assert await server.receive() == Message("note_on", note=1)
        seconds = loop.time() - begun
        assert server._crowd.clients == 1 + bad
    assert await server.receive() == Message("note_off", note=1, velocity=64)
    return seconds


@contextlib.asynccontextmanager
async def kept_waiting(dripping: int, stalled: int) -> AsyncIterator[tuple[PortServer, PortServer]]:
    """Two servers, the second with TLS, while so many peers take their time at the one and at the other, and
    good clients come in all the same."""
    files = certificates()
    limits: dict[str, Any] = {"tokens": [TOKEN], "max_clients": 5_000, "hello_timeout": HELLO_TIMEOUT}
    tls = tls_server_context(files.server_cert, files.server_key)
    trust = tls_client_context(files.ca)
    half = begun_tls_hello()
    async with (
        PortServer("localhost", 0, **limits) as plain,
        PortServer("localhost", 0, ssl=tls, **limits) as secure,
        peers(dripping, portno(plain)) as drippers,
        peers(stalled, portno(secure)) as stallers,
        drip(drippers, HELLO_TIMEOUT / 5),
    ):
        for sock in stallers[::2]:
            sock.send(half)
        await until(lambda: plain.stats.visitors == dripping)
        seconds = [await enter(plain, dripping), await enter(secure, stalled, ssl=trust)]
        print("in within", [f"{1000 * second:.0f} ms" for second in seconds])
        assert max(seconds) < IN_WITHIN
        yield plain, secure
        assert plain.stats.closed[CloseReason.UNAUTHORIZED] == dripping
        assert secure.stats.closed[CloseReason.TLS] == stalled
        assert (plain._crowd.clients, secure._crowd.clients) == (0, 0)
        await enter(plain, 0)
        await enter(secure, 0, ssl=trust)


async def test_peers_that_take_their_time_keep_nobody_out_and_are_let_go() -> None:
    clock = Clock()
    async with kept_waiting(40, 20) as (plain, secure):
        await clock.skip_until(lambda: not plain.stats.visitors and not secure._crowd.clients)


@pytest.mark.full
@pytest.mark.usefixtures("many_descriptors")
async def test_a_thousand_peers_that_take_their_time_are_gone_in_time() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with kept_waiting(1_000, 500) as (plain, secure):
        await until(lambda: not plain.stats.visitors and not secure._crowd.clients)
        seconds_gone = loop.time() - begun
        print(f"gone within {seconds_gone:.2f} s")
        assert seconds_gone < 10 * ALL_GONE
