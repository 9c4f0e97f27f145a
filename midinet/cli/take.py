"""A take: what was heard, and what of it is music and goes into a file.

The rules:

- A MIDI file holds channel messages and sysex (Standard MIDI Files 1.0, <MTrk event>). The other
  system messages have no place in it: mido refuses some of them, and some would read back as something else.
- It begins with the first message and ends with the last, or where the last notes were let go. A hub tells at
  the beginning what is set, before anybody plays: that stands right before what comes next.
- No note, pedal or bend lasts beyond the end: other players would have it hang.
"""

from __future__ import annotations

from collections.abc import Sequence

from mido import Message, MetaMessage, MidiFile, MidiTrack

from ..hub.performance import Performance
from ..hub.release import release_all
from ..wire.codec import decode, encode
from .piano_roll import ends_all_notes

# A tenth of a millisecond a tick: finer than any network, and coarse enough to leave room for hours.
_TEMPO = 500_000
_TICKS_PER_BEAT = 5_000
_TICKS_PER_SECOND = 10_000

_FIRST_SYSTEM_STATUS = 0xF0

# Seconds. A hub tells at once what is set, and then nothing for as long as nobody plays.
_SNAPSHOT_S = 0.5

# What comes on and on from an instrument that nobody plays.
_NO_SOUND = ("clock", "active_sensing")

Take = list[tuple[float, Message]]


def is_storable(message: Message) -> bool:
    """Whether a message has a place in a MIDI file."""
    return bool(message.type == "sysex" or message.bytes()[0] < _FIRST_SYSTEM_STATUS)


def music_of(take: Sequence[tuple[float, Message]], opened_at: float, ended_at: float) -> Take:
    """Return what of a take goes into a file.

    Args:
        take: messages with their seconds, in order.
        opened_at: when it began, in the same seconds.
        ended_at: when it ended: so long sound the notes that are held.
    """
    music = [(seconds, message) for seconds, message in take if is_storable(message)]
    if not music:
        return music
    performance = Performance()
    performance.observe(b"".join(encode(message) for _, message in music), None, 0.0)
    held = [performance.total(key) for key in performance.held_notes]
    end = ended_at if any(note is not None and note.sounding for note in held) else music[-1][0]
    let_go = [(end, decode(frame)) for frame in release_all(performance)]
    return _without_wait(music, opened_at) + let_go


def _without_wait(take: Take, opened_at: float) -> Take:
    """Put what was set when it began right before what came next, which may be much later."""
    early = [message for seconds, message in take if seconds - opened_at < _SNAPSHOT_S]
    if len(early) == len(take) or any(message.type == "note_on" for message in early):
        return take
    begin = take[len(early)][0]
    return [(begin, message) for message in early] + take[len(early) :]


def file_of(take: Sequence[tuple[float, Message]]) -> MidiFile:
    """Return the MIDI file of a take: messages with the seconds at which they came, in order.

    The first is at 0. Every time is rounded by itself, so that rounding never adds up.
    """
    track = MidiTrack([MetaMessage("set_tempo", tempo=_TEMPO)])
    before = 0
    for seconds, message in take:
        ticks = round((seconds - take[0][0]) * _TICKS_PER_SECOND)
        track.append(message.copy(time=ticks - before))
        before = ticks
    return MidiFile(type=0, ticks_per_beat=_TICKS_PER_BEAT, tracks=[track])


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
