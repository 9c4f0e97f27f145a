"""Hubs on several machines joined through NATS: one session, one hub for all their clients.

What hubs say to each other is in session.py; this is the way there. A session is one subject, and the frames
of a loop turn go in one broker message.

- To the hub, the broker is a member like any other: it has one outbox, which is the origin of all that comes
  from the other hubs, so that nothing of that goes back. The outbox holds the backlog while the broker is
  away, slow or stopped, and thins it as for any slow peer; so nobody else ever waits for the broker.
- One task connects, and then does what is due; nats-py connects again by itself. One task hands to nats-py
  what has gathered. What arrives comes in a task of nats-py's.
- How far the broker has taken what it was sent, NATS's own PING and PONG tell: so much at most is under way.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import CloseReason, MissingExtra, UsageError
from ..hub.hub import Hub
from ..hub.outbox import Outbox, OutboxLimits
from ..hub.performance import Performance
from ..net.tasks import BackgroundTask
from ..wire.parser import count_messages
from ..wire.spec import END_OF_SYSEX
from .packets import HEADER_BYTES, IDENTITY_BYTES
from .session import Session, SessionStats

if TYPE_CHECKING:
    from mido import Message
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

logger = logging.getLogger("midinet.broker")

DEFAULT_SESSION = "midinet"

# It is a part of a subject, where dots and wildcards mean something (NATS: Subject-Based Messaging).
_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Keywords of nats.connect that a broker needs for itself.
_OWN_OPTIONS = frozenset({"servers", "error_cb", "disconnected_cb", "reconnected_cb", "closed_cb"})

_SCHEMES = ("nats", "tls", "ws", "wss")

# Bytes under way to the broker: a twentieth of a second at 5 MB/s, which is 1.6 million notes.
_WINDOW = 1 << 18

_ACTIVE_SENSING = b"\xfe"
_STATUS = re.compile(rb"[\x80-\xf6\xf8-\xff]")

# Bytes of MIDI in one packet, unless a single message is longer. NATS takes 1 MiB (max_payload) by default.
_PACKET_BYTES = 1 << 16

# Bytes and messages that nats-py keeps while they are not taken, before it drops what comes.
_MAX_ARRIVED_BYTES = 1 << 23
_MAX_ARRIVED = 1 << 16

# Bytes taken before everybody else has a turn: nats-py's task would go on while there is more.
_SPREE = 1 << 14

# Seconds. Until the broker is missed, twice; the answer to that is a new connection, maybe to another one.
_PING_S = 1
_MOST_PINGS = 2
_CONNECT_S = 2

# Seconds for which it is waited that nats-py lets go of a connection before that is done for it.
_STUCK_S = 0.5

# Seconds between attempts to connect.
_RETRY_S = 0.2
_MOST_RETRY_S = 0.5

# Seconds that the end may take.
_CLOSE_S = 1.0


@dataclass(slots=True, kw_only=True)
class BrokerStats(SessionStats):
    """What went between this hub and the others of its session."""

    session: str = ""
    connected: bool = False
    """Whether there is a broker now."""
    url: str = ""
    """Of the broker, without what it asks for; empty while there is none."""
    connects: int = 0
    """How often a broker was found."""
    error: str = ""
    """Why this hub has left the session for good; empty while it has not."""
    messages_dropped: int = 0
    """Messages of this hub's clients that did not go out, because of the hard bound, or at the end."""
    messages_thinned: int = 0
    """Those that gave way to the difference, because the broker was away or too slow."""
    slow_episodes: int = 0
    """How often that was so."""
    too_long: int = 0
    """System exclusive messages that are longer than the broker takes."""
    messages_unread: int = 0
    """Messages of the other hubs' clients that this hub's clients got, and its reader did not, for want of
    room: there is no way to have the other hubs wait."""


class SessionPort:
    """The other hubs of a session, as a server with `yield_ports` gives them beside their clients' messages.

    Attributes:
        name: "session " and the name of the session.
        peer: ("", 0), since they are at no one address.
        closed: False. It only stands beside messages, and is neither opened nor closed.
    """

    closed = False
    peer = ("", 0)
    # What the blocking twin of a client's port looks at. Nothing can be sent to it, and closing does nothing.
    _own_inbox = _outlet = None
    _is_over = True
    _reason = CloseReason.LOCAL

    def __init__(self, session: str, stats: Callable[[], BrokerStats], go_on: Callable[[], object]) -> None:
        self.name = f"session {session}"
        self._stats = stats
        self._go_on = go_on

    @property
    def stats(self) -> BrokerStats:
        """What went between this hub and the others, as it stands."""
        return self._stats()

    async def send(self, message: Message) -> None:
        """Raise UsageError: nothing can be sent to other hubs alone. What the server sends they all get."""
        raise self._gone()

    def reset(self) -> None:
        """Raise UsageError, as `send` does."""
        raise self._gone()

    def panic(self) -> None:
        """Raise UsageError, as `send` does."""
        raise self._gone()

    def __repr__(self) -> str:
        return f"<SessionPort {self.name}>"

    def _resume(self) -> None:
        self._go_on()

    def _gone(self) -> UsageError:
        return UsageError(
            f"nothing can be sent to the other hubs of {self.name} alone: what the server sends they all get"
        )


class Broker:
    """One hub's way to the others of its session.

    Args:
        loop: the running loop.
        hub: what is joined to the others.
        servers: the URLs of one broker, or of several that are a cluster.
        session: hubs with the same are one.
        options: of nats.connect: credentials, keys, tls and so on.
        limits: what may wait for the broker; None is what may wait for any peer. What is beyond gives way to
            the performance in any case.
        heard: is told what comes from the other hubs' clients, in whole messages, until it returns False, and
            again after `_resume` of the port that it is given was called.

    Raises:
        MissingExtra: nats-py is not installed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: Hub,
        servers: Sequence[str],
        session: str,
        *,
        options: Mapping[str, Any] | None = None,
        limits: OutboxLimits | None = None,
        heard: Callable[[SessionPort, bytes], bool] = lambda port, data: True,
    ) -> None:
        self._nats = need_nats()
        self._loop = loop
        self._hub = hub
        self._servers = list(servers)
        self._subject = f"midinet.{session}"
        self._name = session
        self._options = dict(options or {})
        self._heard = heard
        self._is_heard = True
        self._unread = 0
        # As whom its reader hears all other hubs' clients.
        self._port = SessionPort(session, lambda: self.stats, self._resume)
        self._client: Client | None = None
        self._connects = 0
        self._too_long = 0
        # What has gathered for the broker, and what a sender waits for.
        self._pieces: list[bytes] = []
        self._packets: list[bytes] = []
        self._something = asyncio.Event()
        self._under_way = 0
        self._spree = 0
        self._packet_bytes = _PACKET_BYTES
        self._is_away = True
        self._told_of_absence = False
        self._closing = False
        # Seconds between attempts to connect. Hubs that lost one broker do not all come back at once.
        self._pause = random.uniform(_RETRY_S, _MOST_RETRY_S)
        self._error = ""
        self._send_task: BackgroundTask | None = None
        # A broker that is away is no reason to part with it, whatever becomes of slow peers.
        limits = replace(limits or OutboxLimits(), slow="thin")
        self.outbox = Outbox(self._gather, lambda: None, limits=limits)
        self.session = Session(
            os.urandom(IDENTITY_BYTES),
            self._performance,
            self.outbox,
            self._say,
            self._put,
            loop.time(),
        )
        hub.join(self.outbox)
        # Until there is a broker.
        self.outbox.stall()
        self._run_task = BackgroundTask(self._run(), name=f"midinet broker {session}", failed=self._fail)
        self._tick_task = BackgroundTask(
            self._tick(), name=f"midinet broker {session} tick", failed=self._fail
        )

    @property
    def stats(self) -> BrokerStats:
        """The counts as they stand."""
        of_session, of_outbox = self.session.stats, self.outbox.stats
        return BrokerStats(
            session=self._name,
            connected=self._client is not None and not self._is_away,
            url=self._url,
            connects=self._connects,
            error=self._error,
            messages_dropped=of_outbox.dropped,
            messages_thinned=of_outbox.thinned + of_outbox.late_notes + of_outbox.late_clocks,
            slow_episodes=of_outbox.episodes,
            too_long=self._too_long,
            messages_unread=self._unread,
            **{name: getattr(of_session, name) for name in SessionStats.__dataclass_fields__},
        )

    @property
    def _url(self) -> str:
        if self._is_away or self._client is None or self._client.connected_url is None:
            return ""
        return without_password(self._client.connected_url.geturl())

    # What this hub's clients say.

    def _gather(self, data: bytes) -> None:
        """What the outbox hands over."""
        self._pieces.append(data)
        self._something.set()

    def _publish_gathered(self) -> None:
        pieces, self._pieces = self._pieces, []
        # A hub speaks for many: that the active sensing of one of them ends says nothing of the others.
        data = b"".join(pieces).replace(_ACTIVE_SENSING, b"")
        now = self._loop.time()
        while data:
            piece = data if len(data) <= self._packet_bytes else first_messages(data, self._packet_bytes)
            self.session.publish(piece, count_messages(piece), now)
            data = data[len(piece) :]

    def _put(self, packet: bytes) -> None:
        """What the session sends."""
        if not self._is_away:
            self._packets.append(packet)
            self._something.set()

    def _performance(self) -> Performance:
        performance = self._hub.present()
        # What it has in it has to go out before anything that is said of it.
        self._publish_gathered()
        return performance

    async def _send(self, client: Client) -> None:
        try:
            await self._send_on(client)
        except (OSError, self._nats.errors.Error):
            pass  # It found the connection closed, which `_run` is told by nats-py.

    async def _send_on(self, client: Client) -> None:
        while True:
            await self._something.wait()
            self._publish_gathered()
            self._something.clear()
            packets, self._packets = self._packets, []
            for packet in packets:
                if self._is_away:
                    break  # The others miss a number, and ask.
                if len(packet) > client.max_payload:
                    self._too_long += 1
                    continue
                self._under_way += len(packet)
                await client.publish(self._subject, packet)
                if self._under_way > _WINDOW:
                    await self._wait_for_broker(client)

    async def _wait_for_broker(self, client: Client) -> None:
        """Let all else wait in the outbox until the broker has taken what is under way."""
        self.outbox.stall()
        while self._under_way:
            try:
                await client.flush(_PING_S)
                self._under_way = 0
            except (TimeoutError, self._nats.errors.Error):
                # It is slow, or away. When it is back, nothing is under way any more.
                await asyncio.sleep(_RETRY_S)
        if not self._is_away:
            self._drain()

    def _drain(self) -> None:
        while self.outbox.drain(self._loop.time()):
            pass
        self.outbox.flow()

    # What the other hubs' clients say.

    async def _arrived(self, message: Msg) -> None:
        self.session.receive(message.data, self._loop.time())
        self._spree += len(message.data)
        if self._spree >= _SPREE:
            self._spree = 0
            await asyncio.sleep(0)

    def _say(self, data: bytes, messages: int) -> None:
        self._hub.publish(data, messages, origin=self.outbox)
        if self._is_heard:
            self._is_heard = self._heard(self._port, data)
        else:
            self._unread += messages

    def _resume(self) -> None:
        """Whoever hears this has room again."""
        self._is_heard = True

    # Coming and going.

    async def _run(self) -> None:
        while True:
            client = self._client = self._nats.aio.client.Client()
            closed = asyncio.Event()
            subscription: Subscription | None = None
            try:
                await client.connect(self._servers, **self._client_options(closed))
                subscription = await client.subscribe(
                    self._subject,
                    cb=self._arrived,
                    pending_msgs_limit=_MAX_ARRIVED,
                    pending_bytes_limit=_MAX_ARRIVED_BYTES,
                )
                # From then on the broker knows that something is to be heard here.
                await client.flush(_CONNECT_S)
                self._send_task = BackgroundTask(
                    self._send(client),
                    name=f"midinet broker {self._name} send",
                    failed=self._fail,
                    ended=partial(self._sender_ended, closed),
                )
                await self._found()
                await closed.wait()
            except (OSError, self._nats.errors.Error) as error:
                await self._failed(error)
            finally:
                if self._send_task is not None:
                    await self._send_task.stop()
                await self._disconnect(client, subscription)
            await self._lost()
            await asyncio.sleep(self._pause)

    def _sender_ended(self, closed: asyncio.Event, task: BackgroundTask) -> None:
        # However it came to that: without it there is nothing to stay connected for.
        if not self._closing:
            closed.set()

    def _client_options(self, closed: asyncio.Event) -> dict[str, Any]:
        async def note_closed() -> None:
            closed.set()

        return {
            "name": f"midinet {self._name}",
            "no_echo": True,
            "ping_interval": _PING_S,
            "max_outstanding_pings": _MOST_PINGS,
            "connect_timeout": _CONNECT_S,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": self._pause,
            "pending_size": 8 * _WINDOW,
            **self._options,
            "error_cb": self._failed,
            "disconnected_cb": self._lost,
            "reconnected_cb": self._found,
            "closed_cb": note_closed,
        }

    async def _tick(self) -> None:
        stuck_since: float | None = None
        while True:
            now = self._loop.time()
            until = self.session.tick(now)
            if self._client is None or self._is_away or not self._client.is_reconnecting:
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            elif now - stuck_since >= _STUCK_S:
                abort(self._client)
            await asyncio.sleep(max(until - now, 0))

    async def _found(self) -> None:
        self._is_away = self._told_of_absence = False
        self._connects += 1
        self._under_way = 0
        if self._client is not None:
            self._packet_bytes = min(_PACKET_BYTES, self._client.max_payload - HEADER_BYTES)
        logger.info("session %s: joined through the broker at %s", self._name, self._url)
        self.session.connected(self._loop.time())
        self._drain()

    async def _lost(self) -> None:
        if not self._is_away:
            self._is_away = True
            self._under_way = 0
            self._packets.clear()
            self.outbox.stall()
            self._tell_absence("it is gone")

    async def _failed(self, error: Exception) -> None:
        if self._is_away:
            self._tell_absence(str(error) or type(error).__name__)
            if self._client is not None:
                # An attempt that failed half way: nats-py would leave its connection open.
                abort(self._client)

    def _tell_absence(self, reason: str) -> None:
        """Say so once, until it is there again."""
        if not self._told_of_absence and not self._closing:
            self._told_of_absence = True
            where = ", ".join(map(without_password, self._servers))
            logger.warning("session %s: no broker at %s: %s; trying again", self._name, where, reason)

    def _fail(self, error: Exception) -> None:
        """Go on without the other hubs, for good: releases what their clients held."""
        if self._closing:
            return
        self._error = f"{type(error).__name__}: {error}"
        self._closing = self._is_away = True
        self._run_task.cancel()
        self._tick_task.cancel()
        self.session.lose_all()
        self._hub.leave(self.outbox)
        self.outbox.close()

    async def close(self) -> None:
        """Send what is left, tell the other hubs that this one ends, and disconnect.

        It takes two seconds at most. Cancelling is not safe.
        """
        self._closing = True
        self._tick_task.cancel()
        client = self._client
        if client is not None and not self._is_away and not self.outbox.stalled:
            if self._send_task is not None:
                await self._send_task.stop()
            self._publish_gathered()
            self.session.end(self._loop.time())
            try:
                async with asyncio.timeout(_CLOSE_S):
                    for packet in self._packets:
                        await client.publish(self._subject, packet)
                    await client.flush(_PING_S)
            except (OSError, self._nats.errors.Error):
                pass  # The others will find out.
        await self._run_task.stop()
        await self._tick_task.wait()
        self.outbox.close()

    async def _disconnect(self, client: Client, subscription: Subscription | None) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                if subscription is not None and not client.is_closed:
                    # Closing alone leaves its task behind when the broker is away.
                    await subscription.unsubscribe()
                await client.close()
        except (OSError, self._nats.errors.Error):
            abort(client)
        await end_reconnecting(client)


def need_nats() -> Any:
    """Return nats-py.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import nats.aio.client
    except ModuleNotFoundError:
        raise MissingExtra("nats", "broker=") from None
    return nats


def check_options(options: Mapping[str, Any]) -> None:
    """Check that keywords are of nats.connect. Without nats-py nobody knows which these are.

    Raises:
        TypeError: there is no such keyword.
        ValueError: it is one that midinet sets itself.
    """
    if own := [name for name in options if name in _OWN_OPTIONS]:
        raise ValueError(f"broker_options: {own[0]} is not for a caller to set")
    if not options:
        return
    try:
        known = inspect.signature(need_nats().aio.client.Client.connect).parameters
    except MissingExtra:
        return
    if unknown := [name for name in options if name not in known or name == "self"]:
        raise TypeError(f"broker_options: nats.connect has no option {unknown[0]!r}")


def abort(client: Client) -> None:
    """Let go of a connection to a broker that has stopped, to which nats-py would wait for ever to write."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


async def end_reconnecting(client: Client) -> None:
    """End the task of nats-py that reconnects, where its one cancellation got lost as in `BackgroundTask`."""
    task = getattr(client, "_reconnection_task", None)
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CLOSE_S)


def first_messages(data: bytes, size: int) -> bytes:
    """Return as many whole messages as there is room for in so many bytes, and one at least."""
    # From the last status byte in reach: a message ends before it, or with it.
    end = size
    while end and (data[end] < 0x80 or data[end] == END_OF_SYSEX):
        end -= 1
    if not end:
        # One that is longer goes as a whole.
        second = _STATUS.search(data, 1)
        end = len(data) if second is None else second.start()
    return data[:end]


def read_servers(broker: str | Sequence[str]) -> list[str]:
    """Return the URLs of a broker.

    Args:
        broker: one, several in one string with commas between, or several.

    Raises:
        ValueError: one is no URL of a NATS server.
    """
    urls = [url.strip() for url in broker.split(",")] if isinstance(broker, str) else list(broker)
    for url in urls:
        parts = urlsplit(url)
        try:
            is_one = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one:
            raise ValueError(
                f"{without_password(url)!r} is no broker: a URL is expected, as in nats://localhost:4222"
            )
    if not urls:
        raise ValueError("no broker is given: a URL is expected, as in nats://localhost:4222")
    return urls


def check_session(session: str) -> str:
    """Return the name of a session.

    Raises:
        ValueError: it cannot be one.
    """
    if not _SESSION.fullmatch(session):
        raise ValueError(
            f"{session!r} is no session: 1 to 64 letters, digits, - and _ are expected, as in main-stage"
        )
    return session


def without_password(url: str) -> str:
    """Return a URL without what it would be read with by others."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}" if found else rest or url.rpartition("@")[2]
