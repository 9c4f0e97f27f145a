from __future__ import annotations

import asyncio

import pytest

from midinet import PortClosed
from midinet.net.inbox import Inbox
from midinet.net.options import DEFAULT_MAX_INBOX


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


def test_the_default_bound_is_1024_messages() -> None:
    assert DEFAULT_MAX_INBOX == 1024
