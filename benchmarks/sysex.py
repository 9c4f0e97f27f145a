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
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from . import servers
from .contenders import choose
from .listeners import SYSEX_BYTES, Listeners
from .program import Program, bounded
from .table import Cell, Column, Table, median, percentiles

_SERVERS = ("midinet serve", "midinet hub", "midinet serve --uvloop", "asyncio+mido", "bare sockets")

PERCENTS = (50.0, 99.0, 100.0)

# What the load may be busy and late to be no part of what is measured.
_MOST_BUSY = 90.0
_MOST_LATE_MS = 2.0


@dataclass(frozen=True)
class OneRound:
    """What one round of one server gave with single sysexes, in ms."""

    note_ms: float
    behind_anothers_ms: float
    behind_own_ms: float
    sysex_ms: float


@dataclass(frozen=True)
class StreamRound:
    """What one round of one server gave with a stream of sysexes."""

    mib_per_s: float
    latencies_ms: list[float]
    lost: int
    missed: int
    wrong: int
    load_percent: float
    late_ms: float


def measure_one(server: servers.Server, options: argparse.Namespace) -> OneRound:
    """Send sysexes one by one."""
    with bounded(), Listeners(server.portno, options.listeners, attentive=options.listeners) as listeners:
        alone = [listeners.play_behind(None)[0] for _ in range(options.sysexes)]
        anothers = [listeners.play_behind(listeners.librarian) for _ in range(options.sysexes)]
        own = [listeners.play_behind(listeners.player)[0] for _ in range(options.sysexes)]
    return OneRound(
        note_ms=median(alone) * 1e3,
        behind_anothers_ms=median([note_s for note_s, _ in anothers]) * 1e3,
        behind_own_ms=median(own) * 1e3,
        sysex_ms=median([sysex_s for _, sysex_s in anothers]) * 1e3,
    )


def measure_stream(server: servers.Server, options: argparse.Namespace) -> StreamRound:
    """Send a stream of sysexes."""
    attentive = min(options.attentive, options.listeners)
    with bounded(), Listeners(server.portno, options.listeners, attentive=attentive) as listeners:
        stream = listeners.stream(seconds=options.seconds, rate=options.rate, window=options.window)
    latencies = percentiles(stream.latencies, PERCENTS) if stream.latencies else []
    return StreamRound(
        mib_per_s=stream.sysexes * SYSEX_BYTES / 2**20 / stream.seconds,
        latencies_ms=[seconds * 1e3 for seconds in latencies],
        lost=stream.lost,
        missed=stream.missed,
        wrong=stream.wrong,
        load_percent=stream.busy * 100,
        late_ms=percentiles(stream.late, [99])[0] * 1e3,
    )


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    contenders, notes = choose(options.only)
    ones: dict[str, list[OneRound]] = {contender.name: [] for contender in contenders}
    streams: dict[str, list[StreamRound]] = {contender.name: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender in contenders:
            with servers.start(contender.peer, "relay", options.cores, **contender.options) as server:
                ones[contender.name].append(measure_one(server, options))
                streams[contender.name].append(measure_stream(server, options))
    tables = [_one_table(options, ones), _stream_table(options, streams)]
    tables[0].notes = notes
    return tables


def _one_table(options: argparse.Namespace, results: dict[str, list[OneRound]]) -> Table:
    table = Table(
        f"One sysex of {SYSEX_BYTES // 1024} KiB to {options.listeners} listeners",
        [
            Column("server"),
            Column("note ms", ".2f"),
            Column("behind another's sysex", ".2f"),
            Column("behind its own", ".2f"),
            Column("sysex ms", ".2f"),
        ],
    )
    for name, rounds in results.items():
        figures = zip(
            *[(one.note_ms, one.behind_anothers_ms, one.behind_own_ms, one.sysex_ms) for one in rounds],
            strict=True,
        )
        table.rows.append([name, *[median(figure) for figure in figures]])
        table.rounds += _saved(name, rounds)
    return table


def _stream_table(options: argparse.Namespace, results: dict[str, list[StreamRound]]) -> Table:
    table = Table(
        f"Notes at {options.rate:g}/s beside a stream of sysexes",
        [
            Column("server"),
            Column("MiB/s", ".1f"),
            Column("median ms", ".1f"),
            Column("99 % ms", ".1f"),
            Column("max ms", ".1f"),
            Column("lost"),
            Column("missed"),
            Column("wrong"),
            Column("load %"),
            Column("late ms", ".1f"),
            Column("kept up"),
        ],
    )
    for name, rounds in results.items():
        heard = [one.latencies_ms for one in rounds if one.latencies_ms]
        latencies: list[Cell] = [None] * len(PERCENTS)
        if heard:
            latencies = [median(column) for column in zip(*heard, strict=True)]
        load, late = median([one.load_percent for one in rounds]), median([one.late_ms for one in rounds])
        table.rows.append(
            [
                name,
                median([one.mib_per_s for one in rounds]),
                *latencies,
                sum(one.lost for one in rounds),
                sum(one.missed for one in rounds),
                sum(one.wrong for one in rounds),
                load,
                late,
                "yes" if load <= _MOST_BUSY and late <= _MOST_LATE_MS else "no",
            ]
        )
        table.rounds += _saved(name, rounds)
    return table


def _saved(name: str, rounds: Sequence[OneRound | StreamRound]) -> list[dict[str, object]]:
    return [{"server": name, "round": number, **asdict(one)} for number, one in enumerate(rounds)]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.sysex", __doc__)
    program.choice("only", among=_SERVERS, help="who is measured (default: all)")
    program.size("listeners", full=100, quick=5, help="who is sent everything")
    program.size("sysexes", full=20, quick=2, help="single sysexes of each kind")
    program.size("seconds", full=2.0, quick=0.05, help="how long to stream")
    program.size("rate", full=100.0, quick=100.0, help="notes a second beside the stream")
    program.size("window", full=16, quick=2, help="sysexes ahead of the listener who has heard most")
    program.size("attentive", full=10, quick=2, help="listeners whose latencies count beside the stream")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
