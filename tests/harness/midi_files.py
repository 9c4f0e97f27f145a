"""Standard MIDI Files made byte by byte, right and wrong ones."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from mido import Message, MidiFile

from midinet.cli.schedule import piece_of
from midinet.wire.codec import decode

END_OF_TRACK = b"\x00\xff\x2f\x00"

# A note of 24 ticks: an eighth of a second at 96 ticks to a beat.
NOTE_ON, NOTE_OFF = b"\x90\x3c\x64", b"\x80\x3c\x40"
NOTE_EVENTS = b"\x00" + NOTE_ON + b"\x18" + NOTE_OFF


def quantity(number: int) -> bytes:
    """Return a variable-length quantity."""
    out = bytearray([number & 0x7F])
    while number := number >> 7:
        out.insert(0, number & 0x7F | 0x80)
    return bytes(out)


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk."""
    return kind + struct.pack(">I", len(content)) + content


def header(kind: int = 1, tracks: int = 1, division: int = 96) -> bytes:
    """Return the MThd chunk."""
    return chunk(b"MThd", struct.pack(">HHH", kind, tracks, division & 0xFFFF))


def track(*events: bytes) -> bytes:
    """Return the MTrk chunk of events, each with its delta time before it, and of an end."""
    return chunk(b"MTrk", b"".join(events) + END_OF_TRACK)


def midi_file(*tracks: bytes, kind: int = 1, division: int = 96) -> bytes:
    """Return the file of tracks that are lists of events joined."""
    return header(kind, len(tracks), division) + b"".join(track(one) for one in tracks)


def schedule_of(file: MidiFile) -> Sequence[tuple[float, Message]]:
    """Return the messages of one of mido's files with their seconds from the beginning."""
    return [(seconds, decode(frame)) for seconds, frame in piece_of(file).frames]
