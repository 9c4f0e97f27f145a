"""No note hangs: however a client ends, all who heard it are silent, and so is a client whose server dies.

The judge is the virtual instrument of the harness, which ignores All Notes Off as much hardware does, both as
one that stops a key at its first Note Off and as one that counts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import mido.sockets
import pytest
from mido import Message

from midinet import CloseReason, ConnectionLost, Parser, PortServer, SocketPort, connect
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.wire.aside import hello
from tests.harness.certificates import certificates
from tests.harness.clock import Clock
from tests.harness.programs import running
from tests.harness.raw import RawListener, RawPeer
from tests.harness.servers import portno
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, until

HOST = "127.0.0.1"

# Notes, one of them struck twice and all in running status; every pedal; bends; and what holds nothing.
PLAYED = bytes.fromhex(
    "90 3C 40 3E 40 3C 50 95 40 7F 9F 7F 01"
    "B0 40 7F B3 42 7F B3 43 40 BF 45 7F B0 07 64 C4 05"
    "E0 00 50 E5 7F 7F A0 3C 30 D2 22 F0 7E 7F 09 01 F7 F2 10 00"
)
MESSAGES = Parser().feed(PLAYED)

# Nobody plays it here, so it tells that everything before it has been heard.
MARK = Message("song_select", song=1)

# Plays what it is told, says so, and goes on for as long as it is let.
PLAYER = """
import sys
import midinet, midinet.sync
port = midinet.sync.connect("127.0.0.1", int(sys.argv[1]))
for message in midinet.Parser().feed(bytes.fromhex(sys.argv[2])):
    port.send(message)
sys.stdin.read()
"""
# Sends what it is told to the first client, and goes on for as long as it is let.
SERVER = """
import sys
import midinet, midinet.sync
server = midinet.sync.PortServer("127.0.0.1", 0)
print(server.addresses[0][1], flush=True)
port = server.accept()
for message in midinet.Parser().feed(bytes.fromhex(sys.argv[1])):
    port.send(message)
sys.stdin.read()
"""


def synth() -> VirtualSynth:
    return VirtualSynth(ignores_mode_messages=True)


class Ear(Protocol):
    """A listener with an instrument."""

    synth: VirtualSynth

    async def hear(self) -> bool:
        """Listen up to the next mark, or to the end. Returns whether there was a mark."""
        ...


class RawEar:
    """One that is nothing but a socket."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self._parser = Parser()
        self.synth = synth()

    async def hear(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            while data := await asyncio.get_running_loop().sock_recv(self._peer.sock, 65536):
                self.synth.feed(data)
                # A mark is the last thing that is said until it has been heard.
                if MARK in self._parser.feed(data):
                    return True
        return False


class PortEar:
    """One of midinet's ports."""

    def __init__(self, port: SocketPort) -> None:
        self._port = port
        self.synth = synth()

    async def hear(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            async for message in self._port:
                if message == MARK:
                    return True
                self.synth.feed(message.bin())
        return False


class Stage:
    """A server that passes on and is read, and two who listen to it."""

    def __init__(self, server: PortServer, ears: list[Ear]) -> None:
        self.server = server
        self.ears = ears
        # What the server's reader sounds, and of whom it has heard.
        self.reader = synth()
        self.players: set[SocketPort] = set()

    async def hear(self) -> None:
        """Have everybody hear what was said so far."""
        await self.server.send(MARK)
        for ear in self.ears:
            assert await ear.hear()
        self.read()

    def read(self) -> None:
        for port, message in self.server.iter_pending():
            self.players.add(port)
            self.reader.feed(message.bin())

    async def played(self, count: int = len(MESSAGES)) -> None:
        """Wait until so many messages have come, and everybody has heard them."""
        await until(lambda: self.server.stats.messages_received >= count)
        await self.hear()
        assert len(self.sounds) == len(self.synths)

    @property
    def synths(self) -> list[VirtualSynth]:
        return [*[ear.synth for ear in self.ears], self.reader]

    @property
    def sounds(self) -> list[str]:
        """Where anything sounds, and what."""
        return [text for synth in self.synths if (text := synth.describe()) != "silent"]


@contextlib.asynccontextmanager
async def staged(*, secure: bool = False, **options: Any) -> AsyncIterator[Stage]:
    if secure:
        files = certificates()
        options["ssl"] = tls_server_context(files.server_cert, files.server_key)
    async with (
        PortServer(HOST, 0, relay=True, yield_ports=True, **options) as server,
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(3 * PATIENCE_S),
    ):
        assert server.poll() is None
        ears: list[Ear] = [PortEar(await stack.enter_async_context(connected(server)))]
        if secure:
            ears.append(PortEar(await stack.enter_async_context(connected(server))))
        else:
            ears.append(RawEar(await stack.enter_async_context(RawPeer(portno(server)))))
        await until(lambda: len(server.ports) == 2)
        yield Stage(server, ears)


def connected(server: PortServer, **options: Any) -> connect:
    if server._access.ssl is not None:
        return connect("localhost", portno(server), ssl=tls_client_context(certificates().ca), **options)
    return connect(HOST, portno(server), **options)


async def play(port: SocketPort) -> None:
    for message in MESSAGES:
        await port.send(message)


# The ways in which a client ends. Each plays, waits until that was heard, and ends.

Way: TypeAlias = Callable[[Stage], Awaitable[None]]


async def closes(stage: Stage) -> None:
    async with connected(stage.server) as port:
        await play(port)
        await stage.played()


async def is_cancelled(stage: Stage) -> None:
    async def live() -> None:
        async with connected(stage.server) as port:
            await play(port)
            await port.receive()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await stage.played()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def says_fin(stage: Stage) -> None:
    async with RawPeer(portno(stage.server)) as peer:
        await peer.send(PLAYED)
        await stage.played()
        peer.finish()
        # It hears its own end.
        assert (await peer.read_to_end()).endswith(b"\xf3\x01")


async def says_fin_in_the_middle_of_a_message(stage: Stage) -> None:
    async with RawPeer(portno(stage.server)) as peer:
        await peer.send(PLAYED + b"\x90\x48")
        await stage.played()
        peer.finish()
        await peer.read_to_end()


async def resets(stage: Stage) -> None:
    async with RawPeer(portno(stage.server)) as peer:
        await peer.send(PLAYED)
        await stage.played()
        peer.reset()


async def is_killed(stage: Stage) -> None:
    with running(PLAYER, str(portno(stage.server)), PLAYED.hex()) as process:
        await stage.played()
        process.kill()


async def answers_no_ping(stage: Stage) -> None:
    clock = Clock()
    async with RawPeer(portno(stage.server)) as peer:
        await peer.send(PLAYED + hello("player"))
        await stage.played()
        await until(lambda: stage.server.stats.asides)
        await clock.skip_until(lambda: stage.server.stats.closed[CloseReason.TIMEOUT])


async def reads_nothing(stage: Stage) -> None:
    async with RawPeer(portno(stage.server), receive_buffer=4096) as peer:
        await peer.send(PLAYED)
        await stage.played()
        flood = Message("sysex", data=(1,) * 30_000)
        while not stage.server.stats.closed[CloseReason.SLOW]:
            await stage.server.send(flood)
            await stage.hear()


async def is_closed_by_the_server(stage: Stage) -> None:
    async with connected(stage.server) as port:
        await play(port)
        await stage.played()
        await stage.server.ports[-1].close()


async def breaks(stage: Stage) -> None:
    """As if the network had gone: the system tells of it with an error."""
    async with RawPeer(portno(stage.server)) as peer:
        await peer.send(PLAYED)
        await stage.played()
        link = stage.server.ports[-1]._link
        transport = link.transport
        link.connection_lost(OSError(113, "No route to host"))
        transport.set_protocol(asyncio.Protocol())
        transport.abort()


async def spoils_its_tls(stage: Stage) -> None:
    context = tls_client_context(certificates().ca)
    tls = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(*tls, server_hostname="localhost")
    async with RawPeer(portno(stage.server)) as peer:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                await peer.send(tls[1].read())
                tls[0].write(await asyncio.get_running_loop().sock_recv(peer.sock, 65536))
        session.write(PLAYED)
        await peer.send(tls[1].read())
        await stage.played()
        await peer.send(bytes(100))
        await until(lambda: stage.server.stats.closed)


async def resets_its_tls(stage: Stage) -> None:
    async with connected(stage.server) as port:
        await play(port)
        await stage.played()
        sock = port._link.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        port._link.transport.abort()
        await port.wait_closed()


SLOW = {"slow": "disconnect", "max_outbox": 1000, "send_buffer": 4096}


@pytest.mark.parametrize(
    ("way", "options", "reason"),
    [
        (closes, {}, CloseReason.PEER),
        (is_cancelled, {}, CloseReason.PEER),
        (says_fin, {}, CloseReason.PEER),
        (says_fin_in_the_middle_of_a_message, {}, CloseReason.PEER),
        (resets, {}, CloseReason.LOST),
        (is_killed, {}, None),
        (answers_no_ping, {"dead_peer_timeout": 2}, CloseReason.TIMEOUT),
        (reads_nothing, SLOW, CloseReason.SLOW),
        (is_closed_by_the_server, {}, CloseReason.LOCAL),
        (breaks, {}, CloseReason.TIMEOUT),
        (closes, {"secure": True}, CloseReason.PEER),
        (is_cancelled, {"secure": True}, CloseReason.PEER),
        (resets_its_tls, {"secure": True}, CloseReason.LOST),
        (is_closed_by_the_server, {"secure": True}, CloseReason.LOCAL),
        (spoils_its_tls, {"secure": True}, CloseReason.LOST),
    ],
)
async def test_however_a_client_ends_everybody_else_is_silent(
    way: Way, options: dict[str, Any], reason: CloseReason | None
) -> None:
    async with staged(**options) as stage:
        await way(stage)
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        assert stage.sounds == []
        assert len(stage.players) == 1
        closed = stage.server.stats.closed
        assert closed.total() == 1
        if reason is not None:
            assert closed[reason] == 1


async def test_what_lets_go_comes_once_and_nothing_is_sent_that_lets_go_of_nothing() -> None:
    """Note-offs, one for each note-on; pedals; bends. The volume, the program and the like stay."""
    async with staged() as stage, RawPeer(portno(stage.server)) as listener:
        await resets(stage)
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        heard = await listener.read(len(b"".join(bytes(message.bin()) for message in MESSAGES)) + 2)
        assert heard.endswith(b"\xf3\x01")
        offs = "80 3C 40 80 3C 40 80 3E 40 85 40 40 8F 7F 40"
        sets = "B0 40 00 B3 42 00 B3 43 00 BF 45 00 E0 00 40 E5 00 40 A0 3C 00 D2 00"
        wanted = Parser().feed(bytes.fromhex(offs + sets))
        released = Parser().feed(await listener.read(bytes_of(wanted) + 2))
        assert sorted(released[:-1], key=str) == sorted(wanted, key=str)
        assert released[-1] == MARK
        # Note-offs first, so that no pedal is up while keys are still down.
        assert {message.type for message in released[:5]} == {"note_off"}


def bytes_of(messages: list[Message]) -> int:
    return sum(len(message.bin()) for message in messages)


async def test_when_the_server_closes_every_client_and_its_reader_are_silent() -> None:
    async with staged() as stage, connected(stage.server) as player, RawPeer(portno(stage.server)) as raw:
        await play(player)
        await raw.send(b"\x92\x30\x40")
        await stage.played(len(MESSAGES) + 1)
        # What it says itself, to all and to one alone.
        await stage.server.send(Message("note_on", note=10))
        await stage.server.ports[0].send(Message("note_on", note=11, channel=9))
        await stage.server.close()
        for ear in stage.ears:
            assert not await ear.hear()
        stage.read()
        assert stage.sounds == []
        # Who played hears what the others played, and an end to it; its own it has not heard.
        heard = synth()
        heard.feed(await raw.read_to_end())
        assert heard.describe() == "silent"


async def test_a_note_that_somebody_else_holds_sounds_until_both_let_go() -> None:
    async with staged() as stage, RawPeer(portno(stage.server)) as stays:
        async with RawPeer(portno(stage.server)) as goes:
            await goes.send(bytes.fromhex("90 3C 40 90 3E 40 B0 40 7F"))
            await stage.played(3)
            await stays.send(bytes.fromhex("90 3C 50 B0 40 7F E0 00 50"))
            await stage.played(6)
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        for ear in stage.ears:
            assert ear.synth.sounding == {(0, 60)}
            # The pedal is the one's who pressed it last.
            assert ear.synth.pedals == {(0, 64): 127}
            assert ear.synth.bends == {0: 2048}
        await stays.send(bytes.fromhex("80 3C 40"))
        await until(lambda: stage.server.stats.messages_received == 7)
        await stage.hear()
        for ear in stage.ears:
            assert not ear.synth.sounding
            # The one that is gone owed a note-off, which an instrument that counts them needs.
            assert not ear.synth.voices


@pytest.mark.parametrize("first", ["holder", "other"])
async def test_of_two_who_hold_a_note_the_one_left_hears_the_others_note_end(first: str) -> None:
    async with staged() as stage, RawPeer(portno(stage.server)) as one:
        async with RawPeer(portno(stage.server)) as two:
            players = (one, two) if first == "holder" else (two, one)
            for count, player in enumerate(players, 1):
                await player.send(b"\x90\x3c\x40")
                await stage.played(count)
            two.reset()
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        # It hears the other's note, and its end; its own note it plays itself.
        heard = synth()
        data = b""
        while data.count(b"\xf3\x01") < 3:
            data += await one.read(1)
        heard.feed(data)
        assert data.startswith((b"\x90", b"\xf3\x01\x90"))
        assert heard.describe() == "silent"


async def test_what_others_hold_is_let_go_when_they_end_though_all_notes_off_came_between() -> None:
    """Hardware ignores All Notes Off: what was held before it still takes its note-offs."""
    async with staged() as stage, RawPeer(portno(stage.server)) as somebody:
        async with RawPeer(portno(stage.server)) as peer:
            await peer.send(b"\x90\x3c\x40")
            await stage.played(1)
            await somebody.send(b"\xb0\x7b\x00\xb0\x78\x00")
            await stage.played(3)
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        assert stage.sounds == []


async def test_release_can_be_turned_off_in_a_server() -> None:
    async with staged(release_notes=False) as stage:
        await says_fin(stage)
        await until(lambda: stage.server.stats.closed)
        await stage.hear()
        sounding = {(0, 60), (0, 62), (5, 64), (15, 127)}
        for heard in stage.synths:
            assert heard.sounding == sounding
            assert len(heard.pedals) == 4
            assert len(heard.bends) == 2


async def test_release_can_be_turned_off_in_a_client() -> None:
    async with RawListener() as listener:
        port = await connect(HOST, listener.portno, release_notes=False)
        async with await listener.accept() as server:
            await play(port)
            await server.send(PLAYED)
            server.finish()
            heard = [message async for message in port]
            assert heard == MESSAGES
            assert await server.read_to_end() == b"".join(bytes(message.bin()) for message in MESSAGES)
        await port.wait_closed()


async def test_a_client_that_closes_lets_go_itself_whoever_the_server_is() -> None:
    async with RawListener() as listener:
        port = await connect(HOST, listener.portno)
        async with await listener.accept() as server:
            await play(port)
            closing = asyncio.create_task(port.close())
            heard = synth()
            heard.feed(await server.read_to_end())
            assert heard.programs == {4: (None, 0, 5)}
            assert heard.describe() == "silent"
        await closing


async def test_a_client_that_closes_lets_go_at_midos_server() -> None:
    server = mido.sockets.PortServer(HOST, 0)
    taken = None
    try:
        port = await connect(HOST, server._socket.getsockname()[1])
        taken = server.accept()
        await play(port)
        heard, messages = synth(), []
        while len(messages) < len(MESSAGES):
            if (message := taken.poll()) is not None:
                messages.append(message)
                heard.feed(message.bin())
            await asyncio.sleep(0)
        assert messages == MESSAGES
        closing = asyncio.create_task(port.close())
        async with asyncio.timeout(PATIENCE_S):
            while not taken.closed or taken._messages:
                if (message := taken.poll()) is not None:
                    heard.feed(message.bin())
                await asyncio.sleep(0)
        assert heard.describe() == "silent"
        await closing
    finally:
        server.close()
        server._socket.close()
        if taken is not None:
            taken.close()
            for file in (taken._rfile, taken._wfile, taken._socket):
                file.close()


# The other way round.


@pytest.mark.parametrize("end", ["close", "fin", "reset", "kill"])
async def test_a_client_whose_server_ends_hears_what_lets_go_and_then_the_end(end: str) -> None:
    heard = synth()
    notes = 0

    async def listen(port: SocketPort) -> None:
        nonlocal notes
        async for message in port:
            heard.feed(message.bin())
            notes += message.type == "note_on"

    async with contextlib.AsyncExitStack() as stack:
        if end == "close":
            server = await stack.enter_async_context(PortServer(HOST, 0))
            port = await stack.enter_async_context(connect(HOST, portno(server)))
            await until(lambda: server.stats.clients_waiting)
            for message in MESSAGES:
                await server.send(message)
        elif end == "kill":
            process = stack.enter_context(running(SERVER, PLAYED.hex()))
            assert process.stdout is not None
            where = await asyncio.to_thread(process.stdout.readline)
            port = await stack.enter_async_context(connect(HOST, int(where)))
        else:
            listener = await stack.enter_async_context(RawListener())
            port = await stack.enter_async_context(connect(HOST, listener.portno))
            peer = await stack.enter_async_context(await listener.accept())
            await peer.send(PLAYED)
        listening = asyncio.create_task(listen(port))
        await until(lambda: port.stats.messages_received == len(MESSAGES))
        if end == "close":
            await server.close()
        elif end == "kill":
            process.kill()
        elif end == "fin":
            peer.finish()
        else:
            peer.reset()
        if end == "reset":
            with pytest.raises(ConnectionLost):
                await listening
        else:
            await listening
        assert notes == 5
        assert heard.describe() == "silent"


async def test_an_accepted_port_whose_client_ends_hears_what_lets_go() -> None:
    async with PortServer(HOST, 0) as server, RawPeer(portno(server)) as peer:
        port = await server.accept()
        await peer.send(PLAYED)
        await until(lambda: port.stats.messages_received == len(MESSAGES))
        peer.reset()
        heard = synth()
        for message in [await port.receive() for _ in range(len(MESSAGES) + 13)]:
            heard.feed(message.bin())
        with pytest.raises(ConnectionLost):
            await port.receive()
        assert heard.programs
        assert heard.describe() == "silent"


async def test_what_a_client_sent_before_anybody_wanted_it_is_let_go_when_it_is_read() -> None:
    """It has come and gone by the time that the server is read."""
    async with PortServer(HOST, 0) as server:
        async with RawPeer(portno(server)) as peer:
            await peer.send(PLAYED)
        await until(lambda: server.stats.closed)
        heard = synth()
        messages = list(server.iter_pending())
        assert messages[: len(MESSAGES)] == MESSAGES
        for message in messages:
            heard.feed(message.bin())
        assert heard.describe() == "silent"


# Cut everywhere.

# Every kind of message, with running status, real-time inside others, and everything that sounds on. Whatever
# the mode messages end has been let go before: who sends All Notes Off in place of note-offs gets what it
# asked for.
SCRIPT = bytes.fromhex(
    "90 3C 40 3E 40 3C 50 3C 00 91 30 F8 7F 30 FE 7F 82 01 40"
    "B0 40 7F 42 7F 43 7F 45 7F 0B 20 B1 63 01 62 02 06 10 26 11 65 00 64 00 06 0C 60 00"
    "E0 00 50 7F 7F E1 01 F8 40 A0 3C 30 3E 31 C3 05 06 D2 22 23"
    "F0 7E 7F F8 09 01 F7 90 40 40 F0 41 90 41 40 F1 11 F2 10 00 F3 02 F6 F7 12 34 F4 F5 F9 FD"
    "FA F8 F8 FC FB 9F 00 01 7F 7F 9E 55 55 9E 55 55 9E 55 55"
    "B5 00 01 20 02 C5 07 95 10 10 10 00 B5 79 00 7A 00 78 00 7B 00 7C 00 7D 00 7E 01 7F 00"
    "90 3C 00 3E 00 40 00 B0 40 00 E0 00 40 94 44 44"
)


@pytest.mark.parametrize("by", ["fin", "reset"])
async def test_a_client_cut_at_any_byte_leaves_nothing_hanging(by: str) -> None:
    async with staged() as stage:
        for count in range(len(SCRIPT) + 1):
            async with RawPeer(portno(stage.server)) as peer:
                before = stage.server.stats.bytes_received
                await peer.send(SCRIPT[:count])
                if by == "reset":
                    # What has not been read when a reset comes may be lost.
                    await until(lambda: stage.server.stats.bytes_received == before + count)  # noqa: B023
                    peer.reset()
            await until(lambda: stage.server.stats.closed.total() == count + 1)  # noqa: B023
            await stage.hear()
            assert stage.sounds == [], f"cut after {count} bytes"
        # It takes three bytes to say anything.
        assert len(stage.players) == len(SCRIPT) - 2


@pytest.mark.parametrize("by", ["fin", "reset"])
async def test_a_server_cut_at_any_byte_leaves_nothing_hanging(by: str) -> None:
    async def cut(listener: RawListener, count: int) -> None:
        async with connect(HOST, listener.portno) as port:
            async with await listener.accept() as server:
                await server.send(SCRIPT[:count])
                if by == "reset":
                    await until(lambda: port.stats.bytes_received == count)
                    server.reset()
            heard = synth()
            try:
                async for message in port:
                    heard.feed(message.bin())
            except ConnectionLost:
                assert by == "reset"
            assert port.stats.bytes_received == count
            assert heard.describe() == "silent", f"cut after {count} bytes"

    async with RawListener() as listener:
        for count in range(len(SCRIPT) + 1):
            await cut(listener, count)


async def test_many_who_hold_the_same_notes_and_end_at_once_leave_nothing_hanging() -> None:
    async with staged() as stage, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(RawPeer(portno(stage.server))) for _ in range(20)]
        for number, peer in enumerate(peers):
            await peer.send(PLAYED + bytes((0x90, number, 1)))
        await stage.played(20 * (len(MESSAGES) + 1))
        for number, peer in enumerate(peers):
            if number % 2:
                peer.reset()
            else:
                peer.sock.shutdown(socket.SHUT_RDWR)
        await until(lambda: stage.server.stats.closed.total() == 20)
        await stage.hear()
        assert stage.sounds == []
