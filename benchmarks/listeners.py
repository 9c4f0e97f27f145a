"""The load of the sysex benchmark: listeners who are sent long system exclusive messages, with notes between.

Notes are a few bytes among millions, so nothing is parsed: what a listener reads is searched for the one
status byte that notes have here, and for the F7 that ends a sysex. Where a note stands, whole sysexes and
notes are before it: otherwise something was cut or came inside something else, and is wrong.

Reading so much is work too. So of many listeners only some attend to what they hear, and of the others just
the bytes are counted, which tells what they miss; where the system can do that (Linux: MSG_TRUNC, tcp(7)), it
does not even copy them.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from array import array
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import cast

from .crowd import PATIENCE_S, Connections, Crowd, connect, send_some

# As much as midinet passes on by default, with F0 and F7. 7D is the manufacturer ID of what is not for sale.
SYSEX_BYTES = 65536
SYSEX = b"\xf0\x7d" + bytes(number % 128 for number in range(SYSEX_BYTES - 3)) + b"\xf7"

_NOTE_BYTES = 3
_STATUS = b"\x9f"
_END = b"\xf7"

# A key is struck and released, then the next: so many notes can be told apart.
_NOTES = 256

_READ_BYTES = 262144

_DISCARD = socket.MSG_TRUNC if sys.platform == "linux" else 0

# Seconds without anything to read, until what is missing of a stream is given up.
_MAX_SILENCE_S = 1.0


def note(number: int) -> bytes:
    """Return the note of this number: the even ones strike a key, the odd ones release it."""
    key, is_off = divmod(number % _NOTES, 2)
    return _STATUS + bytes((key, 0 if is_off else 64))


class Hearing:
    """What one listener has heard.

    Args:
        attends: whether it knows more than a number of bytes.

    Attributes:
        bytes: how many there were.
        notes, sysexes: how many it has attended to.
        wrong: notes that do not stand behind whole messages.
        times: when each note was there, by its number; nan where it was skipped.
        ended_at: when the last sysex was there.
    """

    def __init__(self, *, attends: bool = True) -> None:
        self.attends = attends
        self.bytes = self.notes = self.sysexes = self.wrong = 0
        self.times = array("d")
        self.ended_at = 0.0
        self._rest = b""

    def hear(self, data: bytes | bytearray, size: int, now: float) -> None:
        """Attend to so many bytes of what was read."""
        sysexes = data.count(_END, 0, size)
        if sysexes:
            self.sysexes += sysexes
            self.ended_at = now
        begun = self.bytes - len(self._rest)
        self.bytes += size
        if not self._rest and data.find(_STATUS, 0, size) < 0:
            return
        # Rare enough to be looked at with care.
        text = self._rest + bytes(data[:size])
        self._rest = b""
        at = text.find(_STATUS)
        while at >= 0:
            if at + _NOTE_BYTES > len(text):
                self._rest = text[at:]
                return
            self.wrong += (begun + at - self.notes * _NOTE_BYTES) % SYSEX_BYTES != 0
            self._hear_note(text[at + 1], text[at + 2], now)
            at = text.find(_STATUS, at + _NOTE_BYTES)

    def _hear_note(self, key: int, velocity: int, now: float) -> None:
        skipped = (key * 2 + (velocity == 0) - len(self.times)) % _NOTES
        self.times.extend([nan] * skipped)
        self.times.append(now)
        self.notes += 1


@dataclass
class Stream:
    """What came of notes beside a stream of sysexes."""

    latencies: array[float]
    """Seconds from a note's write to a listener's read, for every note and listener that attends."""
    late: array[float]
    """Seconds that each note was played after it was due."""
    lost: int
    """Notes that did not reach a listener."""
    wrong: int
    """Notes that did not stand behind whole messages, and listeners who were sent too much."""
    sysexes: int
    """Those that were sent."""
    missed: int
    """Those of them that did not reach a listener."""
    seconds: float
    """From the first write to the last read."""
    busy: float
    """The part of the time in which it sent, in which the load had something to do."""


class Listeners(Connections):
    """Listeners, and two who send: a librarian its sysexes, a player its notes.

    Args:
        portno: where the server listens.
        count: how many listeners.
        attentive: how many of them attend to what they hear.

    Attributes:
        hearings: what each listener has heard.
        librarian, player: their sockets.
    """

    def __init__(self, portno: int, count: int, *, attentive: int) -> None:
        self._portno = portno
        self._buffer = bytearray(_READ_BYTES)
        self._played_at = array("d")
        self._late = array("d")
        self._sysexes = 0
        # When the next note is due in a stream.
        self._due = inf
        self._step = 0.0
        self._heard_at = 0.0
        # The attentive are spread among the others, since servers go through them one by one.
        every = max(1, count // attentive)
        self.hearings = [Hearing(attends=number % every == 0) for number in range(count)]

    def _open(self, resources: ExitStack) -> None:
        crowd = resources.enter_context(Crowd(self._portno, len(self.hearings)))
        self.player = resources.enter_context(connect(self._portno))
        self.librarian = resources.enter_context(connect(self._portno))
        crowd.settle(self.player)
        crowd.tell(self.librarian, b"")
        self._selector = resources.enter_context(selectors.DefaultSelector())
        for sock, hearing in zip(crowd.socks, self.hearings, strict=True):
            self._selector.register(sock, selectors.EVENT_READ, hearing)
        for sock in (self.librarian, self.player):
            # These two hear each other.
            self._selector.register(sock, selectors.EVENT_READ, Hearing(attends=False))

    def _read(self) -> bool:
        """Read what there is, and play what is due meanwhile. Returns whether there was anything."""
        found = self._selector.select(0)
        for key, _ in found:
            hearing: Hearing = key.data
            sock = cast(socket.socket, key.fileobj)
            size = sock.recv_into(self._buffer, _READ_BYTES, 0 if hearing.attends else _DISCARD)
            now = time.perf_counter()
            if not size:
                raise ConnectionError("the server closed a connection")
            self._heard_at = now
            if hearing.attends:
                hearing.hear(self._buffer, size, now)
            else:
                hearing.bytes += size
            if now >= self._due:
                self._play(now)
        return bool(found)

    def _play(self, now: float) -> None:
        frame = note(len(self._played_at))
        self._played_at.append(now)
        self._late.append(now - self._due)
        self._due += self._step
        if send_some(self.player, frame) != len(frame):
            raise TimeoutError("the server does not take notes")

    def _wait(self, silence_s: float) -> bool:
        """Read until all have heard everything. Returns False when nothing comes for so many seconds."""
        expected = len(self._played_at) * _NOTE_BYTES + self._sysexes * SYSEX_BYTES
        begun = time.perf_counter()
        while any(one.bytes < expected for one in self.hearings):
            if not self._read() and time.perf_counter() - max(begun, self._heard_at) > silence_s:
                return False
        return True

    def play_behind(self, sender: socket.socket | None) -> tuple[float, float]:
        """Play a note, right behind a sysex that the librarian or the player sends. None is without one.

        Returns:
            Seconds from the note's write until the last listener had it, and from the sysex' first write
            until the last had that (0 without one).

        Raises:
            TimeoutError: they do not all hear it.
        """
        data = SYSEX if sender is not None else b""
        start = time.perf_counter()
        while data and sender is not None:
            data = data[send_some(sender, data) :]
            if data:
                self._read()
        self._sysexes += sender is not None
        behind = self._due = time.perf_counter()
        self._play(behind)
        self._due = inf
        if not self._wait(PATIENCE_S):
            raise TimeoutError("not all hear a sysex and a note")
        attentive = [one for one in self.hearings if one.attends]
        sysex_s = max(one.ended_at for one in attentive) - start if sender is not None else 0.0
        return max(one.times[-1] for one in attentive) - behind, sysex_s

    def stream(self, *, seconds: float, rate: float, window: int) -> Stream:
        """Send sysexes as fast as the server passes them on, and play notes meanwhile.

        Args:
            seconds: how long.
            rate: notes a second.
            window: how many sysexes to be ahead of the listener who has heard most.
        """
        first, before_sysexes = len(self._played_at), self._sysexes
        # All have heard as much when it begins.
        before_bytes = self.hearings[0].bytes
        before_wrong = sum(one.wrong for one in self.hearings)
        at = 0
        idle = 0.0
        was_idle = False
        start = before = self._due = time.perf_counter()
        self._step = 1 / rate
        # A sysex that is begun is ended.
        while (now := time.perf_counter()) < start + seconds or at:
            if was_idle:
                idle += now - before
            before = now
            ahead = (self._sysexes - before_sysexes) * SYSEX_BYTES + at
            ahead -= max([one.bytes for one in self.hearings]) - before_bytes
            size = send_some(self.librarian, SYSEX[at:]) if ahead < window * SYSEX_BYTES else 0
            ended, at = divmod(at + size, SYSEX_BYTES)
            self._sysexes += ended
            was_idle = not size and now < self._due
            if now >= self._due:
                self._play(now)
            was_idle = not self._read() and was_idle
        taken_s = now - start
        self._due = inf
        played, sysexes = len(self._played_at) - first, self._sysexes - before_sysexes
        self._wait(_MAX_SILENCE_S)
        heard_s = self._heard_at - start
        latencies = array("d")
        lost = missed = surplus = 0
        for one in self.hearings:
            missing = played * _NOTE_BYTES + sysexes * SYSEX_BYTES - (one.bytes - before_bytes)
            missed += max(missing, 0) // SYSEX_BYTES
            lost += max(missing, 0) % SYSEX_BYTES // _NOTE_BYTES
            surplus += missing < 0
            if one.attends:
                pairs = zip(one.times[first:], self._played_at[first:], strict=False)
                latencies.extend([heard - sent for heard, sent in pairs if not isnan(heard)])
        return Stream(
            latencies=latencies,
            late=self._late[first:],
            lost=lost,
            wrong=sum(one.wrong for one in self.hearings) - before_wrong + surplus,
            sysexes=sysexes,
            missed=missed,
            seconds=heard_s,
            busy=1 - idle / taken_s,
        )
