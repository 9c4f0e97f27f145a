from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mido import Message

from midinet import (
    CloseReason,
    ConnectError,
    ConnectionLost,
    ConnectRefused,
    MidinetError,
    PortClosed,
    PortServer,
    SocketPort,
    UsageError,
    connect,
)
from midinet.net.client import DEFAULT_CONNECT_TIMEOUT
from midinet.wire.aside import answer
from tests.harness.raw import RawListener
from tests.harness.waiting import PATIENCE_S, until

NOTE = Message("note_on", note=60)
NOTE_OFF = Message("note_off", note=60)
FRAME = b"\x90\x3c\x40"


@contextlib.asynccontextmanager
async def raw_server(family: int = socket.AF_INET) -> AsyncIterator[tuple[int, Callable[[], Any]]]:
    """A listening socket: its port number, and a function that returns the next connection."""
    with socket.socket(family) as listener:
        # Small, so that whoever is not read notices soon.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)

        async def accept() -> socket.socket:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            return sock

        async with asyncio.timeout(PATIENCE_S):
            yield listener.getsockname()[1], accept


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Making a connection.


async def test_awaited_or_as_a_block_it_gives_a_port() -> None:
    async with raw_server() as (portno, accept):
        port = await connect("127.0.0.1", portno)
        with await accept() as sock:
            assert (port.name, port.peer) == (f"127.0.0.1:{portno}", ("127.0.0.1", portno))
            assert repr(port) == f"<open SocketPort 127.0.0.1:{portno}>"
            await port.close()
            assert repr(port) == f"<closed SocketPort 127.0.0.1:{portno}>"
            assert sock.recv(1) == b""
        async with connect("127.0.0.1", portno) as port:
            with await accept() as sock:
                await port.send(NOTE)
        assert port.closed


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_every_address_of_a_name_is_tried(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(host: str, portno: int, **hints: Any) -> list[Any]:
        assert host == "stage.local"
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", portno, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", portno)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    async with raw_server(family) as (portno, accept), connect("stage.local", portno) as port:
        with await accept():
            assert port.name == f"stage.local:{portno}"


async def test_no_host_is_this_machine() -> None:
    async with raw_server() as (portno, accept), connect("", portno):
        (await accept()).close()


async def test_nobody_listening_is_a_refusal() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        portno = sock.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(ConnectRefused, match=f"nobody listens on {host}:{portno}") as caught:
                await connect(host, portno)
            assert isinstance(caught.value, ConnectionRefusedError)
            assert isinstance(caught.value, MidinetError)
            assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize(("host", "portno"), [("no.such.host.invalid", 8080), ("127.0.0.1", 70000)])
async def test_an_address_that_is_none_is_said_so(host: str, portno: int) -> None:
    with pytest.raises(ConnectError, match=f"{host}:{portno}"):
        await connect(host, portno)


async def test_trying_takes_no_longer_than_told() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        portno = listener.getsockname()[1]
        with contextlib.ExitStack() as stack:
            # A full queue: the system answers nobody else.
            for _ in range(4):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", portno))
            with pytest.raises(ConnectError, match=r"no answer .* in 0\.05 s") as caught:
                await connect("127.0.0.1", portno, timeout=0.05)
            assert caught.value.errno == errno.ETIMEDOUT


async def test_cancelling_leaves_no_connection_behind() -> None:
    async with raw_server() as (portno, _):
        for turns in range(12):
            connecting = asyncio.ensure_future(connect("127.0.0.1", portno)._connect(_inbox()))
            for _ in range(turns):
                await asyncio.sleep(0)
            if connecting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await connecting
            else:
                await (await connecting).close()


def _inbox() -> Any:
    from midinet.net.inbox import Inbox

    return Inbox


async def test_a_socket_that_cannot_be_made_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*args: Any) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("midinet.net.client.socket.socket", no_socket)
    with pytest.raises(ConnectError, match="too many open files"):
        await connect("127.0.0.1", 8080)


def test_the_default_timeout_is_10_seconds() -> None:
    assert DEFAULT_CONNECT_TIMEOUT == 10.0


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_inbox"):
        connect("127.0.0.1", 8080, max_inbox=0)


# The port that it gives.


async def test_what_had_arrived_comes_before_the_end() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        sock = await accept()
        sock.sendall(FRAME * 3 + b"\x90")
        sock.close()
        await until(lambda: port._link.reason is not None)
        assert not port.closed
        # Each note-on may have got a voice of its own, so each is let go of.
        assert [message async for message in port] == [NOTE] * 3 + [NOTE_OFF] * 3
        assert port.closed
        assert port.stats.unfinished == 1
        assert port.stats.messages_received == 3
        with pytest.raises(PortClosed, match="closed by the peer"):
            await port.receive()
        with pytest.raises(PortClosed, match="closed by the peer"):
            await port.send(NOTE)


async def test_a_broken_link_is_an_error_after_what_had_arrived() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        sock = await accept()
        sock.sendall(FRAME * 2)
        await until(lambda: port.stats.messages_received == 2)
        reset(sock)
        assert [await anext(port) for _ in range(4)] == [NOTE, NOTE, NOTE_OFF, NOTE_OFF]
        with pytest.raises(ConnectionLost, match="lost") as caught:
            await anext(port)
        assert caught.value.reason is CloseReason.LOST
        assert isinstance(caught.value.__cause__, OSError)
        assert isinstance(caught.value, ConnectionError)
        with pytest.raises(ConnectionLost):
            await port.send(NOTE)
        assert port.closed


@pytest.mark.parametrize("end", [socket.socket.close, reset])
async def test_nothing_is_let_go_of_where_that_is_not_wanted(end: Callable[[socket.socket], None]) -> None:
    async with raw_server() as (portno, accept):
        async with connect("127.0.0.1", portno, release_notes=False) as port:
            sock = await accept()
            sock.sendall(FRAME)
            await until(lambda: port.stats.messages_received == 1)
            end(sock)
            await until(lambda: port._link.reason is not None)
            assert list(port.iter_pending()) == [NOTE]
        async with connect("127.0.0.1", portno, release_notes=False) as port:
            with await accept() as sock:
                await port.send(NOTE)
                await port.close()
                assert sock.recv(1000) == FRAME


async def test_polling_gives_what_is_there() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        with await accept() as sock:
            assert port.poll() is None
            sock.sendall(FRAME * 2)
            await until(lambda: port.stats.messages_received == 2)
            assert list(port.iter_pending()) == [NOTE] * 2
            assert port.poll() is None


async def test_closing_is_idempotent_and_sends_what_is_left() -> None:
    async with raw_server() as (portno, accept):
        port = await connect("127.0.0.1", portno)
        with await accept() as sock:
            for _ in range(10):
                await port.send(NOTE)
            receiver = asyncio.create_task(port.receive())
            await asyncio.sleep(0)
            await asyncio.gather(port.close(), port.close())
            await port.close()
            with pytest.raises(PortClosed, match="closed here"):
                await receiver
            with pytest.raises(PortClosed, match="closed here"):
                await port.send(NOTE)
            port.reset()
            port.panic()
            # And what lets go of it.
            assert sock.recv(1000) == FRAME * 10 + b"\x80\x3c\x40" * 10
            assert sock.recv(1000) == b""


async def test_reset_and_panic_are_sent() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        with await accept() as sock:
            port.reset()
            port.panic()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert sock.recv(10) == bytes.fromhex("B0 7B 00 B0 79 00 B1 7B 00 B1")


async def send_until_stalled(port: SocketPort) -> int:
    """Send until the peer does not take any more, and return how many messages were sent."""
    sent = 0

    async def send_for_ever() -> None:
        nonlocal sent
        while True:
            await port.send(NOTE)
            sent += 1

    sender = asyncio.create_task(send_for_ever())
    await until(lambda: port._link.outbox.stalled)
    sender.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sender
    return sent


async def test_sending_waits_for_a_slow_peer_and_cancelling_it_sends_nothing() -> None:
    # Disconnecting, for with it every byte can be counted: nothing is left out however late it is.
    async with (
        raw_server() as (portno, accept),
        connect("127.0.0.1", portno, slow="disconnect", release_notes=False) as port,
    ):
        with await accept() as sock:
            sock.setblocking(False)
            sent = await send_until_stalled(port)
            assert port._link.outbox.backlog_bytes < port._link.outbox.limits.max_bytes
            waiting = asyncio.create_task(port.send(NOTE))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            got = 0
            while got < 3 * sent:
                got += len(await asyncio.get_running_loop().sock_recv(sock, 65536))
            await port.send(Message("stop"))
            assert await asyncio.get_running_loop().sock_recv(sock, 65536) == b"\xfc"


async def test_sending_to_a_slow_peer_that_goes_away_ends() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        sock = await accept()

        async def send_for_ever() -> None:
            while True:
                await port.send(NOTE)

        sender = asyncio.create_task(send_for_ever())
        await until(lambda: port._link.outbox.stalled)
        reset(sock)
        with pytest.raises(ConnectionLost):
            await sender
        assert port.stats.messages_dropped > 0


async def test_a_peer_that_finishes_but_does_not_read_is_let_go() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno, close_timeout=0.05) as port:
        with await accept() as sock:
            await send_until_stalled(port)
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(2):
                await port.wait_closed()
            with pytest.raises(PortClosed, match="closed by the peer"):
                await port.receive()


async def test_two_readers_share_what_comes() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        with await accept() as sock:
            readers = [asyncio.create_task(port.receive()) for _ in range(2)]
            await asyncio.sleep(0)
            sock.sendall(FRAME + b"\xf8")
            assert {message.type for message in await asyncio.gather(*readers)} == {"note_on", "clock"}


async def test_what_is_no_message_is_refused() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno) as port:
        with await accept():
            with pytest.raises(TypeError, match=r"mido\.Message"):
                await port.send("note_on")  # type: ignore[arg-type]
            assert port.stats.messages_sent == 0


async def test_a_port_stays_usable_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def there_and_back() -> list[Message]:
        async with PortServer("localhost", 0, relay=True) as server:
            portno = server.addresses[0][1]
            async with connect("127.0.0.1", portno) as a, connect("127.0.0.1", portno) as b:
                await until(lambda: len(server.ports) == 2)
                await a.send(NOTE)
                heard = [await b.receive()]
                await server.close()
                heard += [message async for message in b]
        # Whatever a client sends before it is adopted is kept.
        async with PortServer("localhost", 0) as server, connect(*server.addresses[0]) as a:
            for _ in range(3):
                await a.send(NOTE)
            await until(lambda: server.stats.clients_waiting == 1)
            for _ in range(10):
                await asyncio.sleep(0)
            heard += [await server.receive() for _ in range(3)]
        return heard

    def on_uvloop() -> list[Message]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(there_and_back())

    assert await asyncio.to_thread(on_uvloop) == [NOTE, NOTE_OFF, NOTE, NOTE, NOTE]


async def test_a_connection_is_made_once() -> None:
    async with raw_server() as (portno, accept):
        connecting = connect("127.0.0.1", portno)
        async with connecting:
            with await accept(), pytest.raises(UsageError, match="again"):
                await connecting.__aenter__()


async def test_a_peer_that_closed_in_order_is_no_broken_link_to_who_was_busy_sending() -> None:
    async with raw_server() as (portno, accept), connect("127.0.0.1", portno, max_inbox=1) as port:
        sock = await accept()
        sock.sendall(FRAME * 10)
        await until(lambda: port.stats.messages_received > 0)
        # The port does not read now, so it learns of the end by writing.
        sock.close()

        async def send_for_ever() -> None:
            while True:
                await port.send(NOTE)
                await asyncio.sleep(0)

        with pytest.raises(PortClosed):
            await send_for_ever()
        assert [message async for message in port] == [NOTE] * 10 + [NOTE_OFF] * 10


async def test_what_comes_behind_a_refusal_in_one_read_is_not_heard_and_does_not_hang() -> None:
    async with RawListener() as listener:
        port = await connect("127.0.0.1", listener.portno)
        async with await listener.accept() as peer:
            await peer.send(FRAME + answer(503) + FRAME)
            for message in (NOTE, NOTE_OFF):
                assert await port.receive() == message
            with pytest.raises(ConnectionLost, match="as many clients as it takes"):
                await port.receive()
        await port.close()
