from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.hub.policy import ALL_SYSEX, NO_SYSEX, SysexRule
from midinet.wire.codec import encode
from midinet.wire.parser import split_messages
from tests.harness.messages import any_message

NOTE = b"\x90\x3c\x40"
CLOCK = b"\xf8"
ROLAND = bytes.fromhex("F0 41 10 42 F7")
KORG = bytes.fromhex("F0 42 30 F7")
NOVATION = bytes.fromhex("F0 00 20 29 02 F7")
MOTU = bytes.fromhex("F0 00 00 3B 02 F7")
UNIVERSAL = bytes.fromhex("F0 7E 7F 06 01 F7")
ALL = [ROLAND, KORG, NOVATION, MOTU, UNIVERSAL]

# Beginnings of IDs that go no further.
NOBODYS = [bytes.fromhex(frame) for frame in ("F0 F7", "F0 00 F7", "F0 00 20 F7")]


def passed(rule: SysexRule, frames: Sequence[bytes]) -> list[bytes]:
    """What passes."""
    data, dropped = rule.pass_bytes(b"".join(frames))
    left = split_messages(data)
    assert len(left) + dropped == len(frames)
    return list(left)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (True, ALL + NOBODYS),
        (False, []),
        ([], []),
        ({0x41}, [ROLAND]),
        ({0x41, 0x7E}, [ROLAND, UNIVERSAL]),
        ([(0x00, 0x20, 0x29)], [NOVATION]),
        ([[0x00, 0x20, 0x29]], [NOVATION]),
        ((b"\x00\x20\x29", 0x42), [KORG, NOVATION]),
        (frozenset({(0x00, 0x00, 0x3B)}), [MOTU]),
        ({0x20}, []),
    ],
)
def test_a_rule_passes_whose_ids_it_names(wish: Any, expected: list[bytes]) -> None:
    assert passed(SysexRule(wish), ALL + NOBODYS) == expected


@pytest.mark.parametrize("code", range(1, 0x80))
def test_every_one_byte_id_means_itself(code: int) -> None:
    frames = [bytes((0xF0, other, 0x01, 0xF7)) for other in range(0x80)]
    assert passed(SysexRule([code]), frames) == [bytes((0xF0, code, 0x01, 0xF7))]


def test_other_messages_pass_whatever_the_rule() -> None:
    frames = [NOTE, CLOCK, b"\xf1\x00", b"\xf2\x00\x41", b"\xf3\x01", b"\xf6", b"\xc0\x41", b"\xff"]
    for rule in (ALL_SYSEX, NO_SYSEX, SysexRule({0x41})):
        assert passed(rule, frames) == frames


def test_what_is_left_stays_in_order() -> None:
    frames = [NOTE, ROLAND, CLOCK, KORG, KORG, NOTE, ROLAND, b"\x80\x3c\x00", NOVATION]
    assert passed(SysexRule({0x41}), frames) == [NOTE, ROLAND, CLOCK, NOTE, ROLAND, b"\x80\x3c\x00"]
    assert passed(NO_SYSEX, frames) == [NOTE, CLOCK, NOTE, b"\x80\x3c\x00"]


@pytest.mark.parametrize(
    ("rule", "frames"),
    [
        (NO_SYSEX, [NOTE, CLOCK]),
        (NO_SYSEX, []),
        (SysexRule({0x41}), [NOTE, ROLAND, NOTE]),
        (ALL_SYSEX, [NOTE, KORG]),
    ],
)
def test_where_nothing_is_dropped_the_same_object_comes_back(rule: SysexRule, frames: list[bytes]) -> None:
    data = b"".join(frames)
    assert rule.pass_bytes(data)[0] is data


@given(
    st.lists(any_message().map(encode), max_size=20),
    st.one_of(
        st.booleans(),
        st.lists(st.integers(1, 0x7F) | st.tuples(st.just(0), st.integers(0, 0x7F), st.integers(0, 0x7F))),
    ),
)
def test_a_rule_decides_as_a_plain_look_at_each_message_does(frames: list[bytes], wish: Any) -> None:
    def may_pass(frame: bytes) -> bool:
        if frame[0] != 0xF0 or isinstance(wish, bool):
            return frame[0] != 0xF0 or wish
        return frame[1] in wish or tuple(frame[1:4]) in wish

    assert passed(SysexRule(wish), frames) == [frame for frame in frames if may_pass(frame)]


@pytest.mark.parametrize("wish", ["41", b"\x41", bytearray(b"\x41"), 0x41, 1, 0, None, 4.1, iter([0x41])])
def test_what_is_no_wish_is_refused(wish: Any) -> None:
    with pytest.raises(ValueError, match="True, False or a collection of manufacturer IDs"):
        SysexRule(wish)


@pytest.mark.parametrize(
    "code",
    [
        0x80,
        -1,
        True,
        None,
        "A",
        1.0,
        b"\x41",
        (0x41,),
        (0x00, 0x20),
        (0x01, 0x20, 0x29),
        (0x00, 0x80, 0x29),
        (0x00, 0x20, 0x29, 0x02),
        (0x00, True, 0x29),
        b"\x01\x20\x29",
        (False, 0x20, 0x29),
    ],
)
def test_what_is_no_manufacturer_id_is_refused(code: Any) -> None:
    with pytest.raises(ValueError, match="is no manufacturer ID: an int from 0x01 to 0x7F"):
        SysexRule([0x41, code])


def test_one_long_id_in_place_of_a_collection_is_explained() -> None:
    with pytest.raises(ValueError, match=r"in parentheses of their own, as in \{\(0x00, 0x20, 0x29\)\}"):
        SysexRule((0x00, 0x20, 0x29))


def test_a_rule_says_what_it_passes() -> None:
    assert repr(ALL_SYSEX) == "<SysexRule all>"
    assert repr(NO_SYSEX) == repr(SysexRule(())) == "<SysexRule none>"
    assert repr(SysexRule({0x7E, 0x41, (0, 0x20, 0x29)})) == "<SysexRule 00 20 29, 41, 7E>"
