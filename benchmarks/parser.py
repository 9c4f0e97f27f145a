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

import mido

import midinet
from midinet.wire.codec import decode, encode

from . import streams
from .runner import Benchmark, bounded
from .table import Column, Table, middle, noise_column, ratio

CHUNK_BYTES = 4096

# By subject, who is measured: the first is what the ratios are to.
_PARSERS = ("mido.Parser", "midinet Parser.feed", "midinet Parser.frames")
_FIRST = {"decode one frame": "mido Message.from_bytes", "encode one message": "mido Message.bin"}


def count_from(feed: Callable[[bytes], Iterable[object]], chunks: Iterable[bytes]) -> int:
    """Take what comes out of each chunk one by one."""
    count = 0
    for chunk in chunks:
        for _ in feed(chunk):
            count += 1
    return count


def count_from_mido(chunks: Iterable[bytes]) -> int:
    """Do as `count_from`, by mido's parser."""
    parser = mido.Parser()
    count = 0
    for chunk in chunks:
        parser.feed(chunk)
        for _ in parser:
            count += 1
    return count


def count_each(function: Callable[[object], object], values: Sequence[object]) -> int:
    """Call a function with each of the values."""
    for value in values:
        function(value)
    return len(values)


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    columns = [
        Column("messages/s", middle("messages_per_s")),
        noise_column("messages_per_s"),
        Column(
            "x mido", ratio("messages_per_s", lambda head: (head[0], _FIRST.get(head[0], _PARSERS[0]))), ".1f"
        ),
        Column("read", middle("read"), ".1%"),
    ]
    return [Table("Bytes to messages and back, one core", ["subject", "with"], columns)]


def measure(options: argparse.Namespace, table: Table) -> None:
    """Measure a round: everybody in turn."""
    sent = options.count
    frames = streams.channel_frames(sent)

    def add(subject: str, name: str, function: Callable[..., int], *arguments: object) -> None:
        with bounded():
            start = time.perf_counter()
            count = function(*arguments)
            speed = count / (time.perf_counter() - start)
        table.add(subject, name, messages_per_s=speed, read=count / sent)

    for subject, stream in (
        ("played", b"".join(streams.played_frames(sent))),
        ("all kinds", b"".join(frames)),
        ("running status, clock", streams.instrument_stream(sent)),
    ):
        chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
        add(subject, _PARSERS[0], count_from_mido, chunks)
        add(subject, _PARSERS[1], count_from, midinet.Parser().feed, chunks)
        add(subject, _PARSERS[2], count_from, midinet.Parser().frames, chunks)
    messages = [mido.Message.from_bytes(frame) for frame in frames]
    add("decode one frame", "mido Message.from_bytes", count_each, mido.Message.from_bytes, frames)
    add("decode one frame", "midinet decode", count_each, decode, frames)
    add("encode one message", "mido Message.bin", count_each, mido.Message.bin, messages)
    add("encode one message", "midinet encode", count_each, encode, messages)


BENCHMARK = Benchmark("benchmarks.parser", __doc__, tables, measure)
BENCHMARK.size("count", 100_000, 2_000, "messages in each stream")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
