"""Two connected ports in one process, for the tests of programs that use midinet.

    async with pair() as (ours, theirs):
        await play_something(ours)
        assert (await theirs.receive()).type == "note_on"

    with pair() as (ours, theirs):
        play_something(ours)
        assert theirs.receive().type == "note_on"

They are ports like those that `connect` and `accept` return, connected without sockets: there is no port
number to find, and no network that a test would depend on. What connects by itself, or serves, is tested
against the real thing, on a port that the system chooses: `PortServer("localhost", 0)` and
`connect(*server.addresses[0])`.

pytest has two fixtures of this wherever midinet is installed: `midinet_pair` gives two blocking ports, and
`midinet_async_pair`, which needs pytest-asyncio, two async ones.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..errors import UsageError
from ..net.options import LinkOptions
from ..net.pair import PairOwner, join_ports, open_pair
from ..net.port import SocketPort as AsyncSocketPort
from ..sync.inbox import ThreadInbox
from ..sync.portal import Portal, get_portal
from ..sync.ports import SocketPort

__all__ = ["pair"]


class pair:
    """Two ports that are connected to each other, until the end of the block.

    `async with` gives two of midinet's ports, `with` two of midinet.sync's. What one sends the other hears,
    as over a network: bounds, slow-peer policy and the release of notes hold here too.

    Args:
        options: the settings of both ends, one by one, as `midinet.LinkOptions` lists them.

    Raises:
        ValueError: a limit is out of range.
        TypeError: there is no such option.
        UsageError: it is entered a second time.
    """

    def __init__(self, **options: Any) -> None:
        LinkOptions(**options)
        self._options = options
        self._entered = False
        self._async_ports: tuple[AsyncSocketPort, ...] = ()
        self._ports: tuple[SocketPort, ...] = ()

    async def __aenter__(self) -> tuple[AsyncSocketPort, AsyncSocketPort]:
        self._enter()
        self._async_ports = ours, theirs = open_pair(**self._options)
        return ours, theirs

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self._async_ports:
            port._begin_close()
        for port in self._async_ports:
            await port.wait_closed()

    def __enter__(self) -> tuple[SocketPort, SocketPort]:
        self._enter()
        portal = get_portal()
        self._ports = ours, theirs = portal.run(_open_blocking(portal, self._options))
        return ours, theirs

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self._ports:
            port.close()

    def _enter(self) -> None:
        if self._entered:
            raise UsageError("this pair was opened before: write pair() again for another")
        self._entered = True


class _LoopOwner(PairOwner):
    """Who keeps the ports of a blocking pair: the loop, until they are over."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal

    def _port_lost(self, port: AsyncSocketPort) -> None:
        self._portal.opened.pop(port, None)


async def _open_blocking(portal: Portal, options: dict[str, Any]) -> tuple[SocketPort, SocketPort]:
    def make_inbox(max_messages: int) -> ThreadInbox:
        return ThreadInbox(portal, max_messages)

    ours, theirs = join_ports(LinkOptions(**options), _LoopOwner(portal), make_inbox)
    return SocketPort._around(portal, ours), SocketPort._around(portal, theirs)
