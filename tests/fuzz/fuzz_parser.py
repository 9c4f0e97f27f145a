"""The parser, fuzzed: it never raises, chunks never matter, nothing is lost uncounted, memory is bounded.

What is right is said twice: by a parser that goes by the byte (tests/harness/models.py), and by a balance
that holds for any parser of MIDI, whatever it makes of a stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from midinet.wire.aside import AsideStats
from midinet.wire.parser import Parser, ParserStats
from tests.fuzz import chunks, controls, fuzz
from tests.harness.models import SlowParser

SEEDS = [
    bytes.fromhex(text)
    for text in (
        "90 3C 40 80 3C 00 C1 05 E2 00 40 D3 11 A4 3C 20 B0 07 64",
        "90 3C 64 3E 64 40 64 F8 43 F8 64",
        "F0 7D 01 F8 02 F7 90 3C 40",
        "F0 01 02 03 04 05 06 07 08 F7 F0 F7 F0 01 90 3C 40 F0",
        "F1 11 F2 01 02 03 F3 05 06 F6 F4 01 F5 02 90 3C F7 40",
        "F8 F9 FA FB FC FD FE FF 90 F9 3C FD 40 F2 FA 01 FC 02",
        "3C 40 F7 4D 49 44 49 0D 0A 0D 0A C1 C1 05 05 90 3C",
    )
]


def check(data: bytes) -> None:
    """Fail unless the parser makes of these bytes what it should."""
    stream, limit, sizes = controls(data)
    slow, parser = SlowParser(limit), Parser(max_sysex=limit)
    expected = slow.feed(stream)
    slow.drop()
    frames: list[bytes] = []
    for chunk in chunks(stream, sizes):
        frames += parser.frames(chunk)
        check_memory(parser)
    parser.end()
    assert frames == expected, f"{frames} of {stream.hex(' ')}"
    counts = asdict(parser.stats)
    assert (counts.pop("bytes"), counts.pop("messages")) == (len(stream), len(expected))
    assert counts == asdict(AsideStats()) | slow.counts
    check_balance(stream, frames, parser.stats)
    # The other way to read gives the same.
    other = Parser(max_sysex=limit)
    messages = [message for chunk in chunks(stream, sizes) for message in other.feed(chunk)]
    other.end()
    assert [message.bin() for message in messages] == frames
    assert other.stats == parser.stats


def check_memory(parser: Parser) -> None:
    """Fail when a parser holds more of a stream than what is unfinished may take."""
    assert len(parser._held) <= 2
    assert len(parser._sysex or b"") < parser.max_sysex


def check_balance(stream: bytes, frames: Sequence[bytes], stats: ParserStats) -> None:
    """Fail unless every byte of a stream that has ended is in a frame or in a count."""
    came = Counter(stream)
    # Whatever came out, byte by byte, and what messages there were.
    out, kinds = Counter(b"".join(frames)), Counter(frame[0] for frame in frames)
    asides = (
        stats.asides
        + stats.asides_malformed
        + stats.asides_too_long
        + stats.asides_unknown
        + stats.asides_aborted
    )
    for real_time in (0xF8, 0xFA, 0xFB, 0xFC, 0xFE, 0xFF, 0xF6):
        assert came[real_time] == out[real_time]
    assert came[0xF4] + came[0xF5] + came[0xF9] + came[0xFD] == stats.undefined
    assert came[0xF0] == kinds[0xF0] + stats.sysex_aborted + stats.sysex_too_long
    # One that was too long may have had its end.
    ends = came[0xF7] - kinds[0xF0] - stats.stray_ends - asides
    assert 0 <= ends <= stats.sysex_too_long
    given = sum(count for byte, count in came.items() if byte < 0x80)
    taken = sum(count for byte, count in out.items() if byte < 0x80)
    # What was in messages that did not become whole.
    left = given - taken - stats.stray_data - (stats.aside_bytes - asides)
    assert left >= 0
    assert left == 0 or stats.unfinished or stats.sysex_aborted or stats.sysex_too_long


if __name__ == "__main__":
    fuzz(check, SEEDS)
