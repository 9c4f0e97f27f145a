"""One publisher and many subscribers on loopback: deliveries a second, and latency in microseconds.

Every subscriber gets what the publisher sends, through a server in another process:

    midinet serve          `midinet serve --quiet`, as people start it, and with --uvloop
    midinet loop           a person's code: async for message in server: await server.send(message); it sends
                           the publisher its own messages too: one more delivery, that is not counted
    asyncio+mido           asyncio streams with mido's Parser, and the same on uvloop
    websockets             websockets' broadcast, a message in each WebSocket message
    mido                   mido's sockets, as its documentation does it
    nats-server, mosquitto, ncat --broker
                           message brokers, which carry MIDI without looking at it
    bare sockets           what looks at no byte, in Python: it shows what the load can do

Those that are not installed are left out. The messages are random notes, controllers, pressures and bends.

Speed: the publisher writes 16 messages at a time and is always as far ahead of the slowest subscriber as a
window allows, so a server may read and pass on a whole window at once. "deliveries/s" counts messages times
subscribers; "CPU µs" is the server's processor time for each delivery (a dash where the system does not
tell). Where a server is as fast as bare sockets, it is the load that is measured.

Latency: the publisher writes one message at a time at a fixed rate; it counts from the write to a
subscriber's read, over all deliveries. A server that cannot do the rate falls behind, without end.

Each figure is the median of the rounds' figures, "x asyncio" and "x nats" the medians of the rounds' ratios
to asyncio+mido and to nats-server, and "noise" is half the distance between the best and the worst round.
"lost" counts what did not arrive and what was wrong, in all rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from . import servers
from .contenders import CONTENDERS, Contender
from .load import Load, add_sizes
from .runner import Benchmark, bounded, cpu_us, foot
from .table import Column, Table, median, middle, noise_column, percentiles, ratio, total

PERCENTS = (50.0, 99.0, 99.9, 100.0)

# For the distribution.
_CURVE = (*range(5, 90, 5), *range(90, 99), 99, 99.2, 99.4, 99.6, 99.8, 99.9)


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    columns = [
        Column("deliveries/s", middle("deliveries_per_s")),
        noise_column("deliveries_per_s"),
        Column("x asyncio", ratio("deliveries_per_s", lambda head: (head[0], "asyncio+mido")), ".1f"),
        Column("x nats", ratio("deliveries_per_s", lambda head: (head[0], "nats-server")), ".2f"),
        Column("CPU µs", middle("cpu_us_per_delivery"), ".2f"),
        *(
            Column(title, middle("latency_us_by_percent", percent))
            for title, percent in zip(("median µs", "99 % µs", "99.9 % µs", "max µs"), PERCENTS, strict=True)
        ),
        Column("lost", total("lost_or_wrong")),
    ]
    title = f"Fan-out; latency at {options.rate:,.0f} messages/s"
    return [Table(title, ["subscribers", "server"], columns)]


def measure(contender: Contender, options: argparse.Namespace, table: Table) -> None:
    """Measure one server once, with each number of subscribers: at full speed and then paced."""
    for subscribers in options.subscribers:
        table.add(subscribers, contender.name)
    percents = sorted({*PERCENTS, *_CURVE})
    with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
        for subscribers in options.subscribers:
            with bounded(), Load(server.portno, subscribers, contender.protocol) as load:
                before = server.cpu_seconds()
                fast = load.saturate_as(options)
                after = server.cpu_seconds()
                paced = load.pace(count=options.count, rate=options.rate)
            latencies = percentiles(paced.latencies, percents, 1e6)
            table.add(
                subscribers,
                contender.name,
                deliveries_per_s=fast.speed,
                cpu_us_per_delivery=cpu_us(before, after, fast.deliveries),
                lost_or_wrong=fast.failed + paced.failed,
                # None where none arrived.
                latency_us_by_percent=dict(zip(percents, latencies, strict=False)),
            )


def draw(saved: Mapping[str, Any]) -> dict[str, str]:
    """Return plots of what was saved: of the deliveries, and of the latencies' distribution."""
    # What cannot stand on a logarithmic axis is left out.
    rounds = [
        one
        for one in saved["tables"][0]["rounds"]
        if one["deliveries_per_s"] and one["latency_us_by_percent"]
    ]
    if not rounds:
        return {}
    # Where it is used: matplotlib may be missing.
    from . import plot

    shown = [one for one in CONTENDERS if one.name in {done["server"] for done in rounds}]
    counts = sorted({one["subscribers"] for one in rounds})

    def line(contender: Contender, figures: Mapping[float, Sequence[float]]) -> plot.Line:
        points = [(at, median(every)) for at, every in figures.items() if every]
        return plot.Line(contender.name, contender.style, points)

    def of(name: str, count: int) -> list[Mapping[str, Any]]:
        return [one for one in rounds if (one["server"], one["subscribers"]) == (name, count)]

    def speeds(name: str) -> dict[float, list[float]]:
        return {count: [one["deliveries_per_s"] for one in of(name, count)] for count in counts}

    def curve(name: str, count: int) -> dict[float, list[float]]:
        # A key of JSON is a text, and a number where this has not been JSON yet.
        every = [
            {float(percent): us for percent, us in one["latency_us_by_percent"].items()}
            for one in of(name, count)
        ]
        return {percent: [one[percent] / 1e6 for one in every] for percent in _CURVE}

    return {
        "deliveries": plot.draw(
            "Deliveries a second, one publisher to many subscribers",
            {"": [line(one, speeds(one.name)) for one in shown]},
            "subscribers",
            "deliveries/s",
            foot(saved),
        ),
        "latency": plot.draw(
            f"Latency at {saved['options']['rate']:,.0f} messages a second, from write to read",
            {
                f"{count:,} subscriber{'s' if count > 1 else ''}": [
                    line(one, curve(one.name, count)) for one in shown
                ]
                for count in counts
            },
            "percentile",
            "latency",
            foot(saved),
            y_unit="s",
            highest_percentile=max(_CURVE),
        ),
    }


BENCHMARK = Benchmark(
    "benchmarks.fanout",
    __doc__,
    tables,
    measure,
    contenders=[contender.name for contender in CONTENDERS],
    draw=draw,
)
BENCHMARK.size("subscribers", [1, 10, 100], [1, 10], "numbers of subscribers")
BENCHMARK.size("count", 1_000, 15, "messages for the latency")
BENCHMARK.size("rate", 1_000.0, 1_000.0, "messages a second for the latency")
add_sizes(BENCHMARK)

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
