"""Frames to Messages and back.

A Message made here equals the one that mido makes of the same bytes, and every mido Message goes back
to the bytes that mido would send. There is one decoder for each status byte and one encoder for each
message type, since frames differ too much for a cache (16 channels by 128 by 128) but kinds do not.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import index
from typing import Any

from mido import Message
from mido.messages.messages import SysexData

from .columns import channel_columns, three_byte_columns
from .spec import SYSEX

_new_message = Message.__new__
_Values = dict[str, Any]

# From so many bytes on the garbage collector is held back while Messages are made of them: it would search
# them over and over, and there are no cycles in them. Below, it would seldom run at all.
_LARGE_BATCH = 1024


def decode(frame: bytes) -> Message:
    """Return the Message that one frame holds.

    Args:
        frame: one whole MIDI message with its own status byte, as `Parser.frames` returns it. It is not
            checked again.

    Raises:
        ValueError: its status byte is an undefined one.
    """
    if len(frame) == 3:
        status, first, second = frame
        return DECODERS[status](status, first, second)
    status = frame[0]
    if status == SYSEX:
        return _sysex(frame[1:-1])
    return DECODERS[status](status, frame[1] if len(frame) == 2 else 0, 0)


def decode_channel_messages(data: bytes) -> list[Message]:
    """Return the Messages in bytes that are whole channel messages with their statuses and nothing else."""
    columns = three_byte_columns(data) or channel_columns(data)
    with _collector_held_back(len(data)):
        return [DECODERS[status](status, first, second) for status, first, second in zip(*columns)]  # noqa: B905


@contextmanager
def _collector_held_back(size: int) -> Iterator[None]:
    if size < _LARGE_BATCH or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def encode(message: Message) -> bytes:
    """Return the frame for a Message. Its `time` has no place on the wire.

    Raises:
        TypeError: it is no mido.Message (a MetaMessage exists in files only).
        ValueError: a value is out of its range, which mido allows with `skip_checks` alone.
    """
    if not isinstance(message, Message):
        raise TypeError(f"a mido.Message is expected, not {type(message).__name__}")
    values = message.__dict__
    encoder = _ENCODERS[values["type"]]
    try:
        return encoder(values)
    except (TypeError, OverflowError):
        # mido takes every whole number, as those of NumPy, whose arithmetic has fewer bits.
        return encoder(
            {name: index(value) if hasattr(value, "__index__") else value for name, value in values.items()}
        )


# Decoders: the three bytes of a frame -> Message. Where there are fewer, the rest is 0 and not looked at.
#
# mido's Message checks every assignment, so a channel message is filled in as a plain object and then made
# a Message. There is a class for each kind because instances of one class share the keys of their
# dictionaries, and seven kinds of message have little in common.

_Decoder = Callable[[int, int, int], Message]


class _NoteOff: ...


class _NoteOn: ...


class _Polytouch: ...


class _ControlChange: ...


class _ProgramChange: ...


class _Aftertouch: ...


class _Pitchwheel: ...


def _note_off(status: int, first: int, second: int) -> Message:
    message: Any = _NoteOff()
    message.type = "note_off"
    message.time = 0
    message.channel = status & 0x0F
    message.note = first
    message.velocity = second
    message.__class__ = Message
    return message


def _note_on(status: int, first: int, second: int) -> Message:
    message: Any = _NoteOn()
    message.type = "note_on"
    message.time = 0
    message.channel = status & 0x0F
    message.note = first
    message.velocity = second
    message.__class__ = Message
    return message


def _polytouch(status: int, first: int, second: int) -> Message:
    message: Any = _Polytouch()
    message.type = "polytouch"
    message.time = 0
    message.channel = status & 0x0F
    message.note = first
    message.value = second
    message.__class__ = Message
    return message


def _control_change(status: int, first: int, second: int) -> Message:
    message: Any = _ControlChange()
    message.type = "control_change"
    message.time = 0
    message.channel = status & 0x0F
    message.control = first
    message.value = second
    message.__class__ = Message
    return message


def _program_change(status: int, first: int, second: int) -> Message:
    message: Any = _ProgramChange()
    message.type = "program_change"
    message.time = 0
    message.channel = status & 0x0F
    message.program = first
    message.__class__ = Message
    return message


def _aftertouch(status: int, first: int, second: int) -> Message:
    message: Any = _Aftertouch()
    message.type = "aftertouch"
    message.time = 0
    message.channel = status & 0x0F
    message.value = first
    message.__class__ = Message
    return message


def _pitchwheel(status: int, first: int, second: int) -> Message:
    message: Any = _Pitchwheel()
    message.type = "pitchwheel"
    message.time = 0
    message.channel = status & 0x0F
    # 14 bits, the middle of which is no bend at all (page 19).
    message.pitch = (first | second << 7) - 8192
    message.__class__ = Message
    return message


def _make(**values: Any) -> Message:
    message = _new_message(Message)
    message.__dict__.update(values)
    return message


def _sysex(data: bytes) -> Message:
    return _make(type="sysex", time=0, data=SysexData(data))


def _alone(kind: str) -> _Decoder:
    return lambda status, first, second: _make(type=kind, time=0)


def _undefined(status: int, first: int, second: int) -> Message:
    raise ValueError(f"no message begins with {status:02X}")


_CHANNEL_DECODERS: dict[int, _Decoder] = {
    0x80: _note_off,
    0x90: _note_on,
    0xA0: _polytouch,
    0xB0: _control_change,
    0xC0: _program_change,
    0xD0: _aftertouch,
    0xE0: _pitchwheel,
}

_SYSTEM_DECODERS: dict[int, _Decoder] = {
    # Of three bytes; decode() sees to the others.
    0xF0: lambda status, first, end: _sysex(bytes((first,))),
    0xF1: lambda status, first, second: _make(
        type="quarter_frame", time=0, frame_type=first >> 4, frame_value=first & 15
    ),
    0xF2: lambda status, first, second: _make(type="songpos", time=0, pos=first | second << 7),
    0xF3: lambda status, first, second: _make(type="song_select", time=0, song=first),
    0xF6: _alone("tune_request"),
    0xF8: _alone("clock"),
    0xFA: _alone("start"),
    0xFB: _alone("continue"),
    0xFC: _alone("stop"),
    0xFE: _alone("active_sensing"),
    0xFF: _alone("reset"),
}

# By status byte.
DECODERS: tuple[_Decoder, ...] = tuple(
    _CHANNEL_DECODERS.get(status & 0xF0) or _SYSTEM_DECODERS.get(status) or _undefined
    for status in range(256)
)


# Encoders: the dictionary of a Message -> frame. A value out of range would not only be wrong, it would
# break the messages around it, so each encoder checks with one comparison over all its values.

_Encoder = Callable[[_Values], bytes]

# Twice as fast as bytes((a, b, c)).
_pack_two = struct.Struct("BB").pack
_pack_three = struct.Struct("BBB").pack


def _out_of_range(values: _Values) -> ValueError:
    return ValueError(f"a value is out of its range in {values!r}")


def _encode_two_bytes(status: int, first: str, second: str) -> _Encoder:
    def encode_two_bytes(values: _Values) -> bytes:
        channel, a, b = values["channel"], values[first], values[second]
        if (a | b) & ~0x7F or channel & ~0x0F:
            raise _out_of_range(values)
        return _pack_three(status | channel, a, b)

    return encode_two_bytes


def _encode_one_byte(status: int, name: str) -> _Encoder:
    def encode_one_byte(values: _Values) -> bytes:
        channel, value = values["channel"], values[name]
        if value & ~0x7F or channel & ~0x0F:
            raise _out_of_range(values)
        return _pack_two(status | channel, value)

    return encode_one_byte


def _encode_pitchwheel(values: _Values) -> bytes:
    channel, pitch = values["channel"], values["pitch"] + 8192
    if pitch & ~0x3FFF or channel & ~0x0F:
        raise _out_of_range(values)
    return _pack_three(0xE0 | channel, pitch & 0x7F, pitch >> 7)


def _encode_sysex(values: _Values) -> bytes:
    data = bytes(values["data"])
    if not data.isascii():
        raise _out_of_range(values)
    return b"\xf0%b\xf7" % data


def _encode_quarter_frame(values: _Values) -> bytes:
    kind, value = values["frame_type"], values["frame_value"]
    if kind & ~0x07 or value & ~0x0F:
        raise _out_of_range(values)
    return bytes((0xF1, kind << 4 | value))


def _encode_songpos(values: _Values) -> bytes:
    pos = values["pos"]
    if pos & ~0x3FFF:
        raise _out_of_range(values)
    return bytes((0xF2, pos & 0x7F, pos >> 7))


def _encode_song_select(values: _Values) -> bytes:
    song = values["song"]
    if song & ~0x7F:
        raise _out_of_range(values)
    return bytes((0xF3, song))


def _encode_alone(status: int) -> _Encoder:
    frame = bytes((status,))
    return lambda values: frame


_ENCODERS: dict[str, _Encoder] = {
    "note_off": _encode_two_bytes(0x80, "note", "velocity"),
    "note_on": _encode_two_bytes(0x90, "note", "velocity"),
    "polytouch": _encode_two_bytes(0xA0, "note", "value"),
    "control_change": _encode_two_bytes(0xB0, "control", "value"),
    "program_change": _encode_one_byte(0xC0, "program"),
    "aftertouch": _encode_one_byte(0xD0, "value"),
    "pitchwheel": _encode_pitchwheel,
    "sysex": _encode_sysex,
    "quarter_frame": _encode_quarter_frame,
    "songpos": _encode_songpos,
    "song_select": _encode_song_select,
    "tune_request": _encode_alone(0xF6),
    "clock": _encode_alone(0xF8),
    "start": _encode_alone(0xFA),
    "continue": _encode_alone(0xFB),
    "stop": _encode_alone(0xFC),
    "active_sensing": _encode_alone(0xFE),
    "reset": _encode_alone(0xFF),
}

# MIDI 1.0 has two messages that silence a channel, and one that puts its controllers back (pages 24, 25).
_ALL_SOUND_OFF, _RESET_ALL_CONTROLLERS, _ALL_NOTES_OFF = 120, 121, 123

# What reset() and panic() send: the same messages in the same order as mido's ports.
RESET_FRAMES: tuple[bytes, ...] = tuple(
    bytes((0xB0 | channel, controller, 0))
    for channel in range(16)
    for controller in (_ALL_NOTES_OFF, _RESET_ALL_CONTROLLERS)
)
PANIC_FRAMES: tuple[bytes, ...] = tuple(bytes((0xB0 | channel, _ALL_SOUND_OFF, 0)) for channel in range(16))
