"""Who hears what.

A hub has members, each known by its outbox. `publish` notes what is to be said, and `flush`, once a loop
turn, says it: joined once, and handed to every member in one piece. What a member says after a silence is
not kept for that. Both are plain functions without a wait in them, and `Outbox.offer` never waits either, so
no member can hold up another.

    publish(data, 1)               every member hears it: one message, or several joined
    publish(data, 1, origin=a)     every member but a, where it came from
    publish(data, 1, only=a)       a alone

What each member hears is in the order of the calls, whatever their kind.

The hub's performance is what was said, as of the last flush, so at any time every member has been offered
exactly that. It is noted when all is on its way, or before, when anybody has to know it. A member that was
told something alone has one that differs in that, until all are told the same (diverged.py).

What members that leave still held is let go of once a turn too, for all of them together: a network that
fails may take hundreds at once, and their notes would be hundreds of writes to each of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from operator import itemgetter
from typing import TypeAlias

from .difference import difference
from .diverged import Divergences
from .outbox import Outbox
from .performance import Performance
from .release import release, release_all, release_to_each

# Bytes published before a flush that no longer waits for the end of the turn. It bounds what a turn
# holds, and lets the first listeners go on while the rest is still being read.
_MAX_TURN = 65536

# Seconds. After such a silence, what a member says goes out at once: there is little that could go with it,
# and another turn of the loop takes as long as all else. While more is said than that, there would be twice
# as many writes.
_SILENCE_S = 0.0005


class _Said:
    """What one origin said in a row."""

    __slots__ = ("data", "messages", "only", "origin", "pieces")

    def __init__(self, data: bytes, messages: int, origin: Outbox | None, only: Outbox | None) -> None:
        self.pieces = [data]
        self.data = data
        self.messages = messages
        self.origin = origin
        self.only = only

    def is_for(self, outbox: Outbox) -> bool:
        return self.origin is not outbox and (self.only is None or self.only is outbox)


# Where in what all hear something is, and how many messages it is.
_Span: TypeAlias = tuple[int, int, int]


def _without(spans: list[_Span], data: bytes, messages: int) -> tuple[bytes, int]:
    rest = []
    at = 0
    for start, end, count in spans:
        rest.append(data[at:start])
        at = end
        messages -= count
    return b"".join([*rest, data[at:]]), messages


class Hub:
    """Fans out what its members and its owner say.

    Args:
        flush_soon: called when something was published and nothing was waiting: arrange for `flush` to be
            called at the end of this loop turn.
        clock: a monotonic clock, in seconds.
        release_notes: let go of what a member held when it leaves, and of what it heard.
    """

    def __init__(
        self, flush_soon: Callable[[], object], clock: Callable[[], float], *, release_notes: bool = True
    ) -> None:
        self._flush_soon = flush_soon
        self._clock = clock
        self._release_notes = release_notes
        self._members: dict[Outbox, None] = {}
        self._turn: list[_Said] = []
        self._turn_bytes = 0
        # Who left, and has not been let go of towards the others.
        self._gone: list[Outbox | None] = []
        self._performance = Performance()
        # When something was said last; and what is being said just now, while the performance is without it.
        self._said_at = clock()
        self._unobserved: list[_Said] = []
        self._diverged = Divergences()
        # What brought the last newcomer to a performance, which it was, and with the notes since when.
        self._brought: tuple[Performance, float, list[bytes]] | None = None

    @property
    def performance(self) -> Performance:
        """What was said to all, as of the last flush. It is the hub's own, to be looked at alone."""
        return self._performance

    def join(self, outbox: Outbox, *, snapshot: bool = False, struck_since: float = inf) -> None:
        """Add a member. It hears what is published from now on.

        Args:
            snapshot: bring it to the present performance first.
            struck_since: with the notes that were struck then or later; -inf is all of them.
        """
        self.flush()
        self._members[outbox] = None
        outbox.follow(self._performance_of)
        outbox.in_tune = snapshot or self._performance.is_blank
        if snapshot:
            self._offer(outbox, self._what_brings(struck_since))

    def _what_brings(self, struck_since: float) -> list[bytes]:
        """What brings a newcomer to the present performance: it has said nothing, so for all who come in a
        crowd it is the same."""
        present = self._performance.frozen()
        if self._brought is None or self._brought[:2] != (present, struck_since):
            self._brought = present, struck_since, difference(None, present, struck_since=struck_since)
        return self._brought[2]

    def leave(self, outbox: Outbox, *, hears: bool = False) -> None:
        """Take a member out. What was published before still goes to it, as far as it can.

        Everybody else hears, with the next flush, what lets go of what only it held.

        Args:
            hears: it is still there, and hears what lets go of all that it was told.
        """
        self._flush_turn()
        if outbox not in self._members:
            return
        present = self._performance_of(outbox)
        if hears and self._release_notes:
            self._dismiss(outbox, present)
        else:
            self._stay_at(outbox, present)
        del self._members[outbox]
        self._diverged.forget(outbox)
        if self._release_notes:
            if not self._gone:
                self._flush_soon()
            self._gone.append(outbox)

    def dismiss_all(self) -> None:
        """Take all members out. Each hears what lets go of all that it was told."""
        self.flush()
        members = list(self._members)
        if self._release_notes:
            alike = [outbox for outbox in members if outbox not in self._diverged and not outbox.stalled]
            silent = self._performance.view()
            silent.silence()
            for outbox, frames in release_to_each(self._performance, alike):
                self._stay_at(outbox, silent)
                self._offer(outbox, frames)
            for outbox in self._members.keys() - set(alike):
                self._dismiss(outbox, self._performance_of(outbox))
        else:
            for outbox in members:
                self._stay_at(outbox, self._performance_of(outbox))
        self._members.clear()
        self._diverged.clear()

    def _stay_at(self, outbox: Outbox, present: Performance) -> None:
        """Have it catch up with what it was told, and not with what the others hear from now on."""
        outbox.follow(lambda _: present)

    def _dismiss(self, outbox: Outbox, present: Performance) -> None:
        left = present.view(outbox)
        self._stay_at(outbox, left)
        self._offer(outbox, release_all(left))

    def release(self, origin: Outbox | None) -> None:
        """Let go of what only this origin still holds, towards everybody else."""
        self.flush()
        self._gone.append(origin)
        self._let_go()

    def _let_go(self) -> None:
        gone, self._gone = self._gone, []
        diverged = self._diverged.performances(self._performance)
        shared, alone = release(self._performance, gone)
        for outbox in tuple(self._members):
            frames, told = shared, alone
            if (own := diverged.get(outbox)) is not None:
                frames, told = release(own, gone)
                self._diverged.compare(outbox, own, self._performance)
            if outbox not in gone:
                self._offer(outbox, [*frames, *told.get(outbox, [])])

    def publish(
        self, data: bytes, messages: int, *, origin: Outbox | None = None, only: Outbox | None = None
    ) -> None:
        """Say something to the members. It goes out with the next flush, or at once when a member says it
        after a silence.

        Args:
            data: whole messages, joined.
            messages: how many they are, at least one.
            origin: the member that they came from, which does not hear them.
            only: the one member that hears them.
        """
        if self._gone:
            self._let_go()
        turn = self._turn
        if not turn:
            now = self._clock()
            if origin is not None and now - self._said_at > _SILENCE_S:
                self._say([_Said(data, messages, origin, only)], now)
                return
            self._flush_soon()
        if turn and (last := turn[-1]).origin is origin and last.only is only:
            last.pieces.append(data)
            last.messages += messages
        else:
            turn.append(_Said(data, messages, origin, only))
        self._turn_bytes += len(data)
        if self._turn_bytes >= _MAX_TURN:
            self.flush()

    def flush(self) -> None:
        """Hand what was published to the members it is for."""
        self._flush_turn()
        # What was published before they left has gone out, and nothing has been published since.
        if self._gone:
            self._let_go()

    def _flush_turn(self) -> None:
        turn, self._turn, self._turn_bytes = self._turn, [], 0
        if not turn:
            return
        for said in turn:
            if len(said.pieces) > 1:
                said.data = b"".join(said.pieces)
        self._say(turn, self._clock())

    def _say(self, turn: list[_Said], now: float) -> None:
        self._said_at = now
        apart = self._told_otherwise(turn)
        if apart or self._performance.owes:
            self._offer_all(self._settle(turn, apart, now), now)
        else:
            # Nobody needs to know the performance before this is on its way, save who cannot take it.
            self._unobserved = turn
            self._offer_all(turn, now)
            self._observe()

    def _offer_all(self, turn: list[_Said], now: float) -> None:
        if len(turn) == 1 and turn[0].only is None:
            (said,) = turn
            for outbox in self._members:
                if outbox is not said.origin:
                    outbox.offer(said.data, said.messages, now)
            return
        # All hear the same, save who said some of it and who was told something alone.
        pieces: list[bytes] = []
        messages = size = 0
        own: dict[Outbox, list[_Span]] = {}
        told = set()
        for said in turn:
            if said.only is not None:
                told.add(said.only)
                continue
            end = size + len(said.data)
            if said.origin is not None:
                own.setdefault(said.origin, []).append((size, end, said.messages))
            pieces.append(said.data)
            size, messages = end, messages + said.messages
        data = b"".join(pieces)
        for outbox in self._members:
            if outbox in told:
                parts = [said for said in turn if said.is_for(outbox)]
                count = sum([said.messages for said in parts])
                if count:
                    outbox.offer(b"".join([said.data for said in parts]), count, now)
            elif outbox in own:
                others, count = _without(own[outbox], data, messages)
                if count:
                    outbox.offer(others, count, now)
            elif messages:
                outbox.offer(data, messages, now)

    def _observe(self) -> None:
        turn, self._unobserved = self._unobserved, []
        for said in turn:
            if said.only is None:
                self._performance.observe(said.data, said.origin, self._said_at)

    def _settle(self, turn: list[_Said], otherwise: dict[Outbox, None], now: float) -> list[_Said]:
        """Observe a turn before it is said. Returns it with what has to be said beside it: what members that
        are gone owe for notes that others held longer.

        Args:
            otherwise: the members for which it may change something else than for all others.
        """
        apart = {outbox: self._diverged.performance(outbox, self._performance) for outbox in otherwise}
        alike = [outbox for outbox in self._members if outbox not in apart]
        owed: list[tuple[int, _Said]] = []
        for listener, performance in ((None, self._performance), *apart.items()):
            for position, said in enumerate(turn, 1):
                if said.only is not None and said.only is not listener:
                    continue
                to_all = performance.observe(said.data, said.origin, now)
                alone = performance.tell_holders()
                if to_all or alone:
                    for outbox in alike if listener is None else [listener]:
                        if frames := [*to_all, *alone.get(outbox, [])]:
                            owed.append((position, _Said(b"".join(frames), len(frames), None, outbox)))
        for outbox, performance in apart.items():
            self._diverged.compare(outbox, performance, self._performance)
        # Each right behind what made it due: what is struck after that has to sound.
        for position, said in sorted(owed, key=itemgetter(0), reverse=True):
            turn.insert(position, said)
        return turn

    def _told_otherwise(self, turn: list[_Said]) -> dict[Outbox, None]:
        members = {said.only: None for said in turn if said.only is not None and said.only in self._members}
        if self._diverged:
            data = b"".join([said.data for said in turn if said.only is None])
            members |= dict.fromkeys(self._diverged.touched(data))
        return members

    def present(self) -> Performance:
        """Return what was said to all, as of now. It stays as it is."""
        self._flush_turn()
        self._observe()
        return self._performance.frozen()

    def _performance_of(self, outbox: Outbox) -> Performance:
        self._observe()
        if outbox in self._diverged:
            return self._diverged.performance(outbox, self._performance)
        return self._performance.frozen()

    def _offer(self, outbox: Outbox, frames: Iterable[bytes]) -> None:
        frames = list(frames)
        if frames and outbox in self._members:
            outbox.offer(b"".join(frames), len(frames), self._clock())
