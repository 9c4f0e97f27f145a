"""The load of the jam: players on bare sockets, who all send at a steady rate and all hear each other.

One thread does everything and never sleeps, which is why it has a core to itself. While they play, it only
sends, reads and notes when: `benchmarks.account` looks at what was heard afterwards. So it costs some
microseconds a read, however many messages that brings. How much of its time it had nothing to do, and how
late it sent, say whether it kept up.
"""

from __future__ import annotations

import gc
import selectors
import socket
import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from typing import Any

from .crowd import PATIENCE_S, Connections, connect, send_some
from .protocols import MIDI, Protocol

_READ_BYTES = 65536

# Seconds without any delivery, and in all after the last message was sent, until what is missing is given up.
_MAX_SILENCE_S = 1.0
_MAX_CATCH_UP_S = 5.0

# Seconds to wait for what should not come, when all that should has come.
_SURPLUS_S = 0.02

_PROBE = b"\x80\x00\x00"
_END = b"\x81\x00\x00"

# A player strikes and releases one of 16 keys after the other, with 127 velocities.
_KEYS = 16
_VELOCITIES = 127
_CHANNELS = 16

MAX_PLAYERS = 128
MAX_NOTES = 2 * _KEYS * _VELOCITIES
"""Messages of one player until they begin anew."""


def note(player: int, number: int) -> bytes:
    """Return a player's message of this number: no two of a jam are alike.

    The even ones strike a key and the odd ones release it. A channel has eight players at most, each with
    keys of its own.
    """
    pair, is_off = divmod(number % MAX_NOTES, 2)
    velocity, key = divmod(pair, _KEYS)
    status = (0x80 if is_off else 0x90) | player % _CHANNELS
    return bytes((status, player // _CHANNELS * _KEYS + key, 1 + velocity))


@dataclass
class Heard:
    """What one player was sent: pieces, and when each was read, by `time.perf_counter`."""

    pieces: list[bytes] = field(default_factory=list)
    times: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class Jam:
    """What was played and heard.

    Message i of all was sent at `sent_at[i]`, by player i modulo the number of players.
    """

    protocol: Protocol
    heard: list[Heard]
    sent_at: array[float] = field(default_factory=lambda: array("d"))
    late: array[float] = field(default_factory=lambda: array("d"))
    """Seconds that each message was sent after it was due."""
    seconds: float = 0.0
    """From the first message to the last delivery."""
    idle: float = 0.0
    """Seconds of that in which the load had nothing to do."""


class Players(Connections):
    """Players, connected to a server.

    Args:
        portno: where it listens.
        count: how many, from 2 to `MAX_PLAYERS`.
        protocol: how it is spoken to, for a client that is not to hear itself.
    """

    def __init__(self, portno: int, count: int, protocol: Protocol = MIDI) -> None:
        self._portno = portno
        self._count = count
        self._protocol = protocol

    def _open(self, resources: ExitStack) -> None:
        self._socks = [resources.enter_context(connect(self._portno)) for _ in range(self._count)]
        self._meet()

    def _meet(self) -> None:
        """Wait until everybody hears everybody, and nothing of that is left under way."""
        protocol, socks = self._protocol, self._socks
        for sock in socks:
            sock.sendall(protocol.subscribe)
        if protocol.subscribed:
            self._read_until(socks, protocol.subscribed)
        first, second, *_ = socks
        others = socks[1:]
        heard = [b""] * len(others)
        end = time.perf_counter() + PATIENCE_S
        while not all(heard):
            if time.perf_counter() > end:
                raise TimeoutError("the server does not serve all players")
            first.sendall(protocol.publication(_PROBE))
            time.sleep(0.01)
            heard = [before or _read(sock) for before, sock in zip(heard, others, strict=True)]
        first.sendall(protocol.publication(_END))
        self._read_until(others, protocol.delivery(_END))
        second.sendall(protocol.publication(_END))
        self._read_until([first, *others[1:]], protocol.delivery(_END))

    def _read_until(self, socks: list[socket.socket], ending: bytes) -> None:
        end = time.perf_counter() + PATIENCE_S
        for sock in socks:
            tail = b""
            while not tail.endswith(ending):
                if time.perf_counter() > end:
                    raise TimeoutError("the server does not answer all players")
                tail = (tail + _read(sock))[-len(ending) :]

    def play(self, *, count: int, rate: float) -> Jam:
        """Let all play, each at its own time within the period.

        Args:
            count: messages of each player, `MAX_NOTES` at most.
            rate: messages a second of each player.

        Raises:
            ConnectionError: the server ended a connection.
            TimeoutError: it does not take what is sent.
        """
        jam = Jam(self._protocol, [Heard() for _ in self._socks])
        with selectors.DefaultSelector() as selector:
            for sock, heard in zip(self._socks, jam.heard, strict=True):
                data = sock.recv, heard.pieces.append, heard.times.append
                selector.register(sock, selectors.EVENT_READ, data)
            # Looking for garbage among all that is kept would be a pause of its own.
            gc.disable()
            try:
                self._play(jam, selector.select, _Score(self._socks, jam, count, rate))
            finally:
                gc.enable()
        return jam

    def _play(self, jam: Jam, select: Callable[[float], list[Any]], score: _Score) -> None:
        clock = time.perf_counter
        missing = score.total * (self._count - 1) * len(self._protocol.delivery(_PROBE))
        start = last = before = clock()
        score.begin(start)
        idle = 0.0
        was_idle = False
        while True:
            now = clock()
            if was_idle:
                idle += now - before
            before = now
            was_idle = now < score.due
            if not was_idle:
                score.send_due(now)
            for key, _ in select(0):
                receive, add_piece, add_time = key.data
                piece = receive(_READ_BYTES)
                if not piece:
                    raise ConnectionError("the server closed a connection")
                last = clock()
                add_piece(piece)
                add_time(last)
                missing -= len(piece)
                jam.idle = idle
                was_idle = False
                if last >= score.due:
                    score.send_due(last)
            if score.due == inf:
                # When all has come, there is a moment more for what should not.
                patience = _MAX_SILENCE_S if missing > 0 else _SURPLUS_S
                if now - max(last, score.ended_at) > patience or now - score.ended_at > _MAX_CATCH_UP_S:
                    break
        jam.seconds = last - start


class _Score:
    """What is played when: one after the other, evenly."""

    def __init__(self, socks: list[socket.socket], jam: Jam, count: int, rate: float) -> None:
        self._parts = [
            (sock, [jam.protocol.publication(note(player, number)) for number in range(count)])
            for player, sock in enumerate(socks)
        ]
        self._jam = jam
        self._step = 1 / rate / len(socks)
        self._sent = 0
        self.total = count * len(socks)
        self.ended_at = 0.0
        # When the next is due, infinite after the last.
        self.due = inf

    def begin(self, start: float) -> None:
        self._start = self.due = start

    def send_due(self, now: float) -> None:
        while now >= self.due:
            number, player = divmod(self._sent, len(self._parts))
            sock, data = self._parts[player]
            self._jam.sent_at.append(now)
            self._jam.late.append(now - self.due)
            if send_some(sock, data[number]) != len(data[number]):
                raise TimeoutError("the server does not take what the players send")
            self._sent += 1
            self.due = self._start + self._sent * self._step
            now = time.perf_counter()
            if self._sent == self.total:
                self.due = inf
                self.ended_at = now


def _read(sock: socket.socket) -> bytes:
    """Read what there is, perhaps nothing."""
    try:
        data = sock.recv(_READ_BYTES)
    except BlockingIOError:
        time.sleep(0.001)
        return b""
    if not data:
        raise ConnectionError("the server closed a connection")
    return data
