from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from mido import Message

from midinet import ConnectionLost, PortServer, PortState, UsageError, connect, sync
from midinet.hub.outbox import Outbox
from midinet.net.tasks import BackgroundTask
from midinet.sync.portal import get_portal
from midinet.testing import pair
from tests.harness.clock import Clock
from tests.harness.raw import RawPeer
from tests.harness.servers import portno
from tests.harness.waiting import PATIENCE_S, until

NOTE = Message("note_on", note=60)


def fails(error: BaseException) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def fail(*_: object) -> None:
        raise error

    return fail


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# The class.


async def run_to_its_end(work: Coroutine[Any, Any, object], *, cancel: str = "") -> list[object]:
    told: list[object] = []
    task = BackgroundTask(work, name="midinet test", failed=told.append, ended=told.append)
    if cancel == "owner":
        task.cancel()
    elif cancel == "stranger":
        (other,) = [one for one in asyncio.all_tasks() if one.get_name() == "midinet test"]
        other.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await task.wait()
    assert task.done()
    assert told.pop() is task
    return told


async def test_an_error_is_logged_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("note")
    with caplog.at_level(logging.INFO):
        assert await run_to_its_end(fails(error)()) == [error]
    assert lines_of(caplog) == ["midinet test ended with an error that was not foreseen: KeyError: 'note'"]
    assert caplog.records[0].exc_info is None


async def test_debugging_shows_where_it_was_raised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "midinet"):
        await run_to_its_end(fails(KeyError("note"))())
    assert "in fail\n" in caplog.text


@pytest.mark.parametrize("cancel", ["", "owner"])
async def test_a_task_that_returns_or_is_cancelled_by_its_owner_has_not_failed(
    cancel: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await run_to_its_end(asyncio.sleep(0), cancel=cancel) == []
    assert lines_of(caplog) == []


async def test_a_task_that_somebody_else_cancels_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    (error,) = await run_to_its_end(asyncio.sleep(PATIENCE_S), cancel="stranger")
    assert isinstance(error, UsageError)
    assert lines_of(caplog) == []


async def test_stopping_waits_for_what_the_task_does_last() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    task = BackgroundTask(work(), name="midinet test")
    await asyncio.sleep(0)
    await task.stop()
    assert steps == ["cleaned up"]
    await task.stop()


# Its owners.


async def test_stopping_cancels_again_what_a_cancellation_got_lost_in() -> None:
    cancelled = 0

    async def lose_the_first() -> None:
        nonlocal cancelled
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled == 2:
                    raise

    task = BackgroundTask(lose_the_first(), name="stubborn")
    await asyncio.sleep(0)
    clock, stopping = Clock(), asyncio.ensure_future(task.stop())
    await clock.skip_until(stopping.done)
    assert (cancelled, task.done()) == (2, True)


async def test_a_port_whose_reconnect_dies_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async with PortServer("127.0.0.1", 0) as server:
        connecting = connect(*server.addresses[0], reconnect=True)
        port = await connecting
        connecting._open = fails(ZeroDivisionError("attempt"))  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConnectionLost, match="attempt") as raised:
            await port.receive()
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        with pytest.raises(ConnectionLost, match="attempt"):
            await port.wait_connected()
        assert (port.state, port.closed) == (PortState.CLOSED, True)
        await port.close()
    assert len(lines_of(caplog)) == 1


async def test_a_port_whose_reconnect_is_cancelled_by_a_stranger_is_lost() -> None:
    async with PortServer("127.0.0.1", 0) as server:
        port = await connect(*server.addresses[0], reconnect=True)
    await until(lambda: port.state is PortState.RECONNECTING)
    await until(lambda: any("reconnect" in task.get_name() for task in asyncio.all_tasks()))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConnectionLost, match="cancelled by somebody else"):
            await port.receive()
        await port.close()


async def test_a_server_that_cannot_end_in_order_ends_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    server = await PortServer("127.0.0.1", 0)
    assert server._door is not None
    close_door = server._door.close

    async def close_and_fail() -> None:
        await close_door()
        raise ZeroDivisionError("door")

    server._door.close = close_and_fail  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_S):
        await server.close()
        await server.wait_closed()
    assert len(lines_of(caplog)) == 1
    with pytest.raises(OSError, match="nobody listens"):
        await connect(*server.addresses[0])


async def test_a_handshake_that_dies_leaves_its_place_to_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PortServer("127.0.0.1", 0, max_clients=1) as server:
        with monkeypatch.context() as patch:
            loop = asyncio.get_running_loop()
            patch.setattr(loop, "connect_accepted_socket", fails(ZeroDivisionError("handshake")))
            async with RawPeer(portno(server)) as peer:
                assert await peer.read_to_end() == b""
        async with connect(*server.addresses[0]) as port:
            await port.send(NOTE)
            async with asyncio.timeout(PATIENCE_S):
                assert await server.receive() == NOTE
    assert len(lines_of(caplog)) == 1


async def test_a_port_whose_writer_dies_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(outbox: Outbox, now: float) -> bool:
        raise ZeroDivisionError("drain")

    async with pair() as (ours, _):
        ours._link.pause_writing()
        monkeypatch.setattr(Outbox, "drain", fail)
        ours._link.resume_writing()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionLost, match="drain"):
                await ours.receive()
    assert len([line for line in lines_of(caplog) if "not foreseen" in line]) == 1


def test_sys_exit_in_a_callback_does_not_end_the_loop_of_blocking_ports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def leave() -> None:
        raise SystemExit(3)

    get_portal().call(leave)
    with sync.PortServer("127.0.0.1", 0) as server, sync.connect(*server.addresses[0]) as port:
        port.send(NOTE)
        assert server.receive() == NOTE
    assert lines_of(caplog) == ["SystemExit(3) does not end midinet's own thread"]


async def test_a_hub_whose_broker_dies_goes_on_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    options = {"broker": "nats://127.0.0.1:1", "broker_options": {"inbox_prefix": 5}}
    async with PortServer("127.0.0.1", 0, relay=True, **options) as server:  # type: ignore[arg-type]
        await until(lambda: server.stats.broker is not None and server.stats.broker.error != "")
        async with connect(*server.addresses[0]) as one, connect(*server.addresses[0]) as two:
            await until(lambda: len(server.ports) == 2)
            await one.send(NOTE)
            async with asyncio.timeout(PATIENCE_S):
                assert await two.receive() == NOTE
        assert not server.stats.broker.connected  # type: ignore[union-attr]
    assert len(lines_of(caplog)) == 1
