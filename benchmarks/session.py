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
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from . import servers, streams
from .contenders import Contender, choose
from .crowd import Crowd, allow_descriptors, connect, send_some
from .load import Load, Result
from .program import NothingToMeasureError, Program, bounded
from .protocols import NATS
from .table import Cell, Column, Table, median, noise, percentiles

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
    def others(self) -> list[int]:
        """Where all but the first listen."""
        return [hub.portno for hub in self.hubs[1:]]

    def cpu_seconds(self) -> list[float | None]:
        """Return the processor time of each hub and of the nats-server."""
        every = [*self.hubs, self.broker]
        return [None if server is None else server.cpu_seconds() for server in every]


@dataclass(frozen=True)
class ScaleRound:
    """What one round of some hubs gave at full speed."""

    speed: float
    hubs_us: float | None
    broker_us: float | None
    lost: int


@dataclass(frozen=True)
class HopRound:
    """What one round gave with a client at the publisher's server and one at another: at PERCENTS."""

    own_us: list[float]
    other_us: list[float]
    lost: int

    @property
    def hop_us(self) -> float | None:
        """What the way to the other server adds."""
        if not self.other_us:
            return None
        return self.other_us[0] - (self.own_us[0] if self.own_us else 0.0)


@dataclass(frozen=True)
class OwnRound:
    """What one round gave with a hub's own clients: latencies at PERCENTS."""

    speed: float
    own_us: list[float]
    lost: int


@dataclass(frozen=True)
class CostRound:
    """What one round of some hubs without clients gave, for each message."""

    sender_us: float | None
    hearer_us: float | None
    broker_us: float | None


@dataclass
class Rounds:
    """What was measured so far."""

    scale: defaultdict[tuple[int, int], list[tuple[ScaleRound, ScaleRound]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By hubs and clients at each: of one hub that has all the clients, and of the hubs."""
    hop: defaultdict[str, list[HopRound]] = field(default_factory=lambda: defaultdict(list))
    """By what the servers are joined by."""
    own: defaultdict[str, list[OwnRound]] = field(default_factory=lambda: defaultdict(list))
    """By what the broker was at."""
    cost: defaultdict[tuple[int, int], list[CostRound]] = field(default_factory=lambda: defaultdict(list))
    """By messages at once and hubs."""


def measure_scale(joined: Joined, clients: int, options: argparse.Namespace) -> ScaleRound:
    """Deliver to clients of all the hubs at full speed, once."""
    with bounded(), Load(joined.hubs[0].portno, clients, others=joined.others) as load:
        before = joined.cpu_seconds()
        fast = load.saturate(
            seconds=options.seconds, window=max(options.window, options.batch), batch=options.batch
        )
        after = joined.cpu_seconds()
    *hubs_us, broker_us = _costs_us(before, after, fast.deliveries)
    known = [one for one in hubs_us if one is not None]
    return ScaleRound(
        speed=fast.deliveries / fast.seconds if fast.seconds else 0.0,
        hubs_us=sum(known) if known else None,
        broker_us=broker_us,
        lost=fast.lost + fast.wrong,
    )


def _costs_us(
    before: Sequence[float | None], after: Sequence[float | None], messages: int
) -> list[float | None]:
    return [
        None if start is None or end is None or not messages else (end - start) / messages * 1e6
        for start, end in zip(before, after, strict=True)
    ]


def measure_hop(joined: Joined, options: argparse.Namespace) -> HopRound:
    """Time messages to a client at the publisher's server, and to one at another if there is one."""
    others = joined.others[:1]
    with bounded(), Load(joined.hubs[0].portno, 1 + len(others), others=others) as load:
        paced = load.pace(count=options.count, rate=options.rate)
    *other_us, own_us = _latencies_us(paced)
    return HopRound(own_us, other_us[0] if other_us else [], paced.lost + paced.wrong)


def measure_bare_hop(broker: servers.Server, options: argparse.Namespace) -> HopRound:
    """Time messages from a client of a nats-server to another."""
    with bounded(), Load(broker.portno, 1, NATS) as load:
        paced = load.pace(count=options.count, rate=options.rate)
    return HopRound([], _latencies_us(paced)[0], paced.lost + paced.wrong)


def _latencies_us(paced: Result) -> list[list[float]]:
    """Return each subscriber's latency at PERCENTS."""
    return [
        [seconds * 1e6 for seconds in percentiles(latencies, PERCENTS)] if latencies else []
        for latencies in paced.latencies_by_subscriber
    ]


def measure_own(hub: servers.Server, options: argparse.Namespace) -> OwnRound:
    """Serve a hub's own clients, at full speed and then paced."""
    with bounded(), Load(hub.portno, _OWN_CLIENTS) as load:
        fast = load.saturate(
            seconds=options.seconds, window=max(options.window, options.batch), batch=options.batch
        )
        paced = load.pace(count=options.count, rate=options.rate)
    latencies = [one for every in paced.latencies_by_subscriber for one in every]
    return OwnRound(
        speed=fast.deliveries / fast.seconds if fast.seconds else 0.0,
        own_us=[seconds * 1e6 for seconds in percentiles(latencies, PERCENTS)] if latencies else [],
        lost=fast.lost + fast.wrong + paced.lost + paced.wrong,
    )


def measure_cost(joined: Joined, at_once: int, options: argparse.Namespace) -> CostRound:
    """Measure what hubs do for each other, with nobody there but a publisher."""
    frames = streams.played_frames(_RING_FRAMES // at_once * at_once)
    writes = [b"".join(frames[at : at + at_once]) for at in range(0, len(frames), at_once)]
    count = max(1, round(options.seconds * options.rate))
    with bounded(), connect(joined.hubs[0].portno) as sender:
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
        after = joined.cpu_seconds()
    sender_us, *hearers_us, broker_us = _costs_us(before, after, count * at_once)
    return CostRound(sender_us, _median(hearers_us), broker_us)


def _reach_all(sender: socket.socket, joined: Joined) -> None:
    """Have what was sent arrive at every hub."""
    for hub in joined.hubs:
        with Crowd(hub.portno, 1) as witness:
            witness.settle(sender)


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    if min(options.hubs) < 2:
        raise SystemExit("--hubs has to be 2 at least")
    if max(options.together) > _RING_FRAMES:
        raise SystemExit(f"--together has to be {_RING_FRAMES:,} at most")
    brokers, _ = choose(["nats-server"])
    if not brokers:
        raise NothingToMeasureError("nats-server is not installed (Debian: apt-get install nats-server)")
    if importlib.util.find_spec("nats") is None:
        raise NothingToMeasureError("nats-py is not installed (pip install 'midinet[nats]')")
    rounds = Rounds()
    # Servers have as many as the program that starts them.
    allow_descriptors(_most_clients(options))
    for _ in range(options.rounds):
        _measure_round(rounds, brokers[0], options)
    return [
        _scale_table(rounds),
        _hop_table(rounds, options),
        _cost_table(rounds, options),
        _own_table(rounds, options),
    ]


def _most_clients(options: argparse.Namespace) -> int:
    return int(max(options.hubs) * max(options.clients)) + _OTHERS


def _measure_round(rounds: Rounds, contender: Contender, options: argparse.Namespace) -> None:
    with _hubs(1, options) as alone:
        _measure_costs(rounds, alone, options)
        _measure_states(rounds, alone, contender, options)
        for count in options.hubs:
            with (
                servers.start(contender.peer, "relay", options.cores, **contender.options) as broker,
                _hubs(count, options, broker) as joined,
            ):
                _measure_costs(rounds, joined, options)
                if count == options.hubs[0]:
                    _measure_hops(rounds, alone, joined, broker, options)
                for clients in options.clients:
                    total = count * clients
                    rounds.scale[count, clients].append(
                        (measure_scale(alone, total, options), measure_scale(joined, total, options))
                    )


def _measure_states(rounds: Rounds, alone: Joined, contender: Contender, options: argparse.Namespace) -> None:
    none, there, stopped, killed = STATES
    rounds.own[none].append(measure_own(alone.hubs[0], options))
    with (
        servers.start(contender.peer, "relay", options.cores, **contender.options) as broker,
        _hubs(2, options, broker) as joined,
    ):
        rounds.own[there].append(measure_own(joined.hubs[0], options))
        for state, number in ((stopped, signal.SIGSTOP), (killed, signal.SIGKILL)):
            os.kill(broker.pid, number)
            rounds.own[state].append(measure_own(joined.hubs[0], options))


def _measure_costs(rounds: Rounds, joined: Joined, options: argparse.Namespace) -> None:
    for at_once in options.together:
        rounds.cost[at_once, len(joined.hubs)].append(measure_cost(joined, at_once, options))


def _measure_hops(
    rounds: Rounds, alone: Joined, joined: Joined, broker: servers.Server, options: argparse.Namespace
) -> None:
    rounds.hop[ALONE].append(measure_hop(alone, options))
    rounds.hop[HUBS].append(measure_hop(joined, options))
    if importlib.util.find_spec("uvloop") is not None:
        with _hubs(2, options, broker, session="on-uvloop", uvloop=True) as faster:
            rounds.hop[UVLOOP_HUBS].append(measure_hop(faster, options))
    with _servers("nats_joint", 2, options, broker, broker=_url(broker)) as bare:
        rounds.hop[NATS_PY].append(measure_hop(bare, options))
    rounds.hop[NATS_SERVER].append(measure_bare_hop(broker, options))


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


def _scale_table(rounds: Rounds) -> Table:
    table = Table(
        "Deliveries at full speed",
        [
            Column("hubs"),
            Column("clients each"),
            Column("deliveries/s"),
            Column("noise %", ".0f"),
            Column("x one hub", ".2f"),
            Column("hubs CPU µs", ".3f"),
            Column("NATS CPU µs", ".4f"),
            Column("lost"),
        ],
    )
    for (hubs, clients), pairs in sorted(rounds.scale.items()):
        ratios = [own.speed / other.speed for other, own in pairs if other.speed]
        alone, joined = zip(*pairs, strict=True)
        for shown, ratio, done in (
            ((1, hubs * clients), None, alone),
            ((hubs, clients), _median(ratios), joined),
        ):
            speeds = [one.speed for one in done]
            table.rows.append(
                [
                    *shown,
                    median(speeds),
                    noise(speeds),
                    ratio,
                    _median([one.hubs_us for one in done]),
                    _median([one.broker_us for one in done]),
                    sum(one.lost for one in done),
                ]
            )
            table.rounds += [
                {"hubs": shown[0], "clients each": shown[1], "round": number, **asdict(one)}
                for number, one in enumerate(done)
            ]
    return table


def _hop_table(rounds: Rounds, options: argparse.Namespace) -> Table:
    table = Table(
        f"Latency at {options.rate:,.0f} messages/s",
        [
            Column("joined by"),
            Column("own median µs"),
            Column("99 % µs"),
            Column("other median µs"),
            Column("99 % µs"),
            Column("hop µs"),
            Column("noise %", ".0f"),
            Column("lost"),
        ],
    )
    for name, done in rounds.hop.items():
        hops = [one.hop_us for one in done if one.hop_us is not None]
        table.rows.append(
            [
                name,
                *_medians([one.own_us for one in done]),
                *_medians([one.other_us for one in done]),
                _median(hops),
                noise(hops) if hops else None,
                sum(one.lost for one in done),
            ]
        )
        table.rounds += [
            {"joined by": name, "round": number, **asdict(one)} for number, one in enumerate(done)
        ]
    return table


def _cost_table(rounds: Rounds, options: argparse.Namespace) -> Table:
    table = Table(
        f"What hubs without clients do for a message; {options.rate:,.0f} writes/s",
        [
            Column("messages at once"),
            Column("other hubs"),
            Column("sender CPU µs", ".2f"),
            Column("hearer CPU µs", ".2f"),
            Column("NATS CPU µs", ".2f"),
        ],
    )
    for (at_once, hubs), done in sorted(rounds.cost.items()):
        table.rows.append(
            [
                at_once,
                hubs - 1,
                _median([one.sender_us for one in done]),
                _median([one.hearer_us for one in done]),
                _median([one.broker_us for one in done]),
            ]
        )
        table.rounds += [
            {"messages at once": at_once, "hubs": hubs, "round": number, **asdict(one)}
            for number, one in enumerate(done)
        ]
    return table


def _own_table(rounds: Rounds, options: argparse.Namespace) -> Table:
    table = Table(
        f"{_OWN_CLIENTS} clients of one hub; latency at {options.rate:,.0f} messages/s",
        [
            Column("broker"),
            Column("deliveries/s"),
            Column("noise %", ".0f"),
            Column("median µs"),
            Column("99 % µs"),
            Column("lost"),
        ],
    )
    for state, done in rounds.own.items():
        speeds = [one.speed for one in done]
        table.rows.append(
            [
                state,
                median(speeds),
                noise(speeds),
                *_medians([one.own_us for one in done]),
                sum(one.lost for one in done),
            ]
        )
        table.rounds += [{"broker": state, "round": number, **asdict(one)} for number, one in enumerate(done)]
    return table


def _median(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return median(known) if known else None


def _medians(rounds: Sequence[Sequence[float]]) -> list[Cell]:
    """The medians of figures at PERCENTS, where there are any."""
    known = [figures for figures in rounds if figures]
    return [median(column) for column in zip(*known, strict=True)] if known else [None] * len(PERCENTS)


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.session", __doc__)
    program.size("hubs", full=[2, 3, 4], quick=[2], help="numbers of hubs that are joined")
    program.size("clients", full=[100, 1_000], quick=[2], help="numbers of clients at each hub")
    program.size("seconds", full=1.0, quick=0.02, help="how long to publish, for deliveries and for costs")
    program.size("window", full=2_000, quick=200, help="messages ahead of the slowest client")
    program.size("batch", full=16, quick=16, help="messages in one write at full speed")
    program.size("count", full=2_000, quick=15, help="messages for the latency")
    program.size("rate", full=1_000.0, quick=1_000.0, help="writes a second for latencies and costs")
    program.size("together", full=[1, 100], quick=[1, 10], help="numbers of messages at once for the cost")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
