"""What sounds and is set now: one pure model, from which snapshots, releases and catching up are derived.

The rules (MIDI 1.0 Detailed Specification 4.2.1; RP-015 for Reset All Controllers, RP-018 for increments):

- A note is held by its origin from its note-on to its note-off; velocity 0 makes a note-on one (page 10).
  A note that two origins hold is held until both let go. When one of them is gone, the note-offs that it
  owed are owed until nobody holds the note: a listener that gave it a voice for each would sound on.
- A note-on for a note that is held already may get a voice of its own, which needs a note-off of its own
  (page 11). So beside whether a note sounds it is counted how many note-offs are outstanding.
- All Sound Off, All Notes Off and the mode messages (120, 123 to 127) end all notes of their channel (pages
  20, 24, 25), and System Reset all notes.
- Reset All Controllers (121) resets what RP-015 names, keeps what it says to keep, and leaves the others as
  nobody knows, since there receivers differ.
- Hardware may ignore all of these, as page 25 asks of it while Omni is on. So whoever held a note or set a
  pedal, bend or pressure before them still owes what ends it explicitly.
- A registered or non-registered parameter is selected by 98 to 101 and set by 6, 38, 96 and 97 (pages 17,
  18). Bank select waits for the program change (page 13). Of a controller with two bytes, 0 to 31 and 32 to
  63, the first one clears the second one (page 12), which then counts as not set.
- System Reset puts everything back to how it was at power-up (page 32). Start is ignored while the song
  plays (page 32).
- Pedals, bends and pressures remember who set them last, and who did before, for the last one has not heard
  itself; of everything else the last value counts.

Notes, and all that is kept by channel and number, have the key `channel << 7 | number`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import NamedTuple, TypeAlias

# Whoever says something; None is the owner of the hub.
Origin: TypeAlias = Hashable

# Where in `values` is what. Each value is a data byte, or UNSET.
CONTROLLERS = 0
POLY_PRESSURES = 2048
PROGRAMS = 4096
# The bank that was selected when the program was changed.
BANKS_MSB = 4112
BANKS_LSB = 4128
PRESSURES = 4144
BENDS_MSB = 4160
BENDS_LSB = 4176
# The last of the controllers 124, 125 and of 126, 127.
OMNI_MODES = 4192
POLY_MODES = 4208
# With 126, mono, the number of its channels.
MONO_CHANNELS = 4224
# The higher of the controllers that selected a parameter last: 99 or 101.
PARAMETER_KINDS = 4240
_SIZE = 4256

UNSET = 0xFF
_NOTHING_SET = bytes((UNSET,)) * _SIZE

BANK_MSB, DATA_MSB, BANK_LSB, DATA_LSB = 0, 6, 32, 38
MODULATION, EXPRESSION = 1, 11
DAMPER, PORTAMENTO, SOSTENUTO, SOFT, HOLD_2 = 64, 65, 66, 67, 69
PORTAMENTO_CONTROL = 84
DATA_INCREMENT, DATA_DECREMENT = 96, 97
NRPN_LSB, NRPN_MSB, RPN_LSB, RPN_MSB = 98, 99, 100, 101
ALL_SOUND_OFF, RESET_ALL_CONTROLLERS, ALL_NOTES_OFF = 120, 121, 123
OMNI_OFF, OMNI_ON, MONO_ON, POLY_ON = 124, 125, 126, 127

PEDALS = (DAMPER, SOSTENUTO, SOFT, HOLD_2)
# RP-015: where each goes, and which stay: bank, volume and pan, sound controllers and effect depths.
_RESETS = {MODULATION: 0, EXPRESSION: 127, DAMPER: 0, PORTAMENTO: 0, SOSTENUTO: 0, SOFT: 0} | dict.fromkeys(
    (NRPN_LSB, NRPN_MSB, RPN_LSB, RPN_MSB), 127
)
# What has two bytes goes there with both. Hold 2 is not named, but no pedal shall stay down.
_RESETS |= {MODULATION + 32: 0, EXPRESSION + 32: 0, HOLD_2: 0}
_STAY = frozenset({BANK_MSB, BANK_LSB, 7, 39, 10, 42, *range(70, 80), *range(91, 96)})
_RESET_TO_UNKNOWN = frozenset(range(ALL_SOUND_OFF)) - _RESETS.keys() - _STAY
_UNKNOWN = int.from_bytes(bytes([UNSET if number in _RESET_TO_UNKNOWN else 0 for number in range(128)]))
# What has been set goes to 0, and what has not stays so.
_TO_ZERO = bytes((*(0 for _ in range(UNSET)), UNSET))
# Controllers that do more than keep a value.
_SPECIAL = frozenset({DATA_MSB, DATA_LSB, *range(DATA_INCREMENT, RPN_MSB + 1), *range(ALL_SOUND_OFF, 128)})

_MORE_THAN_A_VALUE = _SPECIAL | {*range(32), *PEDALS, PORTAMENTO_CONTROL}

# 6 clocks are one unit of the song position pointer, which has 14 bits (page 27).
CLOCKS_A_BEAT = 6
_SONG_CLOCKS = 16384 * CLOCKS_A_BEAT

# Note-offs that are owed for one note of one origin. A drum machine that never sends any would owe thousands;
# no instrument gives one note so many voices.
_MOST_OUTSTANDING = 16

# Parameters that are remembered; there could be half a million. Who sets so many sends a patch, in NRPNs.
_MOST_PARAMETERS = 2048


class Held(NamedTuple):
    """What one origin, or all of them, hold of one note."""

    velocity: int
    since: float
    """When it was struck last."""
    sounding: bool = True
    """No note-off came since."""
    outstanding: int = 1
    """Note-ons whose note-offs have not come."""
    doubtful: int = 0
    """Those of them that were ended by a message that hardware may ignore. They come on top."""

    def struck_again(self, velocity: int, at: float) -> Held:
        """Return it after another note-on."""
        outstanding = self.outstanding
        if outstanding < _MOST_OUTSTANDING:
            outstanding += 1
        return _held((velocity, at, True, outstanding, self.doubtful))

    def let_go(self) -> Held:
        """Return it after a note-off."""
        velocity, since, sounding, outstanding, doubtful = self
        if outstanding:
            return _held((velocity, since, False, outstanding - 1, doubtful))
        return _held((velocity, since, sounding, 0, doubtful - 1))

    def ended(self) -> Held:
        """Return it after a message that hardware may ignore."""
        doubtful = min(self.outstanding + self.doubtful, _MOST_OUTSTANDING)
        return _held((self.velocity, self.since, False, 0, doubtful))


# A third of the time that Held() takes, which is called for nearly every note.
_held = partial(tuple.__new__, Held)


class _Owed(NamedTuple):
    """What origins that are gone owe for a note that another one holds longer."""

    held: Held
    told: frozenset[Origin] = frozenset()
    """Origins that have had those note-offs already."""

    def note_offs(self, key: int) -> list[bytes]:
        return [note_off(key)] * (self.held.outstanding + self.held.doubtful)


class Performance:
    """What sounds and is set now."""

    __slots__ = (
        "_alone",
        "_frozen",
        "_owed",
        "clock",
        "notes",
        "parameters",
        "resets",
        "running",
        "setters",
        "values",
    )

    def __init__(self) -> None:
        self.notes: dict[int, dict[Origin, Held]] = {}
        self.values = bytearray(_NOTHING_SET)
        # By channel, kind (NRPN_MSB or RPN_MSB), and the number's most and least significant byte.
        self.parameters: dict[tuple[int, int, int, int], tuple[int, int]] = {}
        # The transport, and its position in clocks.
        self.running = False
        self.clock = 0
        # How often everything was reset.
        self.resets = 0
        # Who set pedals, bends and pressures, by their places in `values`: the last one and the one before,
        # and whether to anything but neutral, which one of them did.
        self.setters: dict[int, dict[Origin, bool]] = {}
        # What has to be said to single origins because another one was forgotten.
        self._alone: dict[Origin, list[bytes]] = {}
        # By note, of which some origin that is there sounds each.
        self._owed: dict[int, _Owed] = {}
        self._frozen: Performance | None = None

    def observe(self, frames: Iterable[bytes], origin: Origin, at: float) -> list[bytes]:
        """Take note of what an origin said.

        Args:
            frames: whole messages.
            origin: who said them.
            at: when, by a monotonic clock, in seconds.

        Returns:
            What has to be said to all beside them: the note-offs of an origin that is gone, for notes that
            another one held longer. Nearly always nothing.
        """
        self._frozen = None
        notes, values, setters = self.notes, self.values, self.setters
        # Most pressures and bends follow one by the same origin, and are one like that.
        mine = {origin: True}
        # What is struck here differs in its velocity alone.
        struck: dict[int, Held] = {}
        for frame in frames:
            status = frame[0]
            if status < 0xA0:
                velocity = frame[2]
                key = (status & 15) << 7 | frame[1]
                holders = notes.get(key)
                if status >= 0x90 and velocity:
                    if holders is None or origin not in holders:
                        held = struck.get(velocity)
                        if held is None:
                            held = struck[velocity] = _held((velocity, at, True, 1, 0))
                        if holders is None:
                            notes[key] = {origin: held}
                        else:
                            holders[origin] = held
                    else:
                        holders[origin] = holders[origin].struck_again(velocity, at)
                elif holders is not None and origin in holders:
                    held = holders[origin]
                    if held.outstanding + held.doubtful > 1:
                        holders[origin] = held.let_go()
                    elif len(holders) > 1:
                        del holders[origin]
                    else:
                        del notes[key]
            elif status < 0xC0:
                number, value = frame[1], frame[2]
                key = (status & 15) << 7 | number
                if status < 0xB0:
                    place = POLY_PRESSURES + key
                    values[place] = value
                    if not value or setters.get(place) != mine:
                        self._remember(place, origin, value != 0)
                elif number not in _MORE_THAN_A_VALUE:
                    values[key] = value
                elif number < 32 and number != DATA_MSB:
                    values[key] = value
                    values[key + 32] = UNSET
                elif number in PEDALS:
                    self._set_held(key, value, origin)
                elif number != PORTAMENTO_CONTROL:
                    self._control(status & 15, number, value, origin)
            elif status < 0xE0:
                self._set_channel(status, frame, origin)
            elif status < 0xF0:
                lsb, msb, place = frame[1], frame[2], BENDS_MSB + (status & 15)
                values[place] = msb
                values[place - BENDS_MSB + BENDS_LSB] = lsb
                bent = lsb != 0 or msb != 64
                if not bent or setters.get(place) != mine:
                    self._remember(place, origin, bent)
            elif status != 0xF0:
                self._system(status, frame)
        return self._settle() if self._owed else []

    def _set_held(self, place: int, value: int, origin: Origin) -> None:
        self.values[place] = value
        self._remember(place, origin, value != 0)

    def _remember(self, place: int, origin: Origin, off_neutral: bool) -> None:
        setters = self.setters.get(place)
        if setters is None:
            if off_neutral:
                self.setters[place] = {origin: True}
            return
        last = next(reversed(setters))
        if last is origin:
            if setters[origin] is off_neutral:
                return
            setters = {**setters, origin: off_neutral}
        else:
            setters = {last: setters[last], origin: off_neutral}
        self._keep_setters(place, setters)

    def _keep_setters(self, place: int, setters: dict[Origin, bool]) -> None:
        # Never changed in place: copies share them.
        if any(setters.values()):
            self.setters[place] = setters
        else:
            del self.setters[place]

    def _set_channel(self, status: int, frame: bytes, origin: Origin) -> None:
        values, channel = self.values, status & 15
        if status < 0xD0:
            values[PROGRAMS + channel] = frame[1]
            values[BANKS_MSB + channel] = values[channel << 7 | BANK_MSB]
            values[BANKS_LSB + channel] = values[channel << 7 | BANK_LSB]
        else:
            self._set_held(PRESSURES + channel, frame[1], origin)

    def _control(self, channel: int, number: int, value: int, origin: Origin) -> None:
        values = self.values
        if number < ALL_SOUND_OFF:
            if number >= NRPN_LSB:
                values[channel << 7 | number] = value
                values[PARAMETER_KINDS + channel] = NRPN_MSB if number <= NRPN_MSB else RPN_MSB
            else:
                self._enter_data(channel, number, value)
            return
        if number == RESET_ALL_CONTROLLERS:
            self.reset_controllers(channel)
        elif number == 122:
            values[channel << 7 | number] = value
        else:
            self._end_notes([key for key in self.notes if key >> 7 == channel])
            if number in (OMNI_OFF, OMNI_ON):
                values[OMNI_MODES + channel] = number
            elif number in (MONO_ON, POLY_ON):
                values[POLY_MODES + channel] = number
                values[MONO_CHANNELS + channel] = value if number == MONO_ON else 0

    def selected(self, channel: int) -> tuple[int, int, int, int] | None:
        """Return the parameter that data entry goes to, or None."""
        kind = self.values[PARAMETER_KINDS + channel]
        if kind == UNSET:
            return None
        msb, lsb = self.values[channel << 7 | kind], self.values[channel << 7 | kind - 1]
        # 127, 127 is no parameter (page 18).
        if UNSET in (msb, lsb) or msb == lsb == 127:
            return None
        return channel, kind, msb, lsb

    def _enter_data(self, channel: int, number: int, value: int) -> None:
        parameter = self.selected(channel)
        if parameter is None:
            return
        msb, lsb = self.parameters.get(parameter, (UNSET, UNSET))
        if number == DATA_MSB:
            msb, lsb = value, UNSET
        elif number == DATA_LSB:
            lsb = value
        elif msb == UNSET:
            # A step from what nobody knows leads to what nobody knows.
            return
        else:
            msb, lsb = _step(parameter, msb, lsb, 1 if number == DATA_INCREMENT else -1)
        self.parameters[parameter] = (msb, lsb)
        if len(self.parameters) > _MOST_PARAMETERS:
            del self.parameters[next(iter(self.parameters))]

    def reset_controllers(self, channel: int) -> None:
        """Do as Reset All Controllers says. Who set what is remembered: it may have been ignored."""
        values, first = self.values, channel << 7
        numbers = slice(first, first + 128)
        # Peers may send nothing but this message, so it has to be cheap: all of them at once.
        values[numbers] = (int.from_bytes(values[numbers]) | _UNKNOWN).to_bytes(128)
        for number, neutral in _RESETS.items():
            if values[first | number] != UNSET:
                values[first | number] = neutral
        pressures = slice(POLY_PRESSURES + first, POLY_PRESSURES + first + 128)
        values[pressures] = values[pressures].translate(_TO_ZERO)
        if values[PRESSURES + channel] != UNSET:
            values[PRESSURES + channel] = 0
        if values[BENDS_MSB + channel] != UNSET:
            values[BENDS_MSB + channel], values[BENDS_LSB + channel] = 64, 0

    def _end_notes(self, keys: Iterable[int]) -> None:
        for key in keys:
            for origin, held in self.notes[key].items():
                if held.outstanding:
                    self.notes[key][origin] = held.ended()

    def _system(self, status: int, frame: bytes) -> None:
        if status == 0xF8:
            if self.running:
                self.clock = (self.clock + 1) % _SONG_CLOCKS
        elif status == 0xF2:
            self.clock = (frame[1] | frame[2] << 7) * CLOCKS_A_BEAT
        elif status == 0xFA and not self.running:
            self.running = True
            self.clock = 0
        elif status == 0xFB:
            self.running = True
        elif status == 0xFC:
            self.running = False
        elif status == 0xFF:
            self._end_notes(list(self.notes))
            self.values[:] = _NOTHING_SET
            self.parameters.clear()
            self.running = False
            self.clock = 0
            self.resets += 1

    def _settle(self) -> list[bytes]:
        frames: list[bytes] = []
        for key, owed in list(self._owed.items()):
            if not any(held.sounding for held in self.notes.get(key, {}).values()):
                frames += owed.note_offs(key)
                del self._owed[key]
        return frames

    def tell_holders(self) -> dict[Origin, list[bytes]]:
        """Return what has to be said to single origins after `observe` and `forget`; it counts as said.

        Who alone still holds a note heard only what others struck, which is over. And who set a pedal last
        heard how another one set it before.
        """
        frames, self._alone = self._alone, {}
        for key, owed in self._owed.items():
            holder, *others = [origin for origin, held in self.notes[key].items() if held.sounding]
            if not others and holder not in owed.told:
                self._frozen = None
                self._owed[key] = owed._replace(told=owed.told | {holder})
                frames.setdefault(holder, []).extend(owed.note_offs(key))
        return frames

    # What is derived from it.

    def total(self, key: int, listener: Origin = None) -> Held | None:
        """Return what all origins but the listener together hold of a note, or None."""
        holders = [
            held
            for origin, held in self.notes.get(key, {}).items()
            if listener is None or origin is not listener
        ]
        if (owed := self._owed.get(key)) and (listener is None or listener not in owed.told):
            holders.append(owed.held)
        return _together(holders) if holders else None

    def _leave_out(self, listener: Origin) -> None:
        """Forget how a listener set pedals, bends and pressures: it has not heard that."""
        for place, setters in list(self.setters.items()):
            if listener in setters:
                others = {origin: off for origin, off in setters.items() if origin is not listener}
                if next(reversed(setters)) is listener:
                    # It may have heard how another one set it before, and nobody knows any more to what.
                    self._put(place, UNSET if any(others.values()) else None)
                self._keep_setters(place, others)

    def copy(self) -> Performance:
        """Return a copy that further observations do not change."""
        copy = self._without_notes()
        copy.notes = {key: holders.copy() for key, holders in self.notes.items()}
        copy._owed = self._owed.copy()
        return copy

    def frozen(self) -> Performance:
        """Return a copy that is shared by all who ask before anything else is observed."""
        if self._frozen is None:
            self._frozen = self.copy()
        return self._frozen

    def view(self, listener: Origin = None) -> Performance:
        """Return a copy as a listener has it: without its own notes, all others held by one origin."""
        view = self._without_notes()
        if listener is not None:
            view._leave_out(listener)
        for key in self.notes:
            if (total := self.total(key, listener)) is not None:
                view.notes[key] = {None: total}
        return view

    def view_of(
        self, keys: Iterable[int], listener: Origin = None, *, with_values: bool = True
    ) -> Performance:
        """Return what is held of a few notes but by the listener, and what is set if it is wanted."""
        view = self._without_notes() if with_values else Performance()
        for key in keys:
            if (total := self.total(key, listener)) is not None:
                view.notes[key] = {None: total}
        return view

    def _without_notes(self) -> Performance:
        copy = Performance()
        copy.values[:] = self.values
        copy.parameters = self.parameters.copy()
        copy.running, copy.clock, copy.resets = self.running, self.clock, self.resets
        copy.setters = self.setters.copy()
        return copy

    @property
    def is_blank(self) -> bool:
        """Whether nothing is set, as at power-up; notes may be held."""
        return self.values == _NOTHING_SET and not (self.parameters or self.running or self.clock)

    def doubt(self, now: Performance) -> None:
        """Take what is set, and is set in another performance too, for unset."""
        pairs = zip(self.values, now.values, strict=True)
        self.values[:] = bytes([value if other == UNSET else UNSET for value, other in pairs])
        self.parameters.clear()

    def off_neutral(self) -> dict[int, Origin]:
        """Return the places of the pedals, bends and pressures that have to be put back, and who has to."""
        last = {place: next(reversed(setters)) for place, setters in self.setters.items()}
        return {place: setter for place, setter in last.items() if self.setters[place][setter]}

    def silence(self) -> None:
        """Let go of everything that would sound on, whoever holds it: notes, pedals, bends and pressures."""
        self._frozen = None
        self.notes.clear()
        self._owed.clear()
        for place in self.setters:
            self._put(place, None)
        self.setters.clear()

    def forget(self, origin: Origin) -> None:
        """Let go of what only this origin still held: it is gone."""
        self._frozen = None
        for key in [key for key, holders in self.notes.items() if origin in holders]:
            holders = self.notes[key]
            held = holders.pop(origin)
            if any(other.sounding for other in holders.values()):
                owed = self._owed.get(key)
                held = held._replace(sounding=False)
                self._owed[key] = _Owed(held if owed is None else _together([owed.held, held]))
                continue
            self._owed.pop(key, None)
            if not holders:
                del self.notes[key]
        self._alone = {}
        for place, setters in list(self.setters.items()):
            if origin not in setters:
                continue
            last = next(reversed(setters))
            if setters[origin] and last is origin:
                self._put(place, None)
            elif setters[origin]:
                self._alone.setdefault(last, []).append(_neutral(place))
            self._keep_setters(place, {by: off for by, off in setters.items() if by is not origin})

    def _put(self, place: int, value: int | None) -> None:
        """Set all of a pedal, bend or pressure to a value; None is neutral."""
        self.values[place] = 0 if value is None else value
        if BENDS_MSB <= place < BENDS_LSB:
            self.values[place] = 64 if value is None else value
            self.values[place - BENDS_MSB + BENDS_LSB] = 0 if value is None else value


def note_off(key: int) -> bytes:
    """Return the note-off of a note, with the velocity of a keyboard that senses none (page 10)."""
    return bytes((0x80 | key >> 7, key & 127, 64))


def _neutral(place: int) -> bytes:
    """The message that puts a pedal, a bend or a pressure back."""
    if place < POLY_PRESSURES:
        return bytes((0xB0 | place >> 7, place & 127, 0))
    if place < PROGRAMS:
        return bytes((0xA0 | place - POLY_PRESSURES >> 7, place & 127, 0))
    if place < BENDS_MSB:
        return bytes((0xD0 | place - PRESSURES, 0))
    return bytes((0xE0 | place - BENDS_MSB, 0, 64))


def _together(holders: list[Held]) -> Held:
    """What several hold of one note: of what still sounds the latest stroke counts."""
    if len(holders) == 1:
        return holders[0]
    latest = max(holders, key=lambda held: (held.sounding, held.since))
    return latest._replace(
        outstanding=sum([held.outstanding for held in holders]),
        doubtful=sum([held.doubtful for held in holders]),
    )


def _step(parameter: tuple[int, int, int, int], msb: int, lsb: int, by: int) -> tuple[int, int]:
    # RP-018: coarse tuning and the choice of a tuning step in their most significant byte, the bend range in
    # cents, which are 100, and everything else in its least significant byte.
    if parameter[1:] in ((RPN_MSB, 0, 2), (RPN_MSB, 0, 3), (RPN_MSB, 0, 4)):
        return min(max(msb + by, 0), 127), lsb
    cents = 100 if parameter[1:] == (RPN_MSB, 0, 0) else 128
    fine = 0 if lsb == UNSET else min(lsb, cents - 1)
    value = min(max(msb * cents + fine + by, 0), 128 * cents - 1)
    return value // cents, value % cents
