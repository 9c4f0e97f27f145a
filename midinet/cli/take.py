"""When a take is silent."""

from __future__ import annotations

from mido import Message

from .piano_roll import ends_all_notes

# What comes on and on from an instrument that nobody plays.
_NO_SOUND = ("clock", "active_sensing")


class Silence:
    """Since when nothing is heard.

    A hub that tells at the beginning what is set does not play yet, so it is waited for a note.

    Attributes:
        since: when the last message came, in the seconds of whoever observes; None while a note is held, and
            until the first note.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._held: set[tuple[int, int]] = set()
        self._has_begun = False

    def observe(self, message: Message, at: float) -> None:
        """Take notice of a message that came."""
        if message.type in _NO_SOUND:
            return
        if message.type == "note_on" and message.velocity:
            self._held.add((message.channel, message.note))
            self._has_begun = True
        elif message.type in ("note_on", "note_off"):
            self._held.discard((message.channel, message.note))
        elif message.type == "control_change" and ends_all_notes(message):
            self._held = {key for key in self._held if key[0] != message.channel}
        elif message.type == "reset":
            self._held.clear()
        self.since = at if self._has_begun and not self._held else None
