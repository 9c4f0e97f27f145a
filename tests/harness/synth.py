"""A virtual instrument: what one receiver would sound, and how it is set, after the bytes that it was fed.

The judge of "nothing hangs" and "same state". It knows the standard and nothing of this library:

- MIDI 1.0 Detailed Specification 4.2.1, by its pages below;
- RP-015, Response to Reset All Controllers; RP-018, Response to Data Increment/Decrement.

Two instruments listen at once, since the specification leaves to the receiver what a second Note On for the
same key does (page A-4). One has a single voice for each key and stops it at the first Note Off: `sounding`.
The other gives every Note On a voice of its own and needs a Note Off for each of them: `voices`. All channels
are received, each by a part of its own, so that every channel is the basic channel of one receiver (page 20).

Where the standard lets receivers differ, there is an option; a sender that is right is right for each of
them. System exclusive messages are read over.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.harness.models import SlowParser

Key = tuple[int, int]

# What can leave an instrument sounding when all keys are up: hold, sostenuto, soft, hold 2.
PEDALS = (64, 66, 67, 69)

# Page 12: controllers 0 to 31 have their low seven bits in 32 to 63.
LSB = range(32, 64)

# No controllers with a position of their own: data entry, increment, decrement, parameter numbers (page 17).
DATA_ENTRY_MSB, DATA_ENTRY_LSB, INCREMENT, DECREMENT = 6, 38, 96, 97
NUMBERS = {98: ("nrpn", 1), 99: ("nrpn", 0), 100: ("rpn", 1), 101: ("rpn", 0)}

# Portamento control holds for the next Note On only (page 16).
PORTAMENTO_CONTROL = 84

ALL_SOUND_OFF, RESET_ALL_CONTROLLERS, LOCAL_CONTROL, ALL_NOTES_OFF = 120, 121, 122, 123
OMNI_OFF, OMNI_ON, MONO_ON, POLY_ON = 124, 125, 126, 127

# RP-015: bank, volume and pan (with their low bits), sound controllers and effect depths stay as they are.
NOT_RESET = frozenset({0, 32, 7, 39, 10, 42, *range(70, 80), *range(91, 96)})
# RP-015: these it names; for any other it says zero, or what the maker documents.
RESET_BY_NAME = {1: 0, 11: 127, 64: 0, 65: 0, 66: 0, 67: 0}

NULL = (127, 127)
CENTRE = 8192
CLOCKS_PER_BEAT = 6

# What an increment starts from if nothing was set: two semitones (the usual), tuning in the middle (page 18).
START_OF_RPN = {(0, 0): (2, 0), (0, 1): (64, 0), (0, 2): (64, 0)}


class VirtualSynth:
    """An instrument to feed and to look at.

    Channels count from 0, as mido's do. Every attribute is plain and may be read at any time:

        sounding        (channel, note) of the keys that are down, for an instrument of one voice a key
        voices          how many voices each (channel, note) has, for an instrument of a voice a Note On
        controllers     (channel, controller) to value, since power-up or reset; none of those below
        programs        channel to (high bits of the bank then or None, its low bits, program)
        bends           channel to -8192..8191
        pressures       channel to pressure
        key_pressures   (channel, note) to pressure; a Note Off leaves it, the standard does not say otherwise
        numbers         (channel, "rpn" or "nrpn") to the parameter number (high, low) that was sent last
        selected        channel to "rpn" or "nrpn": whose number came last, so that data entry goes to it
        parameters      (channel, "rpn" or "nrpn", high, low) to value (high, low)
        omni, mono, local   the modes, by channel; mono holds the M of Mono On
        running, song_position, song    transport; the position in clocks (24 a quarter note)

    Args:
        ignores_mode_messages: All Sound Off and 123 to 127 do nothing, as a receiver may choose (page 20).
        omni: powers up with Omni On, as page 21 recommends, and so ignores All Notes Off and Reset All
            Controllers (page 25) until Omni Off; if not, with Omni Off, as multitimbral instruments do.
        msb_clears_lsb: the high bits of a controller set its low bits to zero (page 12); there is hardware
            that leaves them.
        resets_unlisted: Reset All Controllers sets to zero what RP-015 does not name; if not, leaves it.
    """

    def __init__(
        self,
        *,
        ignores_mode_messages: bool = False,
        omni: bool = False,
        msb_clears_lsb: bool = True,
        resets_unlisted: bool = True,
    ) -> None:
        self.ignores_mode_messages = ignores_mode_messages
        self.powers_up_in_omni = omni
        self.msb_clears_lsb = msb_clears_lsb
        self.resets_unlisted = resets_unlisted
        self._power_up()

    def _power_up(self) -> None:
        # A new parser too: System Reset clears running status (page 33).
        self._parser = SlowParser(max_sysex=1 << 24)
        self.sounding: set[Key] = set()
        self.voices: Counter[Key] = Counter()
        self.controllers: dict[Key, int] = {}
        self.programs: dict[int, tuple[int | None, int, int]] = {}
        self.bends: dict[int, int] = {}
        self.pressures: dict[int, int] = {}
        self.key_pressures: dict[Key, int] = {}
        self.numbers: dict[tuple[int, str], tuple[int, int]] = {}
        self.selected: dict[int, str] = {}
        self.parameters: dict[tuple[int, str, int, int], tuple[int, int]] = {}
        self.omni = dict.fromkeys(range(16), self.powers_up_in_omni)
        self.mono: dict[int, int | None] = dict.fromkeys(range(16), None)
        self.local = dict.fromkeys(range(16), True)
        self.running = False
        self.song_position = 0
        self.song: int | None = None

    # What comes in.

    def feed(self, data: bytes) -> None:
        """Take in bytes as they come from a cable; they may end anywhere."""
        for byte in data:
            for message in self._parser.feed(bytes([byte])):
                self._receive(message)

    def _receive(self, message: bytes) -> None:
        status, data = message[0], message[1:]
        channel = status & 0x0F
        match status & 0xF0:
            case 0x80:
                self._note_off((channel, data[0]))
            case 0x90:
                # Page 10: velocity 0 is a Note Off.
                (self._note_on if data[1] else self._note_off)((channel, data[0]))
            case 0xA0:
                self.key_pressures[channel, data[0]] = data[1]
            case 0xB0:
                self._control_change(channel, data[0], data[1])
            case 0xC0:
                bank = (self.controllers.get((channel, 0)), self.controllers.get((channel, 32), 0))
                self.programs[channel] = (*bank, data[0])
            case 0xD0:
                self.pressures[channel] = data[0]
            case 0xE0:
                self.bends[channel] = data[0] + 128 * data[1] - CENTRE
            case 0xF0:
                self._system(status, data)

    def _note_on(self, key: Key) -> None:
        self.sounding.add(key)
        self.voices[key] += 1
        self.controllers.pop((key[0], PORTAMENTO_CONTROL), None)

    def _note_off(self, key: Key) -> None:
        self.sounding.discard(key)
        if self.voices[key] > 1:
            self.voices[key] -= 1
        else:
            del self.voices[key]

    def _all_off(self, channel: int) -> None:
        self.sounding = {key for key in self.sounding if key[0] != channel}
        self.voices = Counter({key: count for key, count in self.voices.items() if key[0] != channel})

    # Controllers and modes.

    def _control_change(self, channel: int, number: int, value: int) -> None:
        if number >= ALL_SOUND_OFF:
            self._mode(channel, number, value)
        elif number in NUMBERS:
            kind, half = NUMBERS[number]
            high, low = self.numbers.get((channel, kind), NULL)
            self.numbers[channel, kind] = (high, value) if half else (value, low)
            self.selected[channel] = kind
        elif number in (DATA_ENTRY_MSB, DATA_ENTRY_LSB, INCREMENT, DECREMENT):
            self._data(channel, number, value)
        else:
            self.controllers[channel, number] = value
            if number < 32 and self.msb_clears_lsb:
                self.controllers.pop((channel, number + 32), None)

    def _data(self, channel: int, number: int, value: int) -> None:
        kind = self.selected.get(channel)
        if kind is None or self.numbers[channel, kind] == NULL:
            return
        parameter = self.numbers[channel, kind]
        start = START_OF_RPN.get(parameter, (0, 0)) if kind == "rpn" else (0, 0)
        high, low = self.parameters.get((channel, kind, *parameter), start)
        if number == DATA_ENTRY_MSB:
            now = (value, 0 if self.msb_clears_lsb else low)
        elif number == DATA_ENTRY_LSB:
            now = (high, value)
        else:
            step = 1 if number == INCREMENT else -1
            now = _stepped(parameter if kind == "rpn" else None, high, low, step)
        self.parameters[channel, kind, *parameter] = now

    def _mode(self, channel: int, number: int, value: int) -> None:
        if number == RESET_ALL_CONTROLLERS:
            # Page 25: ignored while Omni is on, as All Notes Off is.
            if not self.omni[channel]:
                self._reset_controllers(channel)
            return
        if number == LOCAL_CONTROL:
            self.local[channel] = value >= 64
            return
        if self.ignores_mode_messages or (number == ALL_NOTES_OFF and self.omni[channel]):
            return
        # Page 20: 123 to 127 are all notes off, too. Pedals stay.
        self._all_off(channel)
        if number in (OMNI_OFF, OMNI_ON):
            self.omni[channel] = number == OMNI_ON
        elif number in (MONO_ON, POLY_ON):
            self.mono[channel] = value if number == MONO_ON else None

    def _resettable(self, number: int) -> bool:
        if number in NOT_RESET:
            return False
        return self.resets_unlisted or number in RESET_BY_NAME or number - 32 in RESET_BY_NAME

    def _reset_controllers(self, channel: int) -> None:
        for key in [key for key in self.controllers if key[0] == channel and self._resettable(key[1])]:
            del self.controllers[key]
        self.bends.pop(channel, None)
        self.pressures.pop(channel, None)
        self.key_pressures = {key: value for key, value in self.key_pressures.items() if key[0] != channel}
        for kind in ("rpn", "nrpn"):
            self.numbers.pop((channel, kind), None)
        self.selected.pop(channel, None)

    # System messages.

    def _system(self, status: int, data: bytes) -> None:
        match status:
            case 0xF2:
                self.song_position = (data[0] + 128 * data[1]) * CLOCKS_PER_BEAT
            case 0xF3:
                self.song = data[0]
            case 0xF8 if self.running:
                self.song_position += 1
            case 0xFA if not self.running:
                # Page 32: a Start or Continue while playing is ignored.
                self.running = True
                self.song_position = 0
            case 0xFB:
                self.running = True
            case 0xFC:
                self.running = False
            case 0xFF:
                self._power_up()

    # What is to be seen.

    @property
    def pedals(self) -> dict[Key, int]:
        """The pedals that are down, with their values; below 64 is up (page 12)."""
        return {key: value for key, value in self.controllers.items() if key[1] in PEDALS and value >= 64}

    def is_silent(self) -> bool:
        """Whether no key and no voice sounds, no pedal is down and every bend is centred."""
        return not (self.sounding or self.voices or self.pedals or any(self.bends.values()))

    def describe(self) -> str:
        """What sounds, is held or is bent, in words; "silent" if nothing."""
        lines = []
        for channel, note in sorted(self.sounding | set(self.voices)):
            key = "down" if (channel, note) in self.sounding else "up"
            lines.append(f"channel {channel} note {note}: key {key}, voices {self.voices[channel, note]}")
        for (channel, number), value in sorted(self.pedals.items()):
            lines.append(f"channel {channel} pedal {number}: {value}")
        lines += [f"channel {channel} bend: {bend:+}" for channel, bend in sorted(self.bends.items()) if bend]
        return "; ".join(lines) or "silent"

    def state(self) -> dict[tuple[Any, ...], Any]:
        """Everything but notes, as a plain dict to compare; the first item of a key says what it is about.

        Left out, so that "never set" and "set to this" are the same: what Reset All Controllers brings a
        controller, a bend or a pressure to (the initial state of page 25); low bits of zero; numbers of 127,
        127 (null); a transport that stands at 0; modes as at power-up. All else (bank, program, volume, pan,
        sound, effects, parameters, song) is the maker's choice at power-up, so never set differs from every
        value.
        """
        state: dict[tuple[Any, ...], Any] = {}
        for (channel, number), value in self.controllers.items():
            at_rest = 0 if number in LSB or self._resettable(number) else None
            if value != RESET_BY_NAME.get(number, at_rest):
                state["controller", channel, number] = value
        state |= {("program", channel): value for channel, value in self.programs.items()}
        state |= {("bend", channel): value for channel, value in self.bends.items() if value}
        state |= {("pressure", channel): value for channel, value in self.pressures.items() if value}
        state |= {("key pressure", *key): value for key, value in self.key_pressures.items() if value}
        for (channel, kind), number_sent in self.numbers.items():
            if number_sent != NULL:
                state["number", channel, kind] = number_sent
                if self.selected.get(channel) == kind:
                    state["selected", channel] = kind
        state |= {("parameter", *key): value for key, value in self.parameters.items()}
        for channel in range(16):
            if self.omni[channel] != self.powers_up_in_omni:
                state["omni", channel] = self.omni[channel]
            if self.mono[channel] is not None:
                state["mono", channel] = self.mono[channel]
            if not self.local[channel]:
                state["local", channel] = False
        if self.running:
            state["running",] = True
        if self.song_position:
            state["song position",] = self.song_position
        if self.song is not None:
            state["song",] = self.song
        return state

    def difference(self, other: VirtualSynth) -> list[str]:
        """What differs between the states of two, one line each; none if they are the same."""
        here, there = self.state(), other.state()
        return [
            f"{' '.join(map(str, key))}: {here.get(key, 'at rest')} here, {there.get(key, 'at rest')} there"
            for key in sorted(here.keys() | there.keys(), key=str)
            if here.get(key) != there.get(key)
        ]


def _stepped(rpn: Key | None, high: int, low: int, step: int) -> tuple[int, int]:
    """A parameter's value one step on, stopping at its ends. None is an NRPN, which its maker defines.

    RP-018: the low bits, but for RPN 2, 3 and 4 the high bits. That the low bits carry into the high ones, at
    100 for the cents of RPN 0, is taken from what they mean (page 18).
    """
    if rpn in ((0, 2), (0, 3), (0, 4)):
        return min(max(high + step, 0), 127), low
    limit = 100 if rpn == (0, 0) else 128
    value = min(max(high * limit + min(low, limit - 1) + step, 0), 128 * limit - 1)
    return value // limit, value % limit
