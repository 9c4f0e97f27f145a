"""What hubs of one session say to each other: the layout of a broker message, version 1.

All numbers are unsigned and big-endian. A packet begins with

    bytes   what
    0       "MN"
    2       the version of this layout, 1
    3       its kind
    4       the identity of the hub that says it: 16 random bytes, new each time that it starts
    20      a sequence number: of FRAMES their own, which counts from 1; otherwise that of the last FRAMES
    28      when it was said, in microseconds of that hub's own clock, which never goes back

and goes on by its kind:

    1 FRAMES    whole MIDI messages, each with its own status byte
    2 ALIVE     8 bytes: a digest of what is set
    3 ASK       16 bytes: the hub that is asked for its STATE; zeros are all of them
    4 STATE     what the hub's own clients hold, and what is set, as of the sequence number:
                the transport: 1 whether the song plays, 4 its position in MIDI clocks, 4 age
                2 how many notes, and for each: 1 channel, 1 note, 1 velocity, 1 note-offs outstanding, 4 age
                2 how many settings, and for each: 2 place, 1 value, 4 age, 1 whether it is a pedal, bend or
                pressure that the hub's own clients hold, and has to be put back when they are gone
                2 how many parameters, and for each: 1 channel, 1 the controller that selects its kind (99 or
                101), 2 its number, 2 its value, each in 7-bit bytes, the most significant first; 4 age
    5 BYE       nothing: the hub ends

An age is in milliseconds: for how long it has been so. Ages need no clocks that agree. A value of 255 is not
set. The place of a setting is

    0       + 128 * channel + number    a controller
    2048    + 128 * channel + note      a polyphonic pressure
    4096    + channel                   a program, and from 4112 and 4128 on its bank, as controllers 0 and 32
    4144    + channel                   a channel pressure
    4160    + channel                   a pitch bend's most significant byte, and from 4176 on its least
    4192    + channel                   the last of the controllers 124 and 125, from 4208 on of 126 and 127,
                                        from 4224 on the value of 126
    4240    + channel                   the controller, 99 or 101, that selected a parameter last

What is anything else is not understood, and read as None: another version, another program's message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

FRAMES, ALIVE, ASK, STATE, BYE = 1, 2, 3, 4, 5

VERSION = 1
IDENTITY_BYTES = 16
EVERYBODY = bytes(IDENTITY_BYTES)

_MAGIC = b"MN"
_HEADER = struct.Struct(">2sBB16sQQ")
_DIGEST = struct.Struct(">Q")
_TRANSPORT = struct.Struct(">BII")
_COUNT = struct.Struct(">H")
_NOTE = struct.Struct(">BBBBI")
_SETTING = struct.Struct(">HBI?")
_PARAMETER = struct.Struct(">BBBBBBI")

HEADER_BYTES = _HEADER.size

# Bytes of bodies that have but one length.
_LENGTHS = {ALIVE: _DIGEST.size, ASK: IDENTITY_BYTES, BYE: 0}

# Where settings can be, and what is none.
_PLACES = 4256
_UNSET = 255
_PEDALS = (64, 66, 67, 69)

# From which place on there are only these values.
_FEW = ((4240, (99, 101)), (4224, range(17)), (4208, (126, 127)), (4192, (124, 125)))
_MOST_AGE = (1 << 32) - 1


class Packet(NamedTuple):
    """One broker message."""

    kind: int
    hub: bytes
    number: int
    said_at: float
    """In seconds of that hub's clock."""
    body: bytes


class Note(NamedTuple):
    """A note that a hub's clients hold."""

    key: int
    """channel << 7 | note."""
    velocity: int
    outstanding: int
    age: float
    """In seconds, as all ages here."""


class State(NamedTuple):
    """What a hub's clients hold, and what is set there."""

    running: bool
    clock: int
    transport_age: float
    notes: list[Note]
    settings: dict[int, tuple[int, float, bool]]
    """Value, age and whether that hub's clients hold it so, by place."""
    parameters: dict[tuple[int, int, int, int], tuple[int, int, float]]
    """Both bytes of the value and the age, by channel, kind and both bytes of the number."""


def pack(kind: int, hub: bytes, number: int, said_at: float, body: bytes = b"") -> bytes:
    """Return the bytes of a packet, whose fields `Packet` explains."""
    return _HEADER.pack(_MAGIC, VERSION, kind, hub, number, int(said_at * 1_000_000)) + body


def unpack(data: bytes) -> Packet | None:
    """Return the packet, or None where there is none that is understood."""
    if len(data) < HEADER_BYTES:
        return None
    magic, version, kind, hub, number, said_at = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != VERSION or hub == EVERYBODY:
        return None
    body = data[HEADER_BYTES:]
    if kind == FRAMES and not body:
        return None
    if kind not in (FRAMES, STATE) and len(body) != _LENGTHS.get(kind):
        return None
    return Packet(kind, hub, number, said_at / 1_000_000, body)


def pack_digest(digest: int) -> bytes:
    """Return the body of an ALIVE."""
    return _DIGEST.pack(digest)


def unpack_digest(body: bytes) -> int:
    """Return the digest of an ALIVE's body."""
    return int(_DIGEST.unpack(body)[0])


def pack_state(state: State) -> bytes:
    """Return the body of a STATE."""
    pieces = [_TRANSPORT.pack(state.running, state.clock, _milliseconds(state.transport_age))]
    pieces.append(_COUNT.pack(len(state.notes)))
    pieces += [
        _NOTE.pack(key >> 7, key & 127, velocity, outstanding, _milliseconds(age))
        for key, velocity, outstanding, age in state.notes
    ]
    pieces.append(_COUNT.pack(len(state.settings)))
    pieces += [
        _SETTING.pack(place, value, _milliseconds(age), own)
        for place, (value, age, own) in state.settings.items()
    ]
    pieces.append(_COUNT.pack(len(state.parameters)))
    pieces += [
        _PARAMETER.pack(*parameter, msb, lsb, _milliseconds(age))
        for parameter, (msb, lsb, age) in state.parameters.items()
    ]
    return b"".join(pieces)


def unpack_state(body: bytes) -> State | None:
    """Return the state of a STATE's body, or None where it is none."""
    try:
        running, clock, transport_age = _TRANSPORT.unpack_from(body)
        notes, at = _unpack_list(_NOTE, body, _TRANSPORT.size)
        settings, at = _unpack_list(_SETTING, body, at)
        parameters, at = _unpack_list(_PARAMETER, body, at)
    except struct.error:
        return None
    if at != len(body) or running > 1 or clock >= 6 << 14:
        return None
    if not _all_7_bit(one for channel, *rest, _ in notes for one in (channel << 3, *rest[:2])):
        return None
    if not all(_can_be(place, value) for place, value, *_ in settings):
        return None
    if any(own and (value == _UNSET or not _is_held(place)) for place, value, _, own in settings):
        return None
    for channel, kind, *number, msb, lsb, _ in parameters:
        if kind not in (99, 101) or not _all_7_bit((channel << 3, *number)):
            return None
        if any(127 < value < _UNSET for value in (msb, lsb)):
            return None
    return State(
        bool(running),
        clock,
        transport_age / 1000,
        [
            Note(channel << 7 | note, velocity, outstanding, age / 1000)
            for channel, note, velocity, outstanding, age in notes
        ],
        {place: (value, age / 1000, bool(own)) for place, value, age, own in settings},
        {
            (channel, kind, number_msb, number_lsb): (msb, lsb, age / 1000)
            for channel, kind, number_msb, number_lsb, msb, lsb, age in parameters
        },
    )


def _unpack_list(layout: struct.Struct, body: bytes, at: int) -> tuple[list[tuple[int, ...]], int]:
    (count,) = _COUNT.unpack_from(body, at)
    at += _COUNT.size
    end = at + count * layout.size
    if end > len(body):
        raise struct.error
    return list(layout.iter_unpack(body[at:end])), end


def _can_be(place: int, value: int) -> bool:
    """Whether there is such a place, and such a value in it."""
    if place < 2048 and place & 127 > 119:
        # Mode messages, which end notes, are no settings, but for local control.
        return place & 127 == 122 and (value < 128 or value == _UNSET)
    for first, values in _FEW:
        if place >= first:
            return place < _PLACES and (value in values or value == _UNSET)
    return value < 128 or value == _UNSET


def _is_held(place: int) -> bool:
    """Whether it is the place of a pedal, a pressure or a bend."""
    return (place < 2048 and place & 127 in _PEDALS) or 2048 <= place < 4096 or 4144 <= place < 4176


def _all_7_bit(numbers: Iterable[int]) -> bool:
    return all(number < 128 for number in numbers)


def _milliseconds(seconds: float) -> int:
    return min(max(round(seconds * 1000), 0), _MOST_AGE)
