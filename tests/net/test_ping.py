"""Asking a peer for an answer: PING and PONG asides by a program's own wish."""

from __future__ import annotations

import asyncio

import mido.sockets
import pytest
from mido import Message

from midinet import PortClosed, PortServer, connect, sync
from midinet.wire.aside import ping, pong
from tests.harness.raw import RawPeer
from tests.harness.servers import portno, serving
from tests.harness.waiting import until


async def test_a_server_answers_and_says_how_many_clients_it_has() -> None:
    async with (
        PortServer("127.0.0.1", 0, relay=True) as server,
        connect(*server.addresses[0]) as port,
        connect(*server.addresses[0]),
    ):
        assert port.peer_clients is None
        assert 0 < await port.ping() < 20
        assert port.peer_clients == 2


async def test_pings_under_way_at_once_each_get_their_own_answer() -> None:
    async with PortServer("127.0.0.1", 0, relay=True) as server, connect(*server.addresses[0]) as port:
        assert len(await asyncio.gather(*(port.ping() for _ in range(20)))) == 20


async def test_nobody_hears_a_ping() -> None:
    async with (
        PortServer("127.0.0.1", 0, relay=True) as server,
        connect(*server.addresses[0]) as port,
        connect(*server.addresses[0]) as other,
    ):
        await port.ping()
        await port.send(Message("note_on", note=60))
        assert (await other.receive()).note == 60
        assert other.poll() is None
        assert port.poll() is None


async def test_a_port_of_mido_does_not_answer_and_is_not_harmed() -> None:
    with mido.sockets.PortServer("127.0.0.1", 0) as server:
        portno = server._socket.getsockname()[1]
        async with connect("127.0.0.1", portno) as port:
            client = server.accept()
            with pytest.raises(TimeoutError, match=r"did not answer within 0\.2 s"):
                await port.ping(0.2)
            await port.send(Message("note_on", note=61))
            assert (await asyncio.to_thread(client.receive)).note == 61
            client.close()


async def test_a_client_answers_its_server() -> None:
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]):
        client = await server.accept()
        assert await client.ping() > 0
        assert client.peer_clients is None


async def test_a_ping_ends_with_its_port() -> None:
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        client = await server.accept()
        # It goes out, and the port is closed before there can be an answer.
        asking_task = asyncio.create_task(port.ping())
        await asyncio.sleep(0)
        await port.close()
        with pytest.raises(PortClosed):
            await asking_task
        with pytest.raises(PortClosed):
            await port.ping()
        await client.wait_closed()
        with pytest.raises(PortClosed):
            await client.ping()


def test_the_blocking_port_pings_too() -> None:
    with sync.PortServer("127.0.0.1", 0) as server, sync.connect(*server.addresses[0]) as port:
        assert port.ping() > 0
        assert port.peer_clients == 1


async def test_a_whole_address_in_place_of_a_host() -> None:
    async with (
        PortServer("127.0.0.1", 0) as server,
        connect(f"127.0.0.1:{server.addresses[0][1]}") as port,
    ):
        assert port.peer == server.addresses[0]
    with pytest.raises(ValueError, match="host:port is expected"):
        connect("localhost")


async def test_pings_count_towards_the_rate_of_a_peer() -> None:
    async with serving(relay=True, max_rate=1.0) as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.ports)
        await peer.send(ping("1") * 100)
        (port,) = server.ports
        await until(lambda: port._link.held and port._link.parser.stats.bytes > len(ping("1")))
        assert 1 <= port._link.outbox.stats.bytes // len(pong("1", clients=1)) <= 3
