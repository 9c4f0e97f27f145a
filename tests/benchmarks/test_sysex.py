"""Notes among sysexes: what is skipped, cut or inside something else is noticed, what is missing counted."""

from __future__ import annotations

from math import isnan

import pytest

from benchmarks import listeners
from benchmarks.listeners import SYSEX, SYSEX_BYTES, Hearing, Listeners, note
from tests.harness.relay import relay, to_others

LISTENERS = 4


def hear(data: bytes, cut: int = 1 << 20) -> Hearing:
    """What is known of a stream, of which a piece is read each second."""
    hearing = Hearing()
    for second, at in enumerate(range(0, len(data), cut)):
        piece = data[at : at + cut]
        # What a buffer has behind what was read is old.
        hearing.hear(piece + b"\x9f\x00\xf7", len(piece), float(second))
    return hearing


def test_a_sysex_is_as_long_as_midinet_passes_on_and_has_no_status_inside() -> None:
    assert len(SYSEX) == SYSEX_BYTES == 65536
    assert (SYSEX[0], SYSEX[-1]) == (0xF0, 0xF7)
    assert max(SYSEX[1:-1]) < 0x80


def test_notes_strike_and_release_one_key_after_the_other() -> None:
    assert [note(number) for number in (0, 1, 2, 255, 256)] == [
        b"\x9f\x00\x40",
        b"\x9f\x00\x00",
        b"\x9f\x01\x40",
        b"\x9f\x7f\x00",
        b"\x9f\x00\x40",
    ]


@pytest.mark.parametrize("cut", [1, 2, 5, 4096, 65537, 1 << 20])
def test_notes_and_sysexes_are_found_however_they_are_cut(cut: int) -> None:
    data = note(0) + SYSEX + note(1) + note(2) + SYSEX + note(3)
    hearing = hear(data, cut)

    assert (hearing.notes, hearing.sysexes, hearing.wrong) == (4, 2, 0)
    assert hearing.bytes == len(data)
    # With the read of its last byte, each.
    ends = [3, SYSEX_BYTES + 6, SYSEX_BYTES + 9, len(data)]
    assert list(hearing.times) == [(end - 1) // cut for end in ends]
    assert hearing.ended_at == (len(data) - 4) // cut


def test_a_note_that_is_skipped_leaves_a_gap() -> None:
    hearing = hear(note(0) + note(1) + note(3))

    assert hearing.notes == 3
    assert [isnan(time) for time in hearing.times] == [False, False, True, False]


@pytest.mark.parametrize(
    "data",
    [SYSEX[:100] + note(0) + SYSEX[100:], SYSEX[:-1] + note(0), note(0)[:1] + b"\x00" + SYSEX + note(1)],
    ids=["inside a sysex", "behind a sysex that was cut", "behind a note that was cut"],
)
def test_a_note_that_does_not_stand_behind_whole_messages_is_wrong(data: bytes) -> None:
    assert hear(data).wrong > 0


@pytest.fixture
def small_sysexes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A relay in a thread of the same process would take its time with long ones.
    monkeypatch.setattr(listeners, "SYSEX_BYTES", 600)
    monkeypatch.setattr(listeners, "SYSEX", SYSEX[:599] + b"\xf7")


def test_a_note_behind_a_sysex_is_timed_and_so_is_the_sysex() -> None:
    with relay() as portno, Listeners(portno, LISTENERS, attentive=LISTENERS) as running:
        note_s, none_s = running.play_behind(None)
        behind_s, sysex_s = running.play_behind(running.librarian)
        running.play_behind(running.player)

    assert min(note_s, behind_s, sysex_s) > 0
    assert none_s == 0
    assert [(one.notes, one.sysexes, one.wrong) for one in running.hearings] == LISTENERS * [(3, 2, 0)]


@pytest.mark.usefixtures("small_sysexes")
def test_who_does_not_hear_a_sysex_and_a_note_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "PATIENCE_S", 0.05)

    def passes(data: bytes, origin: int, listener: int) -> bytes:
        return data.replace(note(0), b"") if listener == 1 else to_others(data, origin, listener)

    with (
        relay(passes) as portno,
        Listeners(portno, LISTENERS, attentive=1) as running,
        pytest.raises(TimeoutError, match="not all hear"),
    ):
        running.play_behind(running.librarian)


@pytest.mark.usefixtures("small_sysexes")
@pytest.mark.parametrize("attentive", [1, 2, LISTENERS])
def test_a_stream_is_counted_and_nothing_is_missing(attentive: int) -> None:
    with relay() as portno, Listeners(portno, LISTENERS, attentive=attentive) as running:
        stream = running.stream(seconds=0.05, rate=200, window=50)

    notes = len(stream.late)
    assert notes > 1
    assert stream.sysexes > 0
    assert len(stream.latencies) == attentive * notes
    assert min(stream.latencies) > 0
    assert (stream.lost, stream.missed) == (0, 0)
    assert 0 <= stream.busy <= 1
    assert stream.seconds > 0


# It waits for a second of silence.
@pytest.mark.full
@pytest.mark.usefixtures("small_sysexes")
@pytest.mark.parametrize("listener", [0, 3], ids=["of one that attends", "of one that counts bytes"])
def test_what_is_missing_of_a_stream_is_counted(listener: int) -> None:
    """A note and a sysex that one listener does not get."""
    missing = [note(1), b"\xf0" + SYSEX[1:599] + b"\xf7"]

    def passes(data: bytes, origin: int, number: int) -> bytes:
        data = to_others(data, origin, number)
        # The listeners come first.
        if number == listener:
            for one in list(missing):
                if one in data:
                    data = data.replace(one, b"", 1)
                    missing.remove(one)
        return data

    with relay(passes) as portno, Listeners(portno, LISTENERS, attentive=2) as running:
        stream = running.stream(seconds=0.05, rate=200, window=50)

    assert missing == []
    assert (stream.lost, stream.missed) == (1, 1)
    attending = [one for one in running.hearings if one.attends]
    assert len(stream.latencies) == 2 * len(stream.late) - (running.hearings[listener] in attending)


@pytest.mark.usefixtures("small_sysexes")
def test_a_listener_who_is_sent_too_much_is_wrong() -> None:
    def passes(data: bytes, origin: int, listener: int) -> bytes:
        data = to_others(data, origin, listener)
        return data.replace(note(1), note(1) + note(1)) if listener == 1 else data

    with relay(passes) as portno, Listeners(portno, LISTENERS, attentive=1) as running:
        stream = running.stream(seconds=0.05, rate=200, window=50)

    assert (stream.lost, stream.missed) == (0, 0)
    assert stream.wrong >= 1
