from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.hub import Hub
from midinet.hub.outbox import Outbox


class Scene:
    """A hub with numbered members that write down what they hear; turns end when asked to."""

    def __init__(self) -> None:
        self.flushes_asked = 0
        self.hub = Hub(self.flush_soon, lambda: 0.0)
        self.heard: dict[int, list[bytes]] = {}
        self.outboxes: dict[int, Outbox] = {}

    def flush_soon(self) -> None:
        self.flushes_asked += 1

    def join(self, number: int) -> Outbox:
        heard = self.heard.setdefault(number, [])
        outbox = Outbox(heard.append, lambda: None)
        self.outboxes[number] = outbox
        self.hub.join(outbox)
        return outbox

    def leave(self, number: int) -> None:
        self.hub.leave(self.outboxes.pop(number))


def frame(number: int) -> bytes:
    return bytes((0x90, number & 0x7F, number >> 7 & 0x7F))


def test_everyone_hears_and_nobody_before_the_flush() -> None:
    scene = Scene()
    for number in range(3):
        scene.join(number)
    scene.hub.publish([frame(1)])
    scene.hub.publish([frame(2), frame(3)])
    assert scene.heard == {0: [], 1: [], 2: []}
    scene.hub.flush()
    assert scene.heard == {number: [frame(1) + frame(2) + frame(3)] for number in range(3)}


def test_a_flush_is_asked_for_once_a_turn() -> None:
    scene = Scene()
    scene.join(0)
    for _ in range(2):
        scene.hub.publish([frame(1)])
        scene.hub.publish([frame(2)])
        scene.hub.flush()
        scene.hub.flush()
    assert scene.flushes_asked == 2
    assert scene.heard[0] == [frame(1) + frame(2)] * 2


def test_members_who_are_owed_the_same_share_one_piece() -> None:
    scene = Scene()
    for number in range(3):
        scene.join(number)
    scene.hub.publish([frame(1), frame(2)])
    scene.hub.flush()
    assert scene.heard[0][0] is scene.heard[1][0] is scene.heard[2][0]


def test_nobody_hears_itself_and_one_can_be_told_alone() -> None:
    scene = Scene()
    a, b = scene.join(0), scene.join(1)
    scene.join(2)
    scene.hub.publish([frame(1)], origin=a)
    scene.hub.publish([frame(2)], only=a)
    scene.hub.publish([frame(3)], origin=b)
    scene.hub.flush()
    assert scene.heard == {0: [frame(2) + frame(3)], 1: [frame(1)], 2: [frame(1) + frame(3)]}


def test_who_joins_in_the_middle_of_a_turn_hears_only_what_follows() -> None:
    scene = Scene()
    scene.join(0)
    scene.hub.publish([frame(1)])
    scene.join(1)
    scene.hub.publish([frame(2)])
    scene.hub.flush()
    assert scene.heard == {0: [frame(1), frame(2)], 1: [frame(2)]}


def test_a_long_turn_is_flushed_before_it_ends() -> None:
    scene = Scene()
    scene.join(0)
    scene.hub.publish([bytes(65536)])
    assert len(scene.heard[0]) == 1


def test_a_member_that_is_told_alone_after_it_left_hears_nothing() -> None:
    scene = Scene()
    outbox = scene.join(0)
    scene.leave(0)
    scene.hub.publish([frame(1)], only=outbox)
    scene.hub.flush()
    assert scene.heard == {0: []}


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
            scene.hub.publish([frame(count)])
            say(frame(count), lambda member: True)
        elif step == "from" and present:
            scene.hub.publish([frame(count)], origin=scene.outboxes[number])
            say(frame(count), lambda member, number=number: member != number)
        elif step == "to" and present:
            scene.hub.publish([frame(count)], only=scene.outboxes[number])
            say(frame(count), lambda member, number=number: member == number)
        elif step == "flush":
            scene.hub.flush()
    scene.hub.flush()
    assert {number: b"".join(heard) for number, heard in scene.heard.items()} == expected
