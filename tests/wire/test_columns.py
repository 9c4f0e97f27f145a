from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.wire.codec import encode
from midinet.wire.columns import channel_columns, three_byte_columns
from tests.harness.messages import any_message

frames = st.lists(any_message().map(encode).filter(lambda frame: frame[0] < 0xF0))


@given(frames)
def test_the_columns_of_channel_messages_are_their_bytes(messages: list[bytes]) -> None:
    rows = [(frame + b"\x00")[:3] for frame in messages]
    columns = channel_columns(b"".join(messages))
    assert list(zip(*columns, strict=True)) == [tuple(row) for row in rows]
    if all(len(frame) == 3 for frame in messages):
        assert three_byte_columns(b"".join(messages)) == columns
    else:
        assert three_byte_columns(b"".join(messages)) is None


@given(st.binary(max_size=12))
def test_what_is_not_three_byte_messages_is_told_apart(data: bytes) -> None:
    expected = len(data) % 3 == 0 and all(
        data[i] in (*range(0x80, 0xC0), *range(0xE0, 0xF0)) and data[i + 1 : i + 3].isascii()
        for i in range(0, len(data), 3)
    )
    assert (three_byte_columns(data) is not None) is expected


@pytest.mark.parametrize(
    "data", ["90 3C", "90 3C 40 90", "C0 01", "F8", "90 3C 40 F2 01 02", "90 3C 80", "3C"]
)
def test_one_byte_that_does_not_fit_is_enough(data: str) -> None:
    assert three_byte_columns(bytes.fromhex(data)) is None
