"""connect: one attempt, over every address of the host, or one after another for ever."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import random
import socket
from collections.abc import Callable, Generator, Iterator
from functools import partial
from ssl import SSLContext, SSLError
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from ..address import format_address, read_address, service_name
from ..checks import check_effect, check_flag, check_number
from ..errors import (
    CloseReason,
    ConnectError,
    ConnectRefused,
    ListenError,
    NotAuthorized,
    ServerBusy,
    UsageError,
)
from ..gateways.discovery import Service, find_service
from ..gateways.mdns import check_service_name, read_interfaces
from ..hub.outbox import LATE_NOTE_S
from ..hub.policy import SysexRule
from ..wire.aside import Aside, hello
from .access import check_token, is_loopback
from .inbox import Inbox
from .link import Link
from .options import DEFAULT_MAX_INBOX, LinkOptions
from .port import PortState, SocketPort, open_hub
from .race import AddressRace
from .tasks import BackgroundTask
from .turns import Hold

# Seconds. Far beyond any answer on a network one would make music over, and short enough to wait for.
DEFAULT_CONNECT_TIMEOUT = 10.0

# Seconds to the first attempt to reconnect, at most, so that it has been made within a quarter of a second,
# and to the later ones. A server that is started again is there in a second; many clients that all wait for
# one must not come all at once.
FIRST_RETRY_S = 0.2
MOST_RETRY_S = 10.0

# Seconds that an answer is waited for by whoever told a name and no token, so that a server without room, or
# one that wants a token, is no surprise later. It is many times what a near one takes, and little to wait for
# where none comes: mido's servers give none.
NAME_ANSWER_S = 0.25

# Seconds that one attempt of many may take. The system would go on for minutes with a host that was away when
# the attempt began, asking it ever more seldom, and with a server that has stopped, for ever.
MOST_ATTEMPT_S = 10.0

# Seconds that a server is looked for by its name: twice what an answer may take, so that one may be lost.
LOOK_UP_S = 3.0

# Seconds that one of several addresses may take which a server has announced, but the last. Some of them may
# be those of networks that are not here, and nobody says so.
MOST_ADDRESS_S = 2.0

# Seconds. A connection that ended before, with nothing heard over it, was no success: the server is full, or
# lets nobody in from here. The times between attempts go on from where they were.
PROVEN_S = 1.0

_AWAIT = "write `async with connect(...) as port:`, or `port = await connect(...)`"


def retry_delays(jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield the seconds to wait before each attempt: full jitter, under a bound that doubles.

    Args:
        jitter: returns which part of the bound it is, from 0 to 1, each time anew.
    """
    bound = FIRST_RETRY_S
    while True:
        yield bound * jitter()
        bound = min(2 * bound, MOST_RETRY_S)


class connect:
    """Connect to a MIDI socket port server.

        async with connect("localhost", 8080) as port:
            await port.send(message)

    `port = await connect(...)` does without the block; the port then has to be closed.

    With `reconnect=True` the port survives outages. When the connection is lost, its reader gets what lets go
    of all that it had heard, and the port tries to connect again: within 0.25 s the first time, then after
    random times up to a bound that doubles to 10 s (full jitter, so that many clients of one server do not
    come all at once). When it is back, the server gets what is set by then, and the note-ons of notes that
    were struck meanwhile and less than 0.2 s ago. A server that lets the port in and ends the connection
    within a second, with nothing said, has not let it in: the bound goes on doubling. One that refuses the
    token ends the port.

    Args:
        host: a name or an address. Of several addresses of a name, the first that answers is taken; each is
            tried 0.25 s after the one before it. Or midi://NAME, a server that has announced itself by that
            name, in any case, on the local network. It is looked up at each attempt, for 3 s at most, and
            needs the extra `discovery`; see `discover` for the networks that it is looked for on.
        portno: the port number; None when `host` is a whole address, as in "localhost:8080".
        timeout: how long to try, in seconds; None is for as long as the system does, and with `reconnect`
            for ever. With `reconnect` a server that is not there yet is waited for so long.
        name: what to call oneself; None says nothing. A server that does not answer to it, as mido's, is
            waited for 0.25 s.
        token: the token that the server asks for; None shows none. Without `ssl` it is sent to this machine
            alone.
        insecure_token: send the token without TLS, wherever to.
        ssl: an SSLContext, such as `tls_client_context` makes; None is no TLS. The certificate of midi://NAME
            has to be for the host that announces it, as in studio.local.
        reconnect: survive outages.
        reconnect_for: how long an outage may last, in seconds, before the port is closed; None is for ever.
        on_state: called with the port and its new PortState whenever that changes.
        listen: False for a program that only sends: nothing that arrives is kept, and to read raises
            UsageError.
        options: the settings of the connection, one by one, as `LinkOptions` lists them.

    Returns:
        A SocketPort, once it is awaited or entered by `async with`. One `connect(...)` makes one port.

    Raises:
        ConnectRefused: nobody listens there.
        NotAuthorized: the server does not accept the token, or asks for one.
        ServerBusy: the server has as many clients as it takes.
        ConnectError: no connection could be made, or not in time; or nobody is called midi://NAME.
        UsageError: the token would be sent unencrypted beyond this machine, or this one was awaited before.
        MissingExtra: midi://NAME is looked for, and zeroconf is not installed.
        ValueError: a limit is out of range, an option has no effect without another one, it is no address, or
            the name or token cannot be sent.
        TypeError: there is no such option, or one is not what it has to be, as None where None means nothing.

    Cancelling is safe: no connection is left behind.
    """

    def __init__(
        self,
        host: str,
        portno: int | str | None = None,
        *,
        timeout: float | None = DEFAULT_CONNECT_TIMEOUT,
        name: str | None = None,
        token: str | None = None,
        insecure_token: bool = False,
        ssl: SSLContext | None = None,
        reconnect: bool = False,
        reconnect_for: float | None = None,
        on_state: Callable[[SocketPort, PortState], object] | None = None,
        listen: bool = True,
        **options: Any,
    ) -> None:
        if token is not None:
            check_token(token)
        host, portno = read_address(host, portno)
        check_number("timeout", timeout, or_none=True)
        check_number("reconnect_for", reconnect_for, least=0, or_none=True)
        for option, flag in (
            ("reconnect", reconnect),
            ("insecure_token", insecure_token),
            ("listen", listen),
        ):
            check_flag(option, flag)
        check_effect("insecure_token", insecure_token, "token", token is not None)
        check_effect("reconnect_for", reconnect_for is not None, "reconnect=True", reconnect)
        # Of a server that is looked up, and on which interfaces; None has an address.
        self._service = service_name(host)
        if self._service is not None:
            if portno:
                raise ValueError(f"{host} knows its port number by itself: leave out {portno}")
            self._service = check_service_name(self._service)
            self._interfaces = read_interfaces()
        self._host = host
        self._portno = portno
        self._where = format_address(host, portno)
        self._timeout = timeout
        self._hello = hello(name, token) if name is not None or token is not None else b""
        self._has_token = token is not None
        self._insecure_token = insecure_token
        self._ssl = ssl
        self._reconnect = reconnect
        self._reconnect_for = reconnect_for
        self._on_state = on_state
        self._listen = listen
        self._port: SocketPort | None = None
        # It is being awaited, or was, and gave a port.
        self._is_used = False
        # Of the attempt under way. The link forgets it when it is lost, which may be soon.
        self._greeting: Greeting | None = None
        self._options = LinkOptions(**options)
        # Of a port that reconnects: what connects it again, when, and since when it is not connected.
        self._retry_task: BackgroundTask | None = None
        self._delays = retry_delays()
        # Why the last of several attempts failed, if that is known.
        self._failure: ConnectError | None = None
        self._down_since = 0.0

    def __await__(self) -> Generator[Any, None, SocketPort]:
        return self._connect(Inbox).__await__()

    async def __aenter__(self) -> SocketPort:
        return await self

    if not TYPE_CHECKING:  # A type checker says by itself that a `connect` is no port.

        def __getattr__(self, name: str) -> NoReturn:
            if not name.startswith("_") and hasattr(SocketPort, name):
                text = f"connect(...) has no {name} until it is awaited: {_AWAIT}"
            else:
                text = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=self)

        def __aiter__(self) -> NoReturn:
            raise UsageError(f"connect(...) gives no messages, its port does: {_AWAIT}")

        def __enter__(self) -> NoReturn:
            raise UsageError(
                f"connect(...) is opened by `async with`; midinet.sync has a blocking one: {_AWAIT}"
            )

        def __exit__(self, *_: object) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._port is not None:
            await self._port.close()

    async def _connect(self, make_inbox: Callable[[int], Inbox]) -> SocketPort:
        if self._is_used:
            raise UsageError("this connection was made before: write connect(...) again for another")
        self._loop = asyncio.get_running_loop()
        self._is_used = True
        try:
            async with asyncio.timeout(self._timeout):
                link = await (self._keep_trying() if self._reconnect else self._open())
        except BaseException as error:
            self._is_used = False
            if not isinstance(error, TimeoutError):
                raise
            # What kept the attempts from succeeding says more than that there was no more time.
            raise self._failure or ConnectError(
                errno.ETIMEDOUT, f"no answer from {self._where} in {self._timeout} s"
            ) from error
        port = self._port = SocketPort(link, make_inbox(self._options.max_inbox), self)
        port.name = self._where
        port._on_state = self._on_state
        if not self._listen:
            port._listen_no_more()
        port._open_for_itself(open_hub(self._loop, release_notes=self._options.release_notes))
        self._hand_over(link, port)
        return port

    # One attempt.

    async def _open(self) -> Link:
        """Connect once, say hello, and return the link.

        Raises:
            ConnectError, UsageError: it cannot be done.
        """
        try:
            return await self._open_any()
        except (ConnectError, UsageError):
            raise
        except (OSError, OverflowError, UnicodeError) as error:
            raise self._connect_error(error) from error

    def _connect_error(self, error: OSError | OverflowError | UnicodeError) -> ConnectError:
        if isinstance(error, ConnectionRefusedError):
            return ConnectRefused(error.errno, f"nobody listens on {self._where}")
        if isinstance(error, socket.gaierror):
            return ConnectError(error.errno, f"the host of {self._where} is not known")
        if isinstance(error, SSLError):
            text = getattr(error, "verify_message", None) or error.reason or str(error)
            return ConnectError(error.errno, f"no TLS with {self._where}: {text}")
        number = getattr(error, "errno", None)
        # asyncio says nothing when the other side ends a handshake.
        text = str(error) or "the connection ended before it was made"
        if self._ssl is not None and number is None:
            text = f"no TLS there, or nobody is let in from here: {text}"
        return ConnectError(number, f"cannot connect to {self._where}: {text}")

    async def _open_any(self) -> Link:
        if self._service is not None:
            host, found = await self._look_up(self._service)
        else:
            # As mido's ports have it, no host is this machine.
            host = self._host or "localhost"
            found = await self._loop.getaddrinfo(host, self._portno, type=socket.SOCK_STREAM)
        patience = MOST_ADDRESS_S if self._service is not None else None
        race = AddressRace(self._loop, found, self._check_token_is_safe, patience)
        try:
            while True:
                sock = await race.connect()
                try:
                    return await self._open_one(sock, host)
                except ConnectError:
                    raise
                except OSError as error:
                    race.failures.append(error)
        except asyncio.CancelledError:
            # There may be no more time. What is known by now says more than that.
            if isinstance(failure := race.failure, OSError):
                self._failure = self._connect_error(failure)
            raise

    async def _look_up(self, name: str) -> tuple[str, list[Any]]:
        """Find a server by its name. Returns its host's name, and its addresses as getaddrinfo has them."""
        # Before there is no time left: then it can be said who is there.
        most = math.inf if self._timeout is None else self._timeout / 2
        try:
            service = await find_service(name, min(LOOK_UP_S, most), interfaces=self._interfaces)
        except ListenError as error:
            raise ConnectError(error.errno, error.strerror) from error
        self._heed(service)
        found = []
        for address, portno in service.addresses:
            # Numbers alone, which takes no time.
            found += socket.getaddrinfo(
                address, portno, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            )
        return service.host, found

    def _heed(self, service: Service) -> None:
        """See whether a server asks for more than there is to show. That it asks for less changes nothing."""
        if service.tls and self._ssl is None:
            raise ConnectError(errno.EPROTO, f"{self._where} asks for TLS: give ssl=...")
        if service.token and not self._has_token:
            raise NotAuthorized(errno.EACCES, f"{self._where} asks for a token")

    async def _open_one(self, sock: socket.socket, host: str) -> Link:
        """Make a link of a connected socket.

        Args:
            host: whom a certificate has to be for.
        """
        links: list[Link] = []

        def made(link: Link) -> Greeting:
            links.append(link)
            self._greeting = Greeting(link, self._loop.create_future())
            return self._greeting

        try:
            await self._loop.create_connection(
                partial(Link, self._loop, self._options, made),
                sock=sock,
                ssl=self._ssl,
                server_hostname=host if self._ssl is not None else None,
                ssl_shutdown_timeout=self._options.close_timeout if self._ssl is not None else None,
            )
            link = links[0]
            # A server may speak for many: see Link.heeds_sensing.
            link.heeds_sensing = False
            if self._options.sysex is not None:
                link.gate_sysex(None if self._options.sysex is True else SysexRule(self._options.sysex))
            if self._hello:
                link.say(self._hello)
            assert self._greeting is not None
            if self._has_token:
                self._check_answer(await self._greeting.answer)
            elif self._hello:
                await self._wait_for_refusal(self._greeting)
        except BaseException:
            for link in links:
                link.abort()
            sock.close()
            raise
        return link

    async def _wait_for_refusal(self, greeting: Greeting) -> None:
        """See whether a server turns away who told it nothing but a name."""
        most = math.inf if self._timeout is None else self._timeout / 2
        await asyncio.wait({greeting.answer}, timeout=min(NAME_ANSWER_S, most))
        if greeting.answer.done() and greeting.answer.result() is not None:
            self._check_answer(greeting.answer.result())

    def _check_answer(self, answer: Aside | None) -> None:
        if answer is None:
            raise ConnectError(
                errno.ECONNRESET,
                f"{self._where} closed the connection in place of an answer: it may ask for TLS or a "
                "certificate, or not allow this address",
            )
        if (refusal := self._refusal(answer)) is not None:
            raise refusal

    def _refusal(self, answer: Aside) -> ConnectError | None:
        """Return the error that an answer to HELLO means, or None where the server lets the port in."""
        if answer.status in (401, 403):
            refusal = "does not accept the token" if self._has_token else "asks for a token"
            return NotAuthorized(errno.EACCES, f"{self._where} {refusal}")
        if answer.status == 503:
            return ServerBusy(errno.EBUSY, f"{self._where} has as many clients as it takes")
        return None

    def _check_token_is_safe(self, address: str) -> None:
        if self._has_token and self._ssl is None and not self._insecure_token and not is_loopback(address):
            raise UsageError(
                f"the token would cross the network to {self._where} unencrypted, for anyone to read: give "
                "ssl=..., or say insecure_token=True"
            )

    # One attempt after another.

    async def _keep_trying(self) -> Link:
        """Connect, for as long as it takes.

        Raises:
            NotAuthorized, UsageError: trying again does not help.
        """
        while True:
            before = self._failure
            try:
                async with asyncio.timeout(MOST_ATTEMPT_S):
                    return await self._open()
            except NotAuthorized:
                raise
            except (ConnectError, TimeoutError) as error:
                if isinstance(error, ConnectError):
                    self._failure = error
                elif self._failure is before:
                    self._failure = None
                await asyncio.sleep(next(self._delays))

    # What the port calls.

    def _port_told(self, port: SocketPort, aside: Aside) -> None:
        if (refusal := self._refusal(aside)) is not None:
            # Whoever uses the port gets it as the cause of a ConnectionLost.
            port._link.error = refusal
            is_full = isinstance(refusal, ServerBusy)
            port._link.give_up(CloseReason.BUSY if is_full else CloseReason.UNAUTHORIZED, logging.INFO)

    def _port_keeps(self, port: SocketPort) -> bool:
        if port._link.reason in (CloseReason.LOCAL, CloseReason.UNAUTHORIZED):
            return False
        # From here on what is sent goes nowhere, though the connection may take its time to be gone.
        self._down_since = self._loop.time()
        return self._reconnect and port._hub is not None

    def _port_is_sought(self, port: SocketPort) -> bool:
        return self._retry_task is not None

    def _port_lost(self, port: SocketPort) -> None:
        if port.state is PortState.CLOSED:
            if self._retry_task is not None:
                self._retry_task.cancel()
        elif self._retry_task is None:
            link = port._link
            heard = link.parser.stats.bytes > 0 and link.reason is not CloseReason.BUSY
            if heard or self._loop.time() - link.made_at >= PROVEN_S:
                self._delays = retry_delays()
            self._retry_task = BackgroundTask(
                self._retry(port),
                name=f"midinet reconnect {port.name}",
                failed=partial(self._retry_failed, port),
                ended=partial(self._retried, port),
            )

    def _retried(self, port: SocketPort, task: BackgroundTask) -> None:
        if self._retry_task is task:
            self._retry_task = None
        port._state_waiters.wake()

    def _retry_failed(self, port: SocketPort, error: Exception) -> None:
        self._retry_task = None
        port._link.error = error
        port._end(CloseReason.LOST)
        self._port_lost(port)

    async def _retry(self, port: SocketPort) -> None:
        try:
            async with asyncio.timeout(self._reconnect_for):
                await asyncio.sleep(next(self._delays))
                link = await self._keep_trying()
        except (TimeoutError, NotAuthorized, UsageError) as error:
            self._retry_task = None
            if isinstance(error, NotAuthorized):
                port._link.error = error
                port._end(CloseReason.UNAUTHORIZED)
            else:
                port._end(port._link.reason or CloseReason.LOST)
            self._port_lost(port)
            return
        self._retry_task = None
        now = self._loop.time()
        port._take_link(link, max(self._down_since, now - LATE_NOTE_S))
        self._hand_over(link, port)

    def _hand_over(self, link: Link, port: SocketPort) -> None:
        """Give a link to its port, with what has arrived."""
        assert self._greeting is not None
        greeting, self._greeting = self._greeting, None
        greeting.answer.cancel()
        link.owner = port
        link.release(Hold.FULL)
        if greeting.heard:
            port._link_heard(greeting.heard, greeting.messages)
        if link.reason is not None:
            port._link_ending()
        if link.lost:
            port._link_lost()


class Greeting:
    """Whoever a link belongs to until it is a port's: it keeps what arrives, and waits for an answer.

    Args:
        link: the connection.
        answer: set to the answer to a HELLO, or to None when the connection ended before.
    """

    def __init__(self, link: Link, answer: asyncio.Future[Aside | None]) -> None:
        self._link = link
        self.answer = answer
        self.heard = b""
        self.messages = 0

    def _link_heard(self, data: bytes, messages: int) -> None:
        self.heard += data
        self.messages += messages
        if self.messages >= DEFAULT_MAX_INBOX:
            self._link.hold(Hold.FULL)

    def _link_told(self, aside: Aside) -> None:
        if aside.status is not None and not self.answer.done():
            self.answer.set_result(aside)

    def _link_fell_silent(self) -> None:
        pass

    def _link_ending(self) -> None:
        if not self.answer.done():
            self.answer.set_result(None)

    def _link_lost(self) -> None:
        pass
