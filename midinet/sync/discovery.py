"""Find servers on the local network, from plain scripts."""

from __future__ import annotations

from collections.abc import Collection

from ..gateways.discovery import DEFAULT_DISCOVER_TIMEOUT, Service
from ..gateways.discovery import discover as discover_async
from .portal import get_portal


def discover(
    timeout: float = DEFAULT_DISCOVER_TIMEOUT, *, interfaces: Collection[str] | None = None
) -> list[Service]:
    """Return the servers that have announced themselves on the local network, by their names.

    Args:
        timeout: how long to wait for answers, in seconds.
        interfaces: see `midinet.discover`.

    Raises:
        ListenError (OSError): there is no interface to ask on, or port 5353 cannot be had.
        MissingExtra: zeroconf is not installed.
        ValueError: there is something else than addresses in `interfaces`.
    """

    async def gather() -> list[Service]:
        return await discover_async(timeout, interfaces=interfaces)

    return get_portal().run(gather())
