"""What `serve` tells: lines for people, or one JSON object a line for programs; and what a live view tells
beside its picture.

Lines go to a printer that drops what it has no room for, so telling never holds up the relay. What matters
more than the messages that pass (who comes and goes, warnings, counts) has room of its own.

A JSON object has an "event", the "time" in seconds since 1970, and:

    listening       "addresses", and their "port" number; "reachable": those that other machines can use
    connected       "name", "peer"
    disconnected    "name", "peer", "reason" (of midinet.CloseReason), "seconds", "stats"; also for whoever
                    was not let in, and so never connected
    stats           every count of midinet's ServerStats, by its name there
    log             "level", "text": a warning or anything else that is logged
    missed          "lines": how many could not be written in time
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from mido import Message

from ..address import format_address
from ..gateways.broker import BrokerStats
from ..net.port import SocketPort
from ..net.stats import ClosedConnection, PortStats, ServerStats
from .access import in_options
from .printer import Printer

MISSED_LINE = "... {} messages not shown"
MISSED_EVENT = '{{"event": "missed", "lines": {}}}'

# Lines that say who comes and goes find room when those of a flood do not, up to this many.
_SPARE_LINES = 1000

# Characters. A line of counts is no longer than a terminal is wide.
_WIDTH = 80

# Of a live view: more than it ever shows, and those that are told at its end.
_MAX_EVENTS = 20


class LineReport:
    """Tells it to people.

    Args:
        printer: where to.
        quiet: tell only what has to be known.
    """

    def __init__(self, printer: Printer, *, quiet: bool = False) -> None:
        self._printer = printer
        self._quiet = quiet
        self._rates = Rates()
        # What is logged before it listens; None from then on. The first line is where that is, for scripts.
        self._early: list[str] | None = []

    def listening(self, name: str, addresses: list[tuple[str, int]], others: list[str]) -> None:
        """Tell where it listens, and by which addresses other machines can reach it."""
        self._printer.offer("midinet listens on", name)
        if others or not self._quiet:
            self._printer.offer(reached_by(addresses, others))
        early, self._early = self._early or [], None
        for line in early:
            self._printer.offer(line)

    def message(self, port: SocketPort, message: Message) -> None:
        """Tell what passes."""
        self._printer.offer(port.name, message)

    def stats(self, stats: ServerStats) -> None:
        """Tell the counts."""
        self._printer.offer(stats_line(stats, *self._rates.of(stats)), spare=_SPARE_LINES)

    def logged(self, record: logging.LogRecord) -> None:
        """Tell what is logged."""
        line = in_options(record.getMessage(), of_server=True)
        if self._early is not None:
            self._early.append(line)
        else:
            self._printer.offer(line, spare=_SPARE_LINES)


class JsonReport:
    """Tells it to programs.

    Args:
        printer: where to.
    """

    def __init__(self, printer: Printer) -> None:
        self._printer = printer

    def _tell(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts})
        self._printer.offer(line, spare=_SPARE_LINES)

    def listening(self, name: str, addresses: list[tuple[str, int]], others: list[str]) -> None:
        """Tell where it listens, and by which addresses other machines can reach it."""
        self._tell(
            "listening",
            addresses=[format_address(*address) for address in addresses],
            port=addresses[0][1],
            reachable=others,
        )

    def stats(self, stats: ServerStats) -> None:
        """Tell the counts."""
        closed = {reason.name.lower(): count for reason, count in stats.closed.items()}
        self._tell("stats", **(asdict(stats) | {"closed": closed}))

    def logged(self, record: logging.LogRecord) -> None:
        """Tell what is logged: as an event of its own if it is one."""
        port: SocketPort | None = getattr(record, "connected", None)
        gone: ClosedConnection | None = getattr(record, "disconnected", None)
        if port is not None:
            self._tell("connected", name=port.name, peer=format_address(*port.peer))
        elif gone is not None:
            self._tell(
                "disconnected",
                name=gone.name,
                peer=format_address(*gone.peer),
                reason=gone.reason.name.lower(),
                seconds=round(gone.seconds, 3),
                stats=asdict(gone.stats),
            )
        else:
            text = in_options(record.getMessage(), of_server=True)
            self._tell("log", level=record.levelname.lower(), text=text)


class Events:
    """What a live view tells beside its picture.

    Attributes:
        last: the last events, with the time of day.
    """

    def __init__(self) -> None:
        self.last: deque[str] = deque(maxlen=_MAX_EVENTS)
        self._warnings: deque[str] = deque(maxlen=_MAX_EVENTS)

    def tell(self, text: str) -> None:
        """Tell an event."""
        self.last.append(f"{time.strftime('%H:%M:%S')} {text}")

    def logged(self, record: logging.LogRecord) -> None:
        """Tell what is logged."""
        text = in_options(record.getMessage(), of_server=True)
        self.tell(text)
        if record.levelno >= logging.WARNING:
            self._warnings.append(text)

    def take_warnings(self) -> list[str]:
        """Return what was wrong and has not been taken, to be told before the view or after it."""
        warnings = list(self._warnings)
        self._warnings.clear()
        return warnings


@contextmanager
def shown_log(report: LineReport | JsonReport | Events, level: int) -> Iterator[None]:
    """Report what midinet logs. Written by logging itself, it could block the loop."""
    logger = logging.getLogger("midinet")
    handler = _Handler(report)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Handler(logging.Handler):
    """Gives what is logged to a report."""

    def __init__(self, report: LineReport | JsonReport | Events) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.logged(record)


class Rates:
    """Messages/s since the last time they were asked for."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._received = 0
        self._sent = 0

    def of(self, stats: PortStats) -> tuple[float, float]:
        """Return how many came in and how many went out, a second."""
        now = time.monotonic()
        seconds = max(now - self._at, 1e-6)
        rates = (
            (stats.messages_received - self._received) / seconds,
            (stats.messages_sent - self._sent) / seconds,
        )
        self._at, self._received, self._sent = now, stats.messages_received, stats.messages_sent
        return rates


def stats_line(stats: ServerStats, received_rate: float, sent_rate: float) -> str:
    """Return the counts in words, those that matter most first, in 80 characters.

    Args:
        stats: the counts.
        received_rate: messages/s that came in lately.
        sent_rate: messages/s that went out.
    """
    line = (
        f"stats: {stats.clients} client{'' if stats.clients == 1 else 's'}, "
        f"in {short(received_rate)}/s, out {short(sent_rate)}/s"
    )
    if stats.broker is not None:
        line += f", {hubs_in_words(stats.broker)}"
    parts = [f", {word}" for word in losses(stats)]
    while parts:
        more = ", ..." if len(parts) > 1 else ""
        if len(line + parts[0] + more) > _WIDTH:
            return line + ", ..."
        line += parts.pop(0)
    return line


def hubs_in_words(broker: BrokerStats) -> str:
    """Return how many hubs are one, with the one that tells, as in "3 hubs"."""
    return f"{broker.hubs + 1} hub{'s' if broker.hubs else ''}" if broker.connected else "no broker"


def losses(stats: PortStats) -> list[str]:
    """Return what did not get where it was meant to go, in words with its count, those that matter most
    first."""
    broker = stats.broker if isinstance(stats, ServerStats) else None
    counts = {
        "dropped": stats.messages_dropped,
        "thinned": stats.messages_thinned + stats.late_notes + stats.late_clocks,
        "refused": stats.messages_refused + stats.sysex_refused,
        "turned away": stats.turned_away if isinstance(stats, ServerStats) else 0,
        "not for other hubs": 0 if broker is None else broker.messages_dropped + broker.messages_thinned,
        "missed from other hubs": 0 if broker is None else broker.gaps + broker.late_notes,
        "damaged": damaged(stats),
    }
    return [f"{word} {short(count)}" for word, count in counts.items() if count]


def lost(stats: PortStats) -> int:
    """Return how many messages of one connection did not get where they were meant to go."""
    return (
        stats.messages_dropped
        + stats.messages_thinned
        + stats.late_notes
        + stats.late_clocks
        + stats.messages_refused
        + stats.sysex_refused
        + damaged(stats)
    )


def damaged(stats: PortStats) -> int:
    """Return how many messages came that were none, or not whole."""
    return stats.undefined + stats.unfinished + stats.sysex_aborted + stats.sysex_too_long


def reached_by(addresses: list[tuple[str, int]], others: list[str]) -> str:
    """Return how other machines reach a server, in words.

    Args:
        addresses: those that it listens on.
        others: those that other machines can use.
    """
    if others:
        return f"others connect to {', '.join(others)}"
    return f"only this machine can connect; to let others in: midinet serve :{addresses[0][1]}"


def short(count: float) -> str:
    """Return a count in five characters: 999, 1.23k, 12.3M."""
    unit = ""
    for larger in "kMG":
        if count < 999.5:
            break
        count, unit = count / 1000, larger
    digits = 0 if not unit or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{unit}"
