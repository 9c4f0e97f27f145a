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
from dataclasses import replace

from . import servers
from .account import settle
from .contenders import Contender
from .players import MAX_NOTES, MAX_PLAYERS, Players
from .protocols import NATS
from .runner import Benchmark, OptionError, bounded, cpu_us
from .table import Column, Table, kept_up, middle, percentile, percentiles, total

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


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    if not 2 <= min(options.players) <= max(options.players) <= MAX_PLAYERS:
        raise OptionError(f"--players has to be from 2 to {MAX_PLAYERS}")
    if options.seconds * options.rate > MAX_NOTES:
        raise OptionError(f"--seconds times --rate has to be {MAX_NOTES:,} at most")
    columns = [
        *(
            Column(title, middle("latencies_us", place))
            for place, title in enumerate(("median µs", "99 % µs", "99.9 % µs", "max µs"))
        ),
        Column("CPU %", middle("cpu_percent")),
        Column("CPU µs", middle("cpu_us"), ".2f"),
        *(Column(name, total(name)) for name in ("lost", "wrong", "own")),
        Column("load %", middle("load_percent")),
        Column("late µs", middle("late_us")),
        Column("kept up", kept_up(load_percent=_MOST_BUSY, late_us=_MOST_LATE_US)),
    ]
    title = f"A jam; each player sends {options.rate:,.0f} messages/s"
    return [Table(title, ["players", "relay"], columns)]


def measure(relay: Contender, options: argparse.Namespace, table: Table) -> None:
    """Let each number of players play through one relay, once."""
    protocol = _NO_ECHO if relay.protocol is NATS else relay.protocol
    for count in options.players:
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
        account = settle(jam)
        table.add(
            count,
            relay.name,
            latencies_us=percentiles(account.latencies, PERCENTS, 1e6),
            cpu_percent=None if before is None or after is None else (after - before) / jam.seconds * 100,
            cpu_us=cpu_us(before, after, account.deliveries),
            lost=account.lost,
            wrong=account.wrong,
            own=account.own,
            load_percent=(1 - jam.idle / jam.seconds) * 100,
            late_us=percentile(jam.late, 99) * 1e6,
        )


BENCHMARK = Benchmark("benchmarks.jam", __doc__, tables, measure, contenders=_RELAYS)
BENCHMARK.size("players", [8, 16, 32, 64, 128], [2, 5], "numbers of players")
BENCHMARK.size("rate", 100.0, 100.0, "messages a second of each player")
BENCHMARK.size("seconds", 1.0, 0.05, "how long they play")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
