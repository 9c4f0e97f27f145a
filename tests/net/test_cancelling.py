"""Cancelling every public coroutine at each of its awaits, one after the other.

Two ways, since they fail differently. "at once": while what is awaited has not happened. "late": in the turn
of the loop in which it has, so that the coroutine has been given something and does not know yet.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import socket
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from mido import Message

from midinet import CloseReason, ConnectError, PortClosed, PortServer, connect
from midinet.net import client as client_module
from midinet.net.link import Link
from midinet.net.port import FAIR_SPREE, PortState
from midinet.net.tls import tls_client_context, tls_server_context
from tests.harness import servers
from tests.harness.certificates import certificates
from tests.harness.clock import Clock
from tests.harness.messages import note
from tests.harness.raw import RawListener, RawPeer, reset
from tests.harness.servers import portno
from tests.harness.waiting import PATIENCE_S, until

WAYS = pytest.mark.parametrize("way", ["at once", "late"])
TOKEN = "let-me-in"

# More awaits than any coroutine here has: beyond it, cancelling has no effect.
MOST_AWAITS = 40


@types.coroutine
def _cancelled_at(awaitable: Any, turn: int, way: str) -> Generator[Any, Any, Any]:
    """Run something to its end, and have the task cancelled at its `turn`th await."""
    task = asyncio.current_task()
    assert task is not None
    iterator = awaitable.__await__()
    failure: BaseException | None = None
    awaits = 0
    while True:
        try:
            # A future gives what it has through itself: what is sent is always None.
            waited = next(iterator) if failure is None else iterator.throw(failure)
        except StopIteration as stop:
            return stop.value
        failure = None
        awaits += 1
        if awaits == turn:
            if way == "late" and waited is not None:
                # Before the task itself is told: it has not asked to be yet.
                waited.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            yield waited
        except BaseException as error:
            failure = error


async def cancelled(awaitable: Any, turn: int, way: str) -> tuple[bool, Any]:
    """Await something in a task that is cancelled at its `turn`th await, from 1.

    Returns whether it was cancelled, and what came of it otherwise.
    """

    async def run() -> Any:
        return await _cancelled_at(awaitable, turn, way)

    task = asyncio.create_task(run())
    await asyncio.wait([task], timeout=PATIENCE_S)
    assert task.done(), "it did not end when it was cancelled"
    if task.cancelled():
        return True, None
    return False, task.result()


async def at_each_await(
    way: str, once: Callable[[int, str], Coroutine[Any, Any, bool]], *, least: int
) -> None:
    """Do something, cancelled at its first await, then at its second, until it gets through.

    Args:
        once: does it, looks at what it left, and returns whether it was cancelled.
        least: how many awaits there are to be at least, so that this has something to do.
    """
    for turn in range(1, MOST_AWAITS):
        if not await once(turn, way):
            assert turn > least
            return
    raise AssertionError("it never got through")


@pytest.fixture(scope="module", autouse=True)
def _quick_to_collect() -> Any:
    # What was there before is looked at no more: each test collects what it left.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_is_left(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Link) and not thing.lost]


serving = functools.partial(servers.serving, close_timeout=0.3)


async def gone(server: PortServer) -> None:
    """Wait until nobody is there, known or not."""
    await until(lambda: not server._all and not server.stats.visitors and not server._crowd.clients)


# A server.


@WAYS
async def test_a_start_that_is_cancelled_listens_to_nobody(way: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]

    async def once(turn: int, way: str) -> bool:
        server = PortServer("127.0.0.1", number)
        was_cancelled, _ = await cancelled(server, turn, way)
        assert server.closed == was_cancelled
        await server.close()
        with pytest.raises(ConnectionRefusedError):
            async with RawPeer(number):
                pass
        return was_cancelled

    await at_each_await(way, once, least=1)


@WAYS
@pytest.mark.parametrize("call", ["close", "__aexit__", "wait_closed"])
async def test_closing_a_server_goes_on_when_the_waiting_is_cancelled(way: str, call: str) -> None:
    async def once(turn: int, way: str) -> bool:
        async with (
            serving() as server,
            RawPeer(portno(server)) as peer,
            connect("127.0.0.1", portno(server)) as port,
        ):
            await until(lambda: server.stats.clients == 2)
            await server.send(note(1))
            if call == "wait_closed":
                server._begin_close()
            arguments = (None, None, None) if call == "__aexit__" else ()
            was_cancelled, _ = await cancelled(getattr(server, call)(*arguments), turn, way)
            async with asyncio.timeout(PATIENCE_S):
                # What it was sent, and what lets go of it.
                assert await port.receive() == note(1)
                assert (await port.receive()).type == "note_off"
                with pytest.raises(PortClosed):
                    await port.receive()
                assert (await peer.read_to_end())[:3] == b"\x90\x01\x40"
                await server.wait_closed()
                await server.close()
            assert (server.stats.clients, server._crowd.clients) == (0, 0)
        return was_cancelled

    await at_each_await(way, once, least=1)


@WAYS
async def test_a_message_that_a_server_was_kept_from_sending_is_not_sent(way: str) -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        await until(lambda: server.stats.clients == 1)
        sent = b""

        async def once(turn: int, way: str) -> bool:
            nonlocal sent
            # The next one gives the others a turn first.
            server._spree = FAIR_SPREE - 1
            was_cancelled, _ = await cancelled(server.send(note(turn)), turn, way)
            if not was_cancelled:
                sent += bytes(note(turn).bin())
            return was_cancelled

        await at_each_await(way, once, least=1)
        await server.send(note(100))
        assert await peer.read(len(sent) + 3) == sent + b"\x90\x64\x40"


@WAYS
@pytest.mark.parametrize("call", ["receive", "__anext__"])
@pytest.mark.parametrize("whose", ["server", "accepted", "client"])
async def test_no_message_is_lost_to_a_reader_that_is_cancelled(way: str, call: str, whose: str) -> None:
    async with serving() as server, connect("127.0.0.1", portno(server)) as client:
        source: Any = client if whose != "client" else server
        target: Any = {"server": server, "client": client, "accepted": None}[whose]
        if target is None:
            target = await server.accept()
        elif whose == "client":
            await until(lambda: server.stats.clients == 1)
        heard: list[int] = []

        async def once(turn: int, way: str) -> bool:
            target._spree = FAIR_SPREE - 1
            reading = asyncio.create_task(cancelled(getattr(target, call)(), turn, way))
            await asyncio.sleep(0)
            for number in (2 * turn, 2 * turn + 1):
                await source.send(note(number))
            was_cancelled, message = await reading
            if not was_cancelled:
                heard.append(message.note)
            while not heard or heard[-1] < 2 * turn + 1:
                async with asyncio.timeout(PATIENCE_S):
                    heard.append((await target.receive()).note)
            assert heard == list(range(2, 2 * turn + 2))
            return was_cancelled

        # One that gives the others a turn, and one for the message.
        await at_each_await(way, once, least=2)


@WAYS
async def test_no_client_is_lost_to_an_accept_that_is_cancelled(way: str) -> None:
    async with serving() as server:

        async def once(turn: int, way: str) -> bool:
            accepting = asyncio.create_task(cancelled(server.accept(), turn, way))
            await asyncio.sleep(0)
            async with connect("127.0.0.1", portno(server)) as client:
                await client.send(note(5))
                was_cancelled, port = await accepting
                if was_cancelled:
                    async with asyncio.timeout(PATIENCE_S):
                        port = await server.accept()
                async with asyncio.timeout(PATIENCE_S):
                    assert await port.receive() == note(5)
                    await port.send(note(6))
                    assert await client.receive() == note(6)
                assert not server._accept_waiters
                await port.close()
            await gone(server)
            return was_cancelled

        await at_each_await(way, once, least=1)


# A client.


@WAYS
@pytest.mark.parametrize("how", ["plain", "name", "token", "tls", "tls and token", "reconnect"])
async def test_a_connect_that_is_cancelled_leaves_no_connection_behind(way: str, how: str) -> None:
    files = certificates()
    server_options: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if "tls" in how:
        server_options["ssl"] = tls_server_context(files.server_cert, files.server_key)
        options["ssl"] = tls_client_context(files.ca)
    if "token" in how:
        server_options["tokens"] = [TOKEN]
        options["token"] = TOKEN
    if how == "name":
        options["name"] = "stage-left"
    if how == "reconnect":
        options["reconnect"] = True
    async with serving(**server_options) as server:

        async def once(turn: int, way: str) -> bool:
            connecting = connect("127.0.0.1", portno(server), **options)
            was_cancelled, port = await cancelled(connecting, turn, way)
            if not was_cancelled:
                await port.send(note(7))
                async with asyncio.timeout(PATIENCE_S):
                    assert await server.receive() == note(7)
                await port.close()
                async with asyncio.timeout(PATIENCE_S):
                    assert (await server.receive()).type == "note_off"
            await gone(server)
            return was_cancelled

        # The name, the connection, and what is made of it.
        await at_each_await(way, once, least=3)
        assert server.poll() is None


@WAYS
async def test_a_connect_that_waits_for_its_server_can_be_cancelled(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pausing = Clock(), asyncio.Event()

    def delays() -> Iterator[float]:
        while True:
            pausing.set()
            yield 0.5

    async def pass_time() -> None:
        while True:
            await pausing.wait()
            pausing.clear()
            await clock.skip(1.0)

    monkeypatch.setattr(client_module, "retry_delays", delays)
    async with RawListener() as listener:
        number = listener.portno

    async def in_vain() -> None:
        # Time for the first attempt, which takes a thread, and for some more.
        with pytest.raises(ConnectError):
            await connect("127.0.0.1", number, reconnect=True, timeout=3.0)

    async def once(turn: int, way: str) -> bool:
        was_cancelled, _ = await cancelled(in_vain(), turn, way)
        return was_cancelled

    passing = asyncio.create_task(pass_time())
    # An attempt, and the time to the next one.
    await at_each_await(way, once, least=2)
    passing.cancel()
    await asyncio.gather(passing, return_exceptions=True)


@WAYS
async def test_a_message_that_a_port_was_kept_from_sending_is_not_sent(way: str) -> None:
    async with (
        RawListener(receive_buffer=4096) as listener,
        connect("127.0.0.1", listener.portno, slow="disconnect", send_buffer=4096) as port,
        await listener.accept() as peer,
    ):
        sysex = Message("sysex", data=(0,) * 60_000)
        expected, read = b"", b""

        async def once(turn: int, way: str) -> bool:
            nonlocal expected, read
            while not port._link.outbox.stalled:
                await port.send(sysex)
                expected += bytes(sysex.bin())
                await asyncio.sleep(0)
            sending = asyncio.create_task(cancelled(port.send(note(turn)), turn, way))
            while not sending.done():
                read += await peer.read(min(1000, len(expected) - len(read)))
                await asyncio.sleep(0)
            was_cancelled, _ = await sending
            if not was_cancelled:
                expected += bytes(note(turn).bin())
            return was_cancelled

        await at_each_await(way, once, least=1)
        closing = asyncio.create_task(port.close())
        read += await peer.read_to_end()
        await closing
        # With what lets go of the one note.
        assert len(read) == len(expected) + 3
        assert read.startswith(expected)


@WAYS
@pytest.mark.parametrize("call", ["close", "__aexit__", "wait_closed"])
@pytest.mark.parametrize("whose", ["accepted", "client"])
async def test_closing_a_port_goes_on_when_the_waiting_is_cancelled(way: str, call: str, whose: str) -> None:
    async with serving() as server:

        async def once(turn: int, way: str) -> bool:
            client = await connect("127.0.0.1", portno(server))
            accepted = await server.accept()
            port, other = (client, accepted) if whose == "client" else (accepted, client)
            await port.send(note(1))
            if call == "wait_closed":
                port._begin_close()
            arguments = (None, None, None) if call == "__aexit__" else ()
            was_cancelled, _ = await cancelled(getattr(port, call)(*arguments), turn, way)
            async with asyncio.timeout(PATIENCE_S):
                assert await other.receive() == note(1)
                assert (await other.receive()).type == "note_off"
                with pytest.raises(PortClosed):
                    await other.receive()
                await port.close()
                await port.wait_closed()
                await other.close()
            await gone(server)
            return was_cancelled

        await at_each_await(way, once, least=1)


@WAYS
async def test_a_client_block_can_be_cancelled_while_it_closes(way: str) -> None:
    async with serving() as server:

        async def once(turn: int, way: str) -> bool:
            connecting = connect("127.0.0.1", portno(server))
            port = await connecting.__aenter__()
            was_cancelled, _ = await cancelled(connecting.__aexit__(None, None, None), turn, way)
            await port.wait_closed()
            await gone(server)
            return was_cancelled

        await at_each_await(way, once, least=1)


@WAYS
async def test_waiting_for_a_connection_can_be_cancelled(way: str) -> None:
    async with RawListener() as listener, connect("127.0.0.1", listener.portno, reconnect=True) as port:

        async def once(turn: int, way: str) -> bool:
            reset((await listener.accept()).sock)
            await until(lambda: port.state is PortState.RECONNECTING)
            was_cancelled, _ = await cancelled(port.wait_connected(), turn, way)
            async with asyncio.timeout(PATIENCE_S):
                await port.wait_connected()
            await port.send(note(1))
            assert not port._state_waiters._futures
            return was_cancelled

        await at_each_await(way, once, least=1)
        async with await listener.accept():
            pass


@pytest.mark.parametrize("at", [0.0, 0.001, 0.05, 0.3])
async def test_a_port_that_is_closed_while_it_reconnects_stops_trying(at: float) -> None:
    async with serving() as server:
        port = await connect("127.0.0.1", portno(server), reconnect=True)
        accepted = await server.accept()
        accepted._link.give_up(CloseReason.SLOW)
        await until(lambda: port.state is not PortState.CONNECTED)
        await asyncio.sleep(at)
        await port.close()
        await port.close()
        assert port.state is PortState.CLOSED
        await gone(server)


# Closing is idempotent, and bounded.


async def test_closing_is_bounded_by_its_timeout_and_can_be_repeated() -> None:
    loop = asyncio.get_running_loop()
    async with (
        serving(slow="disconnect", max_outbox=1 << 30) as server,
        RawPeer(portno(server), receive_buffer=4096),
        RawPeer(portno(server), receive_buffer=4096),
    ):
        await until(lambda: server.stats.clients == 2)
        await server.send(note(1))
        while not all(port._link.outbox.stalled for port in server.ports):
            await server.send(Message("sysex", data=(0,) * 60_000))
            await asyncio.sleep(0)
        begun = loop.time()
        await asyncio.gather(*[server.close() for _ in range(3)], *[port.close() for port in server.ports])
        # Ten times the timeout that it was given.
        assert loop.time() - begun < 3
        await server.close()
        await server.wait_closed()
        assert server.stats.clients == 0
