"""Find the servers that have announced themselves on the local network, and one of them by its name.

Whatever is heard comes from strangers (see mdns.py for what that is):

- What cannot be shown on a terminal or connected to is left out, and all that is kept is bounded.
- Only host names in .local are taken. No public authority certifies those, so that TLS with the system's CAs
  is not fooled by a stranger who announces a domain of his own.
- A TXT record is a hint. Nobody may become less careful for what it says.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Collection, Generator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..address import SCHEME
from ..errors import ConnectError, ListenError, MissingExtra, UsageError
from ..net.tasks import BackgroundTask
from .mdns import (
    LAYOUT,
    MAX_SERVICES,
    TYPE,
    Here,
    close_zeroconf,
    fold,
    instance_name,
    leave_out,
    open_zeroconf,
    read_interfaces,
    reason,
)

if TYPE_CHECKING:
    from typing import Self

    from zeroconf import ServiceInfo, Zeroconf
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

# Seconds. Who has just said something says it again after one second only (RFC 6762 section 6), so that an
# answer may take 1.5; twice that leaves room for one that was lost.
DEFAULT_DISCOVER_TIMEOUT = 3.0

# RFC 1035 section 2.3.4, without the dot at the end.
_MAX_HOST = 253
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.local", re.IGNORECASE)

# Of the servers that are there when the right one is not, so many are named.
_MAX_NAMED = 5

# Seconds until those that are there are looked at again. The records of a host are good for 120 (RFC 6762
# section 10).
_REVIEW_S = 30.0

# Seconds that one server's missing records are waited for.
_RECORDS_S = 3.0


class Service(NamedTuple):
    """A server that has announced itself. All of it is what it says of itself."""

    name: str
    """What midi://NAME calls it."""
    host: str
    """The name of its machine, as in studio.local."""
    addresses: tuple[tuple[str, int], ...]
    """(address, port number) pairs, the best to try first. A link-local IPv6 address has its scope."""
    tls: bool
    """Whether it says that it speaks TLS."""
    token: bool
    """Whether it says that it asks for a token."""


class ServiceChange(NamedTuple):
    """A server that came, went, or is not what it was."""

    kind: Literal["found", "changed", "gone"]
    service: Service
    """As it is now; of one that is gone, as it was."""


class discover:
    """Find the servers that have announced themselves on the local network.

        for service in await discover():
            print(service.name)

    `await` gives a list of them, by their names, as they are after so many seconds. To follow who comes and
    goes, for as long as you like:

        async with discover() as changes:
            async for kind, service in changes:
                print(kind, service.name)

    That gives a `ServiceChange` for each one that is found, changed or gone, beginning with those that are
    there already, and waits for the next. What changed several times meanwhile is told once, as it is. A
    server that vanished without a word is gone after three minutes. Networks that this machine joins
    meanwhile are not asked.

    Args:
        timeout: how long to wait for answers, in seconds; following has no end of its own.
        interfaces: addresses of this machine, to ask on their interfaces alone. None takes those of the
            environment variable MIDINET_INTERFACES, separated by commas, and without it all interfaces.

    Raises:
        ListenError: there is no interface to ask on, or port 5353 cannot be had.
        MissingExtra: zeroconf is not installed.
        ValueError: there is something else than addresses in `interfaces`.

    Cancelling is safe.
    """

    def __init__(
        self, timeout: float = DEFAULT_DISCOVER_TIMEOUT, *, interfaces: Collection[str] | None = None
    ) -> None:
        self._timeout = timeout
        self._interfaces = read_interfaces(interfaces)
        self._zeroconf: AsyncZeroconf | None = None
        # By their names in lower case: those that are spoken of, as they are, and as they were told last.
        self._names: dict[str, str] = {}
        self._now: dict[str, Service] = {}
        self._told: dict[str, Service] = {}
        # Which may differ in the two, in the order in which they changed.
        self._changed: dict[str, None] = {}
        self._news = asyncio.Event()
        self._is_over = False
        # Those whose records are being asked for.
        self._asking: dict[str, BackgroundTask] = {}
        self._failure: Exception | None = None

    def __await__(self) -> Generator[Any, None, list[Service]]:
        return self._gather().__await__()

    async def _gather(self) -> list[Service]:
        async with self:
            await asyncio.sleep(self._timeout)
            return self.services

    @property
    def services(self) -> list[Service]:
        """The servers that are there at present, by their names."""
        return sorted(self._now.values(), key=lambda service: (fold(service.name), service.name))

    async def __aenter__(self) -> Self:
        if self._zeroconf is not None or self._is_over:
            raise UsageError("this search was made before: write discover(...) again for another")
        try:
            self._here = Here(self._interfaces)
            self._zeroconf = open_zeroconf(self._here)
        except Exception as error:
            # zeroconf has errors of its own, which are no OSErrors.
            if isinstance(error, MissingExtra):
                raise
            text = reason(error)
            raise ListenError(getattr(error, "errno", None), f"cannot look for servers: {text}") from error
        from zeroconf import DNSQuestionType
        from zeroconf.asyncio import AsyncServiceBrowser

        self._multicast = DNSQuestionType.QM
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, TYPE, [self._heard], question_type=self._multicast
        )
        self._review_task = BackgroundTask(self._review(), name="midinet discovery review", failed=self._fail)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._zeroconf is not None
        self._is_over = True
        self._news.set()
        tasks = [self._review_task, *self._asking.values()]
        for task in tasks:
            task.cancel()
        await self._browser.async_cancel()
        try:
            for task in tasks:
                await task.wait()
        finally:
            await close_zeroconf(self._zeroconf)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServiceChange:
        while not self._is_over:
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                before, now = self._told.get(key), self._now.get(key)
                if now is not None and now != before:
                    self._told[key] = now
                    return ServiceChange("found" if before is None else "changed", now)
                if before is not None and now is None:
                    del self._told[key]
                    return ServiceChange("gone", before)
            if self._failure is not None:
                raise ListenError(
                    None, f"cannot look for servers: {reason(self._failure)}"
                ) from self._failure
            self._news.clear()
            await self._news.wait()
        raise StopAsyncIteration

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._news.set()

    # zeroconf calls this by the names of its arguments.
    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange

        key = name.lower()
        if state_change is ServiceStateChange.Removed:
            self._names.pop(key, None)
            self._place(key, None)
        elif (info := _info_of(name)) is None:
            leave_out(zeroconf, name)
        elif key in self._names or len(self._names) < MAX_SERVICES:
            self._names[key] = name
            # Nearly always all of it comes at once (RFC 6763 section 12.1).
            if info.load_from_cache(zeroconf):
                self._place(key, _read_service(info, self._here))
            elif key not in self._asking:
                self._asking[key] = BackgroundTask(
                    self._ask(key, info),
                    name=f"midinet discovery {name!r}",
                    failed=self._fail,
                    ended=lambda task: self._asking.pop(key, None),
                )

    async def _ask(self, key: str, info: AsyncServiceInfo) -> None:
        """Ask for the records of a server that are not there or not good any more."""
        from zeroconf import Error

        assert self._zeroconf is not None
        try:
            is_there = await info.async_request(
                self._zeroconf.zeroconf, _RECORDS_S * 1000, question_type=self._multicast
            )
        except Error:
            is_there = False  # The name of its host cannot be asked for.
        if key in self._names:
            self._place(key, _read_service(info, self._here) if is_there else None)

    async def _review(self) -> None:
        """See who has vanished without a word. That somebody was there once is remembered for long."""
        while True:
            await asyncio.sleep(_REVIEW_S)
            for key, name in list(self._names.items()):
                if (info := _info_of(name)) is not None:
                    await self._ask(key, info)

    def _place(self, key: str, service: Service | None) -> None:
        if service is not None:
            self._now[key] = service
        elif self._now.pop(key, None) is None:
            return
        self._changed[key] = None
        self._news.set()


async def find_service(name: str, timeout: float, *, interfaces: Collection[str] | None = None) -> Service:
    """Return the server that has announced itself by a name, whatever its case.

    Args:
        name: the whole of it.
        timeout: how long to look for it, in seconds.
        interfaces: see `discover`.

    Raises:
        ConnectError: there is none of that name. The text has the names of those that are there.
        ListenError, MissingExtra, ValueError: see `discover`.

    Cancelling is safe.
    """
    wanted = fold(name)
    async with discover(interfaces=interfaces) as changes:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                async for kind, service in changes:
                    if kind != "gone" and fold(service.name) == wanted:
                        return service
        names = [service.name for service in changes.services]
    named = ", ".join(names[:_MAX_NAMED])
    if not names:
        others = "no server announces itself here"
    elif len(names) > _MAX_NAMED:
        others = f"there are {named} and {len(names) - _MAX_NAMED} more"
    else:
        others = f"there {'is' if len(names) == 1 else 'are'} {named}"
    raise ConnectError(errno.ENOENT, f"nobody is called {SCHEME}{name} on this network: {others}")


def _info_of(name: str) -> AsyncServiceInfo | None:
    """Return what takes the records of an instance, None if its name cannot be shown or asked for."""
    from zeroconf import Error
    from zeroconf.asyncio import AsyncServiceInfo

    if instance_name(name) is None:
        return None
    try:
        return AsyncServiceInfo(TYPE, name[: -len(TYPE)] + TYPE)
    except Error:
        return None


def _read_service(info: ServiceInfo, here: Here) -> Service | None:
    """Return what the records of a stranger say, or None if he cannot be connected to."""
    name = instance_name(info.name)
    host = (info.server or "").removesuffix(".")
    if name is None or not info.port or len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        return None
    addresses = []
    for text in info.parsed_scoped_addresses():
        address = ip_address(text)
        if address.is_unspecified or address.is_multicast or (address.is_loopback and not here.loopback):
            continue
        if isinstance(address, IPv6Address) and address.is_link_local and address.scope_id is None:
            continue
        addresses.append(address)
    if not addresses:
        return None
    # RFC 6763 section 6.4: keys are ASCII, of any case, and the first of several counts.
    txt: dict[bytes, bytes | None] = {}
    for key, value in info.properties.items():
        txt.setdefault(key.lower(), value)
    known = txt.get(b"txtvers", LAYOUT) == LAYOUT
    return Service(
        name,
        host,
        tuple((str(address), info.port) for address in here.best_first(addresses)),
        known and txt.get(b"tls") == b"1",
        known and txt.get(b"token") == b"1",
    )
