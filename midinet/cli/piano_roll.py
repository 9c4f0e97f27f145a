"""A take as a piano roll: notes as bars, time by pitch, in an SVG picture that is made of nothing but text.

- A colour is a channel, and the stronger it is, the harder the note was struck. A note that never ends is
  drawn to the end; the messages that end all notes of a channel do so here too.
- The sustain pedal has a line of its own below, one for each channel that uses it. It is down from 64 on
  (MIDI 1.0 Detailed Specification 4.2.1, page 11).
- Its size has bounds, however long the take is: bars that are too close to be told apart are drawn as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import NamedTuple

from mido import Message

from ..hub.performance import ALL_NOTES_OFF, ALL_SOUND_OFF, DAMPER
from . import svg
from .schedule import minutes
from .svg import number as n

# Pixels. A second is as wide as can be read well, as long as the picture then fits a screen or three.
_SECOND_WIDTH = 40
_LEAST_WIDTH, _MOST_WIDTH = 720, 2400
_MARGIN = 20
_TITLE_HEIGHT = 84
_KEYS_WIDTH = 48
_ROLL_HEIGHT = 480
_LEAST_ROW, _MOST_ROW = 4.5, 12.0
_LANE_HEIGHT = 8
_AXIS_HEIGHT = 50
_TICK_WIDTH = 70
# So that a drum can be seen, and so that a note that is struck again can be told from one that is held.
_LEAST_BAR, _GAP = 1.6, 0.8

# Of a letter in pixels, on the average, in the title's type: there is nothing here to measure text with.
_LETTER = 11.0

# Notes that are drawn at most, and spells of the pedal, each in some 15 bytes.
_MOST_BARS = 50_000

# Seconds. A take of one note is not drawn as if it had been a long one.
_LEAST_SPAN_S = 1.0

# Rows. Two octaves, so that a keyboard can be seen to be one.
_LEAST_ROWS = 24

_PEDAL_DOWN = 64
_BLACK_KEYS = frozenset({1, 3, 6, 8, 10})

_SHADES = 8

# By channel, and on a dark page half way to white. The first eight are after Okabe and Ito ("Color Universal
# Design"), who chose theirs so that the colour-blind can tell them apart; channel 10, the drums, is grey.
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#c98a00", "#3d9bd1", "#8a63d2", "#a0522d"),
    *("#7f8c1f", "#7d8590", "#d6455d", "#1f9e9e", "#b0479e", "#5b7fd6", "#6aa84f", "#b58863"),
)
_LIGHT_STYLE = """
.grid { stroke: #dfe3e8 } .shade { fill: #f3f5f7 }
.white { fill: #ffffff } .black { fill: #3d444d } .keys { fill: #59636e }
"""
_DARK_STYLE = """
.grid { stroke: #262c36 } .shade { fill: #151b23 }
.white { fill: #c8d1da } .black { fill: #151b23 } .keys { fill: #3d444d }
"""


class Bar(NamedTuple):
    """A note, or a pedal that is down."""

    begin: float
    """In seconds from the first message on."""
    end: float
    channel: int
    number: int
    """Of the note, or of the controller."""
    value: int
    """The velocity, or how far down the pedal is."""


def bars_of(take: Sequence[tuple[float, Message]], end: float | None = None) -> tuple[list[Bar], list[Bar]]:
    """Return the notes of a take, and when its sustain pedals are down, both in order of their beginnings.

    Args:
        take: messages with their seconds, in order.
        end: where what never ends is drawn to, in seconds from the first message; None is the last message.
    """
    first, last = (take[0][0], take[-1][0]) if take else (0.0, 0.0)
    held: dict[tuple[str, int, int], tuple[float, int]] = {}
    notes: list[Bar] = []
    pedals: list[Bar] = []

    def let_go(key: tuple[str, int, int], at: float) -> None:
        if key in held:
            begin, value = held.pop(key)
            (notes if key[0] == "note" else pedals).append(Bar(begin, at, key[1], key[2], value))

    for seconds, message in take:
        at = seconds - first
        if message.type in ("note_on", "note_off"):
            let_go(key := ("note", message.channel, message.note), at)
            if message.type == "note_on" and message.velocity:
                held[key] = (at, message.velocity)
        elif message.type == "control_change":
            if message.control == DAMPER:
                key = ("pedal", message.channel, DAMPER)
                if message.value < _PEDAL_DOWN:
                    let_go(key, at)
                else:
                    held.setdefault(key, (at, message.value))
            elif ends_all_notes(message):
                for key in [key for key in held if key[:2] == ("note", message.channel)]:
                    let_go(key, at)
    for key in list(held):
        let_go(key, last - first if end is None else end)
    return sorted(notes), sorted(pedals)


def ends_all_notes(message: Message) -> bool:
    """Whether a control change is one that ends all notes of its channel (pages 20, 24 and 25)."""
    return bool(message.control == ALL_SOUND_OFF or message.control >= ALL_NOTES_OFF)


def draw(name: str, take: Sequence[tuple[float, Message]]) -> str:
    """Return the piano roll of a take as the text of an SVG file.

    Args:
        name: of the file it is saved to, for the title.
        take: messages with their seconds, in order. The first is where the time begins.
    """
    length_s = take[-1][0] - take[0][0] if take else 0.0
    span_s = max(length_s, _LEAST_SPAN_S)
    notes, pedals = bars_of(take, span_s)
    width = min(max(_SECOND_WIDTH * span_s, _LEAST_WIDTH), _MOST_WIDTH)
    return _Picture(name, length_s, span_s, notes, pedals, width).draw()


class _Picture:
    """Where everything is: the keyboard and the roll above the pedals above the axis."""

    def __init__(
        self, name: str, length_s: float, span_s: float, notes: list[Bar], pedals: list[Bar], width: float
    ) -> None:
        self._name, self._length_s, self._span_s = name, length_s, span_s
        self._notes, self._pedals = notes, pedals
        self._low, self._high = _octaves([note.number for note in notes])
        rows = self._high - self._low
        self._row = min(max(_ROLL_HEIGHT / rows, _LEAST_ROW), _MOST_ROW)
        self._left, self._right = float(_MARGIN + _KEYS_WIDTH), _MARGIN + _KEYS_WIDTH + width
        self._second = width / span_s
        self._top, self._bottom = float(_TITLE_HEIGHT), _TITLE_HEIGHT + rows * self._row
        self._lanes = sorted({pedal.channel for pedal in pedals})
        self._floor = self._bottom + (len(self._lanes) + 1) * _LANE_HEIGHT * bool(self._lanes)

    def draw(self) -> str:
        """Return it all."""
        width, height = self._right + _MARGIN, self._floor + _AXIS_HEIGHT
        count = len(self._notes)
        facts = f"{_duration(self._length_s)}, {count:,} note{'' if count == 1 else 's'}"
        name = _printable(self._name, int((width - 2 * _MARGIN) / _LETTER))
        parts = [
            svg.text(_MARGIN, 30, name, size=17, weight=600),
            svg.text(_MARGIN, 50, facts, kind="faint"),
            *self._legend(),
            *self._paper(),
            *self._keyboard(),
            *self._bars(),
            *self._pedal_lines(),
        ]
        if not count:
            middle = (self._top + self._bottom) / 2
            parts.append(
                svg.text((self._left + self._right) / 2, middle, "no notes", anchor="middle", kind="faint")
            )
        light, dark = _colours({bar.channel for bar in self._notes + self._pedals})
        return svg.picture(f"piano roll of {name}: {facts}", width, height, parts, light=light, dark=dark)

    def _y(self, number: int) -> float:
        """The upper edge of a note's row."""
        return self._bottom - (number + 1 - self._low) * self._row

    def _legend(self) -> list[str]:
        channels = sorted({bar.channel for bar in self._notes + self._pedals})
        if not channels:
            return []
        y, parts = 70, [svg.text(_MARGIN, 70, "channel", size=12, kind="faint")]
        for number, channel in enumerate(channels):
            x = _MARGIN + 54 + number * 36
            parts.append(f'<path class="c{channel}" d="M{x} {y - 4}h10" stroke-width="10"/>')
            parts.append(svg.text(x + 14, y, str(channel + 1), size=12))
        return parts

    def _paper(self) -> list[str]:
        """The rows of the black keys, lines between octaves, and the axis of time."""
        rows = [self._y(number) for number in range(self._low, self._high) if number % 12 in _BLACK_KEYS]
        across = self._right - self._left
        shade = "".join(f"M{self._left:g} {n(y)}h{across:g}v{self._row:g}h-{across:g}z" for y in rows)
        parts = [f'<path class="shade" d="{shade}"/>']
        for number in range(self._low + 12, self._high, 12):
            y = self._y(number - 1)
            parts.append(svg.line("grid", self._left, y, self._right, y))
        in_minutes = self._span_s >= 60
        for seconds in self._ticks():
            x = self._left + seconds * self._second
            parts.append(svg.line("grid", x, self._top, x, self._floor))
            parts.append(svg.line("frame", x, self._floor, x, self._floor + 4))
            text = minutes(seconds) if in_minutes else f"{seconds:g}"
            parts.append(svg.text(x, self._floor + 18, text, anchor="middle", size=12))
        parts.append(svg.line("frame", self._left, self._floor, self._right, self._floor))
        title = "minutes:seconds" if in_minutes else "seconds"
        middle = (self._left + self._right) / 2
        parts.append(svg.text(middle, self._floor + 38, title, anchor="middle", size=12, kind="faint"))
        return parts

    def _ticks(self) -> Iterator[float]:
        step = next(step for step in _tick_steps() if step * self._second >= _TICK_WIDTH)
        for number in range(int(self._span_s / step + 1e-9) + 1):
            yield number * step

    def _keyboard(self) -> list[str]:
        """A keyboard that is played from the left, with the name of each C: 60 is C4, middle C."""
        width, height = _KEYS_WIDTH - 4, self._bottom - self._top
        back = _MARGIN + width * 0.55
        parts = [f'<rect class="white" x="{_MARGIN}" y="{self._top:g}" width="{width}" height="{height:g}"/>']
        edges, keys = f"M{_MARGIN} {self._top:g}h{width}v{height:g}h-{width}z", ""
        for number in range(self._low, self._high):
            y = self._y(number)
            if number % 12 in _BLACK_KEYS:
                # Two white keys meet behind it.
                edges += f"M{_MARGIN} {n(y + self._row / 2)}H{n(back)}"
                keys += f"M{n(back)} {n(y)}h{n(width * 0.45)}v{self._row:g}h-{n(width * 0.45)}z"
            elif number % 12 in (4, 11):
                edges += f"M{_MARGIN} {n(y)}h{width}"
        parts.append(f'<path class="frame" d="{edges}" fill="none" stroke-width="0.5"/>')
        parts.append(f'<path class="black" d="{keys}"/>')
        for number in range(self._low, self._high):
            if number % 12 == 0:
                y = self._y(number) + self._row - 1
                parts.append(svg.text(_MARGIN + 3, y, f"C{number // 12 - 1}", size=9, kind="keys"))
        return parts

    def _bars(self) -> list[str]:
        """The notes, in one path for each channel and shade; the hardest struck are drawn last."""
        paths: dict[tuple[int, int], list[str]] = {}
        for bar in self._fewer(self._notes):
            y = self._y(bar.number) + self._row / 2
            paths.setdefault((bar.value * _SHADES // 128, bar.channel), []).append(self._segment(bar, y))
        return [
            f'<path class="c{channel}" stroke-width="{self._row * 0.86:.3g}" '
            f'stroke-opacity="{0.4 + 0.6 * shade / (_SHADES - 1):.2g}" d="{"".join(segments)}"/>'
            for (shade, channel), segments in sorted(paths.items())
        ]

    def _pedal_lines(self) -> list[str]:
        if not self._lanes:
            return []
        bars = self._fewer(self._pedals)
        middles = {
            channel: self._bottom + (number + 1) * _LANE_HEIGHT for number, channel in enumerate(self._lanes)
        }
        middle = (middles[self._lanes[0]] + middles[self._lanes[-1]]) / 2
        parts = [svg.text(self._left - 8, middle + 3, "pedal", anchor="end", size=10, kind="faint")]
        for channel, y in middles.items():
            path = "".join(self._segment(bar, y) for bar in bars if bar.channel == channel)
            parts.append(f'<path class="c{channel}" stroke-width="4" d="{path}"/>')
        return parts

    def _segment(self, bar: Bar, y: float) -> str:
        x = min(self._left + bar.begin * self._second, self._right - _LEAST_BAR)
        width = (bar.end - bar.begin) * self._second - _GAP
        return f"M{n(x)} {n(y)}h{n(max(width, _LEAST_BAR))}"

    def _fewer(self, bars: list[Bar]) -> list[Bar]:
        """Bars that are no more than can be drawn, by joining those that are close to each other."""
        gap = 0.5 / self._second
        while len(bars) > _MOST_BARS:
            bars = list(_joined(bars, gap))
            gap *= 2
        return bars


def _joined(bars: Iterable[Bar], gap: float) -> Iterator[Bar]:
    """Join the bars of one note that are less than so many seconds apart; the result is as strong as any."""
    last: Bar | None = None
    for bar in sorted(bars, key=lambda bar: (bar.channel, bar.number, bar.begin)):
        if last is not None and bar[2:4] == last[2:4] and bar.begin - last.end < gap:
            last = last._replace(end=max(last.end, bar.end), value=max(last.value, bar.value))
            continue
        if last is not None:
            yield last
        last = bar
    if last is not None:
        yield last


def _octaves(numbers: Sequence[int]) -> tuple[int, int]:
    """The lowest note to draw and the one above the highest: whole octaves, two at least."""
    low = min(numbers, default=60) // 12 * 12
    high = (max(numbers, default=60) // 12 + 1) * 12
    if high - low < _LEAST_ROWS:
        low = max(low - 12, 0)
        high = low + _LEAST_ROWS
    return low, min(high, 128)


def _tick_steps() -> Iterator[float]:
    yield from (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    step = 3600.0
    while True:
        yield step
        step *= 2


def _duration(seconds: float) -> str:
    return f"{minutes(seconds)} minutes" if seconds >= 60 else f"{seconds:.1f} s"


def _colours(channels: Set[int]) -> tuple[str, str]:
    """The styles of a light and of a dark page, with the colours of these channels."""
    light, dark = _LIGHT_STYLE, _DARK_STYLE
    for channel in sorted(channels):
        colour = _COLOURS[channel]
        lighter = bytes((255 + part) // 2 for part in bytes.fromhex(colour[1:])).hex()
        light += f".c{channel} {{ stroke: {colour} }}\n"
        dark += f".c{channel} {{ stroke: #{lighter} }}\n"
    return light, dark


def _printable(name: str, most: int) -> str:
    """Return a name without control characters, and in no more letters than there is room for."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name
    )
    if len(shown) <= most:
        return shown
    return f"{shown[: math.ceil(most / 2) - 1]}…{shown[-(most // 2) :]}"
