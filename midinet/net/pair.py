"""Two connected ports in one process, without sockets.

The ports and their links are the real ones; only the transport between them is of memory. It does as TCP
does, so that everything above it works as over a network:

- Bytes arrive in order, in a later turn of the event loop than that in which they were written.
- What was written and not read yet is bounded: past `send_buffer` the writer is told to wait.
- What was written before an end arrives before the end. Whoever goes with something unread, resets.

In one thing it is kinder. What is written to an end that has gone is dropped, where TCP would break the
connection: that it has gone is on its way to the writer already.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from ..hub.policy import SysexRule
from ..wire.aside import Aside
from .inbox import Inbox
from .link import Link
from .options import LinkOptions
from .port import Owner, SocketPort, open_hub

# Bytes. What asyncio's transports hand over at once unless their protocol wishes otherwise, and what may wait
# in them before they push back.
_READ_BYTES = 256 * 1024
_HIGH_WATER = 64 * 1024


class MemoryTransport(asyncio.Transport):
    """One end of a connection inside this process; `join` connects it.

    Args:
        loop: the running loop.
        peername: what to call the other end.
        room: bytes that may be under way to the other end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, peername: tuple[str, int], room: int) -> None:
        super().__init__({"peername": peername})
        self.max_size = _READ_BYTES
        self._loop = loop
        self._room = room
        self._protocol = asyncio.Protocol()
        # None when the other end has gone.
        self._other: MemoryTransport | None = None
        # What was written and found no room yet, and what the other end has sent and nobody has read.
        self._unsent = bytearray()
        self._unread = bytearray()
        self._low, self._high = _HIGH_WATER // 4, _HIGH_WATER
        self._pushes_back = False
        self._reading = True
        self._delivery: asyncio.Handle | None = None
        self._eof_written = False
        # After what is unread there is an end to be told: this error, or that the other end has sent all.
        self._ending = False
        self._eof_heard = False
        self._error: OSError | None = None
        self._closing = False
        self._lost = False

    def join(self, protocol: asyncio.Protocol, other: MemoryTransport) -> None:
        """Become the transport of a protocol, and one with the other end, which has to join in turn."""
        self._protocol = protocol
        self._other = other
        protocol.connection_made(self)

    # Writing.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof_written:
            raise RuntimeError("nothing can be written after write_eof()")
        if self._other is not None and not self._closing:
            self._unsent += data
            self._push()

    def write_eof(self) -> None:
        if not self._closing:
            self._eof_written = True
            self._push()

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high must be at least low, and low at least 0; not {high} and {low}")
        self._low, self._high = low, high
        self._tell_of_flow()

    def _push(self) -> None:
        """Send what there is room for, and after all of it the end, if there shall be one."""
        other = self._other
        if other is not None and (room := self._room - len(other._unread)) > 0:
            other._unread += self._unsent[:room]
            del self._unsent[:room]
            if self._eof_written and not self._unsent:
                other._hear_end(None)
            other._deliver_soon()
        self._tell_of_flow()
        if self._closing and not self._unsent:
            self._lose(None)

    def _tell_of_flow(self) -> None:
        if self._pushes_back:
            if len(self._unsent) <= self._low:
                self._pushes_back = False
                self._protocol.resume_writing()
        elif len(self._unsent) > self._high:
            self._pushes_back = True
            self._protocol.pause_writing()

    # Reading.

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._deliver_soon()

    def _hear_end(self, error: OSError | None) -> None:
        if error is not None or not self._eof_heard:
            self._ending = self._eof_heard = True
            self._error = error
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        if self._delivery is None and self.is_reading() and (self._unread or self._ending):
            self._delivery = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        if not self.is_reading():
            return
        if self._unread:
            data = bytes(self._unread[: self.max_size])
            del self._unread[: self.max_size]
            if self._other is not None:
                self._other._push()
            self._protocol.data_received(data)
            self._deliver_soon()
        elif self._ending:
            self._ending = False
            if self._error is not None:
                self._lose(self._error)
            elif not self._protocol.eof_received():
                self.close()

    # The end.

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._push()

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        other, self._other = self._other, None
        if other is not None:
            other._other = None
            unread = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            other._hear_end(unread if self._unread else None)
            # Nobody is there for it any more.
            other._unsent.clear()
            other._push()
        self._unsent.clear()
        self._unread.clear()
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: OSError | None) -> None:
        # In a circle, memory would stay until Python looks for circles.
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        protocol.connection_lost(error)


class PairOwner:
    """Who keeps the ports of a pair: nobody, so that they live and end by themselves."""

    def _port_told(self, port: SocketPort, aside: Aside) -> None:
        pass

    def _port_lost(self, port: SocketPort) -> None:
        pass

    def _port_keeps(self, port: SocketPort) -> bool:
        return False

    def _port_is_sought(self, port: SocketPort) -> bool:
        return False


def open_pair(**options: object) -> tuple[SocketPort, SocketPort]:
    """Return two ports that are connected to each other in this process, on the running loop.

    What one sends the other hears, as over a network: bounds, slow-peer policy and the release of notes hold
    here too. Each has to be closed.

    Args:
        options: the settings of both ends, one by one, as `LinkOptions` lists them.

    Raises:
        ValueError: a limit is out of range.
        TypeError: there is no such option.
        RuntimeError: no event loop is running.
    """
    return join_ports(LinkOptions(**options), PairOwner(), Inbox)  # type: ignore[arg-type]


def join_ports(
    options: LinkOptions, owner: Owner, make_inbox: Callable[[int], Inbox]
) -> tuple[SocketPort, SocketPort]:
    """Make a pair, with inboxes and an owner of one's own."""
    loop = asyncio.get_running_loop()
    ports: list[SocketPort] = []

    def made(link: Link) -> SocketPort:
        if options.sysex is not None:
            link.gate_sysex(None if options.sysex is True else SysexRule(options.sysex))
        port = SocketPort(link, make_inbox(options.max_inbox), owner)
        port._open_for_itself(open_hub(loop, release_notes=options.release_notes))
        ports.append(port)
        return port

    # Each goes by the number of the other, as it would by the other's address.
    first, second = [MemoryTransport(loop, ("pair", number), options.send_buffer) for number in (2, 1)]
    first.join(Link(loop, options, made), second)
    second.join(Link(loop, options, made), first)
    return ports[0], ports[1]
