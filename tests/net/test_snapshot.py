"""Who joins late is in tune: `snapshot` brings a new client to the present performance first."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mido import Message

from midinet import Parser, PortServer, connect
from midinet.wire.aside import answer, hello
from tests.harness.raw import RawPeer
from tests.harness.servers import portno
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, until

HOST = "127.0.0.1"

# Set by a client; and what the server says itself.
PLAYED = bytes.fromhex(
    "B0 00 05 20 06 C0 07 B0 07 64 40 7F B1 65 00 64 00 06 0C 26 05 E0 00 50 D2 22 A0 3C 30"
    "F2 10 00 FB F8 F8 90 3C 40 91 40 50 80 3C 40 90 3E 41"
)
SAID = [Message("note_on", note=10, channel=15), Message("control_change", control=10, value=1, channel=15)]

MARK = Message("song_select", song=1)
MARK_BYTES = b"\xf3\x01"


@contextlib.asynccontextmanager
async def playing(**options: Any) -> AsyncIterator[PortServer]:
    """A relay to which PLAYED and SAID have been said, with the client still there that said PLAYED."""
    async with (
        PortServer(HOST, 0, relay=True, **options) as server,
        asyncio.timeout(3 * PATIENCE_S),
        RawPeer(portno(server)) as player,
    ):
        if options.get("tokens"):
            await player.send(hello("player", options["tokens"][0]))
            await player.read(len(answer(200)))
        await player.send(PLAYED)
        await until(lambda: server.stats.messages_received == len(Parser().feed(PLAYED)))
        for message in SAID:
            await server.send(message)
        yield server


async def heard_by(peer: RawPeer, synth: VirtualSynth) -> bytes:
    """Have a peer hear everything up to the next mark, which it may hear once."""
    data = b""
    while not data.endswith(MARK_BYTES):
        data += await peer.read(1)
    synth.feed(data[: -len(MARK_BYTES)])
    return data[: -len(MARK_BYTES)]


async def joined(server: PortServer) -> tuple[bytes, VirtualSynth]:
    """What a client hears that joins now."""
    synth = VirtualSynth()
    async with RawPeer(portno(server)) as peer:
        count = server.stats.clients
        await until(lambda: server.stats.clients == count + 1)
        await server.send(MARK)
        return await heard_by(peer, synth), synth


def everything() -> VirtualSynth:
    synth = VirtualSynth()
    synth.feed(PLAYED)
    for message in SAID:
        synth.feed(message.bin())
    return synth


async def test_a_bare_server_sends_no_snapshot() -> None:
    async with playing() as server:
        assert server.snapshot is False
        assert (await joined(server))[0] == b""


async def test_a_snapshot_has_all_that_is_set_and_no_note() -> None:
    async with playing(snapshot=True) as server:
        data, synth = await joined(server)
        assert synth.difference(everything()) == []
        assert not synth.sounding
        # Once each, and nothing that is not so: five for the program with its banks, volume, pedal and pan.
        assert len(Parser().feed(data)) == 3 + 3 + 4 + 3 + 4


async def test_a_snapshot_with_notes_has_what_is_held() -> None:
    async with playing(snapshot="notes") as server:
        data, synth = await joined(server)
        assert synth.difference(everything()) == []
        assert synth.sounding == everything().sounding == {(1, 64), (0, 62), (15, 10)}
        assert synth.voices == everything().voices
        notes = [message for message in Parser().feed(data) if message.type == "note_on"]
        assert [note.velocity for note in notes] == [80, 65, 64]
        # A note sounds with what is set when it is struck.
        assert Parser().feed(data)[-3:] == notes


@pytest.mark.parametrize("snapshot", [True, "notes"])
async def test_what_a_client_that_is_gone_had_set_is_there_and_what_it_held_is_not(snapshot: Any) -> None:
    async with PortServer(HOST, 0, relay=True, snapshot=snapshot) as server:
        async with RawPeer(portno(server)) as player:
            await player.send(PLAYED)
            await until(lambda: server.stats.messages_received)
        await until(lambda: server.stats.closed)
        _, synth = await joined(server)
        assert synth.programs == {0: (5, 6, 7)}
        assert synth.parameters == {(1, "rpn", 0, 0): (12, 5)}
        assert synth.describe() == "silent"


async def test_a_client_with_a_token_hears_the_answer_first() -> None:
    tokens = ["open-sesame"]
    async with playing(snapshot=True, tokens=tokens) as server, RawPeer(portno(server)) as peer:
        await peer.send(hello("late", tokens[0]))
        assert await peer.read(len(answer(200))) == answer(200)
        await until(lambda: len(server.ports) == 2)
        await server.send(MARK)
        synth = VirtualSynth()
        await heard_by(peer, synth)
        assert synth.difference(everything()) == []


async def test_an_accepted_client_gets_none() -> None:
    """It has nothing to do with what the server says to the others."""
    async with PortServer(HOST, 0, snapshot="notes") as server, connect(HOST, portno(server)):
        for message in SAID:
            await server.send(message)
        accepting = asyncio.create_task(server.accept())
        await asyncio.sleep(0)
        async with RawPeer(portno(server)) as peer:
            port = await accepting
            await port.send(MARK)
            assert await peer.read(2) == MARK_BYTES


async def test_a_server_that_does_not_relay_sends_what_it_has_said_itself() -> None:
    async with PortServer(HOST, 0, snapshot="notes") as server, RawPeer(portno(server)) as player:
        await player.send(PLAYED)
        await until(lambda: server.poll() is not None)
        for message in SAID:
            await server.send(message)
        data, _ = await joined(server)
        assert Parser().feed(data) == SAID[::-1]


async def test_a_client_that_joins_in_a_flood_misses_nothing_and_hears_nothing_twice() -> None:
    """While others play as fast as they can, many join, each at another moment. In the end all are alike.

    Notes are counted: one that came both in the snapshot and after it would leave a voice that sounds on.
    """
    playing = True

    async def play(port: Any, seed: int) -> None:
        source = random.Random(seed)
        held: list[tuple[int, int]] = []
        while playing:
            channel, note = source.randrange(3), seed * 12 + source.randrange(12)
            match source.randrange(6):
                case 0 | 1 if (channel, note) not in held:
                    held.append((channel, note))
                    await port.send(Message("note_on", channel=channel, note=note, velocity=99))
                case 2 | 3 if held:
                    channel, note = held.pop(source.randrange(len(held)))
                    await port.send(Message("note_off", channel=channel, note=note))
                case 4:
                    control = source.choice((1, 33, 7, 64, 66, 91))
                    value = source.randrange(128)
                    await port.send(Message("control_change", channel=channel, control=control, value=value))
                case _:
                    await port.send(
                        Message("pitchwheel", channel=channel, pitch=source.randrange(-8192, 8192))
                    )
            if source.random() < 0.2:
                await asyncio.sleep(0)
        # The clock is counted too: one more, or one less, and the song is elsewhere.
        for _ in range(10):
            await port.send(Message("clock"))

    async def listen(peer: RawPeer, synth: VirtualSynth, ended: bytes) -> None:
        heard = b""
        while not heard.endswith(ended):
            more = await asyncio.get_running_loop().sock_recv(peer.sock, 65536)
            heard = (heard + more)[-len(ended) :]
            synth.feed(more)

    async with (
        # The joiners do not read all the time, and the players never; no backlog gives way.
        PortServer(
            HOST,
            0,
            relay=True,
            snapshot="notes",
            slow="disconnect",
            max_outbox=1 << 24,
            stall_timeout=None,
            dead_peer_timeout=None,
        ) as server,
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(3 * PATIENCE_S),
    ):
        await server.send(Message("start"))
        players = [await stack.enter_async_context(connect(HOST, portno(server))) for _ in range(3)]
        tasks = [asyncio.create_task(play(port, seed)) for seed, port in enumerate([*players, server])]
        listening, synths = [], []
        for number in range(20):
            peer = await stack.enter_async_context(RawPeer(portno(server)))
            synths.append(VirtualSynth())
            listening.append(asyncio.create_task(listen(peer, synths[-1], MARK_BYTES)))
            count = server.stats.messages_received
            await until(lambda: server.stats.messages_received >= count + 20 * number)  # noqa: B023
        playing = False
        await asyncio.gather(*tasks)
        sent = sum(port.stats.messages_sent for port in players)
        await until(lambda: server.stats.messages_received == sent)
        await server.send(MARK)
        await asyncio.gather(*listening)
        for synth in synths[1:]:
            assert synth.difference(synths[0]) == []
            assert synth.sounding == synths[0].sounding
            assert synth.voices == synths[0].voices
        assert sent > 3_000
        assert len(synths[0].voices) > 3
        assert synths[0].song_position == 40
        assert server.stats.slow_episodes == 0
