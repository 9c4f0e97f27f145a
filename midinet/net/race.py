"""Connect a socket to the first of several addresses that answers (Happy Eyeballs, RFC 8305).

Where a network drops what is sent to one address, as many do with IPv6, nobody says so. So the attempt at the
next address begins a moment after the one before, whose answer may still come.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio.staggered import staggered_race
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from ssl import SSLError
from typing import Any, NamedTuple

from ..errors import UsageError

# Seconds from the attempt at one address to that at the next (section 5).
NEXT_ADDRESS_S = 0.25


class Address(NamedTuple):
    """One address of a host, as getaddrinfo has it."""

    family: int
    kind: int
    protocol: int
    canonname: str
    sockaddr: Any


class AddressRace:
    """Addresses of one host, and what became of the attempts at them.

    Args:
        loop: the running loop.
        found: the addresses, as getaddrinfo has them.
        check: called with each before it is tried. What it raises is the failure of that address.
        patience: how long each but the last may take, in seconds; None is as long as the system waits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        found: Sequence[tuple[Any, ...]],
        check: Callable[[str], object],
        patience: float | None,
    ) -> None:
        self._loop = loop
        self._check = check
        self._patience = patience
        # Those that were not connected to, and have not failed.
        self._left = interleave([Address(*one) for one in found])
        self.failures: list[Exception] = []
        # The first that is connected: the others are cancelled in the same step.
        self._winner: socket.socket | None = None

    @property
    def failure(self) -> Exception | None:
        """The failure that says most; None while there is none.

        Misuse comes first. Then a TLS handshake, since somebody had answered, and then a refusal, since a
        machine is there. Of others the first counts.
        """
        kinds = (UsageError, SSLError, ConnectionRefusedError, Exception)
        return next((error for kind in kinds for error in self.failures if isinstance(error, kind)), None)

    async def connect(self) -> socket.socket:
        """Return a connected socket, each time to another address. Cancelling is safe: it leaves none open.

        Raises:
            OSError, OverflowError, UsageError: no address is left, and this is the failure that says most.
        """
        limits = [*[self._patience] * (len(self._left) - 1), None]
        attempts = [partial(self._attempt, *one) for one in zip(self._left, limits, strict=False)]
        try:
            await staggered_race(attempts, NEXT_ADDRESS_S)
        except BaseException:
            # It forgets the winner where it is cancelled right then.
            if self._winner is not None:
                self._winner.close()
            raise
        sock, self._winner = self._winner, None
        if sock is None:
            raise self.failure or OSError(errno.EADDRNOTAVAIL, "it has no address")
        return sock

    async def _attempt(self, address: Address, patience: float | None) -> None:
        try:
            self._check(str(address.sockaddr[0]))
            sock = await self._connect_to(address, patience)
        except Exception as error:
            self.failures.append(error)
            self._left.remove(address)
            raise
        self._left.remove(address)
        self._winner = sock

    async def _connect_to(self, address: Address, patience: float | None) -> socket.socket:
        sock = socket.socket(address.family, address.kind, address.protocol)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(patience):
                await self._loop.sock_connect(sock, address.sockaddr)
        except TimeoutError:
            sock.close()
            raise OSError(errno.ETIMEDOUT, f"no answer from {address.sockaddr[0]}") from None
        except BaseException:
            sock.close()
            raise
        return sock


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Return addresses in an order in which their families alternate, beginning with the first one's.

    Where all addresses of one family lead nowhere, the second attempt is at another (section 4).
    """
    families = dict.fromkeys(address.family for address in addresses)
    rows = zip_longest(*([one for one in addresses if one.family == family] for family in families))
    return [address for row in rows for address in row if address is not None]
