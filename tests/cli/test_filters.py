"""Filters: what passes by its bytes is what passes as messages; and what is kept of what came last."""

from __future__ import annotations

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.cli.common import Complaint
from midinet.cli.filters import STATUSES, FilteredInbox, Tail, message_filter
from midinet.wire.codec import decode, encode
from midinet.wire.parser import split_messages
from tests.harness.messages import any_message

NOTE = mido.Message("note_on", channel=2, note=60)
CLOCK = mido.Message("clock")


class Source:
    """Who fills an inbox, and is told when to go on."""

    def __init__(self):
        self.resumed = 0

    def _resume(self):
        self.resumed += 1


def wire(*some):
    return b"".join(map(encode, some))


def test_types_are_midos():
    assert set(STATUSES) == {spec["type"] for spec in mido.messages.specs.SPECS}


@given(
    st.lists(any_message(), max_size=20),
    st.lists(st.integers(1, 16)),
    st.lists(st.sampled_from(list(STATUSES))),
    st.booleans(),
)
def test_what_passes_is_what_was_asked_for_in_its_order(some, channels, types, no_clock):
    try:
        only = message_filter(channels, types, no_clock)
    except Complaint:
        return
    expected = [
        one
        for one in some
        if (not channels or getattr(one, "channel", -1) + 1 in channels)
        and (not types or one.type in types)
        and not (no_clock and one.type in ("clock", "active_sensing"))
    ]
    data = wire(*some)
    passed = data if only is None else only(data)
    assert [decode(frame) for frame in split_messages(passed)] == expected


def test_without_wishes_there_is_no_filter():
    assert message_filter(None, None, False) is None


def test_types_come_with_commas_or_one_by_one():
    both = message_filter(None, ["note_on, clock", "sysex"], False)
    data = wire(NOTE, CLOCK, mido.Message("sysex", data=(1,)), mido.Message("start"))
    assert both(data) == data[:-1]


@pytest.mark.parametrize(
    ("channels", "types", "what"),
    [
        (None, ["note-on"], "did you mean note_on?"),
        (None, ["note_on,"], "there are note_off, note_on,"),
        (None, ["bogus"], "there are note_off, note_on,"),
        ([1], ["clock"], "leave no message to show"),
    ],
)
def test_what_cannot_be_is_a_complaint(channels, types, what):
    with pytest.raises(Complaint, match=what.replace("?", r"\?")):
        message_filter(channels, types, False)


def test_a_filtered_inbox_holds_what_passes_and_does_not_grow_full_of_the_rest():
    inbox = FilteredInbox(message_filter([3], None, False), 2)
    source = Source()
    for _ in range(10):
        assert inbox.put(source, wire(CLOCK))
    assert inbox.put(source, wire(CLOCK, NOTE))
    assert not inbox.put(source, wire(NOTE))
    assert [inbox.get_nowait(), inbox.get_nowait(), inbox.get_nowait()] == [wire(NOTE), wire(NOTE), None]
    assert source.resumed == 1


def test_a_filtered_inbox_lets_go_of_what_passed():
    inbox = FilteredInbox(message_filter([3], None, False), 10)
    source = object()
    inbox.put(source, wire(NOTE, NOTE.copy(channel=5)))
    inbox.release(source)
    assert inbox.get_nowait() == wire(NOTE)
    assert decode(inbox.get_nowait()) == mido.Message("note_off", channel=2, note=60)
    assert inbox.get_nowait() is None


def last_of(tail):
    return [decode(frame) for _, data in tail.last() for frame in split_messages(data)]


def test_a_tail_keeps_what_came_last_in_whole_messages_and_is_never_full():
    tail = Tail()
    sent = [NOTE.copy(note=number % 128, velocity=number // 128) for number in range(16_000)]
    for start in range(0, len(sent), 1000):
        assert tail.put("somebody", wire(*sent[start : start + 1000]))
    kept = last_of(tail)
    assert kept[-300:] == sent[-300:]
    assert len(kept) < 10_000
    assert {source for source, _ in tail.last()} == {"somebody"}
    for number in range(1000):
        tail.put("another", wire(sent[number]))
    assert len(tail.last()) == 100
    assert last_of(tail) == sent[900:1000]


@given(st.lists(any_message(), min_size=1), st.lists(st.integers(0, 127), max_size=3000))
def test_a_tail_never_begins_within_a_message(some, long):
    sent = [*some, mido.Message("sysex", data=long), *some]
    tail = Tail()
    tail.put("somebody", wire(*sent))
    kept = last_of(tail)
    assert kept == sent[-len(kept) :]
    assert wire(*kept) == tail.last()[0][1]


def test_a_tail_keeps_what_its_filter_lets_pass():
    tail = Tail(message_filter(None, None, True))
    tail.put("somebody", wire(CLOCK))
    tail.put("somebody", wire(CLOCK, NOTE, CLOCK))
    assert tail.last() == [("somebody", wire(NOTE))]


def test_a_tail_follows_the_performance_if_it_is_to():
    assert Tail().performance is None
    tail = Tail(message_filter(None, ["clock"], False), follow=True)
    tail.put("somebody", wire(NOTE))
    assert list(tail.performance.held_notes) == [2 << 7 | 60]
    tail.release("somebody")
    assert not tail.performance.held_notes
