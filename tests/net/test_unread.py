"""Who has not read for a while ends where everybody is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.outbox import DEFAULT_MAX_OUTBOX
from midinet.hub.performance import Performance
from midinet.net.unread import Unread
from tests.harness.histories import (
    Frames,
    Sense,
    control,
    history,
    note_off,
    note_on,
    notes,
    settings,
)
from tests.harness.synth import VirtualSynth

SOURCES = ("a", "b", "c")
# Seconds: when the program stopped to read, and when it reads again.
STOPPED, AGAIN = 1.0, 100.0

plain_controls = st.builds(
    control, st.sampled_from((0, 9)), st.sampled_from((7, 64, 67)), st.integers(0, 127)
)
# Without the transport: a position between two beats, at which it stands, cannot be sent.
music = history(notes(), settings())
# A parameter that one selects and another one sets is nobody's.
apart = history(notes(), plain_controls.map(lambda frame: [frame]))


def sent_by(frames: Frames) -> list[tuple[str, bytes]]:
    """Share frames out. A note is played by one source, since nobody lets go of another one's."""
    numbers = [frame[1] if frame[0] < 0xA0 else number for number, frame in enumerate(frames)]
    return [(SOURCES[number % 3], frame) for number, frame in zip(numbers, frames, strict=True)]


def check(read: Frames, unread_frames: Frames, *, by_source: bool) -> None:
    """Have a program read some frames and miss others, and compare it with one that read all of them."""
    state, reader, reference = Performance(), VirtualSynth(), VirtualSynth()
    for source, frame in sent_by(read):
        state.observe(frame, source, 0.0)
        reader.feed(frame)
        reference.feed(frame)
    unread = Unread(state.copy(), by_source=by_source)
    for source, frame in sent_by(unread_frames):
        state.observe(frame, source, STOPPED)
        assert unread.put(source, frame, 1, STOPPED) == 1
        reference.feed(frame)
    for source, frame in unread.catch_up(state, AGAIN):
        assert by_source is (source is not None)
        reader.feed(frame)
    assert reader.difference(reference) == []
    assert reader.sounding <= reference.sounding


@given(music, music)
def test_who_reads_again_is_where_everybody_is(read: list[Frames], unread: list[Frames]) -> None:
    sense = Sense()
    check(sense.of(read), sense.of(unread), by_source=False)


@given(apart, apart)
def test_and_so_is_who_is_told_where_messages_come_from(read: list[Frames], unread: list[Frames]) -> None:
    sense = Sense()
    check(sense.of(read), sense.of(unread), by_source=True)


def test_each_source_lets_go_of_its_own_notes() -> None:
    state = Performance()
    state.observe(note_on(60), "a", 0.0)
    state.observe(note_on(61), "b", 0.0)
    unread = Unread(state.copy(), by_source=True)
    for source, note in (("b", 61), ("a", 60)):
        state.observe(note_off(note), source, STOPPED)
        unread.put(source, note_off(note), 1, STOPPED)
    assert unread.catch_up(state, AGAIN) == [("b", note_off(61)), ("a", note_off(60))]


def test_of_several_that_set_the_same_the_last_one_counts() -> None:
    state = Performance()
    unread = Unread(state.copy(), by_source=True)
    for source, number, value in (("a", 7, 1), ("b", 7, 2), ("a", 8, 3)):
        state.observe(control(0, number, value), source, STOPPED)
        unread.put(source, control(0, number, value), 1, STOPPED)
    reader = Performance()
    for _, frame in unread.catch_up(state, AGAIN):
        reader.observe(frame, None, AGAIN)
    assert reader.values == state.values


def test_what_no_state_holds_is_kept_in_order_up_to_a_bound() -> None:
    state, unread = Performance(), Unread(Performance(), by_source=False)
    large = b"\xf0\x7d" + bytes(DEFAULT_MAX_OUTBOX // 2) + b"\xf7"
    assert unread.put("a", b"\xf6" + control(0, 7, 1) + b"\xf3\x01", 3, STOPPED) == 1
    assert [unread.put("a", large, 1, STOPPED) for _ in range(3)] == [0, 1, 1]
    assert [frame for _, frame in unread.catch_up(state, AGAIN)] == [b"\xf6", b"\xf3\x01", large]
