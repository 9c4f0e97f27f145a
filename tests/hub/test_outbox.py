from __future__ import annotations

from midinet.hub.outbox import DEFAULT_MAX_OUTBOX, Outbox


class Transport:
    """Writes into a list, and counts overflows."""

    def __init__(self, max_bytes: int = 100, *, running_status: bool = False) -> None:
        self.written: list[bytes] = []
        self.overflows = 0
        self.outbox = Outbox(
            self.written.append, self.overflow, max_bytes=max_bytes, running_status=running_status
        )

    def overflow(self) -> None:
        self.overflows += 1


NOTE = b"\x90\x3c\x40"


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
    outbox.stalled = True
    for note in range(5):
        outbox.offer(bytes((0x90, note, 64)), 1, 0)
    assert transport.written == []
    assert outbox.backlog_bytes == 15
    assert outbox.drain(0) is False
    assert b"".join(transport.written) == b"".join(bytes((0x90, note, 64)) for note in range(5))
    assert outbox.backlog_bytes == 0


def test_a_long_backlog_is_handed_over_in_pieces() -> None:
    transport = Transport(max_bytes=10**6)
    outbox = transport.outbox
    outbox.stalled = True
    for _ in range(3):
        outbox.offer(bytes(65536), 1, 0)
    assert [outbox.drain(0), outbox.drain(0), outbox.drain(0), outbox.drain(0)] == [True, True, False, False]
    assert [len(piece) for piece in transport.written] == [65536] * 3


def test_past_its_bound_it_overflows_once_and_counts_what_it_drops() -> None:
    transport = Transport(max_bytes=6)
    outbox = transport.outbox
    outbox.stalled = True
    for _ in range(5):
        outbox.offer(NOTE, 1, 0)
    assert transport.overflows == 1
    assert outbox.stats.dropped == 3
    assert outbox.backlog_bytes == 6


def test_a_closed_outbox_drops_and_counts() -> None:
    transport = Transport()
    transport.outbox.stalled = True
    transport.outbox.offer(NOTE, 1, 0)
    transport.outbox.close()
    transport.outbox.offer(NOTE, 1, 0)
    assert transport.outbox.drain(0) is False
    assert transport.written == []
    assert transport.outbox.stats.dropped == 2


def test_running_status_follows_what_is_handed_over() -> None:
    transport = Transport(running_status=True)
    outbox = transport.outbox
    outbox.offer(NOTE, 1, 0.0)
    outbox.stalled = True
    outbox.offer(NOTE, 1, 0.1)
    outbox.offer(NOTE, 1, 0.2)
    outbox.drain(0.9)
    outbox.offer(NOTE, 1, 1.0)
    outbox.drain(1.0)
    assert transport.written == [NOTE, NOTE[1:] * 2, NOTE]
    assert outbox.stats.bytes == 10


def test_the_default_bound_is_1_mib() -> None:
    assert DEFAULT_MAX_OUTBOX == 1 << 20
