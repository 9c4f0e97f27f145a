from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.hub import Hub
from midinet.hub.outbox import Outbox
from midinet.hub.performance import Performance, channel_of, touched_by
from midinet.hub.release import release

MEMBERS = 3

data_bytes = st.sampled_from((0, 1, 64, 127))
# Of each kind a few, so that they meet: notes, controllers of every effect, and what depends on others.
controllers = st.sampled_from(
    (0, 1, 6, 7, 32, 33, 38, 64, 84, 88, 96, 98, 99, 100, 101, 120, 121, 123, 126, 127)
)
frames = st.one_of(
    st.builds(
        lambda *values: bytes(values), st.sampled_from((0x80, 0x90, 0x91, 0xA0, 0xE0)), data_bytes, data_bytes
    ),
    st.builds(lambda *values: bytes(values), st.sampled_from((0xB0, 0xB1)), controllers, data_bytes),
    st.builds(lambda *values: bytes(values), st.sampled_from((0xC0, 0xC1, 0xD0)), data_bytes),
    st.sampled_from(
        (b"\xf8", b"\xfa", b"\xfb", b"\xfc", b"\xff", b"\xf2\x01\x00", b"\xf3\x01", b"\xf0\x01\xf7")
    ),
)
members = st.integers(0, MEMBERS - 1)
steps = st.tuples(frames, st.none() | members, st.none() | members)


class Scene:
    """A hub, and beside it for each member a whole state of all that it was told."""

    def __init__(self, count: int = MEMBERS) -> None:
        self.now = 0.0
        self.hub = Hub(lambda: None, lambda: self.now)
        self.outboxes = [Outbox(lambda data: None, lambda: None) for _ in range(count)]
        self.models = {outbox: Performance() for outbox in self.outboxes}
        for outbox in self.outboxes:
            self.hub.join(outbox)

    def publish(self, frame: bytes, origin: int | None = None, only: int | None = None) -> None:
        self.now += 1.0
        speaker, listener = [None if one is None else self.outboxes[one] for one in (origin, only)]
        self.hub.publish(frame, 1, origin=speaker, only=listener)
        self.hub.flush()
        for outbox in self.models if listener is None else [listener]:
            self.models[outbox].observe(frame, speaker, self.now)
            self.models[outbox].tell_holders()

    def leave(self, number: int) -> None:
        self.hub.leave(self.outboxes[number])
        self.hub.flush()
        del self.models[self.outboxes[number]]
        for model in self.models.values():
            release(model, [self.outboxes[number]])

    def differences(self) -> Iterator[object]:
        for outbox, model in self.models.items():
            yield self.hub._performance_of(outbox).otherwise(model)


@given(st.lists(steps, max_size=40), members)
def test_each_member_has_what_it_was_told_whatever_was_told_to_it_alone(
    history: list[tuple[bytes, int | None, int | None]], last: int
) -> None:
    scene = Scene()
    for frame, origin, only in history:
        scene.publish(frame, origin, only)
        assert not any(scene.differences())
    scene.leave(last)
    assert not any(scene.differences())


@given(st.lists(frames, max_size=20), frames)
def test_what_a_message_changes_is_touched(before: list[bytes], frame: bytes) -> None:
    performance = Performance()
    for earlier in before:
        performance.observe(earlier, "somebody", 0.0)
    was = performance.copy()
    performance.observe(frame, "other", 1.0)
    places, channels = touched_by(frame)
    for place in performance.otherwise(was):
        assert place in places or channel_of(place) in channels


@given(st.lists(frames, max_size=20), st.lists(frames, max_size=20))
def test_what_is_otherwise_makes_one_state_of_the_other(one: list[bytes], other: list[bytes]) -> None:
    states = []
    for history in (one, other):
        state = Performance()
        for frame in history:
            state.observe(frame, "somebody", 0.0)
        states.append(state)
    states[1].put(states[0].otherwise(states[1]))
    assert states[0].otherwise(states[1]) == {}


@pytest.mark.parametrize(
    ("alone", "to_all"),
    [
        (b"\xb0\x07\x64", b"\xb0\x07\x64"),
        (b"\xb0\x07\x64", b"\xb0\x07\x00"),
        (b"\xb0\x40\x7f", b"\xb0\x40\x00"),
        (b"\x90\x3c\x40", b"\x80\x3c\x40"),
        (b"\xe0\x00\x10", b"\xe0\x00\x40"),
        (b"\xc0\x05", b"\xc0\x06"),
    ],
)
def test_states_that_have_diverged_converge(alone: bytes, to_all: bytes) -> None:
    scene = Scene()
    for number in range(MEMBERS - 1):
        scene.publish(alone, only=number)
    assert len(scene.hub._diverged) == MEMBERS - 1
    scene.publish(to_all)
    assert len(scene.hub._diverged) == 0


def test_a_member_that_was_told_something_and_its_end_alone_shares_the_state_again() -> None:
    scene = Scene()
    scene.publish(b"\x90\x3c\x40", only=0)
    scene.publish(b"\x80\x3c\x40", only=0)
    assert len(scene.hub._diverged) == 0


def test_what_touches_nothing_that_differs_is_observed_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(50)
    for number in range(50):
        scene.publish(b"\xb0\x07" + bytes([number + 1]), only=number)
    observed = []
    observe = Performance.observe

    def count(self: Performance, *arguments: object) -> list[bytes]:
        observed.append(self)
        return observe(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Performance, "observe", count)
    scene.hub.publish(b"\x90\x3c\x40\xb0\x08\x01\xe0\x00\x10", 3)
    scene.hub.flush()
    assert observed == [scene.hub.performance]
