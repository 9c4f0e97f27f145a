from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.hub import Hub
from midinet.hub.outbox import Outbox
from midinet.wire.parser import Parser


class Scene:
    """A hub with numbered members that write down what they hear; turns end when asked to."""

    def __init__(self, *, release_notes: bool = True) -> None:
        self.flushes_asked = 0
        self.now = 0.0
        self.hub = Hub(self.flush_soon, lambda: self.now, release_notes=release_notes)
        self.heard: dict[int, list[bytes]] = {}
        self.outboxes: dict[int, Outbox] = {}

    def flush_soon(self) -> None:
        self.flushes_asked += 1

    def join(self, number: int, **options: Any) -> Outbox:
        heard = self.heard.setdefault(number, [])
        outbox = Outbox(heard.append, lambda: None)
        self.outboxes[number] = outbox
        self.hub.join(outbox, **options)
        return outbox

    def leave(self, number: int, *, hears: bool = False) -> None:
        self.hub.leave(self.outboxes.pop(number), hears=hears)

    def publish(self, frames: list[bytes], **whom: Outbox) -> None:
        self.hub.publish(b"".join(frames), len(frames), **whom)

    def since(self) -> dict[int, bytes]:
        """What each has heard since this was asked before."""
        self.hub.flush()
        news = {number: b"".join(heard) for number, heard in self.heard.items()}
        for heard in self.heard.values():
            heard.clear()
        return news


def frame(number: int) -> bytes:
    """A song position: nothing that has to be let go of when its sender leaves."""
    return bytes((0xF2, number & 0x7F, number >> 7 & 0x7F))


def note_on(number: int) -> bytes:
    return bytes((0x90, number, 100))


def note_off(number: int) -> bytes:
    return bytes((0x80, number, 64))


def test_everyone_hears_and_nobody_before_the_flush() -> None:
    scene = Scene()
    for number in range(3):
        scene.join(number)
    scene.publish([frame(1)])
    scene.publish([frame(2), frame(3)])
    assert scene.heard == {0: [], 1: [], 2: []}
    scene.hub.flush()
    assert scene.heard == {number: [frame(1) + frame(2) + frame(3)] for number in range(3)}


def test_a_flush_is_asked_for_once_a_turn() -> None:
    scene = Scene()
    scene.join(0)
    for _ in range(2):
        scene.publish([frame(1)])
        scene.publish([frame(2)])
        scene.hub.flush()
        scene.hub.flush()
    assert scene.flushes_asked == 2
    assert scene.heard[0] == [frame(1) + frame(2)] * 2


def test_members_who_are_owed_the_same_share_one_piece() -> None:
    scene = Scene()
    for number in range(3):
        scene.join(number)
    scene.publish([frame(1), frame(2)])
    scene.hub.flush()
    assert scene.heard[0][0] is scene.heard[1][0] is scene.heard[2][0]


def test_nobody_hears_itself_and_one_can_be_told_alone() -> None:
    scene = Scene()
    a, b = scene.join(0), scene.join(1)
    scene.join(2)
    scene.publish([frame(1)], origin=a)
    scene.publish([frame(2)], only=a)
    scene.publish([frame(3)], origin=b)
    scene.hub.flush()
    assert scene.heard == {0: [frame(2) + frame(3)], 1: [frame(1)], 2: [frame(1) + frame(3)]}


def test_who_joins_in_the_middle_of_a_turn_hears_only_what_follows() -> None:
    scene = Scene()
    scene.join(0)
    scene.publish([frame(1)])
    scene.join(1)
    scene.publish([frame(2)])
    scene.hub.flush()
    assert scene.heard == {0: [frame(1), frame(2)], 1: [frame(2)]}


def test_a_long_turn_is_flushed_before_it_ends() -> None:
    scene = Scene()
    scene.join(0)
    scene.publish([bytes(65536)])
    assert len(scene.heard[0]) == 1


def test_a_member_that_is_told_alone_after_it_left_hears_nothing() -> None:
    scene = Scene()
    outbox = scene.join(0)
    scene.leave(0)
    scene.publish([frame(1)], only=outbox)
    scene.hub.flush()
    assert scene.heard == {0: []}


def test_who_leaves_lets_go_of_what_only_it_held_towards_all_others() -> None:
    scene = Scene()
    a, b = scene.join(0), scene.join(1)
    scene.join(2)
    scene.publish([note_on(1), note_on(2), b"\xb0\x40\x7f", b"\xe0\x00\x50"], origin=a)
    scene.publish([note_on(2)], origin=b)
    scene.since()
    scene.leave(0)
    # b heard a's note 2 alone, and still holds its own.
    released = note_off(1) + b"\xb0\x40\x00\xe0\x00\x40"
    heard = scene.since()
    assert heard == {0: b"", 1: heard[1], 2: released}
    assert sorted(_messages(heard[1])) == sorted([*_messages(released), note_off(2)])
    scene.leave(1)
    assert scene.since() == {0: b"", 1: b"", 2: note_off(2) * 2}


def test_who_is_let_go_itself_hears_what_lets_go_of_all_that_it_was_told() -> None:
    scene = Scene()
    a = scene.join(0)
    scene.join(1)
    scene.publish([note_on(1)], origin=a)
    scene.publish([note_on(2)])
    scene.publish([note_on(3)], only=a)
    scene.since()
    scene.leave(0, hears=True)
    heard = scene.since()
    assert sorted(_messages(heard[0])) == [note_off(2), note_off(3)]
    assert heard[1] == note_off(1)


def test_nothing_is_let_go_of_where_that_is_not_wanted() -> None:
    scene = Scene(release_notes=False)
    a = scene.join(0)
    scene.join(1)
    scene.publish([note_on(1)], origin=a)
    scene.publish([note_on(2)])
    scene.since()
    scene.leave(0, hears=True)
    assert scene.since() == {0: b"", 1: b""}


@pytest.mark.parametrize(("struck_since", "notes"), [(inf, b""), (-inf, note_on(1))])
def test_who_joins_late_can_be_brought_to_the_present_first(struck_since: float, notes: bytes) -> None:
    scene = Scene()
    scene.publish([b"\xb0\x07\x10", b"\xc0\x05", note_on(1), note_on(2), note_off(2)])
    scene.join(0)
    scene.join(1, snapshot=True, struck_since=struck_since)
    scene.publish([note_on(3)])
    assert scene.since() == {0: note_on(3), 1: b"\xc0\x05\xb0\x07\x10" + notes + note_on(3)}


def _messages(data: bytes) -> list[bytes]:
    return [data[start : start + 3] for start in range(0, len(data), 3)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 4)),
        st.tuples(st.just("leave"), st.integers(0, 4)),
        st.tuples(st.just("all"), st.integers(0, 4)),
        st.tuples(st.just("from"), st.integers(0, 4)),
        st.tuples(st.just("to"), st.integers(0, 4)),
        st.tuples(st.just("flush"), st.just(0)),
    )
)


@given(steps)
def test_each_member_hears_what_is_for_it_in_order(history: list[tuple[str, int]]) -> None:
    scene = Scene()
    expected: dict[int, bytes] = {}

    def say(data: bytes, hears: Callable[[int], bool]) -> None:
        for member in scene.outboxes:
            if hears(member):
                expected[member] += data

    for count, (step, number) in enumerate(history):
        present = number in scene.outboxes
        if step == "join" and not present:
            scene.join(number)
            expected.setdefault(number, b"")
        elif step == "leave" and present:
            scene.leave(number)
        elif step == "all":
            scene.publish([frame(count)])
            say(frame(count), lambda member: True)
        elif step == "from" and present:
            scene.publish([frame(count)], origin=scene.outboxes[number])
            say(frame(count), lambda member, number=number: member != number)
        elif step == "to" and present:
            scene.publish([frame(count)], only=scene.outboxes[number])
            say(frame(count), lambda member, number=number: member == number)
        elif step == "flush":
            scene.hub.flush()
    scene.hub.flush()
    assert {number: b"".join(heard) for number, heard in scene.heard.items()} == expected


def test_what_many_who_leave_in_one_turn_held_is_one_piece() -> None:
    scene = Scene()
    for number in range(4):
        scene.join(number)
    for number in range(3):
        scene.publish([note_on(number)], origin=scene.outboxes[number])
    scene.since()
    for number in range(3):
        scene.leave(number)
    assert scene.heard[3] == []
    scene.hub.flush()
    assert [sorted(_messages(piece)) for piece in scene.heard[3]] == [[note_off(0), note_off(1), note_off(2)]]


def test_what_is_struck_after_somebody_left_is_not_stopped_by_that() -> None:
    scene = Scene()
    scene.join(0)
    scene.join(1)
    scene.publish([note_on(1)], origin=scene.outboxes[0])
    scene.since()
    scene.leave(0)
    scene.publish([note_on(1)])
    assert scene.since()[1] == note_off(1) + note_on(1)


@pytest.mark.parametrize("told_alone", [False, True])
def test_all_that_are_dismissed_hear_what_each_would_hear_alone(told_alone: bool) -> None:
    heard = []
    for together in (True, False):
        scene = Scene()
        for number in range(4):
            scene.join(number)
        scene.publish([note_on(1), note_on(2), b"\xb0\x40\x7f"], origin=scene.outboxes[0])
        scene.publish([note_on(2), b"\xd0\x40", b"\xe1\x00\x50"], origin=scene.outboxes[1])
        scene.publish([note_on(3)], origin=scene.outboxes[2])
        if told_alone:
            scene.publish([note_on(4)], only=scene.outboxes[3])
        scene.since()
        if together:
            scene.hub.dismiss_all()
            heard.append(scene.since())
            continue
        news = {}
        for number in range(4):
            # Each for itself, before the others are let go of.
            outbox = scene.outboxes[number]
            scene.hub._dismiss(outbox, scene.hub._performance_of(outbox))
            news[number] = scene.heard[number][-1]
        heard.append(news)
    first, second = [
        {number: sorted(Parser().frames(data)) for number, data in news.items()} for news in heard
    ]
    assert first == second
    assert note_off(3) not in first[2]
    assert note_off(3) in first[0]


def test_who_is_dismissed_where_nothing_is_let_go_of_hears_nothing() -> None:
    scene = Scene(release_notes=False)
    scene.join(0)
    scene.publish([note_on(1)])
    scene.since()
    scene.hub.dismiss_all()
    scene.publish([note_on(2)])
    assert scene.since() == {0: b""}


def test_who_stalls_while_it_is_offered_something_has_been_told_that() -> None:
    scene = Scene()
    scene.join(1)
    outbox = scene.join(2)
    after: list[bytes] = []

    def take_and_stall(data: bytes) -> None:
        after.append(data)
        outbox.stall()

    outbox._write = take_and_stall
    scene.publish([note_on(1)], origin=scene.outboxes[1])
    scene.since()
    # More than may wait: what it gets later is the difference from what it had, which is the note.
    scene.publish([b"\xb0\x07\x01"] * 200_000)
    scene.publish([note_off(1)], origin=scene.outboxes[1])
    scene.since()
    outbox._write = after.append
    while outbox.drain(0.0):
        pass
    assert after == [note_on(1), note_off(1) + b"\xb0\x07\x01"]


def test_what_a_member_says_after_a_silence_goes_out_at_once_and_what_follows_with_the_turn() -> None:
    scene = Scene()
    a = scene.join(0)
    scene.join(1)
    scene.now = 1.0
    scene.publish([frame(1)], origin=a)
    assert (scene.heard[1], scene.flushes_asked) == ([frame(1)], 0)
    scene.now = 1.0001
    scene.publish([frame(2)], origin=a)
    scene.publish([frame(3)], origin=a)
    assert (scene.heard[1], scene.flushes_asked) == ([frame(1)], 1)
    scene.hub.flush()
    assert scene.heard[1] == [frame(1), frame(2) + frame(3)]


def test_what_the_owner_says_waits_for_the_end_of_the_turn_even_after_a_silence() -> None:
    scene = Scene()
    a = scene.join(0)
    scene.now = 1.0
    scene.publish([frame(1)])
    scene.publish([frame(2)])
    # Behind that, in order, what a member says.
    scene.publish([frame(3)], origin=scene.join(1))
    assert scene.heard[0] == [frame(1) + frame(2)]
    scene.hub.flush()
    assert b"".join(scene.heard[0]) == frame(1) + frame(2) + frame(3)
    assert a.stats.messages == 3
