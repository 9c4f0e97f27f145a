"""Round trips on loopback, one message at a time, in microseconds.

A client sends a note to an echo server in another process and waits until it has it back as a message, at a
moderate rate as in playing. Every kind of client against every kind of server: midinet's (async for, send),
mido's (which polls every millisecond, and so does its client) and asyncio streams with mido's Parser. The
clients are midinet's, midinet.sync's, mido's, asyncio streams with mido's Parser and, for what a server takes
by itself, a bare socket.

Each figure is the median of the rounds' figures: of their medians, their 99th percentiles and so on; with
2,000 round trips the 99.9th percentile is the third worst. "x mido" is how many times shorter the median is
than between mido's own client and server in the same round. "noise" is half the distance between the best
and the worst round's median.
"""

from __future__ import annotations

import argparse
import sys

from . import clients, servers
from .runner import Benchmark
from .table import Column, Table, middle, noise_column, percentiles, ratio

SERVERS = {"midinet": "midinet_loop", "asyncio+mido": "asyncio_streams", "mido": "mido_sockets"}

CLIENTS: dict[str, clients.Client] = {
    "midinet": clients.midinet_async,
    "midinet.sync": clients.midinet_sync,
    "asyncio+mido": clients.asyncio_streams,
    "mido": clients.mido_sockets,
    "bare socket": clients.bare_socket,
}

PERCENTS = (50.0, 99.0, 99.9, 100.0)


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    columns = [
        *(
            Column(title, middle("us_by_percent", percent))
            for title, percent in zip(("median µs", "99 % µs", "99.9 % µs", "max µs"), PERCENTS, strict=True)
        ),
        Column("x mido", ratio("median_us", lambda head: ("mido", "mido"), inverse=True), ".1f"),
        noise_column("median_us"),
    ]
    title = f"Round trip, {options.count:,} messages a round at {options.rate:,.0f}/s"
    return [Table(title, ["server", "client"], columns)]


def measure(options: argparse.Namespace, table: Table) -> None:
    """Measure a round: every client at every server."""
    waits = clients.pauses(options.count, options.rate)
    for server, peer in SERVERS.items():
        with servers.start(peer, "echo", options.cores) as running:
            for client, function in CLIENTS.items():
                us = percentiles(clients.round_trips(function, running.portno, waits), PERCENTS, 1e6)
                figures = dict(zip(PERCENTS, us, strict=True))
                table.add(server, client, median_us=us[0], us_by_percent=figures)


BENCHMARK = Benchmark("benchmarks.latency", __doc__, tables, measure)
BENCHMARK.size("count", 2_000, 15, "round trips in a round")
BENCHMARK.size("rate", 1_000.0, 1_000.0, "messages a second")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
