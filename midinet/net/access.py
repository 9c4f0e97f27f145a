"""Who may connect: by address, by token, and how many.

- An IPv4 address that came over IPv6 (::ffff:10.0.0.5, RFC 4291 section 2.5.5.2) counts as the IPv4
  address that it is.
- Whatever is no address (a peer that is gone already has none) is not permitted and not loopback.
- Nothing is let in by being empty: an empty list permits nobody.
- No token stands in a repr, an error, a pickle or an attribute: tokens are kept as digests.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NoReturn, TypeAlias

from ..checks import check_count

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# Connections. More than share a stage or a studio, and a bound of what peers that do not read can cost
# together.
DEFAULT_MAX_CLIENTS = 256

# Connections from one address but loopback. A studio behind one router is let in, and eight such
# addresses have to conspire before nobody else gets a place.
DEFAULT_MAX_CLIENTS_PER_ADDRESS = 32

# The first bit after which an IPv6 address is an IPv4 one, in ::ffff:0:0/96.
_MAPPED_BITS = 96

# RFC 6750 section 2.1, b64token: what can stand in "Authorization: Bearer ...".
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own: 127.0.0.0/8 or ::1."""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


class AllowList:
    """Addresses and networks whose peers are let in.

        AllowList(["192.168.1.0/24", "10.0.0.5", "::1", "fe80::/10", "fe80::1%eth0"])

    An item without a scope ID permits its addresses on every interface, and one with a scope ID only there.

    Args:
        items: addresses and networks, as strings or as objects of the ipaddress module. None of them
            permits nobody.

    Raises:
        ValueError: an item is neither an address nor a network, or the items are no collection.
    """

    __slots__ = ("_networks",)

    def __init__(self, items: Collection[str | Address | Network]) -> None:
        # A network of the ipaddress module can be iterated, address by address.
        if isinstance(items, str | bytes | Network) or not isinstance(items, Collection):
            raise ValueError(
                f'allow is a collection of addresses and networks, as in ["192.168.1.0/24"], not {items!r}'
            )
        self._networks = [_parse_item(item) for item in items]

    def __repr__(self) -> str:
        return f"<AllowList {', '.join([_format(*item) for item in self._networks]) or 'nobody'}>"

    def permits(self, address: str) -> bool:
        """Return whether a peer with this address is let in."""
        parsed = _parse(address)
        if parsed is None:
            return False
        scope = _scope(parsed)
        return any(parsed in network and only in (None, scope) for network, only in self._networks)


class Tokens:
    """The tokens that let a peer in.

    Args:
        tokens: each of the letters, digits and signs that RFC 6750 section 2.1 allows. None of them lets
            nobody in.

    Raises:
        ValueError: a token is empty or has other characters, or the tokens are no collection.
    """

    # No __len__: without tokens it would be false, and `if tokens:` would let everybody in.
    __slots__ = ("__digests",)

    def __init__(self, tokens: Collection[str]) -> None:
        if isinstance(tokens, str | bytes) or not isinstance(tokens, Collection):
            raise ValueError(
                'tokens is a collection of strings, as in tokens=["..."]; a single value was given'
            )
        for token in tokens:
            check_token(token)
        # Digests, since they are all of one length: comparing takes as long for every candidate.
        self.__digests = tuple({_digest(token) for token in tokens})

    def __repr__(self) -> str:
        return f"<Tokens: {len(self.__digests)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are neither copied nor pickled")

    def accepts(self, token: str | None) -> bool:
        """Return whether a peer that shows this token is let in. It takes as long for any wrong token.

        Args:
            token: what the peer showed, in any form; None if it showed none.
        """
        if token is None:
            return False
        shown = _digest(token)
        # Every one is compared: stopping at the right one would tell which it is.
        accepted = False
        for digest in self.__digests:
            accepted |= hmac.compare_digest(digest, shown)
        return accepted


class Crowd:
    """How many connections there are, and whether there is room for one more.

    Args:
        max_clients: the most connections at once.
        max_clients_per_address: the most of them from one address. Loopback is exempt.

    Raises:
        ValueError: a limit is below 1.
    """

    def __init__(
        self,
        *,
        max_clients: int = DEFAULT_MAX_CLIENTS,
        max_clients_per_address: int = DEFAULT_MAX_CLIENTS_PER_ADDRESS,
    ) -> None:
        check_count("max_clients", max_clients)
        check_count("max_clients_per_address", max_clients_per_address)
        self.max_clients = max_clients
        self.max_clients_per_address = max_clients_per_address
        # Connections that are in.
        self.clients = 0
        self._by_address: Counter[Address | str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection in. Returns False, and counts nothing, when there is no room for it."""
        who = _parse(address) or address
        if self.clients >= self.max_clients:
            return False
        if self._by_address[who] >= self.max_clients_per_address and not is_loopback(address):
            return False
        self.clients += 1
        self._by_address[who] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection out that `enter` counted in.

        Raises:
            ValueError: none from that address is in.
        """
        who = _parse(address) or address
        if who not in self._by_address:
            raise ValueError(f"no connection from {address} is in")
        self.clients -= 1
        self._by_address[who] -= 1
        # An address that is gone is forgotten: there are too many to remember.
        if not self._by_address[who]:
            del self._by_address[who]


def check_token(token: str) -> None:
    """See to it that a token can be sent in a HELLO.

    Raises:
        ValueError: it cannot. The text does not show it.
    """
    if not isinstance(token, str):
        raise ValueError(f"a token is a str, not {type(token).__name__}")
    if not token:
        raise ValueError("a token must not be empty")
    if not _TOKEN.fullmatch(token):
        raise ValueError(
            "a token has characters that cannot be sent: letters, digits and -._~+/ are allowed, "
            "and = at its end (RFC 6750 section 2.1)"
        )


def _digest(token: str) -> bytes:
    # A peer may show anything, even what is no text.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@lru_cache(1024)
def _parse(address: str) -> Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _scope(address: Address) -> str | None:
    return address.scope_id if isinstance(address, IPv6Address) else None


def _meant(text: str) -> str:
    """Name the network of an address that was written with its length of prefix, as 192.168.1.7/24."""
    try:
        return f"; {ip_network(text, strict=False)} is the network"
    except ValueError:
        return ""


def _parse_item(item: object) -> tuple[Network, str | None]:
    """The network of an item of an AllowList, and the scope ID if it has one."""
    # The ipaddress module would take an int or packed bytes, which are more often a mistake.
    if not isinstance(item, str | Address | Network):
        raise ValueError(f"{item!r} in allow is neither an address nor a network")
    # RFC 4007 section 11.7: the scope ID stands between the address and the length of the prefix.
    address, slash, length = str(item).partition("/")
    try:
        parsed = ip_address(address)
        scope = _scope(parsed)
        network = ip_network(address.partition("%")[0] + slash + length)
    except ValueError as error:
        raise ValueError(
            f"{str(item)!r} in allow is neither an address nor a network: {error}{_meant(str(item))}"
        ) from error
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network, scope


def _format(network: Network, scope: str | None) -> str:
    return str(network) if scope is None else f"{network.network_address}%{scope}/{network.prefixlen}"
