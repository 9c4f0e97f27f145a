"""Rounds become rows: medians, noise, ratios and sums, in order, as text and as Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.table import (
    Column,
    Table,
    kept_up,
    middle,
    noise,
    noise_column,
    percentile,
    percentiles,
    ratio,
    total,
)


def table(*columns: Column, heads: tuple[str, ...] = ("server",), **more: Any) -> Table:
    return Table("Speed", heads, columns, **more)


def filled(*columns: Column) -> Table:
    """Two servers, three rounds."""
    found = table(*columns)
    for number, (ours, theirs) in enumerate([(30.0, 10.0), (40.0, 10.0), (20.0, 20.0)]):
        found.number = number
        found.add("ours", speed=ours, us=[1.0 * number, 9.0], lost=1, wrong=number)
        found.add("theirs", speed=theirs, us=[], lost=0, wrong=0)
    return found


@pytest.mark.parametrize(
    ("figure", "ours", "theirs"),
    [
        (middle("speed"), 30.0, 10.0),
        (middle("us", 0), 1.0, None),
        (middle("us", 1), 9.0, None),
        (middle("no such"), None, None),
        (noise("speed"), pytest.approx(100 / 3), 50.0),
        (noise("no such"), None, None),
        (total("lost"), 3, 0),
        (total("lost", "wrong"), 6, 0),
        # Of each round, not of the medians.
        (ratio("speed", lambda head: ("theirs",)), 3.0, 1.0),
        (ratio("speed", lambda head: ("theirs",), inverse=True), pytest.approx(1 / 3), 1.0),
        (ratio("speed", lambda head: ("nobody",)), None, None),
        (kept_up(speed=29.0), "no", "yes"),
        (kept_up(speed=30.0, lost=1), "yes", "yes"),
    ],
)
def test_a_figure_is_made_of_all_rounds(figure: Any, ours: object, theirs: object) -> None:
    assert filled(Column("", figure)).rows() == [["ours", ours], ["theirs", theirs]]


def test_a_ratio_is_to_the_same_round_where_one_failed() -> None:
    found = table(Column("x", ratio("speed", lambda head: ("theirs",))))
    for number in range(2):
        found.number = number
        found.add("theirs", speed=10.0 * (number + 1))
    found.add("ours", speed=60.0)

    assert found.rows()[1] == ["ours", 3.0]


def test_what_was_never_measured_has_a_row_of_dashes() -> None:
    found = table(Column("speed", middle("speed")), noise_column("speed"), Column("lost", total("lost")))
    found.add("bad")

    assert found.rows() == [["bad", None, None, None]]
    assert found.saved_rounds() == []
    assert found.render().splitlines()[-1].split() == ["bad", "-", "-", "-"]


@pytest.mark.parametrize(
    ("as_added", "order"),
    [(False, [(1, "a"), (1, "b"), (10, "a"), (10, "b")]), (True, [(1, "a"), (10, "a"), (1, "b"), (10, "b")])],
)
def test_rows_are_grouped_by_their_heads_or_stand_as_they_came(
    as_added: bool, order: list[tuple[int, str]]
) -> None:
    found = table(heads=("clients", "server"), as_added=as_added)
    for server in "ab":
        for clients in (1, 10):
            found.add(clients, server, speed=1.0)

    assert [tuple(row) for row in found.rows()] == order
    assert [(one["clients"], one["server"]) for one in found.saved_rounds()] == order


def test_what_is_saved_has_every_round_with_its_number_and_head() -> None:
    assert filled().saved_rounds()[:2] == [
        {"server": "ours", "round": 0, "speed": 30.0, "us": [0.0, 9.0], "lost": 1, "wrong": 0},
        {"server": "ours", "round": 1, "speed": 40.0, "us": [1.0, 9.0], "lost": 1, "wrong": 1},
    ]


def test_text_has_words_to_the_left_numbers_to_the_right_and_the_notes_below() -> None:
    found = filled(Column("messages/s", middle("speed")), Column("x", middle("speed"), ".2f"))
    found.notes.append("A note.")

    assert found.render().splitlines() == [
        "Speed",
        "",
        "server  messages/s      x",
        "-------------------------",
        "ours            30  30.00",
        "theirs          10  10.00",
        "",
        "A note.",
    ]


def test_markdown_has_the_same_cells() -> None:
    assert filled(Column("messages/s", middle("speed"))).markdown().splitlines() == [
        "**Speed**",
        "",
        "| server | messages/s |",
        "| --- | --- |",
        "| ours | 30 |",
        "| theirs | 10 |",
    ]


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 2), (51, 3), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(percent: float, value: float) -> None:
    assert percentile([4, 2, 1, 3], percent) == value


def test_percentiles_are_in_a_unit_and_there_are_none_of_no_values() -> None:
    assert percentiles([0.002, 0.001], [50, 100], 1e3) == [1.0, 2.0]
    assert percentiles([], [50]) == []
