from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from midinet import ConnectError, PortServer, UsageError, connect
from midinet.net import race as race_module
from midinet.net.race import NEXT_ADDRESS_S, Address, AddressRace, interleave
from tests.harness.raw import RawListener
from tests.harness.servers import portno, reserved_portno
from tests.harness.waiting import PATIENCE_S

LOOPBACK = "127.0.0.1"


def address(number: int, family: int = socket.AF_INET) -> Address:
    return Address(family, socket.SOCK_STREAM, 0, "", (LOOPBACK, number))


def race(*numbers: int, patience: float | None = None) -> AddressRace:
    loop = asyncio.get_running_loop()
    return AddressRace(loop, [address(number) for number in numbers], lambda _: None, patience)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Listen where the system answers nobody, as the queue is full. Gives the port number."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_families_alternate() -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    addresses = [address(number, family) for number, family in enumerate((six, six, six, four, four))]
    assert [one.sockaddr[1] for one in interleave(addresses)] == [0, 3, 1, 4, 2]
    assert interleave([]) == []


def test_the_next_address_is_tried_after_a_quarter_of_a_second() -> None:
    assert NEXT_ADDRESS_S == 0.25


async def test_an_address_that_swallows_everything_does_not_keep_the_next_from_being_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race_module, "NEXT_ADDRESS_S", 0.01)
    with black_hole() as hole:
        async with RawListener() as listener, asyncio.timeout(PATIENCE_S):
            with await race(hole, hole, listener.portno).connect() as sock:
                assert sock.getpeername()[1] == listener.portno


async def test_a_port_is_opened_where_the_first_address_of_its_host_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race_module, "NEXT_ADDRESS_S", 0.01)
    with black_hole() as hole:
        async with PortServer(LOOPBACK, 0) as server:

            async def both(*_: object, **__: object) -> list[Address]:
                return [address(hole), address(portno(server))]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
            async with connect("stage.example", 8080) as port:
                assert port.peer == (LOOPBACK, portno(server))


async def test_one_that_refuses_is_followed_by_the_next_at_once() -> None:
    with reserved_portno() as nobody:
        async with RawListener() as listener:
            # Within the time of a turn, where a quarter of a second would be many.
            racing = race(nobody, listener.portno)
            with await racing.connect() as sock:
                assert sock.getpeername()[1] == listener.portno
            assert [type(error) for error in racing.failures] == [ConnectionRefusedError]


async def test_each_call_gives_another_address_until_none_is_left() -> None:
    async with RawListener() as one, RawListener() as other:
        racing = race(one.portno, other.portno)
        numbers = set()
        for _ in range(2):
            with await racing.connect() as sock:
                numbers.add(sock.getpeername()[1])
        assert numbers == {one.portno, other.portno}
        with pytest.raises(OSError, match="no address"):
            await racing.connect()


async def test_one_that_takes_too_long_has_failed() -> None:
    with black_hole() as hole, reserved_portno() as nobody, pytest.raises(ConnectionRefusedError):
        await race(hole, nobody, patience=0.01).connect()


async def test_misuse_and_what_failed_after_an_answer_say_more_than_a_refusal() -> None:
    racing = race()
    assert racing.failure is None
    for error in (TimeoutError(), ConnectionRefusedError(), ssl.SSLError(), UsageError()):
        racing.failures.append(error)
        assert racing.failure is error
        racing.failures.append(TimeoutError())
        assert racing.failure is error


async def test_what_is_known_when_the_time_is_over_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as hole, reserved_portno() as nobody:

        async def both(*_: object, **__: object) -> list[Address]:
            return [address(nobody), address(hole)]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
        with pytest.raises(ConnectError, match="nobody listens"):
            await connect("stage.example", 8080, timeout=0.1)
