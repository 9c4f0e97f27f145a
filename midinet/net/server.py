"""PortServer: listen, accept, fan out, shut down.

A new client waits, unread, until it is either adopted or accepted. Adopted, it joins the server's hub and
fills the server's inbox; accepted, it is a port for whoever called `accept`. Nothing it sent is lost
meanwhile: it stays in the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Generator, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mido import Message

from ..address import format_address
from ..errors import CloseReason, PortClosed, UsageError
from ..hub.hub import Hub
from ..hub.outbox import DEFAULT_MAX_OUTBOX
from ..wire.codec import PANIC_FRAMES, RESET_FRAMES, decode, encode
from ..wire.parser import DEFAULT_MAX_SYSEX
from .inbox import Inbox
from .link import Link
from .listen import open_listeners
from .options import DEFAULT_CLOSE_TIMEOUT, DEFAULT_MAX_INBOX, DEFAULT_SEND_BUFFER, LinkOptions
from .port import FAIR_SPREE, SocketPort, open_hub
from .stats import ServerStats

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger("midinet.server")

# Connections. Thousands of clients may come at once, when a hub is started again; the system caps this at
# what it allows.
DEFAULT_BACKLOG = 1024


class PortServer:
    """A server that any number of MIDI socket ports connect to.

        async with PortServer("localhost", 8080) as server:
            async for message in server:
                print(message)

    `await PortServer(...)` starts one without a block to end it.

    A new client waits until the server is used: iterating, receiving, polling or sending adopts every
    client that waits, and from then on its messages come through the server and the server's reach it.
    `accept` takes the one that waited longest for yourself instead. A client that comes while `accept` is
    being awaited goes there.

    Args:
        host: a name or an address; '' is every interface, IPv4 and IPv6.
        portno: the port number; 0 lets the system choose one, which `addresses` then tells.
        relay: be a hub: clients are adopted at once, and what one sends all the others get. Messages are
            then also kept for reading the server, from the first time it is read; who begins to read a
            relaying server has to go on, since a full inbox stops the relay.
        yield_ports: reading the server gives (port, message) instead of the message.
        backlog: how many connections may wait in the system to be accepted.
        max_sysex: the longest system exclusive message to pass on, in bytes with its F0 and F7.
        max_inbox: how many messages may wait to be read before the server stops reading from its clients,
            and they from sending. Nothing is dropped.
        max_outbox: how many bytes may wait for one slow client before it is disconnected.
        send_buffer: the size of the system's send buffer for each client, in bytes.
        close_timeout: how long closing waits for clients to take what is left, in seconds.
        running_status: leave out repeated status bytes in what is sent. mido's ports lose notes then.

    Raises, when it is started:
        ListenError: the address is in use, not this machine's, or not permitted.
        ValueError: a limit is out of range.
    """

    def __init__(
        self,
        host: str,
        portno: int,
        *,
        relay: bool = False,
        yield_ports: bool = False,
        backlog: int = DEFAULT_BACKLOG,
        max_sysex: int = DEFAULT_MAX_SYSEX,
        max_inbox: int = DEFAULT_MAX_INBOX,
        max_outbox: int = DEFAULT_MAX_OUTBOX,
        send_buffer: int = DEFAULT_SEND_BUFFER,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        running_status: bool = False,
    ) -> None:
        self.name = format_address(host, portno)
        self.relay = relay
        self.yield_ports = yield_ports
        self._host = host
        self._portno = portno
        self._backlog = backlog
        self._options = LinkOptions(
            max_sysex=max_sysex,
            max_inbox=max_inbox,
            max_outbox=max_outbox,
            send_buffer=send_buffer,
            close_timeout=close_timeout,
            running_status=running_status,
        )
        self._inbox = self._make_inbox(tagged=yield_ports)
        # A relay keeps messages for a reader only once there is one.
        self._is_read = not relay
        self._listeners: list[asyncio.Server] = []
        self._started = False
        self._closing = False
        self._stop_task: asyncio.Task[None] | None = None
        self._closed_waiters: set[asyncio.Future[None]] = set()
        # Every connection, those of them that nobody has taken yet, and those that are the server's.
        self._all: set[SocketPort] = set()
        self._waiting: deque[SocketPort] = deque()
        self._adopted: dict[SocketPort, None] = {}
        self._accept_waiters: deque[asyncio.Future[SocketPort]] = deque()
        self._spree = 0
        self._gone = ServerStats()
        self.addresses: list[tuple[str, int]] = []

    # Starting and stopping.

    async def _start(self) -> Self:
        if self._closing:
            raise self._closed_error()
        if self._started:
            raise UsageError(f"the server {self.name} was started before")
        self._started = True
        self._loop = asyncio.get_running_loop()
        self._hub = self._make_hub()
        try:
            await self._listen()
        except BaseException:
            self._begin_close()
            raise
        if self._closing:
            # It was closed meanwhile.
            self._stop_listening()
            raise self._closed_error()
        return self

    async def _listen(self) -> None:
        sockets = await open_listeners(self._host, self._portno, self._backlog)
        make_link = partial(Link, self._loop, self._options, self._client_came)
        try:
            for sock in sockets:
                # Not serving yet: one that serves has to be known, or cancelling would leave it behind.
                listener = await self._loop.create_server(
                    make_link, sock=sock, backlog=self._backlog, start_serving=False
                )
                self._listeners.append(listener)
            self.addresses = [sock.getsockname()[:2] for sock in sockets]
            self.name = format_address(self._host, self.addresses[0][1])
            for listener in self._listeners:
                await listener.start_serving()
        except BaseException:
            for listener in self._listeners:
                listener.close()
            for sock in sockets:
                sock.close()
            self._listeners.clear()
            raise

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return self if self._started and not self._closing else await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening, send every client what is left for it, and close all connections.

        Accepted ports are closed too. It takes `close_timeout` at most, and calling it again is harmless.
        Cancelling stops the waiting, not the closing.
        """
        self._begin_close()
        await self.wait_closed()

    def _begin_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._inbox.end(self._closed_error)
        for port in list(self._all):
            port._begin_close()
        for waiter in self._accept_waiters:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        self._stop_listening()
        self._tell_closed()

    def _stop_listening(self) -> None:
        listeners, self._listeners = self._listeners, []
        if listeners:
            self._stop_task = self._loop.create_task(self._stop(listeners), name="midinet server stop")

    async def _stop(self, listeners: list[asyncio.Server]) -> None:
        # Connections that asyncio is just accepting need their server for two more turns of the loop.
        for listener in listeners:
            for sock in listener.sockets:
                try:
                    self._loop.remove_reader(sock.fileno())
                except NotImplementedError:
                    pass  # Windows' own loop accepts in another way.
        for _ in range(3):
            await asyncio.sleep(0)
        for listener in listeners:
            listener.close()
        self._stop_task = None
        self._tell_closed()

    @property
    def _is_over(self) -> bool:
        return self._closing and not self._all and self._stop_task is None

    async def wait_closed(self) -> None:
        """Wait until the server has been closed and every connection has ended. Cancelling is safe."""
        self._check_started()
        while not self._is_over:
            waiter = asyncio.get_running_loop().create_future()
            self._closed_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._closed_waiters.discard(waiter)

    def _tell_closed(self) -> None:
        if self._is_over:
            for waiter in self._closed_waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # What a program calls.

    async def send(self, message: Message) -> None:
        """Send a message to every client.

        It goes out at the end of this turn of the event loop; a slow client delays nobody. Cancelling is
        safe: a cancelled call has sent nothing.

        Args:
            message: a mido.Message. Changing it afterwards has no effect.

        Raises:
            PortClosed: the server is closed.
            TypeError: it is no mido.Message.
        """
        frame = encode(message)
        self._spree += 1 + (len(frame) >> 8)
        if self._spree >= FAIR_SPREE:
            self._spree = 0
            await asyncio.sleep(0)
        self._send_frames((frame,))

    async def receive(self) -> Any:
        """Wait for the next message of any client and return it, or (port, message) with `yield_ports`.

        Cancelling is safe: no message is lost.

        Raises:
            PortClosed: the server was closed, and everything has been read.
        """
        self._check_started()
        self._spree += 1
        if self._spree >= FAIR_SPREE:
            self._spree = 0
            await asyncio.sleep(0)
        if self._waiting or not self._is_read:
            self._adopt_for_reading()
        entry = self._inbox.get_nowait()
        if entry is None:
            entry = await self._inbox.get()
        return self._decode(entry)

    def poll(self) -> Any:
        """Return the next message that has arrived, or (port, message) with `yield_ports`, or None."""
        self._check_started()
        self._adopt_for_reading()
        entry = self._inbox.get_nowait()
        return None if entry is None else self._decode(entry)

    def iter_pending(self) -> Iterator[Any]:
        """Yield what has arrived, without waiting for more."""
        while (message := self.poll()) is not None:
            yield message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except PortClosed:
            raise StopAsyncIteration from None

    async def accept(self) -> SocketPort:
        """Wait for a client that is not adopted, and return its port.

        The port is yours: its messages come through it alone, and what the server sends does not go to it.
        Cancelling is safe: no client is lost.

        Raises:
            PortClosed: the server is closed.
        """
        if (port := self._accept_nowait()) is None:
            waiter = self._loop.create_future()
            self._accept_waiters.append(waiter)
            try:
                port = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                    # Handed over and cancelled at once: the client goes on waiting.
                    self._waiting.appendleft(waiter.result())
                    self._place_waiting()
                raise
            finally:
                if waiter in self._accept_waiters:
                    self._accept_waiters.remove(waiter)
            port._open_for_itself()
        return port

    def reset(self) -> None:
        """Send All Notes Off and Reset All Controllers on all channels to every client."""
        self._check_started()
        if not self._closing:
            self._send_frames(RESET_FRAMES)

    def panic(self) -> None:
        """Send All Sound Off on all channels to every client."""
        self._check_started()
        if not self._closing:
            self._send_frames(PANIC_FRAMES)

    @property
    def ports(self) -> list[SocketPort]:
        """The adopted clients that are connected, in the order in which they were adopted."""
        return [port for port in list(self._adopted) if port._link.reason is None]

    @property
    def closed(self) -> bool:
        """Whether the server has been closed."""
        return self._closing

    @property
    def stats(self) -> ServerStats:
        """The counts of the server as they stand."""
        stats = ServerStats(
            clients=len(self._all),
            clients_waiting=len(self._waiting),
            clients_total=self._gone.clients_total + len(self._all),
            closed=self._gone.closed.copy(),
        )
        stats.add(self._gone)
        for port in list(self._all):
            stats.add(port.stats)
        return stats

    def __repr__(self) -> str:
        return f"<{'closed' if self._closing else 'open'} PortServer {self.name}, {len(self._all)} clients>"

    # Clients come and go.

    def _client_came(self, link: Link) -> SocketPort:
        port = SocketPort(link, self._make_hub(), self._make_inbox(), self._client_went)
        self._all.add(port)
        link.pause_reading()
        logger.info("%s connected", port.name)
        # Not at once: the link has to know its port before anything is done with it.
        if self._closing:
            self._loop.call_soon(port._begin_close)
        else:
            self._waiting.append(port)
            self._loop.call_soon(self._place_waiting)
        return port

    def _place_waiting(self) -> None:
        """Give the clients that wait to who accepts, and adopt what is left if it would be heard."""
        while self._waiting and self._accept_waiters:
            waiter = self._accept_waiters.popleft()
            if not waiter.done():
                waiter.set_result(self._waiting.popleft())
        if self.relay or self._inbox.awaited:
            self._adopt_waiting()
        for port in self._waiting:
            # uvloop begins to read after connection_made, whatever was said there.
            port._link.pause_reading()

    def _client_went(self, port: SocketPort) -> None:
        self._all.discard(port)
        self._adopted.pop(port, None)
        if port in self._waiting:
            self._waiting.remove(port)
        self._gone.add(port.stats)
        self._gone.clients_total += 1
        reason = port._link.reason or CloseReason.LOST
        self._gone.closed[reason] += 1
        logger.info("%s disconnected: %s", port.name, reason.value)
        self._tell_closed()

    def _adopt_waiting(self) -> None:
        while self._waiting:
            port = self._waiting.popleft()
            self._adopted[port] = None
            port._adopt(self._hub, self._inbox if self._is_read else None, relays=self.relay)

    def _adopt_for_reading(self) -> None:
        if not self._is_read:
            self._is_read = True
            for port in self._adopted:
                port._inbox = self._inbox
        self._adopt_waiting()

    def _accept_nowait(self) -> SocketPort | None:
        self._check_open()
        if not self._waiting:
            return None
        port = self._waiting.popleft()
        port._open_for_itself()
        return port

    # What is different in the blocking twin.

    def _make_inbox(self, *, tagged: bool = False) -> Inbox:
        return Inbox(self._options.max_inbox, tagged=tagged)

    def _make_hub(self) -> Hub:
        return open_hub(self._loop)

    def _send_frames(self, frames: tuple[bytes, ...] | list[bytes]) -> None:
        self._check_open()
        self._adopt_waiting()
        self._hub.publish(frames)

    def _decode(self, entry: Any) -> Any:
        if self.yield_ports:
            port, frame = entry
            return port, decode(frame)
        return decode(entry)

    def _check_started(self) -> None:
        if not (self._started or self._closing):
            raise UsageError("the server is not started: `async with` or `await` does that")

    def _check_open(self) -> None:
        self._check_started()
        if self._closing:
            raise self._closed_error()

    def _closed_error(self) -> PortClosed:
        return PortClosed(f"the server {self.name} is closed")
