"""Line plots as SVG, by matplotlib (extra `bench`), of what a benchmark has saved.

Lines are told apart by colour, dashes and points; the colours are those of Okabe and Ito
(jfly.uni-koeln.de/color, "Color Universal Design"), which the colour-blind can tell apart. The background is
opaque, so that a plot is as readable on a dark page as on a light one, and text stays text.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.figure import Figure

# Inches, of which matplotlib makes 72 SVG points each.
_WIDTH, _HEIGHT = 11.0, 6.6
_MAX_POINTS = 8

# The same plot of the same figures is the same file.
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "midinet",
    "font.family": "sans-serif",
    "font.size": 11,
}

# Where the axis of percentiles has ticks.
_PERCENTS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Args:
        name: in the legend.
        style: matplotlib's keywords for it.
        points: from left to right, or none.
    """

    name: str
    style: Mapping[str, Any]
    points: Sequence[tuple[float, float]]


def draw(
    title: str,
    panels: Mapping[str, Sequence[Line]],
    x_title: str,
    y_title: str,
    foot: Sequence[str],
    *,
    y_unit: str = "",
    highest_percentile: float | None = None,
) -> str:
    """Return a plot with a logarithmic vertical axis as the text of an SVG file.

    Args:
        panels: by their titles, lines in frames side by side, which share their axes.
        foot: lines of small print.
        y_unit: of the vertical axis, as in "s".
        highest_percentile: where the horizontal axis, of percentiles, ends; each nine of 99.9 gets the same
            room. None is a logarithmic axis with a tick at each point.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained", facecolor="white")
        frames = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for frame, (name, lines) in zip(frames, panels.items(), strict=True):
            frame.set_title(name, fontsize="medium")
            frame.set_yscale("log")
            _scale_x(frame, lines, highest_percentile)
            for line in lines:
                # Points are for lines of a few: on others they would hide what they are on.
                style = line.style if len(line.points) <= _MAX_POINTS else {**line.style, "marker": ""}
                if line.points:
                    frame.plot(*zip(*line.points, strict=True), label=line.name, **style)
            frame.yaxis.set_major_formatter(matplotlib.ticker.EngFormatter(y_unit, sep=""))
            frame.grid(visible=True, color="#e4e7eb")
        figure.suptitle(title, fontsize="x-large", fontweight="bold")
        figure.supxlabel("\n".join([x_title, *foot]), fontsize="small")
        figure.supylabel(y_title, fontsize="medium")
        # Of the same names and looks in every panel.
        named = [frame.get_legend_handles_labels() for frame in frames]
        legend = {text: handle for one in named for handle, text in zip(*one, strict=True)}
        if legend:
            figure.legend(legend.values(), legend.keys(), loc="outside right center", frameon=False)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": title})
    return svg.getvalue()


def _scale_x(frame: Any, lines: Sequence[Line], highest_percentile: float | None) -> None:
    if highest_percentile is None:
        frame.set_xscale("log")
        ticks: Sequence[float] = sorted({point[0] for line in lines for point in line.points})
        texts = [f"{tick:,g}" for tick in ticks]
    else:
        frame.set_xscale("function", functions=(_nines, _percent))
        ticks = [tick for tick in _PERCENTS if tick <= highest_percentile]
        texts = [f"{tick:g}" for tick in ticks]
        frame.set_xlim(0.0, highest_percentile)
    frame.set_xticks(ticks, texts)
    frame.minorticks_off()


def _nines(percent: Any) -> Any:
    import numpy

    return -numpy.log10(numpy.maximum(1 - numpy.asarray(percent) / 100, 1e-9))


def _percent(nines: Any) -> Any:
    import numpy

    return 100 * (1 - 10.0 ** -numpy.asarray(nines))
