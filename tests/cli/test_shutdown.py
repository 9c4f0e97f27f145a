"""The end of a verb: whenever a signal comes all notes are let go, in seconds; a second one does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import re
import signal
import socket
import sys
import time

import mido
import pytest

from tests.harness.raw import RawPeer
from tests.harness.sizes import thorough
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, until, wait_until

# Hubs at once: more of them would only wait for a processor.
AT_ONCE = 4

PLAYERS, LISTENERS = 3, 2

# Seconds. Signals come at any time up to so long after the first notes.
TRAFFIC_S = 0.3

NOTE_ON = re.compile(rb"[\x90-\x9f][\x00-\x7f][\x01-\x7f]")


class Listener:
    """What one receiver heard to the end, and whether the end was a FIN."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.heard = bytearray()
        self.was_reset = False

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self.peer.sock, 65536):
                self.heard += data
        except ConnectionError:
            self.was_reset = True

    def instrument(self) -> VirtualSynth:
        synth = VirtualSynth()
        synth.feed(bytes(self.heard))
        return synth


def phrase(chance: random.Random) -> bytes:
    """A few messages that leave something sounding, held or bent, and some that end it: no note is to be
    struck more often than note-offs are kept count of."""
    channel, value = chance.randrange(3), chance.randrange(128)
    messages = [
        bytes([0x90 | channel, chance.randrange(40, 60), chance.randrange(1, 128)]),
        bytes([0x80 | channel, chance.randrange(40, 60), value]),
        bytes([0x90 | channel, chance.randrange(40, 60), 0]),
        bytes([0xB0 | channel, chance.choice((64, 66, 67, 69)), chance.choice((0, 127))]),
        bytes([0xE0 | channel, value, chance.randrange(128)]),
    ]
    return b"".join(chance.choices(messages, weights=(5, 3, 3, 1, 1), k=5))


async def play(peer: RawPeer, chance: random.Random) -> None:
    """Play until the hub is gone."""
    with contextlib.suppress(OSError):
        while True:
            await peer.send(phrase(chance))
            await asyncio.sleep(0.002)


async def start_serve(*arguments: str) -> tuple[asyncio.subprocess.Process, int]:
    """Start a hub, and return it with its port number."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "midinet", "serve", "127.0.0.1:0", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        line = await process.stdout.readline()
    return process, int(line.rpartition(b":")[2])


async def end_at(moment: int) -> list[Listener]:
    """Run a hub under traffic, end it, and return what everybody heard."""
    chance = random.Random(moment)
    process, portno = await start_serve(*chance.choice(([], ["--quiet"], ["--snapshot", "notes"])))
    output_task = asyncio.create_task(process.communicate())
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(RawPeer(portno)) for _ in range(LISTENERS + PLAYERS)]
        listeners = [Listener(peer) for peer in peers]
        listening = asyncio.gather(*(listener.listen() for listener in listeners))
        players = [
            asyncio.create_task(play(peer, random.Random(chance.random()))) for peer in peers[LISTENERS:]
        ]
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: all(NOTE_ON.search(one.heard) for one in listeners[:LISTENERS]))
            await asyncio.sleep(chance.uniform(0, TRAFFIC_S))
            process.send_signal(signal.SIGTERM)
            await listening
            _, errors = await output_task
        for player in players:
            player.cancel()
        await asyncio.gather(*players, return_exceptions=True)
    assert (process.returncode, errors) == (0, b""), f"moment {moment}"
    return listeners


# Moments of a run at which the hub is ended; fifty are what was promised.
@thorough("moments", quick=4, full=50)
async def test_every_listener_is_silent_at_whatever_moment_a_hub_is_ended(moments):
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(moment: int) -> list[Listener]:
        async with turns:
            return await end_at(moment)

    heard = await asyncio.gather(*(one(moment) for moment in range(moments)))
    for moment, listeners in enumerate(heard):
        for number, listener in enumerate(listeners):
            where = f"moment {moment}, listener {number}"
            instrument = listener.instrument()
            if number < LISTENERS:
                assert not listener.was_reset, where
                assert instrument.is_silent(), f"{where}: {instrument.describe()}"
            elif not listener.was_reset:
                # Who was still sending may have been cut by a reset, which is how TCP answers what comes
                # after the end, and which can take back what was not read yet. And what it bent itself is
                # its own.
                assert not instrument.sounding | set(instrument.voices), f"{where}: {instrument.describe()}"


@contextlib.contextmanager
def stalled_client(hub):
    """A client of a hub with --stats-every that does not read, and for which something waits."""
    with socket.socket() as stalled, socket.create_connection(("127.0.0.1", hub.portno)) as player:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", hub.portno))
        hub.wait_for(" connected", count=2)
        player.sendall(bytes(mido.Message("pitchwheel", pitch=1).bin()) * 150_000)
        # Its backlog was too much.
        hub.wait_for("thinned")
        yield


def test_a_client_that_does_not_read_delays_the_end_by_seconds_at_most(start_hub):
    hub = start_hub("--stats-every", "0.1")
    with stalled_client(hub):
        begin = time.monotonic()
        hub.process.send_signal(signal.SIGTERM)
        assert (hub.wait(), hub.err) == (0, "")
        # It is promised in three, and takes two; a busy machine gets some more.
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGINT, signal.SIGTERM), 143),
    ],
)
def test_a_second_signal_ends_it_at_once(start_hub, numbers, status):
    hub = start_hub("--stats-every", "0.1")
    with stalled_client(hub):
        first, second = numbers
        hub.process.send_signal(first)
        wait_until(lambda: not _listens(hub.portno), "its end to begin")
        # Long enough to be another press; meanwhile the seconds that the client gets do not end it.
        with hub.stopped():
            time.sleep(0.5)
            hub.process.send_signal(second)
        assert (hub.wait(), hub.err) == (status, "")


def _listens(portno):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", portno)) == 0


def test_one_press_that_arrives_twice_is_one(start_hub):
    hub = start_hub()
    with socket.create_connection(("127.0.0.1", hub.portno), timeout=PATIENCE_S) as client:
        hub.wait_for(" connected")
        client.sendall(mido.Message("note_on", note=60).bin())
        hub.wait_for("note_on")
        hub.process.send_signal(signal.SIGTERM)
        hub.process.send_signal(signal.SIGTERM)
        assert client.recv(100) == b""
    assert (hub.wait(), hub.err) == (0, "")


def test_a_terminal_that_is_closed_ends_a_hub_in_order(start_hub):
    hub = start_hub()
    with socket.create_connection(("127.0.0.1", hub.portno), timeout=PATIENCE_S) as client:
        hub.wait_for(" connected")
        hub.process.send_signal(signal.SIGHUP)
        assert client.recv(100) == b""
    assert (hub.wait(), hub.err) == (129, "")


def test_a_second_signal_gives_back_the_cursor_that_a_progress_bar_hid(start, tmp_path):
    # More than the system takes for somebody who does not read.
    begin = [mido.Message("sysex", data=bytes(1000))] * 200
    tune = mido.MidiFile(tracks=[mido.MidiTrack([*begin, mido.Message("note_on", time=480 * 120)])])
    tune.save(tmp_path / "tune.mid")
    terminal, other_end = pty.openpty()
    try:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            server.bind(("127.0.0.1", 0))
            server.listen()
            server.settimeout(PATIENCE_S)
            player = start(
                *("play", f"127.0.0.1:{server.getsockname()[1]}", str(tmp_path / "tune.mid")),
                stderr=other_end,
                env={**os.environ, "TERM": "xterm"},
            )
            client, _ = server.accept()
            with client:
                seen = b""
                while not re.search(rb"0:0[1-9] / 1:00", seen):
                    seen += os.read(terminal, 1000)
                assert b"\x1b[?25l" in seen
                # By now it has sent that, and takes seconds to end.
                player.interrupt()
                time.sleep(0.5)
                with player.stopped():
                    player.interrupt()
                assert player.wait() == 130
        os.set_blocking(terminal, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                seen += os.read(terminal, 65536)
        assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    finally:
        os.close(terminal)
        os.close(other_end)
