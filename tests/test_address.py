from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet import format_address, parse_address
from midinet.address import service_name


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:8080", ("localhost", 8080)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:8080", ("::1", 8080)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
        (":8080", ("", 8080)),
        ("midi://stage", ("midi://stage", 0)),
        ("midi://St. Mary's: left (2)", ("midi://St. Mary's: left (2)", 0)),
        ("midi://[::1]:8080", ("midi://[::1]:8080", 0)),
        ("midi://ü", ("midi://ü", 0)),
    ],
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert parse_address(address) == parts
    assert format_address(*parts) == address


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("localhost", "host:port is expected"),
        ("midi://", "a name is missing"),
        ("MIDI://stage", "whole number"),
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


def test_the_name_of_a_server_is_what_stands_after_midi() -> None:
    assert service_name("midi://stage") == "stage"
    assert service_name("midi://") == ""
    assert service_name("midi:/stage") is None
    assert service_name("localhost") is None


@given(st.text() | st.text().map("midi://{}".format))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, portno = parse_address(text)
    except ValueError:
        return
    assert parse_address(format_address(host, portno)) == (host, portno)
