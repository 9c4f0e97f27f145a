"""Who comes in: listening sockets, and what a connection has to show before it is a client.

In order, each step before anything of the next is done: the address is on the list of those allowed, there is
room for one more, the TLS handshake succeeds, a HELLO shows a token that is accepted. Until then a connection
is a visitor: nothing that it sends reaches anyone, and it gets nothing but the answer to its HELLO.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..address import format_address
from ..errors import CloseReason, UsageError
from ..hub.policy import NO_SYSEX, SysexRule
from ..wire.aside import HELLO, Aside, answer
from .access import AllowList, Crowd, Tokens, is_loopback
from .link import Link
from .listen import open_listeners
from .tasks import BackgroundTask
from .tls import has_client_certificate

if TYPE_CHECKING:
    from .options import LinkOptions
    from .port import SocketPort

logger = logging.getLogger("midinet.server")

# Seconds. Ten times what a handshake or a HELLO takes over a slow network.
DEFAULT_HELLO_TIMEOUT = 5.0

# Seconds that somebody there is no room for may take to say HELLO, and so many of them at once: who comes
# beyond that is closed without a word.
_BUSY_PATIENCE_S = 0.5
_MAX_BUSY = 64

# Seconds until it is tried again to accept, when the system has no descriptor left, and between two lines
# about it in the log.
_EXHAUSTED_PAUSE_S = 0.25
_EXHAUSTED_LOG_S = 10.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

# Connections accepted in one turn of the loop.
_ACCEPT_SPREE = 32


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection has to show. None asks for nothing."""

    allow: AllowList | None = None
    ssl: ssl.SSLContext | None = None
    tokens: Tokens | None = None
    insecure_token: bool = False
    hello_timeout: float = DEFAULT_HELLO_TIMEOUT


class Visitor:
    """A connection that is not a client yet.

    Args:
        link: the connection.
        has_room: it was counted into the crowd.
        told: what it says, if that is a HELLO.
        lost: it is gone.
    """

    def __init__(
        self,
        link: Link,
        has_room: bool,
        told: Callable[[Visitor, Aside], None],
        lost: Callable[[Visitor], None],
    ) -> None:
        self.link = link
        self.has_room = has_room
        self._told = told
        self._lost = lost
        self.messages_refused = 0
        self.patience: asyncio.TimerHandle | None = None

    def _link_heard(self, data: bytes, messages: int) -> None:
        self.messages_refused += messages

    def _link_told(self, aside: Aside) -> None:
        if aside.word == HELLO:
            self._told(self, aside)

    def _link_fell_silent(self) -> None:
        pass

    def _link_ending(self) -> None:
        self.leave()

    def _link_lost(self) -> None:
        self._lost(self)

    def leave(self) -> None:
        """It is a visitor no more."""
        if self.patience is not None:
            self.patience.cancel()


class Door:
    """Lets connections in.

    Args:
        loop: the running loop.
        options: the settings of each connection.
        access: what it has to show.
        crowd: how many there may be.
        let_in: makes a connection a client. Called before anything of it is read.
        turned_away: told of a connection that was not let in, by its address and what there is of it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: LinkOptions,
        access: Access,
        crowd: Crowd,
        let_in: Callable[[Link, Aside | None], SocketPort],
        turned_away: Callable[[tuple[str, int], CloseReason, Visitor | None], None],
    ) -> None:
        self._loop = loop
        self._options = options
        self._access = access
        self._crowd = crowd
        self._let_in = let_in
        self._turned_away = turned_away
        self._sockets: list[socket.socket] = []
        # Accepted, and no transport's yet.
        self._arriving: set[socket.socket] = set()
        self._tasks: set[BackgroundTask] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._waits_by_task = False
        self._visitors: set[Visitor] = set()
        self._busy = 0
        self._exhausted_logged_at = -_EXHAUSTED_LOG_S

    @property
    def visitors(self) -> int:
        """Connections that have not been let in yet."""
        return len(self._visitors)

    async def open(self, host: str, portno: int, backlog: int) -> list[tuple[str, int]]:
        """Listen, and return the (address, port number) pairs that it listens on.

        Raises:
            ListenError: the address is in use, not this machine's, or not permitted.
            UsageError: tokens would be sent unencrypted beyond this machine.
        """
        sockets = await open_listeners(host, portno, backlog)
        addresses = [sock.getsockname()[:2] for sock in sockets]
        access = self._access
        try:
            if not all(is_loopback(address) for address, _ in addresses):
                if access.tokens is not None and access.ssl is None and not access.insecure_token:
                    raise UsageError(
                        "tokens would cross the network unencrypted, for anyone to read: give ssl=..., "
                        "listen on localhost, or say insecure_token=True"
                    )
                if access.tokens is None and access.ssl is None and access.allow is None:
                    logger.warning(
                        "%s is open to everybody who can reach it: allow=, ssl= and tokens= change that",
                        format_address(host, addresses[0][1]),
                    )
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self._sockets = sockets
        for sock in sockets:
            self._listen_to(sock)
        return addresses

    async def close(self) -> None:
        """Accept no more, and turn away whoever is not in yet. Cancelling is not safe."""
        for pause in self._pauses.values():
            pause.cancel()
        for sock in self._sockets:
            if not self._waits_by_task:
                self._loop.remove_reader(sock)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        try:
            for task in tasks:
                await task.wait()
        finally:
            # A task that is cancelled before its first step has done nothing of its own.
            for sock in (*self._sockets, *self._arriving):
                sock.close()
        visitors = list(self._visitors)
        for visitor in visitors:
            visitor.link.abort()
        for visitor in visitors:
            await visitor.link.wait_lost()

    def _listen_to(self, listener: socket.socket) -> None:
        # Not sock_accept: cancelled at the wrong moment, it forgets the connection that it has taken.
        try:
            self._loop.add_reader(listener, self._accept_from, listener)
        except NotImplementedError:
            # But the proactor loop of Windows has nothing else.
            self._waits_by_task = True
            self._spawn(
                self._wait_for(listener),
                f"midinet accept {listener.getsockname()[:2]}",
                lambda _: self._pause(listener),
            )

    def _pause(self, listener: socket.socket) -> None:
        self._pauses[listener] = self._loop.call_later(_EXHAUSTED_PAUSE_S, self._listen_to, listener)

    def _accept_from(self, listener: socket.socket) -> None:
        # What is left has its turn after everybody else.
        for _ in range(_ACCEPT_SPREE):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._log_exhausted(error)
                if error.errno in _EXHAUSTED:
                    self._loop.remove_reader(listener)
                    self._pause(listener)
                    return
                # Anything else is the fault of one connection, gone before it was there.
                continue
            sock.setblocking(False)
            self._receive(sock, address[:2])

    async def _wait_for(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = await self._loop.sock_accept(listener)
            except OSError as error:
                self._log_exhausted(error)
                await asyncio.sleep(_EXHAUSTED_PAUSE_S)
            else:
                self._receive(sock, address[:2])

    def _log_exhausted(self, error: OSError) -> None:
        now = self._loop.time()
        if error.errno in _EXHAUSTED and now - self._exhausted_logged_at >= _EXHAUSTED_LOG_S:
            self._exhausted_logged_at = now
            logger.error("cannot accept more connections for now: %s", error.strerror)

    def _receive(self, sock: socket.socket, address: tuple[str, int]) -> None:
        allow = self._access.allow
        if allow is not None and not allow.permits(address[0]):
            sock.close()
            self._turned_away(address, CloseReason.NOT_ALLOWED, None)
            return
        has_room = self._crowd.enter(address[0])
        if not has_room:
            if self._busy >= _MAX_BUSY:
                sock.close()
                self._turned_away(address, CloseReason.BUSY, None)
                return
            self._busy += 1
        self._arriving.add(sock)
        self._spawn(self._shake_hands(sock, address, has_room), f"midinet handshake {address}")

    async def _shake_hands(self, sock: socket.socket, address: tuple[str, int], has_room: bool) -> None:
        tls = self._access.ssl
        links: list[Link] = []

        def made(link: Link) -> SocketPort | Visitor:
            if not link.peer[0]:
                # Who has gone already has no address any more, and is counted by the one it had.
                link.peer = address
            links.append(link)
            return self._enter(link, has_room)

        self._arriving.discard(sock)
        try:
            await self._loop.connect_accepted_socket(
                partial(Link, self._loop, self._options, made),
                sock,
                ssl=tls,
                ssl_handshake_timeout=self._access.hello_timeout if tls is not None else None,
                ssl_shutdown_timeout=self._options.close_timeout if tls is not None else None,
            )
        except BaseException as error:
            sock.close()
            if links:
                # It got as far as to be there, and ends by itself.
                links[0].abort()
            else:
                self._leave(address[0], has_room)
                self._turned_away(address, CloseReason.TLS if tls is not None else CloseReason.LOST, None)
            if not isinstance(error, OSError):
                raise

    def _enter(self, link: Link, has_room: bool) -> SocketPort | Visitor:
        if has_room and self._access.tokens is None:
            link.gate_sysex(self._sysex_rule(link, has_token=False))
            return self._let_in(link, None)
        link.guarded = True
        visitor = Visitor(link, has_room, self._told if has_room else self._told_busy, self._visitor_lost)
        self._visitors.add(visitor)
        reason = CloseReason.UNAUTHORIZED if has_room else CloseReason.BUSY
        patience = self._access.hello_timeout if has_room else _BUSY_PATIENCE_S
        visitor.patience = self._loop.call_later(patience, link.refuse, reason)
        return visitor

    def _told(self, visitor: Visitor, aside: Aside) -> None:
        link, tokens = visitor.link, self._access.tokens
        assert tokens is not None
        if not tokens.accepts(aside.token):
            link.refuse(CloseReason.UNAUTHORIZED, answer(401))
            return
        visitor.leave()
        self._visitors.discard(visitor)
        link.guarded = False
        link.gate_sysex(self._sysex_rule(link, has_token=True))
        link.messages_refused = visitor.messages_refused
        link.say(answer(200))
        link.owner = self._let_in(link, aside)

    def _told_busy(self, visitor: Visitor, aside: Aside) -> None:
        visitor.link.refuse(CloseReason.BUSY, answer(503))

    def _visitor_lost(self, visitor: Visitor) -> None:
        self._visitors.discard(visitor)
        link = visitor.link
        self._leave(link.peer[0], visitor.has_room)
        self._turned_away(link.peer, link.reason or CloseReason.LOST, visitor)

    def _leave(self, address: str, had_room: bool) -> None:
        if had_room:
            self._crowd.leave(address)
        else:
            self._busy -= 1

    def _sysex_rule(self, link: Link, *, has_token: bool) -> SysexRule | None:
        wish = self._options.sysex
        if wish is True:
            return None
        if wish is not None:
            return SysexRule(wish)
        trusted = has_token or is_loopback(link.peer[0]) or has_client_certificate(link.transport)
        return None if trusted else NO_SYSEX

    def _spawn(
        self,
        work: Coroutine[Any, Any, None],
        name: str,
        failed: Callable[[Exception], object] = lambda error: None,
    ) -> None:
        self._tasks.add(BackgroundTask(work, name=name, failed=failed, ended=self._tasks.discard))
