"""What `play` plays when: the passage that is wanted of a time line.

The rules:

- What is played from the middle begins with what is set there: programs, controllers, parameters, bends,
  pressures, and the system exclusive messages that came before. No note that began before is struck.
- A passage lasts to its end, and not to its last message: a note may sound up to there. A loop is as long.
- What still sounds where a passage was cut off is let go there. A loop then goes back to what was set at its
  beginning, by Reset All Controllers for what was not set there at all.
"""

from __future__ import annotations

import io
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mido import MidiFile

from ..files.dump import read_file
from ..files.reader import NotAMidiFile, read_midi_file
from ..files.timeline import TimedFrame, TimeLine
from ..hub.difference import difference
from ..hub.performance import Performance
from ..hub.release import release_all
from ..wire.spec import SYSEX
from .common import Complaint

# Seconds. What is shorter sounds as a tone rather than as a loop.
_SHORTEST_LOOP_S = 0.05

# Far beyond any MIDI file. What has no end, as /dev/zero has none, is not read on.
_MAX_FILE_BYTES = 1 << 28

STANDARD_INPUT = Path("-")

_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?")
_MINUTES = re.compile(r"([0-9]{1,5}):([0-5]?[0-9](?:\.[0-9]{1,9})?)")
_BAR = re.compile(r"bar ?([1-9][0-9]{0,5})", re.IGNORECASE)


@dataclass(frozen=True)
class Passage:
    """What of a piece is played, once or again and again.

    Attributes:
        begin_s: where in the piece it begins, in seconds.
        length_s: how long it takes, in seconds.
        opening: the frames that bring the listener to what is set at the beginning.
        schedule: the frames that are played, with the seconds from the beginning of the passage. The last of
            one that is cut off let go of what still sounds, and those of a loop take back to its beginning.
    """

    begin_s: float
    length_s: float
    opening: Sequence[bytes]
    schedule: Sequence[TimedFrame]


def load(path: Path) -> TimeLine:
    """Read a MIDI file, a dump or hexadecimal text, with a Complaint if it cannot be read or played.

    Args:
        path: the file; "-" is standard input.
    """
    try:
        return read_file(_read_bytes(path))
    except NotAMidiFile as error:
        raise Complaint(f"{name_of(path)} is no MIDI file, or is damaged: {error}") from None


def piece_of(midi_file: MidiFile) -> TimeLine:
    """Return what one of mido's files holds on one line of time."""
    content = io.BytesIO()
    midi_file.save(file=content)
    return read_midi_file(content.getvalue())


def name_of(path: Path) -> str:
    """Return what a file is called in messages."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def _read_bytes(path: Path) -> bytes:
    if path == STANDARD_INPUT and sys.stdin is None:
        raise Complaint("cannot read standard input: it is closed")
    if path == STANDARD_INPUT and os.isatty(sys.stdin.fileno()):
        raise Complaint("standard input is a terminal: pipe a MIDI file into it")
    is_path = path != STANDARD_INPUT
    try:
        with open(path if is_path else sys.stdin.fileno(), "rb", closefd=is_path) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Complaint(f"cannot read {name_of(path)}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise Complaint(f"{name_of(path)} is no MIDI file: it is longer than {_MAX_FILE_BYTES >> 20} MiB")
    return data


def read_time(text: str, option: str, piece: TimeLine) -> float:
    """Return the seconds that a place in a piece is from its beginning.

    Args:
        text: seconds, as in 12.5; minutes and seconds, as in 1:23.5; or a bar, as in bar17.
        option: that it was given to, for the Complaint if it is none of these.
    """
    if _SECONDS.fullmatch(text):
        return float(text)
    if found := _MINUTES.fullmatch(text):
        return int(found[1]) * 60 + float(found[2])
    if found := _BAR.fullmatch(text):
        try:
            return piece.bar_at(int(found[1]))
        except ValueError as error:
            raise Complaint(f"{option} {text}: {error}") from None
    raise Complaint(
        f"{option}: {text!r} is no time: write seconds as 12.5, minutes as 1:23.5, or a bar as bar17"
    )


def passage_of(
    piece: TimeLine, begin: str | None = None, end: str | None = None, *, loop: bool = False
) -> Passage:
    """Return the passage of a piece that options ask for.

    Args:
        piece: the whole.
        begin: what --from says; None is the beginning.
        end: what --to says; None is the end.
        loop: it is played again and again.

    Raises:
        Complaint: there is nothing to play there, or what is to be played again and again is too short.
    """
    begin_s = 0.0 if begin is None else read_time(begin, "--from", piece)
    end_s = None if end is None else read_time(end, "--to", piece)
    if end_s is not None and end_s <= begin_s:
        after = "more than 0" if begin is None else f"after --from {begin}"
        raise Complaint(f"--to {end} has to be {after}")
    if begin is not None and begin_s >= piece.length_s:
        raise Complaint(f"--from {begin} is not before the end: it is {minutes(piece.length_s)} long")
    length_s = (piece.length_s if end_s is None else end_s) - begin_s
    if loop and length_s < _SHORTEST_LOOP_S:
        raise Complaint(
            f"--loop: what would be repeated takes {length_s:g} s, and {_SHORTEST_LOOP_S} s is the least"
        )
    return cut(piece, begin_s, end_s, loop=loop)


def cut(piece: TimeLine, begin_s: float, end_s: float | None, *, loop: bool) -> Passage:
    """Return a passage of a piece.

    Args:
        piece: the whole.
        begin_s: where it begins, in seconds; what is at that moment is in it.
        end_s: where it ends, in seconds; what is at that moment is not in it. None is the end of the piece.
        loop: it is played again and again.
    """
    first = bisect_left(piece.frames, begin_s, key=lambda entry: entry[0])
    last = None if end_s is None else bisect_left(piece.frames, end_s, key=lambda entry: entry[0])
    earlier = [frame for _, frame in piece.frames[:first]]
    at_begin = _performance(earlier)
    opening = [frame for frame in earlier if frame[0] == SYSEX]
    opening += difference(None, at_begin)
    schedule = [(seconds - begin_s, frame) for seconds, frame in piece.frames[first:last]]
    if not loop:
        end_s = None if end_s is None else min(end_s, piece.length_s)
    length_s = (piece.length_s if end_s is None else end_s) - begin_s
    if loop or end_s is not None:
        at_end = _performance([*opening, *(frame for _, frame in schedule)])
        closing = release_all(at_end)
        if loop:
            closing += difference(at_end, at_begin)
        schedule += [(length_s, frame) for frame in closing]
    return Passage(begin_s, length_s, opening, schedule)


def minutes(seconds: float) -> str:
    """Return a time as people read it on a player: 3:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _performance(frames: Iterable[bytes]) -> Performance:
    performance = Performance()
    performance.observe(b"".join(frames), None, 0.0)
    return performance
