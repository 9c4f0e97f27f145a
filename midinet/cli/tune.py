"""The tune of the demo: Beethoven's Ode to Joy of 1824, a melody and a bass that bend and swell."""

from __future__ import annotations

from mido import Message, MetaMessage, MidiFile, MidiTrack

TITLE = "Ode to Joy"

_TICKS_PER_BEAT = 480

# Microseconds to a beat: 240 beats a minute, and 300 from the second half on.
_TEMPO, _FASTER_TEMPO = 250_000, 200_000
_HALF_BEATS = 16

_MELODY, _BASS = 0, 1

_NOTES = {"G2": 43, "A2": 45, "C3": 48, "F2": 41, "C": 60, "D": 62, "E": 64, "F": 65, "G": 67}

# Each note with its length in beats.
_MELODY_HALF = "E1 E1 F1 G1 G1 F1 E1 D1 C1 C1 D1 E1"
_MELODY_NOTES = f"{_MELODY_HALF} E1.5 D.5 D2 {_MELODY_HALF} D1.5 C.5 C2"
_BASS_HALF = "C32 C32 G22 G22 A22 F22"
_BASS_NOTES = f"{_BASS_HALF} C32 G22 {_BASS_HALF} G22 C32"

_VIBRATO = (800, 1600, 800, 0)

Event = tuple[int, Message | MetaMessage]


def ode_to_joy() -> MidiFile:
    """Return the tune: 7.2 s, three tracks, some 300 messages."""
    tempo: list[Event] = [
        (0, MetaMessage("set_tempo", tempo=_TEMPO)),
        (_HALF_BEATS * _TICKS_PER_BEAT, MetaMessage("set_tempo", tempo=_FASTER_TEMPO)),
    ]
    melody = _voice(_MELODY, 73, _MELODY_NOTES) + _swell(_MELODY)
    bass = _voice(_BASS, 32, _BASS_NOTES)
    return MidiFile(ticks_per_beat=_TICKS_PER_BEAT, tracks=[_track(tempo), _track(melody), _track(bass)])


def _voice(channel: int, program: int, text: str) -> list[Event]:
    """The notes of one voice, each with a bend up and back."""
    events: list[Event] = [(0, Message("program_change", channel=channel, program=program))]
    start = 0
    for word in text.split():
        name = next(name for name in sorted(_NOTES, key=len, reverse=True) if word.startswith(name))
        length = int(float(word.removeprefix(name)) * _TICKS_PER_BEAT)
        note = {"channel": channel, "note": _NOTES[name]}
        events.append((start, Message("note_on", velocity=90, **note)))
        for step, pitch in enumerate(_VIBRATO, start=1):
            bend = Message("pitchwheel", channel=channel, pitch=pitch)
            events.append((start + length * step // (len(_VIBRATO) + 1), bend))
        # A little early, so that the same note can begin again.
        events.append((start + length * 9 // 10, Message("note_off", **note)))
        start += length
    return events


def _swell(channel: int) -> list[Event]:
    """Expression up and down once a bar, four steps a beat."""
    step = _TICKS_PER_BEAT // 4
    return [
        (
            number * step,
            Message("control_change", channel=channel, control=11, value=127 - 5 * abs(number % 16 - 8)),
        )
        for number in range(2 * _HALF_BEATS * 4)
    ]


def _track(events: list[Event]) -> MidiTrack:
    track, before = MidiTrack(), 0
    for ticks, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=ticks - before))
        before = ticks
    return track
