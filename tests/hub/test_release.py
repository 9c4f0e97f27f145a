"""Letting go, of somebody and of everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.performance import Performance, note_off
from midinet.hub.release import release, release_all, release_to_each

PLAYERS = ("one", "other", "third")

# On few notes, so that they meet.
said = st.lists(
    st.tuples(
        st.sampled_from(PLAYERS),
        st.one_of(
            st.builds(
                lambda status, note: bytes((status, note, 64)),
                st.sampled_from((0x80, 0x90)),
                st.integers(0, 3),
            ),
            st.sampled_from(
                (b"\xb0\x40\x7f", b"\xb0\x40\x00", b"\xe0\x00\x50", b"\xd0\x07", b"\xb0\x7b\x00")
            ),
        ),
    ),
    max_size=12,
)


def performance_of(history: list[tuple[str, bytes]]) -> Performance:
    performance = Performance()
    for at, (origin, frame) in enumerate(history):
        performance.observe(b"".join([frame]), origin, float(at))
        performance.tell_holders()
    return performance


def test_several_who_are_gone_are_let_go_of_at_once() -> None:
    performance = performance_of(
        [("one", b"\x90\x3c\x40"), ("other", b"\x90\x3c\x40"), ("third", b"\x90\x3d\x40")]
    )
    assert release(performance, ["one", "other"]) == ([note_off(60), note_off(60)], {"other": [note_off(60)]})
    assert list(performance.notes) == [61]


def test_who_holds_nothing_costs_nothing() -> None:
    performance = performance_of([("one", b"\x90\x3c\x40")])
    frozen = performance.frozen()
    assert release(performance, ["other"]) == ([], {})
    assert performance.frozen() is frozen


@given(said)
def test_nothing_is_left_of_who_was_let_go(history: list[tuple[str, bytes]]) -> None:
    performance = performance_of(history)
    release(performance, PLAYERS)
    assert performance.notes == {}
    assert release_all(performance) == []


@given(said)
def test_each_hears_what_it_would_hear_alone(history: list[tuple[str, bytes]]) -> None:
    performance = performance_of(history)
    told = dict(release_to_each(performance, ("one", "third", "nobody")))
    for listener, frames in told.items():
        assert sorted(frames) == sorted(release_all(performance.view(listener)))


@pytest.mark.parametrize("listener", ["one", "nobody"])
def test_telling_each_changes_nothing(listener: str) -> None:
    performance = performance_of([("one", b"\x90\x3c\x40"), ("other", b"\xb0\x40\x7f")])
    before = performance.view()
    dict(release_to_each(performance, [listener]))
    assert (performance.view().notes, performance.values) == (before.notes, before.values)
