from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet import format_address, parse_address
from midinet.address import read_address, service_name


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


@pytest.mark.parametrize(
    ("host", "portno", "parts"),
    [
        ("localhost", 8080, ("localhost", 8080)),
        ("localhost", "8080", ("localhost", 8080)),
        ("localhost:8080", None, ("localhost", 8080)),
        ("localhost:0", None, ("localhost", 0)),
        ("[::1]:0", None, ("::1", 0)),
        ("::1", 8080, ("::1", 8080)),
        ("[::1]", 8080, ("::1", 8080)),
        ("", 0, ("", 0)),
        ("midi://stage", 0, ("midi://stage", 0)),
        ("midi://stage", None, ("midi://stage", 0)),
    ],
)
def test_host_and_port_number_are_what_a_caller_means(
    host: str, portno: int | str | None, parts: tuple[str, int]
) -> None:
    assert read_address(host, portno, any_port=True) == parts


@pytest.mark.parametrize(
    ("host", "portno", "error", "why"),
    [
        ("localhost", None, ValueError, "host:port is expected"),
        ("localhost:0", None, ValueError, "between 1 and 65535"),
        ("localhost:8080", 8080, ValueError, "has a port number already"),
        ("localhost", "http", ValueError, "no port number"),
        ("localhost", "-1", ValueError, "no port number"),
        ("localhost", 8080.0, TypeError, "a port number is an int"),
        ("localhost", True, TypeError, "a port number is an int"),
        (8080, None, TypeError, "a host is a str"),
        (("localhost", 8080), None, TypeError, "a host is a str"),
        (None, 8080, TypeError, "a host is a str"),
    ],
)
def test_what_is_no_host_or_no_port_number_is_refused(
    host: Any, portno: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        read_address(host, portno)
