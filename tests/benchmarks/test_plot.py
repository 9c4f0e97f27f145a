"""Plots by matplotlib: an SVG with all names as text, the same for the same figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import fanout
from benchmarks.contenders import CONTENDERS

pytest.importorskip("matplotlib", reason="the extra bench is not installed")

from benchmarks.plot import Line, draw

STYLE = {"color": "#0072b2", "marker": "o"}
RESULTS = Path(fanout.__file__).parent / "results"


def line(name: str, *heights: float) -> Line:
    return Line(name, STYLE, list(zip([1, 10, 100], heights, strict=False)))


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")]


def plot(*panels: Sequence[Line], percentile: float | None = None) -> str:
    named = {f"panel {number}": lines for number, lines in enumerate(panels)}
    return draw("A <plot> & more", named, "listeners", "messages/s", ["where"], highest_percentile=percentile)


# It opens its fonts for the whole process at its first plot: no test's leak.
plot([line("a", 1, 2, 3)])


def test_all_that_is_said_is_text() -> None:
    found = texts(plot([line("a & b", 5_000, 50_000, 500_000)]))

    assert {"A <plot> & more", "a & b", "messages/s", "panel 0", "1", "10", "100", "100k"} <= set(found)
    assert {"listeners", "where"} <= set(found)


def test_the_same_figures_make_the_same_file() -> None:
    assert plot([line("a", 1, 2, 3)]) == plot([line("a", 1, 2, 3)])


def test_a_line_without_points_is_left_out() -> None:
    found = texts(plot([line("nothing"), line("something", 1, 2, 3)]))

    assert ("nothing" in found, "something" in found) == (False, True)


def test_panels_share_one_legend() -> None:
    lines = [line("a", 1, 2, 3), line("b", 3, 2, 1)]

    assert [texts(plot(lines, lines)).count(name) for name in ("a", "b", "panel 0", "panel 1")] == [
        1,
        1,
        1,
        1,
    ]


def test_an_axis_of_percentiles_ends_where_it_is_told() -> None:
    found = texts(plot([Line("a", STYLE, [(5, 1.0), (50, 2.0), (99, 3.0)])], percentile=99))

    assert [tick for tick in ("0", "50", "90", "99", "99.9") if tick in found] == ["0", "50", "90", "99"]


def test_fan_out_draws_all_that_was_saved() -> None:
    saved = json.loads((RESULTS / "fanout.json").read_text(encoding="utf-8"))
    names = {one["server"] for one in saved["tables"][0]["rounds"]}
    drawn = fanout.draw(saved)

    assert list(drawn) == ["deliveries", "latency"]
    assert names <= {contender.name for contender in CONTENDERS}
    for svg in drawn.values():
        assert names <= set(texts(svg))
        assert any("CPython" in text for text in texts(svg))


def test_a_plot_of_what_failed_is_left_out() -> None:
    nothing = {"deliveries_per_s": 0.0, "latency_us_by_percent": {}, "server": "mido", "subscribers": 1}
    assert fanout.draw({"tables": [{"rounds": [nothing]}], "options": {"rate": 1_000.0}}) == {}
