"""Dumps of system exclusive messages, and messages in hexadecimal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.files.dump import read_file, read_frames, read_hex
from midinet.files.reader import NotAMidiFile
from tests.harness.midi_files import NOTE_EVENTS, NOTE_OFF, NOTE_ON, midi_file


@pytest.mark.parametrize(
    "text",
    [
        "F0 7E 7F 06 01 F7",
        "f07e7f0601f7",
        "0xF0, 0x7E, 0x7F, 0x06, 0x01, 0xF7",
        "F0 7E 7F\r\n06 01 F7\n",
        " F0;7E;7F;06;01;F7 ",
    ],
)
def test_hexadecimal_text_is_bytes(text):
    assert read_hex(text) == b"\xf0\x7e\x7f\x06\x01\xf7"
    assert list(read_file(text.encode()).frames) == [(0.0, b"\xf0\x7e\x7f\x06\x01\xf7")]


@pytest.mark.parametrize("text", ["", " ", "F", "F0 7", "F0 7E 7F 06 01 G7", "note_on", "3C 64", "F0 7E F7x"])
def test_other_text_is_none(text):
    with pytest.raises(ValueError, match=r"status byte|two hexadecimal digits"):
        read_hex(text)


def test_a_dump_goes_out_at_the_speed_of_a_midi_cable():
    line = read_file(b"\xf0" + bytes(3123) + b"\xf7" + b"\xf0\x01\xf7")
    assert [seconds for seconds, _ in line.frames] == [0.0, 1.0]
    assert line.length_s == pytest.approx(1.00096)
    assert line.damage == []


@pytest.mark.parametrize("more", [b"\x01\x02", b"\xf0\x01", b"\xf9", b"\xf7", b"\x90\x3c"])
def test_what_belongs_to_no_message_is_told(more):
    line = read_file(b"\xf0\x01\xf7" + more)
    assert [frame for _, frame in line.frames] == [b"\xf0\x01\xf7"]
    assert line.damage == ["bytes that belong to no message skipped"]


def test_a_midi_file_is_read_as_one():
    assert [frame for _, frame in read_file(midi_file(NOTE_EVENTS)).frames] == [NOTE_ON, NOTE_OFF]


@pytest.mark.parametrize("data", [b"", b"\xf0\x01\x02", b"\xef\xbb\xbfHello", b"F0 01"])
def test_what_holds_no_whole_message_is_refused(data):
    with pytest.raises(NotAMidiFile):
        read_file(data)


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(data):
    read_frames(b"\xf0" + data)
    try:
        read_file(data)
    except NotAMidiFile:
        pass
