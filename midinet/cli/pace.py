"""When each of a row of messages is sent, and how long the notes sound that nothing ends.

- A message waits its `time`, in seconds, counted from the one before, so lateness does not add up. One that
  comes long after the one before, as a typed line does, waits from then on.
- A note-on without its note-off sounds for half a second at the end of the row: one that is released at once
  cannot be heard.

Time is an argument, in seconds.
"""

from __future__ import annotations

import math

from mido import Message

from ..hub.performance import Performance
from ..wire.codec import encode

# Seconds: long enough to be heard, also of an instrument that fades in.
HOLD_S = 0.5

# Seconds. Messages that are read closer together than that are one row, whose times add up exactly.
_ROW_S = 0.05


class Pace:
    """The times of one row of messages.

    Args:
        now: when the row begins.
    """

    def __init__(self, now: float) -> None:
        self._due = now
        self._state = Performance()

    def due(self, message: Message, now: float) -> float:
        """Return when to send a message that was read now."""
        begin = self._due if now - self._due < _ROW_S else now
        self._due = begin + message.time
        return self._due

    def note_sent(self, message: Message, now: float) -> None:
        """Take notice that a message has been sent."""
        self._state.observe(encode(message), None, now)

    def end(self) -> float:
        """Return when the notes that are still held have sounded long enough; -inf where there are none."""
        held = (self._state.total(key) for key in self._state.held_notes)
        struck = [note.since for note in held if note is not None and note.sounding]
        return max(struck) + HOLD_S if struck else -math.inf
