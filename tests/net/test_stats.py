"""Every count can be reached, and every reason for which a connection ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from typing import Any

import pytest
from mido import Message

from midinet import CloseReason, ConnectionLost, PortServer, SocketPort, connect
from midinet.net.port import PortState
from midinet.net.stats import MAX_REMEMBERED, PortStats, ServerStats
from midinet.wire.aside import MAX_ASIDE_BYTES, answer, hello
from tests.harness.clock import Clock
from tests.harness.proxy import FaultyProxy
from tests.harness.raw import RawPeer
from tests.harness.servers import portno, serving
from tests.harness.waiting import PATIENCE_S, until

NOTE = b"\x90\x3c\x40"
TOKEN = "open-sesame"


# Reasons. Each scenario ends one connection, and returns the server that it was to.

Scenario = Callable[[], "contextlib.AbstractAsyncContextManager[PortServer]"]


@contextlib.asynccontextmanager
async def closed_here() -> AsyncIterator[PortServer]:
    async with serving() as server, RawPeer(portno(server)):
        port = await server.accept()
        await port.close()
        yield server


@contextlib.asynccontextmanager
async def closed_by_the_peer() -> AsyncIterator[PortServer]:
    async with serving(relay=True) as server, RawPeer(portno(server)) as peer:
        peer.finish()
        yield server


@contextlib.asynccontextmanager
async def broken() -> AsyncIterator[PortServer]:
    async with serving(relay=True) as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.ports)
        peer.reset()
        yield server


@contextlib.asynccontextmanager
async def vanished() -> AsyncIterator[PortServer]:
    """It has said that it speaks asides, and then answers to none. Its system still takes what is sent."""
    clock = Clock()
    async with serving(relay=True, dead_peer_timeout=2) as server, RawPeer(portno(server)) as peer:
        await peer.send(hello())
        await until(lambda: server.stats.asides)
        await clock.skip_until(lambda: server.stats.closed)
        yield server


@contextlib.asynccontextmanager
async def too_slow() -> AsyncIterator[PortServer]:
    async with (
        serving(slow="disconnect", max_outbox=1000, send_buffer=4096) as server,
        RawPeer(portno(server), receive_buffer=2048),
    ):
        await until(lambda: server.stats.clients)
        async with asyncio.timeout(PATIENCE_S):
            while server.stats.clients:
                await server.send(Message("sysex", data=[1] * 500))
                await asyncio.sleep(0)
        yield server


@contextlib.asynccontextmanager
async def speaking_tls() -> AsyncIterator[PortServer]:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await peer.send(b"\x16\x03\x01\x02\x00\x01")
        yield server


@contextlib.asynccontextmanager
async def speaking_http() -> AsyncIterator[PortServer]:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + NOTE)
        yield server


@contextlib.asynccontextmanager
async def not_allowed() -> AsyncIterator[PortServer]:
    async with serving(allow=[]) as server, RawPeer(portno(server)):
        yield server


@contextlib.asynccontextmanager
async def without_a_token() -> AsyncIterator[PortServer]:
    async with serving(tokens=[TOKEN]) as server, RawPeer(portno(server)) as peer:
        await peer.send(hello(token="wrong"))
        yield server


@contextlib.asynccontextmanager
async def one_too_many() -> AsyncIterator[PortServer]:
    async with serving(max_clients=1) as server, RawPeer(portno(server)):
        await until(lambda: server.stats.clients)
        async with RawPeer(portno(server)) as second:
            await second.send(hello("second"))
            yield server


REASONS: dict[CloseReason, Scenario] = {
    CloseReason.LOCAL: closed_here,
    CloseReason.PEER: closed_by_the_peer,
    CloseReason.LOST: broken,
    CloseReason.TIMEOUT: vanished,
    CloseReason.SLOW: too_slow,
    CloseReason.TLS: speaking_tls,
    CloseReason.HTTP: speaking_http,
    CloseReason.NOT_ALLOWED: not_allowed,
    CloseReason.UNAUTHORIZED: without_a_token,
    CloseReason.BUSY: one_too_many,
}
TURNED_AWAY = {
    CloseReason.TLS,
    CloseReason.HTTP,
    CloseReason.NOT_ALLOWED,
    CloseReason.UNAUTHORIZED,
    CloseReason.BUSY,
}


@pytest.mark.parametrize("reason", list(CloseReason), ids=lambda reason: reason.name)
async def test_a_connection_ends_for_each_reason(
    reason: CloseReason, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "midinet")
    # A reason that was added and has no scenario fails here.
    async with REASONS[reason]() as server:
        await until(lambda: server.closed_connections)
        assert [connection.reason for connection in server.closed_connections] == [reason]
        assert server.stats.closed == {reason: 1}
        assert server.stats.turned_away == (reason in TURNED_AWAY)
        ended = server.closed_connections[0]
        assert ended.peer[0] == "127.0.0.1"
        assert ended.name.startswith("127.0.0.1:")
        assert 0 <= ended.seconds < PATIENCE_S
        assert reason.value in caplog.text


# Counts, of one connection. Each scenario makes a count more than nothing.


def bytes_in(data: bytes, **options: Any) -> Callable[[], Awaitable[PortStats]]:
    """What a client counts for that sends this and closes."""

    async def scenario() -> PortStats:
        async with serving(relay=True, **options) as server:
            async with RawPeer(portno(server)) as peer:
                await peer.send(data)
                peer.finish()
                await until(lambda: server.closed_connections)
            return server.closed_connections[0].stats

    return scenario


async def heard_something() -> PortStats:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients)
        await server.send(Message("note_on"))
        await peer.read(3)
        return server.ports[0].stats


async def gone_before_it_heard() -> PortStats:
    async with serving() as server, RawPeer(portno(server), receive_buffer=2048):
        await until(lambda: server.stats.clients)
        port = await stalled(server)
        port._link.abort()
        await until(lambda: server.closed_connections)
        return server.closed_connections[0].stats


async def stalled(server: PortServer) -> SocketPort:
    """Send notes until the only client's system takes no more, and one that waits."""
    await server.send(Message("stop"))
    port = server.ports[0]
    async with asyncio.timeout(PATIENCE_S):
        # What is stalled may flow again: acknowledgements take their time (RFC 9293 section 3.8.6.3).
        while not port._link.outbox.stalled:
            for number in range(128):
                await server.send(Message("note_on", note=number))
            await asyncio.sleep(0)
            if port._link.outbox.stalled:
                await asyncio.sleep(0.25)
    await server.send(Message("note_on", note=1, channel=1))
    await asyncio.sleep(0)
    return port


async def caught_up() -> PortStats:
    async with (
        serving(soft_outbox=100, send_buffer=4096) as server,
        RawPeer(portno(server), receive_buffer=2048) as peer,
    ):
        await until(lambda: server.stats.clients)
        port = await stalled(server)
        for number in range(50):
            await server.send(Message("control_change", control=number))
        await until(lambda: port.stats.slow_episodes)
        while port._link.outbox.stalled:
            await peer.read(1)
            peer.read_nowait(65536)
        return port.stats


async def late() -> PortStats:
    clock = Clock()
    async with serving(send_buffer=4096) as server, RawPeer(portno(server), receive_buffer=2048) as peer:
        await until(lambda: server.stats.clients)
        port = await stalled(server)
        await server.send(Message("clock"))
        # Until the note that waits has waited too long.
        await clock.skip(0.3)
        while port._link.outbox.stalled:
            await peer.read(1)
            peer.read_nowait(65536)
        return port.stats


async def refused_before_the_hello() -> PortStats:
    async with serving(tokens=[TOKEN], relay=True) as server, RawPeer(portno(server)) as peer:
        await peer.send(NOTE * 2 + hello(token=TOKEN))
        await until(lambda: server.ports)
        return server.ports[0].stats


async def not_read() -> PortStats:
    clock = Clock()
    async with serving() as server, RawPeer(portno(server)) as peer:
        port = await server.accept()
        await peer.send(NOTE * 2000)
        await until(lambda: port._link.held)
        await clock.skip(7.0)
        await until(lambda: port.stats.messages_received == 2000)
        return port.stats


async def connected_again() -> PortStats:
    async with (
        serving(relay=True) as server,
        FaultyProxy(portno(server)) as proxy,
        connect("127.0.0.1", proxy.portno, reconnect=True) as port,
    ):
        await proxy.cut()
        await until(lambda: port.stats.reconnects)
        return port.stats


COUNTS: dict[str, Callable[[], Awaitable[PortStats]]] = {
    "stray_data": bytes_in(b"\x01\x02"),
    "stray_ends": bytes_in(b"\xf7"),
    "asides": bytes_in(hello()),
    "aside_bytes": bytes_in(hello()),
    "asides_malformed": bytes_in(b"\xf7MIDINET/1 HELLO\r\nno header\r\n\r\n"),
    "asides_too_long": bytes_in(b"\xf7MIDINET/1 HELLO\r\nX: " + b"x" * MAX_ASIDE_BYTES),
    "asides_unknown": bytes_in(b"\xf7MIDINET/1 DANCE\r\n\r\n"),
    "asides_aborted": bytes_in(b"\xf7MIDINET/1 HELLO" + NOTE),
    "aside_headers_unknown": bytes_in(b"\xf7MIDINET/1 HELLO\r\nMood: good\r\n\r\n"),
    "undefined": bytes_in(b"\xf4\xfd"),
    "unfinished": bytes_in(b"\x90\x3c"),
    "sysex_aborted": bytes_in(b"\xf0\x41" + NOTE),
    "sysex_too_long": bytes_in(b"\xf0" + bytes(100) + b"\xf7", max_sysex=50),
    "messages_received": bytes_in(NOTE),
    "bytes_received": bytes_in(NOTE),
    "messages_refused": refused_before_the_hello,
    "sysex_refused": bytes_in(b"\xf0\x41\xf7", sysex=False),
    "messages_unread": not_read,
    "messages_sent": heard_something,
    "bytes_sent": heard_something,
    "messages_dropped": gone_before_it_heard,
    "messages_thinned": caught_up,
    "late_notes": late,
    "late_clocks": late,
    "messages_caught_up": caught_up,
    "slow_episodes": caught_up,
    "reconnects": connected_again,
}


@pytest.mark.parametrize("count", [count.name for count in fields(PortStats)])
async def test_each_count_can_be_more_than_nothing(count: str) -> None:
    # A count that was added and has no scenario fails here.
    assert getattr(await COUNTS[count](), count) > 0


def test_a_count_of_nothing_is_nothing() -> None:
    assert not any(getattr(PortStats(), count.name) for count in fields(PortStats))


# Sums, over all the clients of a server.


async def test_a_server_counts_those_who_are_there_and_those_who_have_gone() -> None:
    async with serving(tokens=[TOKEN]) as server:
        assert server.stats == ServerStats()
        async with RawPeer(portno(server)) as first, RawPeer(portno(server)):
            await first.send(NOTE + hello(token=TOKEN) + NOTE * 2)
            # With something unread it would end by a reset.
            await first.read(len(answer(200)))
            await until(lambda: server.stats.clients == server.stats.clients_waiting == 1)
            await until(lambda: server.stats.visitors == 1)
            await server.receive()
            assert (server.stats.clients, server.stats.clients_waiting) == (1, 0)
            assert (server.stats.clients_total, server.stats.turned_away) == (1, 0)
            there = server.stats
        await until(lambda: not server.stats.clients and not server.stats.visitors)
        gone = server.stats
        assert (gone.clients_total, gone.turned_away) == (1, 1)
        assert gone.closed == {CloseReason.PEER: 2}
        for stats in (there, gone):
            assert (stats.messages_received, stats.messages_refused) == (3, 1)
            assert stats.asides == 1


async def test_stats_are_a_picture_of_their_moment() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        before = server.stats
        await peer.send(NOTE)
        await server.receive()
        peer.finish()
        await until(lambda: server.closed_connections)
        assert before == ServerStats()
        server.stats.closed.clear()
        server.closed_connections.clear()
        assert server.stats.closed == {CloseReason.PEER: 1}
        assert len(server.closed_connections) == 1


async def test_what_a_server_counts_is_the_sum_of_what_is_remembered() -> None:
    async with serving(relay=True) as server:
        for number in range(1, 6):
            async with RawPeer(portno(server)) as peer:
                await peer.send(NOTE * number + b"\xf4")
            await until(lambda number=number: len(server.closed_connections) == number)
        assert [ended.stats.messages_received for ended in server.closed_connections] == [1, 2, 3, 4, 5]
        total = PortStats()
        for ended in server.closed_connections:
            total.add(ended.stats)
        for count in fields(PortStats):
            assert getattr(server.stats, count.name) == getattr(total, count.name)


async def test_a_server_remembers_the_last_thousand_connections() -> None:
    assert MAX_REMEMBERED == 1000
    async with serving(relay=True, allow=[]) as server:
        for _ in range(11):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(100):
                    await stack.enter_async_context(RawPeer(portno(server)))
        await until(lambda: server.stats.closed[CloseReason.NOT_ALLOWED] == 1100)
        remembered = server.closed_connections
        assert len(remembered) == 1000
        async with RawPeer(portno(server)) as peer:
            last = peer.sock.getsockname()
            await until(lambda: server.stats.turned_away == 1101)
        # The oldest has gone, the newest is at the end.
        assert server.closed_connections[:-1] == remembered[1:]
        assert server.closed_connections[-1].peer == last


async def test_a_remembered_connection_has_its_name_duration_and_totals() -> None:
    async with serving(relay=True) as server:
        async with connect("127.0.0.1", portno(server), name="stage-left") as port:
            await port.send(Message("stop"))
            await server.receive()
            await asyncio.sleep(0.05)
        await until(lambda: server.closed_connections)
        (ended,) = server.closed_connections
        assert (ended.name, ended.reason) == ("stage-left", CloseReason.PEER)
        assert 0.05 <= ended.seconds < 5
        assert ended.stats.messages_received == 1


async def test_the_counts_of_a_port_go_on_over_its_connections() -> None:
    clock = Clock()
    async with (
        serving(relay=True) as server,
        FaultyProxy(portno(server)) as proxy,
        connect("127.0.0.1", proxy.portno, reconnect=True) as port,
    ):
        for number in range(3):
            await port.send(Message("song_select", song=number))
            assert (await server.receive()).song == number
            assert port.stats.messages_sent == number + 1
            assert port.stats.bytes_sent == 2 * (number + 1)
            assert port.stats.reconnects == number
            await proxy.cut()
            await until(lambda number=number: port.state is not PortState.CONNECTED)
            await clock.skip(5.0)
            await until(lambda number=number: port.stats.reconnects == number + 1)


async def read_to_the_end(port: SocketPort) -> None:
    async for _ in port:
        pass


async def test_the_counts_of_a_port_stay_when_it_is_closed() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        port = await server.accept()
        await peer.send(NOTE * 3)
        peer.reset()
        with pytest.raises(ConnectionLost):
            await read_to_the_end(port)
        assert port.stats.messages_received == 3
