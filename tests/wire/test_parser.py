from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mido
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midinet import Parser
from midinet.wire.aside import AsideStats
from midinet.wire.parser import DEFAULT_MAX_SYSEX, split_messages
from tests.harness.messages import any_message
from tests.harness.models import SlowParser

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())

# Bytes that matter come more often than chance would have them.
stream = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=6),
        st.sampled_from([bytes([status]) for status in range(0x80, 0x100)]),
        st.sampled_from([b"\xf0", b"\xf7", b"\x90", b"\xf8", b"\x90\x3c\x40", b"\xc1\x05"]),
        st.binary(min_size=1, max_size=20).map(lambda data: bytes(byte & 0x7F for byte in data)),
    ),
    max_size=30,
).map(b"".join)


def in_chunks(parser: Any, data: bytes, size: int) -> list[bytes]:
    return [frame for i in range(0, len(data), size) for frame in parser.frames(data[i : i + size])]


def hexes(frames: list[bytes]) -> list[str]:
    return [frame.hex(" ").upper() for frame in frames]


@pytest.mark.parametrize("size", [1, 2, 3, 1000], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
def test_published_streams_give_their_frames(vector: dict[str, Any], size: int) -> None:
    assert hexes(in_chunks(Parser(), bytes.fromhex(vector["bytes"]), size)) == vector["frames"]


def test_there_are_31_published_streams() -> None:
    assert len(VECTORS) == 31


@pytest.mark.parametrize("size", [1, 2, 1000], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize(
    ("case", "data", "frames"),
    [
        ("empty sysex", "F0 F7", ["F0 F7"]),
        ("running status of two-byte messages", "C5 01 02 03", ["C5 01", "C5 02", "C5 03"]),
        ("a status alone does not repeat", "90 90 3C 40", ["90 3C 40"]),
        ("real-time leaves running status", "90 3C 40 F8 3E 40", ["90 3C 40", "F8", "90 3E 40"]),
        ("undefined real-time leaves the message", "90 F9 3C FD 40", ["90 3C 40"]),
        ("tune request clears running status", "90 3C 40 F6 3E 40", ["90 3C 40", "F6"]),
        ("F4 clears running status", "90 3C 40 F4 3E 40 90 01 02", ["90 3C 40", "90 01 02"]),
        ("a lone F7 clears running status", "90 3C 40 F7 3E 40", ["90 3C 40"]),
        ("a lone F7 ends an unfinished message", "90 3C F7 40 90 01 02", ["90 01 02"]),
        ("real-time inside a sysex comes first", "F0 01 F8 02 F7", ["F8", "F0 01 02 F7"]),
        ("a status inside a sysex is taken", "F0 01 02 90 3C 40", ["90 3C 40"]),
        ("a sysex inside a sysex is taken", "F0 01 F0 02 F7", ["F0 02 F7"]),
        ("data after a sysex is stray", "90 3C 40 F0 01 F7 3E 40", ["90 3C 40", "F0 01 F7"]),
        ("real-time inside song position", "F2 F8 01 FA 02", ["F8", "FA", "F2 01 02"]),
        ("note-on with velocity 0 stays", "90 3C 00 3C 00", ["90 3C 00", "90 3C 00"]),
        ("an aside is ignored", "F7 4D 49 44 49 0D 0A 0D 0A 90 3C 40", ["90 3C 40"]),
        ("song select once", "F3 05 06", ["F3 05"]),
    ],
    ids=lambda value: value if isinstance(value, str) and not value[:2].strip().isalnum() else None,
)
def test_rules_of_the_specification(case: str, data: str, frames: list[str], size: int) -> None:
    assert hexes(in_chunks(Parser(), bytes.fromhex(data), size)) == frames, case


def test_a_frame_comes_with_its_last_byte_and_real_time_at_once() -> None:
    parser = Parser()
    assert parser.frames(b"\x90\xf8") == [b"\xf8"]
    assert parser.frames(b"\x3c") == []
    assert parser.frames(b"\x40") == [b"\x90\x3c\x40"]


@given(stream, st.lists(st.integers(1, 9), min_size=1), st.sampled_from([2, 3, 5, 8, 65536]))
@example(b"\xf0\x01\x02\x03\xf7", [5], 5)
@example(b"\xf0\x01\x02\x03\xf7", [5], 4)
@example(b"\xf0\x01\x02\x03\x04\x05\xf0\x01\xf7", [2], 4)
def test_any_bytes_in_any_chunks_give_what_the_rules_say(data: bytes, sizes: list[int], limit: int) -> None:
    slow, parser = SlowParser(limit), Parser(max_sysex=limit)
    expected = slow.feed(data)
    slow.drop()
    frames: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        frames += parser.frames(data[at : at + size])
        at += size
        turn += 1
    parser.end()
    assert frames == expected
    counts = asdict(parser.stats)
    assert (counts.pop("bytes"), counts.pop("messages")) == (len(data), len(expected))
    # Without being asked for it, a parser knows of no asides.
    assert counts == asdict(AsideStats()) | slow.counts


@given(stream, st.integers(1, 9))
def test_feed_gives_the_messages_of_the_frames(data: bytes, size: int) -> None:
    expected = [mido.Message.from_bytes(frame) for frame in Parser().frames(data)]
    whole, parser, cut = Parser(), Parser(), Parser()
    assert whole.feed(data) == expected
    messages = [message for i in range(0, len(data), size) for message in parser.feed(data[i : i + size])]
    assert messages == expected
    # The two ways may be mixed.
    mixed = cut.feed(data[:size]) + [mido.Message.from_bytes(frame) for frame in cut.frames(data[size:])]
    assert mixed == expected
    assert whole.stats == parser.stats == cut.stats


@given(stream, st.lists(st.integers(1, 12), min_size=1))
@example(b"\x90\x3c\x40\x80\x3c\x40\xf8", [12])
@example(b"\x90\x3c\x40\x80\x3c\x40\x3d\x40", [5, 12])
@example(b"\x90\x3c\x40\xc0\x3c\x40\xb0\x07\x01", [3, 4])
def test_joined_gives_the_frames_joined_and_counted(data: bytes, sizes: list[int]) -> None:
    parser, reference = Parser(), Parser()
    at = turn = 0
    while at < len(data):
        chunk = data[at : at + sizes[turn % len(sizes)]]
        frames = reference.frames(chunk)
        joined, messages = parser.joined(chunk)
        assert (joined, messages) == (b"".join(frames), len(frames))
        assert list(split_messages(joined)) == frames
        at += len(chunk)
        turn += 1
    assert parser.stats == reference.stats
    # What is under way is the same too.
    assert parser.joined(b"\x01\x02")[0] == b"".join(reference.frames(b"\x01\x02"))


def test_whole_messages_pass_through_joined_as_the_same_object() -> None:
    data = bytes.fromhex("90 3C 40 B0 07 01 E2 00 40")
    assert Parser().joined(data)[0] is data


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 1000])
def test_any_number_of_three_byte_messages_is_split(count: int) -> None:
    frames = [bytes((0x90 | number % 16, number % 128, number % 127)) for number in range(count)]
    assert split_messages(b"".join(frames)) == frames


@given(st.lists(any_message()))
def test_whole_messages_come_out_as_from_mido(messages: list[mido.Message]) -> None:
    data = b"".join(bytes(message.bytes()) for message in messages)
    theirs = mido.Parser()
    theirs.feed(data)
    assert Parser().feed(data) == list(theirs) == messages


def test_a_large_batch_of_messages_comes_out_as_from_mido() -> None:
    data = bytes.fromhex("90 3C 40 C1 05 E2 00 40") * 1000
    theirs = mido.Parser()
    theirs.feed(data)
    assert Parser().feed(data) == list(theirs)


def test_a_sysex_of_just_the_limit_passes_and_one_byte_more_does_not() -> None:
    for size in (1, 7, 1000):
        parser = Parser(max_sysex=10)
        just = b"\xf0" + bytes(8) + b"\xf7"
        over = b"\xf0" + bytes(9) + b"\xf7"
        assert in_chunks(parser, just + over + b"\x90\x3c\x40", size) == [just, b"\x90\x3c\x40"]
        assert parser.stats.sysex_too_long == 1
        assert parser.stats.sysex_aborted == 0


def test_a_sysex_without_end_takes_bounded_memory() -> None:
    parser = Parser()
    parser.frames(b"\xf0")
    chunk = bytes(4096)
    tracemalloc.start()
    try:
        for _ in range(2500):
            assert parser.frames(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * DEFAULT_MAX_SYSEX
    assert parser.frames(b"\xf7\x90\x3c\x40") == [b"\x90\x3c\x40"]
    assert parser.stats.sysex_too_long == 1


def test_the_end_of_a_stream_counts_what_is_unfinished() -> None:
    parser = Parser()
    parser.frames(b"\x90\x3c")
    parser.end()
    parser.frames(b"\xf0\x01")
    parser.end()
    assert (parser.stats.unfinished, parser.stats.sysex_aborted) == (1, 1)
    assert parser.frames(b"\x40\xf7\x90\x3c\x40") == [b"\x90\x3c\x40"]


@pytest.mark.parametrize(
    "data", [bytearray(b"\x90\x3c\x40"), memoryview(b"\x90\x3c\x40"), [0x90, 0x3C, 0x40]]
)
def test_bytes_may_come_in_any_form(data: Any) -> None:
    assert Parser().frames(data) == [b"\x90\x3c\x40"]


@pytest.mark.parametrize("data", [3, "text", [256], [-1], None])
def test_what_is_no_bytes_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Parser().frames(data)


def test_the_default_limit_is_64_kib() -> None:
    assert Parser().max_sysex == DEFAULT_MAX_SYSEX == 65536


def test_a_limit_that_no_sysex_fits_is_refused() -> None:
    assert Parser(max_sysex=2).frames(b"\xf0\xf7") == [b"\xf0\xf7"]
    assert Parser(max_sysex=1 << 40).frames(b"\xf0\x01\xf7") == [b"\xf0\x01\xf7"]
    with pytest.raises(ValueError, match="at least 2"):
        Parser(max_sysex=1)


def test_a_sysex_under_way_can_be_seen_and_aborted() -> None:
    parser = Parser()
    parser.abort_sysex()
    assert not parser.in_sysex
    for start in (b"\xf0", b"\xf8\x01", b"\xf9\x02"):
        parser.frames(start)
        assert parser.in_sysex
    parser.abort_sysex()
    assert not parser.in_sysex
    assert parser.frames(b"\x03\x04\xf7\x90\x3c\x40") == [b"\x90\x3c\x40"]
    stats = parser.stats
    assert (stats.sysex_aborted, stats.stray_data, stats.stray_ends, stats.unfinished) == (1, 2, 1, 0)


@pytest.mark.parametrize("end", [b"\xf7", b"\xf6", b"\x90"])
def test_no_sysex_is_under_way_after_its_end(end: bytes) -> None:
    parser = Parser()
    parser.frames(b"\xf0\x01" + end)
    assert not parser.in_sysex


def test_a_sysex_that_is_too_long_is_under_way_and_counted_once() -> None:
    parser = Parser(max_sysex=4)
    parser.frames(b"\xf0\x01\x02\x03\x04")
    assert parser.in_sysex
    parser.abort_sysex()
    assert not parser.in_sysex
    assert (parser.stats.sysex_too_long, parser.stats.sysex_aborted) == (1, 0)


def test_aborting_a_sysex_leaves_a_message_under_way() -> None:
    parser = Parser()
    parser.frames(b"\x90\x3c")
    parser.abort_sysex()
    assert parser.frames(b"\x40") == [b"\x90\x3c\x40"]
