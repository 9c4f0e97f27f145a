"""Turns, by hand: what is taken when, and when the socket is not read."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from midinet.net.options import LinkOptions
from midinet.net.turns import _SHARE, Hold, Turns
from tests.harness.waiting import until

NOTE = b"\x90\x3c\x40"


class Reader:
    """Takes what it is given, and is its own transport."""

    def __init__(self, **options: object) -> None:
        self.transport = cast(asyncio.Transport, self)
        self.taken: list[bytes] = []
        self.reading = True
        self.resumed = 0
        # Done when something is taken, once.
        self.then_hold: Hold | None = None
        self.turns = Turns(asyncio.get_running_loop(), LinkOptions(**options), self)  # type: ignore[arg-type]

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def _take(self, data: bytes) -> None:
        self.taken.append(data)
        if self.then_hold is not None:
            self.turns.hold(self.then_hold)
            self.then_hold = None

    def _reads_again(self) -> None:
        self.resumed += 1


async def test_little_is_taken_at_once() -> None:
    reader = Reader()
    reader.turns.feed(NOTE)
    assert reader.taken == [NOTE]
    assert reader.reading
    assert not reader.turns.rest


async def test_much_is_taken_a_share_a_turn_and_the_socket_waits() -> None:
    reader = Reader()
    data = bytes(2 * _SHARE + 1)
    reader.turns.feed(data)
    for taken in (1, 2, 3):
        assert len(reader.taken) == taken
        assert reader.reading is (taken == 3)
        await asyncio.sleep(0)
    assert b"".join(reader.taken) == data
    assert reader.resumed == 1


async def test_it_is_read_again_when_no_reason_is_left() -> None:
    reader = Reader()
    reader.turns.hold(Hold.FULL)
    reader.turns.hold(Hold.RATE)
    reader.turns.release(Hold.FULL)
    assert reader.turns.held
    assert not reader.reading
    reader.turns.release(Hold.RATE)
    # Not twice.
    reader.turns.release(Hold.RATE)
    assert not reader.turns.held
    assert reader.reading
    assert reader.resumed == 1


async def test_the_rest_waits_for_whoever_is_full() -> None:
    reader = Reader()
    reader.then_hold = Hold.FULL
    reader.turns.feed(bytes(_SHARE) + NOTE)
    await asyncio.sleep(0)
    assert reader.taken == [bytes(_SHARE)]
    reader.turns.release(Hold.FULL)
    await asyncio.sleep(0)
    assert reader.taken == [bytes(_SHARE), NOTE]
    await asyncio.sleep(0)
    assert reader.reading


async def test_what_still_comes_while_nobody_listens_is_taken_first_afterwards_and_without_more() -> None:
    for more in (b"", b"\xb0\x07\x01"):
        reader = Reader()
        reader.turns.hold(Hold.FULL)
        reader.turns.feed(NOTE)
        assert reader.taken == []
        reader.turns.release(Hold.FULL)
        if more:
            reader.turns.feed(more)
        await asyncio.sleep(0)
        assert b"".join(reader.taken) == NOTE + more


async def test_above_max_rate_it_is_read_later() -> None:
    reader = Reader(max_rate=1000.0, rate_burst=2)
    reader.turns.spend(1000.0, 2)
    assert reader.reading
    reader.turns.spend(1000.0, 2)
    assert not reader.reading
    await until(lambda: reader.reading)


async def test_under_max_rate_a_share_is_what_may_come_at_once() -> None:
    reader = Reader(max_rate=1000.0, rate_burst=2)
    reader.turns.feed(3 * NOTE)
    assert reader.taken == [2 * NOTE]


async def test_the_end_comes_after_the_rest() -> None:
    reader = Reader()
    ends: list[int] = []
    reader.turns.feed(bytes(_SHARE) + NOTE)
    reader.turns.finish(lambda: ends.append(len(reader.taken)))
    assert reader.turns.finishing
    await asyncio.sleep(0)
    assert ends == [2]


@pytest.mark.parametrize(("gone", "taken"), [(False, 1), (True, 2)])
async def test_who_is_gone_is_not_told_to_wait(gone: bool, taken: int) -> None:
    reader = Reader()
    reader.then_hold = Hold.FULL
    reader.turns.feed(bytes(_SHARE) + NOTE)
    ends: list[int] = []
    reader.turns.finish(lambda: ends.append(1), last=NOTE, gone=gone)
    await asyncio.sleep(0)
    assert len(reader.taken) == taken
    assert bool(ends) is gone
    assert reader.turns.rest == (b"" if gone else 2 * NOTE)


async def test_once_it_is_stopped_nothing_is_taken() -> None:
    reader = Reader()
    reader.turns.feed(bytes(_SHARE) + NOTE)
    reader.turns.finish(reader.taken.clear)
    reader.turns.stop()
    reader.turns.take_rest()
    reader.turns.hold(Hold.FULL)
    reader.turns.release(Hold.FULL)
    await asyncio.sleep(0)
    assert reader.taken == [bytes(_SHARE)]
    assert not reader.turns.rest
    assert not reader.turns.finishing


async def test_there_is_one_share_a_turn_whatever_was_held_meanwhile() -> None:
    reader = Reader()
    reader.turns.feed(bytes(10 * _SHARE))
    for _ in range(3):
        reader.turns.hold(Hold.FULL)
        reader.turns.release(Hold.FULL)
    for turn in range(1, 10):
        assert len(reader.taken) == turn
        await asyncio.sleep(0)
    assert [len(data) for data in reader.taken] == [_SHARE] * 10
