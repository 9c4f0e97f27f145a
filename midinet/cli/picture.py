"""Histograms: their bars, and the picture of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from . import svg

# Pixels.
_WIDTH = 800
_MARGIN = 20
_LEFT = 64
_TITLE_HEIGHT = 44
_NAME_LINE = 16
_MORE_WIDTH = 64
_BARS_HEIGHT = 300
_AXIS_HEIGHT = 56
_FOOT_LINE = 18

# The colours of Okabe and Ito for what is told apart, their sky blue on dark ground; the rest are greys.
_LIGHT_STYLE = (
    ".grid { stroke: #e4e7eb } .bar { fill: #0072b2 } .mark { stroke: #d55e00 } .marked { fill: #b34700 }"
)
_DARK_STYLE = (
    ".grid { stroke: #21262d } .bar { fill: #56b4e9 } .mark { stroke: #e69f00 } .marked { fill: #e69f00 }"
)


@dataclass(frozen=True)
class Bars:
    """How many values there are in each of several steps of one width.

    Attributes:
        low: where the first step begins.
        step: how wide each is: 1, 2 or 5 times a power of ten.
        counts: how many values each has.
        above: how many values there are above the last one.
    """

    low: float
    step: float
    counts: list[int]
    above: int

    @property
    def high(self) -> float:
        """Where the last step ends."""
        return self.low + self.step * len(self.counts)

    def write(self, value: float) -> str:
        """Return an edge of a step as a number with the digits that it needs."""
        return f"{value:.{max(0, -math.floor(math.log10(self.step) + 1e-9))}f}"


def bars_of(values: Sequence[float], most: int, *, finest: float) -> Bars:
    """Sort values into steps, so that 99 % of them are told apart as well as can be.

    The few that are far above all others would otherwise leave one step for these.

    Args:
        values: at least one, none below 0.
        most: how many steps there may be.
        finest: the narrowest step, a power of ten.
    """
    ordered = sorted(values)
    least, highest = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    steps = (finest * factor * 10**power for power in range(12) for factor in (1, 2, 5))
    step = next(step for step in steps if _index(highest, step) - _index(least, step) < most)
    first = _index(least, step)
    counts = [0] * (_index(highest, step) - first + 1)
    above = 0
    for value in ordered:
        if (at := _index(value, step) - first) < len(counts):
            counts[at] += 1
        else:
            above += 1
    return Bars(first * step, step, counts, above)


def _index(value: float, step: float) -> int:
    # A value on an edge is above it, however the division is rounded.
    return math.floor(value / step + 1e-9)


def histogram(
    title: str, bars: Bars, axis: str, marks: Sequence[tuple[float, str]], foot: Sequence[str]
) -> str:
    """Return a histogram as the text of an SVG file.

    Args:
        title: stands above it.
        bars: what it shows.
        axis: what the values are, with their unit.
        marks: values that have a line of their own, with their names.
        foot: lines of small print below it.
    """
    bottom = _TITLE_HEIGHT + _NAME_LINE * len(marks) + _BARS_HEIGHT
    whole = bottom + _AXIS_HEIGHT + _FOOT_LINE * len(foot) + _MARGIN / 2
    parts = [
        svg.text(_MARGIN, 30, title, size=17, weight=600),
        *_bars(bars, bottom),
        *_marks(bars, bottom, marks),
        svg.text((_LEFT + _WIDTH - _MARGIN) / 2, bottom + 42, axis, anchor="middle"),
        f'<g transform="translate({_MARGIN} {bottom - _BARS_HEIGHT / 2:g}) rotate(-90)">'
        f"{svg.text(0, 0, 'how many', anchor='middle')}</g>",
    ]
    for number, line in enumerate(foot):
        at = bottom + _AXIS_HEIGHT + _FOOT_LINE * (number + 0.7)
        parts.append(svg.text(_MARGIN, at, line, size=12, kind="faint"))
    return svg.picture(title, _WIDTH, whole, parts, light=_LIGHT_STYLE, dark=_DARK_STYLE)


def _bars(bars: Bars, bottom: float) -> list[str]:
    """The axes and the bars. The values above all steps have the last bar, apart from the others."""
    right = _WIDTH - _MARGIN
    parts = []
    tallest = max(*bars.counts, bars.above, 1)
    every = round(_tick_step(tallest / 6, 1))
    height = _BARS_HEIGHT / (math.ceil(tallest / every) * every)
    for count in range(0, tallest + every, every):
        at = bottom - count * height
        parts.append(svg.line("frame" if count == 0 else "grid", _LEFT, at, right, at))
        parts.append(svg.text(_LEFT - 8, at + 4, str(count), anchor="end", size=12))
    width = _bar_width(bars)
    for number, count in enumerate(bars.counts):
        parts.append(_bar(_LEFT + number * width, bottom, width, count * height, f"{count}"))
    tick = _tick_step((bars.high - bars.low) / 10, bars.step)
    for number in range(math.ceil(bars.low / tick - 1e-9), math.floor(bars.high / tick + 1e-9) + 1):
        across = _LEFT + (number * tick - bars.low) / bars.step * width
        text = bars.write(number * tick) if not bars.above or across < right - _MORE_WIDTH else ""
        parts.append(svg.line("frame", across, bottom, across, bottom + 5))
        parts.append(svg.text(across, bottom + 20, text, anchor="middle", size=12))
    if bars.above:
        parts.append(_bar(right - width, bottom, width, bars.above * height, f"{bars.above}"))
        parts.append(svg.text(right, bottom + 20, "more", anchor="end", size=12))
    return parts


def _bar_width(bars: Bars) -> float:
    """The width of a step. Those above all steps have one too, and a gap before it."""
    return (_WIDTH - _MARGIN - _LEFT) / (len(bars.counts) + (2 if bars.above else 0))


def _marks(bars: Bars, bottom: float, marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for number, (value, name) in enumerate(sorted(marks)):
        if value < bars.high:
            across = _LEFT + (value - bars.low) / bars.step * _bar_width(bars)
            # Each name has a line of its own, so that two that are close do not hide each other.
            top = _TITLE_HEIGHT + _NAME_LINE * number
            parts.append(svg.line("mark", across, top, across, bottom, dash="4 3"))
            is_right = across > _WIDTH * 0.7
            anchor, aside = ("end", -6) if is_right else ("start", 6)
            parts.append(svg.text(across + aside, top + 10, name, anchor=anchor, size=12, kind="marked"))
    return parts


def _tick_step(least: float, finest: float) -> float:
    """Return a step from 1 to 10 times a power of ten that is neither below `least` nor below `finest`."""
    least = max(least, finest)
    size = 10.0 ** math.floor(math.log10(least) + 1e-9)
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= least - 1e-9)


def _bar(left: float, bottom: float, width: float, height: float, name: str) -> str:
    gap = min(1.0, width / 8)
    place = f'x="{left + gap:.2f}" y="{bottom - height:.2f}" width="{width - 2 * gap:.2f}"'
    return f'<rect class="bar" {place} height="{height:.2f}"><title>{escape(name)}</title></rect>'
