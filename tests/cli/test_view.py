"""The picture of the live view: everything that matters in 80 by 24, and something of sense in less."""

from __future__ import annotations

from dataclasses import replace

import mido
import pytest

from midinet.cli.view import ClientLine, State, can_draw, clock_time, compose, counted
from midinet.wire.codec import encode

FULL = State(
    title="midinet serve",
    seconds=3725,
    status="30 clients",
    where="midi://stage  192.168.1.5:8080",
    figures=[("in", "1.23k/s"), ("out", "2.46k/s"), ("held", "2")],
    losses="dropped 3",
    held=[60, 9 << 7 | 36],
    clients=[ClientLine(f"client {number}", "10.0.0.1:5", number, 1.0, number % 2) for number in range(30)],
    reads=[("keys", b"".join(bytes((0x90, note, 64)) for note in range(100)))],
    events=[f"12:00:0{number} event {number}" for number in range(5)],
)


def lines_of(state=FULL, width=80, height=24, **options):
    return [line.plain.rstrip() for line in compose(state, width, height, **options)]


def message_lines(*messages, name="keys", width=80):
    state = State(title="", seconds=0, status="", reads=[(name, b"".join(map(encode, messages)))])
    lines = lines_of(state, width)
    return [line.strip() for line in lines[lines.index("last messages") + 1 :] if line]


@pytest.mark.parametrize("state", [FULL, State(title="midinet monitor", seconds=0, status="")])
@pytest.mark.parametrize("height", range(5, 60))
def test_it_has_no_more_lines_than_there_are(state, height):
    for width in (20, 40, 60, 80, 200):
        assert len(lines_of(state, width, height)) <= height


def test_everything_is_in_80_by_24():
    text = "\n".join(lines_of())
    for what in (
        "1:02:05",
        "30 clients",
        "midi://stage",
        "1.23k/s",
        "2.46k/s",
        "dropped 3",
        "C4=60",
        "ch 10 C2",
    ):
        assert what in text
    for heading in ("clients", "last messages", "events"):
        assert f"\n{heading}" in text
    assert max(map(len, lines_of())) <= 80


def test_where_not_all_clients_have_room_those_that_say_most_are_shown_and_the_others_counted():
    lines = lines_of()
    shown = [line.split()[1] for line in lines if line.startswith("  client ")]
    assert shown == [str(number) for number in range(29, 29 - len(shown), -1)]
    assert f"  and {30 - len(shown)} more" in lines
    assert sum("client" in line for line in lines_of(height=60)) > 20


def test_clients_that_all_have_room_are_in_the_order_in_which_they_came():
    lines = lines_of(replace(FULL, clients=FULL.clients[:3]))
    assert [line.split()[1] for line in lines if line.startswith("  client ")] == ["0", "1", "2"]
    assert not any("more" in line for line in lines)


def test_the_last_messages_are_shown_the_newest_at_the_end():
    lines = lines_of()
    shown = [line for line in lines if "note_on" in line]
    assert [int(line.split("note=")[1].split()[0]) for line in shown] == list(range(100 - len(shown), 100))
    assert all(line.split()[0] == "keys" for line in shown)


def test_channels_count_from_1_and_notes_have_names():
    note = mido.Message("note_on", channel=9, note=36, velocity=90)
    assert message_lines(note) == ["keys             ch 10 note_on        C2   note=36 velocity=90"]
    assert message_lines(note, width=60) == ["keys     ch 10 note_on C2 velocity=90"]
    assert message_lines(note, name=None, width=40) == ["ch 10 note_on C2 velocity=90"]


def test_messages_of_every_kind_can_be_shown():
    kinds = [mido.Message(spec["type"]) for spec in mido.messages.specs.SPECS]
    state = State(title="", seconds=0, status="", reads=[(None, b"".join(map(encode, kinds)))])
    text = "\n".join(lines_of(state, height=60))
    assert all(f" {kind.type}" in text for kind in kinds)


def test_of_a_long_sysex_the_beginning_is_shown():
    assert message_lines(mido.Message("sysex", data=range(9)), name=None) == [
        "sysex          9 bytes: 00 01 02 03 04 05 06 07 ..."
    ]


def test_what_would_command_a_terminal_does_not():
    evil = "\x1b[2J\x9b\u202e"
    clients = [ClientLine(evil, "10.0.0.1:5", 0.0, 0.0, 0)]
    state = replace(FULL, clients=clients, reads=[(evil, b"\xf8")], events=[evil], where=evil)
    text = "\n".join(lines_of(state))
    assert not set(evil) - set("[2J") & set(text)
    assert text.count("?[2J??") == 4


def test_a_long_event_goes_on_in_the_next_line():
    state = replace(FULL, events=["12:00:00 " + " ".join(["word"] * 20)])
    at = lines_of(state).index("events")
    assert " ".join(" ".join(lines_of(state)[at + 1 :]).split()) == state.events[0]


def test_a_narrow_one_has_what_matters():
    text = "\n".join(lines_of(width=40, height=20))
    assert max(map(len, text.splitlines()[:9])) <= 40
    for what in ("client 29", "C4=60", "note_on"):
        assert what in text


def test_an_encoding_without_blocks_has_a_keyboard_of_ascii():
    assert can_draw("utf-8")
    assert not can_draw("ascii")
    assert not can_draw("no such encoding")
    assert "\n".join(lines_of(in_ascii=True)).isascii()


def test_times_and_counts_in_words():
    assert [clock_time(seconds) for seconds in (0, 59.9, 3600)] == ["0:00:00", "0:00:59", "1:00:00"]
    assert [counted(count, "client") for count in (None, 0, 1, 2)] == [
        "- clients",
        "0 clients",
        "1 client",
        "2 clients",
    ]
