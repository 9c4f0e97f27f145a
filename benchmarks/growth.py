"""What a relay costs as its clients become many: thousands that idle, up to a thousand that are played to.

A crowd of idle clients connects to a server in another process, as fast as it lets them in, with no more on
their way at once than wait in its backlog. "connections/s" counts from the first connecting until the last
is known to be let in: midinet's server brings each to what is set at present, and a nats-server answers its
PING. Bare sockets, which only accept, say a word to each and send to one after the other, show what the
system takes by itself. "KiB each" is how much the server's own memory has grown for each client (KiB are
1,024 bytes; what the system takes for sockets is not in it). "ms to the last" is the time in ms
(milliseconds) from a message's write to the read of the last client, and "CPU ms" the server's own processor
time for it: the median and the mean of some messages, one after the other is over.

The cost of a delivery is the server's processor time in µs (microseconds) for each subscriber and message,
once with messages at a steady rate a second, one at a time, and once as fast as the server delivers.

Each figure is the median of the rounds'. "noise" is half the distance between the best and the worst round.
Dashes are for what the system does not tell. "lost" counts what did not arrive, in all rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from . import servers
from .contenders import Contender, choose
from .crowd import Crowd, allow_descriptors, connect
from .idle import Idlers
from .load import Load
from .plot import GREY, Style
from .program import Program, bounded
from .protocols import MIDI
from .table import Cell, Column, Table, median, noise

_MIDINET = ("midinet serve", "midinet hub", "midinet serve --uvloop")
_CROWDED = (*_MIDINET, "nats-server")
_BARE = Contender("bare sockets", Style(GREY), "bare_greeter")

# Something to be brought to, and what all are told.
_SETTING = b"\xb0\x07\x64"
_NOTE = b"\x90\x3c\x40"

# Messages to all, to warm up.
_WARM_UP = 3

# Descriptors besides those of the clients.
_OTHER_DESCRIPTORS = 100


@dataclass(frozen=True)
class CrowdRound:
    """What one round of one server gave with a crowd of idle clients."""

    speed: float
    kib: float | None
    to_last_ms: float
    cpu_ms: float | None


@dataclass(frozen=True)
class CostRound:
    """What one round of one server gave with one number of subscribers."""

    paced_us: float | None
    fast_us: float | None
    speed: float
    lost: int


def with_room(contender: Contender, clients: int) -> Contender:
    """Return midinet's server with room for so many clients."""
    if contender.name not in _MIDINET:
        return contender
    if contender.peer == "midinet_hub":
        return replace(contender, options={"max_clients": clients + 10, "snapshot": True})
    words = cast(Sequence[str], contender.options["words"])
    return replace(
        contender, options={**contender.options, "words": [*words, "--max-clients", str(clients + 10)]}
    )


def measure_crowd(contender: Contender, options: argparse.Namespace) -> CrowdRound:
    """Let a crowd of idle clients come to a server, once, and tell them something."""
    protocol = contender.protocol
    # The server ends before its clients go.
    with (
        bounded(),
        ExitStack() as connections,
        servers.start(contender.peer, "relay", options.cores, **contender.options) as server,
    ):
        sender = connections.enter_context(connect(server.portno))
        if protocol.publish:
            sender.sendall(protocol.publish)
        if protocol is MIDI:
            with Crowd(server.portno, 1) as witness:
                witness.settle(sender)
                witness.tell(sender, _SETTING)
        before = _memory_kib(server.pid)
        idlers = connections.enter_context(Idlers(server.portno, options.clients, protocol))
        after = _memory_kib(server.pid)
        for _ in range(_WARM_UP):
            idlers.tell(sender, _NOTE)
        cpu_before = server.cpu_seconds()
        taken = [idlers.tell(sender, _NOTE) for _ in range(options.messages)]
        cpu_after = server.cpu_seconds()
    cpu_ms = None
    if cpu_before is not None and cpu_after is not None:
        cpu_ms = (cpu_after - cpu_before) / options.messages * 1e3
    return CrowdRound(
        speed=options.clients / idlers.seconds,
        kib=None if before is None or after is None else (after - before) / options.clients,
        to_last_ms=median(taken) * 1e3,
        cpu_ms=cpu_ms,
    )


def _memory_kib(pid: int) -> float | None:
    """Return the memory that a process has at present, or None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def measure_cost(server: servers.Server, subscribers: int, options: argparse.Namespace) -> CostRound:
    """Measure what a delivery costs a server, once."""
    with bounded(), Load(server.portno, subscribers) as load:
        before = server.cpu_seconds()
        paced = load.pace(count=max(1, round(options.seconds * options.rate)), rate=options.rate)
        between = server.cpu_seconds()
        fast = load.saturate(
            seconds=options.seconds, window=max(options.window, options.batch), batch=options.batch
        )
        after = server.cpu_seconds()
    return CostRound(
        paced_us=_cost_us(before, between, paced.deliveries),
        fast_us=_cost_us(between, after, fast.deliveries),
        speed=fast.deliveries / fast.seconds if fast.seconds else 0.0,
        lost=paced.lost + paced.wrong + fast.lost + fast.wrong,
    )


def _cost_us(before: float | None, after: float | None, deliveries: int) -> float | None:
    if before is None or after is None or not deliveries:
        return None
    return (after - before) / deliveries * 1e6


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    most = max(options.clients, *options.subscribers)
    # Servers have as many as the program that starts them.
    allow_descriptors(most + _OTHER_DESCRIPTORS)
    contenders, notes = choose(_CROWDED)
    contenders = [*(with_room(contender, most) for contender in contenders), _BARE]
    crowds: dict[str, list[CrowdRound]] = {one.name: [] for one in contenders}
    costs: dict[tuple[int, str], list[CostRound]] = {
        (subscribers, one.name): []
        for subscribers in options.subscribers
        for one in contenders
        if one.name in _MIDINET
    }
    for _ in range(options.rounds):
        for contender in contenders:
            crowds[contender.name].append(measure_crowd(contender, options))
            if contender.name in _MIDINET:
                with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
                    for subscribers in options.subscribers:
                        costs[subscribers, contender.name].append(measure_cost(server, subscribers, options))
    tables = [_crowd_table(options, crowds), _cost_table(options, costs)]
    tables[0].notes = notes
    return tables


def _crowd_table(options: argparse.Namespace, crowds: dict[str, list[CrowdRound]]) -> Table:
    table = Table(
        f"{options.clients:,} idle clients",
        [
            Column("server"),
            Column("connections/s"),
            Column("noise %", ".0f"),
            Column("KiB each", ".1f"),
            Column("ms to the last", ".1f"),
            Column("noise %", ".0f"),
            Column("CPU ms", ".1f"),
        ],
    )
    for name, rounds in crowds.items():
        speeds = [done.speed for done in rounds]
        taken = [done.to_last_ms for done in rounds]
        table.rows.append(
            [
                name,
                median(speeds),
                noise(speeds),
                _median_of([done.kib for done in rounds]),
                median(taken),
                noise(taken),
                _median_of([done.cpu_ms for done in rounds]),
            ]
        )
        table.rounds += [
            {"server": name, "round": number, **asdict(done)} for number, done in enumerate(rounds)
        ]
    return table


def _cost_table(options: argparse.Namespace, costs: dict[tuple[int, str], list[CostRound]]) -> Table:
    table = Table(
        f"The cost of a delivery; steady is {options.rate:,.0f} messages/s",
        [
            Column("subscribers"),
            Column("server"),
            Column("steady CPU µs", ".2f"),
            Column("full speed CPU µs", ".3f"),
            Column("deliveries/s"),
            Column("noise %", ".0f"),
            Column("lost"),
        ],
    )
    for (subscribers, name), rounds in costs.items():
        speeds = [done.speed for done in rounds]
        table.rows.append(
            [
                subscribers,
                name,
                _median_of([done.paced_us for done in rounds]),
                _median_of([done.fast_us for done in rounds]),
                median(speeds),
                noise(speeds),
                sum(done.lost for done in rounds),
            ]
        )
        table.rounds += [
            {"subscribers": subscribers, "server": name, "round": number, **asdict(done)}
            for number, done in enumerate(rounds)
        ]
    return table


def _median_of(figures: list[float | None]) -> Cell:
    known = [figure for figure in figures if figure is not None]
    return median(known) if known else None


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.growth", __doc__)
    program.size("clients", full=10_000, quick=60, help="idle clients")
    program.size("messages", full=20, quick=2, help="messages to all of them")
    program.size(
        "subscribers", full=[1, 10, 100, 1_000], quick=[1, 10], help="numbers of subscribers for the cost"
    )
    program.size("seconds", full=1.0, quick=0.02, help="how long to publish, for each of the two costs")
    program.size("rate", full=1_000.0, quick=1_000.0, help="messages a second at the steady rate")
    program.size("window", full=2_000, quick=200, help="messages ahead of the slowest subscriber")
    program.size("batch", full=16, quick=16, help="messages in one write at full speed")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
