"""The live views of a hub and of what a client hears: looked at ten times a second, and left to be painted.

Looking costs the same however much passes: what came last is kept as it came, and taken apart by the thread
that paints. Counts are taken less often, since rates over a tenth of a second cannot be read, and since with
thousands of clients they take long.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Never

from ..address import SCHEME, format_address
from ..hub.performance import Performance
from ..net.port import PortState, SocketPort
from ..net.server import PortServer
from .filters import MessageFilter, Tail
from .report import Events, Rates, hubs_in_words, losses, lost, short
from .screen import PAINT_EVERY_S, Screen
from .view import ClientLine, State, can_draw, clock_time, compose, counted

# Seconds from one count to the next; and how many times as long as the count took, so that it takes 2 % of a
# processor at most.
_COUNT_EVERY_S = 0.5
_PAUSES_PER_COUNT = 50

# Seconds from one ping of a server to the next; and when it did not answer the last one, as mido's do not.
_PING_EVERY_S = 2.0
_PING_AGAIN_S = 10.0

_MS = 1000


async def paint(look: Callable[[], State]) -> Never:
    """Show what there is to see on standard output, a terminal, until cancelled.

    Args:
        look: returns it.
    """
    draw = partial(compose, in_ascii=not can_draw(sys.stdout.encoding or "ascii"))
    async with Screen(draw) as screen:
        while True:
            screen.show(look())
            await asyncio.sleep(PAINT_EVERY_S)


class HubView:
    """What there is to see of a hub.

    Args:
        server: that it is.
        tail: that the server fills.
        events: that are told.
        others: the addresses that other machines can use.
        only: the messages that are shown, and the channels of the notes; None is all.
    """

    def __init__(
        self,
        server: PortServer,
        tail: Tail,
        events: Events,
        *,
        others: list[str],
        only: MessageFilter | None = None,
    ) -> None:
        self._server = server
        self._tail = tail
        self._events = events
        self._others = others
        self._only = only
        self._begin = time.monotonic()
        self._count_at = 0.0
        self._rates = Rates()
        self._client_rates: dict[SocketPort, Rates] = {}
        self._received_rate = self._sent_rate = 0.0
        self._losses = ""
        self._session: list[str] = []
        self._clients: list[ClientLine] = []

    def look(self) -> State:
        """Return how things stand."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count()
            took = time.monotonic() - now
            self._count_at = now + max(_COUNT_EVERY_S, took * _PAUSES_PER_COUNT)
        held = sounding(self._server._hub.performance, self._only)
        return State(
            title="midinet serve",
            seconds=now - self._begin,
            status=counted(len(self._clients), "client"),
            where=self._where(),
            figures=[
                ("in", f"{short(self._received_rate)}/s"),
                ("out", f"{short(self._sent_rate)}/s"),
                ("held", str(len(held))),
            ],
            losses=self._losses,
            held=held,
            clients=self._clients,
            reads=[(port.name, data) for port, data in self._tail.last() if isinstance(port, SocketPort)],
            events=list(self._events.last),
        )

    def summary(self) -> str:
        """Return what came of it in a line."""
        stats = self._server.stats
        return (
            f"{clock_time(time.monotonic() - self._begin)}, {counted(stats.clients_total, 'client')}, "
            f"{counted(stats.messages_received, 'message')} in, {stats.messages_sent} out; "
            f"{', '.join(losses(stats)) or 'nothing lost'}"
        )

    def _where(self) -> str:
        found = self._others or [f"{format_address(*self._server.addresses[0])} (this machine only)"]
        announced = self._server.announced
        return "  ".join([*([] if announced is None else [f"{SCHEME}{announced}"]), *found, *self._session])

    def _count(self) -> None:
        stats = self._server.stats
        self._received_rate, self._sent_rate = self._rates.of(stats)
        self._losses = ", ".join(losses(stats))
        if (broker := stats.broker) is not None:
            self._session = [f"session {broker.session}: {hubs_in_words(broker)}"]
        before, self._client_rates = self._client_rates, {}
        clients = []
        for port in self._server.ports:
            own = port.stats
            rates = self._client_rates[port] = before.get(port) or Rates()
            clients.append(ClientLine(port.name, format_address(*port.peer), *rates.of(own), lost(own)))
        self._clients = clients


class PortView:
    """What there is to see of what a client hears.

    Args:
        port: the client.
        tail: that the port fills, and that follows the performance.
        events: that are told.
        only: the messages that are shown, and the channels of the notes; None is all.
        is_server: a server is at the other end, with clients and some way off, and no device of this machine.
    """

    def __init__(
        self,
        port: SocketPort,
        tail: Tail,
        events: Events,
        *,
        only: MessageFilter | None = None,
        is_server: bool = True,
    ) -> None:
        self._port = port
        self._is_server = is_server
        self._tail = tail
        self._events = events
        self._only = only
        self._begin = time.monotonic()
        self._count_at = 0.0
        self._rates = Rates()
        self._received_rate = 0.0
        self._round_trip_s: float | None = None

    def look(self) -> State:
        """Return how things stand."""
        now = time.monotonic()
        if now >= self._count_at:
            self._received_rate, _ = self._rates.of(self._port.stats)
            self._count_at = now + _COUNT_EVERY_S
        performance = self._tail.performance
        held = [] if performance is None else sounding(performance, self._only)
        return State(
            title="midinet monitor",
            seconds=now - self._begin,
            status=self._status(),
            where=self._port.name,
            figures=[
                ("in", f"{short(self._received_rate)}/s"),
                ("held", str(len(held))),
                *([("ping", self._round_trip())] if self._is_server else []),
            ],
            losses=", ".join(losses(self._port.stats)),
            held=held,
            reads=[(None, data) for _, data in self._tail.last()],
            events=list(self._events.last),
        )

    def summary(self) -> str:
        """Return what came of it in a line."""
        stats = self._port.stats
        return (
            f"{clock_time(time.monotonic() - self._begin)}, {counted(stats.messages_received, 'message')}; "
            f"{', '.join(losses(stats)) or 'nothing lost'}"
        )

    def _status(self) -> str:
        if self._port.state is not PortState.CONNECTED:
            return str(self._port.state.value)
        if not self._is_server:
            return "on this machine"
        return counted(self._port.peer_clients, "client")

    def _round_trip(self) -> str:
        return "-" if self._round_trip_s is None else f"{self._round_trip_s * _MS:.1f} ms"

    async def ping(self) -> Never:
        """Ask the server now and then how many clients it has, and how far away it is, until cancelled."""
        while True:
            try:
                self._round_trip_s = await self._port.ping()
            except OSError:
                # It does not answer, or is gone, which whoever reads the port is told.
                self._round_trip_s = None
            await asyncio.sleep(_PING_AGAIN_S if self._round_trip_s is None else _PING_EVERY_S)


def sounding(performance: Performance, only: MessageFilter | None = None) -> list[int]:
    """Return the notes that sound, as `channel << 7 | note`, in the order in which they were struck.

    Args:
        performance: of which.
        only: those of its channels; None is all.
    """
    notes = performance.sounding_notes
    if only is None or only.channels is None:
        return notes
    return [key for key in notes if key >> 7 in only.channels]
