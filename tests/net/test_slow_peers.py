"""Peers that read too slowly, and peers that send too fast. Over plain TCP and TLS, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import mido.sockets
import pytest
from mido import Message

import midinet.sync
from midinet import CloseReason, ConnectionLost, PortServer, SocketPort, UsageError, connect
from midinet.hub.outbox import LATE_NOTE_S
from midinet.net.options import LinkOptions
from midinet.net.stats import PortStats
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.net.watch import acknowledged
from midinet.wire.parser import Parser
from tests.harness.certificates import certificates
from tests.harness.clock import Clock
from tests.harness.raw import RawListener, RawPeer
from tests.harness.servers import portno, serving
from tests.harness.synth import VirtualSynth
from tests.harness.tls_peer import TlsPeer
from tests.harness.waiting import PATIENCE_S, until

Peer = RawPeer | TlsPeer

# Comes last, so that a reader knows that it has everything: nothing else here is like it.
MARK = b"\xf0\x7d\x7f\x7f\xf7"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what a peer has taken")


class Stage:
    """Where a scenario takes place: with TLS or without, on one loop or another."""

    def __init__(self, variant: str) -> None:
        self._tls = "TLS" in variant
        self._uvloop = "uvloop" in variant
        self._clock: Clock | None = None

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        factory = None
        if self._uvloop:
            factory = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop

        async def limited() -> None:
            if not self._uvloop:
                self._clock = Clock()
            async with asyncio.timeout(3 * PATIENCE_S):
                await scenario()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    async def pass_time(self, seconds: float) -> None:
        """Have so much time pass: at once, where the loop's clock can be put forward."""
        if self._clock is None:
            await asyncio.sleep(seconds)
        else:
            await self._clock.skip(seconds)

    @contextlib.asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[PortServer]:
        """A relay. Its buffers and bounds are small, so that little traffic fills them."""
        files = certificates()
        context = tls_server_context(files.server_cert, files.server_key) if self._tls else None
        settings: dict[str, Any] = {
            "relay": True,
            "send_buffer": 4096,
            "soft_outbox": 4096,
        }
        settings |= options
        async with PortServer("127.0.0.1", 0, ssl=context, **settings) as server:
            yield server

    @contextlib.asynccontextmanager
    async def peer(self, server: PortServer, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
        """A client by hand, which the server has adopted."""
        clients = len(server.ports)
        raw = RawPeer(server.addresses[0][1], receive_buffer=receive_buffer)
        context: ssl.SSLContext | None = tls_client_context(certificates().ca) if self._tls else None
        async with raw if context is None else TlsPeer(raw, context) as peer:
            await until(lambda: len(server.ports) > clients)
            yield peer


@pytest.fixture(params=["plain", "TLS", "plain on uvloop", "TLS on uvloop"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


def port_of(server: PortServer, peer: Peer) -> SocketPort:
    return next(port for port in server.ports if port.peer == peer.sock.getsockname())


class Listener:
    """Reads a peer, and plays what it hears."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._parser = Parser()
        self.synth = VirtualSynth()
        self.heard = 0
        self.sysex: list[bytes] = []

    async def read_to_mark(self) -> None:
        marks = self.sysex.count(MARK)
        while self.sysex.count(MARK) == marks:
            await self.read_some(65536)

    async def read_some(self, most: int) -> None:
        """Wait for a byte, and take it with what else there is."""
        data = await self._peer.read(1)
        if not data:
            raise EOFError("the server has closed the connection")
        data += self._peer.read_nowait(most - 1)
        self.synth.feed(data)
        frames = self._parser.frames(data)
        self.heard += len(frames)
        self.sysex += [frame for frame in frames if frame[0] == 0xF0]


class Player:
    """Plays random music, as somebody with an instrument does.

    Args:
        peer: what it plays on.
        server: what that is connected to.
        seed: decides what it plays.
    """

    def __init__(self, peer: Peer, server: PortServer, *, seed: int = 0) -> None:
        self._peer = peer
        self._port = port_of(server, peer)
        self._random = random.Random(seed)
        self._held: list[tuple[int, int]] = []
        self._sent = 0

    async def say(self, data: bytes) -> None:
        self._sent += len(data)
        await self._peer.send(data)

    async def play(self, messages: int) -> None:
        await self.say(b"".join([self._next() for _ in range(messages)]))

    async def play_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.play(200)
                await asyncio.sleep(0)

    async def play_until_thinned(self, port: SocketPort) -> None:
        """Play until the backlog of a port has given way, and a while longer."""
        episodes = port.stats.slow_episodes
        await self.play_until(lambda: port.stats.slow_episodes > episodes)
        await self.play(500)

    async def let_go(self) -> None:
        """End all that sounds or is held: keys, pedals, bends."""
        data = b"".join([bytes((0x80 | channel, note, 64)) for channel, note in self._held])
        self._held.clear()
        for channel in range(16):
            data += b"".join([bytes((0xB0 | channel, pedal, 0)) for pedal in (64, 66, 67, 69)])
            data += bytes((0xE0 | channel, 0, 64))
        await self.say(data)

    async def heard_by(self, *ports: SocketPort) -> None:
        """Wait until the server has all of it, and has offered it to other clients."""
        await until(lambda: self._port.stats.bytes_received == self._sent)
        messages = self._port.stats.messages_received
        await until(lambda: all(port.stats.messages_sent == messages for port in ports))

    def _next(self) -> bytes:
        r = self._random
        channel, one, two = r.randrange(16), r.randrange(128), r.randrange(128)
        control = 0xB0 | channel
        match r.randrange(20):
            case 0 | 1 | 2 | 3 | 4 | 5:
                self._held.append((channel, one))
                return bytes((0x90 | channel, one, max(two, 1)))
            case 6 | 7 | 8 | 9 | 10 | 11 if self._held:
                channel, note = self._held.pop(r.randrange(len(self._held)))
                return bytes((0x90 | channel, note, 0)) if two < 64 else bytes((0x80 | channel, note, two))
            case 15:
                return bytes((control, 0, one, control, 32, two, 0xC0 | channel, one))
            case 16:
                return bytes((0xE0 | channel, one, two))
            case 17:
                return bytes((0xD0 | channel, two)) if one < 64 else bytes((0xA0 | channel, one, two))
            case 18:
                return bytes(
                    (control, 101, 0, control, 100, r.randrange(3), control, 6, one, control, 38, two)
                )
            case 19:
                # Six clocks are a unit of the song position (page 27): while nothing runs, nobody can be told
                # of a position between two of them.
                position = bytes((0xF2, one, two))
                return r.choice([b"\xf8" * 6, b"\xfa", b"\xfb", b"\xfc", position])
            case _:
                return bytes((control, r.choice([1, 7, 10, 11, 33, 39, 64, 66, 67, 69, 74]), two))


def check_the_account(stats: PortStats, heard: int) -> None:
    """What was meant for a peer and what it heard differ by what was counted."""
    missed = stats.messages_dropped + stats.messages_thinned + stats.late_notes + stats.late_clocks
    assert stats.messages_sent - missed - stats.sysex_refused + stats.messages_caught_up == heard


def test_the_documented_bounds() -> None:
    options = LinkOptions()
    assert options.slow == "thin"
    assert (options.max_outbox, options.soft_outbox, options.soft_messages) == (1 << 20, 1 << 18, 1 << 17)
    assert (options.soft_age, options.stall_timeout, LATE_NOTE_S) == (1.0, None, 0.2)
    assert options.max_rate is options.rate_burst is None


# Thinning.


def test_a_peer_that_stalled_ends_where_everybody_is(stage: Stage) -> None:
    async def scenario() -> None:
        async with (
            stage.serving() as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as quick,
            stage.peer(server) as sender,
        ):
            player = Player(sender, server)
            reference, late = Listener(quick), Listener(slow)
            port, quick_port = port_of(server, slow), port_of(server, quick)
            for episode in range(1, 4):
                listening = asyncio.create_task(reference.read_to_mark())
                await player.play_until_thinned(port)
                # It reads a little, and no more; then it reads again, while the others play on.
                await late.read_some(500)
                await player.play(300)
                catching_up = asyncio.create_task(late.read_to_mark())
                await player.play(300)
                if episode == 3:
                    await player.let_go()
                await player.heard_by(port, quick_port)
                await until(lambda: not port._link.outbox.stalled)
                await player.say(MARK)
                await asyncio.gather(listening, catching_up)
                assert late.synth.difference(reference.synth) == []
                # A note that is late is not struck; there is none that the others do not hear.
                assert late.synth.sounding <= reference.synth.sounding
                assert port.stats.slow_episodes >= episode
            assert reference.synth.is_silent()
            assert late.synth.is_silent(), late.synth.describe()
            assert port.stats.messages_thinned > 0
            assert port.stats.messages_caught_up > 0
            assert port.stats.messages_dropped == 0
            assert quick_port.stats.slow_episodes == 0
            check_the_account(port.stats, late.heard)
            check_the_account(quick_port.stats, reference.heard)

    stage.run(scenario)


def test_sysex_in_a_backlog_that_gives_way_is_kept_whole_and_in_order(stage: Stage) -> None:
    async def scenario() -> None:
        async with (
            stage.serving() as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            player, port, late = Player(sender, server), port_of(server, slow), Listener(slow)
            await player.play_until_thinned(port)
            dumps = [b"\xf0\x41" + bytes((number,)) * 200 + b"\xf7" for number in range(50)]
            for dump in dumps:
                await player.play(20)
                await player.say(dump)
            await player.heard_by(port)
            catching_up = asyncio.create_task(late.read_to_mark())
            await until(lambda: not port._link.outbox.stalled)
            await player.say(MARK)
            await catching_up
            assert late.sysex == [*dumps, MARK]
            assert port.stats.messages_dropped == 0
            check_the_account(port.stats, late.heard)

    stage.run(scenario)


def test_sysex_beyond_the_hard_bound_is_dropped_whole_and_counted(stage: Stage) -> None:
    async def scenario() -> None:
        async with (
            stage.serving(max_outbox=6000) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            player, port, late = Player(sender, server), port_of(server, slow), Listener(slow)
            await player.play_until_thinned(port)
            dumps = [b"\xf0\x41" + bytes((number,)) * 1000 + b"\xf7" for number in range(20)]
            await player.say(b"".join(dumps))
            await player.heard_by(port)
            dropped = port.stats.messages_dropped
            assert dropped > 0
            assert port._link.outbox.backlog_bytes <= 6000
            catching_up = asyncio.create_task(late.read_to_mark())
            await until(lambda: not port._link.outbox.stalled)
            await player.say(MARK)
            await catching_up
            assert late.sysex == [*dumps[: 20 - dropped], MARK]
            check_the_account(port.stats, late.heard)

    stage.run(scenario)


# Letting go.


def let_go_once(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the log has one line about a peer that was too slow."""
    lines = [record for record in caplog.records if CloseReason.SLOW.value in record.getMessage()]
    return len([record for record in lines if record.levelname == "WARNING"]) == 1


def test_a_slow_peer_is_disconnected_where_that_is_wished(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with (
            stage.serving(slow="disconnect", max_outbox=8192) as server,
            stage.peer(server) as quick,
            stage.peer(server) as sender,
        ):
            player, reference = Player(sender, server), Listener(quick)
            listening = asyncio.create_task(reference.read_to_mark())
            async with stage.peer(server, receive_buffer=2048) as slow:
                port = port_of(server, slow)
                await player.play_until(lambda: server.stats.closed)
                closed = server.closed_connections[-1]
                assert (closed.reason, closed.peer) == (CloseReason.SLOW, port.peer)
                assert closed.stats.messages_dropped > 0
                assert closed.stats.messages_thinned == closed.stats.slow_episodes == 0
                assert port not in server.ports
            await player.let_go()
            await player.say(MARK)
            await listening
            assert reference.synth.is_silent()
            assert len(server.ports) == 2
            assert server.stats.closed == {CloseReason.SLOW: 1}

    stage.run(scenario)
    assert let_go_once(caplog)


def test_a_peer_that_takes_nothing_is_disconnected(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with (
            stage.serving(stall_timeout=0.3) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            await Player(sender, server).play_until_thinned(port_of(server, slow))
            began = time.monotonic()
            await until(lambda: server.stats.closed)
            assert time.monotonic() - began < 3
            assert server.stats.closed == {CloseReason.SLOW: 1}
            assert server.closed_connections[-1].peer == slow.sock.getsockname()

    stage.run(scenario)
    assert let_go_once(caplog)


def test_a_peer_that_nothing_waits_for_may_be_silent(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.serving(stall_timeout=0.05) as server, stage.peer(server) as peer:
            await server.send(Message("note_on", note=1))
            await asyncio.sleep(0.2)
            await server.send(Message("note_on", note=2))
            assert await peer.read(6) == b"\x90\x01\x40\x90\x02\x40"
            assert not server.stats.closed

    stage.run(scenario)


@linux_only
@pytest.mark.parametrize(
    "stage",
    [
        "plain",
        "TLS",
        # Their clock cannot be put forward.
        pytest.param("plain on uvloop", marks=pytest.mark.full),
        pytest.param("TLS on uvloop", marks=pytest.mark.full),
    ],
    indirect=True,
)
def test_a_peer_that_reads_little_by_little_is_not_disconnected(stage: Stage) -> None:
    async def scenario() -> None:
        # The system's buffer is not small: what a peer takes off it, the transport does not see for long.
        async with (
            stage.serving(stall_timeout=1.0, send_buffer=65536) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            port = port_of(server, slow)
            await Player(sender, server).play_until_thinned(port)
            handed_over = port.stats.bytes_sent
            for _ in range(8):
                # Its system does not say at once that there is room again.
                taken = port._link.count_taken()
                while port._link.count_taken() == taken:
                    await slow.read(400)
                await stage.pass_time(0.3)
            # All this time, more than twice the timeout, the transport took nothing.
            assert port.stats.bytes_sent == handed_over
            assert not server.stats.closed
            # And when it stops, it is let go.
            await stage.pass_time(2.0)
            await until(lambda: server.stats.closed == {CloseReason.SLOW: 1})

    stage.run(scenario)


async def test_a_server_that_does_not_read_is_slow_too() -> None:
    async def send_for_ever(port: SocketPort) -> None:
        while True:
            await port.send(Message("note_on"))

    async with (
        RawListener(receive_buffer=2048) as listener,
        connect("127.0.0.1", listener.portno, stall_timeout=0.2) as port,
        await listener.accept(),
    ):
        with pytest.raises(ConnectionLost) as caught:
            await send_for_ever(port)
        assert caught.value.reason is CloseReason.SLOW


@linux_only
async def test_what_a_peer_has_taken_is_known() -> None:
    async with (
        RawListener(receive_buffer=2048) as listener,
        RawPeer(listener.portno) as sender,
        await listener.accept() as reader,
    ):
        before = acknowledged(sender.sock)
        assert before is not None
        await sender.send(bytes(1000))
        await until(lambda: acknowledged(sender.sock) == before + 1000)
        sending = asyncio.create_task(sender.send(bytes(100_000)))
        await asyncio.sleep(0)
        assert await reader.read(101_000) == bytes(101_000)
        await sending
        await until(lambda: acknowledged(sender.sock) == before + 101_000)


async def test_what_was_taken_of_a_closed_socket_is_not_known() -> None:
    async with RawListener() as listener, RawPeer(listener.portno) as peer:
        pass
    assert acknowledged(peer.sock) is None


# Programs that do not read.


def numbered(number: int) -> Message:
    """A message that says which one it is, up to 32,767."""
    channel, control = divmod(number >> 7, 16)
    return Message("control_change", channel=channel, control=102 + control, value=number & 127)


def controllers(messages: list[Message]) -> dict[tuple[int, int], int]:
    return {(one.channel, one.control): one.value for one in messages if one.type == "control_change"}


@pytest.mark.parametrize("yield_ports", [False, True])
async def test_a_relay_that_was_read_once_and_is_not_read_any_more_keeps_relaying(yield_ports: bool) -> None:
    clock, count = Clock(), 5000
    async with (
        serving(relay=True, yield_ports=yield_ports) as server,
        connect("127.0.0.1", portno(server)) as player,
        connect("127.0.0.1", portno(server)) as listener,
    ):
        await until(lambda: len(server.ports) == 2)
        await player.send(Message("note_on"))
        await server.receive()
        assert (await listener.receive()).type == "note_on"

        async def play() -> None:
            for number in range(count):
                await player.send(numbered(number))
            await player.send(Message("note_off"))

        async def listen() -> list[Message]:
            return [await listener.receive() for _ in range(count + 1)]

        playing, listening = asyncio.create_task(play()), asyncio.create_task(listen())
        await until(lambda: any(port._link.held for port in server.ports))
        await clock.skip(7.0)
        heard = await listening
        assert heard == [*map(numbered, range(count)), Message("note_off")]
        await playing
        assert server.stats.messages_unread > 0
        # It reads again: what waited, and then where everybody is.
        read = [entry[1] if yield_ports else entry for entry in server.iter_pending()]
        assert len(read) < 2000
        assert Message("note_off") in read
        assert controllers(read) == controllers(heard)
        await player.send(Message("note_on", note=1))
        last = await server.receive()
        assert (last[1] if yield_ports else last) == Message("note_on", note=1)


async def test_a_client_that_only_sends_is_read_on_and_answers_pings() -> None:
    clock = Clock()
    async with (
        serving(relay=True, dead_peer_timeout=10) as server,
        connect("127.0.0.1", portno(server), name="sends") as sends,
        connect("127.0.0.1", portno(server), name="listens") as listens,
    ):
        await until(lambda: len(server.ports) == 2)
        for number in range(3000):
            await server.send(numbered(number))
        await until(lambda: sends._link.held)
        reading = asyncio.create_task(_read_all(listens))
        await clock.skip(20.0)
        assert not server.stats.closed
        assert sends.stats.messages_received == 3000
        await sends.send(Message("note_on"))
        await until(lambda: listens.stats.messages_received == 3001)
        reading.cancel()


async def _read_all(port: SocketPort) -> None:
    async for _ in port:
        pass


async def test_a_port_that_does_not_listen_keeps_nothing_and_cannot_be_read() -> None:
    async with (
        serving(relay=True) as server,
        connect("127.0.0.1", portno(server), listen=False, max_inbox=1) as port,
        connect("127.0.0.1", portno(server)) as listener,
    ):
        await until(lambda: len(server.ports) == 2)
        for _ in range(100):
            await server.send(Message("note_on"))
        await until(lambda: port.stats.messages_received == 100)
        assert not port._own_inbox
        assert await port.ping() > 0
        with pytest.raises(UsageError, match="listen=False"):
            port.poll()
        with pytest.raises(UsageError, match="listen=False"):
            await port.receive()
        with pytest.raises(UsageError, match="listen=False"):
            async for _ in port:
                pass
        await port.send(Message("note_off"))
        while (await listener.receive()).type != "note_off":
            pass


# Senders.


def test_above_max_rate_a_sender_is_pushed_back_and_nothing_is_lost(stage: Stage) -> None:
    async def scenario() -> None:
        rate, burst, count = 2000, 100, 900
        async with stage.serving(max_rate=rate, rate_burst=burst) as server, stage.peer(server) as peer:
            began = time.monotonic()
            await peer.send(b"".join([bytes((0xB0, number >> 7, number & 127)) for number in range(count)]))
            for number in range(count):
                message = await server.receive()
                assert 128 * message.control + message.value == number
                # No faster: the burst, a share that begins while there is still some of it, and the rate.
                assert number <= 2 * burst + rate * (time.monotonic() - began)
            assert server.stats.messages_received == count

    stage.run(scenario)


async def test_a_sender_above_max_rate_feels_it_and_nobody_else_does() -> None:
    async with PortServer("127.0.0.1", 0, relay=True, max_rate=1000, rate_burst=10) as server:
        portno = server.addresses[0][1]
        async with (
            RawPeer(portno) as flood,
            connect("127.0.0.1", portno) as polite,
            connect("127.0.0.1", portno) as listener,
        ):
            await until(lambda: len(server.ports) == 3)
            began = time.monotonic()
            # More than all the buffers on the way hold.
            flooding = asyncio.create_task(flood.send(b"\xb0\x01\x01" * 10_000_000))
            heard = 0
            for number in range(20):
                await polite.send(Message("note_on", note=number, channel=1))
                while (message := await listener.receive()).type != "note_on":
                    heard += 1
                assert message.note == number
            # No more than the burst, a share that begins while there is still some of it, and the rate.
            assert heard <= 20 + 1000 * (time.monotonic() - began)
            assert not flooding.done()
            flooding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flooding


def test_one_who_floods_does_not_drown_one_who_does_not(stage: Stage) -> None:
    async def scenario() -> None:
        # Neither of them reads what the other sends.
        async with (
            stage.serving() as server,
            stage.peer(server) as flood,
            stage.peer(server) as polite,
        ):
            flood_port, polite_port = port_of(server, flood), port_of(server, polite)
            # Or the system holds ten megabytes of it at the end, all of which have to be taken.
            flood.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            stop = False

            async def send_the_flood() -> int:
                sent = 0
                while not stop:
                    await flood.send(b"\xb0\x01\x01" * 10_000)
                    sent += 10_000
                return sent

            flooding = asyncio.create_task(send_the_flood())
            await until(lambda: flood_port.stats.messages_received)
            for number in range(1, 6):
                await polite.send(b"\x90\x01\x00")
                await until(lambda number=number: polite_port.stats.messages_received == number)
            # The flood never came to an end meanwhile, and none of it is lost.
            assert not flooding.done()
            stop = True
            sent = await flooding
            await until(lambda: flood_port.stats.messages_received == sent)

    stage.run(scenario)


# Send-only clients beside others that play, for longer than any timeout.

MINUTES_OF_A_REHEARSAL_S = 25
MESSAGES_A_S = 12_000
SEND_ONLY_MARK = b"\xf0\x7d\x01\xf7"


@pytest.mark.full
async def test_send_only_clients_are_heard_after_25_s_of_12000_messages_a_s() -> None:
    def connect_them(portno: int) -> list[Any]:
        return [
            mido.sockets.connect("127.0.0.1", portno),
            midinet.sync.connect("127.0.0.1", portno),
            midinet.sync.connect("127.0.0.1", portno, name="says who it is"),
        ]

    async with (
        PortServer("127.0.0.1", 0, relay=True) as server,
        RawPeer(portno(server), receive_buffer=4096) as raw,
        RawPeer(portno(server)) as player,
        RawPeer(portno(server)) as listener,
    ):
        ports = await asyncio.to_thread(connect_them, portno(server))
        await until(lambda: len(server.ports) == 6)
        marks = asyncio.create_task(_count_marks(listener, 4))
        answers = asyncio.create_task(player.read_to_end())
        await _play(player)
        assert not server.stats.closed
        played = server.stats.messages_received
        assert played > 0.5 * MINUTES_OF_A_REHEARSAL_S * MESSAGES_A_S
        await raw.send(SEND_ONLY_MARK)
        for port in ports:
            await asyncio.to_thread(port.send, Message.from_bytes(SEND_ONLY_MARK))
        await marks
        assert not server.stats.closed
        # Nobody else was held up.
        missed = [port.stats.slow_episodes for port in server.ports if port.peer == _peer(listener)]
        assert missed == [0]
        answers.cancel()
        for port in ports:
            await asyncio.to_thread(port.close)


def _peer(peer: RawPeer) -> tuple[str, int]:
    return peer.sock.getsockname()


async def _play(player: RawPeer) -> None:
    """Play controllers evenly, for as long as it takes."""
    loop, sent = asyncio.get_running_loop(), 0
    began = loop.time()
    while (passed := loop.time() - began) < MINUTES_OF_A_REHEARSAL_S:
        due = int(passed * MESSAGES_A_S)
        await player.send(b"".join([bytes((0xB0 | n & 15, 16 + n % 16, n & 127)) for n in range(sent, due)]))
        sent = due
        await asyncio.sleep(0.02)


async def _count_marks(listener: RawPeer, marks: int) -> None:
    parser, heard = Parser(), 0
    while heard < marks:
        data = await listener.read(1)
        heard += parser.frames(data + listener.read_nowait(1 << 20)).count(SEND_ONLY_MARK)
