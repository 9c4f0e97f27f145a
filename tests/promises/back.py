"""Clients of a server that is killed and started again come back, soon and not all at once.

They are midinet's own, in this process. Two things are measured: how soon they are back after a server that
was killed listens again, and how soon and how close together they first try when the server resets them
all and still listens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence

import midinet
from benchmarks import servers
from benchmarks.crowd import PATIENCE_S
from midinet.net.port import PortState
from tests.promises.ends import reset
from tests.promises.finding import Finding

_MOST_S = 5.0
_MOST_FIRST_S = 0.25

# Seconds that a server is away besides the time it takes to start.
_AWAY_S = (0.0, 2.0)

# Seconds in which it is counted how many come, and the share of all of them that would be a stampede: full
# jitter over a quarter of a second has 40 % of them there.
_AT_ONCE_S = 0.1
_STAMPEDE = 0.6


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    logging.getLogger("midinet").addHandler(logging.NullHandler())
    for away in _AWAY_S[: 1 if options.quick else None]:
        last, most, gone = [], [], []
        for _ in range(options.rounds):
            back, away_s = asyncio.run(_killed(options, away))
            last.append(max(back))
            most.append(float(_most_at_once(back)))
            gone.append(away_s)
        name = f"{options.clients} clients back once a server listens again"
        about = f"gone for {away + 0.5:g} s"
        yield Finding(f"{name}, {about}", _MOST_S, last, unit="s")
        yield Finding(f"... how long it was, {about}", None, gone, unit="s")
        yield Finding(f"... the most in any 100 ms, {about}", options.clients * _STAMPEDE, most, unit="")
    first, most = [], []
    for _ in range(options.rounds):
        tries = asyncio.run(_first_tries(options.clients))
        first.append(max(tries))
        most.append(float(_most_at_once(tries)))
    name = f"first try of {options.clients} clients whose server resets them"
    yield Finding(name, _MOST_FIRST_S, first, unit="s")
    yield Finding("... the most in any 100 ms", options.clients * _STAMPEDE, most, unit="")


def _most_at_once(times: Sequence[float]) -> int:
    ordered = sorted(times)
    return max(sum(start <= time < start + _AT_ONCE_S for time in ordered) for start in ordered)


@contextlib.asynccontextmanager
async def _connected(
    portno: int, count: int, back_at: dict[midinet.SocketPort, float]
) -> contextlib.AsyncIterator[list[midinet.SocketPort]]:
    """Clients, and for each the time when it was connected again."""

    def changed(port: midinet.SocketPort, state: PortState) -> None:
        if state is PortState.CONNECTED:
            back_at[port] = time.perf_counter()

    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                midinet.connect("127.0.0.1", portno, reconnect=True, on_state=changed)
            )
            for _ in range(count)
        ]


async def _killed(options: argparse.Namespace, away: float) -> tuple[list[float], float]:
    """Return the seconds after which each client was back, and for how many the server was gone."""
    back_at: dict[midinet.SocketPort, float] = {}
    clients = options.clients
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        limits = {"max_clients": clients + 8}
        server = first.enter_context(servers.start("midinet_hub", "relay", options.cores, **limits))
        async with _connected(server.portno, clients, back_at):
            os.kill(server.pid, signal.SIGKILL)
            killed = time.perf_counter()
            await asyncio.to_thread(first.close)
            await asyncio.sleep(away)
            again = servers.start("midinet_hub", "relay", options.cores, portno=server.portno, **limits)
            await asyncio.to_thread(second.enter_context, again)
            listening = time.perf_counter()
            async with asyncio.timeout(PATIENCE_S):
                while len(back_at) < clients:  # noqa: ASYNC110  the ports have no Event for all of them
                    await asyncio.sleep(0.01)
    # Who came between the server's listening and its telling so was back at once.
    return [max(0.0, at - listening) for at in back_at.values()], listening - killed


async def _first_tries(clients: int) -> list[float]:
    """Return the seconds from the reset of all clients until each has come again."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as listener:
        listener.setblocking(False)
        accepted: list[tuple[socket.socket, float]] = []

        def accept() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append((listener.accept()[0], time.perf_counter()))

        loop.add_reader(listener, accept)
        try:
            async with _connected(listener.getsockname()[1], clients, {}), asyncio.timeout(PATIENCE_S):
                while len(accepted) < clients:  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.001)
                start = time.perf_counter()
                for sock, _ in accepted:
                    reset(sock)
                accepted.clear()
                while len(accepted) < clients:  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.001)
                return [at - start for _, at in accepted]
        finally:
            loop.remove_reader(listener)
            for sock, _ in accepted:
                sock.close()
