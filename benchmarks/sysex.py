"""Long system exclusive messages and the notes beside them: one sysex of 64 KiB, and a stream of them.

A hundred listeners hear a librarian, who sends sysexes, and a player, who plays notes, through a server in
another process: midinet's, as it is started and on uvloop, asyncio streams with mido's Parser, and bare
sockets that look at no byte and send what they read to one after the other: what the copying takes. Those
that are not installed are left out. All who send and listen are bare sockets in one process on another core.

One sysex: "note ms" is the time in ms (milliseconds) from a note's write until the last listener has read it.
The librarian's sysex is written right before it, or the player's own, or none; "sysex ms" is the time from
the write of the librarian's until the last listener has read that. A note is well served that is delayed by
no more than bare sockets take for the sysex. Medians of several, one after the other is over.

A stream: the librarian is always some sysexes ahead of the listener who has heard most, while the player
plays 100 notes a second. "MiB/s" is what each listener is sent (MiB are 1,048,576 bytes); the latencies are
those of the notes, from the write to a listener's read. "lost" notes did not reach a listener, "missed"
sysexes neither, and "wrong" notes did not stand behind whole messages, as happens where nobody looks at a
byte: sums over the rounds.

"load %" is how much of its time the load had something to do, and "late ms" the 99th percentile of how late
it played. Where the one is above 90, or the other above 2, it says "no" under "kept up": the load, or
something else on this machine, is a part of what was measured. Each figure is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import sys

from . import servers
from .contenders import Contender
from .listeners import SYSEX_BYTES, Listeners
from .runner import Benchmark, bounded
from .table import Column, Table, kept_up, median, middle, percentile, percentiles, total

_SERVERS = ("midinet serve", "midinet hub", "midinet serve --uvloop", "asyncio+mido", "bare sockets")

PERCENTS = (50.0, 99.0, 100.0)

# What the load may be busy and late to be no part of what is measured.
_MOST_BUSY = 90.0
_MOST_LATE_MS = 2.0


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the tables of single sysexes and of a stream."""
    one = [
        Column("note ms", middle("note_ms"), ".2f"),
        Column("behind another's sysex", middle("behind_anothers_ms"), ".2f"),
        Column("behind its own", middle("behind_own_ms"), ".2f"),
        Column("sysex ms", middle("sysex_ms"), ".2f"),
    ]
    stream = [
        Column("MiB/s", middle("mib_per_s"), ".1f"),
        *(
            Column(title, middle("latencies_ms", place), ".1f")
            for place, title in enumerate(("median ms", "99 % ms", "max ms"))
        ),
        *(Column(name, total(name)) for name in ("lost", "missed", "wrong")),
        Column("load %", middle("load_percent")),
        Column("late ms", middle("late_ms"), ".1f"),
        Column("kept up", kept_up(load_percent=_MOST_BUSY, late_ms=_MOST_LATE_MS)),
    ]
    return [
        Table(f"One sysex of {SYSEX_BYTES // 1024} KiB to {options.listeners} listeners", ["server"], one),
        Table(f"Notes at {options.rate:g}/s beside a stream of sysexes", ["server"], stream),
    ]


def measure(contender: Contender, options: argparse.Namespace, one: Table, streamed: Table) -> None:
    """Send one server sysexes one by one, and then a stream of them."""
    everybody = options.listeners
    with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
        with bounded(), Listeners(server.portno, everybody, attentive=everybody) as listeners:
            alone, anothers, own = (
                [listeners.play_behind(sender) for _ in range(options.sysexes)]
                for sender in (None, listeners.librarian, listeners.player)
            )
        with (
            bounded(),
            Listeners(server.portno, everybody, attentive=min(options.attentive, everybody)) as listeners,
        ):
            stream = listeners.stream(seconds=options.seconds, rate=options.rate, window=options.window)
    one.add(
        contender.name,
        note_ms=median([note_s for note_s, _ in alone]) * 1e3,
        behind_anothers_ms=median([note_s for note_s, _ in anothers]) * 1e3,
        behind_own_ms=median([note_s for note_s, _ in own]) * 1e3,
        sysex_ms=median([sysex_s for _, sysex_s in anothers]) * 1e3,
    )
    streamed.add(
        contender.name,
        mib_per_s=stream.sysexes * SYSEX_BYTES / 2**20 / stream.seconds,
        latencies_ms=percentiles(stream.latencies, PERCENTS, 1e3),
        lost=stream.lost,
        missed=stream.missed,
        wrong=stream.wrong,
        load_percent=stream.busy * 100,
        late_ms=percentile(stream.late, 99) * 1e3,
    )


BENCHMARK = Benchmark("benchmarks.sysex", __doc__, tables, measure, contenders=_SERVERS)
BENCHMARK.size("listeners", 100, 5, "who is sent everything")
BENCHMARK.size("sysexes", 20, 2, "single sysexes of each kind")
BENCHMARK.size("seconds", 2.0, 0.05, "how long to stream")
BENCHMARK.size("rate", 100.0, 100.0, "notes a second beside the stream")
BENCHMARK.size("window", 16, 2, "sysexes ahead of the listener who has heard most")
BENCHMARK.size("attentive", 10, 2, "listeners whose latencies count beside the stream")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
