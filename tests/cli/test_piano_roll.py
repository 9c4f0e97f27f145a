"""The piano roll: what is drawn of a take, in a file that any viewer can read and whose size has a bound."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.cli.piano_roll import Bar, bars_of, draw
from midinet.cli.tune import ode_to_joy
from tests.harness.messages import any_message, control, note, off
from tests.harness.midi_files import schedule_of
from tests.harness.sizes import thorough

SVG = "{http://www.w3.org/2000/svg}"


def pedal(value, channel=0):
    return control(64, value, channel=channel)


def drawn(name, take):
    """The picture, which has to be well-formed: its root, and its texts."""
    root = ElementTree.fromstring(draw(name, take).encode())
    return root, [element.text for element in root.iter(f"{SVG}text")]


def segments(root):
    """The bars of notes and pedals: (class, left, middle, width)."""
    for path in root.iter(f"{SVG}path"):
        if path.get("class").startswith("c") and "M" in path.get("d"):
            for x, y, width in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", path.get("d")):
                yield path.get("class"), float(x), float(y), float(width)


def bars_drawn(root):
    # Those of the legend are above the roll.
    return [segment for segment in segments(root) if segment[2] > 84]


# What is drawn.


def test_notes_go_from_note_on_to_note_off_from_the_first_message_on():
    take = [
        (5.0, control(7, 9)),
        (6.0, note(60, velocity=90)),
        (6.5, note(60, velocity=20, channel=9)),
        (7.0, note(60, velocity=0)),
        (8.0, off(60, channel=9)),
        (8.0, off(61)),
    ]
    notes, pedals = bars_of(take)
    assert notes == [Bar(1.0, 2.0, 0, 60, 90), Bar(1.5, 3.0, 9, 60, 20)]
    assert pedals == []


def test_a_note_that_is_struck_again_ends_and_begins():
    assert bars_of(
        [(0.0, note(60, velocity=1)), (1.0, note(60, velocity=2)), (2.0, off(60)), (3.0, off(60))]
    )[0] == [
        Bar(0.0, 1.0, 0, 60, 1),
        Bar(1.0, 2.0, 0, 60, 2),
    ]


def test_what_never_ends_goes_on_to_the_end():
    take = [(0.0, note(60)), (1.0, pedal(127)), (3.0, control(7, 1))]
    assert bars_of(take) == ([Bar(0.0, 3.0, 0, 60, 64)], [Bar(1.0, 3.0, 0, 64, 127)])
    assert bars_of(take, 9.0)[0] == [Bar(0.0, 9.0, 0, 60, 64)]


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
def test_messages_that_end_all_notes_of_a_channel_end_them_here(number):
    take = [
        (0.0, note(60)),
        (0.0, note(60, channel=1)),
        (0.0, pedal(127)),
        (2.0, control(number, 0)),
        (4.0, off(1)),
    ]
    notes, pedals = bars_of(take)
    assert [bar.end for bar in notes] == [2.0, 4.0]
    assert [bar.end for bar in pedals] == [4.0]


def test_a_pedal_is_down_from_64_on_and_half_pedals_do_not_break_its_line():
    take = [
        (0.0, pedal(63)),
        (1.0, pedal(64)),
        (2.0, pedal(127)),
        (3.0, pedal(63)),
        (4.0, pedal(127, 3)),
        (5.0, pedal(0, 3)),
    ]
    assert bars_of(take)[1] == [Bar(1.0, 3.0, 0, 64, 64), Bar(4.0, 5.0, 3, 64, 127)]


def test_time_goes_to_the_right_and_pitch_up():
    root, _ = drawn("take.mid", [(0.0, note(60)), (1.0, note(72)), (2.0, off(60)), (4.0, off(72))])
    (_, left, low, width), (_, later, high, longer) = bars_drawn(root)
    assert later > left
    assert high < low
    assert longer == pytest.approx(1.5 * width, abs=1)


def test_colours_are_channels_and_shades_are_velocities():
    take = [
        (0.0, note(60, velocity=10)),
        (0.0, note(61, velocity=120)),
        (0.0, note(62, velocity=120, channel=15)),
        (1.0, control(7, 1)),
    ]
    root, texts = drawn("take.mid", take)
    shades = {
        (path.get("class"), path.get("stroke-opacity"))
        for path in root.iter(f"{SVG}path")
        if path.get("stroke-opacity")
    }
    assert shades == {("c0", "0.4"), ("c0", "1"), ("c15", "1")}
    style = root.find(f"{SVG}style").text
    # On a light page and on a dark one.
    assert [style.count(f".c{channel} {{") for channel in (0, 1, 15)] == [2, 0, 2]
    assert "prefers-color-scheme: dark" in style
    assert {"1", "16"} <= set(texts)


def test_each_channel_with_a_pedal_has_a_line_below_the_notes():
    take = [(0.0, note(60)), (0.0, pedal(127)), (1.0, pedal(127, 4)), (2.0, pedal(0)), (3.0, pedal(0, 4))]
    root, texts = drawn("take.mid", take)
    by_class = {}
    for kind, _, middle, _ in bars_drawn(root):
        by_class.setdefault(kind, []).append(middle)
    assert max(by_class["c0"]) > min(by_class["c0"])
    assert by_class["c4"][0] > max(by_class["c0"])
    assert "pedal" in texts


@pytest.mark.parametrize(
    ("last", "facts", "ticks"),
    [
        (0.3, "0.3 s, 1 note", {"0", "0.1", "1", "seconds"}),
        (20.0, "20.0 s, 1 note", {"0", "2", "20", "seconds"}),
        (90.0, "1:30 minutes, 1 note", {"0:00", "0:05", "1:30", "minutes:seconds"}),
        (36000.0, "600:00 minutes, 1 note", {"0:00", "600:00", "minutes:seconds"}),
    ],
)
def test_the_title_and_the_axis_say_how_long_it_is(last, facts, ticks):
    _, texts = drawn("take 1.mid", [(0.0, note(60)), (last, off(60))])
    assert texts[:2] == ["take 1.mid", facts]
    assert ticks <= set(texts)


# Names.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<b>&\"'.mid", "<b>&\"'.mid"),
        ("a\x1b[2J\n\0\x7f\x85.mid", "a\\x1b[2J\\n\\x00\\x7f\\x85.mid"),
        ("\ud800\udcff\uffff\u202e.mid", "\\ud800\\udcff\\uffff\\u202e.mid"),
        ("Für Elise 🎹.mid", "Für Elise 🎹.mid"),
    ],
)
def test_names_are_shown_as_they_are_but_for_control_characters(name, shown):
    root, texts = drawn(name, [])
    assert texts[0] == shown
    assert shown in root.get("aria-label")


def test_a_long_name_is_cut_in_the_middle():
    _, texts = drawn("a" * 200 + "b" * 200 + ".mid", [])
    assert re.fullmatch(r"a{20,}…b{20,}\.mid", texts[0])
    assert len(texts[0]) < 100


# Sizes.


def test_nothing_is_a_picture_too():
    root, texts = drawn("take.mid", [])
    assert texts[:2] == ["take.mid", "0.0 s, 0 notes"]
    assert "no notes" in texts
    assert bars_drawn(root) == []


def test_one_note_that_never_ends_goes_across():
    root, _ = drawn("take.mid", [(1000.0, note(60))])
    ((_, left, _, width),) = bars_drawn(root)
    assert left + width == pytest.approx(float(root.get("width")) - 20, abs=1)


def test_notes_that_take_no_time_can_be_seen():
    root, _ = drawn("take.mid", [(0.0, note(60)), (0.0, off(60)), (100.0, note(60)), (100.0, off(60))])
    inside = float(root.get("width")) - 20
    assert [width for _, _, _, width in bars_drawn(root)] == [1.6, 1.6]
    assert all(left + width <= inside for _, left, _, width in bars_drawn(root))


@thorough(("count", "minutes"), quick=(5_000, "50.0 s"), full=(50_000, "8:19 minutes"))
def test_each_of_so_many_notes_is_drawn(count, minutes):
    take = [(number * 0.01, note(number % 128, channel=number % 16)) for number in range(count)]
    root, texts = drawn("take.mid", take)
    assert texts[1] == f"{minutes}, {count:,} notes"
    assert len(bars_drawn(root)) == count
    assert len(draw("take.mid", take)) < 24 * count


@thorough(("count", "minutes"), quick=(60_000, "9:59 minutes"), full=(100_000, "16:39 minutes"))
def test_more_than_can_be_told_apart_is_drawn_as_one(count, minutes):
    take = []
    for number in range(count):
        take += [(number * 0.01, note(60, velocity=number % 100 + 1)), (number * 0.01 + 0.005, off(60))]
    root, texts = drawn("take.mid", take)
    assert texts[1] == f"{minutes}, {count:,} notes"
    assert sum(width for _, _, _, width in bars_drawn(root)) > 2390
    assert len(draw("take.mid", take)) < 20_000


@given(st.lists(st.tuples(st.floats(0, 1e5), any_message()), max_size=40))
def test_whatever_was_played_can_be_drawn(take):
    take.sort(key=lambda entry: entry[0])
    root, _ = drawn("take.mid", take)
    width, height = float(root.get("width")), float(root.get("height"))
    assert width <= 2600
    assert height <= 1000
    for _, left, middle, length in bars_drawn(root):
        assert 68 <= left <= left + length <= width - 19
        assert 84 < middle < height


def test_a_tune_is_all_there():
    root, texts = drawn("ode.mid", list(schedule_of(ode_to_joy())))
    assert len(bars_drawn(root)) == 46
    assert {"C2", "C3", "C4"} <= set(texts)
