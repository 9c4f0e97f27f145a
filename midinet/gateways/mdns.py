"""What announcing and finding servers have in common, by multicast DNS (RFC 6762) and DNS-based service
discovery (RFC 6763), both by the zeroconf package.

A server is an instance of `_midinet._tcp.local.`. Its instance name is what `midi://NAME` names, its SRV
record has its machine's host name, and its TXT record has what it asks for (RFC 6763 section 6):

    txtvers=1    the layout of the rest
    tls=0|1      whether it speaks TLS
    token=0|1    whether a client has to show a token

Each announcement and each search has a zeroconf instance of its own, and ends it. Several of them share port
5353, in one process as in many, and an answer to one alone would reach any of them (RFC 6762 section 15.1):
so questions are asked with answers to everybody.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import MissingExtra

if TYPE_CHECKING:
    import ifaddr
    from zeroconf import ServiceInfo, Zeroconf
    from zeroconf.asyncio import AsyncZeroconf

logger = logging.getLogger("midinet.discovery")

Address: TypeAlias = IPv4Address | IPv6Address

TYPE = "_midinet._tcp.local."
LAYOUT = b"1"

# Addresses of interfaces, separated by commas: the only ones to announce on and to ask.
INTERFACES_VARIABLE = "MIDINET_INTERFACES"

# RFC 6763 section 4.1.1: the bytes of a label. There are no control characters in it; neither is here what
# ends a line, turns the direction of writing, or is no character.
MAX_NAME = 63
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# The type and class of a pointer to an instance (RFC 1035 section 3.2).
_PTR, _IN = 12, 1

# Servers that are kept track of; more than any network with people on it has.
MAX_SERVICES = 256

# A goodbye may be lost like everything else, so it is said as often as the announcement. Seconds between two.
_GOODBYES = 3
_GOODBYE_S = 0.125

# Seconds that closing may take beyond that. It takes a thousandth.
_CLOSE_S = 2.0


def check_service_name(name: str) -> str:
    """Return a name in the form that goes over the network.

    Raises:
        ValueError: it has not between 1 and 63 bytes of UTF-8, or has control characters, or a dot at its
            beginning or end or next to another.
    """
    name = unicodedata.normalize("NFC", name)  # RFC 6763 section 4.1.3, by way of RFC 5198.
    if _UNSHOWABLE.search(name):
        raise ValueError(f"the name {name!r} has control characters")
    if not 0 < len(name.encode()) <= MAX_NAME:
        raise ValueError(f"a name to announce has 1 to {MAX_NAME} bytes, not {len(name.encode())}")
    # zeroconf writes a dot as the end of a label, and no label is empty.
    if "" in name.split("."):
        raise ValueError(f"the name {name!r} has a dot at its beginning or end, or two in a row")
    return name


def fold(name: str) -> str:
    """Return what is the same for names that differ in case alone."""
    return unicodedata.normalize("NFC", name).casefold()


def instance_name(full: str) -> str | None:
    """Return the name of an instance without that of the service, None if it is none to show."""
    name = full[: -len(TYPE) - 1]
    if full[len(name) :].lower() != f".{TYPE}":
        return None
    try:
        return check_service_name(name)
    except ValueError:
        logger.debug("left out a server by its name: %r", name)
        return None


def leave_out(zeroconf: Zeroconf, name: str) -> None:
    """Forget that there is an instance. In its next question zeroconf would name it, and cannot write it."""
    pointers: list[Any] = list(zeroconf.cache.get_all_by_details(TYPE, _PTR, _IN))
    zeroconf.cache.async_remove_records([pointer for pointer in pointers if pointer.alias == name])


def read_interfaces(interfaces: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the addresses of the interfaces to use; none are all of them.

    Args:
        interfaces: the addresses; None takes those of the environment variable MIDINET_INTERFACES.

    Raises:
        ValueError: there is something else among them.
    """
    source = "interfaces"
    if interfaces is None:
        source = INTERFACES_VARIABLE
        interfaces = [item for item in os.environ.get(source, "").split(",") if item.strip()]
    elif isinstance(interfaces, str):
        raise ValueError(f'interfaces is a collection, as in ["192.168.1.5"], not {interfaces!r}')
    try:
        return tuple(str(ip_address(item.strip())) for item in interfaces)
    except ValueError as error:
        raise ValueError(f"{source} takes addresses of this machine: {error}") from None


def need_zeroconf() -> None:
    """See to it that zeroconf is there.

    Raises:
        MissingExtra: it is not.
    """
    try:
        import zeroconf.asyncio  # noqa: F401
    except ImportError:
        raise MissingExtra("discovery", "announcing and finding servers by name") from None


class Here:
    """The interfaces in use, and the addresses of this machine on them.

    Args:
        interfaces: the addresses of those to use; none are all.

    Raises:
        OSError: there is no such interface.
    """

    def __init__(self, interfaces: tuple[str, ...]) -> None:
        need_zeroconf()
        import ifaddr  # zeroconf's own.

        # By the number of the interface, which IPv6 goes by.
        found = {(adapter.index, _interface(ip)) for adapter in ifaddr.get_adapters() for ip in adapter.ips}
        # All that this machine has, on whatever interface.
        self.own = {one.ip for _, one in found}
        if interfaces:
            wanted = {ip_address(address.partition("%")[0]) for address in interfaces}
            if missing := wanted - {one.ip for _, one in found}:
                text = f"this machine has no address {', '.join(sorted(map(str, missing)))}"
                raise OSError(errno.EADDRNOTAVAIL, text)
            found = {(index, one) for index, one in found if one.ip in wanted}
        # Loopback counts where there is nothing else. It takes multicast for IPv4 alone.
        self.loopback = all(one.ip.is_loopback for _, one in found)
        self.addresses = {one.ip for _, one in found if self.loopback or not one.ip.is_loopback}
        self._networks = {one.network for _, one in found if not one.ip.is_link_local}
        self.interfaces: list[str | int] = list(interfaces) or [
            *{str(one.ip) for _, one in found if one.version == 4 and one.ip in self.addresses},
            *{index for index, one in found if index and one.version == 6 and not one.ip.is_loopback},
        ]

    def reachable(self, addresses: Sequence[tuple[str, int]]) -> list[str]:
        """Return by which addresses others reach a server that listens on these."""
        found: set[Address] = set()
        for text, _ in addresses:
            address = ip_address(text.partition("%")[0])
            if address.is_unspecified:
                found |= {one for one in self.addresses if one.version == address.version}
            elif self.loopback or not address.is_loopback:
                found.add(address)
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, "it listens on none of the addresses of these interfaces")
        return sorted(map(str, found))

    def best_first(self, addresses: list[Address]) -> list[Address]:
        """Sort the addresses of a server by how likely it is reached there.

        Bridges and containers have the same addresses on many machines, so that an address of this machine is
        another's only when all of them are; what is on a network of this machine goes before what is not.
        """
        is_elsewhere = not self.addresses.issuperset(addresses)

        def rank(address: Address) -> tuple[bool, bool, bool, int, str]:
            is_own = is_elsewhere and address in self.addresses
            is_far = not any(address in network for network in self._networks)
            return is_own, address.is_link_local, is_far, address.version, str(address)

        return sorted(addresses, key=rank)


def _interface(ip: ifaddr.IP) -> IPv4Interface | IPv6Interface:
    address = ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0]
    return ip_interface(f"{address}/{ip.network_prefix}")


def open_zeroconf(here: Here) -> AsyncZeroconf:
    """Return an instance of zeroconf for the interfaces in use.

    Raises:
        OSError, RuntimeError: there are none, or port 5353 cannot be had.
    """
    from zeroconf.asyncio import AsyncZeroconf

    if not here.interfaces:
        raise OSError(errno.ENETDOWN, "this machine has no network")
    try:
        return AsyncZeroconf(interfaces=here.interfaces)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(error.errno, "another program has port 5353 to itself") from error
        raise


async def close_zeroconf(zeroconf: AsyncZeroconf, info: ServiceInfo | None = None) -> None:
    """End an instance, with a goodbye for what it has announced.

    Not for the host's addresses, which are good still, and which another server of this machine may have
    announced too. When it is cancelled the sockets are closed all the same.
    """
    inner = zeroconf.zeroconf
    try:
        if info is not None:
            inner.registry.async_remove(info)
            goodbye = inner.generate_service_broadcast(info, 0, broadcast_addresses=False)
            for number in range(_GOODBYES):
                if number:
                    await asyncio.sleep(_GOODBYE_S)
                inner.async_send(goodbye)
        async with asyncio.timeout(_CLOSE_S):
            await zeroconf.async_close()
    except BaseException:
        inner.engine.close()
        raise


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
