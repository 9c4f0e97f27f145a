"""Line plots as SVG, made of nothing but text.

A plot is one panel or several side by side, which share both axes. Its lines are told apart by colour, dashes
and the shape of their points; the colours are those of Okabe and Ito (jfly.uni-koeln.de/color, "Color
Universal Design"), which the colour-blind can tell apart. The background is opaque, so that a plot is as
readable on a dark page as on a light one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, GREY = (
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#8c8c8c",
)

# Pixels.
_WIDTH = 800
_MARGIN = 18
_TITLE_HEIGHT = 46
_PANEL_HEIGHT = 400
_LEFT = 76
_GAP = 30
_AXIS_HEIGHT = 48
_FOOT_LINE = 15
_LABEL_LINE = 16
_LEGEND_LINE = 20
_LEGEND_SAMPLE = 30

# Of a letter in pixels, on the average, in bold type: there is nothing here to measure text with.
_LETTER = 7.6

_FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""
_INK, _SMALL_PRINT, _LINES, _FRAME = "#1f2328", "#59636e", "#e4e7eb", "#8c959f"


@dataclass(frozen=True)
class Style:
    """How a line looks.

    Args:
        colour: in hexadecimal, with a # before it.
        dash: lengths of dashes and gaps, in pixels; empty is a line without gaps.
        strong: whether it stands out.
        point: the shape of its points: "circle", "square", "triangle" or "diamond".
    """

    colour: str
    dash: str = ""
    strong: bool = False
    point: str = "circle"


@dataclass(frozen=True)
class Line:
    """What is plotted: points from left to right, or none."""

    name: str
    style: Style
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`.

    Args:
        title: what it shows, with its unit.
        ticks: values with their texts. One without a text gets a line only.
        place: takes a value to where it is on the axis, in any measure.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    place: Callable[[float], float] = math.log10

    def share(self, value: float) -> float:
        """Return where a value is: 0 at the low end, 1 at the high end."""
        low, high = self.place(self.low), self.place(self.high)
        return (self.place(value) - low) / (high - low)


@dataclass(frozen=True)
class Panel:
    """Lines in one frame."""

    title: str
    lines: Sequence[Line]


def logarithmic(title: str, values: Sequence[float], write: Callable[[float], str]) -> Axis:
    """Return a logarithmic axis for values above 0, from one 1, 2 or 5 times a power of ten to another.

    Args:
        write: makes a text of a power of ten.
    """
    steps = [step * 10.0**power for power in range(-9, 13) for step in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values))
    high = min(step for step in steps if step >= max(values) and step > low)
    ticks = []
    for step in steps:
        if low <= step <= high:
            ticks.append((step, write(step) if math.log10(step).is_integer() else ""))
    return Axis(title, low, high, ticks)


def percents(title: str, highest: float) -> Axis:
    """Return an axis of percentiles up to the highest, which gives each nine of 99.9 the same room."""
    ticks = [(tick, f"{tick:g}") for tick in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99) if tick <= highest]
    return Axis(title, 0.0, highest, ticks, lambda percent: -math.log10(1 - percent / 100))


def short(number: float) -> str:
    """Return a number in few letters: 100k, 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def draw(title: str, panels: Sequence[Panel], x: Axis, y: Axis, foot: Sequence[str]) -> str:
    """Return a plot as the text of an SVG file.

    A single panel's lines have their names at their ends; several panels have one legend above them.

    Args:
        foot: lines of small print.
    """
    names = [line.name for line in panels[0].lines]
    legend: list[str] = []
    top = float(_TITLE_HEIGHT)
    right = float(_MARGIN)
    if len(panels) == 1:
        right += 14 + max(map(_text_width, names))
    else:
        styles = {line.name: line.style for panel in panels for line in panel.lines}
        legend, height = _legend(styles, top)
        top += height + _LEGEND_LINE
    width = (_WIDTH - _LEFT - right - _GAP * (len(panels) - 1)) / len(panels)
    bottom = top + _PANEL_HEIGHT
    whole = bottom + _AXIS_HEIGHT + _FOOT_LINE * len(foot) + _MARGIN / 2
    body = [
        f'<rect width="{_WIDTH}" height="{whole:g}" fill="#ffffff"/>',
        _text(_MARGIN, 28, title, size=17, weight=600),
        *legend,
    ]
    for number, panel in enumerate(panels):
        left = _LEFT + number * (width + _GAP)
        frame = _Frame(left, top, width, _PANEL_HEIGHT, x, y)
        body += frame.axes(with_y=number == 0)
        if len(panels) > 1:
            body.append(_text(left + width / 2, top - 7, panel.title, anchor="middle", weight=600))
        body += [part for line in _strong_last(panel.lines) for part in frame.line(line)]
        if len(panels) == 1:
            body += frame.names(panel.lines)
    middle = (_LEFT + _WIDTH - right) / 2
    body.append(_text(middle, bottom + 38, x.title, anchor="middle"))
    turned = f'transform="translate(16 {top + _PANEL_HEIGHT / 2:g}) rotate(-90)"'
    body.append(_text(0, 0, y.title, anchor="middle", more=turned))
    for number, line in enumerate(foot):
        at = bottom + _AXIS_HEIGHT + _FOOT_LINE * (number + 0.7)
        body.append(_text(_MARGIN, at, line, size=10.5, colour=_SMALL_PRINT))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{whole:g}" '
            f'viewBox="0 0 {_WIDTH} {whole:g}" {_FONT} role="img" aria-label={quoteattr(title)}>',
            *body,
            "</svg>",
        ]
    )


@dataclass(frozen=True)
class _Frame:
    """Where a panel is, and what its values become."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, point: tuple[float, float]) -> tuple[float, float]:
        across, up = self.x.share(point[0]), self.y.share(point[1])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def axes(self, *, with_y: bool) -> list[str]:
        right, bottom = self.left + self.width, self.top + self.height
        parts = []
        for value, text in self.y.ticks:
            height = self.at((self.x.low, value))[1]
            colour = _LINES if text else "#f3f4f6"
            parts.append(_stroke(self.left, height, right, height, colour))
            if with_y and text:
                parts.append(_text(self.left - 8, height + 4, text, anchor="end"))
        for value, text in self.x.ticks:
            across = self.at((value, self.y.low))[0]
            if text:
                parts.append(_stroke(across, self.top, across, bottom, _LINES))
                parts.append(_text(across, bottom + 18, text, anchor="middle"))
        return [
            *parts,
            _stroke(self.left, self.top, self.left, bottom, _FRAME),
            _stroke(self.left, bottom, right, bottom, _FRAME),
        ]

    def line(self, line: Line) -> list[str]:
        if not line.points:
            return []
        points = [self.at(point) for point in line.points]
        style = line.style
        shown = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts = [f'<polyline points="{shown}" fill="none" {_pen(style)}/>']
        # Points are for lines of a few: on others they would hide what they are on.
        if len(points) <= 8:
            parts += [_point(style, *point) for point in points]
        return parts

    def names(self, lines: Sequence[Line]) -> list[str]:
        """The lines' names at their ends, moved apart where they would overlap."""
        ends = sorted(
            ((*self.at(line.points[-1]), line) for line in lines if line.points), key=lambda end: end[1]
        )
        places = _apart([end[1] for end in ends], self.top, self.top + self.height)
        parts = []
        for (across, down, line), place in zip(ends, places, strict=True):
            if abs(place - down) > 3:
                parts.append(_stroke(across + 6, down, across + 16, place, line.style.colour, 0.8))
            parts.append(_text(across + 18, place + 4, line.name, weight=700 if line.style.strong else 400))
        return parts


def _apart(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return places near the wanted ones, which are in order, with a line's height between them."""
    # Those that would overlap stand together, as a block around the middle of where they would be.
    blocks: list[tuple[list[float], float]] = []
    for place in wanted:
        members, middle = [place], place
        while blocks and blocks[-1][1] + _half(blocks[-1][0]) > middle - _half(members):
            members = blocks.pop()[0] + members
            middle = sum(members) / len(members)
            middle = min(max(middle, top + _half(members)), bottom - _half(members))
        blocks.append((members, middle))
    return [
        middle + (number - (len(members) - 1) / 2) * _LABEL_LINE
        for members, middle in blocks
        for number in range(len(members))
    ]


def _half(members: Sequence[float]) -> float:
    return len(members) * _LABEL_LINE / 2


def _legend(styles: dict[str, Style], top: float) -> tuple[list[str], float]:
    """Samples of the lines with their names, in columns of one width. Returns them and their height."""
    width = _LEGEND_SAMPLE + 8 + max(map(_text_width, styles)) + 14
    columns = max(1, int((_WIDTH - 2 * _MARGIN) / width))
    rows = math.ceil(len(styles) / columns)
    parts = []
    for number, (name, style) in enumerate(styles.items()):
        # Down first, as a list is read.
        left = _MARGIN + number // rows * width
        height = top + number % rows * _LEGEND_LINE
        places = f'x1="{left:g}" y1="{height:g}" x2="{left + _LEGEND_SAMPLE:g}" y2="{height:g}"'
        parts.append(f"<line {places} {_pen(style)}/>")
        weight = 700 if style.strong else 400
        parts.append(_text(left + _LEGEND_SAMPLE + 8, height + 4, name, weight=weight))
    return parts, rows * _LEGEND_LINE


def _strong_last(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.style.strong)


def _text_width(text: str) -> float:
    return len(text) * _LETTER


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 12.5,
    anchor: str = "start",
    weight: int = 400,
    colour: str = _INK,
    more: str = "",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}" {more}>{escape(text)}</text>'
    )


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> str:
    places = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {places} stroke="{colour}" stroke-width="{width:g}"/>'


def _pen(style: Style) -> str:
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    width = 3.5 if style.strong else 1.8
    return f'stroke="{style.colour}" stroke-width="{width:g}" stroke-linejoin="round"{dash}'


def _point(style: Style, x: float, y: float) -> str:
    size = 5.0 if style.strong else 3.8
    fill = f'fill="{style.colour}" stroke="#ffffff" stroke-width="1"'
    if style.point == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {fill}/>'
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "diamond": [(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)],
    }[style.point]
    places = " ".join(f"{x + across * size:.1f},{y + down * size:.1f}" for across, down in corners)
    return f'<polygon points="{places}" {fill}/>'
