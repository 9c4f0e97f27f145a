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
from dataclasses import dataclass
from typing import Any

from . import plot, saving, servers
from .contenders import CONTENDERS, Contender, choose
from .load import Load
from .program import Program, bounded
from .protocols import Protocol
from .table import Cell, Column, Table, median, noise, percentiles

# What the ratios are to.
REFERENCES = ("asyncio+mido", "nats-server")

PERCENTS = (50.0, 99.0, 99.9, 100.0)

# For the distribution.
_CURVE = (*range(5, 90, 5), *range(90, 99), 99, 99.2, 99.4, 99.6, 99.8, 99.9)


@dataclass(frozen=True)
class Round:
    """What one round of one server gave with one number of subscribers.

    Attributes:
        latencies_us: by percent, those of PERCENTS and of the distribution; empty where none arrived.
        failed: messages that were lost or wrong.
    """

    speed: float
    cpu_us: float | None
    latencies_us: dict[float, float]
    failed: int


# By subscribers and server, what each round gave: None where it failed.
Results = dict[tuple[int, str], list[Round | None]]


def measure_server(
    server: servers.Server, subscribers: int, protocol: Protocol, options: argparse.Namespace
) -> Round:
    """Measure one server once, at full speed and then paced."""
    with bounded(), Load(server.portno, subscribers, protocol) as load:
        before = server.cpu_seconds()
        fast = load.saturate(
            seconds=options.seconds, window=max(options.window, options.batch), batch=options.batch
        )
        after = server.cpu_seconds()
        paced = load.pace(count=options.count, rate=options.rate)
    cpu_us = None
    if before is not None and after is not None and fast.deliveries:
        cpu_us = (after - before) / fast.deliveries * 1e6
    latencies_us = {}
    if paced.latencies:
        percents = sorted({*PERCENTS, *_CURVE})
        latencies = percentiles(paced.latencies, percents)
        latencies_us = {percent: seconds * 1e6 for percent, seconds in zip(percents, latencies, strict=True)}
    return Round(
        speed=fast.deliveries / fast.seconds if fast.deliveries else 0.0,
        cpu_us=cpu_us,
        latencies_us=latencies_us,
        failed=fast.lost + fast.wrong + paced.lost + paced.wrong,
    )


def _measure_contender(
    contender: Contender, options: argparse.Namespace, notes: list[str]
) -> list[Round | None]:
    """Measure a contender once with each number of subscribers; what fails is None, and noted."""
    rounds: list[Round | None] = []
    try:
        with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
            for subscribers in options.subscribers:
                rounds.append(measure_server(server, subscribers, contender.protocol, options))
    except (OSError, RuntimeError) as error:
        # The others are still worth to be measured.
        notes.append(
            f"{contender.name} failed with {options.subscribers[len(rounds)]:,} subscribers: {error}."
        )
        rounds += [None] * (len(options.subscribers) - len(rounds))
    return rounds


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    contenders, notes = choose(options.only)
    results: Results = {
        (subscribers, contender.name): [] for subscribers in options.subscribers for contender in contenders
    }
    for _ in range(options.rounds):
        for contender in contenders:
            rounds = _measure_contender(contender, options, notes)
            for subscribers, done in zip(options.subscribers, rounds, strict=True):
                results[subscribers, contender.name].append(done)
    table = Table(
        f"Fan-out; latency at {options.rate:,.0f} messages/s",
        [
            Column("subscribers"),
            Column("server"),
            Column("deliveries/s"),
            Column("noise %", ".0f"),
            Column("x asyncio", ".1f"),
            Column("x nats", ".2f"),
            Column("CPU µs", ".2f"),
            Column("median µs"),
            Column("99 % µs"),
            Column("99.9 % µs"),
            Column("max µs"),
            Column("lost"),
        ],
        notes=notes,
    )
    for (subscribers, name), rounds in results.items():
        table.rows.append(_row(subscribers, name, rounds, results))
        table.rounds += [
            _saved(subscribers, name, number, done) for number, done in enumerate(rounds) if done is not None
        ]
    return [table]


def _row(subscribers: int, name: str, rounds: Sequence[Round | None], results: Results) -> list[Cell]:
    done = [one for one in rounds if one is not None]
    latencies = [one.latencies_us for one in done if one.latencies_us]
    return [
        subscribers,
        name,
        _median([one.speed for one in done]),
        noise([one.speed for one in done]) if done else None,
        *[_ratio(rounds, results.get((subscribers, reference), [])) for reference in REFERENCES],
        _median([one.cpu_us for one in done if one.cpu_us is not None]),
        *[_median([each[percent] for each in latencies]) for percent in PERCENTS],
        sum(one.failed for one in done) if done else None,
    ]


def _median(figures: Sequence[float]) -> float | None:
    return median(figures) if figures else None


def _ratio(rounds: Sequence[Round | None], reference: Sequence[Round | None]) -> float | None:
    """The median of the rounds' ratios, or None where there is nothing to compare with."""
    pairs = zip(rounds, reference, strict=False)
    return _median([own.speed / other.speed for own, other in pairs if own and other and other.speed])


def _saved(subscribers: int, name: str, number: int, done: Round) -> dict[str, object]:
    return {
        "subscribers": subscribers,
        "server": name,
        "round": number,
        "deliveries_per_s": done.speed,
        "cpu_us_per_delivery": done.cpu_us,
        "lost_or_wrong": done.failed,
        "latency_us_by_percent": done.latencies_us,
    }


def draw(saved: Mapping[str, Any]) -> dict[str, str]:
    """Return plots of what was saved: of the deliveries, and of the latencies' distribution."""
    rounds: list[Mapping[str, Any]] = saved["tables"][0]["rounds"]
    # What cannot stand on a logarithmic axis is left out.
    rounds = [one for one in rounds if one["deliveries_per_s"] and one["latency_us_by_percent"]]
    shown = [contender for contender in CONTENDERS if any(one["server"] == contender.name for one in rounds)]
    if not shown:
        return {}
    counts = sorted({one["subscribers"] for one in rounds})

    def of(contender: Contender, subscribers: int) -> list[Mapping[str, Any]]:
        return [one for one in rounds if (one["server"], one["subscribers"]) == (contender.name, subscribers)]

    def speed(contender: Contender) -> list[tuple[float, float]]:
        every = [(count, [one["deliveries_per_s"] for one in of(contender, count)]) for count in counts]
        return [(count, median(figures)) for count, figures in every if figures]

    def curve(contender: Contender, subscribers: int) -> list[tuple[float, float]]:
        # A key of JSON is a text, and a number where this has not been JSON yet.
        every = [
            {float(percent): us for percent, us in one["latency_us_by_percent"].items()}
            for one in of(contender, subscribers)
        ]
        return [(percent, median([one[percent] for one in every])) for percent in _CURVE if every]

    speeds = [plot.Line(one.name, one.style, speed(one)) for one in shown]
    panels = [
        plot.Panel(
            f"{count:,} subscriber{'s' if count > 1 else ''}",
            [plot.Line(one.name, one.style, curve(one, count)) for one in shown],
        )
        for count in counts
    ]
    return {
        "deliveries": plot.draw(
            "Deliveries a second, one publisher to many subscribers",
            [plot.Panel("", speeds)],
            plot.logarithmic("subscribers", counts, plot.short),
            plot.logarithmic("deliveries/s", _heights(speeds), plot.short),
            saving.foot(saved),
        ),
        "latency": plot.draw(
            f"Latency at {saved['options']['rate']:,.0f} messages a second, from write to read",
            panels,
            plot.percents("percentile", max(_CURVE)),
            plot.logarithmic("latency", [us for panel in panels for us in _heights(panel.lines)], _time),
            saving.foot(saved),
        ),
    }


def _heights(lines: Sequence[plot.Line]) -> list[float]:
    return [point[1] for line in lines for point in line.points]


def _time(us: float) -> str:
    return next(f"{us / size:g} {unit}" for size, unit in ((1e6, "s"), (1e3, "ms"), (1, "µs")) if us >= size)


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.fanout", __doc__)
    program.choice(
        "only", among=[contender.name for contender in CONTENDERS], help="who is measured (default: all)"
    )
    program.size("subscribers", full=[1, 10, 100], quick=[1, 10], help="numbers of subscribers")
    program.size("seconds", full=1.0, quick=0.02, help="how long to publish at full speed")
    program.size("window", full=2_000, quick=200, help="messages ahead of the slowest subscriber")
    program.size("batch", full=16, quick=16, help="messages in one write at full speed")
    program.size("count", full=1_000, quick=15, help="messages for the latency")
    program.size("rate", full=1_000.0, quick=1_000.0, help="messages a second for the latency")
    return program.run(measure, argv, draw=draw)


if __name__ == "__main__":
    sys.exit(main())
