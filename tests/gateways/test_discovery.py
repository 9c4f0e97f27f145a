"""Servers that announce themselves, and who finds them: with real zeroconf, on 127.0.0.1 alone."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme
import zeroconf as mdns_package
from mido import Message
from zeroconf.asyncio import AsyncZeroconf

import midinet.sync
from midinet import (
    ConnectError,
    ListenError,
    MissingExtra,
    NotAuthorized,
    PortServer,
    PortState,
    Service,
    ServiceChange,
    UsageError,
    connect,
    discover,
)
from midinet.gateways import announcement, discovery, mdns
from midinet.gateways.announcement import Announcement
from midinet.gateways.mdns import TYPE, Here, check_service_name, read_interfaces
from midinet.net import client
from midinet.net.tls import tls_client_context
from tests.harness.mdns import LOOPBACK, call_this_machine, hurry, unique_host, unique_name
from tests.harness.raw import RawListener, RawPeer
from tests.harness.servers import portno
from tests.harness.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
NOTE = Message("note_on", note=60)
# Another machine, which no other run has made up.
STRANGE_HOST = f"{unique_host()}.local."
TOKEN = "open-sesame"

# Servers of another process: a plain one, one with TLS and one with TLS for another host, and one that wants
# a token. It says by which names they are announced.
SERVERS = """
import asyncio, json, sys
from midinet import PortServer, tls_server_context
from tests.harness.mdns import call_this_machine, hurry
name, host, own, other = sys.argv[1:]
hurry()
call_this_machine(host)
async def serve():
    async with (
        PortServer("", 0, announce=f"{name} plain", relay=True) as plain,
        PortServer("", 0, announce=f"{name} tls", ssl=tls_server_context(own, own)) as tls,
        PortServer("", 0, announce=f"{name} other", ssl=tls_server_context(other, other)) as wrong,
        PortServer("", 0, announce=f"{name} token", tokens=["open-sesame"], insecure_token=True) as token,
    ):
        servers = {"plain": plain, "tls": tls, "other": wrong, "token": token}
        while not all(server.announced for server in servers.values()):
            await asyncio.sleep(0.01)
        print(json.dumps({k: [s.announced, s.addresses[0][1]] for k, s in servers.items()}), flush=True)
        await plain.wait_closed()
asyncio.run(serve())
"""


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of this machine, which no other run has. All of it is on loopback alone, and quick."""
    host = unique_host()
    call_this_machine(host, monkeypatch.setattr)
    monkeypatch.setenv(mdns.INTERFACES_VARIABLE, LOOPBACK)
    if "real_waits" not in request.fixturenames:
        hurry(monkeypatch.setattr)
    return host


@pytest.fixture
def real_waits() -> None:
    """As long as everybody else waits for others to object to a name, which is seconds."""


@pytest.fixture
def name() -> str:
    """A name that no other run of these tests has."""
    return unique_name()


class Elsewhere:
    """The servers of another process."""

    def __init__(self, ca: Path, host: str, servers: dict[str, tuple[str, int]]) -> None:
        self.ca = ca
        self.host = host
        self.servers = servers

    def name(self, kind: str) -> str:
        return self.servers[kind][0]

    def address(self, kind: str) -> str:
        return f"midi://{self.name(kind)}"

    def portno(self, kind: str) -> int:
        return self.servers[kind][1]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    own_host = unique_host()
    for file, host in (("own", f"{own_host}.local"), ("other", "somebody-else.local")):
        ca.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(folder / f"{file}.pem")
    # Nothing of it stays open here while the tests run: they count what is open.
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVERS),
                *(unique_name(), own_host, folder / "own.pem", folder / "other.pem"),
            ],
            stdout=said,
            cwd=ROOT,
            env={**os.environ, mdns.INTERFACES_VARIABLE: LOOPBACK},
        )
    try:
        asyncio.run(until(lambda: (folder / "said").read_text().endswith("\n") or process.poll() is not None))
        yield Elsewhere(folder / "ca.pem", own_host, json.loads((folder / "said").read_text()))
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def announced(name: str, **options: Any) -> AsyncIterator[PortServer]:
    """A server that is announced by now."""
    async with PortServer("", 0, announce=name, **options) as server:
        await until(lambda: server.announced)
        yield server


async def next_about(changes: discover, name: str) -> ServiceChange:
    """The next change of a server whose name has this in it: others may come and go meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        async for change in changes:
            if name in change.service.name:
                return change
    raise AssertionError("it ended")


# Names and interfaces.


@pytest.mark.parametrize("name", ["a", "stage left", "Bühne", "🎹" * 15, "x" * 63, "St. Mary's", "a.b"])
def test_a_name_is_any_text_of_63_bytes(name: str) -> None:
    assert check_service_name(name) == name
    PortServer("", 0, announce=name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "1 to 63 bytes, not 0"),
        ("x" * 64, "1 to 63 bytes, not 64"),
        ("🎹" * 16, "1 to 63 bytes, not 64"),
        ("a\nb", "control characters"),
        ("a\x1b[31m", "control characters"),
        ("a\x7f", "control characters"),
        ("a\x9b", "control characters"),
        ("a\u2028b", "control characters"),
        ("\u202egats", "control characters"),
        ("a\udc80", "control characters"),
        (".a", "a dot at its beginning or end"),
        ("a.", "a dot at its beginning or end"),
        ("a..b", "two in a row"),
    ],
)
def test_what_cannot_be_a_name_is_a_value_error_at_once(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PortServer("", 0, announce=name)
    with pytest.raises(ValueError, match=why):
        connect(f"midi://{name}", 0)


def test_a_name_is_announced_in_one_form_of_its_accents() -> None:
    assert check_service_name("u\u0308ber") == "über"


def test_a_number_never_makes_a_name_too_long() -> None:
    assert announcement._numbered("stage", 1) == "stage"
    assert announcement._numbered("stage", 2) == "stage (2)"
    assert announcement._numbered("x" * 63, 12) == "x" * 58 + " (12)"
    assert announcement._numbered("ü" * 31, 2) == "ü" * 29 + " (2)"


def test_a_server_listens_on_no_name_and_a_name_has_its_own_port_number() -> None:
    with pytest.raises(ValueError, match=r"a host and a port; announce='x' gives it a name"):
        PortServer("midi://x", 0)
    with pytest.raises(ValueError, match=r"midi://x knows its port number by itself: leave out 8080"):
        connect("midi://x", 8080)


def test_interfaces_are_named_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_interfaces() == (LOOPBACK,)
    assert read_interfaces(["::1", " fe80::1%eth0"]) == ("::1", "fe80::1%eth0")
    monkeypatch.setenv(mdns.INTERFACES_VARIABLE, "127.0.0.1, 10.0.0.5,")
    assert read_interfaces() == (LOOPBACK, "10.0.0.5")
    monkeypatch.delenv(mdns.INTERFACES_VARIABLE)
    assert read_interfaces() == ()
    with pytest.raises(ValueError, match="is a collection"):
        discover(interfaces=LOOPBACK)
    monkeypatch.setenv(mdns.INTERFACES_VARIABLE, "eth0")
    for make in (discover, lambda: connect("midi://x"), lambda: PortServer("", 0, announce="x")):
        with pytest.raises(ValueError, match="MIDINET_INTERFACES takes addresses of this machine: 'eth0'"):
            make()
    # Nobody else cares.
    PortServer("", 0), connect("localhost", 1)


# What is announced.


async def test_two_servers_and_a_search_of_two_processes_find_each_other(
    elsewhere: Elsewhere, name: str, host: str
) -> None:
    expected = {name, *(elsewhere.name(kind) for kind in ("plain", "tls", "token"))}
    async with announced(name) as server:
        assert server.announced == name
        found: dict[str, Service] = {}
        while not expected <= found.keys():
            found = {service.name: service for service in await discover(0.3)}
        assert list(found) == sorted(found, key=str.casefold)
        own_address = (LOOPBACK, portno(server))
        assert found[name] == Service(name, f"{host}.local", (own_address,), False, False)
        for kind, tls, token in (("plain", False, False), ("tls", True, False), ("token", False, True)):
            own = elsewhere.name(kind)
            address = (LOOPBACK, elsewhere.portno(kind))
            assert found[own] == Service(own, f"{elsewhere.host}.local", (address,), tls, token)


async def test_a_name_that_somebody_has_gets_a_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who answers late is heard when they look again.
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.1)
    monkeypatch.setattr(announcement, "_LISTEN_S", 0.2)
    async with announced(name) as first, announced(name) as second, announced(name.upper()) as third:
        servers = (first, second, third)
        expected = {name, f"{name} (2)", f"{name} (3)"}
        await until(lambda: {str(server.announced).lower() for server in servers} == expected)
        for server in servers:
            async with connect(f"midi://{server.announced}") as port:
                assert port.peer == (LOOPBACK, portno(server))


@pytest.mark.full
@pytest.mark.usefixtures("real_waits")
async def test_two_that_begin_at_once_beside_a_third_each_get_a_number(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two that begin at once may take one name, and see that when they look again.
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.1)
    taken = elsewhere.name("plain")
    async with (
        PortServer("", 0, announce=taken) as one,
        # Names that differ in case are the same.
        PortServer("", 0, announce=taken.upper()) as other,
    ):
        numbered = {f"{taken} (2)", f"{taken} (3)"}
        await until(lambda: {str(server.announced).lower() for server in (one, other)} == numbered)
        async with connect(f"midi://{one.announced}") as port:
            assert port.peer == (LOOPBACK, portno(one))


async def test_servers_come_and_go_with_a_goodbye(name: str) -> None:
    async with discover() as changes:
        server = await PortServer("", 0, announce=name)
        assert server.announced is None
        found = await next_about(changes, name)
        assert found.kind == "found"
        assert server.announced == found.service.name == name
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0)
        # That stops the waiting, not the closing.
        closing.cancel()
        assert await next_about(changes, name) == ServiceChange("gone", found.service)
        assert server.announced is None
        await server.wait_closed()
        assert name not in [service.name for service in changes.services]


async def test_a_server_that_closes_before_it_is_announced_is_never_found(name: str) -> None:
    async with discover() as changes:
        async with PortServer("", 0, announce=name):
            pass
        async with PortServer("", 0, announce=name):
            # In the middle of asking whether the name is free.
            await asyncio.sleep(0.03)
        async with announced(f"{name}, the last"):
            assert (await next_about(changes, name)).service.name == f"{name}, the last"


async def test_a_start_that_is_cancelled_leaves_nothing(name: str) -> None:
    for turns in range(6):
        task = asyncio.create_task(_serve(name))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def _serve(name: str) -> None:
    async with PortServer("", 0, announce=name) as server:
        await server.wait_closed()


def test_a_loop_that_ends_takes_the_announcement_with_it(name: str) -> None:
    async def serve() -> None:
        server = await PortServer("", 0, announce=name)
        await until(lambda: server.announced)
        # Nobody waits for it.
        server._begin_close()

    asyncio.run(serve())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
async def test_a_server_that_only_this_machine_can_reach_is_not_announced(
    host: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "midinet")
    async with PortServer(host, 0, announce=name) as server:
        assert not [task for task in asyncio.all_tasks() if "announcement" in task.get_name()]
        assert server.announced is None
    [line] = [record for record in caplog.records if "announced" in record.getMessage()]
    assert line.levelno == logging.INFO
    assert "is not announced: only this machine can reach it" in line.getMessage()


async def test_where_there_is_no_network_the_server_runs_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.01)
    # For documentation alone (RFC 5737).
    monkeypatch.setenv(mdns.INTERFACES_VARIABLE, "203.0.113.7")
    caplog.set_level(logging.WARNING, "midinet.discovery")
    async with PortServer("", 0, announce=name) as server:
        await until(lambda: len(caplog.records) > 1)
        await asyncio.sleep(0.1)
        assert [record.getMessage() for record in caplog.records if record.name == "midinet.discovery"] == [
            f"cannot announce {name}: this machine has no address 203.0.113.7"
        ]
        assert server.announced is None
        async with connect(LOOPBACK, portno(server)) as port:
            await port.send(NOTE)
            assert await server.receive() == NOTE
        with pytest.raises(ConnectError, match="cannot look for servers: this machine has no address"):
            await connect(f"midi://{name}")
        with pytest.raises(ListenError, match="cannot look for servers: this machine has no address"):
            await discover()
        with pytest.raises(ListenError, match="cannot look for servers"):
            await asyncio.to_thread(midinet.sync.discover)


async def test_where_another_program_has_the_port_to_itself_that_is_said(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("zeroconf.asyncio.AsyncZeroconf", refuse)
    with pytest.raises(ConnectError, match="another program has port 5353 to itself"):
        await connect(f"midi://{name}")


async def test_a_name_of_which_there_are_too_many_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The only other one differs in case, and is heard while zeroconf's own check goes on."""
    monkeypatch.setattr("zeroconf._core._CHECK_TIME", 200)
    monkeypatch.setattr(announcement, "_MAX_NUMBER", 1)
    async with stranger() as other, PortServer("", 0, announce=name) as server:
        register(other, name.upper())
        text = f"cannot announce {name}: 1 servers have that name"
        await until(lambda: text in [record.getMessage() for record in caplog.records])
        assert server.announced is None


async def test_what_was_no_network_is_announced_on_when_it_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And withdrawn and announced anew when the addresses of this machine change."""
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.05)
    addresses: set[Any] = set()

    class Moving(Here):
        def __init__(self, interfaces: tuple[str, ...]) -> None:
            super().__init__(interfaces)
            if not addresses:
                raise OSError("the network is down")
            self.addresses = set(addresses)

    monkeypatch.setattr(announcement, "Here", Moving)
    async with discover() as changes, PortServer("", 0, announce=name):
        await asyncio.sleep(0.1)
        addresses.add(ip_address(LOOPBACK))
        found = await next_about(changes, name)
        assert found.kind == "found"
        addresses.add(ip_address("127.0.0.2"))
        assert await next_about(changes, name) == ServiceChange("gone", found.service)
        moved = await next_about(changes, name)
        number = found.service.addresses[0][1]
        assert set(moved.service.addresses) == {(LOOPBACK, number), ("127.0.0.2", number)}


@pytest.mark.parametrize(("rival", "keeps"), [("zzz.local.", False), ("--a.local.", True)])
async def test_of_two_who_took_one_name_at_once_the_same_one_keeps_it(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str, rival: str, keeps: bool
) -> None:
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.1)
    async with announced(name) as server, stranger() as other:
        await (await other.async_update_service(register(other, name, host=rival)))
        if keeps:
            await until(lambda: _hosts_of(other, name) == {f"{host}.local."})
            assert server.announced == name
        else:
            await until(lambda: server.announced == f"{name} (2)")


def _hosts_of(other: AsyncZeroconf, name: str) -> set[str]:
    """What another thinks of who has a name, by the last that it heard."""
    now = mdns_package.current_time_millis()
    records: list[Any] = list(other.zeroconf.cache.get_all_by_details(f"{name}.{TYPE}", 33, 1))
    newest = max((record.created for record in records), default=0)
    return {
        record.server
        for record in records
        if record.created == newest and record.ttl > 1 and not record.is_expired(now)
    }


def _is_told_apart(found: str, host: str) -> bool:
    """Whether a host has this one's name with a hardware address."""
    return re.fullmatch(re.escape(host) + r"-[0-9a-f]{12}\.local", found) is not None


async def test_where_another_machine_has_this_ones_host_name_their_addresses_stay_apart(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    monkeypatch.setattr(announcement, "_LISTEN_S", 0.5)
    async with stranger() as other, discover() as changes:
        register(other, f"{name} there", host=f"{host}.local.", addresses=["192.0.2.9"])
        async with announced(f"{name} here") as server:
            found = (await next_about(changes, f"{name} here")).service
            assert _is_told_apart(found.host, host)
            assert found.addresses == ((LOOPBACK, portno(server)),)


async def test_a_machine_that_comes_later_with_the_same_host_name_is_told_apart_too(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    monkeypatch.setattr(announcement, "_REVIEW_S", 0.1)
    async with announced(name) as server, stranger() as other, discover() as changes:
        assert (await next_about(changes, name)).service.host == f"{host}.local"
        say(other, "strange", host=f"{host}.local.", addresses=["192.0.2.9"], only="A")
        while True:
            change = await next_about(changes, name)
            if _is_told_apart(change.service.host, host):
                break
        assert change.service.addresses == ((LOOPBACK, portno(server)),)


# Who is found.


async def test_a_server_is_connected_to_by_its_name_whatever_its_case(elsewhere: Elsewhere) -> None:
    async with connect(elsewhere.address("plain").upper().replace("MIDI:", "midi:")) as port:
        assert port.peer == (LOOPBACK, elsewhere.portno("plain"))
        async with connect(elsewhere.address("plain"), name="keys") as other:
            assert other.name == elsewhere.address("plain")
            await other.send(NOTE)
            assert await port.receive() == NOTE


def test_plain_scripts_announce_search_and_connect_by_name(name: str) -> None:
    with midinet.sync.PortServer("", 0, announce=name) as server:
        asyncio.run(until(lambda: server.announced))
        assert server.announced == name
        with midinet.sync.connect(f"midi://{name}") as port:
            assert port.peer == (LOOPBACK, server.addresses[0][1])
            port.send(NOTE)
            assert server.receive() == NOTE
        found: dict[str, Service] = {}
        while name not in found:
            found = {service.name: service for service in midinet.sync.discover(0.3)}
        assert found[name].addresses == ((LOOPBACK, server.addresses[0][1]),)


async def test_a_port_follows_its_server_to_another_port_number(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(client, "retry_delays", lambda: itertools.repeat(0.01))
    async with announced(name) as first:
        port = await connect(f"midi://{name}", reconnect=True)
        assert port.peer == (LOOPBACK, portno(first))
    await until(lambda: port.state is PortState.RECONNECTING)
    async with PortServer("", 0, announce=name) as second, port:
        assert portno(second) != portno(first)
        async with asyncio.timeout(PATIENCE_S):
            await port.wait_connected()
            assert port.peer == (LOOPBACK, portno(second))
            await port.send(NOTE)
            assert await second.receive() == NOTE


async def test_who_is_not_there_is_told_with_those_who_are(elsewhere: Elsewhere, name: str) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect(f"midi://{name}", timeout=3.0)
    text = caught.value.strerror
    assert text.startswith(f"nobody is called midi://{name} on this network: there are ")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("names", "others"),
    [
        ([], "no server announces itself here"),
        (["a"], "there is a"),
        (["b", "a"], "there are a, b"),
        (list("abcdefg"), "there are a, b, c, d, e and 2 more"),
    ],
)
async def test_those_who_are_there_are_named_but_not_all_of_many(
    monkeypatch: pytest.MonkeyPatch, names: list[str], others: str
) -> None:
    there = [Service(name, "h.local", ((LOOPBACK, 1),), False, False) for name in sorted(names)]
    monkeypatch.setattr(discover, "services", property(lambda self: there))
    with pytest.raises(ConnectError) as caught:
        await discovery.find_service("nobody", 0.01)
    assert caught.value.strerror == f"nobody is called midi://nobody on this network: {others}"


async def test_a_search_that_is_cancelled_leaves_nothing(name: str) -> None:
    for make in (lambda: _connect(name), lambda: _search()):
        for seconds in (0.0, 0.01, 0.2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await make()


async def _connect(name: str) -> None:
    await connect(f"midi://{name}")


async def _search() -> None:
    await discover(10.0)


async def test_a_search_is_made_once_and_who_follows_it_ends_with_it() -> None:
    search = discover()
    async with search as changes:
        follower = asyncio.create_task(_follow(changes))
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await follower
    with pytest.raises(UsageError, match="made before"):
        await search


async def _follow(changes: discover) -> None:
    async for _ in changes:
        pass


# What it asks for.


async def test_a_server_with_tls_is_not_connected_to_without(elsewhere: Elsewhere, name: str) -> None:
    async with stranger() as other, RawListener() as listener:
        register(other, name, portno=listener.portno, text=b"\x05tls=1")
        with pytest.raises(ConnectError) as caught:
            await connect(f"midi://{name}")
        assert caught.value.strerror == f"midi://{name} asks for TLS: give ssl=..."
        assert not await came(listener)
    async with connect(elsewhere.address("tls"), ssl=tls_client_context(elsewhere.ca)) as port:
        assert port.peer == (LOOPBACK, elsewhere.portno("tls"))


async def test_the_certificate_has_to_be_for_the_host_that_is_announced(elsewhere: Elsewhere) -> None:
    with pytest.raises(ConnectError, match=rf"not valid for '{elsewhere.host}\.local'"):
        await connect(elsewhere.address("other"), ssl=tls_client_context(elsewhere.ca))


async def test_a_server_that_asks_for_a_token_is_not_connected_to_without(
    elsewhere: Elsewhere, name: str
) -> None:
    async with stranger() as other, RawListener() as listener:
        register(other, name, portno=listener.portno, text=b"\x07token=1")
        with pytest.raises(NotAuthorized, match="asks for a token"):
            await connect(f"midi://{name}", reconnect=True)
        assert not await came(listener)
    async with connect(elsewhere.address("token"), token=TOKEN) as port:
        assert port.peer == (LOOPBACK, elsewhere.portno("token"))


async def came(listener: RawListener) -> bool:
    """Whether somebody has connected before another does."""
    async with RawPeer(listener.portno) as last, await listener.accept() as first:
        return first.sock.getpeername() != last.sock.getsockname()


async def test_tls_stays_where_a_stranger_says_that_there_is_none(elsewhere: Elsewhere, name: str) -> None:
    """His server is one without TLS: what is sent to it is a TLS hello, and no token."""
    async with PortServer(LOOPBACK, 0) as server, stranger() as other:
        register(other, name, portno=portno(server), text=b"\x05tls=0\x07token=0")
        with pytest.raises(ConnectError, match="no TLS"):
            await connect(f"midi://{name}", token=TOKEN, ssl=tls_client_context(elsewhere.ca))
        assert server.stats.messages_received == 0


async def test_no_token_goes_unencrypted_to_an_address_that_a_stranger_gave(name: str) -> None:
    async with stranger() as other:
        # For documentation alone (RFC 5737): nothing is sent there.
        register(other, name, addresses=["198.51.100.1"], text=b"\x05tls=0")
        with pytest.raises(UsageError, match="unencrypted"):
            await connect(f"midi://{name}", token=TOKEN)


async def test_an_address_where_nobody_answers_keeps_nobody_from_the_next(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(client, "MOST_ADDRESS_S", 0.05)
    # A queue that is full: who comes then gets no answer.
    with listener(backlog=0) as (full, portno), socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex((LOOPBACK, portno))
        async with PortServer("127.0.0.2", portno) as server, stranger() as other:
            register(other, name, portno=portno, addresses=[LOOPBACK, "127.0.0.2"])
            async with connect(f"midi://{name}") as port:
                assert port.peer == ("127.0.0.2", portno)
            assert server.addresses == [port.peer]
            await server.close()
            full.listen(8)


@contextmanager
def listener(backlog: int) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, 0))
        sock.listen(backlog)
        yield sock, sock.getsockname()[1]


# Strangers.


@asynccontextmanager
async def stranger() -> AsyncIterator[AsyncZeroconf]:
    other = AsyncZeroconf(interfaces=[LOOPBACK])
    try:
        await other.zeroconf.async_wait_for_start()
        yield other
    finally:
        await other.async_close()


# What a label holds, at most. In zeroconf every byte becomes three, which it cannot write again.
NOTEXT = "x" * 63


def say(
    other: AsyncZeroconf,
    name: str,
    *,
    host: str = STRANGE_HOST,
    portno: int = 7,
    addresses: list[str] | None = None,
    text: bytes = b"",
    only: str = "PTR SRV TXT A",
    ttl: int = 120,
) -> None:
    """Say something of a server, with none of the care that zeroconf takes. NOTEXT is none in UTF-8."""
    full = f"{name}.{TYPE}"
    records: dict[str, list[Any]] = {
        "PTR": [mdns_package.DNSPointer(TYPE, 12, 1, 4500, full)],
        "SRV": [mdns_package.DNSService(full, 33, 0x8001, ttl, 0, 0, portno, host)],
        "TXT": [mdns_package.DNSText(full, 16, 0x8001, ttl, text)],
        "A": [
            mdns_package.DNSAddress(host, 1, 0x8001, ttl, ip_address(address).packed)
            for address in (addresses or [LOOPBACK])
        ],
    }
    out = mdns_package.DNSOutgoing(0x8400)
    for kind in only.split():
        for record in records[kind]:
            out.add_answer_at_time(record, 0)
    for packet in out.packets():
        for sender in other.zeroconf.engine.senders:
            garbled = packet.replace(NOTEXT.encode(), b"\xff" * len(NOTEXT))
            sender.transport.sendto(garbled, ("224.0.0.251", 5353))


def register(
    other: AsyncZeroconf,
    name: str,
    *,
    host: str = STRANGE_HOST,
    portno: int = 7,
    addresses: list[str] | None = None,
    text: bytes = b"",
) -> mdns_package.ServiceInfo:
    """Answer to a name, without having asked whether somebody has it."""
    info = mdns_package.ServiceInfo(
        TYPE,
        f"{name}.{TYPE}",
        portno,
        server=host,
        parsed_addresses=addresses or [LOOPBACK],
        properties=text,
    )
    other.zeroconf.registry.async_add(info)
    return info


async def test_what_cannot_be_shown_or_connected_to_is_left_out(name: str) -> None:
    async with discover() as changes, stranger() as other:
        say(other, f"{name}\x1b[31m")
        say(other, f"{name}\n")
        say(other, f"{name}\u202e")
        # To zeroconf that is no instance.
        say(other, "_sub")
        say(other, NOTEXT)
        say(other, f"{name} of no host", host=f"{NOTEXT}.local.", only="PTR SRV")
        say(other, f"{name} without a port number", portno=0)
        say(other, f"{name} elsewhere", host="evil.example.com.")
        say(other, f"{name} nowhere", host="a b.local.")
        say(other, f"{name} anywhere", host=f"any-{STRANGE_HOST}", addresses=["0.0.0.0"])
        say(other, f"{name} everywhere", host=f"every-{STRANGE_HOST}", addresses=["224.0.0.1"])
        say(other, f"{name} ü", host=f"good-{STRANGE_HOST}", addresses=["224.0.0.1", LOOPBACK])
        assert await next_about(changes, name) == ServiceChange(
            "found",
            Service(f"{name} ü", f"good-{STRANGE_HOST}".removesuffix("."), ((LOOPBACK, 7),), False, False),
        )
        # Its next question is asked all the same.
        register(other, f"{name} again")
        assert (await next_about(changes, name)).service.name == f"{name} again"


@pytest.mark.parametrize(
    ("text", "tls", "token"),
    [
        (b"", False, False),
        (b"\x00", False, False),
        (b"\xfftls", False, False),
        (b"\x05tls=1\xfe\x00\x01", True, False),
        (b"\x05TLS=1\x07Token=1", True, True),
        (b"\x09txtvers=1\x05tls=1", True, False),
        (b"\x09txtvers=2\x05tls=1\x07token=1", False, False),
        (b"\x05tls=0\x05tls=1\x03tls\x05=junk\x07token=2", False, False),
        (b"\x03tls\x06token=", False, False),
    ],
)
async def test_a_txt_record_is_read_as_far_as_it_can_be(
    name: str, text: bytes, tls: bool, token: bool
) -> None:
    async with discover() as changes, stranger() as other:
        say(other, name, text=text)
        service = (await next_about(changes, name)).service
        assert (service.tls, service.token) == (tls, token)


async def test_a_server_is_found_when_the_last_of_its_records_is_there_and_changes_with_them(
    name: str,
) -> None:
    async with discover() as changes, stranger() as other:
        for only in ("PTR", "SRV", "TXT"):
            say(other, name, only=only)
            await asyncio.sleep(0.05)
            assert name not in [service.name for service in changes.services]
        say(other, name, only="A")
        found = await next_about(changes, name)
        assert found.kind == "found"
        say(other, name, text=b"\x05tls=1", only="TXT")
        assert await next_about(changes, name) == ServiceChange("changed", found.service._replace(tls=True))


async def test_who_vanished_without_a_word_is_gone_and_may_come_back(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(discovery, "_REVIEW_S", 0.1)
    monkeypatch.setattr(discovery, "_RECORDS_S", 0.1)
    async with discover() as changes, stranger() as other:
        say(other, name, ttl=1)
        assert (await next_about(changes, name)).kind == "found"
        assert (await next_about(changes, name)).kind == "gone"
        say(other, name, only="SRV TXT A")
        assert (await next_about(changes, name)).kind == "found"


async def test_of_a_flood_of_servers_so_many_are_kept_track_of(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(discovery, "MAX_SERVICES", 3)
    async with discover() as changes, stranger() as other:
        for number in range(20):
            say(other, f"{name} {number}")
        await until(lambda: len(changes.services) == 3)
        assert len(changes._names) == 3


# Which of its addresses.


def here(*, addresses: list[str], networks: list[str], loopback: bool = False) -> Here:
    made = Here.__new__(Here)
    made.loopback = loopback
    made.addresses = {ip_address(address) for address in addresses}
    made._networks = {ip_network(network) for network in networks}
    return made


def test_a_server_on_every_interface_is_reached_by_each_of_their_addresses() -> None:
    machine = here(addresses=["192.168.1.5", "fe80::5", "2001:db8::5"], networks=[])
    everywhere = [("0.0.0.0", 1), ("::", 1)]
    assert set(machine.reachable(everywhere)) == {"192.168.1.5", "fe80::5", "2001:db8::5"}
    assert machine.reachable(everywhere[:1]) == ["192.168.1.5"]
    assert machine.reachable([("127.0.0.1", 1), ("10.0.0.1", 1)]) == ["10.0.0.1"]
    assert machine.reachable([("fe80::5%eth0", 1)]) == ["fe80::5"]
    with pytest.raises(OSError, match="none of the addresses"):
        machine.reachable([("127.0.0.1", 1)])
    assert here(addresses=["127.0.0.1"], networks=[], loopback=True).reachable(everywhere) == ["127.0.0.1"]


def test_addresses_that_are_near_are_tried_first() -> None:
    machine = here(
        addresses=["192.168.1.5", "172.17.0.1"],
        networks=["192.168.1.0/24", "172.17.0.0/16", "2001:db8::/64"],
    )
    # This machine has a bridge with the same address.
    far = ["172.17.0.1", "10.9.9.9", "fe80::1%2", "2001:db8::7", "192.168.1.7"]
    best = machine.best_first([ip_address(address) for address in far])
    assert [str(address) for address in best] == [
        *("192.168.1.7", "2001:db8::7", "10.9.9.9", "fe80::1%2", "172.17.0.1")
    ]
    # Its own are as good as any where the server is on this machine.
    own = [ip_address("172.17.0.1"), ip_address("192.168.1.5")]
    assert machine.best_first(own) == own


@pytest.mark.parametrize(
    ("interface", "loopback", "expected"),
    [
        (None, False, {"10.0.0.1", "fd00::1"}),
        (3, False, {"10.0.0.1", "fd00::1", "fe80::1%3"}),
        (3, True, {"10.0.0.1", "fd00::1", "fe80::1%3", "127.0.0.1"}),
    ],
)
def test_loopback_and_link_local_addresses_are_taken_where_they_lead_somewhere(
    interface: int | None, loopback: bool, expected: set[str]
) -> None:
    every = ["127.0.0.1", "fe80::1", "fd00::1", "10.0.0.1", "::", "ff02::1"]
    info = mdns_package.ServiceInfo(
        TYPE,
        f"x.{TYPE}",
        5,
        server="h.local.",
        properties={},
        interface_index=interface,
        addresses=[ip_address(address).packed for address in every],
    )
    service = discovery._read_service(info, here(addresses=[], networks=[], loopback=loopback))
    assert service is not None
    assert {address for address, _ in service.addresses} == expected


def test_the_host_is_this_machine_in_local(monkeypatch: pytest.MonkeyPatch) -> None:
    for hostname, host in (
        ("studio", "studio.local."),
        ("studio.example.com", "studio.local."),
        ("Tom's Mac", "Tom-s-Mac.local."),
    ):
        monkeypatch.setattr(socket, "gethostname", lambda hostname=hostname: hostname)
        assert announcement._host_name() == host
        label, _, hardware = announcement._host_name(unlike=True).partition(".")[0].rpartition("-")
        assert (f"{label}.local.", len(hardware)) == (host, 12)
    for nothing in ("localhost", "", "ü"):
        monkeypatch.setattr(socket, "gethostname", lambda hostname=nothing: hostname)
        assert re.fullmatch(r"midinet-[0-9a-f]+\.local\.", announcement._host_name())


# Without the extra.


async def test_without_zeroconf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf.asyncio", None)
    text = r"pip install 'midinet\[discovery\]'"
    server = PortServer("", 0, announce=name)
    with pytest.raises(MissingExtra, match=text):
        await server
    for make in (
        lambda: connect(f"midi://{name}"),
        lambda: connect(f"midi://{name}", reconnect=True),
        discover,
    ):
        with pytest.raises(MissingExtra, match=text):
            await make()
    with pytest.raises(MissingExtra, match=text):
        await asyncio.to_thread(midinet.sync.discover)
    # Nobody else needs it.
    async with PortServer("localhost", 0) as other, connect("localhost", portno(other)):
        pass


async def test_an_announcement_that_never_began_ends() -> None:
    one = Announcement("x")
    one.begin_close()
    await one.wait_closed()


async def test_who_follows_a_search_whose_task_died_is_told_why() -> None:
    search = discover()
    follower = asyncio.create_task(_follow(search))
    await asyncio.sleep(0)
    search._fail(ZeroDivisionError("records"))
    with pytest.raises(ListenError, match="cannot look for servers: records"):
        await follower
