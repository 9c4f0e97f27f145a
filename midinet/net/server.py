"""PortServer: listen, accept, fan out, shut down.

The door lets connections in. A client that is in waits until it is either adopted or accepted. Adopted, it
joins the server's hub and fills the server's inbox; accepted, it is a port for whoever called `accept`.
Nothing it sent is lost meanwhile: it is in an inbox of its own, and beyond that in the socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from mido import Message

from ..address import format_address, read_address, service_name
from ..checks import check_count, check_effect, check_flag, check_number
from ..errors import CloseReason, PortClosed, UsageError
from ..gateways.announcement import Announcement
from ..gateways.broker import (
    DEFAULT_SESSION,
    Broker,
    SessionPort,
    check_options,
    check_session,
    need_nats,
    read_servers,
)
from ..gateways.mdns import need_zeroconf
from ..hub.hub import Hub
from ..wire.aside import HELLO, Aside, answer
from ..wire.codec import PANIC_FRAMES, RESET_FRAMES, decode, encode
from .access import (
    DEFAULT_MAX_CLIENTS,
    DEFAULT_MAX_CLIENTS_PER_ADDRESS,
    Address,
    AllowList,
    Crowd,
    Network,
    Tokens,
    is_loopback,
)
from .affinity import check_loop, runs_here
from .door import DEFAULT_HELLO_TIMEOUT, Access, Door, Visitor
from .inbox import Inbox
from .link import Link
from .options import LinkOptions
from .port import FAIR_SPREE, SocketPort, open_hub
from .stats import MAX_REMEMBERED, ClosedConnection, PortStats, ServerStats
from .tasks import BackgroundTask
from .waiters import Waiters

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

    A server belongs to the event loop that started it, as a port does: see `SocketPort`.

    Args:
        host: a name or an address; '' is every interface, IPv4 and IPv6.
        portno: the port number; 0 lets the system choose one, which `addresses` then tells. None when
            `host` is a whole address, as in "localhost:8080".
        relay: be a hub: clients are adopted at once, and what one sends all the others get. Messages are
            then also kept for reading the server, from the first time it is read. A program that reads more
            slowly than they come slows the relay down, until it has read nothing for 5 s: see `SocketPort`.
        yield_ports: reading the server gives (port, message) instead of the message.
        snapshot: True brings a new client to what is set at present, before anything else: programs,
            controllers, bends, the transport. "notes" also sends the note-ons of what is held.
        allow: the addresses and networks that may connect, as strings or objects of the ipaddress module;
            others are closed before a byte is read. None is everybody.
        ssl: an SSLContext, such as `tls_server_context` makes; None is no TLS. See also `sysex`.
        tokens: a client has to show one of these in its HELLO, as `connect(token=...)` does; None asks for
            none. Beyond loopback that takes `ssl`.
        insecure_token: take tokens without TLS, beyond loopback too.
        hello_timeout: how long a TLS handshake, or a HELLO with a token, may take, in seconds.
        max_clients: the most clients at once.
        max_clients_per_address: the most of them from one address; loopback is exempt.
        backlog: how many connections may wait in the system to be accepted.
        announce: the name by which clients on the local network find it, as in `connect("midi://stage")`:
            1 to 63 bytes of UTF-8. It takes the extra `discovery`, and two or three seconds in the
            background; `announced` then tells the name, which has a number if somebody else had it. The
            environment variable MIDINET_INTERFACES limits it to the interfaces with these addresses,
            separated by commas. None announces nothing, and so does a server that only this machine can
            reach.
        broker: the URL of a NATS server, or several of one cluster, as in "nats://localhost:4222": this hub
            and all others with the same session are then one. Needs `relay=True` and the extra `nats`; None
            is no broker. While it is away this hub goes on by itself.
        session: what hubs that are one have in common: 1 to 64 letters, digits, - and _. None is "midinet".
        broker_options: keywords of nats.connect: `user_credentials`, `nkeys_seed`, `tls` and so on.
        options: the settings of each connection, one by one, as `LinkOptions` lists them.

    Raises, when it is started:
        ListenError: the address is in use, not this machine's, or not permitted.
        UsageError: tokens would be sent unencrypted beyond this machine.
        MissingExtra: it is to be announced, and zeroconf is not installed.

    Raises, when it is made:
        ValueError: a limit is out of range, an option has no effect without another one, there is something
            in `allow` or `tokens` that cannot be, the host is midi://NAME, or `announce` is no such name.
        TypeError: there is no such option, of this server or of nats.connect; or one is not what it has to
            be, as None where None means nothing.
    """

    def __init__(
        self,
        host: str,
        portno: int | str | None = None,
        *,
        relay: bool = False,
        yield_ports: bool = False,
        snapshot: bool | Literal["notes"] = False,
        allow: Collection[str | Address | Network] | None = None,
        ssl: SSLContext | None = None,
        tokens: Collection[str] | None = None,
        insecure_token: bool = False,
        hello_timeout: float = DEFAULT_HELLO_TIMEOUT,
        max_clients: int = DEFAULT_MAX_CLIENTS,
        max_clients_per_address: int = DEFAULT_MAX_CLIENTS_PER_ADDRESS,
        backlog: int = DEFAULT_BACKLOG,
        announce: str | None = None,
        broker: str | Sequence[str] | None = None,
        session: str | None = None,
        broker_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        host, portno = read_address(host, portno, any_port=True)
        if (name := service_name(host)) is not None:
            raise ValueError(f"a server listens on a host and a port; announce={name!r} gives it a name")
        if broker is not None and not relay:
            raise ValueError("broker= joins hubs: it needs relay=True")
        if snapshot not in (True, False, "notes"):
            raise ValueError(f"snapshot must be True, False or 'notes', not {snapshot!r}")
        for name, flag in (
            ("relay", relay),
            ("yield_ports", yield_ports),
            ("insecure_token", insecure_token),
        ):
            check_flag(name, flag)
        check_number("hello_timeout", hello_timeout, above=0)
        check_count("backlog", backlog)
        check_effect("insecure_token", insecure_token, "tokens", tokens is not None)
        is_asked = ssl is not None or tokens is not None
        check_effect("hello_timeout", hello_timeout != DEFAULT_HELLO_TIMEOUT, "ssl or tokens", is_asked)
        check_effect("session", session is not None, "broker", broker is not None)
        check_effect("broker_options", broker_options is not None, "broker", broker is not None)
        check_options(broker_options or {})
        self.name = format_address(host, portno)
        self.relay = relay
        self.yield_ports = yield_ports
        self.snapshot = snapshot
        self._host = host
        self._portno = portno
        self._backlog = backlog
        self._options = LinkOptions(**options)
        self._access = Access(
            allow=None if allow is None else AllowList(allow),
            ssl=ssl,
            tokens=None if tokens is None else Tokens(tokens),
            insecure_token=insecure_token,
            hello_timeout=hello_timeout,
        )
        self._crowd = Crowd(max_clients=max_clients, max_clients_per_address=max_clients_per_address)
        self._broker_urls = None if broker is None else read_servers(broker)
        self._session = check_session(DEFAULT_SESSION if session is None else session)
        self._broker_options = broker_options
        self._broker: Broker | None = None
        self._inbox = self._make_inbox(tagged=yield_ports)
        # A relay keeps messages for a reader only once there is one.
        self._is_read = not relay
        self._door: Door | None = None
        self._announcement: Announcement | None = None
        if announce is not None:
            self._announcement = Announcement(announce, tls=ssl is not None, token=tokens is not None)
        self._started = False
        self._closing = False
        self._stop_task: BackgroundTask | None = None
        self._is_stopped = False
        self._closed_waiters = Waiters()
        # Every connection that was let in, those of them that nobody has taken yet, and those that are the
        # server's. Who waits may have gone already, if what it sent has not been read.
        self._all: set[SocketPort] = set()
        self._count_clients = self._all.__len__
        self._placed: set[SocketPort] = set()
        self._waiting: deque[SocketPort] = deque()
        self._adopted: dict[SocketPort, None] = {}
        self._accept_waiters: deque[asyncio.Future[SocketPort]] = deque()
        self._spree = 0
        self._gone = ServerStats()
        self._remembered: deque[ClosedConnection] = deque(maxlen=MAX_REMEMBERED)
        self.addresses: list[tuple[str, int]] = []

    # Starting and stopping.

    async def _start(self) -> Self:
        if self._closing:
            raise self._closed_error()
        if self._started:
            raise UsageError(f"the server {self.name} was started before")
        if self._announcement is not None:
            need_zeroconf()
        if self._broker_urls is not None:
            need_nats()
        self._started = True
        self._loop = asyncio.get_running_loop()
        self._inbox.give_way_when_unread(self._loop)
        self._hub = self._make_hub()
        self._door = Door(
            self._loop, self._options, self._access, self._crowd, self._let_in, self._turned_away
        )
        try:
            self.addresses = await self._door.open(self._host, self._portno, self._backlog)
        except BaseException:
            self._begin_close()
            raise
        self.name = format_address(self._host, self.addresses[0][1])
        if self._closing:
            # It was closed meanwhile.
            self._stop_listening()
            raise self._closed_error()
        if self._broker_urls is not None:
            self._broker = Broker(
                self._loop,
                self._hub,
                self._broker_urls,
                self._session,
                options=self._broker_options,
                limits=self._options.outbox,
                heard=self._hear_session,
            )
        if self._announcement is not None:
            if all(is_loopback(address) for address, _ in self.addresses):
                logger.info("%s is not announced: only this machine can reach it", self.name)
            else:
                self._announcement.start(self.addresses)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return self if self._started and not self._closing else await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening, let go of every note, send every client what is left for it, and close all
        connections.

        Accepted ports are closed too. It takes `close_timeout` at most, and calling it again is harmless.
        Cancelling stops the waiting, not the closing.

        Raises:
            UsageError: it is called from another thread or event loop.
        """
        if self._started:
            check_loop(self, self._loop)
        self._begin_close()
        await self.wait_closed()

    def _begin_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._started:
            self._hub.dismiss_all()
        for port in list(self._all):
            port._begin_close()
        self._inbox.end(self._closed_error)
        for waiter in self._accept_waiters:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        self._stop_listening()
        self._tell_closed()

    def _stop_listening(self) -> None:
        if self._door is not None and self._stop_task is None:
            self._stop_task = BackgroundTask(
                self._stop(self._door), name=f"midinet stop {self.name}", ended=self._stopped
            )

    async def _stop(self, door: Door) -> None:
        # Each step is taken, whatever becomes of the others; the last one that was pushed is the first.
        async with AsyncExitStack() as steps:
            if self._announcement is not None:
                steps.push_async_callback(self._announcement.wait_closed)
            if self._broker is not None:
                steps.push_async_callback(self._broker.close)
            steps.push_async_callback(door.close)
            if self._announcement is not None:
                self._announcement.begin_close()

    def _stopped(self, _: BackgroundTask) -> None:
        self._is_stopped = True
        self._tell_closed()

    @property
    def _is_over(self) -> bool:
        return self._closing and not self._all and (self._door is None or self._is_stopped)

    async def wait_closed(self) -> None:
        """Wait until the server has been closed and every connection has ended. Cancelling is safe."""
        self._check_loop()
        while not self._is_over:
            await self._closed_waiters.wait()

    def _tell_closed(self) -> None:
        if self._is_over:
            self._closed_waiters.wake()

    # What a program calls.

    async def send(self, message: Message) -> None:
        """Send a message to every client.

        It goes out at the end of this turn of the event loop; a slow client delays nobody. Cancelling is
        safe: a cancelled call has sent nothing.

        Args:
            message: a mido.Message. Changing it afterwards has no effect.

        Raises:
            PortClosed: the server is closed.
            UsageError: it is not started, or called from another thread or event loop.
            TypeError: it is no mido.Message.
        """
        if not self._started or not runs_here(self._loop):
            self._check_loop()
        frame = encode(message)
        self._spree += 1 + (len(frame) & ~3)
        while self._spree >= FAIR_SPREE:
            self._spree -= FAIR_SPREE
            await asyncio.sleep(0)
        self._say(frame, 1)

    async def receive(self) -> Any:
        """Wait for the next message of any client and return it, or (port, message) with `yield_ports`.

        Cancelling is safe: no message is lost.

        Raises:
            PortClosed: the server was closed, and everything has been read.
            UsageError: it is not started, or called from another thread or event loop.
        """
        self._check_loop()
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
        self._check_loop()
        self._adopt_for_reading()
        entry = self._inbox.get_nowait()
        return None if entry is None else self._decode(entry)

    def iter_pending(self) -> Iterator[Any]:
        """Yield what has arrived, without waiting for more."""
        while (message := self.poll()) is not None:
            yield message

    def __aiter__(self) -> Self:
        self._check_loop()
        return self

    async def __anext__(self) -> Any:
        # Nearly always there is a message, and then nothing else needs to be asked.
        if self._spree < FAIR_SPREE and self._is_read and not self._waiting:
            entry = self._inbox.get_nowait()
            if entry is not None:
                self._spree += 1
                return self._decode(entry) if self.yield_ports else decode(entry)
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
            UsageError: it is not started, or called from another thread or event loop.
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
            port._open_for_itself(self._make_hub())
        return port

    def reset(self) -> None:
        """Send All Notes Off and Reset All Controllers on all channels to every client."""
        self._check_loop()
        if not self._closing:
            self._say(b"".join(RESET_FRAMES), len(RESET_FRAMES))

    def panic(self) -> None:
        """Send All Sound Off on all channels to every client."""
        self._check_loop()
        if not self._closing:
            self._say(b"".join(PANIC_FRAMES), len(PANIC_FRAMES))

    @property
    def ports(self) -> list[SocketPort]:
        """The adopted clients that are connected, in the order in which they were adopted."""
        return [port for port in list(self._adopted) if port._reason is None]

    @property
    def closed(self) -> bool:
        """Whether the server has been closed."""
        return self._closing

    @property
    def announced(self) -> str | None:
        """By which name it is announced on the local network; None while or where it is not."""
        return None if self._announcement is None else self._announcement.name

    @property
    def stats(self) -> ServerStats:
        """The counts of the server as they stand."""
        stats = ServerStats(
            clients=len(self._all),
            clients_waiting=len(self._waiting),
            clients_total=self._gone.clients_total + len(self._all),
            visitors=0 if self._door is None else self._door.visitors,
            turned_away=self._gone.turned_away,
            closed=self._gone.closed.copy(),
            broker=None if self._broker is None else self._broker.stats,
        )
        stats.add(self._gone)
        for port in list(self._all):
            stats.add(port.stats)
        stats.messages_unread += self._inbox.messages_unread
        return stats

    @property
    def closed_connections(self) -> list[ClosedConnection]:
        """The connections that ended last, the newest at the end: 1,000 of them at most."""
        return list(self._remembered)

    def __repr__(self) -> str:
        return f"<{'closed' if self._closing else 'open'} PortServer {self.name}, {len(self._all)} clients>"

    def _hear_session(self, port: SessionPort, data: bytes) -> bool:
        """What the clients of other hubs say is kept for who reads this one."""
        return not self._is_read or self._inbox.put(port, data)

    # Clients come and go.

    def _let_in(self, link: Link, hello: Aside | None) -> SocketPort:
        port = SocketPort(link, self._make_inbox(), self)
        link.count_clients = self._count_clients
        if hello is not None and hello.name:
            port.name = hello.name
        self._all.add(port)
        self._placed.add(port)
        logger.info("%s connected", port.name, extra={"connected": port})
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
                waiter.set_result(self._take_waiting())
        if self.relay or self._inbox.awaited:
            self._adopt_waiting()

    def _take_waiting(self) -> SocketPort:
        port = self._waiting.popleft()
        if port._is_over:
            # It was kept for what it had sent, and kept its place, so that of these there are never more
            # than clients may be.
            self._free_place(port)
        return port

    def _free_place(self, port: SocketPort) -> None:
        if port in self._placed:
            self._placed.discard(port)
            self._crowd.leave(port.peer[0])

    def _port_told(self, port: SocketPort, aside: Aside) -> None:
        if aside.word == HELLO:
            if aside.name:
                logger.info("%s calls itself %s", port.name, aside.name)
                port.name = aside.name
            port._link.say(answer(200))

    def _port_keeps(self, port: SocketPort) -> bool:
        return False

    def _port_is_sought(self, port: SocketPort) -> bool:
        return False

    def _port_lost(self, port: SocketPort) -> None:
        self._all.discard(port)
        self._adopted.pop(port, None)
        if port in self._waiting and not port._own_inbox:
            self._waiting.remove(port)
        if port not in self._waiting:
            self._free_place(port)
        if port._link.reason in (CloseReason.TLS, CloseReason.HTTP):
            # Its first bytes showed that it was no client.
            self._gone.turned_away += 1
        else:
            self._gone.clients_total += 1
        self._remember(port.name, port._link, port.stats)
        self._tell_closed()

    def _turned_away(self, peer: tuple[str, int], reason: CloseReason, visitor: Visitor | None) -> None:
        self._gone.turned_away += 1
        if visitor is not None:
            visitor.link.messages_refused = visitor.messages_refused
            self._remember(format_address(*peer), visitor.link, PortStats.of(visitor.link))
        else:
            self._note_end(ClosedConnection(format_address(*peer), peer, reason, 0.0, PortStats()))

    def _remember(self, name: str, link: Link, stats: PortStats) -> None:
        seconds = self._loop.time() - link.made_at
        self._note_end(ClosedConnection(name, link.peer, link.reason or CloseReason.LOST, seconds, stats))

    def _note_end(self, connection: ClosedConnection) -> None:
        self._gone.add(connection.stats)
        self._gone.closed[connection.reason] += 1
        self._remembered.append(connection)
        logger.info(
            "%s disconnected: %s",
            connection.name,
            connection.reason.value,
            extra={"disconnected": connection},
        )

    def _adopt_waiting(self) -> None:
        while self._waiting:
            port = self._take_waiting()
            if port._reason is None:
                self._adopted[port] = None
            port._adopt(
                self._hub,
                self._inbox if self._is_read else None,
                relays=self.relay,
                snapshot=self.snapshot,
            )

    def _adopt_for_reading(self) -> None:
        if not self._is_read:
            self._is_read = True
            for port in self._adopted:
                port._inbox = self._inbox
        self._adopt_waiting()

    def _fill(self, inbox: Inbox) -> None:
        """Have what clients say go to another inbox. To be called before it is started."""
        self._inbox, self._is_read = inbox, True

    def _accept_nowait(self) -> SocketPort | None:
        self._check_open()
        if not self._waiting:
            return None
        port = self._take_waiting()
        port._open_for_itself(self._make_hub())
        return port

    # What is different in the blocking twin.

    def _make_inbox(self, *, tagged: bool = False) -> Inbox:
        return Inbox(self._options.max_inbox, tagged=tagged)

    def _make_hub(self) -> Hub:
        return open_hub(self._loop, release_notes=self._options.release_notes)

    def _say(self, data: bytes, messages: int) -> None:
        if self._closing or not self._started:
            self._check_open()
        if self._waiting:
            self._adopt_waiting()
        self._hub.publish(data, messages)

    def _decode(self, entry: Any) -> Any:
        if self.yield_ports:
            port, frame = entry
            return port, decode(frame)
        return decode(entry)

    def _check_started(self) -> None:
        if not (self._started or self._closing):
            raise UsageError("the server is not started: `async with` or `await` does that")

    def _check_loop(self) -> None:
        """Raise UsageError unless the server was started, and by the loop that runs the caller."""
        self._check_started()
        if self._started:
            check_loop(self, self._loop)

    def _check_open(self) -> None:
        self._check_loop()
        if self._closing:
            raise self._closed_error()

    def _closed_error(self) -> PortClosed:
        return PortClosed(f"the server {self.name} is closed")
