"""Where one member's state differs from that which all share, since it was told something alone.

What all hear changes both states alike, save where they differ. So it is enough to keep what differs, and to
compare again when something is said that may change it. A member whose state has become equal shares it
again.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from .outbox import Outbox
from .performance import Performance, Place, channel_of, touched_by


class Divergence:
    """What is otherwise for one member.

    Args:
        contents: what it has, by place, where that is not what all share.
    """

    __slots__ = ("_contents", "channels")

    def __init__(self, contents: dict[Place, Any]) -> None:
        self._contents = contents
        self.channels = {channel_of(place) for place in contents}

    @property
    def places(self) -> Set[Place]:
        """What differs."""
        return self._contents.keys()

    def performance(self, shared: Performance) -> Performance:
        """Return the member's state, a copy.

        Args:
            shared: the state that all others have.
        """
        own = shared.copy()
        own.put(self._contents)
        return own


class Divergences:
    """The members that have something otherwise."""

    def __init__(self) -> None:
        self._members: dict[Outbox, Divergence] = {}
        # All that differs for any of them; None where that is not known.
        self._places: set[Place] | None = None
        self._channels: set[int] = set()

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: Outbox) -> bool:
        return member in self._members

    def performance(self, member: Outbox, shared: Performance) -> Performance:
        """Return the state of a member, whether it has something otherwise or not: a copy."""
        differs = self._members.get(member)
        return shared.copy() if differs is None else differs.performance(shared)

    def performances(self, shared: Performance) -> dict[Outbox, Performance]:
        """Return the state of each member that has something otherwise: copies."""
        return {member: differs.performance(shared) for member, differs in self._members.items()}

    def compare(self, member: Outbox, own: Performance, shared: Performance) -> None:
        """Take note of what is otherwise for a member, if anything is."""
        if contents := own.otherwise(shared):
            self._members[member] = Divergence(contents)
        else:
            self._members.pop(member, None)
        self._places = None

    def touched(self, data: bytes) -> list[Outbox]:
        """Return the members for which whole messages, which all hear, may change what is otherwise."""
        if not self._members:
            return []
        if self._places is None:
            self._places = {place for differs in self._members.values() for place in differs.places}
            self._channels = {channel for differs in self._members.values() for channel in differs.channels}
        places, channels = touched_by(data)
        places &= self._places
        channels &= self._channels
        if not (places or channels):
            return []
        return [
            member
            for member, differs in self._members.items()
            if not (places.isdisjoint(differs.places) and channels.isdisjoint(differs.channels))
        ]

    def forget(self, member: Outbox) -> None:
        """Forget a member that leaves."""
        if self._members.pop(member, None) is not None:
            self._places = None

    def clear(self) -> None:
        """Forget all members."""
        self._members.clear()
        self._places = None
