from __future__ import annotations

import asyncio
from typing import Any

import pytest

from midinet import PortClosed
from midinet.net.inbox import UNREAD_PATIENCE_S, Inbox
from midinet.net.options import DEFAULT_MAX_INBOX
from tests.harness.clock import Clock


class Source:
    def __init__(self) -> None:
        self.resumed = 0

    def _resume(self) -> None:
        self.resumed += 1


def frames(*notes: int) -> list[bytes]:
    return [bytes((0x90, note, 64)) for note in notes]


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_frames_come_out_in_order_tagged_if_wanted() -> None:
    plain, tagged = Inbox(10), Inbox(10, tagged=True)
    a, b = Source(), Source()
    for inbox in (plain, tagged):
        assert inbox.put(a, b"".join(frames(1, 2)))
        assert inbox.put(b, b"".join(frames(3)))
    assert [await plain.get() for _ in range(3)] == frames(1, 2, 3)
    assert [await tagged.get() for _ in range(3)] == [(a, frames(1)[0]), (a, frames(2)[0]), (b, frames(3)[0])]
    assert plain.get_nowait() is None


async def test_a_full_inbox_stops_its_sources_until_half_is_taken() -> None:
    inbox, a, b = Inbox(4), Source(), Source()
    assert inbox.put(a, b"".join(frames(1, 2, 3)))
    assert not inbox.put(a, b"".join(frames(4, 5)))
    assert not inbox.put(b, b"".join(frames(6)))
    for _ in range(3):
        inbox.get_nowait()
    assert (a.resumed, b.resumed) == (0, 0)
    assert inbox.get_nowait() == frames(4)[0]
    assert (a.resumed, b.resumed) == (1, 1)
    assert [inbox.get_nowait(), inbox.get_nowait()] == frames(5, 6)
    assert (a.resumed, b.resumed) == (1, 1)


async def test_a_source_that_is_gone_lets_go_of_what_only_it_held_as_its_last_messages() -> None:
    plain, tagged = Inbox(10), Inbox(10, tagged=True)
    a, b = Source(), Source()
    for inbox in (plain, tagged):
        inbox.release(a)  # Nothing was heard.
        inbox.put(a, b"".join(frames(1, 2, 3)))
        inbox.put(b, b"".join(frames(2)))
        inbox.put(a, b"".join([b"\x80\x03\x40", b"\xb0\x40\x7f"]))
        inbox.release(a)
        inbox.release(a)
    released = [b"\x80\x01\x40", b"\xb0\x40\x00"]
    assert plain.take_all()[6:] == released
    assert tagged.take_all()[6:] == [(a, frame) for frame in released]
    # Who held it longer owes the note-offs for both.
    assert plain.put(b, b"\x80\x02\x40")
    assert plain.take_all() == [b"\x80\x02\x40"] * 2


async def test_readers_wait_their_turn() -> None:
    inbox, source = Inbox(10), Source()
    readers = [asyncio.create_task(inbox.get()) for _ in range(3)]
    await settle()
    assert inbox.awaited
    inbox.put(source, b"".join(frames(1)))
    inbox.put(source, b"".join(frames(2, 3)))
    assert sorted(await asyncio.gather(*readers)) == frames(1, 2, 3)
    assert not inbox.awaited


async def test_a_reader_cancelled_while_it_waits_loses_nothing() -> None:
    inbox, source = Inbox(10), Source()
    first, second = asyncio.create_task(inbox.get()), asyncio.create_task(inbox.get())
    await settle()
    first.cancel()
    await settle()
    inbox.put(source, b"".join(frames(1)))
    assert await second == frames(1)[0]
    assert first.cancelled()


async def test_a_reader_cancelled_after_it_was_woken_loses_nothing() -> None:
    inbox, source = Inbox(10), Source()
    first, second = asyncio.create_task(inbox.get()), asyncio.create_task(inbox.get())
    await settle()
    inbox.put(source, b"".join(frames(1)))
    first.cancel()
    assert await second == frames(1)[0]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_end_comes_after_what_had_arrived() -> None:
    inbox, source = Inbox(10), Source()
    inbox.put(source, b"".join(frames(1)))
    inbox.end(lambda: PortClosed("first"))
    inbox.end(lambda: PortClosed("second"))
    assert not inbox.ended
    assert await inbox.get() == frames(1)[0]
    assert inbox.ended
    for _ in range(2):
        with pytest.raises(PortClosed, match="first"):
            await inbox.get()


async def test_the_end_wakes_every_reader() -> None:
    inbox = Inbox(10)
    readers = [asyncio.create_task(inbox.get()) for _ in range(3)]
    await settle()
    inbox.end(lambda: PortClosed("over"))
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(result) for result in results] == [PortClosed] * 3


# When nobody reads.

CONTROL = b"\xb0\x07"
OFF_1 = b"\x80\x01\x40"


def fill(inbox: Inbox, source: Source) -> None:
    """Have an inbox of four take in a note that is held, and become full."""
    assert inbox.put(source, b"".join(frames(1)))
    assert not inbox.put(source, b"".join([CONTROL + bytes((value,)) for value in range(3)]))


def entries(inbox: Inbox) -> list[Any]:
    return list(iter(inbox.get_nowait, None))


@pytest.mark.parametrize("tagged", [False, True])
async def test_a_full_inbox_that_nobody_reads_gives_way_to_the_difference(tagged: bool) -> None:
    clock, inbox, source = Clock(), Inbox(4, tagged=tagged), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    fill(inbox, source)
    await clock.skip(UNREAD_PATIENCE_S - 0.5)
    assert not source.resumed
    await clock.skip(1.5)
    assert source.resumed == 1
    # It is taken in for ever, and takes no room.
    for value in range(100):
        assert inbox.put(source, CONTROL + bytes((value,)) + b"\x90\x02\x40\x80\x02\x40")
    assert inbox.put(source, OFF_1 + b"\xf0\x7d\x01\xf7\x90\x03\x40")
    assert len(inbox) < 10
    await clock.skip(1.0)
    read = [b"\xb0\x07\x00", b"\xb0\x07\x01", b"\xb0\x07\x02"]
    read += [b"\xf0\x7d\x01\xf7", OFF_1, b"\xb0\x07\x63"]
    assert entries(inbox) == [(source, frame) if tagged else frame for frame in read]
    # The first note-on, and all but the system exclusive message of what came then.
    assert inbox.messages_unread == 1 + 300 + 2
    # From then on it is an inbox like any other.
    fill(inbox, source)
    assert len(entries(inbox)) == 4
    assert source.resumed == 2
    assert inbox.messages_unread == 303


async def test_what_was_struck_just_before_the_reader_comes_back_sounds() -> None:
    clock, inbox, source = Clock(), Inbox(4), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    fill(inbox, source)
    await clock.skip(UNREAD_PATIENCE_S + 1)
    inbox.put(source, b"".join(frames(5)))
    assert entries(inbox)[-1] == frames(5)[0]


async def test_an_inbox_that_is_read_now_and_then_does_not_give_way() -> None:
    clock, inbox, source = Clock(), Inbox(4), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    fill(inbox, source)
    assert not inbox.put(source, b"".join(frames(2, 3)))
    for _ in range(3):
        await clock.skip(UNREAD_PATIENCE_S - 1.5)
        assert inbox.get_nowait() is not None
    assert not source.resumed
    assert inbox.get_nowait() is not None
    assert source.resumed == 1
    await clock.skip(2 * UNREAD_PATIENCE_S)
    assert entries(inbox) == frames(2, 3)
    assert not inbox.messages_unread


async def test_an_inbox_that_is_nobodys_yet_does_not_give_way() -> None:
    clock, inbox, source = Clock(), Inbox(4), Source()
    fill(inbox, source)
    await clock.skip(2 * UNREAD_PATIENCE_S)
    assert not source.resumed


@pytest.mark.parametrize("tagged", [False, True])
async def test_who_goes_while_nobody_reads_is_let_go_of(tagged: bool) -> None:
    clock, inbox, source, other = Clock(), Inbox(4, tagged=tagged), Source(), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    fill(inbox, source)
    await clock.skip(UNREAD_PATIENCE_S + 1)
    inbox.put(other, b"\xb1\x40\x7f")
    for gone in (source, other):
        inbox.release(gone)
    inbox.end(lambda: PortClosed("over"))
    assert not inbox.ended
    await clock.skip(1.0)
    heard = entries(inbox)
    assert ((source, OFF_1) if tagged else OFF_1) in heard
    assert inbox.ended
    with pytest.raises(PortClosed):
        await inbox.get()


async def test_a_reader_of_what_gave_way_waits_for_more() -> None:
    """All that waits is a note-on that is late, and nothing is different."""
    clock, inbox, source = Clock(), Inbox(1), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    inbox.put(source, b"".join(frames(1)))
    await clock.skip(UNREAD_PATIENCE_S + 1)
    reading = asyncio.create_task(inbox.get())
    await settle()
    assert inbox.awaited
    assert not inbox
    inbox.put(source, CONTROL + b"\x01")
    assert await reading == CONTROL + b"\x01"


async def test_all_that_gave_way_can_be_taken_at_once() -> None:
    clock, inbox, source = Clock(), Inbox(4), Source()
    inbox.give_way_when_unread(asyncio.get_running_loop())
    fill(inbox, source)
    await clock.skip(UNREAD_PATIENCE_S + 1)
    inbox.put(source, OFF_1 + CONTROL + b"\x30")
    assert inbox.take_all()[3:] == [OFF_1, CONTROL + b"\x30"]


def test_the_default_bound_is_1024_messages() -> None:
    assert DEFAULT_MAX_INBOX == 1024
