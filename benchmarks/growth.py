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
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from . import machine, servers
from .contenders import Contender
from .crowd import Crowd, allow_descriptors, connect
from .idle import Idlers
from .load import Load, add_sizes
from .protocols import MIDI
from .runner import Benchmark, bounded, cpu_us
from .table import Column, Table, median, middle, noise_column, total

_MIDINET = ("midinet serve", "midinet hub", "midinet serve --uvloop")
_BARE = "bare sockets"

# Something to be brought to, and what all are told.
_SETTING = b"\xb0\x07\x64"
_NOTE = b"\x90\x3c\x40"

# Messages to all, to warm up.
_WARM_UP = 3

# Descriptors besides those of the clients.
_OTHER_DESCRIPTORS = 100


def with_room(contender: Contender, clients: int) -> Contender:
    """Return a contender as it serves a crowd: midinet's server with room for so many clients."""
    if contender.name == _BARE:
        return replace(contender, role="greet")
    if contender.name not in _MIDINET:
        return contender
    more: dict[str, Any] = {"max_clients": clients + 10, "snapshot": True}
    if contender.peer == "command":
        words = [*contender.options["words"], "--max-clients", str(clients + 10)]
        more = {**contender.options, "words": words}
    return replace(contender, options=more)


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the tables of the crowd and of what a delivery costs."""
    crowd = [
        Column("connections/s", middle("speed")),
        noise_column("speed"),
        Column("KiB each", middle("kib"), ".1f"),
        Column("ms to the last", middle("to_last_ms"), ".1f"),
        noise_column("to_last_ms"),
        Column("CPU ms", middle("cpu_ms"), ".1f"),
    ]
    cost = [
        Column("steady CPU µs", middle("paced_us"), ".2f"),
        Column("full speed CPU µs", middle("fast_us"), ".3f"),
        Column("deliveries/s", middle("speed")),
        noise_column("speed"),
        Column("lost", total("lost")),
    ]
    return [
        Table(f"{options.clients:,} idle clients", ["server"], crowd),
        Table(
            f"The cost of a delivery; steady is {options.rate:,.0f} messages/s",
            ["subscribers", "server"],
            cost,
        ),
    ]


def measure(contender: Contender, options: argparse.Namespace, crowd: Table, cost: Table) -> None:
    """Measure one server once: with a crowd, and if it is midinet's what a delivery costs it."""
    most = max(options.clients, *options.subscribers)
    # Servers have as many as the program that starts them.
    allow_descriptors(most + _OTHER_DESCRIPTORS)
    contender = with_room(contender, most)
    _measure_crowd(contender, options, crowd)
    if contender.name in _MIDINET:
        with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
            for subscribers in options.subscribers:
                _measure_cost(server, subscribers, contender.name, options, cost)


def _measure_crowd(contender: Contender, options: argparse.Namespace, table: Table) -> None:
    protocol, clients = contender.protocol, options.clients
    # The server ends before its clients go.
    with (
        bounded(),
        ExitStack() as connections,
        servers.start(contender.peer, contender.role, options.cores, **contender.options) as server,
    ):
        sender = connections.enter_context(connect(server.portno))
        if protocol.publish:
            sender.sendall(protocol.publish)
        if protocol is MIDI:
            with Crowd(server.portno, 1) as witness:
                witness.settle(sender)
                witness.tell(sender, _SETTING)
        before = machine.memory_kib(server.pid)
        idlers = connections.enter_context(Idlers(server.portno, clients, protocol))
        after = machine.memory_kib(server.pid)
        for _ in range(_WARM_UP):
            idlers.tell(sender, _NOTE)
        cpu_before = server.cpu_seconds()
        taken = [idlers.tell(sender, _NOTE) for _ in range(options.messages)]
        cpu = cpu_us(cpu_before, server.cpu_seconds(), options.messages)
    table.add(
        contender.name,
        speed=clients / idlers.seconds,
        kib=None if before is None or after is None else (after - before) / clients,
        to_last_ms=median(taken) * 1e3,
        cpu_ms=None if cpu is None else cpu / 1e3,
    )


def _measure_cost(
    server: servers.Server, subscribers: int, name: str, options: argparse.Namespace, table: Table
) -> None:
    with bounded(), Load(server.portno, subscribers) as load:
        before = server.cpu_seconds()
        paced = load.pace(count=max(1, round(options.seconds * options.rate)), rate=options.rate)
        between = server.cpu_seconds()
        fast = load.saturate_as(options)
        after = server.cpu_seconds()
    table.add(
        subscribers,
        name,
        paced_us=cpu_us(before, between, paced.deliveries),
        fast_us=cpu_us(between, after, fast.deliveries),
        speed=fast.speed,
        lost=paced.failed + fast.failed,
    )


BENCHMARK = Benchmark(
    "benchmarks.growth", __doc__, tables, measure, contenders=[*_MIDINET, "nats-server", _BARE]
)
BENCHMARK.size("clients", 10_000, 60, "idle clients")
BENCHMARK.size("messages", 20, 2, "messages to all of them")
BENCHMARK.size("subscribers", [1, 10, 100, 1_000], [1, 10], "numbers of subscribers for the cost")
BENCHMARK.size("rate", 1_000.0, 1_000.0, "messages a second at the steady rate")
add_sizes(BENCHMARK)

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
