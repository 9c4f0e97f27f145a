"""What a peer may send and hear: system exclusive messages, by the manufacturer they belong to.

System exclusive messages rewrite the memory of instruments, so they are the part of MIDI that not
everybody may send. Rules (MIDI 1.0 Detailed Specification 4.2.1, page 34 and following, and table VIIb):

- The ID is the first data byte: 01 to 7C a manufacturer, 7D for research and schools, 7E universal
  non-real time, 7F universal real time.
- The first data byte 00 begins a longer ID, of three bytes.
- A message whose ID is not all there belongs to nobody, and passes only where everything does.

Any other message always passes. What has no F0 in it comes back as it is, after one fast search for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TypeAlias, TypeGuard

from ..wire.spec import SYSEX

ManufacturerID: TypeAlias = int | tuple[int, int, int] | bytes
SysexWish: TypeAlias = bool | Collection[ManufacturerID]

# The first data byte of a three-byte ID.
_EXTENDED = 0x00


class SysexRule:
    """Which system exclusive messages pass, in one direction or in both.

        SysexRule({0x41, 0x7E, (0x00, 0x20, 0x29)})

    Args:
        wish: True for all, False for none, or a collection of manufacturer IDs: an int from 0x01 to 0x7F,
            or three bytes of which the first is 0x00, as a tuple, a list or bytes. An empty collection
            is none.

    Raises:
        ValueError: it is nothing of that kind.
    """

    __slots__ = ("_all", "_dropped", "_passed")

    def __init__(self, wish: SysexWish) -> None:
        self._all = wish is True
        # How messages begin that pass.
        self._passed = () if isinstance(wish, bool) else _beginnings(wish)
        passed = b"|".join([re.escape(beginning[1:]) for beginning in self._passed])
        # In whole messages, F0 begins a system exclusive message wherever it stands. Real-time never
        # stands inside one.
        self._dropped = re.compile(rb"\xf0%b[\x00-\x7f]*+\xf7" % (b"(?!%b)" % passed if passed else b""))

    def __repr__(self) -> str:
        ids = ", ".join([beginning[1:].hex(" ").upper() for beginning in self._passed])
        return f"<SysexRule {'all' if self._all else ids or 'none'}>"

    def pass_bytes(self, data: bytes) -> tuple[bytes, int]:
        """Return the messages that pass, in order, and how many were dropped.

        Args:
            data: whole messages, joined, each with its own status byte. When nothing is dropped, they come
                back as the same object.
        """
        if self._all or SYSEX not in data:
            return data, 0
        passed, dropped = self._dropped.subn(b"", data)
        return (passed, dropped) if dropped else (data, 0)


# For peers that may send and hear every system exclusive message, and for those that may none.
ALL_SYSEX = SysexRule(True)
NO_SYSEX = SysexRule(False)


def _beginnings(wish: Collection[ManufacturerID]) -> tuple[bytes, ...]:
    # A str or bytes is a collection too, but of what, nobody means.
    if isinstance(wish, str | bytes | bytearray) or not isinstance(wish, Collection):
        raise ValueError(
            f"sysex is True, False or a collection of manufacturer IDs, as in {{0x41, 0x7E}}, not {wish!r}"
        )
    # In the order of their bytes, so that the text of a set is the same every time.
    return tuple(sorted({bytes((SYSEX, *_id_bytes(one))) for one in wish}))


def _id_bytes(one: object) -> Sequence[int]:
    if _is_data_byte(one):
        if one != _EXTENDED:
            return (one,)
        raise ValueError(
            "0x00 alone is no manufacturer ID, it begins one of three bytes: "
            "write those in parentheses of their own, as in {(0x00, 0x20, 0x29)}"
        )
    if (
        isinstance(one, tuple | list | bytes)
        and len(one) == 3
        and all(_is_data_byte(byte) for byte in one)
        and one[0] == _EXTENDED
    ):
        return one
    raise ValueError(
        f"{one!r} is no manufacturer ID: an int from 0x01 to 0x7F is expected, "
        "or three bytes of which the first is 0x00, as in (0x00, 0x20, 0x29)"
    )


def _is_data_byte(value: object) -> TypeGuard[int]:
    # True is an int to Python, and no ID.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 0x80
