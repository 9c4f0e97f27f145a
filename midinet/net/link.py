"""One TCP connection: bytes in to the parser, bytes out from the outbox.

What arrives is taken in turns (turns.py), a backlog has a writer (writer.py), and what a peer says may be a
reason to watch that it goes on (watch.py). These two are made when there is something for them to do, since
of thousands of clients most only listen.

A link ends in two steps. First it gets its one reason: closed here, FIN from the peer, given up, or broken.
From then on nothing is read from it and nothing new is sent to it. `connection_lost` is the second step, and
the only place where it is over.

In order: `close` stops delivering what arrives, lets the writer task empty the outbox, says FIN, gives the
peer a moment to say FIN too, and lets go. The moment matters: a socket that is closed with unread data in
it sends a reset, and a reset makes the peer's system throw away what it has not read yet.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..address import format_address
from ..errors import CloseReason
from ..hub.outbox import Outbox
from ..wire.aside import PING, Aside, pong
from ..wire.opening import Opening, recognize
from ..wire.parser import Parser, split_messages
from .keepalive import DeadPeerWatch
from .turns import Hold, Turns
from .waiters import Waiters
from .watch import ACTIVE_SENSING, Watch, acknowledged
from .writer import Writer

if TYPE_CHECKING:
    from ..hub.policy import SysexRule
    from .options import LinkOptions

logger = logging.getLogger("midinet.net")

# How long a closing link waits for the peer's own FIN, in seconds. A peer of ours answers within a round
# trip; a peer that never closes its side, as mido's ports do not, is not waited for.
_LINGER_S = 0.1

# Why a connection ends that begins with another protocol.
_REFUSED_OPENINGS = {Opening.TLS: CloseReason.TLS, Opening.HTTP: CloseReason.HTTP}

# Bytes that are read at once, some 20,000 messages. asyncio would make room for 256 KiB each time and give
# most of it back; from 128 KiB on, the GNU C library asks the system for it and returns it, which takes 15 to
# 50 µs. Neither TLS nor uvloop does so, nor have they this attribute of asyncio's transports.
_READ_BYTES = 65536


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


_NOBODY = _Nobody()


class Link(asyncio.Protocol):
    """The protocol of one connection.

    Args:
        loop: the running loop.
        options: the connection's settings.
        owner: makes the port that is told what happens, once there is a connection.
    """

    __slots__ = (
        "_dead_peer_watch",
        "_gone",
        "_loop",
        "_lost_waiters",
        "_make_owner",
        "_opening",
        "_options",
        "_room_waiters",
        "_timers",
        "_turns",
        "_warned_of_sysex",
        "_watch",
        "_writer",
        "count_clients",
        "error",
        "guarded",
        "heeds_sensing",
        "lost",
        "made_at",
        "messages_refused",
        "outbox",
        "owner",
        "parser",
        "peer",
        "reason",
        "release_notes",
        "sysex",
        "sysex_refused",
        "transport",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: LinkOptions, owner: Callable[[Link], LinkOwner]
    ) -> None:
        self._loop = loop
        self._options = options
        self._make_owner = owner
        self.owner: LinkOwner = _NOBODY
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
        # A peer that has sent active sensing, and then nothing, has its notes released. It speaks for one
        # connection and one instrument. What comes from a server may have come to it from many, so that
        # active sensing that ends says nothing of the others' notes: only servers heed it, that of their
        # clients.
        self.heeds_sensing = True
        # What the peer may send; None is everything.
        self.sysex: SysexRule | None = None
        self.sysex_refused = 0
        self._warned_of_sysex = False
        # Not let in yet: it is told nothing but the answer to its HELLO.
        self.guarded = False
        # Of a server's: how many clients it has, which a PONG tells.
        self.count_clients: Callable[[], int] | None = None
        # What came before the peer was let in.
        self.messages_refused = 0
        # The first bytes, held back while they may begin another protocol; None once that is decided.
        self._opening: bytes | None = b""
        self._lost_waiters = Waiters()
        self._room_waiters = Waiters()
        self._turns = Turns(loop, options, self)
        self._writer: Writer | None = None
        self._watch: Watch | None = None
        self._dead_peer_watch: DeadPeerWatch | None = None
        self._timers: tuple[asyncio.TimerHandle, ...] = ()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer = address[:2]
        self.outbox = Outbox(
            writing_to(self.transport),
            self._overflow,
            limits=self._options.outbox,
            running_status=self._options.running_status,
        )
        self.outbox.grew_slow = self._tell_slow
        # None between two ports of one process.
        sock = transport.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._options.send_buffer)
                if self._options.dead_peer_timeout is not None:
                    self._dead_peer_watch = DeadPeerWatch(
                        self._loop, sock, self._options.dead_peer_timeout, self._vanished
                    )
            except OSError:
                pass  # The peer is gone already, which connection_lost will tell.
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES
        make_owner, self._make_owner = self._make_owner, _NOBODY
        self.owner = make_owner(self)
        # The backlog belongs in the outbox, which can be counted and bounded: push back at once. At 0
        # asyncio's TLS would push back for ever, and now it still has its handshake to write.
        self._loop.call_soon(partial(self.transport.set_write_buffer_limits, high=1, low=0))

    def data_received(self, data: bytes) -> None:
        if self.reason is not None:
            return  # Read to be thrown away: see the head of this module.
        if self._opening is not None:
            data = self._screen(data)
            if not data:
                return
        self._turns.feed(data)

    def _screen(self, data: bytes, *, is_last: bool = False) -> bytes:
        """Return what is to be read, if the connection does not begin with another protocol.

        Args:
            is_last: nothing more comes that could decide it.
        """
        assert self._opening is not None
        first = self._opening + data
        opening = recognize(first)
        if opening is Opening.UNDECIDED and not is_last:
            self._opening = first
            return b""
        self._opening = None
        if (reason := _REFUSED_OPENINGS.get(opening)) is None:
            return first
        self.give_up(reason)
        return b""

    def _take(self, data: bytes) -> None:
        said, messages = self.parser.joined(data)
        if self._watch is not None or self.parser.in_sysex or ACTIVE_SENSING in data:
            self._watched().heard(data)
        asides = self.parser.take_asides()
        if self._options.max_rate is not None:
            # Each of these takes an answer, which is no less work than a message.
            self._turns.spend(self._options.max_rate, messages + len(asides))
        if asides:
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
        # What came before in the same read may have ended it, and then its notes are released already.
        if messages and self.reason is None:
            self.owner._link_heard(data, messages)

    def gate_sysex(self, rule: SysexRule | None) -> None:
        """Let only these system exclusive messages pass, both ways. None is all of them."""
        self.sysex = self.outbox.sysex = rule
        if rule is not None:
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
        if self._opening and self.reason is None:
            self._turns.feed(self._screen(b"", is_last=True))
        if self._turns.rest and self.reason is None and not self._is_tls:
            # It has its turns first, and the transport stays until then.
            self._turns.finish(self._end_later)
            return True
        self._turns.take_rest()
        # MIDI ports have no use for half a connection: returning False lets the transport close itself.
        self._end_in_order()
        return False

    def _end_in_order(self) -> None:
        if self._begin_to_end(CloseReason.PEER):
            # It would wait for ever to write what it holds to a peer that does not read.
            self._call_later(self._options.close_timeout, self.transport.abort)

    def _end_later(self) -> None:
        self._end_in_order()
        self.transport.close()

    def pause_writing(self) -> None:
        self.outbox.stall()
        if self._writer is None:
            self._writer = Writer(self._loop, self, self._options.stall_timeout)
        else:
            self._writer.pause()

    def resume_writing(self) -> None:
        if self._writer is not None:
            self._writer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._dead_peer_watch is not None:
            # From here on its descriptor may be another connection's.
            self._dead_peer_watch.stop()
        self.outbox.open = False
        reason = CloseReason.PEER if self._turns.finishing else _reason_of(exc)
        if self.reason is None:
            self.error = exc
            last = self._rescued()
            if self._opening is not None:
                last = self._screen(last, is_last=True)
            if self.reason is None and (last or self._turns.rest):
                self._turns.finish(partial(self._end, reason), last=last, gone=True)
                return
        self._end(reason)

    def _end(self, reason: CloseReason) -> None:
        """Take the second step, and the first if it was not taken before."""
        if self.lost:
            return
        self._begin_to_end(reason)
        self.lost = True
        self.outbox.close()
        if self._writer is not None:
            self._writer.stop()
        for timer in self._timers:
            timer.cancel()
        self.owner._link_lost()
        self._lost_waiters.wake()
        self._let_go()

    def _let_go(self) -> None:
        """Refer to nothing any more: in a circle, memory would stay until Python looks for circles."""
        self.outbox.let_go()
        self.owner = self._make_owner = _NOBODY
        self.count_clients = None
        self._writer = self._watch = self._dead_peer_watch = None
        self._timers = ()
        del self.transport

    def _begin_to_end(self, reason: CloseReason) -> bool:
        """Take the first step, unless it was taken before. Returns whether this was it."""
        if self.reason is not None:
            return False
        self.reason = reason
        self._turns.stop()
        self.parser.end()
        if self._watch is not None:
            self._watch.stop()
        # The owner may still hand over what was sent before.
        self.owner._link_ending()
        self.outbox.open = False
        self._room_waiters.wake()
        if self._gone:
            # What was left of it is of no interest any more.
            self._loop.call_soon(self._end, reason)
        return True

    @property
    def _is_tls(self) -> bool:
        return self.transport.get_extra_info("ssl_object") is not None

    def _rescued(self) -> bytes:
        """Return what the peer had sent before the link broke.

        When writing fails, asyncio lets go of the socket with whatever is still unread in it: often the
        last notes of a peer that closed while it was being sent something.
        """
        rescued = b""
        sock = self.transport.get_extra_info("socket")
        if sock is None or self._is_tls:
            return rescued  # There is nothing to read it from, or nobody could read it.
        try:
            # The same descriptor and no copy of it: the system may have none left.
            same = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.fileno())
            try:
                same.setblocking(False)
                while data := same.recv(_READ_BYTES):
                    rescued += data
            finally:
                same.detach()
        except (OSError, ValueError):
            pass  # Nothing more to read, or the event loop has closed the socket already.
        return rescued

    def _tell_slow(self) -> None:
        logger.info("%s is too slow: its backlog gave way", format_address(*self.peer))

    def _vanished(self) -> None:
        self.give_up(CloseReason.TIMEOUT)

    def _overflow(self) -> None:
        # Not at once: it happens while the hub goes through its members.
        self._loop.call_soon(self.give_up, CloseReason.SLOW)

    # What is watched.

    def count_taken(self) -> int:
        """Bytes that the peer has taken. Where that is not known, those that the system has: when it pushes
        back, the peer took as many, in large steps."""
        sock = self.transport.get_extra_info("socket")
        taken = None if sock is None else acknowledged(sock)
        if taken is None:
            taken = self.outbox.stats.bytes - self.transport.get_write_buffer_size()
        return taken

    def _watched(self) -> Watch:
        if self._watch is None:
            self._watch = Watch(self._loop, self)
        return self._watch

    def _answer(self, aside: Aside) -> None:
        if self.reason is not None:
            return
        if aside.word != PING:
            # It may be let in by that, or refused.
            self.owner._link_told(aside)
        if self.reason is not None or self.guarded:
            return
        if self._options.dead_peer_timeout is not None:
            # The peer speaks: from now on it can be asked whether it is there.
            self._watched().ask(self._options.dead_peer_timeout)
        if aside.word == PING:
            self.say(pong(aside.id, clients=None if self.count_clients is None else self.count_clients()))

    # What the port calls.

    @property
    def held(self) -> bool:
        """Whether its socket is not read for now."""
        return self._turns.held

    def hold(self, why: Hold) -> None:
        """Read no more, until `release` is called for the same reason."""
        self._turns.hold(why)

    def release(self, why: Hold) -> None:
        """Read on, unless there is another reason not to."""
        self._turns.release(why)

    def _reads_again(self) -> None:
        if self._watch is not None:
            self._watch.reads_again()

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
        self._call_later(self._options.close_timeout, self.transport.abort)
        if self._writer is None:
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

    def _written(self) -> None:
        """Nothing waits any more."""
        self.outbox.flow()
        self._writer = None
        self._room_waiters.wake()
        if self.reason is CloseReason.LOCAL:
            self._finish()

    def _finish(self) -> None:
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except OSError:
            pass  # The link broke just now, which connection_lost will tell.
        self._call_later(_LINGER_S, self.transport.close)

    def _call_later(self, seconds: float, action: Callable[[], object]) -> None:
        """Call this in some seconds, unless the connection is over by then."""
        self._timers += (self._loop.call_later(seconds, action),)

    def give_up(self, reason: CloseReason, level: int = logging.WARNING) -> None:
        """End now, for a reason of its own, dropping what is left. Does not wait.

        Args:
            reason: why.
            level: of the line in the log; a caller whose program is told in another way lowers it.
        """
        if self._begin_to_end(reason):
            logger.log(level, "%s is let go: %s", format_address(*self.peer), reason.value)
            if not self._gone:
                self.transport.abort()

    def refuse(self, reason: CloseReason, answer: bytes = b"") -> None:
        """End, with an answer as the last thing that the peer gets. Does not wait."""
        if answer:
            self.say(answer)
        if self._begin_to_end(reason):
            # What it still sends has to be read: see the head of this module.
            self.transport.resume_reading()
            self._finish()


def writing_to(transport: asyncio.Transport) -> Callable[[bytes], None]:
    """Return what writes to a transport, and drops what is written when the transport is going.

    A write that fails ends the transport, and `connection_lost` tells so in the next iteration of the loop.
    For what is written until then asyncio would log one line a write.
    """
    # asyncio's TLS does not tell that the transport below it is going.
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    is_closing = (below or transport).is_closing
    write = transport.write

    def write_unless_closing(data: bytes) -> None:
        if not is_closing():
            write(data)

    return write_unless_closing


def _reason_of(error: Exception | None) -> CloseReason:
    if isinstance(error, BrokenPipeError):
        return CloseReason.PEER
    # What the system says when keepalive or TCP_USER_TIMEOUT found nobody there.
    unreachable = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
    if isinstance(error, OSError) and error.errno in unreachable:
        return CloseReason.TIMEOUT
    return CloseReason.LOST
