"""One publisher and many subscribers on loopback: deliveries a second, and latency in microseconds.

Every subscriber gets what the publisher sends, through a server in another process: midinet's hub, midinet
with a person's loop around it (which sends the publisher its own messages too: one more delivery, that is
not counted), mido's sockets, asyncio streams with mido's Parser, and a server of bare sockets that looks at
no byte, which shows what the load can do. The messages are random notes, controllers, pressures and bends.

Speed: the publisher writes 16 messages at a time and is always as far ahead of the slowest subscriber as a
window allows, so a server may read and pass on a whole window at once. "deliveries/s" counts messages times
subscribers; "CPU µs" is the server's processor time for each delivery (a dash where the system does not
tell). Where a server is as fast as bare sockets, it is the load that is measured.

Latency: the publisher writes one message at a time at a fixed rate; it counts from the write to a
subscriber's read, over all deliveries. A server that cannot do the rate falls behind, without end.

Each figure is the median of the rounds' figures, "x mido" the median of the rounds' ratios, and "noise" is
half the distance between the best and the worst round. "lost" counts what did not arrive and what was
wrong, in all rounds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from . import servers
from .load import Load, Result
from .program import Program, bounded
from .table import Cell, Column, Table, median, noise, percentile

SERVERS = {
    "midinet relay": "midinet_relay",
    "midinet loop": "midinet_loop",
    "asyncio+mido": "asyncio_streams",
    "mido": "mido_sockets",
    "bare sockets": "bare_sockets",
}

REFERENCE = "mido"

PERCENTS = (50.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True)
class Round:
    """What one round of one server gave with one number of subscribers."""

    speed: float
    cpu_us: float | None
    latencies_us: list[float]
    failed: int


def measure_server(server: servers.Server, subscribers: int, options: argparse.Namespace) -> Round:
    """Measure one server once, at full speed and then paced."""
    with bounded(), Load(server.portno, subscribers) as load:
        before = server.cpu_seconds()
        fast = load.saturate(
            seconds=options.seconds, window=max(options.window, options.batch), batch=options.batch
        )
        after = server.cpu_seconds()
        paced = load.pace(count=options.count, rate=options.rate)
    cpu_us = None
    if before is not None and after is not None and fast.deliveries:
        cpu_us = (after - before) / fast.deliveries * 1e6
    return Round(
        speed=fast.deliveries / fast.seconds,
        cpu_us=cpu_us,
        latencies_us=[percentile(paced.latencies, percent) * 1e6 for percent in PERCENTS],
        failed=_failures(fast) + _failures(paced),
    )


def _failures(result: Result) -> int:
    return result.lost + result.wrong


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    results: dict[tuple[int, str], list[Round]] = {
        (subscribers, server): [] for subscribers in options.subscribers for server in SERVERS
    }
    for _ in range(options.rounds):
        for server, peer in SERVERS.items():
            with servers.start(peer, "relay", options.cores) as running:
                for subscribers in options.subscribers:
                    results[subscribers, server].append(measure_server(running, subscribers, options))
    table = Table(
        f"Fan-out; latency at {options.rate:,.0f} messages/s",
        [
            Column("subscribers"),
            Column("server"),
            Column("deliveries/s"),
            Column("noise %", ".0f"),
            Column("x mido", ".1f"),
            Column("CPU µs", ".2f"),
            Column("median µs"),
            Column("99 % µs"),
            Column("99.9 % µs"),
            Column("max µs"),
            Column("lost"),
        ],
    )
    for (subscribers, server), rounds in results.items():
        table.rows.append(_row(subscribers, server, rounds, results[subscribers, REFERENCE]))
    return [table]


def _row(subscribers: int, server: str, rounds: list[Round], reference: list[Round]) -> list[Cell]:
    speeds = [done.speed for done in rounds]
    ratios = [own.speed / other.speed for own, other in zip(rounds, reference, strict=True)]
    cpu_us = [done.cpu_us for done in rounds if done.cpu_us is not None]
    return [
        subscribers,
        server,
        median(speeds),
        noise(speeds),
        median(ratios),
        median(cpu_us) if cpu_us else None,
        *[median(column) for column in zip(*[done.latencies_us for done in rounds], strict=True)],
        sum(done.failed for done in rounds),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.fanout", __doc__)
    program.size("subscribers", full=[1, 10, 100], quick=[1, 10], help="numbers of subscribers")
    program.size("seconds", full=1.0, quick=0.02, help="how long to publish at full speed")
    program.size("window", full=2_000, quick=200, help="messages ahead of the slowest subscriber")
    program.size("batch", full=16, quick=16, help="messages in one write at full speed")
    program.size("count", full=1_000, quick=15, help="messages for the latency")
    program.size("rate", full=1_000.0, quick=1_000.0, help="messages a second for the latency")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
