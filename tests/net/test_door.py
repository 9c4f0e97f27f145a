from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from typing import Any

import pytest
from mido import Message
from mido.sockets import connect as mido_connect

import midinet.net.link as link_module
import midinet.net.watch as watch_module
from midinet import CloseReason, ConnectError, ConnectionLost, PortServer, UsageError, connect
from midinet.errors import NotAuthorized, ServerBusy
from midinet.net import door as door_module
from midinet.net.access import DEFAULT_MAX_CLIENTS, DEFAULT_MAX_CLIENTS_PER_ADDRESS
from midinet.net.client import NAME_ANSWER_S
from midinet.net.door import DEFAULT_HELLO_TIMEOUT
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.wire.aside import MAX_ASIDE_BYTES, answer, hello, ping
from midinet.wire.parser import DEFAULT_MAX_SYSEX
from tests.harness.certificates import certificates
from tests.harness.clock import Clock
from tests.harness.raw import RawListener, RawPeer, reset
from tests.harness.servers import portno, serving
from tests.harness.tls_peer import TlsPeer
from tests.harness.waiting import PATIENCE_S, until

NOTE = b"\x90\x3c\x40"
SYSEX = b"\xf0\x41\x10\xf7"
OTHER_SYSEX = b"\xf0\x43\x10\xf7"
TOKEN = "open-sesame.3f6c"
TLS_REFUSED = (ssl.SSLError, ConnectionError)


def server_context(*, client_ca: bool = False) -> ssl.SSLContext:
    files = certificates()
    return tls_server_context(files.server_cert, files.server_key, client_ca=files.ca if client_ca else None)


def client_context(*, certificate: bool = False) -> ssl.SSLContext:
    files = certificates()
    return tls_client_context(files.ca, cert=files.client_pem if certificate else None)


def reasons(server: PortServer) -> dict[CloseReason, int]:
    return dict(server.stats.closed)


async def send_and_receive(*arguments: Any, **options: Any) -> Message:
    async with connect(*arguments, **options) as port:
        await port.send(Message("note_on", note=60))
        return await port.receive()


async def turned_away(server: PortServer, reason: CloseReason, count: int = 1) -> None:
    """Wait until connections have ended for a reason, without having been let in."""
    await until(lambda: server.stats.turned_away == count)
    assert reasons(server) == {reason: count}
    assert server.stats.clients_total == 0


async def ended(peer: RawPeer) -> bytes:
    """What a peer gets to the end of the stream, be that a FIN or a reset."""
    data = bytearray()
    try:
        while more := await peer.read(1):
            data += more
    except ConnectionResetError:
        pass
    return bytes(data)


def own_address() -> str | None:
    """An IPv4 address of this machine that is not loopback, None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Nothing is sent: it only asks which address one would send from (RFC 5737: nobody is there).
            sock.connect(("198.51.100.1", 9))
            address = str(sock.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith(("127.", "0.")) else address


OUTSIDE = own_address()
requires_outside = pytest.mark.skipif(OUTSIDE is None, reason="this machine has no address but loopback")


# Limits.


def test_the_documented_limits() -> None:
    assert DEFAULT_MAX_CLIENTS == 256
    assert DEFAULT_MAX_CLIENTS_PER_ADDRESS == 32
    assert DEFAULT_HELLO_TIMEOUT == 5.0
    assert MAX_ASIDE_BYTES == 1024
    assert DEFAULT_MAX_SYSEX == 65536
    assert watch_module._SYSEX_SILENCE_S == 10.0
    assert door_module._EXHAUSTED_LOG_S == 10.0
    assert door_module._EXHAUSTED_PAUSE_S < 1.0


@pytest.mark.parametrize(
    "options",
    [
        {"hello_timeout": 0},
        {"max_clients": 0},
        {"max_clients_per_address": 0},
        {"tokens": ["with a space"]},
        {"tokens": TOKEN},
        {"allow": ["nowhere"]},
        {"allow": "127.0.0.1"},
    ],
)
def test_what_cannot_be_is_refused_when_the_server_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))[:5]) as caught:
        PortServer("127.0.0.1", 0, **options)
    assert TOKEN not in str(caught.value)


# Allowed addresses.


async def test_who_is_not_allowed_is_closed_before_a_byte_is_read() -> None:
    async with serving(allow=["10.0.0.0/8"], relay=True) as server, RawPeer(portno(server)) as peer:
        # There before it is accepted, so that it could be read.
        with contextlib.suppress(ConnectionError):
            await peer.send(NOTE)
        assert await ended(peer) == b""
        await turned_away(server, CloseReason.NOT_ALLOWED)
        assert server.stats.bytes_received == 0
        assert server.closed_connections[-1].peer[0] == "127.0.0.1"


async def test_who_is_not_allowed_does_not_get_as_far_as_a_handshake() -> None:
    async with serving(allow=["10.0.0.0/8"], ssl=server_context()) as server:
        with pytest.raises(ConnectError):
            await connect("localhost", portno(server), ssl=client_context())
        # Not even the beginning of one, which would be an alert.
        async with RawPeer(portno(server)) as peer:
            assert await ended(peer) == b""
        await turned_away(server, CloseReason.NOT_ALLOWED, 2)


@pytest.mark.parametrize("allow", [["127.0.0.1"], ["10.0.0.1", "127.0.0.0/8"]])
async def test_who_is_allowed_is_let_in(allow: list[str]) -> None:
    async with serving(allow=allow) as server, RawPeer(portno(server)) as peer:
        await peer.send(NOTE)
        assert (await server.receive()).bytes() == list(NOTE)


async def test_an_empty_list_allows_nobody() -> None:
    async with serving(allow=[]) as server, RawPeer(portno(server)) as peer:
        assert await ended(peer) == b""
        await turned_away(server, CloseReason.NOT_ALLOWED)


async def test_an_ipv4_network_is_not_ipv6() -> None:
    try:
        server = PortServer("::1", 0, allow=["127.0.0.0/8"])
        await server
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with server, RawPeer(portno(server), host="::1") as peer:
        assert await ended(peer) == b""
        await turned_away(server, CloseReason.NOT_ALLOWED)


# TLS.


async def test_both_ways_over_tls() -> None:
    async with (
        serving(ssl=server_context()) as server,
        connect("localhost", portno(server), ssl=client_context(), name="stage-left") as port,
    ):
        await port.send(Message("note_on", note=60))
        assert (await server.receive()).note == 60
        await server.send(Message("note_on", note=61))
        assert (await port.receive()).note == 61
        assert [port.name for port in server.ports] == ["stage-left"]


async def test_a_client_certificate_that_is_asked_for_lets_in() -> None:
    async with (
        serving(ssl=server_context(client_ca=True)) as server,
        connect("localhost", portno(server), ssl=client_context(certificate=True)) as port,
    ):
        await port.send(Message("note_on", note=60))
        assert (await server.receive()).note == 60


@pytest.mark.parametrize("wrong", [False, True])
async def test_no_or_a_wrong_client_certificate_does_not_let_in(wrong: bool) -> None:
    files = certificates()
    context = client_context()
    if wrong:
        context.load_cert_chain(files.wrong_client_cert, files.wrong_client_key)
    async with serving(ssl=server_context(client_ca=True), relay=True) as server:
        # Under TLS 1.3 the client learns of it when it reads.
        with pytest.raises((ConnectError, ConnectionLost)):
            await send_and_receive("localhost", portno(server), ssl=context)
        await turned_away(server, CloseReason.TLS)
        assert server.stats.bytes_received == 0


async def test_a_server_with_another_certificate_is_not_connected_to() -> None:
    async with serving(ssl=server_context()) as server:
        with pytest.raises(ConnectError, match="TLS"):
            await connect("localhost", portno(server), ssl=tls_client_context(certificates().wrong_ca))
        await turned_away(server, CloseReason.TLS)


async def test_a_handshake_that_stalls_is_ended() -> None:
    async with serving(ssl=server_context(), hello_timeout=0.1) as server:
        began = time.monotonic()
        async with RawPeer(portno(server)) as silent, RawPeer(portno(server)) as begun:
            # The head of a record of 512 bytes, of which no more comes.
            await begun.send(b"\x16\x03\x01\x02\x00\x01")
            await ended(silent)
            await ended(begun)
        assert time.monotonic() - began < 2
        await turned_away(server, CloseReason.TLS, 2)


async def test_midi_on_a_tls_port_reaches_nobody() -> None:
    async with serving(ssl=server_context(), relay=True) as server, RawPeer(portno(server)) as peer:
        await peer.send(NOTE * 100)
        await ended(peer)
        await turned_away(server, CloseReason.TLS)
        assert server.stats.messages_received == 0


async def test_tls_on_a_plain_port_is_ended_and_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        with pytest.raises(ConnectError, match="TLS"):
            await connect("localhost", portno(server), ssl=client_context())
        await turned_away(server, CloseReason.TLS)
        assert server.stats.messages_received == 0
    assert "spoke TLS to a plain port" in caplog.text


async def test_a_handshake_holds_up_nobody_else() -> None:
    async with serving(ssl=server_context()) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(RawPeer(portno(server)))
        async with connect("localhost", portno(server), ssl=client_context()) as port:
            await port.send(Message("note_on", note=60))
            assert (await server.receive()).note == 60


# Web pages, which may have a browser send any body to any port.

POST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n"
    + NOTE
    + SYSEX
)


async def test_a_web_page_plays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def post(portno: int) -> None:
        browser = http.client.HTTPConnection("127.0.0.1", portno, timeout=PATIENCE_S)
        with contextlib.closing(browser):
            browser.request("POST", "/", NOTE + SYSEX, {"Content-Type": "text/plain"})
            browser.getresponse()

    async with serving(relay=True) as server, RawPeer(portno(server)) as listener:
        await until(lambda: server.stats.clients)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(post, portno(server))
        await until(lambda: server.stats.turned_away == 1)
        assert reasons(server) == {CloseReason.HTTP: 1}
        assert server.stats.clients_total == 1
        await server.send(Message("tune_request"))
        assert await listener.read(1) == b"\xf6"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "spoke HTTP" in warnings[0]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_request_that_comes_byte_by_byte_is_refused_by_its_first_bytes(tls: bool) -> None:
    async with (
        serving("localhost", relay=True, ssl=server_context() if tls else None) as server,
        RawPeer(portno(server)) as raw,
        TlsPeer(raw, client_context()) if tls else contextlib.nullcontext(raw) as peer,
    ):
        for byte in POST[: len("POST /")]:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        await turned_away(server, CloseReason.HTTP)
        assert server.stats.bytes_received == 0


async def test_a_request_that_is_reset_at_once_is_not_played_either() -> None:
    """What is unread when writing fails is read all the same."""
    async with serving(relay=True) as server:
        async with RawPeer(portno(server)) as peer:
            await until(lambda: server.ports)
            await peer.send(POST)
            # The transport ends before the loop gets to read that.
            server.ports[0]._link.transport.abort()
            await turned_away(server, CloseReason.HTTP)
        assert server.stats.messages_received == 0


async def test_a_request_with_a_token_in_it_is_refused_too() -> None:
    async with serving(tokens=[TOKEN]) as server, RawPeer(portno(server)) as peer:
        await peer.send(POST + hello(token=TOKEN) + NOTE)
        await ended(peer)
        await turned_away(server, CloseReason.HTTP)
        assert server.stats.messages_received == server.stats.messages_refused == 0


@pytest.mark.parametrize("rest", [b"", b"GET", b"POST ", b"\x16", b"\x16\x03", b"\x16\x3c\x40", b"\x3c\x40"])
@pytest.mark.parametrize("slowly", [False, True])
async def test_a_stream_that_begins_in_the_middle_of_a_message_is_read(rest: bytes, slowly: bool) -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        if slowly:
            await peer.send_slowly(rest + NOTE)
        else:
            await peer.send(rest + NOTE)
        assert (await server.receive()).note == 60
        assert server.stats.stray_data == len(rest)


async def test_what_is_held_back_when_the_stream_ends_is_counted() -> None:
    async with serving(relay=True) as server:
        async with RawPeer(portno(server)) as peer:
            await peer.send(b"POS")
            peer.finish()
            await until(lambda: server.closed_connections)
        (connection,) = server.closed_connections
        assert (connection.reason, connection.stats.stray_data) == (CloseReason.PEER, 3)


# Tokens.


async def test_a_token_that_is_accepted_lets_in() -> None:
    async with serving(tokens=["another", TOKEN], relay=True) as server:
        async with connect("127.0.0.1", portno(server), token=TOKEN, name="stage-left") as port:
            await port.send(Message("note_on", note=60))
            assert (await server.receive()).note == 60
            assert [port.name for port in server.ports] == ["stage-left"]
            assert server.stats.visitors == 0
        assert server.stats.turned_away == 0


@pytest.mark.parametrize("reconnect", [False, True])
@pytest.mark.parametrize("show", [{"token": "wrong"}, {"token": TOKEN[:-1]}, {"name": "stage-left"}])
async def test_another_token_or_none_is_an_error_at_connect(show: dict[str, str], reconnect: bool) -> None:
    async with serving(tokens=[TOKEN]) as server:
        with pytest.raises(NotAuthorized):
            await connect("127.0.0.1", portno(server), reconnect=reconnect, **show)
        await turned_away(server, CloseReason.UNAUTHORIZED)


async def test_no_tokens_let_nobody_in() -> None:
    async with serving(tokens=[]) as server:
        with pytest.raises(NotAuthorized):
            await connect("127.0.0.1", portno(server), token=TOKEN)


async def test_a_token_over_tls() -> None:
    async with serving(tokens=[TOKEN], ssl=server_context()) as server:
        async with connect("localhost", portno(server), token=TOKEN, ssl=client_context()) as port:
            await port.send(Message("note_on", note=60))
            assert (await server.receive()).note == 60
        with pytest.raises(NotAuthorized):
            await connect("localhost", portno(server), token="wrong", ssl=client_context())
        await until(lambda: reasons(server).get(CloseReason.UNAUTHORIZED) == 1)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NOTE, id="a note"),
        pytest.param(b"\xf8" * 100, id="clocks"),
        pytest.param(ping(), id="a ping"),
        pytest.param(hello(token=TOKEN)[:-1], id="all but a byte"),
    ],
)
async def test_a_hello_that_does_not_come_in_time_ends_it(said: bytes) -> None:
    async with serving(tokens=[TOKEN], hello_timeout=0.1) as server, RawPeer(portno(server)) as peer:
        await peer.send(said)
        began = time.monotonic()
        assert await ended(peer) == b""
        assert time.monotonic() - began < 2
        await turned_away(server, CloseReason.UNAUTHORIZED)


async def test_a_hello_may_come_in_crumbs_and_after_anything_else() -> None:
    async with serving(tokens=[TOKEN]) as server, RawPeer(portno(server)) as peer:
        await peer.send(NOTE + b"\xb0\x01")
        said = hello(token=TOKEN)
        await peer.send_slowly(said[:10] + b"\xf8" + said[10:] + NOTE)
        assert (await server.receive()).bytes() == list(NOTE)
        # The first note, and the clock inside of the aside.
        assert server.stats.messages_refused == 2
        assert await peer.read(len(answer(200))) == answer(200)


async def test_one_that_says_hello_and_is_not_read_does_not_stay() -> None:
    """Its answer does not get through, but it is not waited for."""
    async with serving(tokens=[TOKEN], hello_timeout=0.1) as server, RawPeer(portno(server)) as peer:
        await peer.send(hello(token="wrong"))
        await turned_away(server, CloseReason.UNAUTHORIZED)


async def test_what_is_sent_behind_a_refused_hello_is_read_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread, it would turn the end into a reset, and that the answer into nothing."""
    monkeypatch.setattr(link_module, "_LINGER_S", PATIENCE_S)
    async with serving(tokens=[TOKEN]) as server, RawPeer(portno(server)) as peer:
        # More than all the buffers on the way hold.
        await peer.send(hello(token="wrong") + NOTE * 5_000_000)
        assert await peer.read_to_end() == answer(401)


async def test_a_client_of_midos_is_let_go_by_a_server_with_tokens() -> None:
    clock = Clock()
    async with serving(tokens=[TOKEN], relay=True) as server:
        client = await asyncio.to_thread(mido_connect, "127.0.0.1", portno(server))
        try:
            client.send(Message("note_on", note=60))
            await until(lambda: server.stats.visitors)
            await clock.skip_until(lambda: not server.stats.visitors)
            await turned_away(server, CloseReason.UNAUTHORIZED)
            assert server.stats.messages_refused == 1
            assert server.poll() is None
        finally:
            close_mido(client)


def close_mido(port: Any) -> None:
    """Close a port of mido's, which leaves its socket and files open."""
    port._rfile.close()
    with contextlib.suppress(OSError):
        port._wfile.close()
    port._socket.close()
    port.closed = True


@pytest.mark.parametrize("tls", [False, True])
async def test_no_byte_of_who_is_not_let_in_reaches_anyone(tls: bool) -> None:
    options: dict[str, Any] = {"ssl": server_context()} if tls else {}
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tokens=[TOKEN], relay=True, **options))
        client_options: dict[str, Any] = {"ssl": client_context()} if tls else {}
        listener = await stack.enter_async_context(
            connect("localhost" if tls else "127.0.0.1", portno(server), token=TOKEN, **client_options)
        )
        reader = asyncio.create_task(server.receive())
        raw = RawPeer(portno(server))
        peer: Any = await stack.enter_async_context(TlsPeer(raw, client_context()) if tls else raw)
        await peer.send(NOTE)
        await until(lambda: server.stats.visitors == 1)
        # All that the server says goes to the others.
        await server.send(Message("note_on", note=1))
        assert (await listener.receive()).note == 1
        await peer.send(
            ping("x") + NOTE + hello(token="wrong", name="nobody") + NOTE + hello(token=TOKEN) + NOTE
        )
        await server.send(Message("note_on", note=2))
        assert await peer.read_to_end() == answer(401)
        with contextlib.suppress(OSError):
            await peer.send(NOTE + hello(token=TOKEN) + NOTE)
        await until(lambda: server.stats.turned_away == 1)
        # Nobody heard of it, not even that its notes were let go.
        await server.send(Message("note_on", note=3))
        assert (await listener.receive()).note == 2
        assert (await listener.receive()).note == 3
        assert not reader.done()
        assert len(server.ports) == 1
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def test_what_stands_in_one_segment_behind_a_right_hello_arrives() -> None:
    async with serving(tokens=[TOKEN], relay=True) as server, contextlib.AsyncExitStack() as stack:
        listener = await stack.enter_async_context(connect("127.0.0.1", portno(server), token=TOKEN))
        async with RawPeer(portno(server)) as peer:
            await until(lambda: len(server.ports) == 1)
            await peer.send(
                b"\x90\x01\x40" + hello(token=TOKEN) + b"\x90\x02\x40" + ping("7") + b"\x90\x03\x40"
            )
            assert [(await listener.receive()).note for _ in range(2)] == [2, 3]
            assert server.stats.messages_refused == 1
            assert await peer.read(len(answer(200)) + 1) == answer(200) + b"\xf7"


async def test_a_second_hello_changes_the_name_and_nothing_else() -> None:
    async with serving(tokens=[TOKEN], relay=True) as server, RawPeer(portno(server)) as peer:
        await peer.send(hello("one", TOKEN))
        await until(lambda: [port.name for port in server.ports] == ["one"])
        await peer.send(hello("two", "wrong") + NOTE)
        assert (await server.receive()).bytes() == list(NOTE)
        assert [port.name for port in server.ports] == ["two"]
        assert await peer.read(2 * len(answer(200))) == answer(200) * 2


async def test_a_hello_above_one_kib_is_none() -> None:
    big = hello(token=TOKEN)[:-2] + b"X: " + b"x" * MAX_ASIDE_BYTES + b"\r\n\r\n"
    async with serving(tokens=[TOKEN], hello_timeout=0.2) as server, RawPeer(portno(server)) as peer:
        await peer.send(big + NOTE)
        assert await ended(peer) == b""
        await turned_away(server, CloseReason.UNAUTHORIZED)
        assert server.stats.asides_too_long == 1
        assert server.stats.messages_refused == 1


@pytest.mark.parametrize("tls", [False, True])
async def test_a_token_is_nowhere_to_be_seen(tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("midinet", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    asyncio.get_running_loop().set_debug(True)
    wrong, host = "wrong.7be1", "localhost" if tls else "127.0.0.1"
    theirs: dict[str, Any] = {"ssl": client_context()} if tls else {}
    seen = []
    async with serving(tokens=[TOKEN], **({"ssl": server_context()} if tls else {})) as server:
        connecting = connect(host, portno(server), token=TOKEN, name="stage-left", **theirs)
        async with connecting as port:
            await port.send(Message("note_on", note=60))
            await server.receive()
            seen += [connecting, port, server, port.stats, server.stats, *server.ports, *asyncio.all_tasks()]
        refused = connect(host, portno(server), token=wrong, **theirs)
        with pytest.raises(NotAuthorized) as caught:
            await refused
        error: BaseException | None = caught.value
        while error is not None:
            seen += [error, error.args]
            error = error.__cause__ or error.__context__
        await until(lambda: server.stats.turned_away == 1)
        seen += [refused, *server.closed_connections, server.stats, server._door, server._access]
    with pytest.raises(ValueError, match="cannot be sent") as misused:
        connect(host, 1, token=TOKEN + " ")
    seen.append(misused.value)
    text = "\n".join([f"{one!r} {one!s}" for one in seen] + [str(vars(record)) for record in caplog.records])
    assert "stage-left" in caplog.text
    assert TOKEN not in text
    assert wrong not in text


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
async def test_tokens_beyond_loopback_take_tls(host: str) -> None:
    server = PortServer(host, 0, tokens=[TOKEN])
    with pytest.raises(UsageError, match="unencrypted"):
        await server
    await server.close()
    for options in ({"insecure_token": True}, {"ssl": server_context()}):
        async with PortServer(host, 0, tokens=[TOKEN], **options):
            pass


@requires_outside
async def test_a_token_is_not_sent_beyond_loopback_without_tls() -> None:
    assert OUTSIDE is not None
    async with serving(OUTSIDE, tokens=[TOKEN], insecure_token=True) as server:
        with pytest.raises(UsageError, match="unencrypted"):
            await connect(OUTSIDE, portno(server), token=TOKEN)
        # Nobody was bothered.
        assert server.stats.visitors == server.stats.turned_away == 0
        async with connect(OUTSIDE, portno(server), token=TOKEN, insecure_token=True) as port:
            await port.send(Message("note_on", note=60))
            assert (await server.receive()).note == 60


# Names.


async def test_a_name_alone_is_answered_and_seen() -> None:
    async with serving(relay=True) as server:
        async with connect("127.0.0.1", portno(server), name="Bühne links") as port:
            assert [port.name for port in server.ports] == ["Bühne links"]
            assert port.name == f"127.0.0.1:{portno(server)}"
        await until(lambda: server.stats.clients == 0)
        assert server.closed_connections[-1].name == "Bühne links"


async def test_a_server_that_does_not_answer_to_a_name_is_connected_to() -> None:
    """As mido's."""
    async with RawListener() as listener:
        connecting = asyncio.ensure_future(_connected("127.0.0.1", listener.portno, name="stage-left"))
        async with await listener.accept() as peer:
            await peer.send(NOTE)
            began = time.monotonic()
            port = await connecting
            assert time.monotonic() - began < 10 * NAME_ANSWER_S
            assert (await port.receive()).bytes() == list(NOTE)
            await port.close()


async def test_a_server_that_closes_in_place_of_an_answer_to_a_name_is_read_first() -> None:
    async with RawListener() as listener:
        connecting = asyncio.ensure_future(_connected("127.0.0.1", listener.portno, name="stage-left"))
        async with await listener.accept() as peer:
            await peer.send(NOTE)
            peer.finish()
            port = await connecting
            # And what lets go of it.
            assert [message.note async for message in port] == [60, 60]
            await port.close()


async def _connected(*arguments: Any, **options: Any) -> Any:
    return await connect(*arguments, **options)


# How many.


@pytest.mark.parametrize("show", [{"name": "third"}, {"token": TOKEN}, {"name": "third", "token": TOKEN}])
async def test_who_said_hello_is_told_that_there_is_no_room(show: dict[str, str]) -> None:
    async with serving(max_clients=2, tokens=[TOKEN] if "token" in show else None) as server:
        token = show.get("token")
        async with connect("127.0.0.1", portno(server), token=token) as first:
            async with connect("127.0.0.1", portno(server), token=token):
                await until(lambda: server.stats.clients == 2)
                with pytest.raises(ServerBusy):
                    await connect("127.0.0.1", portno(server), **show)
                await until(lambda: reasons(server) == {CloseReason.BUSY: 1})
                assert server.stats.clients == 2
            # One goes, and there is room again.
            await until(lambda: server.stats.clients == 1)
            async with connect("127.0.0.1", portno(server), **show) as third:
                for port in (first, third):
                    await port.send(Message("note_on", note=60))
                    assert (await server.receive()).note == 60


async def test_who_said_nothing_is_closed_when_there_is_no_room() -> None:
    clock = Clock()
    async with (
        serving(max_clients=1, relay=True) as server,
        RawPeer(portno(server)) as first,
        RawPeer(portno(server)) as second,
    ):
        await second.send(NOTE)
        await until(lambda: server.stats.visitors)
        await clock.skip_until(lambda: not server.stats.visitors)
        assert await ended(second) == b""
        await first.send(b"\x90\x01\x40")
        assert (await server.receive()).note == 1
        await until(lambda: reasons(server) == {CloseReason.BUSY: 1})
        assert server.stats.turned_away == server.stats.messages_refused == 1
        assert server.poll() is None


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_who_waits_for_room_and_goes_takes_no_place_away(how: str) -> None:
    async with serving(max_clients=1) as server, RawPeer(portno(server)):
        await until(lambda: server.stats.clients == 1)
        for count in range(1, 4):
            async with RawPeer(portno(server)) as peer:
                await until(lambda: server.stats.visitors == 1)
                peer.finish() if how == "fin" else peer.reset()
                await until(lambda count=count: server.stats.turned_away == count)
        assert server.stats.visitors == 0
        assert (server._crowd.clients, server._door._busy) == (1, 0)  # type: ignore[union-attr]


async def test_more_without_room_than_are_told_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "_MAX_BUSY", 2)
    monkeypatch.setattr(door_module, "_BUSY_PATIENCE_S", PATIENCE_S)
    async with serving(max_clients=1) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(RawPeer(portno(server)))
        await until(lambda: server.stats.visitors == 2)
        async with RawPeer(portno(server)) as peer:
            assert await ended(peer) == b""
        await until(lambda: reasons(server) == {CloseReason.BUSY: 1})
        assert server.stats.turned_away == 1


@requires_outside
async def test_the_limit_of_one_address_does_not_hold_for_loopback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert OUTSIDE is not None
    async with serving("0.0.0.0", max_clients_per_address=2) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(RawPeer(portno(server)))
        for _ in range(2):
            await stack.enter_async_context(RawPeer(portno(server), host=OUTSIDE))
        await until(lambda: server.stats.clients == 7)
        with pytest.raises(ServerBusy):
            await connect(OUTSIDE, portno(server), name="eighth")
        await until(lambda: reasons(server) == {CloseReason.BUSY: 1})
        assert server.stats.clients == 7


async def test_who_was_gone_before_it_was_accepted_leaves_its_place() -> None:
    async with serving(max_clients=3) as server:
        for count in range(1, 6):
            with socket.create_connection(("127.0.0.1", portno(server))) as sock:
                # No turn of the loop: the server has not seen it yet.
                reset(sock)
            await until(lambda count=count: sum(server.stats.closed.values()) == count)
        assert server._crowd.clients == 0
        assert server.closed_connections[-1].peer[0] == "127.0.0.1"
        async with connect("127.0.0.1", portno(server)) as port:
            await port.send(Message("note_on", note=60))
            assert (await server.receive()).note == 60


# Closing the door.


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_a_server_that_closes_while_clients_come_leaves_nothing_open(turns: int, tls: bool) -> None:
    """What was left open would fail the test as a warning, or in conftest.py."""
    options: dict[str, Any] = {"ssl": server_context()} if tls else {}
    async with serving(tokens=[TOKEN], **options) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", portno(server))))
            if not tls:
                sock.sendall(hello(token=TOKEN) + NOTE)
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.close()
        assert server.stats.visitors == server.stats.clients == 0


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """As the proactor loop of Windows is."""

    def add_reader(self, *_: Any) -> None:
        raise NotImplementedError

    def remove_reader(self, *_: Any) -> bool:
        raise NotImplementedError


def test_a_loop_without_readers_accepts_too() -> None:
    async def there_and_back() -> None:
        async with serving(relay=True) as server:
            for _ in range(3):
                async with (
                    connect("127.0.0.1", portno(server)) as a,
                    connect("127.0.0.1", portno(server), name="b") as b,
                ):
                    await until(lambda: len(server.ports) == 2)
                    await a.send(Message("note_on", note=60))
                    assert (await b.receive()).note == 60
                await until(lambda: not server.ports)

    with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
        runner.run(there_and_back())


# System exclusive messages.


@contextlib.asynccontextmanager
async def relaying(host: str, **options: Any) -> AsyncIterator[tuple[PortServer, RawPeer, RawPeer]]:
    """A relay with two clients: one that comes by `host`, and one on loopback that may do everything."""
    async with (
        serving("0.0.0.0" if host != "127.0.0.1" else host, relay=True, **options) as server,
        RawPeer(portno(server), host=host) as peer,
    ):
        await until(lambda: len(server.ports) == 1)
        async with RawPeer(portno(server)) as other:
            await until(lambda: len(server.ports) == 2)
            yield server, peer, other


def sysex_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.levelno == logging.WARNING and "system exclusive" in record.message
    ]


@requires_outside
async def test_by_default_sysex_passes_on_loopback_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    assert OUTSIDE is not None
    async with relaying(OUTSIDE) as (server, peer, other):
        await peer.send(SYSEX + NOTE + SYSEX)
        assert await other.read(len(NOTE)) == NOTE
        await other.send(SYSEX + NOTE + SYSEX + b"\xfa")
        assert await peer.read(len(NOTE) + 1) == NOTE + b"\xfa"
        outside, inside = server.ports
        assert outside.stats.sysex_refused == server.stats.sysex_refused == 4
        assert inside.stats.sysex_refused == 0
        # One a connection, whichever way and however many.
        assert len(sysex_warnings(caplog)) == 1


@requires_outside
@pytest.mark.parametrize("by", ["token", "certificate", "nothing"])
async def test_a_token_or_a_client_certificate_lets_sysex_pass(by: str) -> None:
    assert OUTSIDE is not None
    options: dict[str, Any] = {"ssl": server_context(client_ca=by == "certificate")}
    if by == "token":
        options["tokens"] = [TOKEN]
    context = client_context(certificate=by == "certificate")
    context.check_hostname = False
    async with (
        serving("0.0.0.0", **options) as server,
        connect(OUTSIDE, portno(server), ssl=context, token=TOKEN if by == "token" else None) as port,
    ):
        for message in (Message("sysex", data=[0x41]), Message("start")):
            await port.send(message)
        expected = "start" if by == "nothing" else "sysex"
        assert (await server.receive()).type == expected
        for message in (Message("sysex", data=[0x41]), Message("start")):
            await server.send(message)
        assert (await port.receive()).type == expected
        assert server.stats.sysex_refused == (2 if by == "nothing" else 0)


@requires_outside
async def test_all_sysex_passes_from_anywhere_where_that_is_wished() -> None:
    assert OUTSIDE is not None
    async with relaying(OUTSIDE, sysex=True) as (server, peer, other):
        await peer.send(SYSEX)
        assert await other.read(len(SYSEX)) == SYSEX
        await other.send(SYSEX)
        assert await peer.read(len(SYSEX)) == SYSEX
        assert server.stats.sysex_refused == 0


@pytest.mark.parametrize("sysex", [False, set()])
async def test_no_sysex_passes_where_that_is_wished(sysex: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with relaying("127.0.0.1", sysex=sysex) as (server, peer, other):
        await peer.send(SYSEX * 3 + NOTE)
        assert await other.read(len(NOTE)) == NOTE
        assert [port.stats.sysex_refused for port in server.ports] == [3, 0]
        await server.send(Message("sysex", data=[0x41]))
        await server.send(Message("start"))
        assert await peer.read(1) == b"\xfa"
        assert [port.stats.sysex_refused for port in server.ports] == [4, 1]
        assert len(sysex_warnings(caplog)) == 2


async def test_sysex_passes_by_manufacturer_both_ways() -> None:
    async with relaying("127.0.0.1", sysex={0x41}) as (server, peer, other):
        for sender, listener in ((peer, other), (other, peer)):
            await sender.send(OTHER_SYSEX + SYSEX + OTHER_SYSEX + NOTE)
            assert await listener.read(len(SYSEX + NOTE)) == SYSEX + NOTE
        assert server.stats.sysex_refused == 4


async def test_a_client_may_close_itself_to_sysex() -> None:
    async with serving(relay=True) as server, connect("127.0.0.1", portno(server), sysex=False) as port:
        await until(lambda: len(server.ports) == 1)
        for message in (Message("sysex", data=[0x41]), Message("start")):
            await server.send(message)
        assert (await port.receive()).type == "start"
        for message in (Message("sysex", data=[0x41]), Message("start")):
            await port.send(message)
        assert (await server.receive()).type == "start"
        assert port.stats.sysex_refused == 2


async def test_a_sysex_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_SYSEX_SILENCE_S", 0.05)
    async with serving() as server, RawPeer(portno(server)) as peer:
        receiver = asyncio.create_task(server.receive())
        await peer.send(b"\xf0\x41\x01")
        await until(lambda: server.stats.sysex_aborted == 1)
        # What still comes of it belongs to nothing.
        await peer.send(b"\x02\xf7" + NOTE)
        assert (await receiver).bytes() == list(NOTE)
        assert server.stats.messages_received == 1


async def test_a_slow_sysex_is_not_given_up() -> None:
    clock = Clock()
    dump = b"\xf0" + bytes(8) + b"\xf7"
    async with serving() as server, RawPeer(portno(server)) as peer:
        receiver = asyncio.create_task(server.receive())
        for count, byte in enumerate(dump, 1):
            await peer.send(bytes((byte,)))
            await until(lambda count=count: server.stats.bytes_received == count)
            await clock.skip(watch_module._SYSEX_SILENCE_S / 2, step_s=1.0)
        assert (await receiver).bytes() == list(dump)
        assert server.stats.sysex_aborted == 0


async def test_a_sysex_above_the_limit_is_dropped_whole() -> None:
    async with serving() as server, RawPeer(portno(server)) as peer:
        receiver = asyncio.create_task(server.receive())
        await peer.send(b"\xf0" + bytes(DEFAULT_MAX_SYSEX) + b"\xf7" + NOTE)
        assert (await receiver).bytes() == list(NOTE)
        assert server.stats.sysex_too_long == 1


# Warnings.


@pytest.mark.parametrize(
    ("host", "options", "warned"),
    [
        ("0.0.0.0", {}, True),
        ("", {}, True),
        ("127.0.0.1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {"allow": ["10.0.0.0/8"]}, False),
        ("0.0.0.0", {"tokens": [TOKEN], "insecure_token": True}, False),
        ("0.0.0.0", {"ssl": True}, False),
    ],
)
async def test_a_server_that_is_open_to_everybody_says_so_once(
    host: str, options: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if "ssl" in options:
        options = {"ssl": server_context()}
    async with PortServer(host, 0, **options):
        pass
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == warned
    if warned:
        assert "open to everybody" in warnings[0]
        for word in ("allow=", "ssl=", "tokens="):
            assert word in warnings[0]


# Out of descriptors.

EXHAUSTED = """
import asyncio, json, logging, os, resource, sys
from midinet import PortServer
from midinet.net import door
from midinet.net.door import Door

# Seconds between attempts, a fifth of what it is.
door._EXHAUSTED_PAUSE_S /= 5
attempts = 0
log_exhausted = Door._log_exhausted

def count_attempt(*arguments):
    global attempts
    attempts += 1
    log_exhausted(*arguments)

Door._log_exhausted = count_attempt

class Count(logging.Handler):
    lines = 0
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            Count.lines += 1

async def main():
    logging.getLogger().addHandler(Count())
    async with PortServer("127.0.0.1", 0, relay=True) as server:
        print(server.addresses[0][1], flush=True)
        # So many are left.
        free = int(sys.argv[1])
        used = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, used + free))
        print("limited", flush=True)
        loop = asyncio.get_running_loop()
        stop = loop.create_future()
        loop.add_reader(sys.stdin, lambda: stop.done() or stop.set_result(None))
        await stop
        received = server.stats.messages_received
        print(json.dumps({"lines": Count.lines, "received": received, "attempts": attempts}), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def exhausted_server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process that has four descriptors for clients, and its port number."""
    if sys.platform != "linux":
        pytest.skip("descriptors are counted in /proc")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", EXHAUSTED, "4"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        portno = int(process.stdout.readline())
        assert process.stdout.readline() == "limited\n"
        try:
            yield process, portno
        finally:
            process.kill()


async def test_out_of_descriptors_existing_clients_lose_nothing(
    exhausted_server: tuple[subprocess.Popen[str], int],
) -> None:
    process, portno = exhausted_server
    pause_s, exhausted_at = door_module._EXHAUSTED_PAUSE_S / 5, time.monotonic()
    async with connect("127.0.0.1", portno, name="a") as a, connect("127.0.0.1", portno, name="b") as b:
        async with contextlib.AsyncExitStack() as crowd:
            # Two find a descriptor. The others are the system's, which lets them wait.
            waiting = [await crowd.enter_async_context(RawPeer(portno)) for _ in range(10)]
            # Longer than a few pauses between attempts to accept.
            began = time.monotonic()
            sent = 0
            while time.monotonic() - began < 4 * pause_s:
                await a.send(Message("control_change", control=20 + sent // 128, value=sent % 128))
                sent += 1
                await asyncio.sleep(pause_s / 20)
            heard = [await b.receive() for _ in range(sent)]
            assert [128 * (one.control - 20) + one.value for one in heard] == list(range(sent))
            for peer in waiting[:2]:
                assert (await peer.read(3))[:2] == b"\xb0\x14"
        # Now they are free again. A new one is there within a second.
        began = time.monotonic()
        async with connect("127.0.0.1", portno) as c:
            await c.send(Message("control_change", control=99))
            async with asyncio.timeout(PATIENCE_S):
                assert (await b.receive()).control == 99
        assert time.monotonic() - began < 2.5
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("end\n")
    process.stdin.flush()
    told = json.loads(await asyncio.to_thread(process.stdout.readline))
    # It tried now and then, and did not keep a processor busy with it.
    assert 1 < told.pop("attempts") < 10 * (time.monotonic() - exhausted_at) / pause_s
    assert told == {"lines": 1, "received": sent + 1}
    assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0


def test_every_limit_of_access_is_one_of_the_server() -> None:
    """So that none is forgotten in the tests above."""
    assert {field.name for field in fields(door_module.Access)} == {
        "allow",
        "ssl",
        "tokens",
        "insecure_token",
        "hello_timeout",
    }
