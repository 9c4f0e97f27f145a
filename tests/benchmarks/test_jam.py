"""The jam's bookkeeping: what is lost, doubled, out of order, foreign or one's own is noticed."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest

from benchmarks.account import Account, settle
from benchmarks.players import MAX_NOTES, MAX_PLAYERS, Heard, Jam, Players, note
from benchmarks.protocols import MIDI, NATS, Protocol
from tests.harness.relay import relay, to_others

PLAYERS = 3
NOTES = 4

# The fourth message of the second player.
ODD = note(1, 3)

in_both_protocols = pytest.mark.parametrize("protocol", [MIDI, NATS], ids=["midi", "nats"])


def jam(
    protocol: Protocol,
    heard: Callable[[int, list[bytes]], list[bytes]] = lambda listener, frames: frames,
    cut: int = 16,
) -> Jam:
    """A jam in which message i was sent at i seconds, and all was heard from 100 seconds on.

    Args:
        heard: takes a player and what it should hear, returns what it hears.
        cut: bytes of a read, each of which comes a second after the one before.
    """
    numbers = range(PLAYERS * NOTES)
    found = Jam(protocol, [], sent_at=array("d", numbers))
    for listener in range(PLAYERS):
        frames = [note(i % PLAYERS, i // PLAYERS) for i in numbers if i % PLAYERS != listener]
        data = b"".join(map(protocol.delivery, heard(listener, frames)))
        pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
        found.heard.append(Heard(pieces, array("d", range(100, 100 + len(pieces)))))
    return found


def counts(account: Account) -> tuple[int, int, int, int]:
    return account.deliveries, account.lost, account.wrong, account.own


ALL = PLAYERS * (PLAYERS - 1) * NOTES


def test_no_two_messages_of_a_jam_are_alike() -> None:
    frames = {note(player, number) for player in range(MAX_PLAYERS) for number in range(MAX_NOTES)}

    assert len(frames) == MAX_PLAYERS * MAX_NOTES
    assert {frame[0] & 0xE0 for frame in frames} == {0x80}
    # A note-on with velocity 0 would be a note-off.
    assert all(0 < frame[2] < 128 and frame[1] < 128 for frame in frames)
    assert note(5, 0) == note(5, MAX_NOTES)


@in_both_protocols
@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
def test_all_is_well_however_it_is_cut(protocol: Protocol, cut: int) -> None:
    assert counts(settle(jam(protocol, cut=cut))) == (ALL, 0, 0, 0)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ([], (ALL - 1, 1, 0, 0)),
        ([ODD, ODD], (ALL, 0, 1, 0)),
        ([note(2, 1), ODD], (ALL, 0, 0, 1)),
        ([b"\x90\x7f\x7f", ODD], (ALL, 0, 1, 0)),
    ],
    ids=["lost", "doubled", "its own", "foreign"],
)
@in_both_protocols
def test_one_message_that_is_not_as_it_should_be_is_noticed(
    protocol: Protocol, odd: list[bytes], expected: tuple[int, ...]
) -> None:
    def heard(listener: int, frames: list[bytes]) -> list[bytes]:
        if listener == 2:
            at = frames.index(ODD)
            frames[at : at + 1] = odd
        return frames

    assert counts(settle(jam(protocol, heard))) == expected


@in_both_protocols
def test_messages_out_of_order_are_lost_and_wrong(protocol: Protocol) -> None:
    def heard(listener: int, frames: list[bytes]) -> list[bytes]:
        if listener == 0:
            before, after = frames.index(note(1, 1)), frames.index(note(1, 2))
            frames[before], frames[after] = frames[after], frames[before]
        return frames

    assert counts(settle(jam(protocol, heard))) == (ALL - 1, 1, 1, 0)


@in_both_protocols
def test_bytes_that_are_no_message_are_wrong(protocol: Protocol) -> None:
    found = jam(protocol)
    found.heard[1].pieces.append(b"\x00")
    found.heard[1].times.append(200.0)

    assert counts(settle(found)) == (ALL, 0, 1, 0)


def test_what_a_broker_says_aside_is_no_message() -> None:
    found = jam(NATS)
    found.heard[0].pieces.insert(1, NATS.aside)
    found.heard[0].times.insert(1, 100.5)

    assert counts(settle(found)) == (ALL, 0, 0, 0)


def test_a_latency_ends_with_the_read_of_the_last_byte() -> None:
    def heard(listener: int, frames: list[bytes]) -> list[bytes]:
        return frames[:2] if listener == 0 else []

    # Six bytes, four and two: the first message is in the first read, the second ends in the second.
    account = settle(jam(MIDI, heard, cut=4))

    assert list(account.latencies) == [100.0 - 1, 101.0 - 2]


def test_players_hear_each_other_through_a_relay() -> None:
    with relay() as portno, Players(portno, PLAYERS) as playing:
        found = playing.play(count=NOTES, rate=1_000)

    assert counts(settle(found)) == (ALL, 0, 0, 0)
    assert min(settle(found).latencies) > 0
    assert len(found.late) == len(found.sent_at) == PLAYERS * NOTES
    assert 0 <= found.idle <= found.seconds


def test_a_relay_that_loses_a_message_and_returns_another_is_found_out() -> None:
    def passes(data: bytes, origin: int, listener: int) -> bytes:
        if origin == listener:
            return ODD if ODD in data else b""
        return data.replace(note(0, 2), b"") if listener == 1 else data

    with relay(passes) as portno, Players(portno, PLAYERS) as playing:
        found = playing.play(count=NOTES, rate=1_000)

    assert counts(settle(found)) == (ALL - 1, 1, 0, 1)


def test_what_comes_back_late_is_waited_for() -> None:
    held: dict[int, bytes] = {}

    def passes(data: bytes, origin: int, listener: int) -> bytes:
        # Every listener gets all that others sent before, with the next that comes.
        before, held[listener] = held.get(listener, b""), b""
        if note(0, 0) in data and listener == 1:
            held[listener] = to_others(data, origin, listener)
            return before
        return before + to_others(data, origin, listener)

    with relay(passes) as portno, Players(portno, PLAYERS) as playing:
        found = playing.play(count=NOTES, rate=1_000)

    assert counts(settle(found)) == (ALL, 0, 0, 0)
