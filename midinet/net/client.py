"""connect: one attempt, over every address of the host."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any

from ..address import format_address
from ..errors import ConnectError, ConnectRefused, UsageError
from ..hub.outbox import DEFAULT_MAX_OUTBOX
from ..wire.parser import DEFAULT_MAX_SYSEX
from .inbox import Inbox
from .link import Link
from .options import DEFAULT_CLOSE_TIMEOUT, DEFAULT_MAX_INBOX, DEFAULT_SEND_BUFFER, LinkOptions
from .port import SocketPort, open_hub

# Seconds. Far beyond any answer on a network one would make music over, and short enough to wait for.
DEFAULT_CONNECT_TIMEOUT = 10.0


class connect:
    """Connect to a MIDI socket port server.

        async with connect("localhost", 8080) as port:
            await port.send(message)

    `port = await connect(...)` does without the block; the port then has to be closed.

    Args:
        host: a name or an address; every address that the name has is tried in turn.
        portno: the port number.
        timeout: how long to try, in seconds; None is for as long as the system does.
        max_sysex: the longest system exclusive message to pass on, in bytes with its F0 and F7.
        max_inbox: how many messages may wait to be read before the port stops reading its socket, and the
            peer has to wait. Nothing is dropped.
        max_outbox: how many bytes may wait for a slow peer. `send` waits long before that.
        send_buffer: the size of the system's send buffer, in bytes.
        close_timeout: how long closing waits for the peer to take what is left, in seconds.
        running_status: leave out repeated status bytes in what is sent. mido's ports lose notes then.

    Returns:
        A SocketPort.

    Raises:
        ConnectRefused: nobody listens there.
        ConnectError: no connection could be made, or not in time.
        ValueError: a limit is out of range.

    Cancelling is safe: no connection is left behind.
    """

    def __init__(
        self,
        host: str,
        portno: int,
        *,
        timeout: float | None = DEFAULT_CONNECT_TIMEOUT,
        max_sysex: int = DEFAULT_MAX_SYSEX,
        max_inbox: int = DEFAULT_MAX_INBOX,
        max_outbox: int = DEFAULT_MAX_OUTBOX,
        send_buffer: int = DEFAULT_SEND_BUFFER,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        running_status: bool = False,
    ) -> None:
        self._host = host
        self._portno = portno
        self._timeout = timeout
        self._port: SocketPort | None = None
        self._options = LinkOptions(
            max_sysex=max_sysex,
            max_inbox=max_inbox,
            max_outbox=max_outbox,
            send_buffer=send_buffer,
            close_timeout=close_timeout,
            running_status=running_status,
        )

    def __await__(self) -> Generator[Any, None, SocketPort]:
        return self._connect(Inbox).__await__()

    async def __aenter__(self) -> SocketPort:
        if self._port is not None:
            raise UsageError("this connection was made before: write connect(...) again for another")
        self._port = await self
        return self._port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._port is not None:
            await self._port.close()

    async def _connect(self, make_inbox: Callable[[int], Inbox]) -> SocketPort:
        where = format_address(self._host, self._portno)
        try:
            async with asyncio.timeout(self._timeout):
                port = await _open(self._host, self._portno, self._options, make_inbox)
        except TimeoutError as error:
            raise ConnectError(errno.ETIMEDOUT, f"no answer from {where} in {self._timeout} s") from error
        except ConnectionRefusedError as error:
            raise ConnectRefused(error.errno, f"nobody listens on {where}") from error
        except socket.gaierror as error:
            raise ConnectError(error.errno, f"the host of {where} is not known") from error
        except (OSError, OverflowError, UnicodeError) as error:
            number = getattr(error, "errno", None)
            raise ConnectError(number, f"cannot connect to {where}: {error}") from error
        port.name = where
        port._open_for_itself()
        return port


async def _open(
    host: str, portno: int, options: LinkOptions, make_inbox: Callable[[int], Inbox]
) -> SocketPort:
    loop = asyncio.get_running_loop()
    ports: list[SocketPort] = []

    def made(link: Link) -> SocketPort:
        # Unread until the caller has the port.
        link.pause_reading()
        port = SocketPort(link, open_hub(loop), make_inbox(options.max_inbox), lambda port: None)
        ports.append(port)
        return port

    # As mido's ports have it, no host is this machine.
    found = await loop.getaddrinfo(host or "localhost", portno, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = failure or error
            continue
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.create_connection(partial(Link, loop, options, made), sock=sock)
        except OSError as error:
            # Of several failures the refusal says most: the machine is there.
            if failure is None or isinstance(error, ConnectionRefusedError):
                failure = error
            sock.close()
        except BaseException:
            for port in ports:
                port._link.abort()
            sock.close()
            raise
        else:
            return ports[-1]
    raise failure or OSError(errno.EADDRNOTAVAIL, "it has no address")
