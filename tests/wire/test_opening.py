"""What the first bytes of a stream show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.wire.opening import Opening, recognize

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI")
REQUESTS = [f"{method} {target}".encode() for method in METHODS for target in ("/", "*", "http://localhost/")]
REQUESTS.append(b"CONNECT localhost:8080 HTTP/1.1\r\n")
HANDSHAKES = [b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x03\x00\x80"]


@pytest.mark.parametrize("stream", [*REQUESTS, *HANDSHAKES])
def test_another_protocol_is_known_as_soon_as_its_first_bytes_are_there(stream: bytes) -> None:
    protocol = Opening.TLS if stream in HANDSHAKES else Opening.HTTP
    answers = [recognize(stream[:size]) for size in range(len(stream) + 1)]
    decided = answers.index(protocol)
    assert decided <= len("OPTIONS http")
    assert answers == [Opening.UNDECIDED] * decided + [protocol] * (len(stream) + 1 - decided)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x90\x3c\x40",
        b"\xf7MIDINET/1 HELLO\r\n\r\n",
        b"\x16",
        b"\x16\x03",
        b"\x16\x03\x40",
        b"\x16\x10",
        b"\x3c\x40\x90",
        b"GET",
        b"GET \x90",
        b"GET HTTP",
        b"POST ",
        b"POST x",
        b"get / HTTP/1.1",
        b"PROPFIND / HTTP/1.1",
        b"OPTIONS htt\xf7",
        b"\xf7GET / HTTP/1.1",
    ],
)
def test_a_stream_that_begins_inside_a_message_is_midi(stream: bytes) -> None:
    answer = recognize(stream + b"\x90")
    assert answer is Opening.MIDI
    assert recognize(stream) in (Opening.MIDI, Opening.UNDECIDED)


@given(st.integers(0x80, 0xFF), st.binary(max_size=20))
def test_a_status_byte_decides_at_once(status: int, rest: bytes) -> None:
    assert recognize(bytes([status])) is recognize(bytes([status]) + rest) is Opening.MIDI


@given(st.one_of(st.sampled_from([*REQUESTS, *HANDSHAKES]), st.binary(max_size=20)), st.binary(max_size=20))
def test_more_bytes_change_no_answer(first: bytes, more: bytes) -> None:
    answer = recognize(first)
    if answer is not Opening.UNDECIDED:
        assert recognize(first + more) is answer
