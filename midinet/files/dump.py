"""System exclusive dumps (.syx), and messages in hexadecimal.

A dump is the messages themselves, one after another. There is no time in it: an instrument gets it at the
speed of a MIDI cable, for which it was made: 31,250 bits a second, ten to a byte (MIDI 1.0 Detailed
Specification 4.2.1, page 1).
"""

from __future__ import annotations

import re

from ..wire.parser import Parser
from .reader import read_midi_file
from .timeline import TimeLine

_BYTES_PER_SECOND = 3125

# F0 7E 7F 06 01 F7, f07e7f0601f7, or 0xF0, 0x7E.
_HEX = re.compile(r"\s*(?:(?:0x)?[0-9A-Fa-f]{2}(?:[\s,;]+|(?=[0-9A-Fa-f])|$))+\s*")
_HEX_BYTE = re.compile(r"(?:0x)?([0-9A-Fa-f]{2})")
_FIRST_STATUS = 0x80


def read_file(data: bytes) -> TimeLine:
    """Return the time line of a MIDI file, of a dump, or of messages in hexadecimal.

    Args:
        data: the content of the file.

    Raises:
        NotAMidiFile: it is none of these. The text says why.
    """
    frames, dropped = read_frames(data)
    if not frames:
        return read_midi_file(data)
    seconds, timed = 0.0, []
    for frame in frames:
        timed.append((seconds, frame))
        seconds += len(frame) / _BYTES_PER_SECOND
    damage = ["bytes that belong to no message skipped"] if dropped else []
    return TimeLine(timed, seconds, _BYTES_PER_SECOND, (), (), damage)


def read_frames(data: bytes) -> tuple[list[bytes], bool]:
    """Return the whole messages of a dump or of hexadecimal text, and whether something belongs to none.

    There are none in anything else.

    Args:
        data: bytes of which the first is F0, or text as bytes.
    """
    if not data.startswith(b"\xf0"):
        text = data.decode("ascii", "replace")
        try:
            data = read_hex(text)
        except ValueError:
            return [], False
    parser = Parser(max_sysex=max(len(data), 2))
    frames = parser.frames(data)
    parser.end()
    stats = parser.stats
    dropped = (
        stats.stray_data or stats.stray_ends or stats.undefined or stats.unfinished or stats.sysex_aborted
    )
    return frames, bool(dropped)


def read_hex(text: str) -> bytes:
    """Return the bytes that hexadecimal text spells, of which the first is a status byte.

    Args:
        text: bytes of two digits each, also with 0x before them and with spaces or commas between.

    Raises:
        ValueError: it is no such text.
    """
    if not _HEX.fullmatch(text):
        raise ValueError("bytes are written as two hexadecimal digits each, as in F0 7E 7F 06 01 F7")
    data = bytes(int(digits, 16) for digits in _HEX_BYTE.findall(text))
    if data[0] < _FIRST_STATUS:
        raise ValueError("a message begins with a status byte, from 80 to FF")
    return data
