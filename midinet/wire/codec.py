"""Frames to Messages and back.

A Message made here equals the one that mido makes of the same bytes, and every mido Message goes back
to the bytes that mido would send. There is one decoder for each status byte and one encoder for each
message type, since frames differ too much for a cache (16 channels by 128 by 128) but kinds do not.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from mido import Message
from mido.messages.messages import SysexData

_new_message = Message.__new__
_Values = dict[str, Any]


# From so many frames on, decode_all() holds the garbage collector back: it would search the Messages that
# are being made over and over, and there are no cycles in them. Below, it would seldom run at all.
_LARGE_BATCH = 256


def decode(frame: bytes) -> Message:
    """Return the Message that one frame holds.

    Args:
        frame: one whole MIDI message with its own status byte, as `Parser.frames` returns it.

    Raises:
        ValueError: it is not that.
    """
    if not frame:
        raise ValueError("an empty frame holds no message")
    return Message.from_bytes(frame)


def decode_all(frames: list[bytes]) -> list[Message]:
    """Return the Messages that frames from a Parser hold; nothing is checked again."""
    if len(frames) < _LARGE_BATCH or not gc.isenabled():
        return [DECODERS[frame[0]](frame) for frame in frames]
    gc.disable()
    try:
        return [DECODERS[frame[0]](frame) for frame in frames]
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
    values = vars(message)
    return _ENCODERS[values["type"]](values)


# Decoders: frame -> Message.
#
# mido's Message checks every assignment, so a channel message is filled in as a plain object and then made
# a Message. There is a class for each kind because instances of one class share the keys of their
# dictionaries, and seven kinds of message have little in common.

_Decoder = Callable[[bytes], Message]


class _NoteOff: ...


class _NoteOn: ...


class _Polytouch: ...


class _ControlChange: ...


class _ProgramChange: ...


class _Aftertouch: ...


class _Pitchwheel: ...


def _note_off(frame: bytes) -> Message:
    status, note, velocity = frame
    message: Any = _NoteOff()
    message.type = "note_off"
    message.time = 0
    message.channel = status & 0x0F
    message.note = note
    message.velocity = velocity
    message.__class__ = Message
    return message


def _note_on(frame: bytes) -> Message:
    status, note, velocity = frame
    message: Any = _NoteOn()
    message.type = "note_on"
    message.time = 0
    message.channel = status & 0x0F
    message.note = note
    message.velocity = velocity
    message.__class__ = Message
    return message


def _polytouch(frame: bytes) -> Message:
    status, note, value = frame
    message: Any = _Polytouch()
    message.type = "polytouch"
    message.time = 0
    message.channel = status & 0x0F
    message.note = note
    message.value = value
    message.__class__ = Message
    return message


def _control_change(frame: bytes) -> Message:
    status, control, value = frame
    message: Any = _ControlChange()
    message.type = "control_change"
    message.time = 0
    message.channel = status & 0x0F
    message.control = control
    message.value = value
    message.__class__ = Message
    return message


def _program_change(frame: bytes) -> Message:
    status, program = frame
    message: Any = _ProgramChange()
    message.type = "program_change"
    message.time = 0
    message.channel = status & 0x0F
    message.program = program
    message.__class__ = Message
    return message


def _aftertouch(frame: bytes) -> Message:
    status, value = frame
    message: Any = _Aftertouch()
    message.type = "aftertouch"
    message.time = 0
    message.channel = status & 0x0F
    message.value = value
    message.__class__ = Message
    return message


def _pitchwheel(frame: bytes) -> Message:
    status, low, high = frame
    message: Any = _Pitchwheel()
    message.type = "pitchwheel"
    message.time = 0
    message.channel = status & 0x0F
    # 14 bits, the middle of which is no bend at all (page 19).
    message.pitch = (low | high << 7) - 8192
    message.__class__ = Message
    return message


def _system(kind: str, read: Callable[[bytes], _Values]) -> _Decoder:
    def decode_system(frame: bytes) -> Message:
        message = _new_message(Message)
        message.__dict__.update({"type": kind, "time": 0, **read(frame)})
        return message

    return decode_system


def _undefined(frame: bytes) -> Message:
    raise ValueError(f"no message begins with {frame[0]:02X}")


def _nothing(frame: bytes) -> _Values:
    return {}


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
    0xF0: _system("sysex", lambda frame: {"data": SysexData(frame[1:-1])}),
    0xF1: _system("quarter_frame", lambda frame: {"frame_type": frame[1] >> 4, "frame_value": frame[1] & 15}),
    0xF2: _system("songpos", lambda frame: {"pos": frame[1] | frame[2] << 7}),
    0xF3: _system("song_select", lambda frame: {"song": frame[1]}),
    0xF6: _system("tune_request", _nothing),
    0xF8: _system("clock", _nothing),
    0xFA: _system("start", _nothing),
    0xFB: _system("continue", _nothing),
    0xFC: _system("stop", _nothing),
    0xFE: _system("active_sensing", _nothing),
    0xFF: _system("reset", _nothing),
}

# By status byte. What the parser returns is decoded straight through this table.
DECODERS: tuple[_Decoder, ...] = tuple(
    _CHANNEL_DECODERS.get(status & 0xF0) or _SYSTEM_DECODERS.get(status) or _undefined
    for status in range(256)
)


# Encoders: the dictionary of a Message -> frame. A value out of range would not only be wrong, it would
# break the messages around it, so each encoder checks with one comparison over all its values.

_Encoder = Callable[[_Values], bytes]


def _out_of_range(values: _Values) -> ValueError:
    return ValueError(f"a value is out of its range in {values!r}")


def _encode_two_bytes(status: int, first: str, second: str) -> _Encoder:
    def encode_two_bytes(values: _Values) -> bytes:
        channel, a, b = values["channel"], values[first], values[second]
        if (a | b) & ~0x7F or channel & ~0x0F:
            raise _out_of_range(values)
        return bytes((status | channel, a, b))

    return encode_two_bytes


def _encode_one_byte(status: int, name: str) -> _Encoder:
    def encode_one_byte(values: _Values) -> bytes:
        channel, value = values["channel"], values[name]
        if value & ~0x7F or channel & ~0x0F:
            raise _out_of_range(values)
        return bytes((status | channel, value))

    return encode_one_byte


def _encode_pitchwheel(values: _Values) -> bytes:
    channel, pitch = values["channel"], values["pitch"] + 8192
    if pitch & ~0x3FFF or channel & ~0x0F:
        raise _out_of_range(values)
    return bytes((0xE0 | channel, pitch & 0x7F, pitch >> 7))


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
