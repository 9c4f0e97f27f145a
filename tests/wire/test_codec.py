from __future__ import annotations

import gc
import numbers
from typing import Any

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mido import Message
from mido.messages.specs import SPEC_BY_TYPE

from midinet.wire.codec import PANIC_FRAMES, RESET_FRAMES, decode, decode_channel_messages, encode
from tests.harness.messages import any_message, edge_messages


@pytest.mark.parametrize("message", edge_messages(), ids=str)
def test_every_kind_of_message_survives(message: Message) -> None:
    frame = encode(message)
    assert frame == bytes(message.bytes())
    decoded = decode(frame)
    assert decoded == message
    assert type(decoded) is Message
    assert repr(decoded) == repr(message)
    assert list(vars(decoded)) == list(vars(message))
    assert type(vars(decoded).get("data")) is type(vars(message).get("data"))


@given(any_message())
def test_any_message_survives(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.lists(any_message(with_channel=True)))
def test_channel_messages_survive_in_one_piece(messages: list[Message]) -> None:
    assert decode_channel_messages(b"".join(map(encode, messages))) == messages


def test_a_decoded_message_is_a_message_like_any_other() -> None:
    message = decode(b"\x91\x3c\x40")
    message.note = 61
    assert message.copy(velocity=1).bytes() == [0x91, 61, 1]
    with pytest.raises(ValueError, match="range"):
        message.note = 128
    with pytest.raises(AttributeError):
        message.program = 1
    assert Message.from_str(str(message)) == message


def test_every_type_mido_has_is_encoded() -> None:
    assert {decode(encode(Message(kind))).type for kind in SPEC_BY_TYPE} == set(SPEC_BY_TYPE)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("note_on", {"note": 128}),
        ("note_on", {"note": -1}),
        ("note_on", {"channel": 16}),
        ("control_change", {"value": 255}),
        ("program_change", {"program": 128}),
        ("aftertouch", {"channel": -1}),
        ("pitchwheel", {"pitch": 8192}),
        ("pitchwheel", {"channel": 16}),
        ("sysex", {"data": (128,)}),
        ("sysex", {"data": (256,)}),
        ("quarter_frame", {"frame_type": 8}),
        ("quarter_frame", {"frame_value": 16}),
        ("songpos", {"pos": 16384}),
        ("song_select", {"song": 128}),
    ],
)
def test_a_value_out_of_range_is_refused(kind: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="range"):
        encode(Message(kind, skip_checks=True, **values))


@pytest.mark.parametrize("thing", [None, b"\x90\x3c\x40", "note_on", mido.MetaMessage("set_tempo")])
def test_what_is_no_message_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"mido\.Message"):
        encode(thing)


def test_undefined_statuses_have_no_message() -> None:
    with pytest.raises(ValueError, match="F4"):
        decode(b"\xf4")


@pytest.mark.parametrize("enabled", [True, False])
def test_a_large_batch_leaves_the_garbage_collector_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        assert len(decode_channel_messages(b"\x90\x3c\x40" * 1000)) == 1000
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_reset_and_panic_are_those_of_mido() -> None:
    assert [decode(frame) for frame in RESET_FRAMES] == list(mido.ports.reset_messages())
    assert [decode(frame) for frame in PANIC_FRAMES] == list(mido.ports.panic_messages())


class Narrow:
    """A whole number as NumPy has them: it has few bits, and takes no other number that has more."""

    def __init__(self, value: int, least: int, most: int) -> None:
        self.value, self.range = value, range(least, most + 1)

    def __index__(self) -> int:
        return self.value

    def _with(self, other: Any, result: int) -> Narrow:
        if int(other) not in self.range:
            raise OverflowError(f"Python integer {other} out of bounds")
        return Narrow(result, self.range[0], self.range[-1])

    def __and__(self, other: Any) -> Narrow:
        return self._with(other, self.value & int(other))

    def __or__(self, other: Any) -> Narrow:
        return self._with(other, self.value | int(other))

    def __add__(self, other: Any) -> Narrow:
        return self._with(other, self.value + int(other))

    def __rshift__(self, other: Any) -> Narrow:
        return self._with(other, self.value >> int(other))

    def __le__(self, other: Any) -> bool:
        return self.value <= int(other)

    def __ge__(self, other: Any) -> bool:
        return self.value >= int(other)

    __rand__, __ror__, __radd__ = __and__, __or__, __add__

    def __bool__(self) -> bool:
        return self.value != 0

    def __int__(self) -> int:
        return self.value


numbers.Integral.register(Narrow)


@pytest.mark.parametrize("bounds", [(0, 255), (-128, 127)])
@pytest.mark.parametrize(
    "kind", [kind for kind, spec in SPEC_BY_TYPE.items() if len(spec["value_names"]) > 1]
)
def test_whole_numbers_of_any_type_are_values(kind: str, bounds: tuple[int, int]) -> None:
    names = [name for name in SPEC_BY_TYPE[kind]["value_names"] if name != "data"]
    plain: dict[str, Any] = dict.fromkeys(names, 5)
    narrow: dict[str, Any] = {name: Narrow(5, *bounds) for name in names}
    if kind == "sysex":
        plain, narrow = {"data": (5, 6)}, {"data": (Narrow(5, *bounds), Narrow(6, *bounds))}
    assert encode(Message(kind, **narrow)) == bytes(Message(kind, **plain).bytes())


def test_what_is_no_whole_number_is_no_value() -> None:
    with pytest.raises(TypeError):
        encode(Message("note_on", note=60.5, skip_checks=True))
