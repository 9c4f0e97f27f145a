"""The present state in place of every message, for what arrives while nobody reads.

A program that has stopped reading would make its peers wait for ever. What they send from then on gives way
to the difference: when the program reads again, it gets what takes it from the last message of its queue to
the present state. What no state holds (system exclusive, song select, tune request) is kept in order, up to
the bound that an outbox has. Pure: time is an argument.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..hub.difference import difference
from ..hub.outbox import DEFAULT_MAX_OUTBOX, LATE_NOTE_S, kept_frames
from ..hub.performance import Origin, Performance
from ..hub.release import release

# A source, of whatever kind, and one of its messages.
Entry: TypeAlias = tuple[Any, bytes]


class Unread:
    """The state as of the last message of a queue, and what its sources have sent since.

    Args:
        read: the state as of the last message, with who holds what. It may not change any more.
        by_source: keep apart what each source sends, for a reader that is told where messages come from.
    """

    def __init__(self, read: Performance, *, by_source: bool) -> None:
        self._read = read
        self._by_source = by_source
        # In the order in which they sent last.
        self._sources: dict[Origin, tuple[Performance, Performance]] = {}
        self._kept: list[Entry] = []
        self._kept_bytes = 0

    def put(self, source: Origin, data: bytes, messages: int, now: float) -> int:
        """Take note of whole messages, joined. Returns how many of them the reader does not get.

        Args:
            now: a monotonic time in seconds, as of `catch_up`.
        """
        if self._by_source:
            _, present = self._states_of(source)
            # It sent last.
            self._sources[source] = self._sources.pop(source)
            present.observe(data, source, now)
        for frame in kept_frames(data):
            if self._kept_bytes + len(frame) <= DEFAULT_MAX_OUTBOX:
                self._kept.append((source, frame))
                self._kept_bytes += len(frame)
                messages -= 1
        return messages

    def release(self, source: Origin) -> None:
        """Take note that a source is gone, and nothing that it held is held any more."""
        if self._by_source:
            _, present = self._states_of(source)
            release(present, (source,))

    def catch_up(self, present: Performance, now: float) -> list[Entry]:
        """Return what brings the reader to a state, by source where that is kept apart.

        Args:
            present: the state after all that was put and released.
            now: a monotonic time in seconds. Notes that were struck long before are not struck late.
        """
        since = now - LATE_NOTE_S
        entries = self._kept
        reached = self._read.copy()
        last: Origin = None
        for source, (before, after) in self._sources.items():
            frames = difference(before, after, struck_since=since)
            entries += [(source, frame) for frame in frames]
            if frames:
                reached.observe(b"".join(frames), source, now)
            last = source
        # Sources that set the same did so in turns.
        rest = difference(reached.view(), present.view(), struck_since=since)
        return entries + [(last, frame) for frame in rest]

    def _states_of(self, source: Origin) -> tuple[Performance, Performance]:
        """Return what the reader has of a source, and what it shall have."""
        if source not in self._sources:
            before = self._read.held_alone(source)
            self._sources[source] = before, before.copy()
        return self._sources[source]
