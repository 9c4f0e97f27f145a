"""Whole channel messages by column: their statuses, their first and their second data bytes.

Nearly everything that arrives is channel messages of three bytes. Seen as three columns they are checked,
looked through and decoded without making an object of each.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from .spec import DATA_LENGTHS, FIRST_SYSTEM, THREE_BYTE_MESSAGE, TWO_BYTE_MESSAGE

# Of the same length. Where a message has no second data byte, there is a 0.
Columns: TypeAlias = tuple[bytes, bytes, bytes]

_THREE_BYTE_STATUSES = bytes([status for status in range(FIRST_SYSTEM) if DATA_LENGTHS[status] == 2])

# Three-byte messages, up to and with the next two-byte one.
_UP_TO_TWO_BYTES = re.compile(rb"(?:%b)*+(?:%b)?+" % (THREE_BYTE_MESSAGE, TWO_BYTE_MESSAGE))


def three_byte_columns(data: bytes) -> Columns | None:
    """Return the columns of bytes that are whole channel messages of three bytes and nothing else.

    None when they are anything else.
    """
    columns = statuses, firsts, seconds = data[::3], data[1::3], data[2::3]
    if statuses.translate(None, _THREE_BYTE_STATUSES) or not (firsts.isascii() and seconds.isascii()):
        return None
    return columns if len(statuses) == len(seconds) else None


def channel_columns(data: bytes) -> Columns:
    """Return the columns of bytes that are whole channel messages with their statuses and nothing else."""
    # With a third byte for the two-byte messages, the statuses are every third byte. findall() ends with an
    # empty match, so join() adds that byte to the last message too, which is cut off where it is too much.
    padded = b"\0".join(_UP_TO_TWO_BYTES.findall(data))
    whole = len(padded) - len(padded) % 3
    return padded[0:whole:3], padded[1:whole:3], padded[2:whole:3]
