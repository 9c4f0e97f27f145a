"""A server announces itself on the local network: takes a name, keeps it, and says goodbye."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ..net.tasks import BackgroundTask
from .mdns import (
    LAYOUT,
    MAX_NAME,
    MAX_SERVICES,
    TYPE,
    Here,
    check_service_name,
    close_zeroconf,
    fold,
    instance_name,
    leave_out,
    logger,
    open_zeroconf,
    read_interfaces,
    reason,
)

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf
    from zeroconf.asyncio import AsyncZeroconf

# Seconds until what is announced is looked at again, or another attempt is made where there is no network.
_REVIEW_S = 10.0

# Seconds that others have to tell their names before one is tried. With the half that zeroconf takes at least
# to ask for it, that is longer than somebody may be silent who has just spoken (RFC 6762 section 6).
_LISTEN_S = 1.0

# How often who has this machine's host name is asked for in that time: a question may be lost.
_ASK_TIMES = 2

# Numbers that a name may get before it is given up.
_MAX_NUMBER = 99

# The types and the class of records on the Internet (RFC 2782, RFC 3596, RFC 1035 section 3.2).
_SRV, _A, _AAAA, _IN = 33, 1, 28, 1


class Announcement:
    """What a server says of itself on the local network, for as long as it runs.

    A name that somebody has gets a number, as in "stage (2)". Where there is no network, that is a line in
    the log, and it is tried again; where this machine's addresses change, they are announced anew.

    Machines that are fresh from the box have the same host name, and the addresses of all of them would be
    taken for one's. So where another has this one's, the hardware address is added to it; but not with TLS,
    where a certificate names it.

    Args:
        name: what the server is called, see `check_service_name`.
        tls: it speaks TLS.
        token: it asks for a token.
        interfaces: see `discover`.

    Raises:
        ValueError: it cannot be a name, or there is something else than addresses in `interfaces`.
    """

    def __init__(
        self,
        name: str,
        *,
        tls: bool = False,
        token: bool = False,
        interfaces: Collection[str] | None = None,
    ) -> None:
        self._wanted = check_service_name(name)
        self._tls = tls
        self._host = _host_name()
        self._properties = {
            b"txtvers": LAYOUT,
            b"tls": b"1" if tls else b"0",
            b"token": b"1" if token else b"0",
        }
        self._interfaces = read_interfaces(interfaces)
        self._task: BackgroundTask | None = None
        self._closing = False
        # Names that others took at the same time, and have kept.
        self._lost: set[str] = set()
        # What the server is called at present; None while it is not announced.
        self.name: str | None = None

    def start(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Begin to announce, in the background.

        Args:
            addresses: the (address, port number) pairs that the server listens on, all of one port number.
        """
        self._task = BackgroundTask(self._run(addresses), name=f"midinet announcement {self._wanted}")

    def begin_close(self) -> None:
        """Say goodbye, if anything was said, in the background."""
        if not self._closing and self._task is not None:
            self._task.cancel()
        self._closing = True

    async def wait_closed(self) -> None:
        """Wait until all of it has ended: a quarter of a second, and 3 at most. Cancelling is safe."""
        if self._task is not None:
            await self._task.wait()

    async def _run(self, addresses: Sequence[tuple[str, int]]) -> None:
        failed = False
        while not self._closing:
            try:
                await self._announce(addresses)
                failed = False
                continue
            except Exception as error:
                # Whatever goes wrong in zeroconf, the server goes on without.
                if not failed:
                    logger.warning("cannot announce %s: %s", self._wanted, reason(error))
                failed = True
            await asyncio.sleep(_REVIEW_S)

    async def _announce(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Announce, and withdraw it when it has to be done anew."""
        here = Here(self._interfaces)
        zeroconf = open_zeroconf(here)
        info: ServiceInfo | None = None
        try:
            info, broadcast = await self._register(zeroconf, here, addresses)
            self.name = instance_name(info.name)
            logger.info("announced as %s", self.name)
            await broadcast
            while (present := Here(self._interfaces)).addresses == here.addresses:
                if self._avoid_namesake(zeroconf, present):
                    return
                if rivals := _rivals(zeroconf, info):
                    if any(rival > _claim(info) for rival in rivals):
                        # Both began at once. Without a goodbye, which would be the other's too.
                        logger.info("another server is called %s too", self.name)
                        self._lost.add(fold(self.name or ""))
                        zeroconf.zeroconf.registry.async_remove(info)
                        info = None
                        return
                    await (await zeroconf.async_update_service(info))
                await asyncio.sleep(_REVIEW_S)
            self._lost.clear()
        finally:
            self.name = None
            await close_zeroconf(zeroconf, info)

    async def _register(
        self, zeroconf: AsyncZeroconf, here: Here, addresses: Sequence[tuple[str, int]]
    ) -> tuple[ServiceInfo, asyncio.Future[None]]:
        """Take the first free name. Returns what was registered, and its announcement under way."""
        from zeroconf import NonUniqueNameException, ServiceInfo

        reachable, portno = here.reachable(addresses), addresses[0][1]
        async with _names_taken(zeroconf) as taken:
            for _ in range(_ASK_TIMES):
                _ask_for_host(zeroconf, self._host)
                await asyncio.sleep(_LISTEN_S / _ASK_TIMES)
            self._avoid_namesake(zeroconf, here)
            for number in range(1, _MAX_NUMBER + 1):
                name = _numbered(self._wanted, number)
                if fold(name) in taken | self._lost:
                    continue
                info = ServiceInfo(
                    TYPE,
                    f"{name}.{TYPE}",
                    port=portno,
                    properties=self._properties,
                    server=self._host,
                    parsed_addresses=reachable,
                )
                try:
                    broadcast = asyncio.ensure_future(await zeroconf.async_register_service(info))
                except NonUniqueNameException:
                    taken.add(fold(name))
                    continue
                if fold(name) not in taken:
                    return info, broadcast
                # One that differs in case alone, which zeroconf's own check lets pass.
                broadcast.cancel()
                zeroconf.zeroconf.registry.async_remove(info)
        self._lost.clear()
        raise OSError(errno.EADDRINUSE, f"{_MAX_NUMBER} servers have that name")

    def _avoid_namesake(self, zeroconf: AsyncZeroconf, here: Here) -> bool:
        """Take another host name if another machine is heard to have it, by addresses that this one has not.
        Returns whether that was done."""
        unlike = _host_name(unlike=True)
        if self._tls or self._host == unlike:
            return False
        from zeroconf import current_time_millis

        now = current_time_millis()
        records: list[Any] = []
        for kind in (_A, _AAAA):
            records += zeroconf.zeroconf.cache.get_all_by_details(self._host, kind, _IN)
        heard = {ip_address(record.address) for record in records if not record.is_expired(now)}
        if heard <= here.own:
            return False
        self._host = unlike
        return True


def _numbered(name: str, number: int) -> str:
    """Return a name with a number, cut where it would be too long (RFC 6763 appendix D)."""
    suffix = f" ({number})" if number > 1 else ""
    return name.encode()[: MAX_NAME - len(suffix)].decode(errors="ignore") + suffix


def _host_name(*, unlike: bool = False) -> str:
    """Return the name of this machine, as its certificate has it: the first label, in .local.

    Args:
        unlike: make it one that no other machine has.
    """
    label = re.sub("[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")[:MAX_NAME]
    if label.lower() in ("", "localhost"):
        # Every machine is called that.
        label, unlike = "midinet", True
    if unlike:
        suffix = f"-{uuid.getnode():012x}"
        label = label[: MAX_NAME - len(suffix)] + suffix
    return f"{label}.local."


def _ask_for_host(zeroconf: AsyncZeroconf, host: str) -> None:
    from zeroconf import DNSOutgoing, DNSQuestion  # type: ignore[attr-defined]  # In its __init__ all the same.

    question = DNSOutgoing(0)
    for kind in (_A, _AAAA):
        question.add_question(DNSQuestion(host, kind, _IN))
    zeroconf.zeroconf.async_send(question)


def _claim(info: ServiceInfo) -> tuple[str, int]:
    return (info.server or "").lower(), info.port or 0


def _rivals(zeroconf: AsyncZeroconf, info: ServiceInfo) -> list[tuple[str, int]]:
    """Return who else claims a name. Who has the greatest claim keeps it, as in RFC 6762 section 8.2."""
    from zeroconf import current_time_millis

    now = current_time_millis()
    records: list[Any] = list(zeroconf.zeroconf.cache.get_all_by_details(info.name, _SRV, _IN))
    claims = {(record.server.lower(), record.port) for record in records if not record.is_expired(now)}
    return sorted(claims - {_claim(info)})


@asynccontextmanager
async def _names_taken(zeroconf: AsyncZeroconf) -> AsyncIterator[set[str]]:
    """Collect the names that others have, folded."""
    from zeroconf import DNSQuestionType, ServiceStateChange
    from zeroconf.asyncio import AsyncServiceBrowser

    taken: set[str] = set()

    def heard(zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        key = fold(name[: -len(TYPE) - 1])
        if state_change is ServiceStateChange.Removed:
            taken.discard(key)
        elif instance_name(name) is None:
            leave_out(zeroconf, name)
        elif len(taken) < MAX_SERVICES:
            taken.add(key)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, TYPE, [heard], question_type=DNSQuestionType.QM)
    try:
        yield taken
    finally:
        await browser.async_cancel()
