"""The time line of a MIDI file: frames with their times, tempos and bars.

The rules (Standard MIDI Files 1.0):

- Time is added up in whole numbers and divided once, so the last message is as exact as the first.
- A tempo and a time signature hold for all tracks from where they stand; until the first, a beat takes half a
  second and a bar has four of them. A time signature begins a bar.
- A piece ends with the last of its end-of-track events, which may come after the last message.
- A negative division counts frames and parts of frames (SMPTE): time without tempo and without bars.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter

# Microseconds to a beat, and beats to a bar, until the file says otherwise.
DEFAULT_TEMPO = 500_000
DEFAULT_BEATS = 4

# SMPTE's 29 is 29.97 frames a second: 30 drop-frame.
_DROP_FRAME = 29

TimedFrame = tuple[float, bytes]


@dataclass(frozen=True)
class TempoMark:
    """Where a tempo begins: at a tick, and at a time in the unit in which time is added up."""

    tick: int
    elapsed: int
    tempo: int


@dataclass(frozen=True)
class TimeLine:
    """A MIDI file on one line of time.

    Attributes:
        frames: whole MIDI messages with their seconds from the beginning, in order.
        length_s: seconds up to the end of its last track.
        per_second: how many of the unit in which time is added up make a second.
        tempos: where each tempo begins.
        bars: where each time signature begins, and how long its bars are, in ticks; none where the file
            counts in frames and so knows no bars.
        damage: what was wrong with the file and how it was read, in plain words; empty where nothing was.
    """

    frames: Sequence[TimedFrame]
    length_s: float
    per_second: float
    tempos: Sequence[TempoMark]
    bars: Sequence[tuple[int, Fraction]]
    damage: Sequence[str] = ()

    def bar_at(self, number: int) -> float:
        """Return the seconds at which a bar begins; the first is number 1. Past the end it goes on as before.

        Raises:
            ValueError: the file knows no bars.
        """
        if not self.bars:
            raise ValueError("the file counts in frames and has no bars: write a time in seconds")
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


def time_line(
    division: int,
    frames: Sequence[tuple[int, bytes]],
    *,
    tempos: Sequence[tuple[int, int]] = (),
    signatures: Sequence[tuple[int, int, int]] = (),
    end: int = 0,
    damage: Sequence[str] = (),
) -> TimeLine:
    """Return the time line of frames that stand at ticks.

    Args:
        division: ticks to a beat; where it is negative, of its sixteen bits the upper byte is the frames a
            second as a negative number, and the lower the ticks to a frame. Neither is 0.
        frames: whole MIDI messages with their ticks, in order.
        tempos: (tick, microseconds to a beat), in order.
        signatures: (tick, numerator, exponent of 2 that is the denominator), in order; no numerator is 0.
        end: the tick at which the last track ends.
        damage: as the attribute of TimeLine.
    """
    if division < 0:
        rate, ticks_per_frame = -(division >> 8), division & 0xFF
        per_second = ticks_per_frame * (30000 / 1001 if rate == _DROP_FRAME else rate)
        marks = [TempoMark(0, 0, 1)]
        bars = {}
    else:
        per_second = division * 1_000_000
        marks = [TempoMark(0, 0, DEFAULT_TEMPO)]
        for tick, tempo in tempos:
            last = marks[-1]
            marks.append(TempoMark(tick, last.elapsed + (tick - last.tick) * last.tempo, tempo))
        bars = {0: Fraction(DEFAULT_BEATS * division)}
        for tick, numerator, exponent in signatures:
            bars[tick] = Fraction(numerator * 4 * division, 2**exponent)
    timed: list[TimedFrame] = []
    left = 0
    for position, mark in enumerate(marks):
        # What stands at the tick of the next mark has the same time by either.
        following = marks[position + 1].tick if position + 1 < len(marks) else None
        right = len(frames) if following is None else bisect_right(frames, following, left, key=itemgetter(0))
        base, tempo = mark.elapsed - mark.tick * mark.tempo, mark.tempo
        timed += [((base + tick * tempo) / per_second, frame) for tick, frame in frames[left:right]]
        left = right
    final = marks[-1]
    length_s = (final.elapsed + (end - final.tick) * final.tempo) / per_second
    return TimeLine(timed, length_s, per_second, marks, list(bars.items()), damage)
