"""The blocking ports: midinet.sync and mido.sockets, the same program with one line of difference.

receive: messages a second that `port.receive()` returns of bursts of 10,000, which another process sends at
once whenever the last one has been read. (Under a stream without an end, mido's `receive` never returns: it
reads for as long as there is something to read.)

send: messages a second that `port.send(message)` takes, the last of them received at the other end.

round trip: median time in microseconds of one message there and back, sent at a moderate rate, between the
client and an echo server in another process: midinet's async server, asyncio streams with mido's Parser,
mido's polling server, and each library's own blocking server (for midinet.sync: accept, for, send).

"times better" is the ratio between the two, the median of the rounds' ratios, above 1 where midinet is the
better one. "noise" is half the distance between the best and the worst round, for midinet and for mido.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mido
import mido.sockets

import midinet.sync

from . import clients, servers, streams
from .program import Program, bounded
from .table import Column, Table, median, noise, percentile

Connect = Callable[[str, int], mido.ports.BaseIOPort]

# Messages between two looks at the clock.
_BATCH = 64

LIBRARIES: tuple[tuple[str, Connect, clients.Client, str], ...] = (
    ("midinet.sync", midinet.sync.connect, clients.midinet_sync, "midinet_blocking"),
    ("mido.sockets", mido.sockets.connect, clients.mido_sockets, "mido_sockets"),
)

# The servers that both libraries' clients talk to.
SERVERS = {"midinet": "midinet_loop", "asyncio+mido": "asyncio_streams", "mido": "mido_sockets"}


@dataclass
class Row:
    """What the rounds gave for one subject, by library."""

    subject: str
    unit: str
    figures: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def ratio(self) -> float:
        """How many times better midinet is, as the median of the rounds."""
        ratios = [ours / theirs for ours, theirs in zip(*self.figures, strict=True)]
        ratio = median(ratios)
        return ratio if self.unit == "messages/s" else 1 / ratio


def receive_speed(connect: Connect, portno: int, seconds: float) -> float:
    """Receive bursts for so many seconds. Returns messages a second."""
    marker = mido.Message.from_bytes(streams.MARKER)
    with bounded(), connect("127.0.0.1", portno) as port:
        count = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            port.send(marker)
            for _ in range(streams.BURST):
                port.receive()
            count += streams.BURST
            now = time.perf_counter()
    return count / (now - start)


def send_speed(connect: Connect, portno: int, seconds: float) -> float:
    """Send for so many seconds and wait until the last message has arrived. Returns messages a second."""
    messages = [mido.Message.from_bytes(frame) for frame in streams.played_frames(_BATCH)]
    marker = mido.Message.from_bytes(streams.MARKER)
    with bounded(), connect("127.0.0.1", portno) as port:
        count = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            for message in messages:
                port.send(message)
            count += _BATCH
            now = time.perf_counter()
        port.send(marker)
        port.receive()
        return count / (time.perf_counter() - start)


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    receive = Row("receive", "messages/s")
    send = Row("send", "messages/s")
    shared = {server: Row(f"round trip, {server} server", "µs") for server in SERVERS}
    own = Row("round trip, own blocking server", "µs")
    waits = clients.pauses(options.count, options.rate)
    cores = options.cores
    for _ in range(options.rounds):
        with servers.start("bare_sockets", "flood", cores) as server:
            for side, (_, connect, _, _) in enumerate(LIBRARIES):
                receive.figures[side].append(receive_speed(connect, server.portno, options.seconds))
        with servers.start("bare_sockets", "sink", cores) as server:
            for side, (_, connect, _, _) in enumerate(LIBRARIES):
                send.figures[side].append(send_speed(connect, server.portno, options.seconds))
        for name, peer in SERVERS.items():
            with servers.start(peer, "echo", cores) as server:
                for side, (_, _, client, _) in enumerate(LIBRARIES):
                    taken = clients.round_trips(client, server.portno, waits)
                    shared[name].figures[side].append(percentile(taken, 50) * 1e6)
        for side, (_, _, client, peer) in enumerate(LIBRARIES):
            with servers.start(peer, "echo", cores) as server:
                taken = clients.round_trips(client, server.portno, waits)
                own.figures[side].append(percentile(taken, 50) * 1e6)
    table = Table(
        "Blocking ports",
        [
            Column("measured"),
            Column("unit"),
            Column(LIBRARIES[0][0]),
            Column(LIBRARIES[1][0]),
            Column("times better", ".1f"),
            Column("midinet noise %", ".0f"),
            Column("mido noise %", ".0f"),
        ],
    )
    for row in [receive, send, *shared.values(), own]:
        ours, theirs = row.figures
        table.rows.append(
            [row.subject, row.unit, median(ours), median(theirs), row.ratio(), noise(ours), noise(theirs)]
        )
        table.rounds += [
            {"measured": row.subject, "unit": row.unit, "midinet": our, "mido": their}
            for our, their in zip(ours, theirs, strict=True)
        ]
    return [table]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.sync", __doc__)
    program.size("seconds", full=1.0, quick=0.05, help="how long to receive, and how long to send")
    program.size("count", full=1_000, quick=10, help="round trips in a round")
    program.size("rate", full=1_000.0, quick=1_000.0, help="messages a second in the round trips")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
