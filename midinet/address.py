"""Addresses as people write them: host:port, with brackets around an IPv6 address."""

from __future__ import annotations


def parse_address(address: str) -> tuple[str, int]:
    """Split "host:port" into its parts.

    "[::1]:8080" is an IPv6 address; ":8080" has the empty host, which for a server is every interface.

    Returns:
        (host, port number).

    Raises:
        ValueError: it is not of that form, or the port is not between 1 and 65535.
    """
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


def format_address(host: str, portno: int) -> str:
    """Return "host:port", the form that `parse_address` reads."""
    return f"[{host}]:{portno:d}" if ":" in host else f"{host}:{portno:d}"
