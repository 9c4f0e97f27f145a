"""midinet at one end and mido's own socket ports at the other, over real sockets.

Every test runs twice: with the async ports, and with the blocking ones, each of whose calls is made in a
thread. mido's blocking reads cannot be interrupted, so its ports are polled, with a bound.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import mido.messages.specs
import mido.ports
import mido.sockets
import pytest
from mido import Message

import midinet
import midinet.sync
from midinet import CloseReason
from tests.harness.waiting import PATIENCE_S, until

HOST = "127.0.0.1"

LOW_AND_HIGH: dict[str, tuple[Any, ...]] = {
    "channel": (0, 9, 15),
    "note": (0, 60, 127),
    "velocity": (0, 1, 127),
    "value": (0, 64, 127),
    "control": (0, 64, 123, 127),
    "program": (0, 127),
    "pitch": (-8192, -1, 0, 1, 127, 128, 8191),
    "data": ((), (0,), (0x7F,), (0x7E, 0x7F, 0x09, 0x01), tuple(range(128))),
    "frame_type": tuple(range(8)),
    "frame_value": (0, 15),
    "pos": (0, 127, 128, 16383),
    "song": (0, 127),
}


def every_message() -> list[Message]:
    """All of mido's message types, with the edges of every value."""
    return [
        Message(spec["type"], **dict(zip(spec["value_names"], values, strict=True)))
        for spec in mido.messages.specs.SPECS
        for values in itertools.product(*(LOW_AND_HIGH[name] for name in spec["value_names"]))
    ]


def notes(channel: int, count: int) -> list[Message]:
    """Messages that tell who sent them and in which order."""
    return [Message("pitchwheel", channel=channel, pitch=number) for number in range(count)]


# What lets go of the last bend of `notes`, at the end of whoever sent it.
CENTRED = [Message("pitchwheel", channel=0, pitch=0)]

SYSEXES = [Message("sysex", data=[number % 128 for number in range(length)]) for length in (0, 1, 9_998)]


# mido's side.


def hang_up(port: Any) -> None:
    """Close a port of mido's for good: its own close() leaves the connection open."""
    port.close()
    port._rfile.close()
    port._wfile.close()
    port._socket.close()


def reset(port: Any) -> None:
    """Break the connection of a port of mido's."""
    port._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hang_up(port)


def own_name(port: Any) -> str:
    """The address of a port of mido's, as the other end sees it."""
    return midinet.format_address(*port._socket.getsockname())


class MidoLoop:
    """A thread that runs mido's own blocking loop over one of its ports."""

    def __init__(self, port: Any, answer: Callable[[Message], Any]) -> None:
        self._port = port
        self._answer = answer
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._port:
                self._answer(message)
        except ValueError:
            # What mido raises when the end was read together with the last messages.
            if not self._port.closed:
                raise
        self._ended = True

    async def ends(self) -> bool:
        await asyncio.to_thread(self._thread.join, PATIENCE_S)
        return self._ended


class InThread:
    """A blocking port of midinet's with the async port's methods: each call is made in a thread."""

    def __init__(self, port: Any) -> None:
        self.blocking = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.blocking, name)

    async def send(self, message: Message) -> None:
        await asyncio.to_thread(self.blocking.send, message)

    async def receive(self) -> Any:
        return await asyncio.to_thread(self.blocking.receive)

    async def accept(self) -> InThread:
        return InThread(await asyncio.to_thread(self.blocking.accept))

    async def close(self) -> None:
        await asyncio.to_thread(self.blocking.close)


# Both sides.


async def say(port: Any, messages: Iterable[Message]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for message in messages:
            if isinstance(port, mido.sockets.SocketPort):
                await asyncio.to_thread(port.send, message)
            else:
                await port.send(message)


async def hear(port: Any, count: int) -> list[Any]:
    """Read so many messages."""
    async with asyncio.timeout(PATIENCE_S):
        if isinstance(port, mido.sockets.SocketPort | mido.sockets.PortServer):
            return [await until(port.poll) for _ in range(count)]
        return [await port.receive() for _ in range(count)]


async def hear_until_closed(port: Any) -> list[Message]:
    """Read what comes until the port closes in order."""
    heard: list[Message] = []
    try:
        while True:
            heard += await hear(port, 1)
    except midinet.PortClosed:
        return heard


class Rig:
    """Makes ports of one kind, async or blocking, and mido's; all of them are closed with the test."""

    def __init__(self, blocking: bool, stack: AsyncExitStack) -> None:
        self.blocking = blocking
        self._stack = stack

    async def server(self, **options: Any) -> Any:
        """A server of midinet's."""
        if self.blocking:
            server: Any = InThread(await asyncio.to_thread(midinet.sync.PortServer, HOST, 0, **options))
        else:
            server = await midinet.PortServer(HOST, 0, **options)
        self._stack.push_async_callback(server.close)
        return server

    async def client(self, server: Any) -> Any:
        """A client of midinet's."""
        host, portno = address_of(server)
        if self.blocking:
            port: Any = InThread(await asyncio.to_thread(midinet.sync.connect, host, portno))
        else:
            port = await midinet.connect(host, portno)
        self._stack.push_async_callback(port.close)
        return port

    def mido_server(self) -> Any:
        server = mido.sockets.PortServer(HOST, 0)
        # For accept(), so that a test which goes wrong ends.
        server._socket.settimeout(PATIENCE_S)
        self._stack.callback(server.close)
        return server

    async def mido_accept(self, server: Any) -> Any:
        port = await asyncio.to_thread(server.accept)
        self._stack.callback(hang_up, port)
        return port

    async def mido_client(self, server: Any) -> Any:
        host, portno = address_of(server)
        port = await asyncio.to_thread(mido.sockets.connect, host, portno)
        self._stack.callback(hang_up, port)
        return port


def address_of(server: Any) -> tuple[str, int]:
    if isinstance(server, mido.sockets.PortServer):
        address: tuple[str, int] = server._socket.getsockname()
        return address
    host, portno = server.addresses[0]
    return host, portno


@pytest.fixture(params=["async", "blocking"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield Rig(request.param == "blocking", stack)


def test_the_messages_sent_here_are_of_all_18_types_that_mido_knows() -> None:
    assert len({message.type for message in every_message()}) == 18


class TestMidoClient:
    async def test_every_message_it_sends_reaches_the_server(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        messages = every_message()
        await say(port, messages)
        assert await hear(server, len(messages)) == messages

    async def test_it_hears_every_message_that_the_server_sends(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        await until(lambda: server.stats.clients)
        messages = every_message()
        await say(server, messages)
        assert await hear(port, len(messages)) == messages

    async def test_accepted_it_talks_to_its_port_both_ways(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        accepted = await server.accept()
        assert accepted.name == own_name(port)
        messages = every_message()
        await say(port, messages)
        assert await hear(accepted, len(messages)) == messages
        await say(accepted, messages)
        assert await hear(port, len(messages)) == messages

    @pytest.mark.parametrize("sysex", SYSEXES, ids=lambda sysex: f"{len(sysex.bytes())} bytes")
    async def test_a_sysex_passes_whole_both_ways(self, rig: Rig, sysex: Message) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        await say(port, [sysex])
        assert await hear(server, 1) == [sysex]
        await say(server, [sysex])
        assert await hear(port, 1) == [sysex]

    async def test_what_it_sent_before_the_server_was_read_is_not_lost(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        await say(port, notes(0, 500))
        hang_up(port)
        assert await hear(server, 500) == notes(0, 500)

    async def test_several_at_once_are_heard_each_in_its_order(self, rig: Rig) -> None:
        server = await rig.server()
        ports = [await rig.mido_client(server) for _ in range(5)]
        spoken = [asyncio.create_task(say(port, notes(i, 200))) for i, port in enumerate(ports)]
        heard = await hear(server, 5 * 200)
        await asyncio.gather(*spoken)
        for i in range(5):
            assert [message for message in heard if message.channel == i] == notes(i, 200)

    async def test_yield_ports_tells_which_one_sent_a_message(self, rig: Rig) -> None:
        server = await rig.server(yield_ports=True)
        ports = [await rig.mido_client(server) for _ in range(3)]
        for channel, port in enumerate(ports):
            await say(port, notes(channel, 1))
            [(sender, message)] = await hear(server, 1)
            assert (sender.name, message.channel) == (own_name(port), channel)
            # The answer goes to that one alone.
            await say(sender if not rig.blocking else InThread(sender), [message])
            assert await hear(port, 1) == [message]
        assert [port.poll() for port in ports] == [None, None, None]

    async def test_its_loop_hears_everything_and_ends_when_the_server_closes(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        await until(lambda: server.stats.clients)
        heard: list[Message] = []
        loop = MidoLoop(port, heard.append)
        await say(server, notes(0, 500))
        await server.close()
        assert await loop.ends()
        assert heard == notes(0, 500) + CENTRED
        assert port.closed

    async def test_its_loop_that_sends_back_what_it_hears_works(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        await until(lambda: server.stats.clients)
        loop = MidoLoop(port, port.send)
        for message in every_message()[::50]:
            await say(server, [message])
            assert await hear(server, 1) == [message]
        await server.close()
        assert await loop.ends()

    @pytest.mark.parametrize("slow", ["thin", "disconnect"])
    async def test_one_that_never_reads_holds_up_nobody(self, rig: Rig, slow: str) -> None:
        # Nor taken for dead: a system whose user timeout is over ends a connection that nothing goes out on.
        server = await rig.server(slow=slow, stall_timeout=None, dead_peer_timeout=None)
        await rig.mido_client(server)
        reader = await rig.client(server)
        await until(lambda: server.stats.clients == 2)
        # 12 MB, far more than the sockets between here and there hold.
        sysex = Message("sysex", data=bytes(60_000))
        for _ in range(200):
            await say(server, [sysex])
            assert await hear(reader, 1) == [sysex]
        if slow == "thin":
            assert server.stats.clients == 2
            assert server.stats.messages_dropped > 0
        else:
            assert server.stats.clients == 1
            assert server.stats.closed == {CloseReason.SLOW: 1}


class TestMidoClientThatGoes:
    async def test_after_its_close_it_is_still_connected_and_harmless(self, rig: Rig) -> None:
        server = await rig.server()
        closed, other = await rig.mido_client(server), await rig.mido_client(server)
        await say(closed, notes(0, 1))
        assert await hear(server, 1) == notes(0, 1)
        # Who came behind the last that is read waits until the server is used again.
        await until(lambda: server.stats.clients == 2)
        closed._socket.settimeout(PATIENCE_S)
        closed.close()
        await say(server, [Message("clock")])
        assert await hear(other, 1) == [Message("clock")]
        # mido's close() closes the socket object; its two file objects hold the connection open.
        assert await asyncio.to_thread(closed._rfile.read, 1) == b"\xf8"
        assert server.stats.clients == 2
        hang_up(closed)
        await until(lambda: server.stats.clients == 1)
        assert server.stats.closed == {CloseReason.PEER: 1}

    async def test_closed_and_let_go_of_it_leaves_in_order_with_all_it_sent(self, rig: Rig) -> None:
        server = await rig.server()
        port = mido.sockets.connect(*address_of(server))
        await say(port, notes(0, 100))
        port.close()
        del port
        assert await hear(server, 100) == notes(0, 100)
        await until(lambda: server.stats.closed)
        assert server.stats.closed == {CloseReason.PEER: 1}

    async def test_its_accepted_port_ends_in_order_after_all_it_sent(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        accepted = await server.accept()
        await say(port, notes(0, 100))
        hang_up(port)
        assert await hear_until_closed(accepted) == notes(0, 100) + CENTRED
        assert accepted.closed

    async def test_one_that_breaks_its_accepted_port_says_so_after_all_it_sent(self, rig: Rig) -> None:
        server = await rig.server()
        port = await rig.mido_client(server)
        accepted = await server.accept()
        await say(port, notes(0, 100))
        await until(lambda: accepted.stats.messages_received == 100)
        reset(port)
        assert await hear(accepted, 101) == notes(0, 100) + CENTRED
        with pytest.raises(midinet.ConnectionLost):
            await hear(accepted, 1)
        assert accepted.closed

    @pytest.mark.parametrize("relay", [False, True], ids=["server", "relay"])
    @pytest.mark.parametrize("leave", [hang_up, reset])
    @pytest.mark.parametrize(
        "unfinished", [b"\x90", b"\x90\x3c", b"\xf2\x01", b"\xf0", b"\xf0\x01\x02"], ids=bytes.hex
    )
    async def test_in_the_middle_of_a_message_it_costs_nobody_another_one(
        self, rig: Rig, unfinished: bytes, leave: Callable[[Any], None], relay: bool
    ) -> None:
        server = await rig.server(relay=relay)
        quitter, mido_port = await rig.mido_client(server), await rig.mido_client(server)
        port = await rig.client(server)
        await until(lambda: server.stats.clients == 3)
        await say(server, [Message("start")])
        for each in (quitter, mido_port, port):
            assert await hear(each, 1) == [Message("start")]
        # A relay keeps messages for a reader from the first time that it is read.
        assert server.poll() is None
        reading = asyncio.create_task(hear(server, 1 + 3 * 20))

        await say(quitter, notes(0, 1))
        before = asyncio.gather(
            say(mido_port, notes(1, 10)), say(port, notes(2, 10)), say(server, notes(3, 10))
        )
        quitter._wfile.write(unfinished)
        [heard_of_it] = [each for each in server.ports if each.name == own_name(quitter)]
        await until(lambda: heard_of_it.stats.bytes_received == 3 + len(unfinished))
        leave(quitter)
        await before
        await asyncio.gather(say(mido_port, notes(4, 10)), say(port, notes(5, 10)), say(server, notes(6, 10)))
        await until(lambda: server.stats.clients == 2)
        await asyncio.gather(say(mido_port, notes(7, 10)), say(port, notes(8, 10)), say(server, notes(9, 10)))

        # What each one says, by channel and in its order: the server hears the clients, they hear the server,
        # and each other if it relays. The whole message that came before the unfinished one is not lost.
        def told(messages: list[Message]) -> dict[int, list[Message]]:
            channels = sorted({message.channel for message in messages})
            return {i: [message for message in messages if message.channel == i] for i in channels}

        from_quitter = {0: notes(0, 1)}
        from_mido_port = {i: notes(i, 10) for i in (1, 4, 7)}
        from_port = {i: notes(i, 10) for i in (2, 5, 8)}
        from_server = {i: notes(i, 10) for i in (3, 6, 9)}
        assert told(await reading) == from_quitter | from_mido_port | from_port
        if relay:
            assert told(await hear(mido_port, 61)) == from_quitter | from_port | from_server
            assert told(await hear(port, 61)) == from_quitter | from_mido_port | from_server
        else:
            assert told(await hear(mido_port, 30)) == from_server
            assert told(await hear(port, 30)) == from_server
        stats = server.stats
        assert stats.unfinished + stats.sysex_aborted == 1
        # A system resets a connection that is closed with something unread in it, too.
        assert stats.closed.total() == 1
        assert set(stats.closed) <= (
            {CloseReason.PEER, CloseReason.LOST} if leave is hang_up else {CloseReason.LOST}
        )


class TestMidoClientsAmongOthers:
    async def test_what_the_server_sends_reaches_all_alike(self, rig: Rig) -> None:
        server = await rig.server()
        ports = [await rig.mido_client(server), await rig.client(server)]
        ports += [await rig.mido_client(server), await rig.client(server)]
        await until(lambda: server.stats.clients == 4)
        messages = [*every_message()[::7], *SYSEXES]
        await say(server, messages)
        for port in ports:
            assert await hear(port, len(messages)) == messages

    async def test_a_relay_brings_each_what_all_the_others_send_and_never_its_own(self, rig: Rig) -> None:
        server = await rig.server(relay=True)
        ports = [await rig.mido_client(server), await rig.client(server)]
        ports += [await rig.mido_client(server), await rig.client(server)]
        await until(lambda: len(server.ports) == 4)
        await asyncio.gather(*(say(port, notes(i, 100)) for i, port in enumerate(ports)))
        heard = [await hear(port, 300) for port in ports]
        # Nothing more follows: the next that anybody hears is the server's.
        await say(server, [Message("stop")])
        for i, port in enumerate(ports):
            assert await hear(port, 1) == [Message("stop")]
            by_sender = [[message for message in heard[i] if message.channel == j] for j in range(4)]
            assert by_sender == [notes(j, 100) if j != i else [] for j in range(4)]

    async def test_a_relay_passes_every_message_between_mido_and_midinet(self, rig: Rig) -> None:
        server = await rig.server(relay=True)
        mido_port, port = await rig.mido_client(server), await rig.client(server)
        await until(lambda: len(server.ports) == 2)
        messages = [*every_message(), *SYSEXES]
        await say(mido_port, messages)
        assert await hear(port, len(messages)) == messages
        await say(port, messages)
        assert await hear(mido_port, len(messages)) == messages


class TestMidoServer:
    async def test_every_message_passes_both_ways(self, rig: Rig) -> None:
        server = rig.mido_server()
        port = await rig.client(server)
        accepted = await rig.mido_accept(server)
        messages = every_message()
        await say(port, messages)
        assert await hear(accepted, len(messages)) == messages
        await say(accepted, messages)
        assert await hear(port, len(messages)) == messages

    @pytest.mark.parametrize("sysex", SYSEXES, ids=lambda sysex: f"{len(sysex.bytes())} bytes")
    async def test_a_sysex_passes_whole_both_ways(self, rig: Rig, sysex: Message) -> None:
        server = rig.mido_server()
        port = await rig.client(server)
        accepted = await rig.mido_accept(server)
        await say(port, [sysex])
        assert await hear(accepted, 1) == [sysex]
        await say(accepted, [sysex])
        assert await hear(port, 1) == [sysex]

    async def test_several_clients_each_have_their_own_connection(self, rig: Rig) -> None:
        server = rig.mido_server()
        pairs = []
        for _ in range(4):
            port = await rig.client(server)
            pairs.append((port, await rig.mido_accept(server)))
        await asyncio.gather(*(say(port, notes(i, 100)) for i, (port, _) in enumerate(pairs)))
        await asyncio.gather(*(say(accepted, notes(i, 100)) for i, (_, accepted) in enumerate(pairs)))
        for i, (port, accepted) in enumerate(pairs):
            assert await hear(port, 100) == notes(i, 100)
            assert await hear(accepted, 100) == notes(i, 100)

    async def test_its_own_send_reaches_every_client(self, rig: Rig) -> None:
        server = rig.mido_server()
        ports = []
        for _ in range(3):
            ports.append(await rig.client(server))
            accepted = await rig.mido_accept(server)
            server.ports.append(accepted)
        for message in notes(0, 50):
            server.send(message)
        for port in ports:
            assert await hear(port, 50) == notes(0, 50)

    async def test_its_loop_hears_everything_and_ends_when_the_client_closes(self, rig: Rig) -> None:
        server = rig.mido_server()
        port = await rig.client(server)
        accepted = await rig.mido_accept(server)
        heard: list[Message] = []
        loop = MidoLoop(accepted, heard.append)
        await say(port, notes(0, 500))
        await port.close()
        assert await loop.ends()
        assert heard == notes(0, 500) + CENTRED

    async def test_a_client_reads_all_it_sent_before_it_closed(self, rig: Rig) -> None:
        server = rig.mido_server()
        port = await rig.client(server)
        accepted = await rig.mido_accept(server)
        await say(accepted, notes(0, 500))
        hang_up(accepted)
        assert await hear_until_closed(port) == notes(0, 500) + CENTRED
        with pytest.raises(midinet.PortClosed):
            await port.send(Message("clock"))

    @pytest.mark.parametrize(
        ("leave", "error"), [(hang_up, midinet.PortClosed), (reset, midinet.ConnectionLost)]
    )
    @pytest.mark.parametrize("unfinished", [b"\x90", b"\x90\x3c", b"\xf0\x01\x02"], ids=bytes.hex)
    async def test_gone_in_the_middle_of_a_message_it_costs_a_client_that_one_alone(
        self, rig: Rig, unfinished: bytes, leave: Callable[[Any], None], error: type[Exception]
    ) -> None:
        server = rig.mido_server()
        port = await rig.client(server)
        accepted = await rig.mido_accept(server)
        await say(accepted, notes(0, 50))
        accepted._wfile.write(unfinished)
        await until(lambda: port.stats.bytes_received == 50 * 3 + len(unfinished))
        leave(accepted)
        assert await hear(port, 51) == notes(0, 50) + CENTRED
        with pytest.raises(error):
            await hear(port, 1)
        assert port.stats.unfinished + port.stats.sysex_aborted == 1


class TestMidoFunctions:
    """The blocking ports are ports of mido's to mido's own functions for ports."""

    @pytest.fixture(params=["blocking"])
    async def rig(self, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
        async with AsyncExitStack() as stack:
            yield Rig(True, stack)

    async def test_multi_send_and_multi_receive_take_both_kinds_of_ports(self, rig: Rig) -> None:
        server = await rig.server()
        mido_port, port = await rig.mido_client(server), (await rig.client(server)).blocking
        both = [mido_port, port]
        mido.ports.multi_send(both, Message("start"))
        assert await hear(server, 2) == [Message("start")] * 2
        await say(server, [Message("stop")])
        heard: list[Any] = []
        while len(heard) < 2:
            heard += await until(lambda: list(mido.ports.multi_receive(both, yield_ports=True, block=False)))
        assert dict(heard) == {mido_port: Message("stop"), port: Message("stop")}

    async def test_a_multi_port_takes_both_kinds_of_ports(self, rig: Rig) -> None:
        server = await rig.server()
        mido_port, port = await rig.mido_client(server), (await rig.client(server)).blocking
        both = mido.ports.MultiPort([mido_port, port])
        both.send(Message("start"))
        assert await hear(server, 2) == [Message("start")] * 2
