"""SocketPort: one connection, as a program sees it.

A port has a link (the TCP connection), an inbox that the link fills and a hub that what is sent goes
through. What differs is whose they are: a client has its own, and so has a port that `accept` returned. A
client that a server adopted shares the server's, which is how its messages come through the server and the
server's reach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mido import Message

from ..address import format_address
from ..errors import CloseReason, ConnectionLost, PortClosed, UsageError
from ..hub.hub import Hub
from ..wire.codec import PANIC_FRAMES, RESET_FRAMES, decode, encode
from .inbox import Inbox
from .stats import PortStats

if TYPE_CHECKING:
    from typing import Self

    from .link import Link

# A program that reads or sends in a loop gives the event loop a turn after so many messages that needed no
# waiting: 256 take well below a millisecond. Long messages count for each 256 bytes of them, so that after
# 64 KiB the peers get a turn to take what was sent.
FAIR_SPREE = 256


class SocketPort:
    """One connection to a peer. `connect` and `PortServer.accept` return it.

    `async for message in port` reads until the connection closes. It ends when either side closes in order
    and raises ConnectionLost when the link broke; what had arrived before comes first.

    Attributes:
        name: the address it is connected to, as host:port.
        peer: (address, port number) of the other end.
    """

    def __init__(self, link: Link, hub: Hub, inbox: Inbox, lost: Callable[[SocketPort], None]) -> None:
        self._link = link
        self._hub = hub
        self._own_inbox = inbox
        # None while a server relays and nobody reads it.
        self._inbox: Inbox | None = inbox
        self._relays = False
        self._lost = lost
        self._spree = 0
        # Where the blocking twin keeps its way to this port.
        self._outlet: Any = None
        self.peer = link.peer
        self.name = format_address(*link.peer)

    # What a program calls.

    async def send(self, message: Message) -> None:
        """Send a message to the peer.

        It goes out at the end of this turn of the event loop. While the peer is too slow to take what was
        sent before, this waits. Cancelling is safe: a cancelled call has sent nothing.

        Args:
            message: a mido.Message. Changing it afterwards has no effect.

        Raises:
            PortClosed: the port is closed.
            ConnectionLost: the link broke.
            TypeError: it is no mido.Message.
        """
        frame = encode(message)
        self._check_open()
        self._spree += 1 + (len(frame) >> 8)
        if (room := self._link.room()) is not None:
            await room
        elif self._spree >= FAIR_SPREE:
            self._spree = 0
            await asyncio.sleep(0)
        self._send_frames((frame,))

    async def receive(self) -> Message:
        """Wait for the next message and return it.

        Cancelling is safe: no message is lost.

        Raises:
            PortClosed: the port was closed, here or by the peer, and everything has been read.
            ConnectionLost: the link broke, and everything has been read.
            UsageError: the port's messages come through its server.
        """
        inbox = self._readable()
        self._spree += 1
        if self._spree >= FAIR_SPREE:
            self._spree = 0
            await asyncio.sleep(0)
        frame = inbox.get_nowait()
        if frame is None:
            frame = await inbox.get()
        return decode(frame)

    def poll(self) -> Message | None:
        """Return the next message that has arrived, or None when there is none.

        Raises:
            UsageError: the port's messages come through its server.
        """
        frame = self._readable().get_nowait()
        return None if frame is None else decode(frame)

    def iter_pending(self) -> Iterator[Message]:
        """Yield the messages that have arrived, without waiting for more."""
        while (message := self.poll()) is not None:
            yield message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except PortClosed:
            raise StopAsyncIteration from None

    def reset(self) -> None:
        """Send All Notes Off and Reset All Controllers on all channels. Does nothing on a closed port."""
        if self._link.reason is None:
            self._send_frames(RESET_FRAMES)

    def panic(self) -> None:
        """Send All Sound Off on all channels. Does nothing on a closed port."""
        if self._link.reason is None:
            self._send_frames(PANIC_FRAMES)

    @property
    def closed(self) -> bool:
        """Whether the port is at its end: closed here, or gone with everything read that had arrived."""
        reason = self._link.reason
        return reason is CloseReason.LOCAL or (reason is not None and not len(self._own_inbox))

    @property
    def stats(self) -> PortStats:
        """The counts of this connection as they stand."""
        return PortStats.of(self._link)

    async def close(self) -> None:
        """Send what is left, for `close_timeout` at most, and close. Calling it again is harmless.

        Cancelling stops the waiting, not the closing.
        """
        self._begin_close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended. Cancelling is safe."""
        await self._link.wait_lost()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{'closed' if self.closed else 'open'} SocketPort {self.name}>"

    # What the link calls.

    def _link_heard(self, frames: list[bytes]) -> None:
        if self._relays:
            self._hub.publish(frames, origin=self._link.outbox)
        if self._inbox is not None and not self._inbox.put(self, frames):
            self._link.pause_reading()

    def _link_ending(self) -> None:
        # Leaving hands over what was published before.
        self._hub.leave(self._link.outbox)
        self._own_inbox.end(self._gone)

    def _link_lost(self) -> None:
        self._lost(self)

    # What the inbox calls.

    def _resume(self) -> None:
        self._link.resume_reading()

    # What a server, and the blocking twin, call.

    def _open_for_itself(self) -> None:
        """Begin to read, with the hub and the inbox that it was made with."""
        self._hub.join(self._link.outbox)
        self._link.resume_reading()

    def _adopt(self, hub: Hub, inbox: Inbox | None, *, relays: bool) -> None:
        """Begin to read, with a server's hub and inbox."""
        self._hub = hub
        self._inbox = inbox
        self._relays = relays
        if self._link.reason is None:
            hub.join(self._link.outbox)
            self._link.resume_reading()
        # Some event loops have read a little before they could be told not to.
        if early := self._own_inbox.take_all():
            self._link_heard(early)

    def _send_frames(self, frames: tuple[bytes, ...] | list[bytes]) -> None:
        self._check_open()
        self._hub.publish(frames, only=self._link.outbox)

    def _begin_close(self) -> None:
        self._link.close()

    def _check_open(self) -> None:
        if self._link.reason is not None:
            raise self._gone()

    def _readable(self) -> Inbox:
        if self._inbox is not self._own_inbox:
            raise UsageError(
                "the messages of this client come through its server: read the server, or accept()"
            )
        return self._inbox

    def _gone(self) -> Exception:
        reason, error = self._link.reason, self._link.error
        if reason is None or reason in (CloseReason.LOCAL, CloseReason.PEER):
            return PortClosed(f"the port to {self.name} is {(reason or CloseReason.LOCAL).value}")
        lost = ConnectionLost(f"the connection to {self.name} is lost: {error or reason.value}", reason)
        lost.__cause__ = error
        return lost


def open_hub(loop: asyncio.AbstractEventLoop) -> Hub:
    """Return a hub that flushes at the end of each turn of a loop in which something was published."""
    hub = Hub(lambda: loop.call_soon(hub.flush), loop.time)
    return hub
