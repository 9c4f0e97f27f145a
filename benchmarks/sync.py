"""The blocking ports: midinet.sync and mido.sockets, the same program with one line of difference.

receive: messages a second that `port.receive()` returns of bursts of 10,000, which another process sends at
once whenever the last one has been read. (Under a stream without an end, mido's `receive` never returns: it
reads for as long as there is something to read.)

send: messages a second that `port.send(message)` takes, the last of them received at the other end.

round trip: median time in microseconds of one message there and back, sent at a moderate rate, between the
client and an echo server in another process: midinet's async server, asyncio streams with mido's Parser,
mido's polling server, and each library's own blocking server (for midinet.sync: accept, for, send).

"times better" is the ratio between the two, the median of the rounds' ratios, above 1 where midinet is the
better one. "noise" is half the distance between the best and the worst round, for midinet and for mido.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import mido
import mido.sockets

import midinet.sync

from . import clients, servers, streams
from .runner import Benchmark, bounded
from .table import Cell, Column, Head, Table, middle, noise_column, percentile

Connect = Callable[[str, int], mido.ports.BaseIOPort]

# Messages between two looks at the clock.
_BATCH = 64

LIBRARIES: tuple[tuple[str, Connect, clients.Client, str], ...] = (
    ("midinet.sync", midinet.sync.connect, clients.midinet_sync, "midinet_blocking"),
    ("mido.sockets", mido.sockets.connect, clients.mido_sockets, "mido_sockets"),
)

# The servers that both libraries' clients talk to.
SERVERS = {"midinet": "midinet_loop", "asyncio+mido": "asyncio_streams", "mido": "mido_sockets"}


def receive_speed(connect: Connect, portno: int, seconds: float) -> float:
    """Receive bursts for so many seconds. Returns messages a second."""
    marker = mido.Message.from_bytes(streams.MARKER)
    with bounded(), connect("127.0.0.1", portno) as port:
        count = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            port.send(marker)
            for _ in range(streams.BURST):
                port.receive()
            count += streams.BURST
            now = time.perf_counter()
    return count / (now - start)


def send_speed(connect: Connect, portno: int, seconds: float) -> float:
    """Send for so many seconds and wait until the last message has arrived. Returns messages a second."""
    messages = [mido.Message.from_bytes(frame) for frame in streams.played_frames(_BATCH)]
    marker = mido.Message.from_bytes(streams.MARKER)
    with bounded(), connect("127.0.0.1", portno) as port:
        count = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            for message in messages:
                port.send(message)
            count += _BATCH
            now = time.perf_counter()
        port.send(marker)
        port.receive()
        return count / (time.perf_counter() - start)


def times_better(table: Table, head: Head) -> Cell:
    """Return how many times better midinet is, as the median of the rounds' ratios."""
    found: list[float] = [done[LIBRARIES[0][0]] / done[LIBRARIES[1][0]] for done in table.rounds[head]]
    return statistics.median(found) if head[1] == "messages/s" else 1 / statistics.median(found)


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    columns = [
        *(Column(name, middle(name)) for name, *_ in LIBRARIES),
        Column("times better", times_better, ".1f"),
        *(noise_column(name, f"{name.partition('.')[0]} noise %") for name, *_ in LIBRARIES),
    ]
    return [Table("Blocking ports", ["measured", "unit"], columns, as_added=True)]


def measure(options: argparse.Namespace, table: Table) -> None:
    """Measure a round: both libraries in turn."""
    waits = clients.pauses(options.count, options.rate)

    def echo_us(client: clients.Client, portno: int) -> float:
        return percentile(clients.round_trips(client, portno, waits), 50) * 1e6

    for subject, role, speed in (("receive", "flood", receive_speed), ("send", "sink", send_speed)):
        with servers.start("bare_sockets", role, options.cores) as server:
            figures = {
                name: speed(connect, server.portno, options.seconds) for name, connect, *_ in LIBRARIES
            }
        table.add(subject, "messages/s", **figures)
    for server_name, peer in SERVERS.items():
        with servers.start(peer, "echo", options.cores) as server:
            figures = {name: echo_us(client, server.portno) for name, _, client, _ in LIBRARIES}
        table.add(f"round trip, {server_name} server", "µs", **figures)
    figures = {}
    for name, _, client, peer in LIBRARIES:
        with servers.start(peer, "echo", options.cores) as server:
            figures[name] = echo_us(client, server.portno)
    table.add("round trip, own blocking server", "µs", **figures)


BENCHMARK = Benchmark("benchmarks.sync", __doc__, tables, measure)
BENCHMARK.size("seconds", 1.0, 0.05, "how long to receive, and how long to send")
BENCHMARK.size("count", 1_000, 10, "round trips in a round")
BENCHMARK.size("rate", 1_000.0, 1_000.0, "messages a second in the round trips")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
