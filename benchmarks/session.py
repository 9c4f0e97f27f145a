"""Hubs that are one through a nats-server: what they deliver, what a hop adds, what one costs another.

Several hubs (`PortServer(..., relay=True, broker=..., session=...)`) are joined through one nats-server,
each in a process of its own. All of them and the nats-server share one core, and the load has the other one.
So the deliveries a second cannot grow with the number of hubs here, as they do where each hub has a core or
a machine: what carries over is the processor time, in µs (microseconds) of a core.

Deliveries: one publisher at the first hub, and listening clients spread evenly over all hubs. The publisher
writes 16 messages at a time and is always as far ahead of the slowest client as a window allows.
"deliveries/s" counts messages times clients, "hubs CPU µs" is the processor time of all hubs together for
each delivery, and "NATS CPU µs" that of the nats-server. Above each row stands one hub without a broker that
has as many clients in all, and "x one hub" is the ratio to that in the same round.

Latency: the publisher writes one message at a time at a fixed rate; it counts from the write to the read of
a client at the same hub, and of one at another hub. "hop µs" is the difference of the medians of the two.
Two servers that "nats-py alone" joins pass bytes on and do nothing else, so the distance to them is
midinet's own part of the hop. With "nats-server alone" there is no server but that, between one client that
writes to it and one that reads: the distance to that is what nats-py takes, and waking two more programs on
one core.

Cost: only a publisher is connected, so what remains is what hubs do for each other. It writes some messages
at once, at a fixed rate of writes, and the figures are for each message: "sender CPU µs" is the processor
time of its hub, "hearer CPU µs" that of each other hub, which has no client, and "NATS CPU µs" that of the
nats-server. With no other hub there is no broker either. A client that comes to each hub at the end to see
whether all has arrived is counted in.

Broker: one of two joined hubs, with some clients of its own, while the nats-server is there, is stopped
(SIGSTOP) and is killed, one after the other, beside a hub that has no broker: what it delivers to them at
full speed, and the latency at the fixed rate. While the nats-server is there, it and the other hub need their
share of the one core.

Each figure is the median of the rounds' figures, and "noise" is half the distance between the best and the
worst round. Dashes are for what is not there, or what the system does not tell. "lost" counts what did not
arrive and what was wrong, in all rounds. Where the machine stalls for 0.2 s, that is the notes of another
hub that came too late to be struck, for each client that would have heard them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from . import servers, streams
from .contenders import Contender, choose
from .crowd import Crowd, allow_descriptors, connect, send_some
from .load import Load, Result, add_sizes
from .protocols import NATS
from .runner import Benchmark, NothingToMeasureError, OptionError, bounded, cpu_us
from .table import Column, Table, median, middle, noise_column, percentiles, total

PERCENTS = (50.0, 99.0)

# By what servers are joined.
ALONE = "one hub by itself"
HUBS = "midinet"
UVLOOP_HUBS = "midinet on uvloop"
NATS_PY = "nats-py alone"
NATS_SERVER = "nats-server alone"

# What the broker is at while a hub's own clients are served, and how many these are.
STATES = ("none", "there", "stopped", "killed")
_OWN_CLIENTS = 10

# Descriptors, and clients of a hub, besides those that listen.
_OTHERS = 100

# Messages, written over and over in this order.
_RING_FRAMES = 65536


@dataclass(frozen=True)
class Joined:
    """Servers that are joined.

    Args:
        hubs: all of them.
        broker: the nats-server; None where there is but one hub, and none.
    """

    hubs: Sequence[servers.Server]
    broker: servers.Server | None = None

    @property
    def portno(self) -> int:
        """Where the first listens, at which the publisher is."""
        return self.hubs[0].portno

    @property
    def others(self) -> list[int]:
        """Where all but the first listen."""
        return [hub.portno for hub in self.hubs[1:]]

    def cpu_seconds(self) -> list[float | None]:
        """Return the processor time of each hub and of the nats-server."""
        return [None if server is None else server.cpu_seconds() for server in [*self.hubs, self.broker]]


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the tables of deliveries, latency, cost and of a hub's own clients."""
    if min(options.hubs) < 2:
        raise OptionError("--hubs has to be 2 at least")
    if max(options.together) > _RING_FRAMES:
        raise OptionError(f"--together has to be {_RING_FRAMES:,} at most")
    speed = [Column("deliveries/s", middle("speed")), noise_column("speed")]
    lost = Column("lost", total("lost"))
    scale = [
        *speed,
        Column("x one hub", middle("times_one_hub"), ".2f"),
        Column("hubs CPU µs", middle("hubs_us"), ".3f"),
        Column("NATS CPU µs", middle("broker_us"), ".4f"),
        lost,
    ]
    hop = [
        Column("own median µs", middle("own_us", 0)),
        Column("99 % µs", middle("own_us", 1)),
        Column("other median µs", middle("other_us", 0)),
        Column("99 % µs", middle("other_us", 1)),
        Column("hop µs", middle("hop_us")),
        noise_column("hop_us"),
        lost,
    ]
    cost = [
        Column(f"{who} CPU µs", middle(f"{name}_us"), ".2f")
        for who, name in (("sender", "sender"), ("hearer", "hearer"), ("NATS", "broker"))
    ]
    own = [*speed, Column("median µs", middle("own_us", 0)), Column("99 % µs", middle("own_us", 1)), lost]
    rate = f"{options.rate:,.0f}"
    return [
        Table("Deliveries at full speed", ["hubs", "clients each"], scale, as_added=True),
        Table(f"Latency at {rate} messages/s", ["joined by"], hop),
        Table(
            f"What hubs without clients do for a message; {rate} writes/s",
            ["messages at once", "other hubs"],
            cost,
        ),
        Table(f"{_OWN_CLIENTS} clients of one hub; latency at {rate} messages/s", ["broker"], own),
    ]


def measure(options: argparse.Namespace, scale: Table, hop: Table, cost: Table, own: Table) -> None:
    """Measure a round of everything."""
    brokers, _ = choose(["nats-server"])
    if not brokers:
        raise NothingToMeasureError("nats-server is not installed (Debian: apt-get install nats-server)")
    if importlib.util.find_spec("nats") is None:
        raise NothingToMeasureError("nats-py is not installed (pip install 'midinet[nats]')")
    # Servers have as many as the program that starts them.
    allow_descriptors(_most_clients(options))
    with _hubs(1, options) as alone:
        _measure_costs(alone, options, cost)
        _measure_states(alone, brokers[0], options, own)
        for count in options.hubs:
            with _broker(brokers[0], options) as broker, _hubs(count, options, broker) as joined:
                _measure_costs(joined, options, cost)
                if count == options.hubs[0]:
                    _measure_hops(alone, joined, broker, options, hop)
                for clients in options.clients:
                    one = _measure_scale(alone, count * clients, options)
                    both = _measure_scale(joined, count * clients, options)
                    scale.add(1, count * clients, **one)
                    times = both["speed"] / one["speed"] if one["speed"] else None
                    scale.add(count, clients, times_one_hub=times, **both)


def _measure_scale(joined: Joined, clients: int, options: argparse.Namespace) -> dict[str, Any]:
    """Deliver to clients of all the hubs at full speed, once."""
    with bounded(), Load(joined.portno, clients, others=joined.others) as load:
        before = joined.cpu_seconds()
        fast = load.saturate_as(options)
        *hubs_us, broker_us = _costs_us(before, joined.cpu_seconds(), fast.deliveries)
    known = [one for one in hubs_us if one is not None]
    hubs = sum(known) if known else None
    return {"speed": fast.speed, "hubs_us": hubs, "broker_us": broker_us, "lost": fast.failed}


def _costs_us(
    before: Sequence[float | None], after: Sequence[float | None], messages: int
) -> list[float | None]:
    return [cpu_us(start, end, messages) for start, end in zip(before, after, strict=True)]


def _measure_hops(
    alone: Joined, joined: Joined, broker: servers.Server, options: argparse.Namespace, table: Table
) -> None:
    """Time messages to a client at the publisher's server, and to one at another if there is one."""

    def add(name: str, servers: Joined) -> None:
        others = servers.others[:1]
        with bounded(), Load(servers.portno, 1 + len(others), others=others) as load:
            paced = load.pace(count=options.count, rate=options.rate)
        *other_us, own_us = _latencies_us(paced)
        add_row(name, own_us, other_us[0] if other_us else [], paced.failed)

    def add_row(name: str, own_us: list[float], other_us: list[float], lost: int) -> None:
        hop_us = other_us[0] - (own_us[0] if own_us else 0.0) if other_us else None
        table.add(name, own_us=own_us, other_us=other_us, hop_us=hop_us, lost=lost)

    add(ALONE, alone)
    add(HUBS, joined)
    if importlib.util.find_spec("uvloop") is not None:
        with _hubs(2, options, broker, session="on-uvloop", uvloop=True) as faster:
            add(UVLOOP_HUBS, faster)
    with _servers("nats_joint", 2, options, broker, broker=_url(broker)) as bare:
        add(NATS_PY, bare)
    with bounded(), Load(broker.portno, 1, NATS) as load:
        paced = load.pace(count=options.count, rate=options.rate)
    add_row(NATS_SERVER, [], _latencies_us(paced)[0], paced.failed)


def _latencies_us(paced: Result) -> list[list[float]]:
    """Return each subscriber's latency at PERCENTS."""
    return [percentiles(latencies, PERCENTS, 1e6) for latencies in paced.latencies_by_subscriber]


def _measure_states(alone: Joined, contender: Contender, options: argparse.Namespace, table: Table) -> None:
    """Serve a hub's own clients, at full speed and then paced, whatever the broker is at."""

    def add(state: str, hub: Joined) -> None:
        with bounded(), Load(hub.portno, _OWN_CLIENTS) as load:
            fast = load.saturate_as(options)
            paced = load.pace(count=options.count, rate=options.rate)
        own_us = percentiles(paced.latencies, PERCENTS, 1e6)
        table.add(state, speed=fast.speed, own_us=own_us, lost=fast.failed + paced.failed)

    none, there, stopped, killed = STATES
    add(none, alone)
    with _broker(contender, options) as broker, _hubs(2, options, broker) as joined:
        add(there, joined)
        for state, number in ((stopped, signal.SIGSTOP), (killed, signal.SIGKILL)):
            os.kill(broker.pid, number)
            add(state, joined)


def _measure_costs(joined: Joined, options: argparse.Namespace, table: Table) -> None:
    """Measure what hubs do for each other, with nobody there but a publisher."""
    count = max(1, round(options.seconds * options.rate))
    for at_once in options.together:
        frames = streams.played_frames(_RING_FRAMES // at_once * at_once)
        writes = [b"".join(frames[at : at + at_once]) for at in range(0, len(frames), at_once)]
        with bounded(), connect(joined.portno) as sender:
            _reach_all(sender, joined)
            before = joined.cpu_seconds()
            start = time.perf_counter()
            for number in range(count):
                while time.perf_counter() - start < number / options.rate:
                    pass
                data = writes[number % len(writes)]
                while data:
                    data = data[send_some(sender, data) :]
            _reach_all(sender, joined)
            costs = _costs_us(before, joined.cpu_seconds(), count * at_once)
        sender_us, *hearers_us, broker_us = costs
        known = [one for one in hearers_us if one is not None]
        table.add(
            at_once,
            len(joined.others),
            sender_us=sender_us,
            hearer_us=median(known) if known else None,
            broker_us=broker_us,
        )


def _reach_all(sender: socket.socket, joined: Joined) -> None:
    """Have what was sent arrive at every hub."""
    for hub in joined.hubs:
        with Crowd(hub.portno, 1) as witness:
            witness.settle(sender)


def _most_clients(options: argparse.Namespace) -> int:
    return int(max(options.hubs) * max(options.clients)) + _OTHERS


def _broker(contender: Contender, options: argparse.Namespace) -> AbstractContextManager[servers.Server]:
    return servers.start(contender.peer, "relay", options.cores, **contender.options)


def _hubs(
    count: int, options: argparse.Namespace, broker: servers.Server | None = None, **more: object
) -> AbstractContextManager[Joined]:
    """Run so many hubs, joined where there is a broker."""
    if broker is not None:
        more = {"broker": _url(broker), "session": "benchmark", **more}
    return _servers("midinet_hub", count, options, broker, max_clients=_most_clients(options), **more)


@contextmanager
def _servers(
    peer: str, count: int, options: argparse.Namespace, broker: servers.Server | None, /, **more: object
) -> Iterator[Joined]:
    with ExitStack() as stack:
        every = [
            stack.enter_context(servers.start(peer, "relay", options.cores, **more)) for _ in range(count)
        ]
        yield Joined(every, broker)


def _url(broker: servers.Server) -> str:
    return f"nats://127.0.0.1:{broker.portno}"


BENCHMARK = Benchmark("benchmarks.session", __doc__, tables, measure)
BENCHMARK.size("hubs", [2, 3, 4], [2], "numbers of hubs that are joined")
BENCHMARK.size("clients", [100, 1_000], [2], "numbers of clients at each hub")
BENCHMARK.size("count", 2_000, 15, "messages for the latency")
BENCHMARK.size("rate", 1_000.0, 1_000.0, "writes a second for latencies and costs")
BENCHMARK.size("together", [1, 100], [1, 10], "numbers of messages at once for the cost")
add_sizes(BENCHMARK)

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
