"""Peers that read too slowly, and peers that send too fast. Over plain TCP and TLS, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from mido import Message

from midinet import CloseReason, ConnectionLost, PortServer, SocketPort, connect
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.net.watch import acknowledged
from midinet.wire.parser import Parser
from tests.harness.certificates import certificates
from tests.harness.raw import PATIENCE_S, RawListener, RawPeer, until
from tests.harness.synth import VirtualSynth
from tests.harness.tls_peer import TlsPeer

Peer = RawPeer | TlsPeer
VARIANTS = ["plain", "TLS", "plain uvloop", "TLS uvloop"]

# Comes last, so that a reader knows that it has everything: nothing else here is like it.
MARK = b"\xf0\x7d\x7f\x7f\xf7"


class Stage:
    """Where a scenario takes place."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.tls = variant.startswith("TLS")

    def run(self, scenario: Callable[[Stage], Awaitable[None]]) -> None:
        factory = None
        if self.variant.endswith("uvloop"):
            factory = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop

        async def limited() -> None:
            async with asyncio.timeout(3 * PATIENCE_S):
                await scenario(self)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, "tasks were left running"

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    @contextlib.asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[PortServer]:
        context = None
        if self.tls:
            files = certificates()
            context = tls_server_context(files.server_cert, files.server_key)
        # Small, so that little traffic shows it.
        settings = {"relay": True, "send_buffer": 4096, "soft_outbox": 4096} | options
        async with PortServer("127.0.0.1", 0, ssl=context, **settings) as server:
            yield server

    @contextlib.asynccontextmanager
    async def peer(self, server: PortServer, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
        """A client by hand; it is adopted."""
        clients = len(server.ports)
        raw = RawPeer(server.addresses[0][1], receive_buffer=receive_buffer)
        context: ssl.SSLContext | None = tls_client_context(certificates().ca) if self.tls else None
        async with raw if context is None else TlsPeer(raw, context) as peer:
            await until(lambda: len(server.ports) > clients)
            yield peer


@pytest.fixture(params=VARIANTS)
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


def port_of(server: PortServer, peer: Peer) -> SocketPort:
    return next(port for port in server.ports if port.peer == peer.sock.getsockname())


class Listener:
    """Reads a peer, and plays what it hears."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.synth = VirtualSynth()
        self.frames: list[bytes] = []
        self._parser = Parser()

    async def read_to_mark(self) -> None:
        while MARK not in self.frames[-1:]:
            await self.read_some(65536)

    async def read_some(self, most: int) -> None:
        data = await _read_what_is_there(self.peer, most)
        self.synth.feed(data)
        self.frames += self._parser.frames(data)


async def _read_what_is_there(peer: Peer, most: int) -> bytes:
    """Wait for a byte, and return it with what else there is."""
    data = await peer.read(1)
    if not data:
        raise EOFError("the server has closed the connection")
    if isinstance(peer, TlsPeer):
        return data + peer.read_nowait(most - 1)
    with contextlib.suppress(BlockingIOError):
        data += peer.sock.recv(most - 1)
    return data


class Player:
    """Random music, as one who plays sends it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._held: list[tuple[int, int]] = []

    def play(self, messages: int) -> bytes:
        return b"".join([self._next() for _ in range(messages)])

    def let_go(self) -> bytes:
        """End all that sounds or is held: keys, pedals, bends."""
        data = b"".join([bytes((0x80 | channel, note, 64)) for channel, note in self._held])
        self._held.clear()
        for channel in range(16):
            data += b"".join([bytes((0xB0 | channel, pedal, 0)) for pedal in (64, 66, 67, 69)])
            data += bytes((0xE0 | channel, 0, 64))
        return data

    def _next(self) -> bytes:
        r = self._random
        channel, one, two = r.randrange(16), r.randrange(128), r.randrange(128)
        kind = r.randrange(20)
        if kind < 6:
            self._held.append((channel, one))
            return bytes((0x90 | channel, one, max(two, 1)))
        if kind < 12 and self._held:
            channel, note = self._held.pop(r.randrange(len(self._held)))
            return bytes((0x90 | channel, note, 0)) if two < 64 else bytes((0x80 | channel, note, two))
        if kind < 15:
            return bytes((0xB0 | channel, r.choice([1, 7, 10, 11, 64, 66, 67, 69, 74, 33, 39]), two))
        if kind == 15:
            return bytes((0xB0 | channel, 0, one, 0xB0 | channel, 32, two, 0xC0 | channel, one))
        if kind == 16:
            return bytes((0xE0 | channel, one, two))
        if kind == 17:
            return bytes((0xD0 | channel, two)) if one < 64 else bytes((0xA0 | channel, one, two))
        if kind == 18:
            status = 0xB0 | channel
            number = r.choice([(0, 0), (0, 1), (0, 2)])
            return bytes((status, 101, number[0], status, 100, number[1], status, 6, one, status, 38, two))
        return r.choice(
            [b"\xf8", b"\xfa", b"\xfb", b"\xfc", b"\xf8\xf8\xf8", bytes((0xF2, one, two)), b"\xfe"]
        )


async def send_until_thinned(sender: Peer, player: Player, port: SocketPort) -> None:
    """Play until the backlog of a port has given way, and a while longer."""
    episodes = port.stats.slow_episodes
    async with asyncio.timeout(PATIENCE_S):
        while port.stats.slow_episodes == episodes:
            await sender.send(player.play(200))
            await asyncio.sleep(0)
    await sender.send(player.play(500))


def check_the_account(port_stats: Any, heard: int) -> None:
    """What was meant for a peer and what it heard differ by what was counted."""
    missed = (
        port_stats.messages_dropped
        + port_stats.messages_thinned
        + port_stats.late_notes
        + port_stats.late_clocks
        + port_stats.sysex_refused
    )
    assert port_stats.messages_sent - missed + port_stats.messages_caught_up == heard


# Thinning.


@pytest.mark.parametrize("seed", [1, 2])
def test_a_peer_that_stalled_ends_where_everybody_is(stage: Stage, seed: int) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(seed)
        async with (
            stage.serving() as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as quick,
            stage.peer(server) as sender,
        ):
            reference, late = Listener(quick), Listener(slow)
            port = port_of(server, slow)
            for episode in range(1, 4):
                listening = asyncio.create_task(reference.read_to_mark())
                await send_until_thinned(sender, player, port)
                # It reads a little, and no more, and reads again while the others play on.
                await late.read_some(500)
                await sender.send(player.play(300))
                catching_up = asyncio.create_task(late.read_to_mark())
                await sender.send(player.play(300))
                await until(lambda: not port._link.outbox.stalled)
                received = server.stats.bytes_received
                last = player.play(20)
                if episode == 3:
                    last += player.let_go()
                await sender.send(last)
                await until(
                    lambda received=received, last=last: server.stats.bytes_received >= received + len(last)
                )
                await until(lambda: not port._link.outbox.stalled)
                await sender.send(MARK)
                await asyncio.gather(listening, catching_up)
                assert late.synth.difference(reference.synth) == []
                # A note that is late is not struck; there is none that the others do not hear.
                assert late.synth.sounding <= reference.synth.sounding
                for listener in (late, reference):
                    listener.frames.append(b"")
                assert port.stats.slow_episodes >= episode
            assert reference.synth.is_silent()
            assert late.synth.is_silent(), late.synth.describe()
            stats = port.stats
            assert stats.messages_thinned > 0
            assert stats.messages_caught_up > 0
            assert stats.messages_dropped == 0
            check_the_account(stats, len([frame for frame in late.frames if frame]))
            assert port_of(server, quick).stats.slow_episodes == 0
            check_the_account(
                port_of(server, quick).stats, len([frame for frame in reference.frames if frame])
            )

    stage.run(scenario)


def test_sysex_in_a_backlog_that_gives_way_is_kept_whole_and_in_order(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(3)
        async with (
            stage.serving() as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            port = port_of(server, slow)
            await send_until_thinned(sender, player, port)
            dumps = [b"\xf0\x41" + bytes((number,)) * 200 + b"\xf7" for number in range(50)]
            for dump in dumps:
                await sender.send(player.play(20) + dump)
            late = Listener(slow)
            await until(lambda: port.stats.messages_sent == server.stats.messages_received)
            catching_up = asyncio.create_task(late.read_to_mark())
            await until(lambda: not port._link.outbox.stalled)
            await sender.send(MARK)
            await catching_up
            assert [frame for frame in late.frames if frame[0] == 0xF0] == [*dumps, MARK]
            assert port.stats.messages_dropped == 0

    stage.run(scenario)


def test_sysex_beyond_the_hard_bound_is_dropped_whole_and_counted(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(4)
        async with (
            stage.serving(max_outbox=6000) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            port = port_of(server, slow)
            await send_until_thinned(sender, player, port)
            dumps = [b"\xf0\x41" + bytes((number,)) * 1000 + b"\xf7" for number in range(20)]
            await sender.send(b"".join(dumps))
            late = Listener(slow)
            await until(lambda: port.stats.messages_sent == server.stats.messages_received)
            dropped = port.stats.messages_dropped
            assert dropped > 0
            assert port._link.outbox.backlog_bytes <= 6000
            catching_up = asyncio.create_task(late.read_to_mark())
            await until(lambda: not port._link.outbox.stalled)
            await sender.send(MARK)
            await catching_up
            assert [frame for frame in late.frames if frame[0] == 0xF0] == [*dumps[: 20 - dropped], MARK]
            check_the_account(port.stats, len(late.frames))

    stage.run(scenario)


# Letting go.


def let_go_once(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether the log has one line about a peer that was too slow."""
    return len([record for record in caplog.records if CloseReason.SLOW.value in record.message]) == 1


def test_a_slow_peer_is_disconnected_where_that_is_wished(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(5)
        async with (
            stage.serving(slow="disconnect", max_outbox=8192) as server,
            stage.peer(server) as quick,
            stage.peer(server) as sender,
        ):
            reference = Listener(quick)
            listening = asyncio.create_task(reference.read_to_mark())
            async with stage.peer(server, receive_buffer=2048) as slow:
                port = port_of(server, slow)
                async with asyncio.timeout(PATIENCE_S):
                    while not server.stats.closed:
                        await sender.send(player.play(200))
                        await asyncio.sleep(0)
                closed = server.closed_connections[-1]
                assert (closed.reason, closed.peer) == (CloseReason.SLOW, port.peer)
                assert closed.stats.messages_dropped > 0
                assert closed.stats.messages_thinned == closed.stats.slow_episodes == 0
                assert port not in server.ports
            await sender.send(player.play(100) + player.let_go() + MARK)
            await listening
            assert reference.synth.is_silent()
            assert len(server.ports) == 2
            assert server.stats.closed == {CloseReason.SLOW: 1}

    stage.run(scenario)
    assert let_go_once(caplog)


def test_a_peer_that_takes_nothing_is_disconnected(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(6)
        async with (
            stage.serving(stall_timeout=0.3) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            port = port_of(server, slow)
            await send_until_thinned(sender, player, port)
            began = time.monotonic()
            await until(lambda: bool(server.stats.closed))
            assert time.monotonic() - began < 3
            assert server.closed_connections[-1].reason is CloseReason.SLOW
            assert server.stats.closed == {CloseReason.SLOW: 1}

    stage.run(scenario)
    assert let_go_once(caplog)


def test_a_peer_that_nothing_waits_for_may_be_silent(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.serving(stall_timeout=0.05) as server, stage.peer(server) as peer:
            await server.send(Message("note_on", note=1))
            await asyncio.sleep(0.2)
            await server.send(Message("note_on", note=2))
            assert await peer.read(6) == b"\x90\x01\x40\x90\x02\x40"
            assert not server.stats.closed

    stage.run(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells in small steps what a peer has taken")
def test_a_peer_that_reads_little_by_little_is_not_disconnected(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        player = Player(7)
        # The system's buffer is not small: what a peer takes off it, the transport does not see for long.
        async with (
            stage.serving(stall_timeout=0.5, send_buffer=65536) as server,
            stage.peer(server, receive_buffer=2048) as slow,
            stage.peer(server) as sender,
        ):
            port = port_of(server, slow)
            await send_until_thinned(sender, player, port)
            handed_over = port.stats.bytes_sent
            began = time.monotonic()
            taken = 0
            while time.monotonic() - began < 1.5:
                taken += len(await slow.read(400))
                await asyncio.sleep(0.03)
            # It took nothing like what waits for it, and was slower than the timeout would have been.
            assert port._link.outbox.stalled
            assert taken < handed_over
            assert not server.stats.closed
            # And when it stops, it is let go.
            await until(lambda: server.stats.closed == {CloseReason.SLOW: 1})

    stage.run(scenario)


async def test_a_server_that_does_not_read_is_slow_too() -> None:
    async with (
        RawListener(receive_buffer=2048) as listener,
        connect("127.0.0.1", listener.portno, stall_timeout=0.2) as port,
        await listener.accept(),
    ):
        with pytest.raises(ConnectionLost) as caught:
            while True:
                await port.send(Message("note_on"))
        assert caught.value.reason is CloseReason.SLOW


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")
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


async def test_what_a_closed_socket_has_taken_is_not_known() -> None:
    async with RawListener() as listener, RawPeer(listener.portno) as peer:
        pass
    assert acknowledged(peer.sock) is None


# Senders.


def test_above_max_rate_a_sender_is_pushed_back_and_nothing_is_lost(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        rate, burst, count = 2000, 100, 900
        numbers = iter(range(count))
        async with stage.serving(max_rate=rate, rate_burst=burst) as server, stage.peer(server) as peer:
            began = time.monotonic()
            await peer.send(b"".join(_numbered(numbers)))
            for number in range(count):
                message = await server.receive()
                assert 128 * message.control + message.value == number
                # A tenth more for the clock's grain and the last share.
                assert number <= 1.1 * (2 * burst + rate * (time.monotonic() - began))
            assert time.monotonic() - began >= 0.9 * (count - 2 * burst) / rate
            assert server.stats.messages_received == count

    stage.run(scenario)


def _numbered(numbers: Iterator[int]) -> Iterator[bytes]:
    for number in numbers:
        yield bytes((0xB0, number >> 7, number & 0x7F))


async def test_a_sender_above_max_rate_feels_it_and_nobody_else_does() -> None:
    async with PortServer("127.0.0.1", 0, relay=True, max_rate=1000, rate_burst=10) as server:
        portno = server.addresses[0][1]
        async with (
            RawPeer(portno) as flood,
            connect("127.0.0.1", portno) as polite,
            connect("127.0.0.1", portno) as listener,
        ):
            await until(lambda: len(server.ports) == 3)
            flooding = asyncio.create_task(flood.send(b"\xb0\x01\x01" * 10_000_000))
            heard = 0
            for number in range(20):
                await polite.send(Message("note_on", note=number, channel=1))
                while (message := await listener.receive()).type != "note_on":
                    heard += 1
                assert message.note == number
            assert heard < 2000
            assert not flooding.done()
            flooding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flooding


def test_one_who_floods_does_not_drown_one_who_does_not(stage: Stage) -> None:
    async def scenario(stage: Stage) -> None:
        async with (
            stage.serving(relay=False, yield_ports=True) as server,
            contextlib.AsyncExitStack() as stack,
        ):
            # What comes from whom is counted while it comes.
            await server.send(Message("active_sensing"))
            reader = asyncio.create_task(server.receive())
            flood = await stack.enter_async_context(stage.peer(server))
            polite = await stack.enter_async_context(stage.peer(server))
            port = port_of(server, polite)
            flooded = 0
            stop = False

            async def send_the_flood() -> int:
                chunk = b"\xb0\x01\x01" * 20_000
                sent = 0
                while not stop:
                    await flood.send(chunk)
                    sent += 20_000
                return sent

            flooding = asyncio.create_task(send_the_flood())
            source, _ = await reader
            flooded += source is not port
            for number in range(50):
                await polite.send(bytes((0x90, number, 64)))
                while (entry := await server.receive())[0] is not port:
                    flooded += 1
                assert entry[1].note == number
            stop = True
            sent = await flooding
            while flooded < sent:
                assert (await server.receive())[0] is not port
                flooded += 1
            assert server.stats.messages_received == sent + 50

    stage.run(scenario)


def test_the_documented_bounds() -> None:
    from midinet.hub import outbox
    from midinet.net.options import LinkOptions

    options = LinkOptions()
    assert options.slow == "thin"
    assert options.max_outbox == 1 << 20
    assert options.soft_outbox == 1 << 18
    assert options.soft_messages == 1 << 17
    assert options.soft_age == 1.0
    assert options.stall_timeout == 5.0
    assert options.max_rate is None
    assert outbox.LATE_NOTE_S == 0.2


def test_logging_is_under_midinet() -> None:
    from midinet.net import door, link, server

    for module in (door, link, server):
        assert module.logger.name.startswith("midinet.")
        assert isinstance(module.logger, logging.Logger)
