"""PortServer, SocketPort and connect with mido's port contract, as thin blocking wrappers of the async ones.

A wrapper's async port lives on the portal's loop. What arrives goes into an inbox that the program's
threads read without asking the loop; what is sent goes through an outlet, so `send` returns before the loop
has taken it, in order, and waits when too much is on its way.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NoReturn, cast

from mido import Message
from mido.ports import BaseIOPort

from ..errors import ConnectionLost, PortClosed
from ..net.client import connect as connect_async
from ..net.port import DEFAULT_PING_TIMEOUT, PortState
from ..net.port import SocketPort as AsyncSocketPort
from ..net.server import DEFAULT_BACKLOG
from ..net.server import PortServer as AsyncPortServer
from ..net.stats import ClosedConnection, PortStats, ServerStats
from ..wire.codec import decode, encode
from ..wire.spec import SYSEX
from .inbox import Outlet, ThreadInbox
from .portal import Portal, get_portal


def look_like_mido(port: BaseIOPort) -> None:
    """Give a port what mido's own code reaches for in ports, IOPort's for one. It stays unused here."""
    port._messages = deque()
    port._lock = threading.RLock()


def _own(portal: Portal, port: AsyncSocketPort) -> None:
    """Give a port that is nobody else's an outlet, which stays with it whatever wrapper it has."""

    def deliver(frames: list[bytes], written: int) -> None:
        outbox = port._link.outbox
        write = outbox._write
        if written:
            # What was written already has to be noted all the same, and the rest comes behind it.
            outbox._write = lambda data: write(data[written:]) if len(data) > written else None
        try:
            port._say(b"".join(frames), len(frames))
            assert port._hub is not None
            port._hub.flush()
        finally:
            outbox._write = write

    def socket(frame: bytes) -> int | None:
        # The loop may be changing all this, but then the permit is good no more, and nothing is written.
        link, outbox = port._link, port._link.outbox
        transport = getattr(link, "transport", None)
        if transport is None or link.reason is not None or not outbox.open:
            return None
        if frame[0] == SYSEX or outbox._running is not None or transport.get_extra_info("ssl_object"):
            return None  # What is written may differ from the message.
        if transport.get_write_buffer_size():
            return None  # As long as the peer is slow, and what waits in the outbox waits for that.
        if (sock := transport.get_extra_info("socket")) is None:
            return None  # Of a pair in this process, which only its loop may touch.
        descriptor: int = sock.fileno()
        return descriptor

    port._outlet = Outlet(portal, deliver, lambda: port._link.room(), socket)


def _server_outlet(portal: Portal, server: AsyncPortServer) -> Outlet:
    """The outlet for what goes to all clients of a server, and to one of them, in one order."""

    def deliver(things: list[tuple[bytes, AsyncSocketPort | None]], written: int) -> None:
        for port, group in groupby(things, itemgetter(1)):
            frames = [frame for frame, _ in group]
            if port is None:
                server._say(b"".join(frames), len(frames))
            elif port._reason is None:
                port._say(b"".join(frames), len(frames))
        server._hub.flush()

    return Outlet(portal, deliver, lambda: None, lambda thing: None)


class _Connect(connect_async):
    """The async connect, with an inbox that any thread can read."""

    def __init__(self, portal: Portal, *args: Any, **options: Any) -> None:
        self._portal = portal
        super().__init__(*args, **options)

    async def open(self) -> AsyncSocketPort:
        return await self._connect(lambda max_messages: ThreadInbox(self._portal, max_messages))

    def _port_lost(self, port: AsyncSocketPort) -> None:
        super()._port_lost(port)
        if port._is_over:
            self._portal.opened.pop(port, None)


class SocketPort(BaseIOPort):  # type: ignore[misc]  # mido carries no types
    """A blocking port connected to a server.

    Args:
        host, portno: where to; see `midinet.connect`.
        autoreset: send `reset()` when the port is closed.
        on_state: called with this port and its new PortState whenever that changes, on midinet's own thread:
            it has to return at once, and may not use blocking ports.
        options: `timeout` and whatever else `midinet.connect` takes.

    Raises:
        ConnectRefused, ConnectError (OSError): no connection could be made.
    """

    def __init__(
        self,
        host: str,
        portno: int | str | None = None,
        *,
        autoreset: bool = False,
        on_state: Callable[[SocketPort, PortState], object] | None = None,
        **options: Any,
    ) -> None:
        portal = get_portal()
        if on_state is not None:
            # A port that nobody has any more is closed, which this must not keep from being seen.
            this = weakref.ref(self)

            def tell(port: AsyncSocketPort, state: PortState) -> None:
                if (wrapper := this()) is not None:
                    on_state(wrapper, state)

            options["on_state"] = tell

        async def open_port() -> AsyncSocketPort:
            port = await _Connect(portal, host, portno, **options).open()
            # Here, so that it is whole before anybody is told of its state.
            self._take(portal, port)
            return port

        self.autoreset = autoreset
        portal.run(open_port())

    @classmethod
    def _around(cls, portal: Portal, port: AsyncSocketPort) -> SocketPort:
        """On the loop: the wrapper of a port that is nobody else's."""
        wrapper = cls.__new__(cls)
        wrapper.autoreset = False
        wrapper._take(portal, port)
        return wrapper

    def _take(self, portal: Portal, port: AsyncSocketPort) -> None:
        _own(portal, port)
        if not port._is_over:
            portal.opened[port] = partial(port._outlet.close, port)
        self._wrap(portal, port)

    @classmethod
    def _accepted(cls, server: PortServer, port: AsyncSocketPort) -> SocketPort:
        """The port of a client that was accepted from a server. It keeps the server, which would close it."""
        _own(server._portal, port)
        wrapper = cls._of(server, port)
        wrapper._owned = True
        return wrapper

    @classmethod
    def _of(cls, server: PortServer, port: AsyncSocketPort) -> SocketPort:
        wrapper = cls.__new__(cls)
        wrapper._wrap(server._portal, port)
        wrapper._server = server
        # A server closes its adopted clients itself, whether or not anyone looks at them.
        wrapper._owned = False
        wrapper.autoreset = False
        return wrapper

    def _wrap(self, portal: Portal, port: AsyncSocketPort) -> None:
        look_like_mido(self)
        self._portal = portal
        self._port = port
        self._inbox = cast(ThreadInbox, port._own_inbox)
        self._server: PortServer | None = None
        self._owned = True
        self.name = port.name

    def send(self, message: Message) -> None:
        """Send a message to the peer.

        Hands it over and returns; waits while the peer is too slow to take what was sent before. Changing
        the message afterwards has no effect.

        Raises:
            ValueError: the port is closed.
            ConnectionLost (OSError): the link broke.
            TypeError: it is no mido.Message.
        """
        frame = encode(message)
        self._portal.check()
        if self._port._reason is not None:
            self._refuse()
        thing: Any = frame
        if (outlet := self._port._outlet) is None:
            # An adopted client: in one order with what its server sends.
            assert self._server is not None
            outlet, thing = self._server._outlet, (frame, self._port)
        if outlet.ended:
            self._refuse()
        outlet.send(thing, len(frame))

    def _refuse(self) -> NoReturn:
        error = self._port._gone()
        if self.closed and isinstance(error, ConnectionLost):
            # Known by now: from here on it is a closed port like any other.
            raise PortClosed(str(error)) from error
        raise error

    def receive(self, block: bool = True) -> Message | None:
        """Return the next message.

        Args:
            block: wait for one; if False, return None when there is none.

        Raises:
            ValueError, OSError: the port is closed and everything has been read (with `block`).
            UsageError: the port's messages come through its server, or it was connected with `listen=False`.
        """
        self._portal.check()
        self._port._check_readable()
        frame = self._inbox.wait() if block else self._inbox.get_nowait()
        return None if frame is None else decode(frame)

    def close(self) -> None:
        """Send what is left, for the port's `close_timeout` at most, and close."""
        if not self._port._is_over:
            self._portal.run(self._close())

    async def _close(self) -> None:
        outlet = self._port._outlet
        if outlet is not None:
            outlet.end()
        if self.autoreset:
            self._port.reset()
        if outlet is not None:
            outlet.close(self._port)
        else:
            self._port._begin_close()
        await self._port.wait_closed()

    def __del__(self) -> None:
        # Without waiting: this may run in any thread, the loop's own as well.
        if getattr(self, "_owned", False) and not self._port._is_over:
            self._portal.call(self._port._outlet.close, self._port)

    @property
    def closed(self) -> bool:
        """Whether the port is at its end: closed here, or gone with everything read that had arrived."""
        return self._port.closed

    @property
    def state(self) -> PortState:
        """CONNECTED, CLOSED, or with `reconnect=True` RECONNECTING between the two."""
        return self._port.state

    def wait_connected(self) -> None:
        """Wait until the port is connected, which it is unless it reconnects.

        Raises:
            ValueError, OSError: it is closed.
        """
        self._portal.run(self._port.wait_connected())

    def ping(self, timeout: float = DEFAULT_PING_TIMEOUT) -> float:
        """Ask the peer for an answer and return how long that took, in seconds: see `midinet.SocketPort`.

        Raises:
            TimeoutError: there was none.
            ValueError, OSError: the port is closed.
        """
        return self._portal.run(self._port.ping(timeout))

    @property
    def peer(self) -> tuple[str, int]:
        """(address, port number) of the other end."""
        return self._port.peer

    @property
    def peer_clients(self) -> int | None:
        """How many clients the server had when it answered the last `ping`; None is not known."""
        return self._port.peer_clients

    @property
    def stats(self) -> PortStats:
        """The counts of this port as they stand, over all connections that it had."""
        return self._port.stats


def connect(host: str, portno: int | str | None = None, **options: Any) -> SocketPort:
    """Connect to a MIDI socket port server and return a SocketPort, which see for arguments and errors."""
    return SocketPort(host, portno, **options)


class _LoopServer(AsyncPortServer):
    """The async server, with inboxes that any thread can read."""

    def __init__(self, portal: Portal, *args: Any, **options: Any) -> None:
        self._portal = portal
        super().__init__(*args, **options)

    def _make_inbox(self, *, tagged: bool = False) -> ThreadInbox:
        return ThreadInbox(self._portal, self._options.max_inbox, tagged=tagged)

    def _begin_close(self) -> None:
        for port in self._all:
            if port._outlet is not None:
                port._outlet.end()
        super()._begin_close()

    def _tell_closed(self) -> None:
        super()._tell_closed()
        if self._is_over:
            self._portal.opened.pop(self, None)


class PortServer(BaseIOPort):  # type: ignore[misc]  # mido carries no types
    """A blocking server that any number of MIDI socket ports connect to.

        for message in PortServer("localhost", 8080):
            print(message)

    Args:
        host, portno: where to listen; see `midinet.PortServer`.
        backlog: how many connections may wait in the system to be accepted.
        autoreset: send `reset()` when the server is closed.
        options: `relay`, `yield_ports` and whatever else `midinet.PortServer` takes.

    Raises:
        ListenError (OSError): the address is in use, not this machine's, or not permitted.
    """

    def __init__(
        self,
        host: str,
        portno: int | str | None = None,
        backlog: int = DEFAULT_BACKLOG,
        *,
        autoreset: bool = False,
        **options: Any,
    ) -> None:
        look_like_mido(self)
        self._portal = portal = get_portal()
        self._wrappers: weakref.WeakValueDictionary[AsyncSocketPort, SocketPort] = (
            weakref.WeakValueDictionary()
        )
        self._wrappers_lock = threading.Lock()

        async def open_server() -> _LoopServer:
            server = await _LoopServer(portal, host, portno, backlog=backlog, **options)
            self._outlet = _server_outlet(portal, server)
            portal.opened[server] = partial(self._outlet.close, server)
            return server

        self._server = portal.run(open_server())
        self._inbox = cast(ThreadInbox, self._server._inbox)
        self.autoreset = autoreset
        self.name = self._server.name

    def send(self, message: Message) -> None:
        """Send a message to every client. A slow client delays nobody.

        Raises:
            ValueError: the server is closed.
            TypeError: it is no mido.Message.
        """
        frame = encode(message)
        self._portal.check()
        if self._server.closed or self._outlet.ended:
            raise self._server._closed_error()
        self._outlet.send((frame, None), len(frame))

    def receive(self, block: bool = True) -> Any:
        """Return the next message of any client, or (port, message) with `yield_ports`.

        Args:
            block: wait for one; if False, return None when there is none.

        Raises:
            ValueError, OSError: the server is closed and everything has been read (with `block`).
        """
        self._portal.check()
        self._adopt()
        entry = self._inbox.wait(before=self._adopt) if block else self._inbox.get_nowait()
        if entry is None:
            return None
        if self.yield_ports:
            port, frame = entry
            return self._wrapper(port), decode(frame)
        return decode(entry)

    def accept(self, block: bool = True) -> SocketPort | None:
        """Return the port of the client that waited longest, for yourself; see `midinet.PortServer.accept`.

        Args:
            block: wait for one; if False, return None when nobody waits.

        Raises:
            ValueError: the server is closed.
        """
        if block:
            port = self._portal.run(self._server.accept())
        else:
            self._portal.check()
            if not self._server._waiting and not self._server.closed:
                return None
            if (found := self._portal.run(self._accept_nowait())) is None:
                return None
            port = found
        return SocketPort._accepted(self, port)

    async def _accept_nowait(self) -> AsyncSocketPort | None:
        return self._server._accept_nowait()

    def close(self) -> None:
        """Send every client what is left for it, for `close_timeout` at most, and close all connections."""
        self._portal.run(self._close())

    async def _close(self) -> None:
        self._outlet.end()
        if self.autoreset:
            self._server.reset()
        self._outlet.close(self._server)
        await self._server.wait_closed()

    def __del__(self) -> None:
        if hasattr(self, "_server") and not self._server.closed:
            self._portal.call(self._outlet.close, self._server)

    @property
    def yield_ports(self) -> bool:
        """Whether reading gives (port, message)."""
        return self._server.yield_ports

    @property
    def ports(self) -> list[SocketPort]:
        """The adopted clients that are connected."""
        return [self._wrapper(port) for port in self._server.ports]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """The (address, port number) pairs it listens on."""
        return self._server.addresses

    @property
    def closed(self) -> bool:
        """Whether the server has been closed."""
        return self._server.closed

    @property
    def announced(self) -> str | None:
        """By which name it is announced on the local network; None while or where it is not."""
        return self._server.announced

    @property
    def stats(self) -> ServerStats:
        """The counts of the server as they stand."""
        return self._server.stats

    @property
    def closed_connections(self) -> list[ClosedConnection]:
        """The connections that ended last, the newest at the end: 1,000 of them at most."""
        return self._server.closed_connections

    def _adopt(self) -> None:
        if self._server._waiting or not self._server._is_read:
            self._portal.call(self._server._adopt_for_reading)

    def _wrapper(self, port: AsyncSocketPort) -> SocketPort:
        with self._wrappers_lock:
            wrapper = self._wrappers.get(port)
            if wrapper is None:
                wrapper = self._wrappers[port] = SocketPort._of(self, port)
            return wrapper
