"""A take: what of it goes into a file, when it begins and ends, and when it is silent."""

from __future__ import annotations

import io

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.cli.take import Silence, file_of, is_storable, music_of
from tests.harness.messages import any_message
from tests.harness.midi_files import schedule_of

NOTE = mido.Message("note_on", note=60, velocity=90)
NOTE_OFF = mido.Message("note_off", note=60)


def message(kind, **values):
    return mido.Message(kind, **values)


SUSTAINED = message("control_change", control=64, value=127)


# From a take to a file.


@given(
    st.lists(st.tuples(st.floats(0, 20), any_message().filter(is_storable)), max_size=50), st.floats(0, 1e6)
)
def test_it_plays_back_what_was_heard_and_rounding_never_adds_up(heard, begin):
    now, take = begin, []
    for wait, message in heard:
        now += wait
        take.append((now, message))
    content = io.BytesIO()
    file_of(take).save(file=content)
    content.seek(0)
    played = schedule_of(mido.MidiFile(file=content))
    assert [message for _, message in played] == [message for _, message in take]
    for (seconds, _), (then, _) in zip(played, take, strict=True):
        assert seconds == pytest.approx(then - take[0][0], abs=0.000_051)


def test_messages_that_have_no_place_in_a_file_are_left_out():
    kinds = ("clock", "start", "continue", "stop", "active_sensing", "reset", "tune_request")
    for kind in kinds:
        assert music_of([(1.0, message(kind)), (2.0, NOTE_OFF)], 0.0, 9.0) == [(2.0, NOTE_OFF)]
    assert music_of([(1.0, message(kind)) for kind in kinds], 0.0, 9.0) == []


def test_what_was_set_already_stands_right_before_what_comes_later():
    program, pedal_up = message("program_change", program=3), message("control_change", control=64)
    take = [(10.1, program), (10.1, pedal_up), (10.2, message("clock")), (70.0, NOTE), (71.0, NOTE_OFF)]
    assert music_of(take, 10.0, 99.0) == [(70.0, program), (70.0, pedal_up), (70.0, NOTE), (71.0, NOTE_OFF)]


@pytest.mark.parametrize(
    "take",
    [
        # Not set already, but later; all there is; and a tune that is under way.
        [(10.6, NOTE_OFF), (70.0, NOTE_OFF)],
        [(10.1, NOTE_OFF), (10.2, NOTE_OFF)],
        [(10.1, NOTE_OFF), (10.2, NOTE), (70.0, NOTE_OFF)],
    ],
)
def test_what_is_played_keeps_its_times(take):
    assert music_of(take, 10.0, 99.0) == take


def test_a_note_that_is_held_ends_when_the_take_does():
    take = [(1.0, NOTE), (2.0, SUSTAINED)]
    assert music_of(take, 0.0, 9.0)[2:] == [(9.0, NOTE_OFF), (9.0, message("control_change", control=64))]


def test_a_note_that_was_struck_twice_and_let_go_once_is_silent():
    assert music_of([(1.0, NOTE), (2.0, NOTE), (3.0, NOTE_OFF)], 0.0, 9.0)[3:] == [(3.0, NOTE_OFF)]


def test_a_pedal_or_a_bend_alone_makes_no_take_longer():
    take = [(1.0, SUSTAINED), (2.0, message("pitchwheel", pitch=5)), (3.0, message("clock"))]
    assert music_of(take, 0.0, 9.0)[2:] == [
        (2.0, message("control_change", control=64)),
        (2.0, message("pitchwheel", pitch=0)),
    ]


# Silence.


def silent_since(*heard):
    silence = Silence()
    for at, message in enumerate(heard):
        silence.observe(message, float(at))
    return silence.since


def test_silence_is_counted_from_the_last_message_after_the_first_note():
    assert silent_since() is None
    assert silent_since(message("program_change", program=3), SUSTAINED, NOTE_OFF) is None
    assert silent_since(NOTE, NOTE_OFF) == 1
    assert silent_since(NOTE, NOTE_OFF, message("pitchwheel", pitch=5), message("start")) == 3


def test_clock_and_active_sensing_are_no_sound():
    assert silent_since(message("clock"), message("active_sensing")) is None
    assert silent_since(NOTE, NOTE_OFF, message("clock"), message("active_sensing")) == 1


def test_it_is_not_silent_while_a_note_is_held_but_while_a_pedal_is():
    assert silent_since(NOTE, message("note_on", note=61), NOTE_OFF) is None
    assert silent_since(NOTE, message("note_on", note=60, channel=1), NOTE_OFF) is None
    assert silent_since(SUSTAINED, NOTE, NOTE, message("note_on", note=60, velocity=0)) == 3


@pytest.mark.parametrize("control", [120, 123, 127])
def test_messages_that_end_all_notes_of_a_channel_end_them(control):
    ending = message("control_change", control=control)
    assert silent_since(NOTE, ending) == 1
    assert silent_since(NOTE, message("note_on", note=60, channel=1), ending) is None
    assert silent_since(NOTE, message("note_on", note=60, channel=1), message("reset")) == 2
