"""SocketPort: one connection, as a program sees it.

A port has a link (the TCP connection), an inbox that the link fills and a hub that what is sent goes
through. What differs is whose they are: a client has its own, and so has a port that `accept` returned. A
client that a server adopted shares the server's, which is how its messages come through the server and the
server's reach it.

A port that reconnects has one link after another, and stays the same: what was sent is in its hub's
performance, and each new link is brought to that.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from collections.abc import Callable, Iterator
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from mido import Message

from ..address import format_address
from ..errors import CloseReason, ConnectionLost, PortClosed, UsageError
from ..hub.hub import Hub
from ..wire.aside import PONG, ping
from ..wire.codec import PANIC_FRAMES, RESET_FRAMES, decode, encode
from .affinity import check_loop, runs_here, wrong_loop_error
from .inbox import Inbox
from .stats import PortStats
from .turns import Hold
from .waiters import Waiters

if TYPE_CHECKING:
    from typing import Self

    from ..wire.aside import Aside
    from .link import Link

# A program that reads or sends in a loop gives the event loop a turn after so many messages that needed no
# waiting: 1,024 read or sent take about a millisecond, and fewer would cost a tenth of the speed. Long
# messages count by the byte, so that for each KiB, half of what a link takes in in one turn, the peers get a
# turn to take what was sent.
FAIR_SPREE = 1024

# Seconds. Any answer that takes longer than that says that nobody could play together over it.
DEFAULT_PING_TIMEOUT = 2.0


class PortState(enum.Enum):
    """Where a port is between open and closed."""

    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


class Owner(Protocol):
    """Whoever made a port and keeps it: a server, or what connects a client."""

    def _port_told(self, port: SocketPort, aside: Aside) -> None: ...
    def _port_lost(self, port: SocketPort) -> None: ...

    def _port_keeps(self, port: SocketPort) -> bool:
        """Whether the port stays open now that its link ends, because there will be another."""
        ...

    def _port_is_sought(self, port: SocketPort) -> bool:
        """Whether an attempt to give the port another link is under way."""
        ...


class SocketPort:
    """One connection to a peer. `connect` and `PortServer.accept` return it.

    `async for message in port` reads until the connection closes. It ends when either side closes in order
    and raises ConnectionLost when the link broke; what had arrived before comes first. What the peer held
    when it ended is let go: the last messages are the note-offs.

    While a program reads, nothing is dropped: a peer that sends faster has to wait. Once `max_inbox` messages
    wait and it has read none for 5 s, what arrives gives way. When it reads again, it gets what waited,
    without note-ons that come too late, and then what brings it to the present state.

    A port belongs to the event loop that made it: from any other loop or thread its methods raise UsageError.
    `asyncio.run_coroutine_threadsafe(port.send(message), loop)` hands a call to that loop. Properties may be
    read anywhere.

    Attributes:
        name: the address it is connected to, as host:port, or the name that a client gave itself.
        peer: (address, port number) of the other end.
    """

    def __init__(self, link: Link, inbox: Inbox, owner: Owner) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        # What its hub is, nobody has decided yet.
        self._hub: Hub | None = None
        self._is_adopted = False
        # None once it is adopted: then what it says comes through the server.
        self._own_inbox: Inbox | None = inbox
        # None while a server relays and nobody reads it.
        self._inbox: Inbox | None = inbox
        self._listens = True
        # What hears the peer beside who reads it: a server's hub, or what a bridge made; None is nothing.
        self._relays_to: Hub | None = None
        self._owner = owner
        self._spree = 0
        # Why it is closed; None while it is not.
        self._reason: CloseReason | None = None
        self._state = PortState.CONNECTED
        self._state_waiters = Waiters()
        self._on_state: Callable[[SocketPort, PortState], object] | None = None
        # The counts of links that it had before, if it had any.
        self._past: PortStats | None = None
        # Who waits for the answer to a ping, by its id.
        self._pings: dict[str, asyncio.Future[float]] | None = None
        self._last_ping = 0
        self._peer_clients: int | None = None
        # Where the blocking twin keeps its way to this port.
        self._outlet: Any = None
        self.peer = link.peer
        self.name = format_address(*link.peer)

    # What a program calls.

    async def send(self, message: Message) -> None:
        """Send a message to the peer.

        It goes out at the end of this turn of the event loop. While the peer is too slow to take what was
        sent before, this waits. Cancelling is safe: a cancelled call has sent nothing.

        While a port reconnects this does not wait: what is set by the time that it is connected again is then
        sent, and of the notes those that are held and were struck less than 0.2 s before.

        Args:
            message: a mido.Message. Changing it afterwards has no effect.

        Raises:
            PortClosed: the port is closed.
            ConnectionLost: the link broke.
            UsageError: it is called from another thread or event loop.
            TypeError: it is no mido.Message.
        """
        if not runs_here(self._loop):
            raise wrong_loop_error(self, self._loop)
        frame = encode(message)
        self._check_open()
        self._spree += 1 + (len(frame) & ~3)
        if (room := self._link.room()) is not None:
            await room
            self._spree = 0
        while self._spree >= FAIR_SPREE:
            self._spree -= FAIR_SPREE
            await asyncio.sleep(0)
        self._say(frame, 1)

    async def receive(self) -> Message:
        """Wait for the next message and return it.

        Cancelling is safe: no message is lost.

        Raises:
            PortClosed: the port was closed, here or by the peer, and everything has been read.
            ConnectionLost: the link broke, and everything has been read.
            UsageError: the port's messages come through its server, it was connected with `listen=False`, or
                it is called from another thread or event loop.
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
            UsageError: the port's messages come through its server, or it was connected with `listen=False`.
        """
        frame = self._readable().get_nowait()
        return None if frame is None else decode(frame)

    def iter_pending(self) -> Iterator[Message]:
        """Yield the messages that have arrived, without waiting for more."""
        while (message := self.poll()) is not None:
            yield message

    def __aiter__(self) -> Self:
        check_loop(self, self._loop)
        return self

    async def __anext__(self) -> Message:
        # Nearly always there is a message, and then nothing else needs to be asked.
        if self._spree < FAIR_SPREE and self._own_inbox is not None:
            frame = self._own_inbox.get_nowait()
            if frame is not None:
                self._spree += 1
                return decode(frame)
        try:
            return await self.receive()
        except PortClosed:
            raise StopAsyncIteration from None

    def reset(self) -> None:
        """Send All Notes Off and Reset All Controllers on all channels. Does nothing on a closed port."""
        check_loop(self, self._loop)
        if self._reason is None:
            self._say(b"".join(RESET_FRAMES), len(RESET_FRAMES))

    def panic(self) -> None:
        """Send All Sound Off on all channels. Does nothing on a closed port."""
        check_loop(self, self._loop)
        if self._reason is None:
            self._say(b"".join(PANIC_FRAMES), len(PANIC_FRAMES))

    @property
    def closed(self) -> bool:
        """Whether the port is at its end: closed here, or gone with everything read that had arrived."""
        reason = self._reason
        return reason is CloseReason.LOCAL or (reason is not None and not self._own_inbox)

    @property
    def state(self) -> PortState:
        """CONNECTED, CLOSED, or with `reconnect=True` RECONNECTING between the two."""
        return self._state

    async def wait_connected(self) -> None:
        """Wait until the port is connected, which it is unless it reconnects. Cancelling is safe.

        Raises:
            PortClosed, ConnectionLost: it is closed.
        """
        check_loop(self, self._loop)
        while self._state is PortState.RECONNECTING:
            await self._state_waiters.wait()
        self._check_open()

    async def ping(self, timeout: float = DEFAULT_PING_TIMEOUT) -> float:
        """Ask the peer for an answer and return how long the round trip took, in seconds.

        The question is an aside: no instrument hears it. Peers of midinet answer; mido's ports do not. A
        server also says how many clients it has, which `peer_clients` then tells. Cancelling is safe.

        Args:
            timeout: how long to wait for the answer, in seconds.

        Raises:
            TimeoutError: there was none. It is not asked at all while the peer is too slow to take it.
            PortClosed, ConnectionLost: the port is closed, or was before the answer came.
        """
        check_loop(self, self._loop)
        self._check_open()
        loop = self._loop
        if self._pings is None:
            self._pings = {}
        self._last_ping += 1
        number, waiter = str(self._last_ping), loop.create_future()
        self._pings[number] = waiter
        asked_at = loop.time()
        self._link.say(ping(number))
        try:
            async with asyncio.timeout(timeout):
                answered_at: float = await waiter
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"{self.name} did not answer within {timeout} s") from None
        finally:
            del self._pings[number]
        return answered_at - asked_at

    @property
    def peer_clients(self) -> int | None:
        """How many clients the server had when it answered the last `ping`; None is not known."""
        return self._peer_clients

    @property
    def stats(self) -> PortStats:
        """The counts of this port as they stand, over all connections that it had."""
        stats = PortStats.of(self._link)
        if self._past is not None:
            stats.add(self._past)
        if self._own_inbox is not None:
            stats.messages_unread = self._own_inbox.messages_unread
        return stats

    async def close(self) -> None:
        """Let go of what was held, send what is left, for `close_timeout` at most, and close.

        Calling it again is harmless. Cancelling stops the waiting, not the closing.
        """
        check_loop(self, self._loop)
        self._begin_close()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended. Cancelling is safe."""
        check_loop(self, self._loop)
        while not self._is_over or self._owner._port_is_sought(self):
            await self._state_waiters.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "open" if self._state is PortState.CONNECTED else self._state.value
        return f"<{'closed' if self.closed else state} SocketPort {self.name}>"

    # What the link calls.

    def _link_heard(self, data: bytes, messages: int) -> None:
        if self._relays_to is not None:
            self._relays_to.publish(data, messages, origin=self._link.outbox)
        if self._inbox is not None and not self._inbox.put(self, data):
            self._link.hold(Hold.FULL)

    def _link_told(self, aside: Aside) -> None:
        if aside.word == PONG:
            self._hear_pong(aside)
        else:
            self._owner._port_told(self, aside)

    def _link_fell_silent(self) -> None:
        if self._relays_to is not None:
            self._relays_to.release(self._link.outbox)
        if self._inbox is not None:
            self._inbox.release(self)

    def _link_ending(self) -> None:
        link = self._link
        if self._hub is not None:
            # Leaving hands over what was published before.
            self._hub.leave(link.outbox, hears=link.reason is CloseReason.LOCAL)
        if self._relays_to is not None and self._relays_to is not self._hub and link.release_notes:
            self._relays_to.release(link.outbox)
        if self._inbox is not None and link.release_notes:
            self._inbox.release(self)
        if self._owner._port_keeps(self):
            self._change_state(PortState.RECONNECTING)
        else:
            self._end(link.reason or CloseReason.LOST)

    def _link_lost(self) -> None:
        self._owner._port_lost(self)
        self._state_waiters.wake()

    # What the inbox calls.

    def _resume(self) -> None:
        self._link.release(Hold.FULL)

    # What a server, what reconnects, and the blocking twin call.

    def _open_for_itself(self, hub: Hub) -> None:
        """Send by a hub of its own, and be read by itself."""
        self._hub = hub
        if self._own_inbox is not None:
            self._own_inbox.give_way_when_unread(self._loop)
        if self._link.reason is None:
            hub.join(self._link.outbox)

    def _adopt(self, hub: Hub, inbox: Inbox | None, *, relays: bool, snapshot: bool | str) -> None:
        """Share a server's hub and inbox."""
        self._hub = hub
        self._inbox = inbox
        self._is_adopted = True
        self._relays_to = hub if relays else None
        if self._link.reason is None:
            hub.join(
                self._link.outbox,
                snapshot=bool(snapshot),
                struck_since=-inf if snapshot == "notes" else inf,
            )
        own, self._own_inbox = self._own_inbox, None
        if own is not None:
            self._pass_on(own)

    def _relay_to(self, hub: Hub) -> None:
        """Have what the peer says go to a hub that is not the port's own, and no more to its reader."""
        self._relays_to, self._inbox = hub, None
        if self._own_inbox is not None:
            self._pass_on(self._own_inbox)

    def _listen_no_more(self) -> None:
        """Keep nothing of what the peer says."""
        self._listens, self._inbox = False, None

    def _relay_no_more(self) -> None:
        """Be read again, after `_relay_to`."""
        hub, self._relays_to = self._relays_to, None
        self._inbox = self._own_inbox if self._listens else None
        if hub is not None and self._link.release_notes:
            hub.release(self._link.outbox)

    def _fill(self, inbox: Inbox) -> None:
        """Have what the peer says go to another inbox, and be read from that."""
        own, self._own_inbox, self._inbox = self._own_inbox, inbox, inbox
        inbox.give_way_when_unread(self._loop)
        if own is not None:
            self._pass_on(own)
        if self._reason is not None:
            inbox.end(self._gone)

    def _pass_on(self, inbox: Inbox) -> None:
        """Have what came before anybody wanted it heard."""
        early = inbox.take_all()
        self._link.release(Hold.FULL)
        if early:
            self._link_heard(b"".join(early), len(early))

    def _take_link(self, link: Link, struck_since: float) -> None:
        """Go on with another link, and bring its peer to what was sent and is not over."""
        self._past = self.stats
        self._past.reconnects += 1
        self._link = link
        # A server that is found by its name may be elsewhere by now.
        self.peer = link.peer
        assert self._hub is not None
        self._hub.join(link.outbox, snapshot=True, struck_since=struck_since)
        self._change_state(PortState.CONNECTED)

    def _say(self, data: bytes, messages: int) -> None:
        self._check_open()
        assert self._hub is not None
        self._hub.publish(data, messages, only=self._link.outbox if self._is_adopted else None)

    def _hear_pong(self, aside: Aside) -> None:
        self._peer_clients = aside.clients
        waiter = (self._pings or {}).get(aside.id or "")
        if waiter is not None and not waiter.done():
            waiter.set_result(self._loop.time())

    def _begin_close(self) -> None:
        if self._reason is None and self._state is PortState.RECONNECTING:
            self._end(CloseReason.LOCAL)
            self._owner._port_lost(self)
        self._link.close()

    def _end(self, reason: CloseReason) -> None:
        if self._reason is None:
            self._reason = reason
            if self._own_inbox is not None:
                self._own_inbox.end(self._gone)
            for waiter in (self._pings or {}).values():
                if not waiter.done():
                    waiter.set_exception(self._gone())
            self._change_state(PortState.CLOSED)

    @property
    def _is_over(self) -> bool:
        return self._reason is not None and self._link.lost

    def _change_state(self, state: PortState) -> None:
        if state is not self._state:
            self._state = state
            self._state_waiters.wake()
            if self._on_state is not None:
                self._loop.call_soon(self._on_state, self, state)

    def _check_open(self) -> None:
        if self._reason is not None:
            raise self._gone()

    def _readable(self) -> Inbox:
        if not runs_here(self._loop):
            raise wrong_loop_error(self, self._loop)
        return self._check_readable()

    def _check_readable(self) -> Inbox:
        """Return the inbox that the port is read from.

        Raises:
            UsageError: it is not read by itself.
        """
        if self._own_inbox is None:
            raise UsageError(
                "the messages of this client come through its server: read the server, or accept()"
            )
        if not self._listens:
            raise UsageError("the port was connected with listen=False: it only sends")
        return self._own_inbox

    def _gone(self) -> Exception:
        reason, error = self._reason, self._link.error
        if reason is None or reason in (CloseReason.LOCAL, CloseReason.PEER):
            return PortClosed(f"the port to {self.name} is {(reason or CloseReason.LOCAL).value}")
        lost = ConnectionLost(f"the connection to {self.name} is lost: {error or reason.value}", reason)
        lost.__cause__ = error
        return lost


def open_hub(loop: asyncio.AbstractEventLoop, *, release_notes: bool) -> Hub:
    """Return a hub that flushes at the end of each turn of a loop in which something was published."""
    hub = Hub(lambda: loop.call_soon(hub.flush), loop.time, release_notes=release_notes)
    return hub
