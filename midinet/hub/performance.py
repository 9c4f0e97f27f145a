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

import re
from collections.abc import Hashable, Iterable, KeysView, Set
from typing import Any, NamedTuple, TypeAlias

from ..wire.columns import channel_columns, three_byte_columns
from ..wire.spec import FIRST_SYSTEM, SYSEX

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
_TO_LSB = BENDS_LSB - BENDS_MSB
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
# They belong to the next note alone, and are no state (page 16 of the controllers' list, and CA-031).
PORTAMENTO_CONTROL, HIGH_RESOLUTION_VELOCITY = 84, 88
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
# By status: where in `values` the messages of a channel are, and the key of a channel's first note.
_PLACES = [0] * 0x80
for _kind in (0, 0, POLY_PRESSURES, CONTROLLERS):
    _PLACES += [_kind + (_channel << 7) for _channel in range(16)]
for _kind in (PROGRAMS, PRESSURES, BENDS_MSB):
    _PLACES += [_kind + _channel for _channel in range(16)]

# What each controller does beside keeping a value. In a table, since most messages are looked up in it.
_KEEPS, _CLEARS_ITS_SECOND_BYTE, _IS_A_PEDAL, _PASSES_BY, _DOES_MORE = range(5)
_EFFECTS = [_KEEPS] * 128
_EFFECTS[:32] = [_CLEARS_ITS_SECOND_BYTE] * 32
_EFFECTS[PORTAMENTO_CONTROL] = _EFFECTS[HIGH_RESOLUTION_VELOCITY] = _PASSES_BY
for _number in PEDALS:
    _EFFECTS[_number] = _IS_A_PEDAL
for _number in (DATA_MSB, DATA_LSB, *range(DATA_INCREMENT, RPN_MSB + 1), *range(ALL_SOUND_OFF, 128)):
    _EFFECTS[_number] = _DOES_MORE

# In whole messages: channel messages in a row, or one of any other kind.
_CHANNEL_OR_SYSTEM = re.compile(rb"[\x00-\xef]+|[\xf0-\xff][\x00-\x7f]*\xf7?")

# 6 clocks are one unit of the song position pointer, which has 14 bits (page 27).
CLOCKS_A_BEAT = 6
_SONG_CLOCKS = 16384 * CLOCKS_A_BEAT

# Note-offs that are owed for one note of one origin. A drum machine that never sends any would owe thousands;
# no instrument gives one note so many voices.
_MOST_OUTSTANDING = 16

# Parameters that are remembered; there could be half a million. Who sets so many sends a patch, in NRPNs.
MAX_PARAMETERS = 2048


# Where something is set or held: a place in `values`; `_NOTES` and the key of a note; a parameter; or one of
# two more.
Place: TypeAlias = int | tuple[int, int, int, int]
_NOTES = _SIZE
_TRANSPORT, _RESETS_COUNT = -1, -2

# Bytes that are not 0.
_NOT_ZERO = re.compile(rb"[^\0]")


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

    def let_go(self) -> Held:
        """Return it after a note-off."""
        if self.outstanding:
            return self._replace(sounding=False, outstanding=self.outstanding - 1)
        return self._replace(doubtful=self.doubtful - 1)

    def ended(self) -> Held:
        """Return it after a message that hardware may ignore."""
        if not self.outstanding:
            return self
        doubtful = min(self.outstanding + self.doubtful, _MOST_OUTSTANDING)
        return self._replace(sounding=False, outstanding=0, doubtful=doubtful)


# Nearly every note has one holder: who it is, and then what a Held says. It is a plain tuple, and made and
# taken apart in `_hear`, since that is done for nearly every message.
_Sole: TypeAlias = tuple[Origin, int, float, bool, int, int]
_SOUNDING = 3
_OUTSTANDING = 4

# In its place where a note has several.
_SEVERAL: _Sole = (object(), 0, 0.0, False, 0, 0)

_NOT_HELD = Held(0, 0.0, sounding=False, outstanding=0)


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
        "_mine",
        "_owed",
        "_several",
        "_sole",
        "clock",
        "parameters",
        "resets",
        "running",
        "setters",
        "values",
    )

    def __init__(self) -> None:
        # Who holds what, by note: a sole holder, or _SEVERAL and then the holders.
        self._sole: dict[int, _Sole] = {}
        self._several: dict[int, dict[Origin, Held]] = {}
        self.values = bytearray(_NOTHING_SET)
        # By channel, kind (NRPN_MSB or RPN_MSB), and the number's most and least significant byte.
        self.parameters: dict[tuple[int, int, int, int], tuple[int, int]] = {}
        # The transport, and its position in clocks.
        self.running = False
        self.clock = 0
        # How often everything was reset.
        self.resets = 0
        # Who set pedals, bends and pressures, by their places in `values`: the last one and the one before,
        # and whether to anything but neutral, which one of them did. Never changed in place.
        self.setters: dict[int, dict[Origin, bool]] = {}
        # What stands there for whoever was observed last and alone set something. To find this very object
        # is the fastest way to see that there is nothing new.
        self._mine: dict[Origin, bool] = {}
        # What has to be said to single origins because another one was forgotten.
        self._alone: dict[Origin, list[bytes]] = {}
        # By note, of which some origin that is there sounds each.
        self._owed: dict[int, _Owed] = {}
        self._frozen: Performance | None = None

    def observe(self, data: bytes, origin: Origin, at: float) -> list[bytes]:
        """Take note of what an origin said.

        Args:
            data: whole messages, joined.
            origin: who said them.
            at: when, by a monotonic clock, in seconds.

        Returns:
            What has to be said to all beside them, as frames: the note-offs of an origin that is gone, for
            notes that another one held longer. Nearly always nothing.
        """
        self._frozen = None
        if origin not in self._mine:
            self._mine = {origin: True}
        if (columns := three_byte_columns(data)) is not None:
            self._hear(*columns, origin, at)
        else:
            for piece in _CHANNEL_OR_SYSTEM.findall(data):
                if piece[0] < FIRST_SYSTEM:
                    self._hear(*channel_columns(piece), origin, at)
                elif piece[0] != SYSEX:
                    self._system(piece[0], piece)
        return self._settle() if self._owed else []

    def _hear(self, statuses: bytes, firsts: bytes, seconds: bytes, origin: Origin, at: float) -> None:
        """Take note of channel messages. What a relay costs is mostly spent here."""
        sole, values, setters, mine = self._sole, self.values, self.setters, self._mine
        places, effects = _PLACES, _EFFECTS
        for status, first, second in zip(statuses, firsts, seconds):  # noqa: B905
            if status < 0xA0:
                key = places[status] + first
                held = sole.get(key)
                if second and status >= 0x90:
                    if held is None:
                        sole[key] = (origin, second, at, True, 1, 0)
                    elif held[0] is origin:
                        _, _, _, _, outstanding, doubtful = held
                        if outstanding < _MOST_OUTSTANDING:
                            outstanding += 1
                        sole[key] = (origin, second, at, True, outstanding, doubtful)
                    else:
                        self._strike_with_others(key, origin, second, at)
                elif held is None:
                    pass
                elif held[0] is origin:
                    _, velocity, since, sounding, outstanding, doubtful = held
                    if outstanding + doubtful == 1:
                        del sole[key]
                    elif outstanding:
                        sole[key] = (origin, velocity, since, False, outstanding - 1, doubtful)
                    else:
                        sole[key] = (origin, velocity, since, sounding, 0, doubtful - 1)
                elif held is _SEVERAL:
                    self._let_go_with_others(key, origin)
            elif status < 0xB0:
                place = places[status] + first
                values[place] = second
                if not second or setters.get(place) is not mine:
                    self._remember(place, origin, second != 0)
            elif status < 0xC0:
                place = places[status] + first
                effect = effects[first]
                if effect == _KEEPS:
                    values[place] = second
                elif effect == _CLEARS_ITS_SECOND_BYTE:
                    values[place] = second
                    values[place + 32] = UNSET
                elif effect == _IS_A_PEDAL:
                    values[place] = second
                    self._remember(place, origin, second != 0)
                elif effect == _DOES_MORE:
                    self._control(status & 15, first, second)
            elif status >= 0xE0:
                place = places[status]
                values[place] = second
                values[place + _TO_LSB] = first
                bent = second != 64 or first != 0
                if not bent or setters.get(place) is not mine:
                    self._remember(place, origin, bent)
            elif status < 0xD0:
                channel = status & 15
                values[PROGRAMS + channel] = first
                values[BANKS_MSB + channel] = values[channel << 7 | BANK_MSB]
                values[BANKS_LSB + channel] = values[channel << 7 | BANK_LSB]
            else:
                place = places[status]
                values[place] = first
                self._remember(place, origin, first != 0)

    # Notes that several hold.

    def holders(self, key: int) -> dict[Origin, Held]:
        """Return who holds a note, and how."""
        held = self._sole.get(key)
        if held is None:
            return {}
        return self._several[key].copy() if held is _SEVERAL else {held[0]: Held(*held[1:])}

    @property
    def notes(self) -> dict[int, dict[Origin, Held]]:
        """Who holds what, by note."""
        return {key: self.holders(key) for key in self._sole}

    @property
    def held_notes(self) -> KeysView[int]:
        """The notes that anybody holds, in the order in which they were struck."""
        return self._sole.keys()

    @property
    def sounding_notes(self) -> list[int]:
        """Those of the held notes that no note-off came for, in the same order."""
        return [
            key
            for key, held in self._sole.items()
            if held[_SOUNDING]
            or (held is _SEVERAL and any(one.sounding for one in self._several[key].values()))
        ]

    def _hold(self, key: int, holders: dict[Origin, Held]) -> None:
        """Have these hold a note, and nobody else."""
        self._several.pop(key, None)
        if not holders:
            self._sole.pop(key, None)
        elif len(holders) == 1:
            ((origin, held),) = holders.items()
            self._sole[key] = (origin, *held)
        else:
            # Never changed in place: copies share them.
            self._several[key] = holders
            self._sole[key] = _SEVERAL

    def _strike_with_others(self, key: int, origin: Origin, velocity: int, at: float) -> None:
        holders = self.holders(key)
        before = holders.get(origin, _NOT_HELD)
        outstanding = min(before.outstanding + 1, _MOST_OUTSTANDING)
        holders[origin] = Held(velocity, at, True, outstanding, before.doubtful)
        self._hold(key, holders)

    def _let_go_with_others(self, key: int, origin: Origin) -> None:
        holders = self.holders(key)
        if (held := holders.pop(origin, None)) is not None:
            if held.outstanding + held.doubtful > 1:
                holders[origin] = held.let_go()
            self._hold(key, holders)

    # Who set what.

    def _remember(self, place: int, origin: Origin, off_neutral: bool) -> None:
        setters = self.setters.get(place)
        if setters is None:
            if off_neutral:
                self.setters[place] = self._mine
            return
        last = next(reversed(setters))
        if last is origin:
            if setters[origin] is off_neutral:
                if len(setters) == 1:
                    self.setters[place] = self._mine
                return
            setters = {**setters, origin: off_neutral}
        else:
            setters = {last: setters[last], origin: off_neutral}
        self._keep_setters(place, setters)

    def _keep_setters(self, place: int, setters: dict[Origin, bool]) -> None:
        if any(setters.values()):
            self.setters[place] = setters
        else:
            del self.setters[place]

    def _control(self, channel: int, number: int, value: int) -> None:
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
            self._end_notes([key for key in self._sole if key >> 7 == channel])
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
        if len(self.parameters) > MAX_PARAMETERS:
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
            sole = self._sole[key]
            if sole is _SEVERAL or sole[_OUTSTANDING]:
                self._hold(key, {origin: held.ended() for origin, held in self.holders(key).items()})

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
            self._end_notes(list(self._sole))
            self.values[:] = _NOTHING_SET
            self.parameters.clear()
            self.running = False
            self.clock = 0
            self.resets += 1

    def _settle(self) -> list[bytes]:
        frames: list[bytes] = []
        for key, owed in list(self._owed.items()):
            if not any(held.sounding for held in self.holders(key).values()):
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
            holder, *others = [origin for origin, held in self.holders(key).items() if held.sounding]
            if not others and holder not in owed.told:
                self._frozen = None
                self._owed[key] = owed._replace(told=owed.told | {holder})
                frames.setdefault(holder, []).extend(owed.note_offs(key))
        return frames

    @property
    def owes(self) -> bool:
        """Whether `observe` may find something that has to be said beside what it observes."""
        return bool(self._owed or self._alone)

    # What is derived from it.

    def held_by(self, origins: Set[Origin]) -> dict[Origin, list[int]]:
        """Return the notes that each of these holds, for those that hold any."""
        keys: dict[Origin, list[int]] = {}
        for key, held in self._sole.items():
            if held[0] in origins:
                keys.setdefault(held[0], []).append(key)
            elif held is _SEVERAL:
                for origin in self._several[key].keys() & origins:
                    keys.setdefault(origin, []).append(key)
        return keys

    def total(self, key: int, listener: Origin = None) -> Held | None:
        """Return what all origins but the listener together hold of a note, or None."""
        sole = self._sole.get(key)
        if sole is not None and sole is not _SEVERAL and key not in self._owed:
            return None if listener is not None and sole[0] is listener else Held(*sole[1:])
        holders = [
            held for origin, held in self.holders(key).items() if listener is None or origin is not listener
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
        copy._sole = self._sole.copy()
        copy._several = self._several.copy()
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
        self._show(self._sole, listener, view)
        return view

    def held_alone(self, origin: Origin) -> Performance:
        """Return a copy in which nobody but one origin holds notes."""
        copy = self._without_notes()
        for key in self.held_by({origin}).get(origin, []):
            copy._hold(key, {origin: self.holders(key)[origin]})
        return copy

    def view_of(
        self, keys: Iterable[int], listener: Origin = None, *, with_values: bool = True
    ) -> Performance:
        """Return what is held of a few notes but by the listener, and what is set if it is wanted."""
        view = self._without_notes() if with_values else Performance()
        self._show(keys, listener, view)
        return view

    def _show(self, keys: Iterable[int], listener: Origin, view: Performance) -> None:
        for key in keys:
            if (total := self.total(key, listener)) is not None:
                view._sole[key] = (None, *total)

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

    def otherwise(self, other: Performance) -> dict[Place, Any]:
        """Return what is not as in another performance, by place, for `put`."""
        contents: dict[Place, Any] = {}
        places = {
            place
            for place in self.setters.keys() | other.setters.keys()
            if list(self.setters.get(place, {}).items()) != list(other.setters.get(place, {}).items())
        }
        if self.values != other.values:
            differing = int.from_bytes(self.values) ^ int.from_bytes(other.values)
            places.update(match.start() for match in _NOT_ZERO.finditer(differing.to_bytes(_SIZE)))
        for place in places:
            contents[place] = self.values[place], self.setters.get(place)
        for key in self._sole.keys() | other._sole.keys() | self._owed.keys() | other._owed.keys():
            owed = self._owed.get(key)
            if self.holders(key) != other.holders(key) or owed != other._owed.get(key):
                contents[_NOTES + key] = self.holders(key), owed
        if self.parameters != other.parameters:
            for parameter in self.parameters.keys() | other.parameters.keys():
                if self.parameters.get(parameter) != other.parameters.get(parameter):
                    contents[parameter] = self.parameters.get(parameter)
        if (self.running, self.clock) != (other.running, other.clock):
            contents[_TRANSPORT] = self.running, self.clock
        if self.resets != other.resets:
            contents[_RESETS_COUNT] = self.resets
        return contents

    def put(self, contents: dict[Place, Any]) -> None:
        """Have these places as another performance had them.

        Args:
            contents: what `otherwise` returned there.
        """
        self._frozen = None
        for place, content in contents.items():
            if isinstance(place, tuple):
                _set_or_delete(self.parameters, place, content)
            elif place == _TRANSPORT:
                self.running, self.clock = content
            elif place == _RESETS_COUNT:
                self.resets = content
            elif place >= _NOTES:
                holders, owed = content
                self._hold(place - _NOTES, holders)
                _set_or_delete(self._owed, place - _NOTES, owed)
            else:
                self.values[place], setters = content
                _set_or_delete(self.setters, place, setters)

    def silence(self) -> None:
        """Let go of everything that would sound on, whoever holds it: notes, pedals, bends and pressures."""
        self._frozen = None
        self._sole.clear()
        self._several.clear()
        self._owed.clear()
        for place in self.setters:
            self._put(place, None)
        self.setters.clear()

    def forget(self, origin: Origin, keys: Iterable[int] | None = None) -> None:
        """Let go of what only this origin still held: it is gone.

        Args:
            keys: the notes that it holds; None looks for them.
        """
        self._frozen = None
        for key in self.held_by({origin}).get(origin, []) if keys is None else keys:
            holders = self.holders(key)
            held = holders.pop(origin)
            self._hold(key, holders)
            if any(other.sounding for other in holders.values()):
                owed = self._owed.get(key)
                held = held._replace(sounding=False)
                self._owed[key] = _Owed(held if owed is None else _together([owed.held, held]))
                continue
            self._owed.pop(key, None)
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
        if origin in self._mine:
            self._mine = {}

    def _put(self, place: int, value: int | None) -> None:
        """Set all of a pedal, bend or pressure to a value; None is neutral."""
        self.values[place] = 0 if value is None else value
        if BENDS_MSB <= place < BENDS_LSB:
            self.values[place] = 64 if value is None else value
            self.values[place - BENDS_MSB + BENDS_LSB] = 0 if value is None else value


def channel_of(place: Place) -> int:
    """Return the channel of a place; -1 where it is of none."""
    if isinstance(place, tuple):
        return place[0]
    if place < 0:
        return -1
    if place >= _NOTES:
        return place - _NOTES >> 7
    return place >> 7 & 15 if place < PROGRAMS else place & 15


def touched_by(data: bytes) -> tuple[set[Place], set[int]]:
    """Return what whole messages may change.

    Returns:
        (places, channels): of the channels they may change anything, depending on what is set there. The
        channel -1 stands for what is of none.
    """
    places: set[Place] = set()
    channels: set[int] = set()
    for piece in _CHANNEL_OR_SYSTEM.findall(data):
        if piece[0] >= FIRST_SYSTEM:
            if piece[0] == 0xFF:
                channels.update(range(-1, 16))
            elif piece[0] != SYSEX:
                places.add(_TRANSPORT)
            continue
        statuses, firsts, _ = channel_columns(piece)
        for status, first in set(zip(statuses, firsts, strict=True)):
            place = _PLACES[status]
            if status < 0xA0:
                places.add(_NOTES + place + first)
            elif status < 0xB0:
                places.add(place + first)
            elif status < 0xC0:
                effect = _EFFECTS[first]
                if effect == _DOES_MORE:
                    channels.add(status & 15)
                elif effect != _PASSES_BY:
                    places.add(place + first)
                    if effect == _CLEARS_ITS_SECOND_BYTE:
                        places.add(place + first + 32)
            elif status < 0xD0:
                # It takes the bank that is selected.
                channels.add(status & 15)
            else:
                places.add(place)
                if status >= 0xE0:
                    places.add(place + _TO_LSB)
    return places, channels


def _set_or_delete(mapping: dict[Any, Any], key: object, value: object) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def note_off(key: int) -> bytes:
    """Return the note-off of a note, with the velocity of a keyboard that senses none (page 10)."""
    return bytes((0x80 | key >> 7, key & 127, 64))


def setting(place: int, value: int, least: int = 0) -> bytes:
    """Return the message that sets a pedal, a bend or a pressure; `least` is the bend's least significant
    byte."""
    if place < POLY_PRESSURES:
        return bytes((0xB0 | place >> 7, place & 127, value))
    if place < PROGRAMS:
        return bytes((0xA0 | place - POLY_PRESSURES >> 7, place & 127, value))
    if place < BENDS_MSB:
        return bytes((0xD0 | place - PRESSURES, value))
    return bytes((0xE0 | place - BENDS_MSB, least, value))


def _neutral(place: int) -> bytes:
    """The message that puts a pedal, a bend or a pressure back."""
    return setting(place, 64 if place >= BENDS_MSB else 0)


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
