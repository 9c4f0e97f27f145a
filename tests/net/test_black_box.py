"""Connections that send anything, against one server, while two good clients play through it.

What they send begins as something that a peer could mean (MIDI, asides, TLS, HTTP) or as noise, is mutated,
and ends in every way that a connection can. There are 20,000 of them under the marker `full`, in a minute,
and fewer otherwise; MIDINET_TEST_SEED makes them other ones.

    MIDINET_TEST_SEED=2 python -m pytest -m full tests/net/test_black_box.py
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mido import Message

from midinet import PortServer, SocketPort, connect
from midinet.net.link import Link
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.wire.aside import answer, hello, ping
from midinet.wire.codec import encode
from tests.harness.certificates import certificates
from tests.harness.messages import edge_messages
from tests.harness.raw import reset
from tests.harness.sizes import thorough
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import until

SEED = int(os.environ.get("MIDINET_TEST_SEED", "1"))

# Open at once. More than the server lets in, so that some of them come to a full house.
BATCH = 40
MAX_CLIENTS = 16

TOKEN = "let-me-in"

# What the good clients are known by: noise says this too seldom to matter (7D is for whoever wants it).
MARK = (0x7D, 0x6D, 0x69, 0x64, 0x69, 0x6E, 0x65, 0x74)

Attack = Callable[[bytes], Any]


def tls_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


MESSAGES = [encode(message) for message in edge_messages()]
STREAMS = [
    b"".join(MESSAGES[:200]),
    b"\x90\x3c\x40\x3e\x40\xf8\x40\x40\xb0\x40\x7f" * 5,
    b"\xf0\x01\x02" + bytes(200) + b"\xf7",
    b"\xf0\x01\x02",
    hello("stage-left") + b"\x90\x3c\x40",
    hello("stage-left", "guess") + b"\x91\x3c\x40",
    hello("x", TOKEN) + b"\x92\x3c\x40",
    ping(17) * 10 + b"\xfe\x93\x3c\x40",
    answer(200) + answer(401) + answer(503),
    b"\xf7MIDINET/1 HELLO\r\nName: " + b"x" * 1100 + b"\r\n\r\n",
    tls_hello(),
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n",
    b"",
]


def mutated(dice: random.Random) -> bytes:
    """Bytes to send."""
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(600))
    data = bytearray(dice.choice(STREAMS))
    if dice.random() < 0.3:
        data += b"".join(dice.choices(MESSAGES, k=20))
    for _ in range(dice.randrange(5)):
        at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        match dice.randrange(6):
            case 0:
                data[at:at] = dice.randbytes(dice.randrange(1, 5))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end][:200]
            case 3:
                del data[at:]
            case 4:
                data[at:end] = dice.choice(STREAMS)
            case 5 if data:
                data[at - 1] = dice.randrange(0x80, 0x100)
    return bytes(data[:4096])


class Attacker:
    """One connection that means no good."""

    def __init__(self, dice: random.Random, portno: int) -> None:
        self.dice = dice
        self.address = ("127.0.0.1", portno)
        self.sock = socket.socket()
        self.sock.setblocking(False)

    async def begin(self) -> None:
        if self.dice.random() < 0.05:
            # Gone before anybody had a look at it.
            self.sock.connect_ex(self.address)
            reset(self.sock)
            return
        await asyncio.get_running_loop().sock_connect(self.sock, self.address)
        self.say()

    def say(self) -> None:
        data = mutated(self.dice)
        cut = self.dice.randrange(len(data) + 1)
        try:
            self.sock.send(data[:cut])
            self.sock.send(data[cut:])
            if self.dice.random() < 0.2:
                self.sock.recv(65536)
        except OSError:
            pass  # It was closed by the server, or nothing has come.

    def end(self) -> None:
        """End in one of the ways there are. Harmless when it has ended."""
        try:
            if self.dice.random() < 0.3:
                self.sock.shutdown(self.dice.choice([socket.SHUT_WR, socket.SHUT_RDWR]))
            if self.dice.random() < 0.3:
                self.sock.recv(65536)
        except OSError:
            pass
        if self.sock.fileno() >= 0:
            if self.dice.random() < 0.5:
                reset(self.sock)
            else:
                self.sock.close()


async def attack_through_tls(dice: random.Random, portno: int, context: ssl.SSLContext) -> None:
    try:
        _, writer = await asyncio.open_connection("localhost", portno, ssl=context)
    except OSError:
        return  # There is no room.
    writer.write(mutated(dice) if dice.random() < 0.5 else hello("x", "guess"))
    if dice.random() < 0.5:
        await asyncio.sleep(0)
    if dice.random() < 0.5:
        writer.transport.abort()
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


async def attack(
    portno: int, connections: int, after_batch: Callable[[], Any], *, context: ssl.SSLContext | None = None
) -> None:
    dice = random.Random(SEED)
    for begin in range(0, connections, BATCH):
        attackers: list[Attacker] = []
        try:
            for _ in range(min(BATCH, connections - begin)):
                attackers.append(Attacker(dice, portno))
                if context is not None and dice.random() < 0.2:
                    attackers.pop().sock.close()
                    await attack_through_tls(dice, portno, context)
                    continue
                await attackers[-1].begin()
                if dice.random() < 0.2:
                    dice.choice(attackers).end()
            await after_batch()
            for attacker in attackers:
                if attacker.sock.fileno() >= 0:
                    attacker.say()
                if dice.random() < 0.5:
                    await asyncio.sleep(0)
                attacker.end()
        finally:
            for attacker in attackers:
                attacker.sock.close()


class GoodPair:
    """Two clients that play to each other by number, and count what they hear."""

    def __init__(self, one: SocketPort, other: SocketPort) -> None:
        self.ports = (one, other)
        self.sent = 0
        self.heard: tuple[list[int], list[int]] = ([], [])
        self.synth = VirtualSynth()
        self.tasks = [asyncio.create_task(self.listen(side)) for side in range(2)]

    async def listen(self, side: int) -> None:
        async for message in self.ports[side]:
            if side:
                self.synth.feed(encode(message))
            if message.type == "sysex" and message.data[: len(MARK)] == MARK:
                high, low = message.data[len(MARK) :]
                self.heard[side].append((high << 7) + low)

    async def play(self) -> None:
        for port in self.ports:
            await port.send(Message("sysex", data=(*MARK, self.sent >> 7, self.sent & 0x7F)))
        self.sent += 1

    async def check(self) -> None:
        """Wait until everything has arrived, and fail when it was not in order."""
        await until(lambda: all(len(heard) >= self.sent for heard in self.heard))
        assert self.heard == (list(range(self.sent)),) * 2


def living(kind: type) -> int:
    gc.collect()
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def threads() -> int:
    # The loop keeps as many for looking up names as it ever needed at once.
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def timers() -> int:
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not timer.cancelled() for timer in scheduled)


def standing(server: PortServer) -> dict[str, int]:
    """What there is of everything that could leak."""
    assert server._door is not None
    return {
        "descriptors": descriptors(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threads(),
        "links": living(Link),
        "ports": living(SocketPort),
        "timers": timers(),
        "all": len(server._all),
        "placed": len(server._placed),
        "adopted": len(server.ports),
        "waiting": len(server._waiting),
        "places": server._crowd.clients,
        "addresses": len(server._crowd._by_address),
        "visitors": server._door.visitors,
        "too many": server._door._busy,
        "door tasks": sum(not task.done() for task in server._door._tasks),
        "members": len(server._hub._members),
        "apart": len(server._hub._diverged),
    }


async def settle(server: PortServer) -> None:
    """Wait until nobody but the two good clients is there."""
    door = server._door
    assert door is not None
    await until(
        lambda: (
            (len(server._all), server._crowd.clients, door.visitors, door._busy, handshakes())
            == (2, 2, 0, 0, 0)
        )
    )
    # Two here and two there. A transport that has ended may still have its last callback before it.
    await until(lambda: living(Link) == 4)


def handshakes() -> int:
    return sum(task.get_name().startswith("midinet handshake") for task in asyncio.all_tasks())


def check_quiet(records: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]) -> None:
    loud = [record.getMessage() for record in records if record.levelno >= logging.ERROR or record.exc_info]
    assert loud == []
    assert capfd.readouterr().err == ""


async def attacked(server: PortServer, client_options: dict[str, Any], connections: int) -> None:
    """Attack a server, and fail when the good clients are disturbed or something is left."""
    where = ("localhost", server.addresses[0][1])
    context = client_options.get("ssl")
    async with connect(*where, **client_options) as one, connect(*where, **client_options) as other:
        pair = GoodPair(one, other)
        await attack(where[1], BATCH, pair.play, context=context)
        await pair.check()
        await settle(server)
        before = standing(server)
        closed = server.stats.closed.total()
        await attack(where[1], connections, pair.play, context=context)
        await pair.check()
        await settle(server)
        after = standing(server)
        # A client that has spoken is watched by a timer or two.
        spoken = after.pop("timers") - before.pop("timers")
        assert after == before
        assert spoken <= 8
        assert server.stats.closed.total() - closed == connections
        # What a peer held when it was cut is let go of. For an instrument with a voice for each note-on there
        # are as many note-offs as a performance keeps count of, and noise has more note-ons than that.
        await until(lambda: not pair.synth.sounding)
    for task in pair.tasks:
        await task


@thorough("connections", quick=400, full=20_000)
async def test_connections_that_send_anything_disturb_nobody_and_leave_nothing(
    connections: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    async with PortServer(
        "127.0.0.1", 0, relay=True, snapshot="notes", max_clients=MAX_CLIENTS, close_timeout=0.5
    ) as server:
        await attacked(server, {"name": "good"}, connections)
        reasons = {reason.name for reason in server.stats.closed}
    assert {"PEER", "LOST", "TLS", "BUSY"} <= reasons
    check_quiet(caplog.records, capfd)


@thorough("connections", quick=80, full=2_000)
async def test_connections_that_get_no_further_than_the_door_disturb_nobody(
    connections: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    files = certificates()
    async with PortServer(
        "localhost",
        0,
        relay=True,
        ssl=tls_server_context(files.server_cert, files.server_key),
        tokens=[TOKEN],
        max_clients=MAX_CLIENTS,
        hello_timeout=1.0,
        close_timeout=0.5,
    ) as server:
        await attacked(server, {"ssl": tls_client_context(files.ca), "token": TOKEN}, connections)
        reasons = {reason.name for reason in server.stats.closed}
        assert server.stats.turned_away
    assert {"PEER", "LOST", "TLS", "UNAUTHORIZED"} <= reasons
    check_quiet(caplog.records, capfd)
