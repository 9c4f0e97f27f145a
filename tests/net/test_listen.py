from __future__ import annotations

import errno
import socket

import pytest

from midinet import ListenError
from midinet.net import listen
from midinet.net.listen import open_listeners


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


async def test_no_host_is_every_interface_of_both_kinds_on_one_port() -> None:
    sockets = await open_listeners("", 0, 10)
    try:
        assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert {sock.getsockname()[0] for sock in sockets} == {"0.0.0.0", "::"}
    finally:
        close(sockets)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_just_that_address(host: str, family: int) -> None:
    sockets = await open_listeners(host, 0, 10)
    try:
        assert [(sock.family, sock.getsockname()[0]) for sock in sockets] == [(family, host)]
    finally:
        close(sockets)


async def test_a_port_in_use_is_said_so() -> None:
    sockets = await open_listeners("127.0.0.1", 0, 10)
    portno = sockets[0].getsockname()[1]
    try:
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{portno}: the port is in use") as caught:
            await open_listeners("127.0.0.1", portno, 10)
        assert caught.value.errno == errno.EADDRINUSE
        assert isinstance(caught.value, OSError)
    finally:
        close(sockets)


async def test_a_second_address_in_use_leaves_nothing_open() -> None:
    taken = await open_listeners("::1", 0, 10)
    try:
        with pytest.raises(ListenError, match="the port is in use"):
            await open_listeners("", taken[0].getsockname()[1], 10)
    finally:
        close(taken)


async def test_an_address_of_another_machine_is_said_so() -> None:
    with pytest.raises(ListenError, match="does not have that address"):
        await open_listeners("192.0.2.1", 0, 10)  # TEST-NET-1, RFC 5737 section 3


@pytest.mark.parametrize(("host", "portno"), [("no.such.host.invalid", 8080), ("a" * 300, 8080)])
async def test_an_unknown_host_is_said_so(host: str, portno: int) -> None:
    with pytest.raises(ListenError, match="unknown host"):
        await open_listeners(host, portno, 10)


async def test_an_address_family_that_is_absent_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(family, kind)

    monkeypatch.setattr(listen.socket, "socket", without_ipv6)
    sockets = await open_listeners("", 0, 10)
    try:
        assert [sock.family for sock in sockets] == [socket.AF_INET]
    finally:
        close(sockets)


async def test_another_port_is_tried_when_the_chosen_one_is_taken_on_the_second_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, tries = listen._listen_on, []

    def taken_at_first(*args: object) -> list[socket.socket]:
        tries.append(args)
        if len(tries) < 3:
            raise OSError(errno.EADDRINUSE, "taken")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(listen, "_listen_on", taken_at_first)
    close(await open_listeners("", 0, 10))
    assert len(tries) == 3


async def test_it_gives_up_when_no_port_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*args: object) -> list[socket.socket]:
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(listen, "_listen_on", taken)
    with pytest.raises(ListenError, match="no port is free"):
        await open_listeners("", 0, 10)
