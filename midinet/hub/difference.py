"""From one performance to another, in the fewest frames.

    difference(nothing, now)            who joins late
    difference(with it, without it)     what lets go of what a lost origin held
    difference(as of its last byte, now)    a slow listener that reads again

Every order here is one that MIDI asks for: a mode message ends notes, a program change takes the bank that
was selected before it (page 13), data entry goes to the parameter that was selected last (pages 17, 18), and
a note sounds with what is set when it is struck.
"""

from __future__ import annotations

from collections.abc import Set
from math import inf

from .performance import (
    BANK_LSB,
    BANK_MSB,
    BANKS_LSB,
    BANKS_MSB,
    BENDS_LSB,
    BENDS_MSB,
    CLOCKS_A_BEAT,
    DATA_LSB,
    DATA_MSB,
    MONO_CHANNELS,
    NRPN_LSB,
    NRPN_MSB,
    OMNI_MODES,
    PARAMETER_KINDS,
    PEDALS,
    POLY_MODES,
    POLY_PRESSURES,
    PRESSURES,
    PROGRAMS,
    RESET_ALL_CONTROLLERS,
    RPN_MSB,
    UNSET,
    Performance,
    note_off,
)

_MODES = (OMNI_MODES, POLY_MODES, MONO_CHANNELS)
_PROGRAMS = (PROGRAMS, BANKS_MSB, BANKS_LSB)
_BENDS = (BENDS_MSB, BENDS_LSB)


def difference(before: Performance | None, now: Performance, *, struck_since: float = inf) -> list[bytes]:
    """Return the fewest frames that take a listener from one performance to another.

    Note-offs come first, then modes, bank and program, controllers, parameters, bend, pressures, the
    transport, and at last note-ons.

    Args:
        before: what the listener has; None is nothing.
        now: what it shall have.
        struck_since: send the note-ons of notes that were struck then or later, in seconds of the clock that
            `observe` was given; -inf is all of them, inf is none.
    """
    if before is None:
        before = Performance()
        before.resets = now.resets
    off_neutral = before.off_neutral().items()
    if over := [place for place, setter in off_neutral if not now.setters.get(place, {}).get(setter)]:
        # They may be neutral already, by a message that hardware ignores.
        before = before.copy()
        for place in over:
            before.values[place] = UNSET
    after_reset = before if before.resets == now.resets else Performance()
    changed = _changed_channels(after_reset, now)
    ended = {channel for channel in changed if _differs(before, now, channel, *_MODES)}
    if after_reset is not before:
        ended.update(range(16))
    note_offs, note_ons = _notes(before, now, ended, struck_since)
    frames = note_offs
    if after_reset is not before:
        frames.append(b"\xff")
    before = after_reset
    for channel in changed:
        frames += _settings(before, now, channel)
    return frames + _transport(before, now) + note_ons


def _changed_channels(before: Performance, now: Performance) -> list[int]:
    """The channels on which anything is set that was not, or otherwise.

    Whoever joins or reads again is brought to a performance, and to look at every place of it takes a
    millisecond. Most of it is as it was, which takes far less to find out.
    """
    if before.values == now.values and before.parameters == now.parameters:
        return []
    parameters = {key[0] for key, value in now.parameters.items() if value != before.parameters.get(key)}
    return [
        channel
        for channel in range(16)
        if channel in parameters or _set_on(channel, before) != _set_on(channel, now)
    ]


def _set_on(channel: int, performance: Performance) -> tuple[bytearray, bytearray, bytearray]:
    """What is set on a channel: its controllers, its polyphonic pressures, and the rest."""
    values, first = performance.values, channel << 7
    return (
        values[first : first + 128],
        values[POLY_PRESSURES + first : POLY_PRESSURES + first + 128],
        values[PROGRAMS + channel :: 16],
    )


def _notes(
    before: Performance, now: Performance, ended: Set[int], struck_since: float
) -> tuple[list[bytes], list[bytes]]:
    """Return the note-offs and the note-ons.

    A listener may give every note-on a voice of its own, or may stop a note at the first note-off. For the
    one, as many note-offs have to be outstanding as it has voices, or more; for the other, what sounds has
    to be struck after the last note-off, which is done only where it is not too late.

    Args:
        ended: the channels of which all notes end on the way.
    """
    note_offs: list[bytes] = []
    note_ons: list[bytes] = []
    for key in dict.fromkeys([*before.held_notes, *now.held_notes]):
        had, has = before.total(key), now.total(key)
        sounded = had is not None and had.sounding
        sounds = has is not None and has.sounding
        strike = False
        if has is not None and sounds and has.since >= struck_since:
            strike = had is None or not sounded or key >> 7 in ended or has.since > had.since
        if had is not None:
            surplus = max(had.outstanding + strike - (0 if has is None else has.outstanding), 0)
            surplus += max(had.doubtful - (0 if has is None else has.doubtful), 0)
            note_offs += [note_off(key)] * max(surplus, int(sounded and not sounds))
        if has is not None and strike:
            note_ons.append(bytes((0x90 | key >> 7, key & 127, has.velocity)))
    return note_offs, note_ons


def _differs(before: Performance, now: Performance, number: int, *places: int) -> bool:
    """Whether what is set now, in one of these places, was not set to that."""
    return any(now.values[place + number] not in (UNSET, before.values[place + number]) for place in places)


def _settings(before: Performance, now: Performance, channel: int) -> list[bytes]:
    """What is set on one channel and was not, or not to that."""
    has, first, control = now.values, channel << 7, 0xB0 | channel
    frames: list[bytes] = []
    if _differs(before, now, channel, OMNI_MODES):
        frames.append(bytes((control, has[OMNI_MODES + channel], 0)))
    if _differs(before, now, channel, POLY_MODES, MONO_CHANNELS):
        frames.append(bytes((control, has[POLY_MODES + channel], has[MONO_CHANNELS + channel])))
    if _was_reset(before, now, channel):
        frames.append(bytes((control, RESET_ALL_CONTROLLERS, 0)))
        before = before.copy()
        before.reset_controllers(channel)

    # What the listener has got so far.
    controllers = before.values[first : first + 128]

    def bring(number: int, value: int, second: int = 0) -> None:
        """Bring a controller to a value; `second` is what its second byte shall be, if it has one."""
        uncleared = second == UNSET and controllers[number + 32] not in (0, UNSET)
        if value != UNSET and (value != controllers[number] or uncleared):
            frames.append(bytes((control, number, value)))
            controllers[number] = value
            # Cleared, or not: there is hardware that leaves it.
            if number < 32 and controllers[number + 32] != 0:
                controllers[number + 32] = UNSET

    if _differs(before, now, channel, *_PROGRAMS):
        bank_msb, bank_lsb = has[BANKS_MSB + channel], has[BANKS_LSB + channel]
        bring(BANK_MSB, bank_msb, bank_lsb)
        bring(BANK_LSB, bank_lsb)
        frames.append(bytes((0xC0 | channel, has[PROGRAMS + channel])))
    for number in range(128):
        if not NRPN_LSB <= number <= RPN_MSB:
            bring(number, has[first | number], has[first | number + 32] if number < 32 else 0)
    frames += _parameters(before, now, channel)
    if _differs(before, now, channel, *_BENDS):
        frames.append(bytes((0xE0 | channel, has[BENDS_LSB + channel], has[BENDS_MSB + channel])))
    if _differs(before, now, channel, PRESSURES):
        frames.append(bytes((0xD0 | channel, has[PRESSURES + channel])))
    pressures = slice(POLY_PRESSURES + first, POLY_PRESSURES + first + 128)
    pairs = zip(before.values[pressures], has[pressures], strict=True)
    frames += [
        bytes((0xA0 | channel, note, value))
        for note, (had, value) in enumerate(pairs)
        if value not in (UNSET, had)
    ]
    return frames


def _was_reset(before: Performance, now: Performance, channel: int) -> bool:
    """Whether a controller was set and is not any more, for another reason than its first byte."""
    first = channel << 7
    had, has = before.values[first : first + 128], now.values[first : first + 128]
    return had != has and any(
        had[number] != UNSET
        and has[number] == UNSET
        and number not in PEDALS
        and not (32 <= number < 64 and has[number - 32] != UNSET)
        for number in range(128)
    )


def _parameters(before: Performance, now: Performance, channel: int) -> list[bytes]:
    control, first = 0xB0 | channel, channel << 7
    registers = {number: before.values[first | number] for number in range(NRPN_LSB, RPN_MSB + 1)}
    kind = before.values[PARAMETER_KINDS + channel]
    frames: list[bytes] = []

    def select(wanted: int, msb: int, lsb: int) -> None:
        nonlocal kind
        halves = [(number, value) for number, value in ((wanted, msb), (wanted - 1, lsb)) if value != UNSET]
        changed = [(number, value) for number, value in halves if registers[number] != value]
        if kind != wanted:
            changed = changed or halves[:1]
        frames.extend(bytes((control, number, value)) for number, value in changed)
        registers.update(changed)
        kind = wanted if changed else kind

    changed = [
        parameter
        for parameter, value in now.parameters.items()
        if parameter[0] == channel and value != before.parameters.get(parameter)
    ]
    # The one that is to be selected in the end comes last.
    last = now.selected(channel)
    for parameter in sorted(changed, key=lambda parameter: parameter == last):
        select(*parameter[1:])
        had_msb, had_lsb = before.parameters.get(parameter, (UNSET, UNSET))
        msb, lsb = now.parameters[parameter]
        # The most significant byte may set the other one to 0 (page 18), so it comes first.
        if msb != UNSET and (msb != had_msb or (lsb == UNSET and had_lsb not in (0, UNSET))):
            frames.append(bytes((control, DATA_MSB, msb)))
            had_lsb = 0 if had_lsb == 0 else UNSET
        if lsb not in (UNSET, had_lsb):
            frames.append(bytes((control, DATA_LSB, lsb)))
    wanted = now.values[PARAMETER_KINDS + channel]
    if wanted != UNSET:
        # The kind that data entry goes to comes last.
        for number in (NRPN_MSB + RPN_MSB - wanted, wanted):
            msb, lsb = now.values[first | number], now.values[first | number - 1]
            if (msb, lsb) != (registers[number], registers[number - 1]) or (number == wanted != kind):
                select(number, msb, lsb)
    return frames


def _transport(before: Performance, now: Performance) -> list[bytes]:
    late = now.clock - before.clock
    if before.running and now.running and 0 <= late <= CLOCKS_A_BEAT:
        return [b"\xf8"] * late
    beat, clocks = divmod(now.clock, CLOCKS_A_BEAT)
    frames: list[bytes] = []
    if not now.running:
        if before.running:
            frames.append(b"\xfc")
        if beat != before.clock // CLOCKS_A_BEAT:
            frames.append(bytes((0xF2, beat & 127, beat >> 7)))
        return frames
    # While it runs, its position may not be set (page 27), and Start is ignored (page 32).
    if before.running:
        frames.append(b"\xfc")
    if now.clock == before.clock != 0:
        return [*frames, b"\xfb"]
    if beat == 0:
        frames.append(b"\xfa")
    else:
        # A listener that stands on that beat goes on from there.
        if before.running or before.clock != now.clock - clocks:
            frames.append(bytes((0xF2, beat & 127, beat >> 7)))
        frames.append(b"\xfb")
    return frames + [b"\xf8"] * clocks
