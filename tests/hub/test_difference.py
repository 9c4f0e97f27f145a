"""Judged by instruments: what was brought up to date has to sound and be set like what heard everything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midinet.hub.difference import difference
from midinet.hub.performance import Performance
from midinet.hub.release import release, release_all
from tests.harness.histories import (
    ALL_NOTES_OFF,
    OMNI_ON,
    RESET_ALL_CONTROLLERS,
    UNLISTED,
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

State = dict[tuple[Any, ...], Any]

MONO = control(0, 126, 1)


class Player:
    """Says frames, one a second."""

    def __init__(self, *frames: bytes) -> None:
        self.performance = Performance()
        self.now = 0.0
        self.play(frames)

    def play(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self.now += 1
            assert self.performance.observe(b"".join([frame]), "player", self.now) == []


def state_of(synth: VirtualSynth) -> State:
    """What a performance holds of an instrument's state."""
    state = synth.state()
    # Kept by outboxes, in order, with the system exclusive messages.
    state.pop(("song",), None)
    for channel in range(16):
        # It is for the next note alone, and late, it would be for another one.
        for number in (84, 88):
            state.pop(("controller", channel, number), None)
    if not synth.running:
        # While it stands, a song can be put on a beat only.
        state["song position",] = synth.song_position // 6
    return state


def heard(synth: Callable[[], VirtualSynth], *parts: Sequence[bytes]) -> VirtualSynth:
    listener = synth()
    for part in parts:
        listener.feed(b"".join(part))
    return listener


def everything(*, without: Collection[int] = (), in_pairs: bool = False) -> st.SearchStrategy[list[Frames]]:
    """Everything but these controllers."""
    mode_messages = [number for number in (120, 121, 123, 124, 125, 126, 127) if number not in without]
    set_once = settings(in_pairs=in_pairs, without=without)
    return history(notes(), set_once, modes(*mode_messages), transport(), system_reset(), max_size=25)


@dataclass(frozen=True)
class Receiver:
    """A kind of instrument, and what it can be played so that all it does is said by the messages alone."""

    make: Callable[[], VirtualSynth]
    histories: st.SearchStrategy[list[Frames]]
    # Whether its notes end with the mode messages.
    obeys: bool = True


RECEIVERS = {
    # Page 25 has it ignore both when Omni is on, and hardware does not always.
    "plain": Receiver(VirtualSynth, everything(without=[OMNI_ON])),
    "changing Omni": Receiver(VirtualSynth, everything(without=[RESET_ALL_CONTROLLERS, ALL_NOTES_OFF])),
    "in Omni": Receiver(
        lambda: VirtualSynth(omni=True), everything(without=[RESET_ALL_CONTROLLERS, ALL_NOTES_OFF])
    ),
    # What the first byte of two leaves of the second one has to be said then.
    "leaving second bytes": Receiver(
        lambda: VirtualSynth(msb_clears_lsb=False), everything(without=[OMNI_ON], in_pairs=True)
    ),
    # What it leaves in spite of a reset, others have reset: nobody knows which to say.
    "resetting what is listed": Receiver(
        lambda: VirtualSynth(resets_unlisted=False), everything(without=[OMNI_ON, *UNLISTED])
    ),
    "ignoring modes": Receiver(
        lambda: VirtualSynth(ignores_mode_messages=True), everything(without=[OMNI_ON]), obeys=False
    ),
}


@pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=RECEIVERS.keys())
@given(data=st.data())
def test_a_listener_that_missed_a_part_ends_where_one_ends_that_heard_it(
    receiver: Receiver, data: st.DataObject
) -> None:
    sense = Sense()
    first = sense.of(data.draw(receiver.histories))
    missed = sense.of(data.draw(receiver.histories))
    player = Player(*first)
    before = player.performance.view()
    player.play(missed)
    changes = difference(before, player.performance, struck_since=-inf)

    caught_up = heard(receiver.make, first, changes)
    expected = heard(receiver.make, first, missed)
    assert state_of(caught_up) == state_of(expected)
    if receiver.obeys:
        assert caught_up.sounding == expected.sounding
    else:
        # It sounds on when others are silent, until the note-offs come. Who missed them is silent as well.
        assert caught_up.sounding <= expected.sounding
    # A note that was struck twice meanwhile is struck once.
    assert caught_up.voices <= expected.voices
    assert set(caught_up.voices) >= caught_up.sounding
    # Nothing is said twice.
    assert difference(player.performance, player.performance.copy(), struck_since=-inf) == []


@given(everything(without=[OMNI_ON]))
def test_who_comes_late_is_set_like_the_others_and_sounds_what_is_wanted(items: list[Frames]) -> None:
    frames = Sense().of(items)
    player = Player(*frames)
    expected = heard(VirtualSynth, frames)
    silent = heard(VirtualSynth, difference(None, player.performance))
    assert state_of(silent) == state_of(expected)
    assert not silent.voices
    sounding = heard(VirtualSynth, difference(None, player.performance, struck_since=-inf))
    assert state_of(sounding) == state_of(expected)
    assert sounding.sounding == expected.sounding


# What these instruments cannot tell: whether Local Control On, Poly On, null, and 0 for a parameter were said
# or are so from the start; a second byte of 0, for hardware that still has another one; System Reset; the
# halt while a song is put elsewhere (page 27).
UNTOLD = {
    control(channel, number, value)
    for channel in range(16)
    for number, value in (
        (122, 64),
        (122, 127),
        (127, 0),
        (98, 127),
        (99, 127),
        (100, 127),
        (101, 127),
        (6, 0),
        (38, 0),
    )
} | {b"\xff", b"\xfc"}


@example([[b"\xf2\x01\x00"]], [[b"\xfb"], [b"\xf8"]])
@given(everything(without=[OMNI_ON]), everything(without=[OMNI_ON]))
def test_no_frame_could_be_left_out(first: list[Frames], missed: list[Frames]) -> None:
    sense = Sense()
    start, rest = sense.of(first[-4:]), sense.of(missed[:4])
    player = Player(*start)
    before = player.performance.view()
    player.play(rest)
    changes = difference(before, player.performance, struck_since=-inf)
    reset = b"\xff" in [*start, *rest, *changes]
    for position, frame in enumerate(changes):
        # Hardware that ignores System Reset needs the note-offs; no instrument here does.
        if frame not in UNTOLD and not (reset and frame[0] & 0xF0 == 0x80):
            fewer = [*changes[:position], *changes[position + 1 :]]
            # There is an instrument that would end elsewhere.
            assert any(
                seen(heard(receiver.make, start, fewer)) != seen(heard(receiver.make, start, changes))
                for receiver in RECEIVERS.values()
            )


def seen(synth: VirtualSynth) -> State:
    """Everything that an instrument has, even what it has at power-up."""
    return {(name,): value for name, value in vars(synth).items() if name != "_parser"}


@pytest.mark.parametrize(
    ("first", "missed", "struck_since", "expected"),
    [
        ([note_on(60)], [note_off(60)], -inf, [note_off(60)]),
        ([note_on(60)], [note_off(60), note_on(60)], -inf, [note_off(60), note_on(60)]),
        # Too late to be struck again: it sounds on, and needs one note-off as before.
        ([note_on(60)], [note_off(60), note_on(60)], inf, []),
        ([], [note_on(60)], 2, []),
        ([], [note_on(60)], 1, [note_on(60)]),
        # Struck once more: one voice more.
        ([note_on(60)], [note_on(60)], -inf, [note_on(60)]),
        ([note_on(60)], [note_on(60), note_on(60)], -inf, [note_on(60)]),
        ([note_on(60)] * 3, [note_off(60)] * 2, -inf, [note_off(60)] * 2),
        # Two of three voices have to go, though that silences who knows but one: it is too late to strike.
        ([note_on(60)] * 3, [note_off(60)] * 3 + [note_on(60)], inf, [note_off(60)] * 2),
        ([note_on(60)] * 3, [note_off(60)] * 3 + [note_on(60)], -inf, [note_off(60)] * 3 + [note_on(60)]),
        # What All Notes Off ended is ended by a note-off: hardware ignores the other.
        ([note_on(60)], [control(0, 123, 0)], inf, [note_off(60)]),
        ([note_on(60)], [control(0, 123, 0), note_on(60)], -inf, [note_off(60), note_on(60)]),
        ([note_on(60), control(0, 123, 0)], [note_on(60)], -inf, [note_on(60)]),
        # A mode message ends what sounds, so what is held is struck after it.
        ([note_on(60)], [MONO, note_on(60)], -inf, [note_off(60), MONO, note_on(60)]),
        ([note_on(60)], [MONO, note_on(60)], inf, [MONO]),
    ],
)
def test_notes(first: Frames, missed: Frames, struck_since: float, expected: Frames) -> None:
    player = Player(*first)
    before = player.performance.view()
    player.play(missed)
    assert difference(before, player.performance, struck_since=struck_since) == expected


def test_a_note_is_struck_again_where_a_mode_message_ends_it_in_the_same_moment() -> None:
    performance = Performance()
    performance.observe(b"".join([note_on(60)]), "player", 1.0)
    before = performance.view()
    performance.observe(b"".join([MONO, note_on(60)]), "player", 1.0)
    assert difference(before, performance, struck_since=0.9) == [note_off(60), MONO, note_on(60)]


@pytest.mark.parametrize(
    ("first", "missed", "expected"),
    [
        # The bank that was chosen with the program, and then the one that waits for the next.
        ("", "b00001 b02002 c005 b00003", "b00001 b02002 c005 b00003"),
        ("b00001 c005", "b00002 c005", "b00002 c005"),
        # A first byte clears the second.
        ("b00710 b02705", "b00720", "b00720"),
        ("b00710 b02705", "b00710", "b00710"),
        ("b00710 b02705", "b00720 b02705", "b00720 b02705"),
        # What Reset All Controllers may have reset is not said any more.
        ("b00233", "b07900", "b07900"),
        ("b00233", "b07900 b00244", "b00244"),
        # Selected already; selected in the end; of two kinds the last.
        ("b06500 b06400", "b00602", "b00602"),
        ("", "b06500 b06400 b00602 b0657f b0647f", "b06500 b06400 b00602 b0657f b0647f"),
        ("b06500 b06400 b06301 b06202", "b06500", "b06500"),
        ("b06500 b06400 b06301 b06202", "b06401 b06301", "b06401 b06301"),
        # The parameter that is selected in the end is set last.
        ("", "b06500 b06400 b00602 b06401 b00640 b06400", "b06500 b06401 b00640 b06400 b00602"),
        # A song goes on, is put elsewhere, halts.
        ("fa f8", "f8 f8", "f8 f8"),
        ("fa", "f8 " * 8, "fc f20100 fb f8 f8"),
        ("", "fa f8", "fa f8"),
        ("fa f8 fc", "fb", "fb"),
        ("fa", "fc f20300", "fc f20300"),
        ("fa f8", "fa", ""),
        ("b04007 904060 fa", "ff", "804040 ff"),
        ("b04007", "ff b04007", "ff b04007"),
    ],
)
def test_settings_and_the_transport(first: str, missed: str, expected: str) -> None:
    player = Player(*map(bytes.fromhex, first.split()))
    before = player.performance.view()
    player.play([bytes.fromhex(frame) for frame in missed.split()])
    assert [frame.hex() for frame in difference(before, player.performance)] == expected.split()


def test_a_release_is_explicit_even_where_a_message_that_may_be_ignored_came_before() -> None:
    performance = Performance()
    for end in (control(0, 123, 0), control(0, 121, 0), b"\xff"):
        performance.observe(b"".join([note_on(60), control(0, 64, 127), b"\xe0\x00\x50", end]), "player", 0.0)
        assert release(performance, ["player"])[0] == [note_off(60), control(0, 64, 0), b"\xe0\x00\x40"]
        assert release(performance, ["player"])[0] == []


def test_everything_is_let_go_of_whoever_holds_it() -> None:
    performance = Performance()
    performance.observe(b"".join([note_on(60), note_on(60), control(0, 69, 127)]), "one", 0.0)
    performance.observe(b"".join([note_on(60), b"\xd0\x40", b"\xa0\x3c\x40", control(0, 7, 5)]), "other", 0.0)
    assert release_all(performance) == [
        *[note_off(60)] * 3,
        control(0, 69, 0),
        b"\xd0\x00",
        b"\xa0\x3c\x00",
    ]
    assert release_all(performance) == []
