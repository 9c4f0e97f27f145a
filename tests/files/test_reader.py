"""Reading MIDI files: what other players play, what is damaged, and what cannot be played."""

from __future__ import annotations

import gzip
import io
import struct

import mido
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midinet.files.reader import NotAMidiFile, read_midi_file
from midinet.wire.codec import decode, encode
from midinet.wire.parser import Parser
from tests.harness.messages import any_message
from tests.harness.midi_files import (
    END_OF_TRACK,
    NOTE_EVENTS,
    NOTE_OFF,
    NOTE_ON,
    chunk,
    header,
    midi_file,
    quantity,
    track,
)

ONE_NOTE = [(0.0, NOTE_ON), (0.125, NOTE_OFF)]
TWO_TRACKS = [(0.0, NOTE_ON), (0.0, b"\x91\x40\x64"), (0.125, NOTE_OFF), (0.125, b"\x81\x40\x40")]
SECOND_TRACK = track(b"\x00\x91\x40\x64", b"\x18\x81\x40\x40")
WHOLE = midi_file(NOTE_EVENTS)


def meta(kind, content):
    return bytes((0, 0xFF, kind, len(content))) + content


# Valid files.


@pytest.mark.parametrize(
    "data",
    [
        WHOLE,
        header() + chunk(b"XFIH", b"\x01\x02\x03\x04") + track(NOTE_EVENTS),
        WHOLE + chunk(b"XFKM", b"abcd"),
        b"RIFF" + struct.pack("<I", len(WHOLE) + 12) + b"RMIDdata" + struct.pack("<I", len(WHOLE)) + WHOLE,
        b"RIFF\0\0\0\0RMIDdata" + struct.pack("<I", len(WHOLE)) + WHOLE + b"LIST\4\0\0\0abcd",
        bytes(128) + WHOLE,
        bytes(83) + struct.pack(">I", len(WHOLE)) + bytes(41) + WHOLE + bytes(50) + b"a resource fork",
        gzip.compress(WHOLE, mtime=0),
        # A header that is longer than it has to be, and padding.
        b"MThd" + struct.pack(">IHHHH", 8, 1, 1, 96, 0) + track(NOTE_EVENTS),
        WHOLE + bytes(100),
        # Meta events that nothing here looks at, with values that the standard does not have.
        *(
            midi_file(meta(kind, content) + NOTE_EVENTS)
            for kind, content in [
                (0x59, b"\xff\xff"),
                (0x59, b"\xf8\x00"),
                (0x59, b""),
                (0x54, b"\x60\x00\x03\x00\xff"),
                (0x20, b"\xff"),
                (0x21, b"\xff"),
                (0x00, b""),
                (0x03, b"\x83\x65\x83\x58"),
                (0x6F, b"?"),
                (0xFE, b"?"),
            ]
        ),
        midi_file(b"\x80\x00" + NOTE_ON + b"\x80\x80\x18" + NOTE_OFF),
        midi_file(NOTE_EVENTS, kind=2),
        midi_file(b"\x00" + NOTE_ON + b"\x7d" + NOTE_OFF, division=-25 << 8 | 40),
    ],
)
def test_valid_files_of_one_note(data):
    line = read_midi_file(data)
    assert list(line.frames) == ONE_NOTE
    assert line.damage == []


def test_running_status_goes_on_across_meta_events():
    line = read_midi_file(midi_file(b"\x00" + NOTE_ON + meta(1, b"hi") + b"\x18\x3c\x00"))
    assert list(line.frames) == [(0.0, NOTE_ON), (0.125, b"\x90\x3c\x00")]
    assert line.damage == []


def test_tracks_of_type_2_follow_each_other_each_with_its_own_tempo():
    twice_as_fast = meta(0x51, (250_000).to_bytes(3, "big")) + NOTE_EVENTS
    line = read_midi_file(midi_file(twice_as_fast, NOTE_EVENTS, kind=2))
    assert [seconds for seconds, _ in line.frames] == [0.0, 0.0625, 0.0625, 0.1875]
    assert line.length_s == 0.1875


def test_system_exclusive_in_packets_is_one_message_at_the_time_of_its_last():
    packets = b"\x00\xf0\x03\x43\x12\x00" + b"\x30\xf7\x02\x43\x12" + meta(1, b"x") + b"\x30\xf7\x02\x01\xf7"
    line = read_midi_file(midi_file(packets + NOTE_EVENTS))
    assert line.frames[0] == (0.5, b"\xf0\x43\x12\x00\x43\x12\x01\xf7")
    assert line.damage == []


@pytest.mark.parametrize(
    ("events", "frames"),
    [
        (b"\x00\xf7\x02\xf3\x01", [b"\xf3\x01"]),
        (b"\x00\xf7\x01\xf8", [b"\xf8"]),
        (b"\x00\xf7\x06\x90\x40\x64\x90\x43\x64", [b"\x90\x40\x64", b"\x90\x43\x64"]),
        (b"\x00\xf7\x05\x90\x40\x64\x43\x64", [b"\x90\x40\x64", b"\x90\x43\x64"]),
        (b"\x00\xf7\x04\xf0\x01\x02\xf7", [b"\xf0\x01\x02\xf7"]),
        (b"\x00\xf7\x02\x90\x40\x00\xf7\x01\x64", [b"\x90\x40\x64"]),
    ],
)
def test_escapes_are_sent_as_they_are(events, frames):
    line = read_midi_file(midi_file(events))
    assert [frame for _, frame in line.frames] == frames
    assert line.damage == []


def test_a_piece_lasts_to_the_end_of_its_longest_track():
    short, long = NOTE_EVENTS, b"\x83\x00\xff\x01\x00"
    assert read_midi_file(midi_file(short, long)).length_s == 2.0
    assert read_midi_file(midi_file(long, short)).length_s == 2.0


# Damaged files.


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (midi_file(meta(0x51, b"") + NOTE_EVENTS), "a tempo that is none skipped"),
        (midi_file(meta(0x51, b"\0\0\0") + NOTE_EVENTS), "a tempo that is none skipped"),
        (midi_file(meta(0x58, b"\x04") + NOTE_EVENTS), "a time signature that is none skipped"),
        (midi_file(meta(0x58, b"\0\0\x18\x08") + NOTE_EVENTS), "a time signature that is none skipped"),
        (midi_file(meta(0x58, b"\4\xff\x18\x08") + NOTE_EVENTS), "a time signature that is none skipped"),
        (header() + chunk(b"MTrk", NOTE_EVENTS), "a track has no end"),
        (WHOLE[:-4], "a track has no end"),
        (WHOLE[:-2], "track 1 breaks off: it ends within a meta event"),
        (midi_file(NOTE_EVENTS + b"\0\xff\x01\xff\x7f"), "an event of 16383 bytes is longer than it"),
        (midi_file(NOTE_EVENTS + b"\0\xf0\xff\x7f"), "an event of 16383 bytes is longer than it"),
        (midi_file(NOTE_EVENTS + b"\0\x90")[:-4], "track 1 breaks off: its last message is not all there"),
        (midi_file(NOTE_EVENTS + b"\xff")[:-4], "track 1 breaks off: it ends within a number"),
        (header(1, 2) + track(NOTE_EVENTS), "its header says 2 tracks, and it has 1"),
        (header() + b"MTrk\0\0\1\xf4" + NOTE_EVENTS + END_OF_TRACK, "a track's length is wrong"),
        (header() + b"MTrk\0\0\0\0" + NOTE_EVENTS + END_OF_TRACK, "a track's length is wrong"),
        (
            header() + chunk(b"MTrk", (NOTE_EVENTS + END_OF_TRACK) * 2),
            "bytes behind the end of a track skipped",
        ),
        (b"MThd\0\0\0\4\0\1\0\1" + track(NOTE_EVENTS), "its header is too short"),
        (header(3) + track(NOTE_EVENTS), "it has 1 track and says type 3; read as type 1"),
        (midi_file(NOTE_EVENTS, division=0), "its division is 0; read as 96 ticks to a beat"),
        (midi_file(NOTE_EVENTS, division=0xE200), "its division is 0; read as 96 ticks to a beat"),
        (midi_file(b"\x81\x80\x80\x80\x00" + NOTE_EVENTS[1:]), "a time or length of more than four bytes"),
        (midi_file(b"\x00\x01" + NOTE_EVENTS), "data without a status skipped"),
        (midi_file(b"\x00\xf7\x01\xfe" + NOTE_EVENTS), "active sensing left out"),
        (midi_file(b"\x00\xf9" + NOTE_EVENTS), "system messages outside of an escape"),
        (b"\xef\xbb\xbf" + WHOLE, "3 bytes before its header skipped"),
        (WHOLE + b"\x7f" * 9, "bytes between or behind its tracks skipped"),
        (WHOLE + b"TAG!\x7f\x7f\x7f\x7f", "bytes between or behind its tracks skipped"),
        (WHOLE + WHOLE, "a second file behind its end skipped"),
    ],
)
def test_damaged_files_of_one_note_play_and_say_what_is_wrong(data, damage):
    line = read_midi_file(data)
    assert list(line.frames) == ONE_NOTE
    assert damage in " ".join(line.damage)


@pytest.mark.parametrize(
    "data",
    [
        header(1, 1) + track(NOTE_EVENTS) + SECOND_TRACK,
        header(0, 2) + track(NOTE_EVENTS) + SECOND_TRACK,
        header(1, 2) + track(NOTE_EVENTS) + b"\0\0\0" + SECOND_TRACK,
        header(1, 2) + b"MTrk\0\0\0\0" + NOTE_EVENTS + END_OF_TRACK + SECOND_TRACK,
        # A length that reaches into the next track, and one that reaches beyond it.
        header(1, 2) + b"MTrk\0\0\0\x11" + NOTE_EVENTS + END_OF_TRACK + SECOND_TRACK,
        header(1, 2) + b"MTrk\0\0\0\x25" + NOTE_EVENTS + END_OF_TRACK + SECOND_TRACK,
        header(1, 2) + b"MTrk\0\0\7\0" + NOTE_EVENTS + END_OF_TRACK + SECOND_TRACK,
    ],
)
def test_no_track_is_lost_to_a_wrong_count_or_length(data):
    line = read_midi_file(data)
    assert list(line.frames) == TWO_TRACKS
    assert line.damage


@pytest.mark.parametrize(
    ("events", "frames"),
    [
        (b"\x00\xb0\x07\xff", [b"\xb0\x07\x7f"]),
        (b"\x00\xf0\x05\x7e\x7f\x09\x01\x00" + b"\x00" + NOTE_ON, [b"\xf0\x7e\x7f\x09\x01\x00\xf7", NOTE_ON]),
        (b"\x00\xf0\x02\x01\x02", [b"\xf0\x01\x02\xf7"]),
        (b"\x00\xf0\x02\x01\x02\x00\xf0\x02\x03\xf7", [b"\xf0\x01\x02\xf7", b"\xf0\x03\xf7"]),
        (b"\x00\xf0\x05\x01\xf7\xf0\x02\xf7", [b"\xf0\x01\xf7", b"\xf0\x02\xf7"]),
        (b"\x00\xf0\x03\x01\x99\xf7", [b"\xf0\x01\x7f\xf7"]),
        (
            b"\x00" + NOTE_ON + b"\x00\xf0\x02\x01\xf7\x00\x3c\x00",
            [NOTE_ON, b"\xf0\x01\xf7", b"\x90\x3c\x00"],
        ),
        (b"\x00\xf2\x01\x02\x00\xfa", [b"\xf2\x01\x02", b"\xfa"]),
    ],
)
def test_damaged_events_play_as_they_are_meant(events, frames):
    line = read_midi_file(midi_file(events))
    assert [frame for _, frame in line.frames] == frames
    assert len(line.damage) == 1


def test_what_happens_often_is_said_once():
    assert read_midi_file(midi_file(b"\x00\xb0\x07\xff" * 3)).damage == [
        "values above 127 read as 127 (3 times)"
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>404 not found</html>", "it has no MThd, by which a MIDI file begins"),
        (WHOLE[:10], "it ends within its header"),
        (b"MThd", "it has no tracks"),
        (b"\x1f\x8bHello", "it is compressed, and cannot be unpacked"),
        (gzip.compress(b"Hello", mtime=0), "it has no MThd"),
        (header(1, 0), "it has no tracks"),
        (header() + b"XFIH\0\0\0\0", "it has no tracks"),
    ],
)
def test_what_cannot_be_played_says_why(data, reason):
    with pytest.raises(NotAMidiFile, match=reason):
        read_midi_file(data)


# Any file.

FILES = [
    WHOLE,
    midi_file(NOTE_EVENTS * 3, b"\x00\xf0\x03\x01\x02\xf7" + meta(0x51, b"\1\2\3") + b"\x10\xc1\x05"),
    midi_file(b"\x00\xf0\x02\x43\x12\x30\xf7\x02\x00\xf7\x00\xf7\x01\xf8" + NOTE_EVENTS, NOTE_EVENTS, kind=2),
]


@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2), st.binary(min_size=1, max_size=5)), max_size=6),
)
def test_no_damage_makes_it_raise_or_return_half_messages(data, mutations):
    mutated = bytearray(data)
    for position, deleted, inserted in mutations:
        mutated[position : position + deleted] = inserted
    try:
        line = read_midi_file(bytes(mutated))
    except NotAMidiFile:
        return
    for _, frame in line.frames:
        assert Parser(max_sysex=1000).frames(frame) == [frame]
    times = [seconds for seconds, _ in line.frames]
    assert times == sorted(times)
    assert all(0 <= seconds <= line.length_s for seconds in times)


@given(st.binary(max_size=200))
@example(b"MTrk")
def test_no_bytes_behind_a_header_make_it_raise(data):
    read_midi_file(header() + b"MTrk\0\0\0\0" + data)
    read_midi_file(midi_file(data))


def storable(message):
    return message.type == "sysex" or encode(message)[0] < 0xF0


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.one_of(st.integers(0, 300), st.integers(0, (1 << 28) - 1)),
                st.one_of(any_message().filter(storable), st.integers(1, 0xFFFFFF)),
            ),
            max_size=20,
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 0x7FFF),
)
def test_it_reads_what_mido_writes_as_mido_reads_it(parts, division):
    written = mido.MidiFile(
        ticks_per_beat=division,
        tracks=[
            mido.MidiTrack(
                mido.MetaMessage("set_tempo", tempo=what, time=time)
                if isinstance(what, int)
                else what.copy(time=time)
                for time, what in part
            )
            for part in parts
        ],
    )
    content = io.BytesIO()
    written.save(file=content)
    read = mido.MidiFile(file=io.BytesIO(content.getvalue()))
    line = read_midi_file(content.getvalue())
    elapsed, expected = 0.0, []
    for message in read:
        elapsed += message.time
        if not message.is_meta:
            expected.append((elapsed, message.copy(time=0)))
    assert [decode(frame) for _, frame in line.frames] == [message for _, message in expected]
    assert [seconds for seconds, _ in line.frames] == pytest.approx([then for then, _ in expected], rel=1e-9)
    assert line.length_s == pytest.approx(read.length, rel=1e-9)
    assert line.damage == []


@given(st.integers(0, (1 << 28) - 1))
def test_times_of_one_to_four_bytes(ticks):
    line = read_midi_file(midi_file(quantity(ticks) + NOTE_ON, division=1))
    assert line.frames[0][0] == ticks * 0.5
