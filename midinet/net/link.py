"""One TCP connection: bytes in to the parser, bytes out from the outbox.

A link ends in two steps. First it gets its one reason: closed here, FIN from the peer, given up, or broken.
From then on nothing is read from it and nothing new is sent to it. `connection_lost` is the second step, and
the only place where it is over.

In order: `close` stops delivering what arrives, lets the writer task empty the outbox, says FIN, gives the
peer a moment to say FIN too, and lets go. The moment matters: a socket that is closed with unread data in
it sends a reset, and a reset makes the peer's system throw away what it has not read yet.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..address import format_address
from ..errors import CloseReason
from ..hub.outbox import Outbox
from ..wire.aside import PING, PONG, Aside, ping, pong
from ..wire.parser import Parser, split_messages
from .keepalive import find_dead_peers
from .waiters import Waiters
from .watch import Watchdog, acknowledged

if TYPE_CHECKING:
    from ..hub.policy import SysexRule
    from .options import LinkOptions

logger = logging.getLogger("midinet.net")

# How long a closing link waits for the peer's own FIN, in seconds. A peer of ours answers within a round
# trip; a peer that never closes its side, as mido's ports do not, is not waited for.
_LINGER_S = 0.1

# A connection that begins with this byte is a TLS client's (RFC 8446 section 5.1, content type handshake);
# MIDI would begin with a status byte.
_TLS_HANDSHAKE = 0x16

# As much as asyncio reads at once.
_RESCUE_BYTES = 262144

# Bytes that one peer may have handled in one turn of the loop: what is read beyond waits for the next, behind
# everybody else. It is some 700 messages, or half a millisecond, that a flood may delay the others. Less
# would cost speed: a turn of the loop has a price of its own.
_SHARE = 2048

# Bytes of nearly every message.
_MESSAGE_BYTES = 3

# Seconds. A peer that sends active sensing does so every 300 ms at least (MIDI 1.0 page 30); with 40 % more,
# as later revisions of the page have it, a slow clock or network is no reason to cut notes. It speaks for one
# connection and one instrument. What comes from a server may have come to it from many, so that active
# sensing that ends says nothing of the others' notes: only servers heed it, that of their clients.
_SENSING_S = 0.42
_ACTIVE_SENSING = b"\xfe"

# Seconds of silence in the middle of a system exclusive message, after which it is given up: the slowest
# sampler's dump pauses for less.
_SYSEX_SILENCE_S = 10.0

# How often in a stall_timeout it is looked whether a peer takes anything.
_LOOKS = 5

# How many pings of a peer may stay without anything heard before it is taken for dead.
_PINGS = 3

# And the pause between them, as a part of dead_peer_timeout: a little less than a third, so that it is kept.
_PING_SHARE = 0.3


class Hold(enum.Enum):
    """Why a link does not read its socket for now."""

    FULL = "its inbox is full"
    RATE = "the peer sends faster than max_rate"
    SHARE = "others have their turn"


class LinkOwner(Protocol):
    """What a link tells its port."""

    def _link_heard(self, data: bytes, messages: int) -> None: ...
    def _link_told(self, aside: Aside) -> None: ...
    def _link_fell_silent(self) -> None: ...
    def _link_ending(self) -> None: ...
    def _link_lost(self) -> None: ...


class _Nobody:
    """Who is told that a link is over, after everybody was."""

    def __call__(self, link: Link) -> LinkOwner:
        return self

    def _link_heard(self, data: bytes, messages: int) -> None: ...
    def _link_told(self, aside: Aside) -> None: ...
    def _link_fell_silent(self) -> None: ...
    def _link_ending(self) -> None: ...
    def _link_lost(self) -> None: ...


class Link(asyncio.Protocol):
    """The protocol of one connection.

    Args:
        loop: the running loop.
        options: the connection's settings.
        owner: makes the port that is told what happens, once there is a connection.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: LinkOptions, owner: Callable[[Link], LinkOwner]
    ) -> None:
        self._loop = loop
        self._options = options
        self._make_owner = owner
        self.parser = Parser(max_sysex=options.max_sysex, asides=True)
        self.peer: tuple[str, int] = ("", 0)
        self.made_at = loop.time()
        self.release_notes = options.release_notes
        # Why it ends; None while it does not.
        self.reason: CloseReason | None = None
        # The system's error, where one broke it.
        self.error: Exception | None = None
        self.lost = False
        # The transport is gone, but what was read from it may not have been taken yet.
        self._gone = False
        # A peer that has sent active sensing, and then nothing, has its notes released.
        self.heeds_sensing = True
        # What the peer may send; None is everything.
        self.sysex: SysexRule | None = None
        self.sysex_refused = 0
        self._warned_of_sysex = False
        # Not let in yet: it is told nothing but the answer to its HELLO.
        self.guarded = False
        # What came before the peer was let in.
        self.messages_refused = 0
        self._lost_waiters = Waiters()
        self._room_waiters = Waiters()
        self._writable = asyncio.Event()
        self._writable.set()
        self._writer_task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        # While something waits: what the peer has taken so far, in bytes, and since when no more.
        self._taken = 0
        self._progress_at = 0.0
        self._progress_timer: asyncio.TimerHandle | None = None
        # Reading: why it does not, what of one read is for later turns, and what may come under max_rate.
        self._holds: set[Hold] = set()
        self._rest = b""
        # What to do when that has been taken, once nothing more will come.
        self._then: Callable[[], object] | None = None
        self._allowance = options.burst
        self._allowed_at = self.made_at
        self._rate_timer: asyncio.TimerHandle | None = None
        self._share = _SHARE
        if options.max_rate is not None:
            self._share = min(_SHARE, max(int(options.burst) * _MESSAGE_BYTES, _MESSAGE_BYTES))
        # What is watched, once there is reason to. All are fed by whatever arrives.
        self._pulse: Watchdog | None = None
        self._pings = 0
        self._taken_when_asked = 0
        self._watchdogs: dict[Callable[[], None], Watchdog] = {}

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer = (address[0], address[1])
        self.outbox = Outbox(
            self.transport.write,
            # Not at once: it happens while the hub goes through its members.
            lambda: self._loop.call_soon(self.give_up, CloseReason.SLOW),
            limits=self._options.outbox,
            running_status=self._options.running_status,
        )
        self.outbox.grew_slow = self._tell_slow
        try:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._options.send_buffer)
            if self._options.dead_peer_timeout is not None:
                find_dead_peers(sock, self._options.dead_peer_timeout)
        except OSError:
            pass  # The peer is gone already, which connection_lost will tell.
        self.owner = self._make_owner(self)
        # The backlog belongs in the outbox, which can be counted and bounded: push back at once. At 0
        # asyncio's TLS would push back for ever, and now it still has its handshake to write.
        self._loop.call_soon(partial(self.transport.set_write_buffer_limits, high=1, low=0))

    def data_received(self, data: bytes) -> None:
        if self.reason is not None:
            return  # Read to be thrown away: see the head of this module.
        if data[0] == _TLS_HANDSHAKE and not self.parser.stats.bytes:
            self.give_up(CloseReason.TLS)
            return
        self._rest += data
        if Hold.SHARE not in self._holds:
            self._read_on()

    def _read_on(self) -> None:
        """Take this peer's share of what was read. The rest has its turn after everybody else's."""
        if self.reason is not None:
            self._rest = b""
            return
        # Who is gone cannot be told to wait.
        if self._holds - ({Hold.SHARE, Hold.FULL} if self._gone else {Hold.SHARE}):
            return  # `release` has it called again.
        data, self._rest = self._rest[: self._share], self._rest[self._share :]
        if self._rest:
            self.hold(Hold.SHARE)
            self._loop.call_soon(self._read_on)
        else:
            self.release(Hold.SHARE)
        if data:
            self._take(data)
        if self._then is not None and not self._rest:
            self._then()

    def _take(self, data: bytes) -> None:
        if self.reason is not None:
            return
        said, messages = self.parser.joined(data)
        if self._watchdogs or self._pulse is not None or self.parser.in_sysex or _ACTIVE_SENSING in data:
            self._watch(data)
        if self._options.max_rate is not None:
            self._spend(self._options.max_rate, messages)
        if asides := self.parser.take_asides():
            frames = split_messages(said)
            told = 0
            for position, aside in asides:
                self._hear(b"".join(frames[told:position]), position - told)
                told = position
                self._answer(aside)
            said, messages = b"".join(frames[told:]), messages - told
        self._hear(said, messages)

    def _hear(self, data: bytes, messages: int) -> None:
        if self.sysex is not None:
            data, refused = self.sysex.pass_bytes(data)
            if refused:
                self._warn_of_sysex("from")
            self.sysex_refused += refused
            messages -= refused
        if messages:
            self.owner._link_heard(data, messages)

    def gate_sysex(self, rule: SysexRule | None) -> None:
        """Let only these system exclusive messages pass, both ways. None is all of them."""
        self.sysex = self.outbox.sysex = rule
        self.outbox.sysex_stopped = partial(self._warn_of_sysex, "to")

    def _warn_of_sysex(self, way: str) -> None:
        if not self._warned_of_sysex:
            self._warned_of_sysex = True
            logger.warning(
                "a system exclusive message %s %s was dropped: sysex=, tokens= or client certificates let "
                "them pass",
                way,
                format_address(*self.peer),
            )

    def eof_received(self) -> bool:
        if self._rest and self.reason is None and not self._is_tls:
            # It has its turns first, and the transport stays until then.
            self._then = self._end_in_order
            return True
        self._take_rest()
        # MIDI ports have no use for half a connection: returning False lets the transport close itself.
        self._end_in_order()
        return False

    def _end_in_order(self) -> None:
        if self._begin_to_end(CloseReason.PEER):
            # It would wait for ever to write what it holds to a peer that does not read.
            self._timers.append(self._loop.call_later(self._options.close_timeout, self.transport.abort))
            if self._then is not None:
                self.transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()
        self.outbox.stall()
        if self._writer_task is None:
            self._writer_task = self._loop.create_task(
                self._write_backlog(), name=f"midinet writer {self.peer}"
            )
            self._progress_at = self._loop.time()
            self._look_for_progress()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self.outbox.open = False
        reason = CloseReason.PEER if self._then is not None else _reason_of(exc)
        if self.reason is None:
            self.error = exc
            self._rest += self._rescued()
        if self.reason is None and self._rest:
            self._then = partial(self._end, reason)
            self._loop.call_soon(self._read_on)
        else:
            self._end(reason)

    def _end(self, reason: CloseReason) -> None:
        """Take the second step, and the first if it was not taken before."""
        if self.lost:
            return
        self._begin_to_end(reason)
        self.lost = True
        self.outbox.close()
        if self._writer_task is not None:
            self._writer_task.cancel()
        for timer in (*self._timers, self._progress_timer, self._rate_timer):
            if timer is not None:
                timer.cancel()
        self.owner._link_lost()
        self._lost_waiters.wake()
        self._let_go()

    def _let_go(self) -> None:
        """Refer to nothing any more: in a circle, memory would stay until Python looks for circles."""
        self.outbox.let_go()
        self.owner = self._make_owner = _Nobody()
        self._then = self._pulse = self._progress_timer = self._rate_timer = None
        self._watchdogs.clear()
        self._timers.clear()
        del self.transport

    def _begin_to_end(self, reason: CloseReason) -> bool:
        """Take the first step, unless it was taken before. Returns whether this was it."""
        if self.reason is not None:
            return False
        self.reason = reason
        self.parser.end()
        for watchdog in (*self._watchdogs.values(), *([self._pulse] if self._pulse else [])):
            watchdog.stop()
        # The owner may still hand over what was sent before.
        self.owner._link_ending()
        self.outbox.open = False
        self._room_waiters.wake()
        if self._gone:
            # What was left of it is of no interest any more.
            self._loop.call_soon(self._end, reason)
        return True

    def _take_rest(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)

    @property
    def _is_tls(self) -> bool:
        return self.transport.get_extra_info("ssl_object") is not None

    def _rescued(self) -> bytes:
        """Return what the peer had sent before the link broke.

        When writing fails, asyncio lets go of the socket with whatever is still unread in it: often the
        last notes of a peer that closed while it was being sent something.
        """
        rescued = b""
        if self._is_tls:
            return rescued  # Nobody could read it.
        sock = self.transport.get_extra_info("socket")
        try:
            # The same descriptor and no copy of it: the system may have none left.
            same = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
            try:
                same.setblocking(False)
                while data := same.recv(_RESCUE_BYTES):
                    rescued += data
            finally:
                same.detach()
        except (OSError, ValueError):
            pass  # Nothing more to read, or the event loop has closed the socket already.
        return rescued

    def _tell_slow(self) -> None:
        logger.info("%s is too slow: its backlog gave way", format_address(*self.peer))

    # What is watched.

    def _look_for_progress(self) -> None:
        """Give the peer up when it takes nothing at all for `stall_timeout`."""
        timeout = self._options.stall_timeout
        if self._writer_task is None or self.reason is not None or timeout is None:
            return
        now = self._loop.time()
        taken = self._count_taken()
        if taken != self._taken:
            self._taken = taken
            self._progress_at = now
        elif now - self._progress_at >= timeout:
            self.give_up(CloseReason.SLOW)
            return
        self._progress_timer = self._loop.call_later(timeout / _LOOKS, self._look_for_progress)

    def _count_taken(self) -> int:
        """Bytes that the peer has taken. Where that is not known, those that the system has: when it pushes
        back, the peer took as many, in large steps."""
        taken = acknowledged(self.transport.get_extra_info("socket"))
        if taken is None:
            taken = self.outbox.stats.bytes - self.transport.get_write_buffer_size()
        return taken

    def _watch(self, data: bytes) -> None:
        if self._pulse is not None:
            self._pings = 0
            self._pulse.feed()
        for watchdog in self._watchdogs.values():
            if watchdog.on:
                watchdog.feed()
        if self.parser.in_sysex:
            self._start(self._sysex_fell_silent, _SYSEX_SILENCE_S)
        elif self._sysex_fell_silent in self._watchdogs:
            self._watchdogs[self._sysex_fell_silent].stop()
        if self.heeds_sensing and _ACTIVE_SENSING in data:
            self._start(self._fell_silent, _SENSING_S)

    def _start(self, expired: Callable[[], None], seconds: float) -> None:
        watchdog = self._watchdogs.get(expired)
        if watchdog is None:
            watchdog = Watchdog(self._loop, seconds, partial(self._expire, expired))
            self._watchdogs[expired] = watchdog
        watchdog.feed()

    def _expire(self, expired: Callable[[], None]) -> None:
        if self._holds:
            # It is this side that does not listen.
            self._watchdogs[expired].feed()
        else:
            expired()

    def _sysex_fell_silent(self) -> None:
        self.parser.abort_sysex()

    def _fell_silent(self) -> None:
        self.owner._link_fell_silent()

    def _answer(self, aside: Aside) -> None:
        if self.reason is not None:
            return
        if aside.word not in (PING, PONG):
            # It may be let in by that, or refused.
            self.owner._link_told(aside)
        if self.reason is not None or self.guarded:
            return
        if self._pulse is None and self._options.dead_peer_timeout is not None:
            # The peer speaks: from now on it can be asked whether it is there.
            self._pulse = Watchdog(self._loop, self._options.dead_peer_timeout * _PING_SHARE, self._ask)
            self._pulse.feed()
        if aside.word == PING:
            self.say(pong(aside.id))

    def _ask(self) -> None:
        assert self._pulse is not None
        taken_before, self._taken_when_asked = self._taken_when_asked, self._count_taken()
        if self._holds or (self.outbox.stalled and self._taken_when_asked != taken_before):
            # It is this side that does not listen, or the peer is so slow that no ping gets through, but it
            # takes what it is sent.
            self._pings = 0
        elif self._pings == _PINGS - 1:
            self.give_up(CloseReason.TIMEOUT)
            return
        self._pings += 1
        self._pulse.feed()
        self.say(ping())

    def _spend(self, rate: float, messages: int) -> None:
        now = self._loop.time()
        saved = self._allowance + (now - self._allowed_at) * rate
        self._allowance = min(saved, self._options.burst) - messages
        self._allowed_at = now
        if self._allowance < 0 and Hold.RATE not in self._holds:
            self.hold(Hold.RATE)
            self._rate_timer = self._loop.call_later(
                -self._allowance / rate, partial(self.release, Hold.RATE)
            )

    # What the port calls.

    def hold(self, why: Hold) -> None:
        """Read no more, until `release` is called for the same reason."""
        if self.reason is None and self._then is None and not self._holds:
            self.transport.pause_reading()
        self._holds.add(why)

    def release(self, why: Hold) -> None:
        """Read on, unless there is another reason not to."""
        if why in self._holds:
            self._holds.discard(why)
            if self.reason is None and self._then is None and not self._holds:
                self.transport.resume_reading()
                for watchdog in self._watchdogs.values():
                    if watchdog.on:
                        # What the peer said meanwhile is still to be read.
                        watchdog.feed()
            elif self._rest and self._holds <= {Hold.SHARE}:
                self._loop.call_soon(self._read_on)

    def say(self, aside: bytes) -> None:
        """Send an aside, if the peer keeps up; otherwise it would come too late to be of use."""
        if self.reason is None:
            self.outbox.say(aside)

    def close(self) -> None:
        """Begin to close: send what is left, for `close_timeout` at most. Does not wait."""
        if not self._begin_to_end(CloseReason.LOCAL):
            return
        if self._gone:
            return
        # What still arrives is thrown away, but it has to be read: see the head of this module.
        self.transport.resume_reading()
        self._timers.append(self._loop.call_later(self._options.close_timeout, self.transport.abort))
        if self._writer_task is None:
            self._finish()

    def abort(self) -> None:
        """End now, dropping what is left. Does not wait."""
        self._begin_to_end(CloseReason.LOCAL)
        if not self.lost:
            self.transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended. Cancelling is safe."""
        while not self.lost:
            await self._lost_waiters.wait()

    def room(self) -> Coroutine[Any, Any, None] | None:
        """Return None when the peer keeps up, or something to await until it does or is gone.

        Cancelling that is safe.
        """
        return self._wait_for_room() if self.outbox.stalled and self.reason is None else None

    async def _wait_for_room(self) -> None:
        while self.outbox.stalled and self.reason is None:
            await self._room_waiters.wait()

    # The writer task: it lives while a backlog does, and connection_lost ends it otherwise.

    async def _write_backlog(self) -> None:
        while True:
            await self._writable.wait()
            if not self.outbox.drain(self._loop.time()) and self._writable.is_set():
                break
        self.outbox.flow()
        self._writer_task = None
        self._room_waiters.wake()
        if self.reason is CloseReason.LOCAL:
            self._finish()

    def _finish(self) -> None:
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except OSError:
            pass  # The link broke just now, which connection_lost will tell.
        self._timers.append(self._loop.call_later(_LINGER_S, self.transport.close))

    def give_up(self, reason: CloseReason) -> None:
        """End now, for a reason of its own, dropping what is left. Does not wait."""
        if self._begin_to_end(reason):
            logger.warning("%s is let go: %s", format_address(*self.peer), reason.value)
            self.transport.abort()

    def refuse(self, reason: CloseReason, answer: bytes = b"") -> None:
        """End, with an answer as the last thing that the peer gets. Does not wait."""
        if answer:
            self.say(answer)
        if self._begin_to_end(reason):
            # What it still sends has to be read: see the head of this module.
            self.transport.resume_reading()
            self._finish()


def _reason_of(error: Exception | None) -> CloseReason:
    if isinstance(error, BrokenPipeError):
        return CloseReason.PEER
    # What the system says when keepalive or TCP_USER_TIMEOUT found nobody there.
    unreachable = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
    if isinstance(error, OSError) and error.errno in unreachable:
        return CloseReason.TIMEOUT
    return CloseReason.LOST
