"""Addresses as people write them: host:port, with brackets around an IPv6 address, or midi://NAME.

`midi://NAME` is a server that has announced itself by that name on the local network. It knows its port
number by itself, so that its name stands in place of a host, with the port number 0.
"""

from __future__ import annotations

from operator import index
from typing import SupportsIndex

SCHEME = "midi://"


def service_name(host: str) -> str | None:
    """Return the NAME of midi://NAME, None of any other host."""
    return host.removeprefix(SCHEME) if host.startswith(SCHEME) else None


def parse_address(address: str) -> tuple[str, int]:
    """Split "host:port" into its parts.

    "[::1]:8080" is an IPv6 address; ":8080" has the empty host, which for a server is every interface.
    "midi://NAME" is its own host, and the port is 0.

    Returns:
        (host, port number).

    Raises:
        ValueError: it is not of that form, or the port is not between 1 and 65535.
    """
    if (name := service_name(address)) is not None:
        if not name:
            raise ValueError(f"{address!r} is no address: a name is missing, as in {SCHEME}stage")
        return address, 0
    host, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError(f"{address!r} is no address: host:port is expected, as in localhost:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r} is no address: write an IPv6 host in brackets, as in [::1]:8080")
    # int() alone would take "+1", "1_0" and digits of other scripts.
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"{address!r} is no address: the port must be a whole number")
    portno = int(port)
    if not 0 < portno < 65536:
        raise ValueError(f"{address!r} is no address: the port must be between 1 and 65535")
    return host, portno


def read_address(host: str, portno: int | str | None, *, any_port: bool = False) -> tuple[str, int]:
    """Return what a caller meant by a host and a port number.

    Args:
        host: a name or an address, an IPv6 address with or without brackets; or all of "host:port" where
            there is no `portno`.
        portno: a number, also as text; None means that the host has it.
        any_port: let "host:0" pass, by which a server has the system choose a number.

    Returns:
        (host, port number). Whether there can be such a number is for the system to say.

    Raises:
        TypeError: the host is no str, or the port number no number.
        ValueError: it is no address, or the port number is given twice.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a str, as in 'localhost', not {host!r}")
    if portno is None:
        if any_port and host.endswith(":0"):
            return parse_address(f"{host[:-1]}1")[0], 0
        return parse_address(host)
    if isinstance(portno, str):
        if not (portno.isascii() and portno.isdigit()):
            raise ValueError(f"{portno!r} is no port number: a whole number is expected, as in 8080")
        portno = int(portno)
    elif isinstance(portno, bool) or not isinstance(portno, SupportsIndex):
        raise TypeError(f"a port number is an int, as in 8080, not {portno!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif host.count(":") == 1 and service_name(host) is None:
        raise ValueError(f"{host!r} has a port number already: leave out {portno}, or write the host alone")
    return host, index(portno)


def format_address(host: str, portno: int) -> str:
    """Return "host:port", or midi://NAME: the form that `parse_address` reads."""
    if service_name(host) is not None:
        return host
    return f"[{host}]:{portno:d}" if ":" in host else f"{host}:{portno:d}"
