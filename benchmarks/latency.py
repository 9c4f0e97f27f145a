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
from .program import Program
from .table import Column, Table, median, noise, percentile

SERVERS = {"midinet": "midinet_loop", "asyncio+mido": "asyncio_streams", "mido": "mido_sockets"}

CLIENTS: dict[str, clients.Client] = {
    "midinet": clients.midinet_async,
    "midinet.sync": clients.midinet_sync,
    "asyncio+mido": clients.asyncio_streams,
    "mido": clients.mido_sockets,
    "bare socket": clients.bare_socket,
}

REFERENCE = ("mido", "mido")

PERCENTS = (50.0, 99.0, 99.9, 100.0)


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    waits = clients.pauses(options.count, options.rate)
    # By (server, client): the microseconds of each round at each of PERCENTS.
    results: dict[tuple[str, str], list[list[float]]] = {
        (server, client): [] for server in SERVERS for client in CLIENTS
    }
    for _ in range(options.rounds):
        for server, peer in SERVERS.items():
            with servers.start(peer, "echo", options.cores) as running:
                for client, function in CLIENTS.items():
                    taken = clients.round_trips(function, running.portno, waits)
                    results[server, client].append([percentile(taken, percent) * 1e6 for percent in PERCENTS])
    table = Table(
        f"Round trip, {options.count:,} messages a round at {options.rate:,.0f}/s",
        [
            Column("server"),
            Column("client"),
            Column("median µs"),
            Column("99 % µs"),
            Column("99.9 % µs"),
            Column("max µs"),
            Column("x mido", ".1f"),
            Column("noise %", ".0f"),
        ],
    )
    reference = [figures[0] for figures in results[REFERENCE]]
    for (server, client), rounds in results.items():
        medians = [figures[0] for figures in rounds]
        ratios = [other / own for own, other in zip(medians, reference, strict=True)]
        figures = [median(column) for column in zip(*rounds, strict=True)]
        table.rows.append([server, client, *figures, median(ratios), noise(medians)])
        table.rounds += [
            {"server": server, "client": client, "us_by_percent": dict(zip(PERCENTS, figures, strict=True))}
            for figures in rounds
        ]
    return [table]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.latency", __doc__)
    program.size("count", full=2_000, quick=15, help="round trips in a round")
    program.size("rate", full=1_000.0, quick=1_000.0, help="messages a second")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
