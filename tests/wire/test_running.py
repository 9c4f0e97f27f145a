from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midinet import Parser
from midinet.wire.codec import encode
from midinet.wire.running import RunningStatus
from tests.harness.messages import any_message


def test_a_repeated_status_is_left_out() -> None:
    assert RunningStatus().shorten(bytes.fromhex("90 3C 40 90 3E 40 80 3C 00"), 0) == bytes.fromhex(
        "90 3C 40 3E 40 80 3C 00"
    )


def test_real_time_leaves_the_run_and_anything_else_ends_it() -> None:
    running = RunningStatus()
    assert running.shorten(bytes.fromhex("90 3C 40 F8 90 3E 40"), 0) == bytes.fromhex("90 3C 40 F8 3E 40")
    assert running.shorten(bytes.fromhex("F6 90 3C 40"), 0) == bytes.fromhex("F6 90 3C 40")
    assert running.shorten(bytes.fromhex("F0 01 F7 90 3C 40"), 0) == bytes.fromhex("F0 01 F7 90 3C 40")


def test_the_status_is_repeated_after_a_second() -> None:
    running = RunningStatus()
    note = b"\x90\x3c\x40"
    assert running.shorten(note, 10.0) == note
    assert running.shorten(note, 10.999) == note[1:]
    assert running.shorten(note, 11.0) == note
    assert running.shorten(note, 11.5) == note[1:]


@given(st.lists(st.lists(any_message().map(encode), max_size=10)))
def test_a_parser_reads_back_what_was_shortened(turns: list[list[bytes]]) -> None:
    running, parser = RunningStatus(), Parser()
    for turn, frames in enumerate(turns):
        assert parser.frames(running.shorten(b"".join(frames), turn * 0.4)) == frames
