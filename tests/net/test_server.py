from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
from typing import Any

import pytest
from mido import Message

from midinet import CloseReason, ListenError, PortClosed, PortServer, SocketPort, UsageError, connect
from midinet.net.options import DEFAULT_CLOSE_TIMEOUT, DEFAULT_SEND_BUFFER
from midinet.net.server import DEFAULT_BACKLOG
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.wire.codec import PANIC_FRAMES, RESET_FRAMES
from tests.harness.certificates import certificates
from tests.harness.messages import note, off
from tests.harness.raw import RawPeer
from tests.harness.servers import portno, serving
from tests.harness.sizes import thorough
from tests.harness.waiting import until


def frame(number: int) -> bytes:
    return bytes((0x90, number, 64))


def off_frame(number: int) -> bytes:
    return bytes((0x80, number, 64))


async def in_order(server: PortServer, count: int) -> list[Message]:
    return [await server.receive() for _ in range(count)]


# Who gets what.


async def test_iterating_gives_what_clients_send_until_the_server_closes() -> None:
    heard = []
    async with serving() as server:

        async def listen() -> None:
            async for message in server:
                heard.append(message)

        listener = asyncio.create_task(listen())
        async with RawPeer(portno(server)) as peer:
            await peer.send(frame(1) + frame(2)[:2])
            await peer.send(frame(2)[2:])
            await until(lambda: len(heard) == 2)
        await server.close()
        await listener
    # What the peer still held when it ended is let go of in its name.
    assert heard == [note(1), note(2), off(1), off(2)]


async def test_a_client_that_comes_while_the_server_is_awaited_is_adopted() -> None:
    async with serving() as server:
        receiver = asyncio.create_task(server.receive())
        await asyncio.sleep(0)
        async with connect("127.0.0.1", portno(server)) as client:
            await client.send(note(5))
            assert await receiver == note(5)


@pytest.mark.parametrize("use", ["receive", "poll", "iterate", "iter_pending", "send"])
async def test_using_the_server_adopts_who_waits_and_loses_nothing(use: str) -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await peer.send(frame(1))
        await until(lambda: server.stats.clients_waiting == 1)
        assert server.ports == []
        if use == "receive":
            assert await server.receive() == note(1)
        elif use == "iterate":
            assert await anext(aiter(server)) == note(1)
        elif use == "send":
            await server.send(note(2))
            assert await peer.read(3) == frame(2)
            assert await server.receive() == note(1)
        elif use == "poll":
            await until(lambda: str(server.poll()) == str(note(1)))
        else:
            await until(lambda: list(server.iter_pending()) == [note(1)])
        assert len(server.ports) == 1
        assert server.stats.clients_waiting == 0


async def test_a_waiting_client_is_read_only_to_a_bound_and_nothing_is_lost() -> None:
    count = 30_000
    async with serving(max_inbox=10) as server, RawPeer(portno(server)) as peer:
        sending = asyncio.create_task(peer.send(b"".join([frame(n % 128) for n in range(count)])))
        await until(lambda: server.stats.bytes_received > 0)
        for _ in range(50):
            await asyncio.sleep(0)
        # Its share of one read, which is taken in whole.
        assert server.stats.messages_received < 10_000
        assert server.stats.clients_waiting == 1
        assert [message.note for message in await in_order(server, count)] == [n % 128 for n in range(count)]
        await sending


async def test_a_waiting_client_that_has_gone_keeps_what_it_said_until_it_is_adopted() -> None:
    async with serving() as server:
        async with RawPeer(portno(server)) as peer:
            await peer.send(frame(1))
        await until(lambda: server.stats.closed)
        assert (server.stats.clients, server.stats.clients_waiting) == (0, 1)
        assert await in_order(server, 2) == [note(1), off(1)]
        assert (server.stats.clients_waiting, server.ports) == (0, [])


async def test_a_waiting_client_that_has_gone_can_still_be_accepted() -> None:
    async with serving() as server:
        async with RawPeer(portno(server)) as peer:
            await peer.send(frame(1))
        await until(lambda: server.stats.closed)
        port = await server.accept()
        assert [message async for message in port] == [note(1), off(1)]
        with pytest.raises(PortClosed, match="closed by the peer"):
            await port.send(note(2))


async def test_a_waiting_client_that_has_gone_without_a_word_is_forgotten() -> None:
    async with serving() as server:
        async with RawPeer(portno(server)):
            await until(lambda: server.stats.clients_waiting == 1)
        await until(lambda: server.stats.closed)
        assert server.stats.clients_waiting == 0


async def test_a_waiting_client_that_has_gone_keeps_its_place_until_it_is_adopted() -> None:
    async with serving(max_clients=1) as server:
        async with RawPeer(portno(server)) as peer:
            await peer.send(frame(1))
        await until(lambda: server.stats.closed)
        async with RawPeer(portno(server)) as peer:
            assert await peer.read_to_end() == b""
        await until(lambda: server.stats.closed == {CloseReason.PEER: 1, CloseReason.BUSY: 1})
        assert server.poll() == note(1)
        async with RawPeer(portno(server)) as peer:
            await until(lambda: server.stats.clients == 1)


async def test_ports_are_given_with_yield_ports() -> None:
    async with (
        serving(yield_ports=True) as server,
        RawPeer(portno(server)) as a,
        RawPeer(portno(server)) as b,
    ):
        await a.send(frame(1))
        port, message = await server.receive()
        assert (port.peer, message) == (a.sock.getsockname(), note(1))
        await b.send(frame(2))
        port, message = await anext(aiter(server))
        assert (port.peer, message) == (b.sock.getsockname(), note(2))
        await port.send(note(3))
        assert await b.read(3) == frame(3)
        await a.send(frame(4))
        await until(lambda: [message for _, message in server.iter_pending()] == [note(4)])
        with pytest.raises(UsageError, match="through its server"):
            await port.receive()
        with pytest.raises(UsageError, match="through its server"):
            port.poll()


async def test_accept_gives_a_client_for_oneself() -> None:
    async with serving() as server, RawPeer(portno(server)) as first, RawPeer(portno(server)) as second:
        await first.send(frame(1))
        await second.send(frame(2))
        await until(lambda: server.stats.clients_waiting == 2)
        port = await server.accept()
        assert port.peer == first.sock.getsockname()
        assert await server.receive() == note(2)
        assert await port.receive() == note(1)
        await server.send(note(3))
        await port.send(note(4))
        assert await second.read(3) == frame(3)
        assert await first.read(3) == frame(4)
        assert [other.peer for other in server.ports] == [second.sock.getsockname()]


async def test_accept_waits_for_the_next_client_even_while_the_server_is_read() -> None:
    async with serving(relay=True) as server:
        receiver = asyncio.create_task(server.receive())
        acceptor = asyncio.create_task(server.accept())
        await asyncio.sleep(0)
        async with RawPeer(portno(server)) as mine:
            port = await acceptor
            assert port.peer == mine.sock.getsockname()
            async with RawPeer(portno(server)) as theirs:
                await theirs.send(frame(1))
                assert await receiver == note(1)


async def test_two_accepts_get_two_clients() -> None:
    async with serving() as server:
        acceptors = [asyncio.create_task(server.accept()) for _ in range(2)]
        await asyncio.sleep(0)
        async with RawPeer(portno(server)) as a, RawPeer(portno(server)) as b:
            ports = await asyncio.gather(*acceptors)
            assert {port.peer for port in ports} == {a.sock.getsockname(), b.sock.getsockname()}


async def test_a_relay_carries_to_everyone_but_the_sender() -> None:
    async with (
        serving(relay=True) as server,
        connect("127.0.0.1", portno(server)) as a,
        connect("127.0.0.1", portno(server)) as b,
        connect("127.0.0.1", portno(server)) as c,
    ):
        await until(lambda: len(server.ports) == 3)
        await a.send(note(1))
        assert [await b.receive(), await c.receive()] == [note(1), note(1)]
        await b.send(note(2))
        assert [await a.receive(), await c.receive()] == [note(2), note(2)]
        await server.send(note(3))
        assert [await port.receive() for port in (a, b, c)] == [note(3)] * 3
        assert [port.poll() for port in (a, b, c)] == [None] * 3


async def test_a_relay_can_be_read_as_well() -> None:
    async with serving(relay=True) as server, RawPeer(portno(server)) as a, RawPeer(portno(server)) as b:
        await until(lambda: len(server.ports) == 2)
        await a.send(frame(1))
        assert await b.read(3) == frame(1)
        assert server.poll() is None  # Nobody had read the server when it came.
        await a.send(frame(2))
        assert await b.read(3) == frame(2)
        assert await server.receive() == note(2)


async def test_a_relay_that_nobody_reads_does_not_fill_up() -> None:
    async with (
        serving(relay=True, max_inbox=4) as server,
        RawPeer(portno(server)) as a,
        RawPeer(portno(server)) as b,
    ):
        await until(lambda: len(server.ports) == 2)
        await a.send(frame(1) * 1000)
        assert await b.read(3000) == frame(1) * 1000


async def test_a_message_may_be_changed_after_it_was_sent() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        message = note(1)
        await server.send(message)
        message.note = 2
        await server.send(message)
        assert await peer.read(6) == frame(1) + frame(2)


async def test_reset_and_panic_reach_everyone() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        server.reset()
        server.panic()
        expected = b"".join(RESET_FRAMES + PANIC_FRAMES)
        assert await peer.read(len(expected)) == expected


async def test_what_is_said_to_all_and_to_one_stays_in_order() -> None:
    async with serving(yield_ports=True) as server, RawPeer(portno(server)) as peer:
        await peer.send(frame(0))
        port, _ = await server.receive()
        for number in range(0, 90, 3):
            await port.send(note(number))
            await server.send(note(number + 1))
            await port.send(note(number + 2))
        assert await peer.read(270) == b"".join(map(frame, range(90)))


async def test_running_status_is_written_where_asked_for() -> None:
    async with serving(running_status=True) as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        await server.send(note(1))
        await server.send(note(2))
        assert await peer.read(5) == frame(1) + frame(2)[1:]


# Peers that misbehave.

SCRIPT = bytes.fromhex("90 01 40 F0 01 02 03 F7 F8 C0 05 90 02 40 F2 01 02 90 03 40")


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_client_that_vanishes_at_any_byte_costs_nobody_a_message(how: str) -> None:
    async with serving() as server, connect("127.0.0.1", portno(server)) as good:
        for offset in range(len(SCRIPT) + 1):
            async with RawPeer(portno(server)) as bad:
                await bad.send(SCRIPT[:offset] + b"\xf8")
                while await server.receive() != Message("clock"):
                    pass
                while server.poll():
                    pass
                if how == "fin":
                    bad.sock.close()
                else:
                    bad.reset()
                await good.send(note(offset))
                assert await server.receive() == note(offset)
                await server.send(note(offset))
                assert await good.receive() == note(offset)
                await until(lambda: len(server.ports) == 1)
        reason = CloseReason.PEER if how == "fin" else CloseReason.LOST
        assert server.stats.closed == {reason: len(SCRIPT) + 1}
        assert server.stats.unfinished > 0
        assert server.stats.sysex_aborted > 0


async def test_what_a_client_sent_before_it_broke_off_is_delivered() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        await server.send(note(0))
        await until(lambda: server.stats.bytes_sent == 3)
        # Closing with unread data in the socket is a reset, which the server meets when it writes.
        await peer.send(frame(1) * 50)
        peer.sock.close()
        for _ in range(2):
            await server.send(note(0))
            server._hub.flush()
        assert await in_order(server, 50) == [note(1)] * 50


async def test_a_tls_client_is_let_go_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(relay=True) as server, RawPeer(portno(server)) as tls, RawPeer(portno(server)) as good:
        await until(lambda: len(server.ports) == 2)
        await tls.send(bytes.fromhex("16 03 01 02 00 01 90 3C 40"))
        with contextlib.suppress(ConnectionResetError):
            assert await tls.read_to_end() == b""
        await until(lambda: server.stats.clients == 1)
        assert server.stats.closed == {CloseReason.TLS: 1}
        assert "TLS" in caplog.text
        await good.send(frame(1) + b"\x16")
        await until(lambda: server.stats.messages_received == 1)
        assert server.stats.clients == 1


async def test_a_client_that_does_not_read_delays_nobody_and_is_let_go() -> None:
    async with (
        serving(slow="disconnect", max_outbox=10_000, send_buffer=4096, stall_timeout=None) as server,
        RawPeer(portno(server), receive_buffer=4096) as stalled,
        connect("127.0.0.1", portno(server)) as good,
    ):
        await until(lambda: server.stats.clients == 2)
        heard = 0
        while server.stats.clients == 2:
            for number in range(100):
                await server.send(note(number))
            for number in range(100):
                assert await good.receive() == note(number)
            heard += 100
            assert heard < 1_000_000
        stats = server.stats
        assert stats.closed == {CloseReason.SLOW: 1}
        assert stats.messages_dropped >= 3333
        data = await _read_what_came(stalled)
        assert data == (b"".join(map(frame, range(100))) * (heard // 100))[: len(data)]


async def test_a_client_that_does_not_read_delays_nobody_and_is_thinned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "midinet")
    async with (
        serving(soft_outbox=1000, send_buffer=4096, stall_timeout=None, dead_peer_timeout=None) as server,
        RawPeer(portno(server), receive_buffer=4096) as stalled,
        connect("127.0.0.1", portno(server)) as good,
    ):
        await until(lambda: server.stats.clients == 2)
        while not server.stats.messages_thinned:
            for number in range(100):
                await server.send(note(number, channel=1))
                await server.send(Message("note_off", note=number, channel=1))
            for number in range(100):
                assert await good.receive() == note(number, channel=1)
                await good.receive()
        await server.send(Message("control_change", control=7, value=99))
        # It reads again, and ends where everybody is.
        data = b""
        while not data.endswith(b"\xb0\x07\x63"):
            data += await stalled.read(1)
        await server.send(Message("stop"))
        assert await stalled.read(1) == b"\xfc"
        stats = server.stats
        assert (stats.clients, stats.closed, stats.slow_episodes) == (2, {}, 1)
        assert caplog.text.count("its backlog gave way") == 1
        assert (stats.messages_dropped, stats.messages_caught_up > 0) == (0, True)
        assert data.count(b"\x91") <= data.count(b"\x81")


@pytest.mark.parametrize("slow", ["thin", "disconnect"])
async def test_a_client_that_takes_nothing_for_long_is_let_go_either_way(
    slow: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(slow=slow, stall_timeout=0.2, soft_outbox=1000) as server,
        RawPeer(portno(server), receive_buffer=4096),
    ):
        await until(lambda: server.stats.clients == 1)
        while not server.ports or not server.ports[0]._link.outbox.stalled:
            await server.send(note(1))
        await until(lambda: server.stats.clients == 0)
        assert server.stats.closed == {CloseReason.SLOW: 1}
    assert caplog.text.count("is let go") == 1


async def _read_what_came(peer: RawPeer) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := await peer.read(1):
            data += more
    return data


async def test_a_burst_of_long_messages_leaves_turns_to_clients_that_read() -> None:
    async with serving() as server, connect("127.0.0.1", portno(server)) as client:
        await until(lambda: server.stats.clients == 1)
        message = Message("sysex", data=bytes(8000))

        async def send() -> None:
            for _ in range(250):
                await server.send(message)

        sender = asyncio.create_task(send())
        for _ in range(250):
            assert await client.receive() == message
        await sender
        assert (server.stats.messages_dropped, server.stats.slow_episodes) == (0, 0)


async def test_a_client_that_reads_again_in_time_misses_nothing() -> None:
    async with (
        serving(slow="disconnect") as server,
        RawPeer(portno(server), receive_buffer=4096) as slow,
    ):
        await until(lambda: server.stats.clients == 1)
        sent = 0
        while not server.ports or not server.ports[0]._link.outbox.backlog_bytes > 50_000:
            await server.send(note(sent % 128))
            sent += 1
        expected = b"".join(frame(number % 128) for number in range(sent))
        assert await slow.read(3 * sent) == expected
        assert server.stats.messages_dropped == 0
        await server.send(note(1))
        assert await slow.read(3) == frame(1)


async def test_a_full_inbox_makes_senders_wait_and_drops_nothing() -> None:
    sent, enough = 0, False
    async with (
        serving(max_inbox=100) as server,
        # Disconnecting, for with it every note-on is sent, however late.
        connect("127.0.0.1", portno(server), slow="disconnect") as client,
    ):
        await server.send(note(0))

        async def send() -> None:
            nonlocal sent
            # As many as the system takes, which is 100,000 on Linux, and then some that have to wait.
            while not enough:
                await client.send(note(sent % 128))
                sent += 1

        sender = asyncio.create_task(send())
        looks: list[bool] = []
        # Not only for the moment that the system takes to make room.
        await until(lambda: looks.append(client._link.outbox.stalled) or looks[-15:] == [True] * 15)
        before = (sent, server.stats.messages_received)
        for _ in range(50):
            await asyncio.sleep(0)
        assert (sent, server.stats.messages_received) == before
        enough = True
        heard = 0
        while heard < sent or not sender.done():
            assert (await server.receive()).note == heard % 128
            heard += 1
        await sender
        assert server.poll() is None


async def test_one_flooding_client_leaves_turns_to_the_others() -> None:
    async with serving() as server, RawPeer(portno(server)) as flood, RawPeer(portno(server)) as good:
        task = asyncio.create_task(flood.send(frame(1) * 30_000))
        heard = 0
        async for message in server:
            heard += message == note(1)
            if heard == 5000:
                await good.send(frame(2))
            if message == note(2):
                break
        assert 5000 <= heard < 30_000
        await flood_out(server, 30_000 - heard)
        await task


async def flood_out(server: PortServer, count: int) -> None:
    for _ in range(count):
        assert await server.receive() == note(1)


# Closing.


@pytest.mark.parametrize("relay", [True, False])
async def test_closing_one_port_costs_the_others_nothing(relay: bool) -> None:
    async with (
        serving(relay=relay) as server,
        RawPeer(portno(server)) as leaving,
        RawPeer(portno(server)) as staying,
        RawPeer(portno(server)) as talking,
    ):
        await until(lambda: server.stats.clients == 3)
        await server.send(note(0))
        [port] = [port for port in server.ports if port.peer == leaving.sock.getsockname()]
        # It does not close its own side, so the end takes a while.
        closing = asyncio.create_task(port.close())
        await asyncio.sleep(0)
        for number in range(20):
            await server.send(note(number))
            if relay:
                await talking.send(frame(number))
        expected = 20 if not relay else 40
        data = await staying.read(3 + 3 * expected)
        assert len(data) == 3 + 3 * expected
        assert port not in server.ports
        assert await leaving.read_to_end() == frame(0) + off_frame(0)
        await closing


async def test_a_storm_of_clients_while_the_server_closes_is_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(5):
        async with serving() as server, contextlib.AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(RawPeer(portno(server))) for _ in range(30)]
            await server.close()
            for peer in peers:
                with contextlib.suppress(ConnectionResetError):
                    assert await peer.read_to_end() == b""
            assert server.stats.clients == 0
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_closing_sends_what_is_left_and_then_the_end() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        for number in range(100):
            await server.send(note(number))
        await server.close()
        notes_and_offs = [*map(frame, range(100)), *map(off_frame, range(100))]
        assert await peer.read_to_end() == b"".join(notes_and_offs)
        assert server.closed
        assert server.stats.closed == {CloseReason.LOCAL: 1}


async def test_closing_drops_nothing_for_a_client_that_is_still_sending() -> None:
    async with serving(release_notes=False) as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        await server.send(note(0))
        await peer.send(frame(1) * 1000)
        for number in range(100):
            await server.send(note(number))
        closing = asyncio.create_task(server.close())
        for _ in range(10):
            await peer.send(frame(1) * 10)
        assert await peer.read_to_end() == frame(0) + b"".join(map(frame, range(100)))
        await closing


async def test_closing_empties_the_backlog_of_a_slow_client() -> None:
    async with (
        serving(slow="disconnect", release_notes=False) as server,
        RawPeer(portno(server), receive_buffer=4096) as slow,
    ):
        await until(lambda: server.stats.clients == 1)
        sent = 0
        while not server.ports or not server.ports[0]._link.outbox.backlog_bytes > 50_000:
            await server.send(note(sent % 128))
            sent += 1
        closing = asyncio.create_task(server.close())
        assert len(await slow.read_to_end()) == 3 * sent
        await closing


async def test_closing_waits_no_longer_than_told_for_a_client_that_does_not_read() -> None:
    async with (
        serving(slow="disconnect", close_timeout=0.05) as server,
        RawPeer(portno(server), receive_buffer=4096) as stalled,
    ):
        await until(lambda: server.stats.clients == 1)
        while not server.ports or not server.ports[0]._link.outbox.backlog_bytes > 50_000:
            await server.send(note(1))
        async with asyncio.timeout(2):
            await server.close()
        assert server.stats.messages_dropped > 0
        assert stalled.sock.fileno() >= 0


async def test_closing_is_idempotent_and_ends_everything_that_waits() -> None:
    async with serving() as server, RawPeer(portno(server)):
        await until(lambda: server.stats.clients == 1)
        port = await server.accept()
        waiters = [
            asyncio.create_task(server.receive()),
            asyncio.create_task(server.accept()),
            asyncio.create_task(port.receive()),
        ]
        closed = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        assert not closed.done()
        await asyncio.gather(server.close(), server.close())
        await server.close()
        await closed
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [PortClosed] * 3
        for call in (server.send(note(1)), server.receive(), server.accept(), port.send(note(1))):
            with pytest.raises(PortClosed):
                await call
        assert [message async for message in server] == []
        server.reset()
        server.panic()


async def test_what_had_arrived_can_be_read_after_closing() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        await server.send(note(0))
        await peer.send(frame(1) * 3)
        await until(lambda: len(server._inbox) == 3)
        await server.close()
        assert [message async for message in server] == [note(1)] * 3 + [off(1)] * 3
        assert server.poll() is None


async def test_a_server_that_never_started_closes() -> None:
    server = PortServer("127.0.0.1", 0)
    await server.close()
    await server.wait_closed()
    assert server.closed


# Cancelling.


async def test_cancelling_what_waits_loses_nothing() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        for number in range(20):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await server.receive()
            acceptor = asyncio.create_task(server.receive())
            await asyncio.sleep(0)
            await peer.send(frame(number))
            acceptor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await acceptor == note(number)
                continue
            assert await server.receive() == note(number)


def cancel_when_handed_over(server: PortServer, monkeypatch: pytest.MonkeyPatch) -> asyncio.Task[SocketPort]:
    """Begin to accept, and cancel that in the same turn of the loop in which a client comes for it."""
    acceptor = asyncio.create_task(server.accept())
    place = server._place_waiting

    def place_and_cancel() -> None:
        place()
        acceptor.cancel()

    monkeypatch.setattr(server, "_place_waiting", place_and_cancel)
    return acceptor


async def test_cancelling_accept_loses_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        acceptor = cancel_when_handed_over(server, monkeypatch)
        await asyncio.sleep(0)
        async with RawPeer(portno(server)) as peer:
            with pytest.raises(asyncio.CancelledError):
                await acceptor
            assert (await server.accept()).peer == peer.sock.getsockname()


@pytest.mark.parametrize("relay", [True, False])
async def test_cancelling_accept_adopts_the_client_for_who_would_hear_it(
    relay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(relay=relay) as server:
        receiver = asyncio.create_task(server.receive())
        acceptor = cancel_when_handed_over(server, monkeypatch)
        await asyncio.sleep(0)
        async with RawPeer(portno(server)) as peer:
            await peer.send(frame(1))
            with pytest.raises(asyncio.CancelledError):
                await acceptor
            assert await receiver == note(1)


async def test_cancelling_one_of_two_accepts_leaves_the_client_to_the_other() -> None:
    async with serving(relay=True) as server:
        acceptors = [asyncio.create_task(server.accept()) for _ in range(2)]
        await asyncio.sleep(0)
        acceptors[0].cancel()
        async with RawPeer(portno(server)) as peer:
            assert (await acceptors[1]).peer == peer.sock.getsockname()


async def test_of_two_clients_that_come_at_once_one_is_accepted_and_one_adopted() -> None:
    async with serving(relay=True) as server:
        acceptor = asyncio.create_task(server.accept())
        await asyncio.sleep(0)
        async with RawPeer(portno(server)), RawPeer(portno(server)):
            await acceptor
            await until(lambda: len(server.ports) == 1)
            assert server.stats.clients_waiting == 0


async def test_cancelling_close_stops_the_waiting_only() -> None:
    async with serving() as server, RawPeer(portno(server)):
        await until(lambda: server.stats.clients == 1)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await server.wait_closed()
        assert server.stats.clients == 0


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_the_start_at_any_step_leaves_nothing_deaf(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = asyncio.get_running_loop().getaddrinfo
    addresses = await real("127.0.0.1", 0, type=socket.SOCK_STREAM)

    async def at_once(*args: Any, **hints: Any) -> Any:
        return addresses

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", at_once)
    starting = asyncio.ensure_future(PortServer("127.0.0.1", 0)._start())
    for _ in range(turns):
        await asyncio.sleep(0)
    if starting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await starting
    else:
        await (await starting).close()
    async with serving() as server, RawPeer(portno(server)) as peer:
        await peer.send(frame(1))
        assert await server.receive() == note(1)


@pytest.mark.parametrize("call", ["receive", "accept", "send", "iterate", "poll", "wait_closed", "reset"])
async def test_a_server_that_is_not_started_says_so(call: str) -> None:
    server = PortServer("127.0.0.1", 0)

    async def use() -> None:
        if call == "send":
            await server.send(note(1))
        elif call == "iterate":
            await anext(aiter(server))
        elif call in ("poll", "reset"):
            getattr(server, call)()
        else:
            await getattr(server, call)()

    with pytest.raises(UsageError, match="not started"):
        await use()


async def test_a_server_that_was_closed_does_not_start() -> None:
    server = PortServer("127.0.0.1", 0)
    await server.close()
    with pytest.raises(PortClosed):
        async with server:
            pytest.fail("it cannot have started")


# Addresses and sockets.


async def test_no_host_listens_on_ipv4_and_ipv6_with_one_port_number() -> None:
    async with PortServer("", 0, release_notes=False) as server:
        assert {address for address, _ in server.addresses} == {"0.0.0.0", "::"}
        assert len({number for _, number in server.addresses}) == 1
        for host in ("127.0.0.1", "::1"):
            async with RawPeer(portno(server), host=host) as peer:
                await peer.send(frame(1))
                assert await server.receive() == note(1)


async def test_it_says_its_name_and_shows_itself() -> None:
    async with serving() as server:
        assert server.name == f"127.0.0.1:{portno(server)}"
        assert repr(server) == f"<open PortServer {server.name}, 0 clients>"
    assert repr(server) == f"<closed PortServer {server.name}, 0 clients>"


async def test_a_port_in_use_is_an_error_of_the_network() -> None:
    async with serving() as server:
        with pytest.raises(ListenError, match="in use"):
            await PortServer("127.0.0.1", portno(server))
        with pytest.raises(OSError, match="in use"):
            async with PortServer("127.0.0.1", portno(server)):
                pytest.fail("it cannot have started")


async def test_a_server_starts_once() -> None:
    server = await PortServer("127.0.0.1", 0)
    async with server:
        with pytest.raises(UsageError, match="before"):
            await server


async def test_small_messages_are_not_held_back_and_send_buffers_are_small() -> None:
    async with serving() as server, connect("127.0.0.1", portno(server)) as client:
        port = await server.accept()
        for end in (port, client):
            sock = end._link.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            # Linux reports twice what was asked for.
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * DEFAULT_SEND_BUFFER


@thorough("wanted", quick=600, full=3_000)
async def test_more_clients_than_1024_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * wanted + 200:
        pytest.skip(f"the system allows {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * wanted + 200), hard))
    try:
        async with (
            serving(relay=True, max_clients=wanted) as server,
            contextlib.AsyncExitStack() as stack,
        ):
            peers = [await stack.enter_async_context(RawPeer(portno(server))) for _ in range(wanted)]
            await until(lambda: len(server.ports) == wanted)
            await peers[0].send(frame(1))
            assert [await peer.read(3) for peer in peers[1:]] == [frame(1)] * (wanted - 1)
            assert max(peer.sock.fileno() for peer in peers) > 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_counts_add_up_over_clients_that_come_and_go() -> None:
    async with serving(release_notes=False) as server:
        for _ in range(3):
            async with RawPeer(portno(server)) as peer:
                await peer.send(frame(1) + b"\x05\xf7\xf4\x90")
                assert await server.receive() == note(1)
                await server.send(note(2))
                await peer.read(3)
        await until(lambda: server.stats.clients == 0)
        stats = server.stats
        assert (stats.clients_total, stats.messages_received, stats.messages_sent) == (3, 3, 3)
        assert (stats.bytes_received, stats.bytes_sent) == (21, 9)
        # 05 goes on under running status, and F7 cuts it off.
        assert (stats.unfinished, stats.stray_ends, stats.undefined, stats.stray_data) == (6, 3, 3, 0)


async def test_a_client_that_comes_as_the_server_closes_is_let_go() -> None:
    async with serving() as server:
        async with RawPeer(portno(server)) as peer:
            await server.close()
            with contextlib.suppress(ConnectionResetError):
                assert await peer.read_to_end() == b""
        await until(lambda: server.stats.clients == 0)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("max_sysex", 1), ("max_inbox", 0), ("max_outbox", 0), ("send_buffer", 0), ("close_timeout", -1)],
)
def test_limits_out_of_range_are_refused(limit: str, value: int) -> None:
    with pytest.raises(ValueError, match=limit):
        PortServer("127.0.0.1", 0, **{limit: value})


def test_the_documented_defaults() -> None:
    assert (DEFAULT_BACKLOG, DEFAULT_SEND_BUFFER, DEFAULT_CLOSE_TIMEOUT) == (1024, 65536, 2.0)


async def test_an_unheard_port_is_a_socket_port() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        await server.send(note(1))
        [port] = server.ports
        assert isinstance(port, SocketPort)
        assert not port.closed
        peer.sock.close()
        await until(lambda: port.closed)
        await port.wait_closed()


# A client that resets while others play.


@pytest.mark.parametrize("tls", [False, True])
async def test_nothing_is_written_to_a_client_that_is_going(
    tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificates()
    context = tls_server_context(files.server_cert, files.server_key) if tls else None

    def open_client(number: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", number))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return tls_client_context(files.ca).wrap_socket(sock, server_hostname="127.0.0.1") if tls else sock

    async with serving(relay=True, ssl=context) as server:
        sock = await asyncio.to_thread(open_client, portno(server))
        await until(lambda: server.ports)
        (port,) = server.ports
        sock.close()
        # All of it before the loop can tell that the client has gone.
        for number in range(20):
            server._say(frame(number), 1)
            server._hub.flush()
        await until(lambda: port._link.lost)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
