"""Letting go of what would sound on: of what somebody held who is gone, and of everything at the end.

All of it is a difference: between a performance with what is to be let go, and the same without. What is
special here is only how little of a performance has to be looked at for that, since a network that fails may
take a thousand at once, and a hub with a thousand members may be closed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import TypeVar

from .difference import difference
from .performance import Origin, Performance, note_off

Listener = TypeVar("Listener", bound=Hashable)


def release(
    performance: Performance, origins: Collection[Origin]
) -> tuple[list[bytes], dict[Origin, list[bytes]]]:
    """Let go of what only these origins still held. Returns what lets go of it: what all hear, and what
    single ones hear beside that."""
    gone = set(origins)
    held = performance.held_by(gone)
    if not held and all(gone.isdisjoint(setters) for setters in performance.setters.values()):
        return [], {}
    # Of the notes only theirs: who ends holds few, and everybody together may hold hundreds.
    keys = dict.fromkeys([key for keys in held.values() for key in keys])
    before = performance.view_of(keys)
    alone: dict[Origin, list[bytes]] = {}
    for origin in origins:
        performance.forget(origin, held.get(origin, ()))
        for listener, frames in performance.tell_holders().items():
            alone.setdefault(listener, []).extend(frames)
    return difference(before, performance.view_of(keys)), alone


def release_all(performance: Performance) -> list[bytes]:
    """Let go of everything that would sound on, and return the frames that do so."""
    before = performance.view()
    performance.silence()
    return difference(before, performance)


def release_to_each(
    performance: Performance, listeners: Iterable[Listener]
) -> Iterator[tuple[Listener, list[bytes]]]:
    """Return for each listener what lets go of all that it was told. The performance stays as it is.

    Most hear the same, and the others the same but for the notes that they hold themselves: to ask for each
    of a thousand what it was told of each note would take many seconds.
    """
    shared = release_all(performance.view())
    # Note-offs come first, those of one note in a row.
    spans: dict[bytes, tuple[int, int]] = {}
    for position, frame in enumerate(shared):
        if frame[0] < 0x90:
            start, _ = spans.setdefault(frame, (position, position))
            spans[frame] = start, position + 1
    own_notes: dict[Origin, list[int]] = {}
    for key, holders in performance.notes.items():
        for holder in holders:
            own_notes.setdefault(holder, []).append(key)
    setters = {setter for setters in performance.setters.values() for setter in setters}
    for listener in listeners:
        if listener in setters:
            yield listener, release_all(performance.view(listener))
        elif listener in own_notes:
            keys = own_notes[listener]
            told = release_all(performance.view_of(keys, listener, with_values=False))
            others = shared.copy()
            for start, end in sorted([spans[note_off(key)] for key in keys], reverse=True):
                del others[start:end]
            yield listener, told + others
        else:
            yield listener, shared
