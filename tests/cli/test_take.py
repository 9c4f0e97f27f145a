"""When a take is silent."""

from __future__ import annotations

import mido
import pytest

from midinet.cli.take import Silence

NOTE = mido.Message("note_on", note=60, velocity=90)
NOTE_OFF = mido.Message("note_off", note=60)


def message(kind, **values):
    return mido.Message(kind, **values)


SUSTAINED = message("control_change", control=64, value=127)


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
