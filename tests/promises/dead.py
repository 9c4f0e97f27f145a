"""Dead peers are found: what vanishes, stops or falls silent is let go of in time.

A host vanishes when the cable between two hosts is cut: see `tests/harness/two_hosts.py`, which takes Linux
and root. All is measured at a listener beside the server, from the cut (or stop, or last byte) to note-offs.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator
from typing import Any

from benchmarks import servers
from benchmarks.crowd import PATIENCE_S, Crowd, connect
from tests.harness.two_hosts import reason_against, two_hosts
from tests.promises.finding import Finding

# Seconds: what is promised, with which dead_peer_timeout, and what is added for the system's own timers,
# which look twice in a second, and for this machine.
_TIMEOUTS = (10.0, 5.0)
_QUICK_TIMEOUTS = (2.0,)

_SENSING_S = (0.42, 0.5)

_STRUCK, _RELEASED = b"\x93\x3c\x64", b"\x83\x3c"
_CLOCKS_S = 0.05

_STOPPED = """
import asyncio, sys, midinet, mido
async def main():
    async with midinet.connect("127.0.0.1", int(sys.argv[1]), name="stopped") as port:
        await port.send(mido.Message("note_on", channel=3, note=60, velocity=100))
        await port.wait_closed()
asyncio.run(main())
"""


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    timeouts = _QUICK_TIMEOUTS if options.quick else _TIMEOUTS
    yield _sensing(options)
    for timeout in timeouts:
        yield Finding(
            f"a stopped process is let go of, dead_peer_timeout={timeout:g}",
            timeout,
            [_stopped(options, timeout)],
            unit="s",
        )
    why_not = "needs Linux and root" if reason_against is not None else ""
    cases = [(timeout, busy) for timeout in timeouts for busy in (False, True)]
    taken: list[list[float]] = [[] for _ in cases]
    if not why_not:
        taken = asyncio.run(_all_vanish(options, cases))
    for (timeout, busy), found in zip(cases, taken, strict=True):
        state = "with data under way" if busy else "idle"
        name = f"a vanished host is let go of, {state}, dead_peer_timeout={timeout:g}"
        yield Finding(name, timeout, found, unit="s", why_not=why_not)


def _sensing(options: argparse.Namespace) -> Finding:
    taken = []
    with servers.start("midinet_hub", "relay", options.cores) as server, Crowd(server.portno, 1) as crowd:
        for _ in range(options.rounds):
            with connect(server.portno) as holder:
                crowd.settle(holder)
                holder.sendall(_STRUCK + b"\xfe")
                start = time.perf_counter()
                crowd.wait(lambda: _RELEASED in crowd.heard[0], what="the note-off")
                taken.append(crowd.heard_at[0] - start)
    return Finding("active sensing that falls silent", _SENSING_S, taken, unit="s")


def _stopped(options: argparse.Namespace, timeout: float) -> float:
    with (
        servers.start("midinet_hub", "relay", options.cores, dead_peer_timeout=timeout) as server,
        Crowd(server.portno, 1) as crowd,
        connect(server.portno) as sender,
    ):
        crowd.settle(sender)
        words = [sys.executable, "-c", _STOPPED, str(server.portno)]
        with subprocess.Popen(words, cwd=servers.ROOT) as process:
            try:
                crowd.wait(lambda: _STRUCK in crowd.heard[0], what="the note")
                process.send_signal(signal.SIGSTOP)
                start = time.perf_counter()
                crowd.wait(lambda: _RELEASED in crowd.heard[0], what="the note-off", seconds=3 * timeout)
                return crowd.heard_at[0] - start
            finally:
                process.kill()


async def _all_vanish(options: argparse.Namespace, cases: list[tuple[float, bool]]) -> list[list[float]]:
    waiting = [_vanish(options, timeout, busy) for timeout, busy in cases]
    return [[seconds] for seconds in await asyncio.gather(*waiting)]


async def _vanish(options: argparse.Namespace, timeout: float, busy: bool) -> float:
    words = servers.command("midinet_hub", "relay", options.cores, host="0.0.0.0", dead_peer_timeout=timeout)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(3 * timeout + PATIENCE_S), two_hosts() as hosts:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        server = await hosts.run_in(0, *words, cwd=servers.ROOT, **pipes)
        portno = int(await server.stdout.readline())
        with hosts.socket_in(0) as listener, hosts.socket_in(1) as holder:
            for sock, host in ((listener, "127.0.0.1"), (holder, hosts.addresses[0])):
                sock.setblocking(False)
                await loop.sock_connect(sock, (host, portno))

            async def hear(wanted: bytes) -> None:
                heard = b""
                while wanted not in heard:
                    heard += await loop.sock_recv(listener, 4096)

            # The listener is in before the note is.
            await asyncio.sleep(0.1)
            await loop.sock_sendall(holder, _STRUCK)
            await hear(_STRUCK)
            hosts.cable.up = False
            start = time.perf_counter()
            chatter: Awaitable[None] = loop.create_future()
            if busy:
                chatter = asyncio.create_task(_chatter(listener), name="chatter")
            await hear(_RELEASED)
            taken = time.perf_counter() - start
            if isinstance(chatter, asyncio.Task):
                chatter.cancel()
                await asyncio.gather(chatter, return_exceptions=True)
            return taken


async def _chatter(sock: Any) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, b"\xb0\x01\x40")
        await asyncio.sleep(_CLOCKS_S)
