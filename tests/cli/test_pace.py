"""When the messages of a row are sent, and how long its notes sound: times alone."""

from __future__ import annotations

import math

import mido
import pytest

from midinet.cli.pace import HOLD_S, Pace

ON = mido.Message("note_on", note=60, velocity=90)
OFF = mido.Message("note_off", note=60)


def sent_by(pace, *messages, read_at=0.0):
    """Return when each of a row is sent, and when it may end."""
    times = []
    for message in messages:
        now = max(read_at, *times) if times else read_at
        times.append(max(now, pace.due(message, now)))
        pace.note_sent(message, times[-1])
    return times, pace.end()


def test_a_message_is_sent_its_time_after_the_one_before_and_lateness_does_not_add_up():
    pace = Pace(0.0)
    row = [mido.Message("clock", time=0.1)] * 3
    assert [
        round(pace.due(message, now), 3) for message, now in zip(row, (0.0, 0.11, 0.22), strict=True)
    ] == [
        0.1,
        0.2,
        0.3,
    ]


def test_a_message_that_is_typed_later_is_sent_its_time_after_that():
    pace = Pace(0.0)
    assert pace.due(mido.Message("clock"), 60.0) == 60.0
    assert pace.due(mido.Message("clock", time=2), 90.0) == 92.0


@pytest.mark.parametrize(
    ("messages", "end"),
    [
        ([ON], HOLD_S),
        ([ON, ON.copy(note=64, time=2)], 2 + HOLD_S),
        ([ON, OFF.copy(time=1)], -math.inf),
        ([ON, OFF], -math.inf),
        ([ON, ON.copy(velocity=0)], -math.inf),
        ([ON, mido.Message("control_change", control=123)], -math.inf),
        ([ON, ON.copy(channel=1, time=0.2), OFF], 0.2 + HOLD_S),
        ([mido.Message("program_change", program=5), mido.Message("control_change", control=64)], -math.inf),
    ],
)
def test_only_a_note_that_nothing_ends_is_held_and_from_when_it_was_struck(messages, end):
    assert sent_by(Pace(0.0), *messages)[1] == end
