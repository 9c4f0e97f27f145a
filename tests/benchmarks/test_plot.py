from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks.plot import BLUE, GREEN, Line, Panel, Style, draw, logarithmic, percents, short

SVG = "{http://www.w3.org/2000/svg}"
X = logarithmic("listeners", [1, 100], short)
Y = logarithmic("messages/s", [3_000, 2_000_000], short)


def line(name: str, *heights: float, strong: bool = False) -> Line:
    return Line(name, Style(BLUE, strong=strong), list(zip([1, 10, 100], heights, strict=True)))


def parse(*panels: Panel, foot: list[str] | None = None) -> ElementTree.Element:
    return ElementTree.fromstring(draw("A <plot> & more", panels, X, Y, foot or []))


def texts(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {element.text or "": element for element in root.iter(f"{SVG}text")}


def test_a_plot_is_800_pixels_wide_on_an_opaque_background() -> None:
    root = parse(Panel("", [line("a", 5_000, 50_000, 500_000)]))

    assert root.get("width") == "800"
    first = root[0]
    assert (first.tag, first.get("fill")) == (f"{SVG}rect", "#ffffff")
    assert (first.get("width"), first.get("height")) == (root.get("width"), root.get("height"))


def test_all_that_is_said_is_text_and_within_the_plot() -> None:
    root = parse(Panel("", [line("a & b", 5_000, 50_000, 500_000)]), foot=["where", "what"])

    found = texts(root)
    assert {"A <plot> & more", "a & b", "listeners", "messages/s", "where", "what", "10k", "1M"} <= set(found)
    for element in found.values():
        assert 0 <= float(element.get("x", "")) <= 800
        assert 0 <= float(element.get("y", "")) <= float(root.get("height", ""))


def test_a_line_goes_through_its_points() -> None:
    root = parse(Panel("", [line("a", Y.low, Y.high, Y.low)]))

    (polyline,) = root.iter(f"{SVG}polyline")
    places = [tuple(map(float, place.split(","))) for place in polyline.get("points", "").split()]
    (left, low), (middle, high), (right, last) = places
    assert low == last > high
    assert middle - left == pytest.approx(right - middle, abs=0.2)


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    ends = [2_000_000, 1_990_000, 1_980_000, 400_000, 399_000, 3_100, 3_050, 3_000]
    names = [f"line {number}" for number in range(len(ends))]
    root = parse(Panel("", [line(name, 3_000, 3_000, end) for name, end in zip(names, ends, strict=True)]))

    heights = [float(texts(root)[name].get("y", "")) for name in names]
    assert heights == sorted(heights)
    assert min(after - before for before, after in pairwise(heights)) >= 15
    assert heights[-1] < float(root.get("height", ""))


def test_what_is_strong_is_drawn_over_the_others() -> None:
    root = parse(
        Panel("", [line("a", 5_000, 5_000, 5_000, strong=True), Line("b", Style(GREEN), [(1, 5_000)])])
    )

    assert [each.get("stroke") for each in root.iter(f"{SVG}polyline")] == [GREEN, BLUE]


def test_several_panels_share_a_legend_with_every_name_once() -> None:
    panels = [Panel(title, [line("a", 5_000, 50_000, 500_000)]) for title in ("one", "two")]
    root = parse(*panels, Panel("three", []))

    found = [element.text for element in root.iter(f"{SVG}text")]
    assert [found.count(text) for text in ("a", "one", "two", "three")] == [1, 1, 1, 1]
    assert len(list(root.iter(f"{SVG}polyline"))) == 2


def test_a_line_without_points_is_no_trouble() -> None:
    # Of who was measured and delivered nothing.
    nothing = parse(Panel("one", [Line("a", Style(BLUE), [])]), Panel("two", [Line("a", Style(BLUE), [])]))
    assert list(nothing.iter(f"{SVG}polyline")) == []
    one = parse(Panel("", [Line("a", Style(BLUE), []), line("b", 5_000, 50_000, 500_000)]))
    assert len(list(one.iter(f"{SVG}polyline"))) == 1


def test_a_logarithmic_axis_ends_at_round_numbers_and_names_powers_of_ten() -> None:
    axis = logarithmic("", [33, 4_100], short)

    assert (axis.low, axis.high) == (20, 5_000)
    assert [text for _, text in axis.ticks if text] == ["100", "1k"]
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == 1
    assert axis.share(200) - axis.share(20) == pytest.approx(axis.share(2_000) - axis.share(200))


def test_a_logarithmic_axis_of_one_value_has_a_length() -> None:
    axis = logarithmic("", [100], short)

    assert axis.low <= 100 < axis.high


def test_each_nine_of_a_percentile_has_the_same_room() -> None:
    axis = percents("", 99.9)

    assert [text for _, text in axis.ticks] == ["0", "50", "90", "99", "99.9"]
    assert [axis.share(value) for value in (0, 90, 99, 99.9)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1"), (100, "100"), (1_000, "1k"), (2_000_000, "2M"), (1e9, "1G")]
)
def test_short_numbers(number: float, text: str) -> None:
    assert short(number) == text
