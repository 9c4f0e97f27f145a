"""Who hears what.

A hub has members, each known by its outbox. `publish` notes what is to be said, and `flush`, once a loop
turn, says it: joined once, and handed to every member in one piece. Both are plain functions without a
wait in them, and `Outbox.offer` never waits either, so no member can hold up another.

    publish(frames)               every member hears them
    publish(frames, origin=a)     every member but a, where they came from
    publish(frames, only=a)       a alone

What each member hears is in the order of the calls, whatever their kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .outbox import Outbox

# Bytes published before a flush that no longer waits for the end of the turn. It bounds what a turn
# holds, and lets the first listeners go on while the rest is still being read.
_MAX_TURN = 65536


class _Said(NamedTuple):
    data: bytes
    messages: int
    origin: Outbox | None
    only: Outbox | None


class Hub:
    """Fans out what its members and its owner say.

    Args:
        flush_soon: called when something was published and nothing was waiting: arrange for `flush` to be
            called at the end of this loop turn.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, flush_soon: Callable[[], object], clock: Callable[[], float]) -> None:
        self._flush_soon = flush_soon
        self._clock = clock
        self._members: dict[Outbox, None] = {}
        self._turn: list[_Said] = []
        self._turn_bytes = 0

    def join(self, outbox: Outbox) -> None:
        """Add a member. It hears what is published from now on."""
        self.flush()
        self._members[outbox] = None

    def leave(self, outbox: Outbox) -> None:
        """Take a member out. What was published before still goes to it, as far as it can."""
        self.flush()
        self._members.pop(outbox, None)

    def publish(
        self, frames: Sequence[bytes], *, origin: Outbox | None = None, only: Outbox | None = None
    ) -> None:
        """Say frames to the members. They go out with the next flush.

        Args:
            frames: whole messages, at least one.
            origin: the member that they came from, which does not hear them.
            only: the one member that hears them.
        """
        data = b"".join(frames)
        if not self._turn:
            self._flush_soon()
        self._turn.append(_Said(data, len(frames), origin, only))
        self._turn_bytes += len(data)
        if self._turn_bytes >= _MAX_TURN:
            self.flush()

    def flush(self) -> None:
        """Hand what was published to the members it is for."""
        turn = self._turn
        if not turn:
            return
        self._turn = []
        self._turn_bytes = 0
        now = self._clock()
        # Members that are named in this turn get their own selection; all the others share one.
        named = {said.origin for said in turn} | {said.only for said in turn}
        shared = [said for said in turn if said.only is None]
        data = b"".join([said.data for said in shared])
        messages = sum([said.messages for said in shared])
        # A copy: a member whose outbox overflows leaves at once.
        for outbox in tuple(self._members):
            if outbox not in named:
                if messages:
                    outbox.offer(data, messages, now)
                continue
            own = [
                said
                for said in turn
                if said.origin is not outbox and (said.only is None or said.only is outbox)
            ]
            if own:
                outbox.offer(b"".join([said.data for said in own]), sum([said.messages for said in own]), now)
