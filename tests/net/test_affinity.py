from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mido import Message

from midinet import PortClosed, PortServer, SocketPort, UsageError, connect
from midinet.testing import pair
from tests.harness.raw import PATIENCE_S

NOTE = Message("note_on", note=60)

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS.append(uvloop.new_event_loop)

# What a program calls on each: every public method, and iteration.
CALLS = {
    kind: [
        *(name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")),
        "__aiter__",
        "__anext__",
    ]
    for kind in (SocketPort, PortServer)
}


def call(target: Any, name: str) -> Any:
    result = getattr(target, name)(*([NOTE] if name == "send" else []))
    return list(result) if name == "iter_pending" else result


async def use(target: Any, name: str) -> None:
    result = call(target, name)
    if isinstance(result, Awaitable):
        await result


def in_another_loop(target: Any, name: str) -> None:
    asyncio.run(asyncio.wait_for(use(target, name), PATIENCE_S))


def in_another_thread(target: Any, name: str) -> None:
    # A coroutine that no loop runs does nothing yet, and a first step without a loop shows what it would do.
    result = call(target, name)
    if isinstance(result, Awaitable):
        result.__await__().send(None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("elsewhere", [in_another_loop, in_another_thread])
async def test_every_method_of_a_port_raises_elsewhere(elsewhere: Callable[[Any, str], None]) -> None:
    async with pair() as (ours, theirs):
        for name in CALLS[SocketPort]:
            with pytest.raises(UsageError, match=r"asyncio.run_coroutine_threadsafe.*midinet\.sync"):
                await asyncio.to_thread(elsewhere, ours, name)
        await theirs.send(NOTE)
        assert await ours.receive() == NOTE
        assert theirs.poll() is None


@pytest.mark.parametrize("elsewhere", [in_another_loop, in_another_thread])
async def test_every_method_of_a_server_raises_elsewhere(elsewhere: Callable[[Any, str], None]) -> None:
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as client:
        for name in CALLS[PortServer]:
            with pytest.raises(UsageError, match=r"asyncio.run_coroutine_threadsafe.*midinet\.sync"):
                await asyncio.to_thread(elsewhere, server, name)
        await client.send(NOTE)
        assert await server.receive() == NOTE
        assert client.poll() is None


async def test_the_loop_of_a_port_can_be_handed_a_call() -> None:
    loop = asyncio.get_running_loop()

    def send(port: SocketPort) -> None:
        asyncio.run_coroutine_threadsafe(port.send(NOTE), loop).result(PATIENCE_S)

    async with pair() as (ours, theirs):
        await asyncio.to_thread(send, ours)
        assert await theirs.receive() == NOTE


def test_a_port_whose_loop_has_ended_says_so() -> None:
    async def open_port() -> SocketPort:
        async with pair() as (ours, _):
            return ours

    port = asyncio.run(open_port())
    for name in CALLS[SocketPort]:
        with pytest.raises(UsageError, match="ended: open a new one"):
            in_another_loop(port, name)


def test_properties_may_be_read_anywhere() -> None:
    async def read() -> None:
        async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as client:
            for target in (server, client):
                for name, _ in inspect.getmembers(type(target), lambda member: isinstance(member, property)):
                    await asyncio.to_thread(getattr, target, name)

    asyncio.run(read())


async def test_one_connect_makes_one_port() -> None:
    async with PortServer("127.0.0.1", 0) as server:
        connecting = connect(*server.addresses[0], reconnect=True)
        async with connecting as port:
            with pytest.raises(UsageError, match=r"write connect\(\.\.\.\) again"):
                await connecting
            await port.send(NOTE)
            assert await server.receive() == NOTE
        at_once = connect(*server.addresses[0])
        waiting = asyncio.create_task(at_once.__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match=r"write connect"):
            await at_once
        await (await waiting).close()


async def test_a_connect_that_failed_may_be_tried_again() -> None:
    async with PortServer("127.0.0.1", 0) as server:
        address = server.addresses[0]
    connecting = connect(*address)
    with pytest.raises(OSError, match="nobody listens"):
        await connecting
    async with PortServer(*address), connecting as port:
        assert not port.closed


@pytest.mark.parametrize("name", ["send", "receive", "poll", "close", "closed", "peer_clients"])
def test_a_connect_that_is_not_awaited_says_what_to_write(name: str) -> None:
    connecting = connect("localhost", 8080)
    with pytest.raises(AttributeError, match=r"await connect\(\.\.\.\)"):
        getattr(connecting, name)
    with pytest.raises(AttributeError, match="no attribute 'sned'"):
        _ = connecting.sned  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"await connect\(\.\.\.\)"):
        aiter(connecting)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=r"midinet\.sync"), connecting:  # type: ignore[attr-defined]
        pytest.fail("it was entered")


async def test_a_server_is_started_once_and_by_one_loop() -> None:
    server = PortServer("127.0.0.1", 0)
    await server
    with pytest.raises(UsageError, match="started before"):
        await server
    await server.close()
    with pytest.raises(PortClosed):
        await server


async def test_one_string_or_two_arguments_are_an_address() -> None:
    async with PortServer("127.0.0.1:0") as server:
        (host, portno), *_ = server.addresses
        for address in ((f"{host}:{portno}",), (host, str(portno))):
            async with connect(*address) as port:  # type: ignore[arg-type]
                assert port.peer == (host, portno)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_port_goes_along_with_its_loop_to_another_thread(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    loop = factory()
    both = pair()
    ours, theirs = loop.run_until_complete(both.__aenter__())
    with pytest.raises(UsageError, match="belongs to another event loop"):
        ours.poll()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with pytest.raises(UsageError, match="belongs to another event loop"):
            ours.poll()
        asyncio.run_coroutine_threadsafe(ours.send(NOTE), loop).result(PATIENCE_S)
        assert asyncio.run_coroutine_threadsafe(theirs.receive(), loop).result(PATIENCE_S) == NOTE
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(both.__aexit__(None, None, None))
        loop.close()
