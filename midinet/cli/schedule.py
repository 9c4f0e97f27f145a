"""What `play` plays when: a MIDI file on one line of time, and the passage of it that is wanted.

The rules (Standard MIDI Files 1.0):

- Time is added up in whole numbers and divided once, so the last message is as exact as the first.
- A tempo and a time signature hold for all tracks from where they stand; until the first, a beat takes half a
  second and a bar has four of them. A time signature begins a bar.
- A piece ends with the last of its end-of-track events, which the standard has so that a track's length is
  exact, for loops among other things. So that is how long a loop is, and not up to the last note.
- What is played from the middle begins with what is set there: programs, controllers, parameters, bends,
  pressures, and the system exclusive messages that came before. No note that began before is struck.
- What still sounds where a passage was cut off is let go there. A loop then goes back to what was set at its
  beginning, by Reset All Controllers for what was not set there at all.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import mido
from mido import Message, MidiFile

from ..hub.difference import difference
from ..hub.performance import Performance
from ..hub.release import release_all
from ..wire.codec import decode, encode
from .common import Complaint

Schedule = Sequence[tuple[float, Message]]

# Microseconds to a beat, and beats to a bar, until the file says otherwise.
_DEFAULT_TEMPO = 500_000
_DEFAULT_BEATS = 4

# Seconds. What is shorter sounds as a tone rather than as a loop.
_SHORTEST_LOOP_S = 0.05

_SECONDS = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,9})?")
_MINUTES = re.compile(r"([0-9]{1,5}):([0-5]?[0-9](?:\.[0-9]{1,9})?)")
_BAR = re.compile(r"bar ?([1-9][0-9]{0,5})", re.IGNORECASE)


@dataclass(frozen=True)
class _Mark:
    """Where a tempo begins: at a tick, and at a time in the unit in which time is added up."""

    tick: int
    elapsed: int
    tempo: int


@dataclass(frozen=True)
class Piece:
    """A MIDI file on one line of time.

    Attributes:
        messages: without the meta messages, with their seconds from the beginning.
        length_s: up to the end of its last track, in seconds.
        per_second: how many of the unit in which time is added up make a second.
        tempos: where each tempo begins.
        bars: where each time signature begins, and how long its bars are, in ticks; none where the file
            counts in frames and so knows no bars.
    """

    messages: Schedule
    length_s: float
    per_second: float
    tempos: Sequence[_Mark]
    bars: Sequence[tuple[int, Fraction]]

    def bar_at(self, number: int) -> float:
        """Return the seconds at which a bar begins; the first is number 1. Past the end it goes on as before.

        Raises:
            Complaint: the file knows no bars.
        """
        if not self.bars:
            raise Complaint("the file counts in frames and has no bars: write a time in seconds")
        left = number - 1
        for (tick, length), (next_tick, _) in zip(self.bars, self.bars[1:], strict=False):
            # The last bar before a change may be cut short.
            bars = -((tick - next_tick) // length)
            if left < bars:
                break
            left -= bars
        else:
            tick, length = self.bars[-1]
        return self._seconds_at(tick + left * length)

    def _seconds_at(self, tick: Fraction) -> float:
        mark = self.tempos[bisect_right(self.tempos, tick, key=lambda mark: Fraction(mark.tick)) - 1]
        return float((mark.elapsed + (tick - mark.tick) * mark.tempo) / Fraction(self.per_second))


@dataclass(frozen=True)
class Passage:
    """What of a piece is played, once or again and again.

    Attributes:
        begin_s: where in the piece it begins, in seconds.
        length_s: how long it takes, in seconds.
        opening: brings the listener to what is set at the beginning.
        schedule: what is played, with the seconds from the beginning of the passage. The last messages of one
            that is cut off let go of what still sounds, and those of a loop take back to its beginning.
    """

    begin_s: float
    length_s: float
    opening: Sequence[Message]
    schedule: Schedule


def load(path: Path) -> MidiFile:
    """Read a MIDI file, with a Complaint if it cannot be read or played."""
    try:
        midi_file = MidiFile(path)
    except Exception as error:  # mido raises whatever wrong bytes made it trip over.
        if isinstance(error, OSError) and error.strerror:
            raise Complaint(f"cannot read {path}: {error.strerror}") from None
        reason = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise Complaint(f"{path} is no MIDI file, or is damaged: {reason}") from None
    if midi_file.type not in (0, 1):
        raise Complaint(f"{path} is of type {midi_file.type}: its tracks have no time in common")
    if midi_file.ticks_per_beat == 0:
        raise Complaint(f"{path} is no MIDI file, or is damaged: it has no ticks in a beat")
    return midi_file


def piece_of(midi_file: MidiFile) -> Piece:
    """Return what a MIDI file holds on one line of time."""
    # A negative division is frames a second, as a negative number, and ticks in a frame: time without tempo.
    division = midi_file.ticks_per_beat
    if division < 0:
        frames, ticks_per_frame = -(division >> 8), division & 0xFF
        per_second = ticks_per_frame * (30000 / 1001 if frames == 29 else frames)
    else:
        per_second = division * 1_000_000
    tick = elapsed = 0
    tempos = [_Mark(0, 0, _DEFAULT_TEMPO if division > 0 else 1)]
    bars = {0: Fraction(_DEFAULT_BEATS * division)} if division > 0 else {}
    messages: list[tuple[float, Message]] = []
    for message in mido.merge_tracks(midi_file.tracks):
        tick += message.time
        elapsed += message.time * tempos[-1].tempo
        if message.type == "set_tempo" and division > 0:
            tempos.append(_Mark(tick, elapsed, message.tempo))
        elif message.type == "time_signature" and division > 0 and message.numerator:
            bars[tick] = Fraction(message.numerator * 4 * division, message.denominator)
        elif not message.is_meta:
            messages.append((elapsed / per_second, message.copy(time=0)))
    return Piece(messages, elapsed / per_second, per_second, tempos, list(bars.items()))


def schedule_of(midi_file: MidiFile) -> Schedule:
    """Return the messages of a MIDI file, without its meta messages, each with its seconds from the start."""
    return piece_of(midi_file).messages


def read_time(text: str, option: str, piece: Piece) -> float:
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
        except Complaint as error:
            raise Complaint(f"{option} {text}: {error}") from None
    raise Complaint(
        f"{option}: {text!r} is no time: write seconds as 12.5, minutes as 1:23.5, or a bar as bar17"
    )


def passage_of(
    piece: Piece, begin: str | None = None, end: str | None = None, *, loop: bool = False
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


def cut(piece: Piece, begin_s: float, end_s: float | None, *, loop: bool) -> Passage:
    """Return a passage of a piece.

    Args:
        piece: the whole.
        begin_s: where it begins, in seconds; what is at that moment is in it.
        end_s: where it ends, in seconds; what is at that moment is not in it. None is the end of the piece.
        loop: it is played again and again.
    """
    first = bisect_left(piece.messages, begin_s, key=lambda entry: entry[0])
    last = None if end_s is None else bisect_left(piece.messages, end_s, key=lambda entry: entry[0])
    earlier = [message for _, message in piece.messages[:first]]
    at_begin = _performance(earlier)
    opening = [message for message in earlier if message.type == "sysex"]
    opening += map(decode, difference(None, at_begin))
    schedule = [(seconds - begin_s, message) for seconds, message in piece.messages[first:last]]
    closing: list[bytes] = []
    if loop or end_s is not None:
        at_end = _performance([*opening, *(message for _, message in schedule)])
        closing = release_all(at_end)
        if loop:
            closing += difference(at_end, at_begin)
    length_s = (piece.length_s if end_s is None else end_s) - begin_s
    schedule += [(length_s, decode(frame)) for frame in closing]
    if not loop:
        length_s = schedule[-1][0] if schedule else 0.0
    return Passage(begin_s, length_s, opening, schedule)


def minutes(seconds: float) -> str:
    """Return a time as people read it on a player: 3:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _performance(messages: Iterable[Message]) -> Performance:
    performance = Performance()
    performance.observe(b"".join(map(encode, messages)), None, 0.0)
    return performance
