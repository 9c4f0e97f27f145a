from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet import format_address, parse_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:8080", ("localhost", 8080)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:8080", ("::1", 8080)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
        (":8080", ("", 8080)),
    ],
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert parse_address(address) == parts
    assert format_address(*parts) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("localhost", "host:port is expected"),
        ("", "host:port is expected"),
        ("::1:8080", "in brackets"),
        ("a:b:1", "in brackets"),
        ("localhost:", "whole number"),
        ("localhost:http", "whole number"),
        ("localhost:+1", "whole number"),
        ("localhost:1_0", "whole number"),
        ("localhost:\u0663", "whole number"),
        ("localhost:0", "between 1 and 65535"),
        ("localhost:65536", "between 1 and 65535"),
        ("localhost:-1", "whole number"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(address: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(address)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, portno = parse_address(text)
    except ValueError:
        return
    assert parse_address(format_address(host, portno)) == (host, portno)
