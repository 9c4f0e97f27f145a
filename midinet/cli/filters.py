"""Which messages are shown, decided by their bytes before anything is made of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Set
from difflib import get_close_matches
from typing import Annotated

import typer

from ..hub.performance import Performance
from ..net.inbox import Inbox, Source
from ..wire.codec import DECODERS
from ..wire.spec import END_OF_SYSEX, FIRST_SYSTEM, UNDEFINED
from .common import Complaint

# The options, for every verb that shows messages.
Channels = Annotated[
    list[int] | None,
    typer.Option(
        "--channel",
        metavar="1-16",
        min=1,
        max=16,
        help="Show this channel alone; may be given several times. It counts from 1, as musicians do, while "
        "mido's text form counts from 0: channel=0 there is 1 here. Messages without a channel, such as "
        "clock and sysex, are then not shown.",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE,...",
        help="Show messages of these types alone, by mido's names, as in note_on,note_off,control_change; "
        "may be given several times. The keyboard of a live view shows what is held all the same.",
    ),
]
NoClock = Annotated[
    bool, typer.Option("--no-clock", help="Show neither clock nor active sensing, which come all the time.")
]

_CLOCKS = frozenset({"clock", "active_sensing"})


def _statuses_by_type() -> dict[str, frozenset[int]]:
    statuses: dict[str, set[int]] = {}
    for status in range(0x80, 0x100):
        if status not in UNDEFINED and status != END_OF_SYSEX:
            statuses.setdefault(DECODERS[status](status, 0, 0).type, set()).add(status)
    return {kind: frozenset(found) for kind, found in statuses.items()}


# Status bytes by mido's names, in the order of the bytes.
STATUSES = _statuses_by_type()


class MessageFilter:
    """Lets some messages pass.

    Args:
        statuses: the status bytes of those that do.
        channels: the channels among them that do, from 0; None is all.
    """

    def __init__(self, statuses: Set[int], channels: Collection[int] | None = None) -> None:
        self.channels = None if channels is None else frozenset(channels)
        kept = [status for status in statuses if self._has(status)]
        if not kept:
            raise Complaint("--channel, --type and --no-clock leave no message to show")
        # In whole messages, the first byte that fits is the status byte of one, and F7 only ends a sysex.
        self._find = re.compile(b"[%b][\x00-\x7f]*\xf7?" % re.escape(bytes(sorted(kept)))).findall

    def _has(self, status: int) -> bool:
        return self.channels is None or (status < FIRST_SYSTEM and status & 15 in self.channels)

    def __call__(self, data: bytes) -> bytes:
        """Return those of some whole messages that pass, all of them joined."""
        return b"".join(self._find(data))


def message_filter(
    channels: Iterable[int] | None, types: Iterable[str] | None, no_clock: bool
) -> MessageFilter | None:
    """Return the filter that options ask for; None if everything is to be shown.

    Args:
        channels: from 1; None or none of them is all.
        types: mido's names, several of them with commas between; None or none of them is all.
        no_clock: leave out clock and active sensing.

    Raises:
        Complaint: there is no such type, or nothing would be left.
    """
    channels, types = list(channels or ()), list(types or ())
    if not (channels or types or no_clock):
        return None
    wanted = _types_in(types) if types else set(STATUSES)
    if no_clock:
        wanted -= _CLOCKS
    statuses = {status for kind in wanted for status in STATUSES[kind]}
    return MessageFilter(statuses, [channel - 1 for channel in channels] or None)


def _types_in(texts: Iterable[str]) -> set[str]:
    names = {name.strip() for text in texts for name in text.split(",")}
    for name in sorted(names - STATUSES.keys()):
        close = get_close_matches(name.lower(), STATUSES, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(STATUSES)}"
        raise Complaint(f"--type: {name!r} is no type of message; {advice}")
    return names


class FilteredInbox(Inbox):
    """An inbox that takes in what a filter lets pass, and knows nothing of the rest.

    Args:
        only: the filter.
        max_messages, tagged: as of any inbox.
    """

    def __init__(self, only: MessageFilter, max_messages: int, *, tagged: bool = False) -> None:
        super().__init__(max_messages, tagged=tagged)
        self._only = only

    def put(self, source: Source, data: bytes) -> bool:
        data = self._only(data)
        return not data or super().put(source, data)


# Reads of a socket. As many as a tall terminal has lines: live, each brings a message or two.
_MAX_READS = 100

# Bytes. Of what one read brought, as much as there are lines for: a flood brings 64 KiB at a time.
_MAX_READ = 1024

# Data bytes alone, or with the end of a sysex: the rest of a message that was cut.
_REST_OF_ONE = re.compile(rb"[\x00-\x7f]*\xf7?")


class Tail(Inbox):
    """An inbox that nobody empties: it keeps what came last, in whole messages, and is never full.

    A read costs it the same however many messages it brought, unless there is a filter, or nobody else
    follows the performance.

    Args:
        only: keep what this lets pass; None is everything.
        follow: keep the performance, as `performance`.
    """

    def __init__(self, only: MessageFilter | None = None, *, follow: bool = False) -> None:
        super().__init__(1)
        self._only = only
        self.performance = Performance() if follow else None
        self._reads: list[tuple[Source, bytes]] = []

    def put(self, source: Source, data: bytes) -> bool:
        if self.performance is not None:
            self.performance.observe(data, source, 0.0)
        if self._only is not None:
            data = self._only(data)
        if data:
            # Anything longer without a status in its tail is one sysex, which is kept whole.
            if len(data) > _MAX_READ:
                tail = data[-_MAX_READ:]
                rest = _REST_OF_ONE.match(tail)
                assert rest is not None
                data = tail[rest.end() :] or data
            self._reads.append((source, data))
            if len(self._reads) >= 2 * _MAX_READS:
                del self._reads[:-_MAX_READS]
        return True

    def release(self, source: Source) -> None:
        if self.performance is not None:
            self.performance.forget(source)

    def last(self) -> list[tuple[Source, bytes]]:
        """Return who said what last: whole messages, joined, of each read."""
        return self._reads[-_MAX_READS:]
