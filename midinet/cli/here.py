"""By which addresses other machines can reach a server here."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..address import format_address
from ..errors import MissingExtra

# What a server listens on that listens on every interface, of either family.
_EVERY = {IPv4Address("0.0.0.0"), IPv6Address("::")}


def reachable(addresses: Iterable[tuple[str, int]]) -> list[str]:
    """Return what others can connect to, as host:port. Empty: this machine alone can.

    A link-local IPv6 address (RFC 4291 section 2.5.6) counts only where a server listens on just that: it
    means something else on each interface.

    Args:
        addresses: those that a server listens on.

    Raises:
        MissingExtra: every interface is listened on, and nothing says which there are.
    """
    found: dict[str, None] = {}
    for host, portno in addresses:
        listened = ip_address(host)
        if listened in _EVERY:
            for own in own_addresses():
                if own.version == listened.version and not (own.version == 6 and own.is_link_local):
                    found[format_address(str(own), portno)] = None
        elif not listened.is_loopback:
            found[format_address(host, portno)] = None
    return list(found)


def own_addresses() -> list[IPv4Address | IPv6Address]:
    """Return the addresses of this machine's interfaces, IPv4 first, without loopback and scope IDs.

    Raises:
        MissingExtra: nothing says which there are.
    """
    try:
        import ifaddr
    except ModuleNotFoundError:
        raise MissingExtra("cli", "to say by which addresses this machine can be reached") from None
    # IPv6 addresses come with their scope: (address, flow, scope).
    texts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for one in ifaddr.get_adapters() for ip in one.ips]
    own = [address for address in map(ip_address, dict.fromkeys(texts)) if not address.is_loopback]
    return sorted(own, key=lambda address: address.version)
