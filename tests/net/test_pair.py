"""Ports that are connected in one process: what holds over TCP holds there too, and no socket is opened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from mido import Message

from midinet import (
    CloseReason,
    ConnectionLost,
    PortClosed,
    PortServer,
    PortState,
    SocketPort,
    connect,
)
from midinet.net.pair import MemoryTransport, open_pair
from tests.harness.clock import Clock
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, until

NOTE_ON = Message("note_on", note=60, velocity=100)
NOTE_OFF = Message("note_off", note=60)

# Comes last, so that a reader knows that it has everything.
MARK = Message("song_select", song=1)

# Next to nothing is under way, or in an inbox, before a port that does not read is too slow.
NARROW = {"send_buffer": 64, "max_inbox": 1, "soft_outbox": 256}

Ports = AbstractAsyncContextManager[tuple[SocketPort, SocketPort]]


@contextlib.asynccontextmanager
async def in_memory(**options: object) -> AsyncIterator[tuple[SocketPort, SocketPort]]:
    ours, theirs = open_pair(**options)
    async with asyncio.timeout(PATIENCE_S), ours, theirs:
        yield ours, theirs


@contextlib.asynccontextmanager
async def over_tcp(**options: object) -> AsyncIterator[tuple[SocketPort, SocketPort]]:
    async with (
        asyncio.timeout(PATIENCE_S),
        PortServer("127.0.0.1", 0, **options) as server,
        connect(*server.addresses[0], **options) as ours,
    ):
        yield ours, await server.accept()


@pytest.fixture(params=[in_memory, over_tcp], ids=["memory", "TCP"])
def ports(request: pytest.FixtureRequest) -> Callable[..., Ports]:
    return request.param


# Over both.


async def test_each_hears_the_other_in_order(ports: Callable[..., Ports]) -> None:
    sent = [Message("note_on", note=note % 128, channel=note % 16) for note in range(3000)]
    sent += [Message("sysex", data=[5] * 60_000), Message("clock"), MARK]
    async with ports(max_inbox=100_000) as both:
        for speaker, listener in (both, both[::-1]):
            for message in sent:
                await speaker.send(message)
            assert [await listener.receive() for _ in sent] == sent


async def test_what_is_sent_is_not_heard_in_the_same_turn(ports: Callable[..., Ports]) -> None:
    async with ports() as (ours, theirs):
        await ours.send(NOTE_ON)
        assert theirs.poll() is None
        await until(lambda: theirs.stats.messages_received)
        assert list(theirs.iter_pending()) == [NOTE_ON]


@pytest.mark.parametrize("leave", [SocketPort.close, lambda port: port._link.abort()])
async def test_what_was_held_is_let_go_when_its_port_ends(
    ports: Callable[..., Ports], leave: Callable[[SocketPort], Awaitable[None] | None]
) -> None:
    async with ports() as (ours, theirs):
        await ours.send(NOTE_ON)
        await until(lambda: theirs.stats.messages_received)
        if (leaving := leave(ours)) is not None:
            await leaving
        assert [message async for message in theirs] == [NOTE_ON, NOTE_OFF.copy(velocity=64)]
        assert theirs.closed
        assert theirs.state is PortState.CLOSED
        with pytest.raises(PortClosed):
            await theirs.send(NOTE_ON)
        with pytest.raises(PortClosed):
            await ours.send(NOTE_ON)


async def test_what_was_sent_arrives_before_the_end(ports: Callable[..., Ports]) -> None:
    async with ports(max_inbox=1) as (ours, theirs):
        for note in range(100):
            await ours.send(Message("note_off", note=note))
        closing_task = asyncio.create_task(ours.close())
        assert [message.note async for message in theirs] == list(range(100))
        await closing_task


async def test_both_may_close_at_once(ports: Callable[..., Ports]) -> None:
    async with ports() as (ours, theirs):
        await ours.send(NOTE_ON)
        await theirs.send(NOTE_ON)
        await asyncio.gather(ours.close(), theirs.close())


async def test_pings_are_answered(ports: Callable[..., Ports]) -> None:
    async with ports() as (ours, theirs):
        assert await ours.ping() > 0
        assert await theirs.ping() > 0


async def test_who_does_not_read_makes_the_other_wait_and_loses_nothing(ports: Callable[..., Ports]) -> None:
    async with ports(send_buffer=4096, max_inbox=1, slow="disconnect", stall_timeout=None) as (ours, theirs):
        # More than the system would take, and less than the hard bound.
        sent = [Message("sysex", data=[number % 128] * 50_000) for number in range(20)]

        async def send() -> None:
            for message in sent:
                await ours.send(message)

        sending_task = asyncio.create_task(send())
        await until(lambda: ours._link.outbox.stalled)
        assert not sending_task.done()
        assert [await theirs.receive() for _ in sent] == sent
        await sending_task


async def test_sysex_is_refused_on_wish(ports: Callable[..., Ports]) -> None:
    async with ports(sysex=False) as (ours, theirs):
        await ours.send(Message("sysex", data=[1, 2]))
        await ours.send(MARK)
        assert await theirs.receive() == MARK
        assert ours.stats.sysex_refused == 1


async def test_the_counts_of_both_ends_agree(ports: Callable[..., Ports]) -> None:
    async with ports() as (ours, theirs):
        for message in (NOTE_ON, NOTE_OFF, MARK):
            await ours.send(message)
        await until(lambda: theirs.stats.messages_received == 3)
        assert ours.stats.messages_sent == 3
        assert ours.stats.bytes_sent == theirs.stats.bytes_received == 8


# What takes a peer whose buffers are known to a byte.


async def test_a_slow_reader_ends_where_the_music_is() -> None:
    async with in_memory(**NARROW) as (ours, theirs):
        played, heard = VirtualSynth(), VirtualSynth()
        for number in range(3000):
            note = bytes((0x90 | number % 16, number % 128, number % 3 and 100))
            volume = bytes((0xB0 | number % 16, 7, number % 128))
            for frame in (note, volume):
                played.feed(frame)
                ours._say(frame, 1)
            await asyncio.sleep(0)
        assert ours.stats.slow_episodes == 1
        assert ours._link.outbox.backlog_bytes <= 256

        async def listen() -> None:
            async for message in theirs:
                if message == MARK:
                    return
                heard.feed(message.bin())

        listening_task = asyncio.create_task(listen())
        await until(lambda: not ours._link.outbox.stalled)
        await ours.send(MARK)
        await listening_task
        assert heard.controllers == played.controllers
        # Of notes that came too late only the ends are played.
        assert heard.sounding <= played.sounding
        assert ours.stats.messages_thinned > theirs.stats.messages_received


async def test_who_takes_nothing_for_too_long_is_given_up() -> None:
    async with in_memory(**NARROW, slow="disconnect", stall_timeout=0.1) as (ours, theirs):
        for _ in range(200):
            ours._say(NOTE_ON.bin(), 1)
        await until(lambda: ours.closed)
        with pytest.raises(ConnectionLost) as caught:
            await ours.send(NOTE_ON)
        assert caught.value.reason is CloseReason.SLOW
        # What was under way still arrives, and then the end.
        heard = [message async for message in theirs]
        assert 1 < len(heard) < 200
        assert heard[-1].type == "note_off"


async def test_who_is_slow_but_reads_is_not_given_up() -> None:
    clock = Clock()
    async with in_memory(**NARROW, slow="disconnect", stall_timeout=1.0) as (ours, theirs):
        for _ in range(100):
            ours._say(NOTE_ON.bin(), 1)
        for _ in range(100):
            assert await theirs.receive() == NOTE_ON
            await clock.skip(0.02, step_s=0.02)
        await ours.send(NOTE_OFF)
        assert await theirs.receive() == NOTE_OFF


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists descriptors")
async def test_no_descriptor_is_opened() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with in_memory() as (ours, theirs):
        await ours.send(NOTE_ON)
        await theirs.receive()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_each_is_called_by_the_other() -> None:
    async with in_memory() as (ours, theirs):
        assert (ours.name, theirs.name) == ("pair:2", "pair:1")
        assert (ours.peer, theirs.peer) == (("pair", 2), ("pair", 1))


async def test_active_sensing_that_ends_lets_go() -> None:
    async with in_memory() as (ours, theirs):
        await ours.send(NOTE_ON)
        await ours.send(Message("active_sensing"))
        heard = [await theirs.receive() for _ in range(3)]
        assert heard[0] == NOTE_ON
        assert heard[2].type == "note_off"


def test_a_pair_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        open_pair()


async def test_wrong_options_are_refused() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        open_pair(no_such_option=1)
    with pytest.raises(ValueError, match="max_inbox"):
        open_pair(max_inbox=0)


def test_a_pair_that_nobody_keeps_is_collected_in_silence() -> None:
    async def forget() -> None:
        ours, _ = open_pair()
        await ours.send(NOTE_ON)

    asyncio.run(forget())


def test_a_pair_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def scenario() -> None:
        async with in_memory() as (ours, theirs):
            await ours.send(NOTE_ON)
            assert await theirs.receive() == NOTE_ON

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


# The transport by itself, beside asyncio's own over a pair of sockets.


class Recorder(asyncio.Protocol):
    """What a protocol was told."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.told: list[str] = []
        self.error: Exception | None = None
        self._keeps_open = keeps_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self._keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


Join = Callable[[Recorder, Recorder], Awaitable[tuple[asyncio.Transport, asyncio.Transport]]]


async def join_memory(first: Recorder, second: Recorder) -> tuple[asyncio.Transport, asyncio.Transport]:
    loop = asyncio.get_running_loop()
    ends = MemoryTransport(loop, ("pair", 2), 4096), MemoryTransport(loop, ("pair", 1), 4096)
    ends[0].join(first, ends[1])
    ends[1].join(second, ends[0])
    return ends


async def join_sockets(first: Recorder, second: Recorder) -> tuple[asyncio.Transport, asyncio.Transport]:
    loop = asyncio.get_running_loop()
    for protocol, sock in zip((first, second), socket.socketpair(), strict=True):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await loop.create_connection(lambda protocol=protocol: protocol, sock=sock)
    assert first.transport is not None
    assert second.transport is not None
    return first.transport, second.transport


@pytest.fixture(params=[join_memory, join_sockets], ids=["memory", "sockets"])
async def join(request: pytest.FixtureRequest) -> AsyncIterator[Join]:
    opened: list[asyncio.Transport] = []

    async def join(first: Recorder, second: Recorder) -> tuple[asyncio.Transport, asyncio.Transport]:
        ends = await request.param(first, second)
        opened.extend(ends)
        return ends

    yield join
    for transport in opened:
        if not transport.is_closing():
            transport.abort()
    await asyncio.sleep(0)


async def test_a_writer_is_told_when_to_wait_and_when_to_go_on(join: Join) -> None:
    writer, reader = Recorder(), Recorder()
    out, into = await join(writer, reader)
    out.set_write_buffer_limits(high=1000, low=100)
    assert out.get_write_buffer_limits() == (100, 1000)
    into.pause_reading()
    assert not into.is_reading()
    sent = b""
    while writer.told != ["pause"]:
        sent += bytes(500)
        out.write(bytes(500))
        await asyncio.sleep(0)
    assert out.get_write_buffer_size() > 1000
    into.resume_reading()
    assert into.is_reading()
    await until(lambda: writer.told == ["pause", "resume"])
    assert out.get_write_buffer_size() <= 100
    await until(lambda: reader.data == sent)


async def test_new_limits_hold_at_once(join: Join) -> None:
    writer = Recorder()
    out, into = await join(writer, Recorder())
    into.pause_reading()
    while not out.get_write_buffer_size():
        out.write(bytes(500))
        await asyncio.sleep(0)
    assert writer.told == []
    out.set_write_buffer_limits(high=0)
    assert writer.told == ["pause"]
    with pytest.raises(ValueError, match="high"):
        out.set_write_buffer_limits(high=1, low=2)


async def test_closing_writes_what_is_left_first(join: Join) -> None:
    writer, reader = Recorder(), Recorder()
    out, into = await join(writer, reader)
    into.pause_reading()
    sent = bytes(range(256)) * 1000
    out.write(sent)
    assert not out.is_closing()
    out.close()
    out.close()
    assert out.is_closing()
    await asyncio.sleep(0.01)
    assert "lost" not in writer.told
    into.resume_reading()
    await until(lambda: "lost" in writer.told and "lost" in reader.told)
    assert reader.data == sent
    assert reader.told == ["eof", "lost"]
    assert (writer.error, reader.error) == (None, None)


async def test_half_of_a_connection_goes_on(join: Join) -> None:
    first, second = Recorder(keeps_open=True), Recorder(keeps_open=True)
    out, into = await join(first, second)
    assert out.can_write_eof()
    out.write(b"question")
    out.write_eof()
    with pytest.raises(RuntimeError, match=r"write_eof\(\)"):
        out.write(b"more")
    await until(lambda: second.told == ["eof"])
    assert second.data == b"question"
    into.write(b"answer")
    into.close()
    await until(lambda: "lost" in first.told or "eof" in first.told)
    assert first.data == b"answer"
    assert second.told == ["eof", "lost"]
    assert not out.is_closing()


async def test_aborting_drops_what_is_left(join: Join) -> None:
    writer, reader = Recorder(), Recorder()
    out, into = await join(writer, reader)
    into.pause_reading()
    sent = bytes(1_000_000)
    out.write(sent)
    out.abort()
    assert out.is_closing()
    await until(lambda: writer.told[-1:] == ["lost"])
    into.resume_reading()
    await until(lambda: reader.told == ["eof", "lost"])
    assert 0 < len(reader.data) < len(sent)
    out.write(b"nobody")
    out.abort()


async def test_who_goes_with_something_unread_resets(join: Join) -> None:
    first, second = Recorder(), Recorder()
    out, into = await join(first, second)
    into.pause_reading()
    out.write(b"unread")
    await asyncio.sleep(0.01)
    into.abort()
    await until(lambda: first.told == ["lost"])
    assert isinstance(first.error, ConnectionResetError)
