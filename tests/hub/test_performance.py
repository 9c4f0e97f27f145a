from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.difference import difference
from midinet.hub.performance import (
    BANKS_LSB,
    BANKS_MSB,
    BENDS_LSB,
    BENDS_MSB,
    PRESSURES,
    PROGRAMS,
    UNSET,
    Held,
    Performance,
)
from midinet.hub.release import release, release_all
from tests.harness.histories import (
    Frames,
    Sense,
    control,
    history,
    modes,
    note_off,
    note_on,
    notes,
    settings,
    system_reset,
    transport,
)
from tests.harness.synth import VirtualSynth

KEY = 60
DAMPER = 64


def performance_of(*frames: bytes, at: float = 0.0) -> Performance:
    performance = Performance()
    performance.observe(b"".join(frames), "one", at)
    return performance


# A note is held from its note-on to its note-off, by its origin.


def test_a_note_is_held_from_its_note_on_to_its_note_off() -> None:
    performance = performance_of(note_on(60, velocity=90), note_on(61), b"\x91\x3c\x40", at=3.0)
    assert performance.notes == {
        60: {"one": Held(90, 3.0)},
        61: {"one": Held(100, 3.0)},
        128 + 60: {"one": Held(64, 3.0)},
    }
    performance.observe(b"".join([note_off(60), note_on(61, velocity=0), b"\x81\x3c\x00"]), "one", 4.0)
    assert performance.notes == {}


@given(history(notes(), modes(120, 123, 124)), st.integers(1, 3))
def test_notes_sound_while_any_origin_sounds_them(played: list[Frames], origins: int) -> None:
    performance = Performance()
    for number, frames in enumerate(played):
        performance.observe(b"".join(frames), number % origins, 0.0)
    held = performance.notes
    assert performance.sounding_notes == [
        key for key in performance.held_notes if any(one.sounding for one in held[key].values())
    ]


def test_a_note_off_lets_go_of_what_its_own_origin_holds_and_of_nothing_else() -> None:
    performance = performance_of(note_on(60))
    performance.observe(b"".join([note_off(60), note_off(61)]), "other", 1.0)
    assert performance.notes == {KEY: {"one": Held(100, 0.0)}}


def test_a_note_that_is_struck_twice_sounds_until_one_note_off_and_owes_another() -> None:
    performance = performance_of(note_on(60), note_on(60, velocity=50))
    assert performance.total(KEY) == Held(50, 0.0, sounding=True, outstanding=2)
    performance.observe(b"".join([note_off(60)]), "one", 1.0)
    assert performance.total(KEY) == Held(50, 0.0, sounding=False, outstanding=1)
    performance.observe(b"".join([note_on(60, velocity=70)]), "one", 2.0)
    assert performance.total(KEY) == Held(70, 2.0, sounding=True, outstanding=2)
    performance.observe(b"".join([note_off(60), note_off(60)]), "one", 3.0)
    assert performance.total(KEY) is None


def test_who_never_sends_note_offs_does_not_owe_thousands() -> None:
    performance = performance_of(*[note_on(60)] * 5000)
    assert release(performance, ["one"])[0] == [note_off(60)] * 16


# A note that two hold lives until both let go.


def test_a_note_that_two_hold_sounds_until_both_let_go() -> None:
    performance = performance_of(note_on(60))
    performance.observe(b"".join([note_on(60, velocity=50)]), "other", 1.0)
    assert performance.total(KEY) == Held(50, 1.0, outstanding=2)
    performance.observe(b"".join([note_off(60)]), "other", 2.0)
    assert performance.total(KEY) == Held(100, 0.0, outstanding=1)
    assert performance.observe(b"".join([note_off(60)]), "one", 3.0) == []
    assert performance.notes == {}


def test_the_note_offs_of_who_is_gone_are_owed_until_nobody_holds_the_note() -> None:
    performance = performance_of(note_on(60), note_on(60), note_on(61))
    performance.observe(b"".join([note_on(60)]), "other", 0.0)
    performance.observe(b"".join([note_on(60)]), "third", 0.0)
    assert release(performance, ["one"])[0] == [note_off(61)]
    # The others hear each other.
    assert performance.tell_holders() == {}
    assert performance.observe(b"".join([note_off(60)]), "third", 1.0) == []
    # What other heard is over: it alone still holds the note. It is told once.
    assert performance.tell_holders() == {"other": [note_off(60)] * 2}
    assert performance.tell_holders() == {}
    assert performance.total(KEY, "other") is None
    total = performance.total(KEY)
    assert total is not None
    assert total.outstanding == 3
    # All others hear other's own note-off, and two for those that one struck.
    assert performance.observe(b"".join([note_off(60)]), "other", 2.0) == [note_off(60)] * 2
    assert performance.notes == {}
    assert performance.observe(b"".join([note_on(60), note_off(60)]), "other", 3.0) == []


def test_what_who_is_gone_owes_is_let_go_of_with_the_last_who_holds_the_note() -> None:
    performance = performance_of(note_on(60), note_on(60))
    performance.observe(b"".join([note_on(60)]), "other", 0.0)
    assert release(performance, ["one"]) == ([], {"other": [note_off(60)] * 2})
    assert release(performance, ["other"]) == ([note_off(60)] * 3, {})
    assert performance.notes == {}


def test_who_holds_a_note_no_more_that_it_struck_twice_does_not_keep_it_alive() -> None:
    performance = performance_of(note_on(60))
    performance.observe(b"".join([note_on(60), note_on(60), note_off(60)]), "other", 0.0)
    assert release(performance, ["one"])[0] == [note_off(60)]
    assert release(performance, ["other"])[0] == [note_off(60)]


def test_a_view_leaves_out_what_the_listener_itself_holds_and_set() -> None:
    performance = performance_of(note_on(60), note_on(61), control(0, DAMPER, 127))
    performance.observe(b"".join([note_on(61), control(0, 66, 127)]), "other", 0.0)
    view = performance.view("one")
    assert view.notes == {61: {None: Held(100, 0.0)}}
    # The damper is its own affair.
    assert (view.values[DAMPER], view.values[66]) == (0, 127)
    assert release_all(view) == [note_off(61), control(0, 66, 0)]


def test_copies_do_not_change_and_are_shared_while_nothing_does() -> None:
    performance = performance_of(note_on(60), control(0, 7, 5))
    frozen, copy = performance.frozen(), performance.copy()
    assert performance.frozen() is frozen
    performance.observe(b"".join([note_off(60), control(0, 7, 6)]), "one", 1.0)
    assert performance.frozen() is not frozen
    for other in (frozen, copy):
        assert difference(None, other, struck_since=-inf) == [control(0, 7, 5), note_on(60)]


# Messages that end notes, and that hardware may ignore.


@pytest.mark.parametrize("number", [120, 123, 124, 125, 126, 127])
def test_a_mode_message_ends_the_notes_of_its_channel_and_leaves_their_note_offs_owed(number: int) -> None:
    performance = performance_of(note_on(60), b"\x91\x3c\x40")
    performance.observe(b"".join([note_on(60)]), "other", 0.0)
    performance.observe(b"".join([control(0, number, 0)]), "third", 1.0)
    assert performance.total(KEY) == Held(100, 0.0, sounding=False, outstanding=0, doubtful=2)
    assert performance.total(128 + KEY) == Held(64, 0.0)
    assert difference(None, performance, struck_since=-inf)[-1:] == [b"\x91\x3c\x40"]
    # A note-off is one for the note that was struck after it first.
    performance.observe(b"".join([note_on(60), note_off(60)]), "one", 2.0)
    assert performance.total(KEY) == Held(100, 2.0, sounding=False, outstanding=0, doubtful=2)
    performance.observe(b"".join([note_off(60)]), "one", 3.0)
    assert release(performance, ["one"])[0] == [b"\x81\x3c\x40"]
    assert release(performance, ["other"])[0] == [note_off(60)]


def test_a_mode_message_ends_what_was_owed_too() -> None:
    performance = performance_of(note_on(60), note_on(60))
    performance.observe(b"".join([note_on(60)]), "other", 0.0)
    assert release(performance, ["one"])[0] == []
    assert performance.observe(b"".join([control(0, 123, 0)]), "other", 1.0) == [note_off(60)] * 2
    assert release(performance, ["other"])[0] == [note_off(60)]


def test_system_reset_puts_everything_back() -> None:
    performance = performance_of(
        note_on(60), control(0, 7, 5), control(0, 101, 0), control(0, 100, 0), control(0, 6, 2), b"\xc0\x05"
    )
    performance.observe(b"".join([b"\xf2\x05\x00", b"\xfb", b"\xff"]), "one", 1.0)
    assert performance.is_blank
    assert difference(None, performance, struck_since=-inf) == []
    assert performance.resets == 1


# What is set.


def test_reset_all_controllers_resets_what_it_shall_and_nothing_else() -> None:
    stays = [control(0, number, 9) for number in (0, 32, 7, 39, 10, 42, 70, 79, 91, 95, 122)]
    goes = [control(0, number, 9) for number in (1, 11, 64, 65, 66, 67, 69, 99, 98, 101, 100)]
    unknown = [control(0, number, 9) for number in (2, 34, 4, 8, 68, 80, 85, 110, 119)]
    expressive = [b"\xe0\x01\x02", b"\xd0\x09", b"\xa0\x3c\x09"]
    elsewhere = [frame[:0] + bytes((frame[0] | 1, *frame[1:])) for frame in (*goes, *unknown, *expressive)]
    performance = performance_of(*stays, b"\xc0\x05", *goes, *unknown, *expressive, *elsewhere)
    performance.observe(b"".join([control(0, 6, 5), control(0, 121, 0)]), "one", 1.0)
    values = performance.values
    assert [values[frame[1]] for frame in stays] == [9] * len(stays)
    assert values[PROGRAMS] == 5
    assert [values[frame[1]] for frame in goes] == [0, 127, 0, 0, 0, 0, 0, 127, 127, 127, 127]
    assert [values[frame[1]] for frame in unknown] == [UNSET] * len(unknown)
    assert (values[BENDS_LSB], values[BENDS_MSB], values[PRESSURES], values[2048 + 60]) == (0, 64, 0, 0)
    assert performance.parameters == {(0, 101, 9, 9): (5, UNSET)}
    assert all(frame in difference(None, performance) for frame in elsewhere)


def test_the_first_byte_of_a_controller_clears_the_second() -> None:
    performance = performance_of(control(0, 7, 5), control(0, 39, 6), control(0, 7, 5))
    assert (performance.values[7], performance.values[39]) == (5, UNSET)


def test_a_bank_waits_for_the_program() -> None:
    performance = performance_of(control(0, 0, 1), control(0, 32, 2), b"\xc0\x05", control(0, 0, 3))
    values = performance.values
    assert (values[PROGRAMS], values[BANKS_MSB], values[BANKS_LSB]) == (5, 1, 2)
    assert (values[0], values[32]) == (3, UNSET)


RPN_0_0 = (control(0, 101, 0), control(0, 100, 0))
RPN_0_2 = (control(0, 101, 0), control(0, 100, 2))
NRPN_1_2 = (control(0, 99, 1), control(0, 98, 2))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((control(0, 6, 5),), {}),
        ((control(0, 101, 0), control(0, 6, 5)), {}),
        ((*RPN_0_0, control(0, 6, 5)), {(0, 101, 0, 0): (5, UNSET)}),
        ((*RPN_0_0, control(0, 6, 5), control(0, 38, 6)), {(0, 101, 0, 0): (5, 6)}),
        ((*RPN_0_0, control(0, 38, 6), control(0, 6, 5)), {(0, 101, 0, 0): (5, UNSET)}),
        (
            (*RPN_0_0, *NRPN_1_2, control(0, 6, 5), control(0, 100, 0), control(0, 6, 7)),
            {(0, 99, 1, 2): (5, UNSET), (0, 101, 0, 0): (7, UNSET)},
        ),
        ((*RPN_0_0, control(0, 101, 127), control(0, 100, 127), control(0, 6, 5)), {}),
        # A step from what nobody knows leads to what nobody knows.
        ((*RPN_0_0, control(0, 96, 0)), {}),
        # The bend range steps in cents, coarse tuning in semitones, everything else in its smallest step.
        ((*RPN_0_0, control(0, 6, 2), control(0, 97, 0)), {(0, 101, 0, 0): (1, 99)}),
        ((*RPN_0_2, control(0, 6, 64), control(0, 96, 0)), {(0, 101, 0, 2): (65, UNSET)}),
        ((*RPN_0_2, control(0, 6, 127), control(0, 96, 0)), {(0, 101, 0, 2): (127, UNSET)}),
        ((*NRPN_1_2, control(0, 6, 5), control(0, 38, 127), control(0, 96, 0)), {(0, 99, 1, 2): (6, 0)}),
        ((*NRPN_1_2, control(0, 6, 0), control(0, 97, 0)), {(0, 99, 1, 2): (0, 0)}),
    ],
)
def test_parameters(frames: Frames, expected: object) -> None:
    assert performance_of(*frames).parameters == expected


@pytest.mark.parametrize(
    ("frames", "running", "clock"),
    [
        ([b"\xf8"] * 3, False, 0),
        ([b"\xfa", b"\xf8", b"\xf8"], True, 2),
        ([b"\xfa", b"\xf8", b"\xfc", b"\xf8"], False, 1),
        ([b"\xfa", b"\xf8", b"\xfc", b"\xfb", b"\xf8"], True, 2),
        ([b"\xfa", b"\xf8", b"\xfc", b"\xfa"], True, 0),
        # Page 32: ignored, for it plays.
        ([b"\xfa", b"\xf8", b"\xfa"], True, 1),
        ([b"\xf2\x01\x02"], False, 6 * 257),
        ([b"\xf2\x7f\x7f", b"\xfb", *[b"\xf8"] * 6], True, 0),
    ],
)
def test_the_transport(frames: Frames, running: bool, clock: int) -> None:
    performance = performance_of(*frames)
    assert (performance.running, performance.clock) == (running, clock)


@pytest.mark.parametrize(
    ("pressed", "neutral"),
    [(control(0, number, 127), control(0, number, 0)) for number in (64, 66, 67, 69)]
    + [(b"\xe0\x00\x50", b"\xe0\x00\x40"), (b"\xd0\x40", b"\xd0\x00"), (b"\xa0\x3c\x40", b"\xa0\x3c\x00")],
)
def test_what_bends_a_sound_goes_back_with_who_set_it_last(pressed: bytes, neutral: bytes) -> None:
    performance = performance_of(pressed)
    assert release(performance, ["other"])[0] == []
    performance.observe(b"".join([pressed]), "other", 1.0)
    # All others heard what other set after it; other itself did not.
    assert release(performance, ["one"]) == ([], {"other": [neutral]})
    assert release(performance, ["other"])[0] == [neutral]
    performance.observe(b"".join([pressed]), "one", 2.0)
    performance.observe(b"".join([neutral]), "other", 3.0)
    assert release(performance, ["one"]) == ([], {"other": [neutral]})
    performance.observe(b"".join([pressed]), "one", 4.0)
    performance.observe(b"".join([pressed]), "other", 5.0)
    performance.observe(b"".join([neutral]), "one", 6.0)
    performance.observe(b"".join([neutral]), "other", 7.0)
    assert release(performance, ["one"]) == ([], {})
    assert release(performance, ["other"]) == ([], {})


def test_everything_else_stays_with_who_comes_after() -> None:
    performance = performance_of(
        control(0, 7, 5), control(0, 1, 5), control(0, 65, 127), b"\xc0\x05", b"\xfa"
    )
    assert release(performance, ["one"])[0] == []


def test_what_no_performance_holds_passes_it_by() -> None:
    performance = performance_of(b"\xf0\x01\xf7", b"\xf1\x01", b"\xf3\x01", b"\xf6", b"\xfe", b"\xb0\x54\x3c")
    assert performance.is_blank
    assert difference(None, performance) == []


# Against instruments.

ORIGINS = ("one", "other", "third", None)

RECEIVERS: dict[str, Callable[[], VirtualSynth]] = {
    "plain": VirtualSynth,
    "ignoring modes": lambda: VirtualSynth(ignores_mode_messages=True),
    "in Omni": lambda: VirtualSynth(omni=True),
    "leaving second bytes": lambda: VirtualSynth(msb_clears_lsb=False),
    "resetting what is listed": lambda: VirtualSynth(resets_unlisted=False),
}

anything = history(
    notes(),
    notes(),
    settings(),
    modes(120, 121, 123, 124, 125, 126, 127),
    transport(),
    system_reset(),
)


@given(
    st.lists(st.tuples(st.sampled_from(ORIGINS), anything.filter(bool), st.booleans()), max_size=12),
    st.permutations(ORIGINS),
)
def test_when_all_have_gone_every_instrument_that_heard_them_is_silent(
    turns: list[tuple[str | None, list[Frames], bool]], order: list[str | None]
) -> None:
    performance = Performance()
    listeners = [make() for make in RECEIVERS.values()]

    def say(frames: Frames) -> None:
        for listener in listeners:
            listener.feed(b"".join(frames))

    sense = Sense()
    for origin, items, leaves in turns:
        frames = sense.of(items)
        say(frames)
        say(performance.observe(b"".join(frames), origin, 0.0))
        if leaves:
            say(release(performance, [origin])[0])
    for origin in order:
        say(release(performance, [origin])[0])
    assert [listener.describe() for listener in listeners] == ["silent"] * len(listeners)
    assert performance.notes == {}


@given(anything)
def test_what_sounds_for_an_instrument_is_what_is_held(items: list[Frames]) -> None:
    # One whose modes stay as they are: while Omni is on, it would not hear All Notes Off.
    frames = [frame for frame in Sense().of(items) if frame[1:2] != b"\x7d" or frame[0] & 0xF0 != 0xB0]
    performance = performance_of(*frames)
    listener = VirtualSynth()
    listener.feed(b"".join(frames))
    totals = {key: performance.total(key) for key in performance.notes}
    assert {
        (key >> 7, key & 127) for key, total in totals.items() if total is not None and total.sounding
    } == (listener.sounding)
    assert {
        (key >> 7, key & 127): total.outstanding
        for key, total in totals.items()
        if total and total.outstanding
    } == listener.voices


@pytest.mark.parametrize("number", [84, 88])
def test_a_controller_that_belongs_to_the_next_note_alone_is_no_state(number: int) -> None:
    performance = Performance()
    performance.observe(bytes((0xB0, number, 33, 0x90, 60, 64, 0x80, 60, 0)), "somebody", 0.0)
    assert performance.is_blank
    assert difference(None, performance, struck_since=-inf) == []
