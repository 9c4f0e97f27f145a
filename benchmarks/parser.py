"""Bytes to messages and back, in messages a second of one core.

Reading: a stream is cut into chunks of 4,096 bytes, as a busy socket brings them. Each chunk is fed to the
parser and the messages that come out are taken one by one and dropped, as a program would. Three streams of
random messages: what is played (notes, controllers, bends), all seven kinds of channel message in equal
parts, and what an instrument sends, half of it under running status and with clock bytes in between and
inside. "read" is the share of the messages in the stream that came out: mido has no running status and loses
a message that a clock byte interrupts.

Single messages: one frame of bytes made a message, and one message made bytes.

"x mido" is the ratio to mido in the same row group, the median of the rounds' ratios. "noise" is half the
distance between the best and the worst round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import mido

import midinet
from midinet.wire.codec import decode, encode

from . import streams
from .program import Program, bounded
from .table import Cell, Column, Table, median, noise

CHUNK_BYTES = 4096

# One round of one contender: how many messages came out, and how many seconds it took.
Round = tuple[int, float]
Contender = Callable[[], Round]

T = TypeVar("T")


def feed_mido(chunks: Sequence[bytes]) -> Round:
    parser = mido.Parser()
    count = 0
    start = time.perf_counter()
    for chunk in chunks:
        parser.feed(chunk)
        for _ in parser:
            count += 1
    return count, time.perf_counter() - start


def feed_midinet(chunks: Sequence[bytes]) -> Round:
    feed = midinet.Parser().feed
    count = 0
    start = time.perf_counter()
    for chunk in chunks:
        for _ in feed(chunk):
            count += 1
    return count, time.perf_counter() - start


def frames_midinet(chunks: Sequence[bytes]) -> Round:
    frames = midinet.Parser().frames
    count = 0
    start = time.perf_counter()
    for chunk in chunks:
        for _ in frames(chunk):
            count += 1
    return count, time.perf_counter() - start


def each(function: Callable[[T], object], values: Iterable[T]) -> Round:
    count = 0
    start = time.perf_counter()
    for value in values:
        function(value)
        count += 1
    return count, time.perf_counter() - start


def compare(
    table: Table, subject: str, sent: int, contenders: dict[str, Contender], *, rounds: int, reference: str
) -> None:
    """Take the contenders in turn for so many rounds and add a row for each."""
    results: dict[str, list[Round]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with bounded():
                results[name].append(contender())
    speeds = {name: [count / seconds for count, seconds in done] for name, done in results.items()}
    for name, done in results.items():
        ratios = [own / other for own, other in zip(speeds[name], speeds[reference], strict=True)]
        read = done[0][0] / sent
        row: list[Cell] = [subject, name, median(speeds[name]), noise(speeds[name]), median(ratios), read]
        table.rows.append(row)
        table.rounds += [
            {"subject": subject, "with": name, "messages_per_s": speed} for speed in speeds[name]
        ]


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    table = Table(
        "Bytes to messages and back, one core",
        [
            Column("subject"),
            Column("with"),
            Column("messages/s"),
            Column("noise %", ".0f"),
            Column("x mido", ".1f"),
            Column("read", ".1%"),
        ],
    )
    count = options.count
    frames = streams.channel_frames(count)
    for subject, stream in [
        ("played", b"".join(streams.played_frames(count))),
        ("all kinds", b"".join(frames)),
        ("running status, clock", streams.instrument_stream(count)),
    ]:
        chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
        contenders: dict[str, Contender] = {
            "mido.Parser": partial(feed_mido, chunks),
            "midinet Parser.feed": partial(feed_midinet, chunks),
            "midinet Parser.frames": partial(frames_midinet, chunks),
        }
        compare(table, subject, count, contenders, rounds=options.rounds, reference="mido.Parser")
    messages = [mido.Message.from_bytes(frame) for frame in frames]
    compare(
        table,
        "decode one frame",
        count,
        {
            "mido Message.from_bytes": partial(each, mido.Message.from_bytes, frames),
            "midinet decode": partial(each, decode, frames),
        },
        rounds=options.rounds,
        reference="mido Message.from_bytes",
    )
    compare(
        table,
        "encode one message",
        count,
        {
            "mido Message.bin": partial(each, mido.Message.bin, messages),
            "midinet encode": partial(each, encode, messages),
        },
        rounds=options.rounds,
        reference="mido Message.bin",
    )
    return [table]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.parser", __doc__)
    program.size("count", full=100_000, quick=2_000, help="messages in each stream")
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
