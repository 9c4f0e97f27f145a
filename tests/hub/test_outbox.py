from __future__ import annotations

from collections.abc import Callable

import pytest

from midinet.hub.outbox import (
    DEFAULT_MAX_OUTBOX,
    DEFAULT_SOFT_AGE_S,
    DEFAULT_SOFT_MESSAGES,
    DEFAULT_SOFT_OUTBOX,
    LATE_NOTE_S,
    Outbox,
    OutboxLimits,
    SlowPolicy,
)
from midinet.hub.performance import Performance
from midinet.hub.policy import NO_SYSEX


class Transport:
    """Writes into a list, and counts overflows."""

    def __init__(
        self,
        max_bytes: int = 100,
        *,
        slow: SlowPolicy = "thin",
        soft_bytes: int = DEFAULT_SOFT_OUTBOX,
        soft_messages: int = DEFAULT_SOFT_MESSAGES,
        running_status: bool = False,
    ) -> None:
        self.written: list[bytes] = []
        self.overflows = 0
        limits = OutboxLimits(
            slow=slow, max_bytes=max_bytes, soft_bytes=soft_bytes, soft_messages=soft_messages
        )
        self.outbox = Outbox(self.written.append, self.overflow, limits=limits, running_status=running_status)

    def overflow(self) -> None:
        self.overflows += 1


class Followed(Transport):
    """One whose outbox follows the performance of what is said to it."""

    def __init__(self, max_bytes: int = 100, **limits: object) -> None:
        super().__init__(max_bytes, **limits)  # type: ignore[arg-type]
        self.performance = Performance()
        self.outbox.follow(lambda _: self.performance.frozen())

    def say(self, *frames: bytes, at: float = 0.0) -> None:
        self.performance.observe(b"".join(frames), "somebody", at)
        self.outbox.offer(b"".join(frames), len(frames), at)

    def drain(self, at: float = 0.0) -> list[bytes]:
        """What the peer gets when it reads again."""
        before = len(self.written)
        while self.outbox.drain(at):
            pass
        self.outbox.flow()
        return self.written[before:]


NOTE = b"\x90\x3c\x40"
NOTE_OFF = b"\x80\x3c\x40"
CLOCK, SENSING = b"\xf8", b"\xfe"


def test_a_peer_that_keeps_up_gets_bytes_at_once() -> None:
    transport = Transport()
    transport.outbox.offer(NOTE, 1, 0)
    transport.outbox.offer(NOTE * 2, 2, 0)
    assert transport.written == [NOTE, NOTE * 2]
    stats = transport.outbox.stats
    assert (stats.messages, stats.bytes, stats.dropped) == (3, 9, 0)


def test_a_stalled_peer_gets_its_backlog_in_order() -> None:
    transport = Transport()
    outbox = transport.outbox
    outbox.stall()
    for note in range(5):
        outbox.offer(bytes((0x90, note, 64)), 1, 0)
    assert transport.written == []
    assert outbox.backlog_bytes == 15
    assert outbox.drain(0) is False
    assert b"".join(transport.written) == b"".join(bytes((0x90, note, 64)) for note in range(5))
    assert outbox.backlog_bytes == 0
    outbox.flow()
    outbox.offer(NOTE, 1, 0)
    assert transport.written[1:] == [NOTE]


@pytest.mark.parametrize("slow", ["thin", "disconnect"])
def test_a_long_backlog_is_handed_over_in_pieces(slow: SlowPolicy) -> None:
    transport = Followed(10**6, slow=slow)
    outbox = transport.outbox
    outbox.stall()
    sysex = b"\xf0" + bytes(65534) + b"\xf7"
    for _ in range(3):
        transport.say(sysex)
    assert [outbox.drain(0), outbox.drain(0), outbox.drain(0), outbox.drain(0)] == [True, True, False, False]
    assert transport.written == [sysex] * 3


def test_past_its_bound_it_overflows_once_and_counts_what_it_drops() -> None:
    transport = Transport(max_bytes=6, slow="disconnect")
    outbox = transport.outbox
    outbox.stall()
    for _ in range(5):
        outbox.offer(NOTE, 1, 0)
    assert transport.overflows == 1
    assert outbox.stats.dropped == 3
    assert outbox.backlog_bytes == 6


def test_a_closed_outbox_drops_and_counts() -> None:
    transport = Transport()
    transport.outbox.stall()
    transport.outbox.offer(NOTE, 1, 0)
    transport.outbox.close()
    transport.outbox.offer(NOTE, 1, 0)
    assert transport.outbox.drain(0) is False
    assert transport.written == []
    assert transport.outbox.stats.dropped == 2


def test_running_status_follows_what_is_handed_over() -> None:
    # Disconnecting, for what is late is not left out then.
    transport = Transport(slow="disconnect", running_status=True)
    outbox = transport.outbox
    outbox.offer(NOTE, 1, 0.0)
    outbox.stall()
    outbox.offer(NOTE, 1, 0.1)
    outbox.offer(NOTE, 1, 0.2)
    outbox.drain(0.9)
    outbox.offer(NOTE, 1, 1.0)
    outbox.drain(1.0)
    assert transport.written == [NOTE, NOTE[1:] * 2, NOTE]
    assert outbox.stats.bytes == 10


def test_an_aside_ends_running_status_and_is_dropped_when_it_would_be_late() -> None:
    transport = Transport(running_status=True)
    outbox = transport.outbox
    outbox.offer(NOTE, 1, 0.0)
    outbox.say(b"\xf7aside")
    outbox.offer(NOTE, 1, 0.0)
    outbox.stall()
    outbox.say(b"\xf7late")
    assert transport.written == [NOTE, b"\xf7aside", NOTE]
    assert (outbox.stats.bytes, outbox.stats.messages) == (12, 2)


def test_what_is_late_is_left_out_where_it_is_worth_nothing_late() -> None:
    transport = Followed()
    transport.outbox.stall()
    transport.say(NOTE, CLOCK, SENSING, NOTE_OFF, NOTE, at=0.0)
    transport.say(NOTE_OFF, NOTE, at=1.0)
    assert transport.drain(1.0 + LATE_NOTE_S) == [NOTE_OFF * 2 + NOTE]
    stats = transport.outbox.stats
    assert (stats.late_notes, stats.late_clocks, stats.messages, stats.dropped) == (2, 2, 7, 0)


@pytest.mark.parametrize("playing", [True, False])
def test_clocks_that_were_left_out_are_made_up_for_without_halting_the_song(playing: bool) -> None:
    transport = Followed()
    if playing:
        transport.say(b"\xfa")
    transport.outbox.stall()
    for _ in range(3):
        transport.say(NOTE, CLOCK, NOTE_OFF)
    made_up_for = 3 * CLOCK if playing else b""
    assert transport.drain() == [3 * (NOTE + NOTE_OFF) + made_up_for]


def test_with_disconnect_nothing_is_left_out_however_late() -> None:
    transport = Followed(slow="disconnect")
    transport.outbox.stall()
    transport.say(NOTE, CLOCK, SENSING, NOTE_OFF)
    assert transport.drain(60.0) == [NOTE + CLOCK + SENSING + NOTE_OFF]
    stats = transport.outbox.stats
    assert (stats.late_notes, stats.late_clocks, stats.messages, stats.dropped) == (0, 0, 4, 0)


@pytest.mark.parametrize(
    "fill",
    [
        lambda transport: transport.say(*[NOTE] * 21),
        lambda transport: [transport.say(NOTE) for _ in range(11)],
        lambda transport: [transport.say(NOTE, at=at) for at in (0.0, DEFAULT_SOFT_AGE_S + 0.1)],
    ],
    ids=["bytes", "messages", "age"],
)
def test_past_a_soft_bound_the_backlog_gives_way_to_the_difference(
    fill: Callable[[Followed], object],
) -> None:
    transport = Followed(soft_bytes=60, soft_messages=10)
    outbox = transport.outbox
    transport.say(NOTE)
    outbox.stall()
    fill(transport)
    assert outbox.thinned
    assert outbox.backlog_bytes == 0
    transport.say(NOTE_OFF, b"\xb0\x07\x10", b"\xb0\x07\x20", at=10.0)
    [caught_up] = transport.drain(10.0)
    assert caught_up.endswith(b"\xb0\x07\x20")
    assert not outbox.thinned
    stats = outbox.stats
    # What was handed over, and what gave way, is everything.
    assert stats.messages == 1 + stats.thinned
    assert (stats.episodes, stats.dropped, transport.overflows) == (1, 0, 0)
    assert stats.caught_up == len(caught_up) // 3
    transport.say(NOTE_OFF)
    assert transport.written[-1] == NOTE_OFF


def test_what_no_performance_holds_is_kept_in_order_up_to_the_hard_bound_and_then_counted() -> None:
    transport = Followed(max_bytes=14, soft_bytes=3)
    transport.outbox.stall()
    sysex = b"\xf0\x01\x02\x03\xf7"
    kept = (b"\xf3\x01", sysex, b"\xf6")
    transport.say(NOTE, *kept, NOTE_OFF, sysex, b"\xf3\x02", sysex)
    assert transport.outbox.backlog_bytes == 13
    assert transport.drain() == [b"".join(kept) + sysex]
    stats = transport.outbox.stats
    assert (stats.messages, stats.thinned, stats.dropped, transport.overflows) == (8, 2, 2, 0)


def test_a_note_off_for_a_note_that_was_sent_is_never_lost() -> None:
    transport = Followed(soft_bytes=1)
    transport.say(NOTE)
    transport.outbox.stall()
    transport.say(NOTE_OFF)
    transport.say(b"\x90\x3d\x40", b"\x80\x3d\x40")
    assert transport.drain() == [NOTE_OFF]


def test_the_documented_default_bounds() -> None:
    assert OutboxLimits() == OutboxLimits(
        slow="thin",
        max_bytes=1 << 20,
        soft_bytes=1 << 18,
        soft_messages=1 << 17,
        soft_age=1.0,
    )
    assert (DEFAULT_MAX_OUTBOX, DEFAULT_SOFT_OUTBOX, DEFAULT_SOFT_MESSAGES) == (1 << 20, 1 << 18, 1 << 17)
    assert (DEFAULT_SOFT_AGE_S, LATE_NOTE_S) == (1.0, 0.2)


@pytest.mark.parametrize("slow", ["thin", "disconnect"])
def test_messages_that_are_refused_take_no_room_while_the_peer_is_slow(slow: SlowPolicy) -> None:
    transport = Transport(slow=slow)
    transport.outbox.sysex = NO_SYSEX
    transport.outbox.stall()
    for at in range(1000):
        transport.outbox.offer(b"\xf0\x01\xf7", 1, float(at))
    assert transport.outbox.stats.sysex_refused == 1000
    assert not transport.outbox._backlog


@pytest.mark.parametrize("prefix", [b"\xb0\x58\x21", b"\xb0\x54\x3c"])
def test_a_late_note_takes_along_what_belongs_to_it_alone(prefix: bytes) -> None:
    transport = Followed()
    transport.outbox.stall()
    transport.say(b"\xb0\x07\x01", prefix, b"\x90\x3c\x40")
    assert transport.drain(2 * LATE_NOTE_S) == [b"\xb0\x07\x01"]
    stats = transport.outbox.stats
    assert (stats.messages, stats.late_notes) == (3, 2)
