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
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..errors import CloseReason
from ..hub.outbox import Outbox
from ..wire.parser import Parser

if TYPE_CHECKING:
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


class LinkOwner(Protocol):
    """What a link tells its port."""

    def _link_heard(self, frames: list[bytes]) -> None: ...
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
        self.parser = Parser(max_sysex=options.max_sysex)
        self.peer: tuple[str, int] = ("", 0)
        # Why it ends; None while it does not.
        self.reason: CloseReason | None = None
        # The system's error, where one broke it.
        self.error: Exception | None = None
        self.lost = False
        # Dictionaries, which keep the order.
        self._lost_waiters: dict[asyncio.Future[None], None] = {}
        self._room_waiters: dict[asyncio.Future[None], None] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._writer_task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # The backlog belongs in the outbox, which can be counted and bounded: push back at once.
        self._transport.set_write_buffer_limits(high=0)
        address = transport.get_extra_info("peername") or ("", 0)
        self.peer = (address[0], address[1])
        self.outbox = Outbox(
            self._transport.write,
            partial(self._give_up, CloseReason.SLOW),
            max_bytes=self._options.max_outbox,
            running_status=self._options.running_status,
        )
        try:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._options.send_buffer)
        except OSError:
            pass  # The peer is gone already, which connection_lost will tell.
        self._owner = self._make_owner(self)

    def data_received(self, data: bytes) -> None:
        if data[0] == _TLS_HANDSHAKE and not self.parser.stats.bytes:
            self._give_up(CloseReason.TLS)
            return
        if self.reason is None and (frames := self.parser.frames(data)):
            self._owner._link_heard(frames)

    def eof_received(self) -> bool:
        # MIDI ports have no use for half a connection: returning False lets the transport close itself. It
        # would wait for ever to write what it holds to a peer that does not read.
        if self._begin_to_end(CloseReason.PEER):
            self._timers.append(self._loop.call_later(self._options.close_timeout, self._transport.abort))
        return False

    def pause_writing(self) -> None:
        self._writable.clear()
        self.outbox.stalled = True
        if self._writer_task is None:
            self._writer_task = self._loop.create_task(
                self._write_backlog(), name=f"midinet writer {self.peer}"
            )

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.reason is None:
            self.error = exc
            self._rescue()
            # Writing to a peer that had closed in order before, unread until now, gives a broken pipe.
            self._begin_to_end(CloseReason.PEER if isinstance(exc, BrokenPipeError) else CloseReason.LOST)
        self.lost = True
        self.outbox.close()
        if self._writer_task is not None:
            self._writer_task.cancel()
        for timer in self._timers:
            timer.cancel()
        self._owner._link_lost()
        _wake(self._lost_waiters)

    def _begin_to_end(self, reason: CloseReason) -> bool:
        """Take the first step, unless it was taken before. Returns whether this was it."""
        if self.reason is not None:
            return False
        self.reason = reason
        self.parser.end()
        # The owner may still hand over what was sent before.
        self._owner._link_ending()
        self.outbox.open = False
        _wake(self._room_waiters)
        return True

    def _rescue(self) -> None:
        """Read what the peer had sent before the link broke.

        When writing fails, asyncio lets go of the socket with whatever is still unread in it: often the
        last notes of a peer that closed while it was being sent something.
        """
        sock = self._transport.get_extra_info("socket")
        try:
            with socket.fromfd(sock.fileno(), sock.family, sock.type) as copy:
                copy.setblocking(False)
                while data := copy.recv(_RESCUE_BYTES):
                    self.data_received(data)
        except (OSError, ValueError):
            pass  # Nothing more to read, or the event loop has closed the socket already.

    # What the port calls.

    def pause_reading(self) -> None:
        if self.reason is None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reason is None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Begin to close: send what is left, for `close_timeout` at most. Does not wait."""
        if not self._begin_to_end(CloseReason.LOCAL):
            return
        # What still arrives is thrown away, but it has to be read: see the head of this module.
        self._transport.resume_reading()
        self._timers.append(self._loop.call_later(self._options.close_timeout, self._transport.abort))
        if self._writer_task is None:
            self._finish()

    def abort(self) -> None:
        """End now, dropping what is left. Does not wait."""
        self._begin_to_end(CloseReason.LOCAL)
        self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the connection has ended. Cancelling is safe."""
        await self._wait(self._lost_waiters)

    def room(self) -> Coroutine[Any, Any, None] | None:
        """Return None when the peer keeps up, or something to await until it does or is gone.

        Cancelling that is safe.
        """
        return self._wait_for_room() if self.outbox.stalled and self.reason is None else None

    async def _wait_for_room(self) -> None:
        while self.outbox.stalled and self.reason is None:
            await self._wait(self._room_waiters)

    async def _wait(self, waiters: dict[asyncio.Future[None], None]) -> None:
        if self.lost:
            return
        waiter = self._loop.create_future()
        waiters[waiter] = None
        try:
            await waiter
        finally:
            del waiters[waiter]

    # The writer task: it lives while a backlog does, and connection_lost ends it otherwise.

    async def _write_backlog(self) -> None:
        while True:
            await self._writable.wait()
            if not self.outbox.drain(self._loop.time()) and self._writable.is_set():
                break
        self.outbox.stalled = False
        self._writer_task = None
        _wake(self._room_waiters)
        if self.reason is CloseReason.LOCAL:
            self._finish()

    def _finish(self) -> None:
        try:
            if self._transport.can_write_eof():
                self._transport.write_eof()
        except OSError:
            pass  # The link broke just now, which connection_lost will tell.
        self._timers.append(self._loop.call_later(_LINGER_S, self._transport.close))

    def _give_up(self, reason: CloseReason) -> None:
        waiting = self.outbox.backlog_bytes
        if self._begin_to_end(reason):
            logger.warning("%s is let go, %d bytes waited for it: %s", self.peer, waiting, reason.value)
            self._transport.abort()


def _wake(waiters: dict[asyncio.Future[None], None]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
