"""A jam: players who all send 100 messages a second and all hear each other, through one relay.

Each player sends at its own time within the 10 ms (milliseconds) of the period, so the messages of all are
spread evenly; each goes to all the others and not back to who sent it. The relays are midinet's, as it is
started and on uvloop, asyncio streams with mido's Parser, a nats-server (its clients with echo off), and bare
sockets that look at no byte, each in a process on one core; those that are not installed are left out. The
players are bare sockets in one process on the other core.

Latency counts in µs (microseconds) from a player's write to another's read, over all deliveries. "CPU %" is
the relay's processor time, of one core, and "CPU µs" that for each delivery (dashes where the system does not
tell). "lost" messages did not come, or not within 5 s after the last was sent; "wrong" ones came twice, out
of order or not as they were sent; "own" ones came back to who sent them. All three are sums over the rounds,
and all other figures medians of the rounds' figures.

"load %" is how much of its time the load had something to do, and "late µs" the 99th percentile of how late
it sent. Above 90 % or 1,000 µs it says "no" under "kept up": then the load is measured, and not the relay,
which may be better than it looks. A relay whose CPU is near 100 % sends as soon as it can and joins what
has come meanwhile, so that says little; one that falls behind without end has a latency to show for it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from . import servers
from .account import Account, settle
from .contenders import Contender, choose
from .players import MAX_NOTES, MAX_PLAYERS, Jam, Players
from .program import Program, bounded
from .protocols import NATS
from .table import Cell, Column, Table, median, percentiles

_RELAYS = (
    "midinet serve",
    "midinet hub",
    "midinet serve --uvloop",
    "asyncio+mido",
    "nats-server",
    "bare sockets",
)

# As NATS, for clients that do not hear themselves.
_NO_ECHO = replace(NATS, subscribe=b'CONNECT {"verbose":false,"echo":false}\r\nSUB m 1\r\nPING\r\n')

PERCENTS = (50.0, 99.0, 99.9, 100.0)

# What the load may be busy and late, in percent and µs, to be no part of what is measured.
_MOST_BUSY = 90.0
_MOST_LATE_US = 1000.0


@dataclass(frozen=True)
class Round:
    """What one round of one relay gave with one number of players."""

    latencies_us: list[float]
    cpu_percent: float | None
    cpu_us: float | None
    lost: int
    wrong: int
    own: int
    load_percent: float
    late_us: float


def measure_relay(relay: Contender, count: int, options: argparse.Namespace) -> Round:
    """Let so many play through one relay, once."""
    protocol = _NO_ECHO if relay.protocol is NATS else relay.protocol
    # The relay ends before the players go: what it would have to say about that is of no interest.
    with (
        bounded(),
        ExitStack() as connections,
        servers.start(relay.peer, "relay", options.cores, **relay.options) as server,
    ):
        players = connections.enter_context(Players(server.portno, count, protocol))
        before = server.cpu_seconds()
        jam = players.play(count=max(1, round(options.seconds * options.rate)), rate=options.rate)
        after = server.cpu_seconds()
    return _round(jam, settle(jam), None if before is None or after is None else after - before)


def _round(jam: Jam, account: Account, cpu: float | None) -> Round:
    latencies = account.latencies
    return Round(
        latencies_us=[seconds * 1e6 for seconds in percentiles(latencies, PERCENTS)] if latencies else [],
        cpu_percent=None if cpu is None else cpu / jam.seconds * 100,
        cpu_us=None if cpu is None or not account.deliveries else cpu / account.deliveries * 1e6,
        lost=account.lost,
        wrong=account.wrong,
        own=account.own,
        load_percent=(1 - jam.idle / jam.seconds) * 100,
        late_us=percentiles(jam.late, [99])[0] * 1e6,
    )


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    _check_sizes(options)
    relays, notes = choose(options.only)
    results: dict[tuple[int, str], list[Round]] = {
        (count, relay.name): [] for count in options.players for relay in relays
    }
    for _ in range(options.rounds):
        for relay in relays:
            for count in options.players:
                results[count, relay.name].append(measure_relay(relay, count, options))
    table = Table(
        f"A jam; each player sends {options.rate:,.0f} messages/s",
        [
            Column("players"),
            Column("relay"),
            Column("median µs"),
            Column("99 % µs"),
            Column("99.9 % µs"),
            Column("max µs"),
            Column("CPU %"),
            Column("CPU µs", ".2f"),
            Column("lost"),
            Column("wrong"),
            Column("own"),
            Column("load %"),
            Column("late µs"),
            Column("kept up"),
        ],
        notes=notes,
    )
    for (count, name), rounds in results.items():
        table.rows.append(_row(count, name, rounds))
        table.rounds += [
            {"players": count, "relay": name, "round": number, **asdict(done)}
            for number, done in enumerate(rounds)
        ]
    return [table]


def _row(count: int, name: str, rounds: list[Round]) -> list[Cell]:
    load = median([done.load_percent for done in rounds])
    late = median([done.late_us for done in rounds])
    latencies = [done.latencies_us for done in rounds if done.latencies_us]
    figures: list[Cell] = [None] * len(PERCENTS)
    if latencies:
        figures = [median(column) for column in zip(*latencies, strict=True)]
    return [
        count,
        name,
        *figures,
        _median_of([done.cpu_percent for done in rounds]),
        _median_of([done.cpu_us for done in rounds]),
        sum(done.lost for done in rounds),
        sum(done.wrong for done in rounds),
        sum(done.own for done in rounds),
        load,
        late,
        "yes" if load <= _MOST_BUSY and late <= _MOST_LATE_US else "no",
    ]


def _median_of(figures: list[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return median(known) if known else None


def _check_sizes(options: argparse.Namespace) -> None:
    if not 2 <= min(options.players) <= max(options.players) <= MAX_PLAYERS:
        raise SystemExit(f"--players has to be from 2 to {MAX_PLAYERS}")
    if options.seconds * options.rate > MAX_NOTES:
        raise SystemExit(f"--seconds times --rate has to be {MAX_NOTES:,} at most")


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.jam", __doc__)
    program.choice("only", among=_RELAYS, help="who is measured (default: all)")
    program.size("players", full=[8, 16, 32, 64, 128], quick=[2, 5], help="numbers of players")
    program.size("rate", full=100.0, quick=100.0, help="messages a second of each player")
    program.size("seconds", full=1.0, quick=0.05, help="how long they play")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
