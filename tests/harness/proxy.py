"""A TCP proxy in this process that does to a connection what networks do: late, slow, in crumbs, stuck, cut.

Every setting is per direction and may be changed at any time. What it does not do is lose or reorder packets,
or let a host vanish: `two_hosts` does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from types import TracebackType
from typing import Literal, Self

from tests.harness.raw import reset

End = Literal["fin", "reset"]
Way = Literal["to_server", "to_client"]

# One read at most is held while a direction is stalled, so this bounds what slips in after the stall began.
MAX_READ = 16384
# What is on its way through a delay, in bytes; then reading stops.
MAX_IN_FLIGHT = 1 << 18


class Direction:
    """What is done to the bytes that go one way; of all connections alike.

    delay_s     how long each byte is kept, in seconds; what is on its way already keeps its delay
    rate        bytes a second, of each connection; None is as fast as it goes
    chunk       cut into pieces of so many bytes, each sent by itself; None sends what was read
    stalled     nothing is passed on and nothing is read, so that TCP pushes back to the sender
    passed      how many bytes were passed on so far
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.rate: float | None = None
        self.chunk: int | None = None
        self.passed = 0
        self.cut: tuple[int, End] | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()

    @property
    def stalled(self) -> bool:
        return not self.flowing.is_set()

    @stalled.setter
    def stalled(self, stalled: bool) -> None:
        (self.flowing.clear if stalled else self.flowing.set)()

    def next_piece(self, waiting: int) -> tuple[int, End | None]:
        """How many of the waiting bytes to send now, and how to end after them, if so."""
        size = min(waiting, self.chunk or waiting)
        if self.rate is not None:
            # A hundredth of a second's worth, so that the flow is even.
            size = min(size, max(1, int(self.rate / 100)))
        if self.cut is None:
            return size, None
        left, by = self.cut
        if size < left:
            self.cut = (left - size, by)
            return size, None
        self.cut = None
        return left, by


class _Line:
    """The bytes of a connection that are on their way in one direction, with the time when they are due."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = asyncio.Condition()

    async def put(self, due: float, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < MAX_IN_FLIGHT)
            self._pieces.append((due, data))
            self._size += len(data)
            self._changed.notify_all()

    async def get(self) -> tuple[float, bytes]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces)
            due, data = self._pieces.popleft()
            self._size -= len(data)
            self._changed.notify_all()
            return due, data


class _Connection:
    """A client's connection and the one to the server. All of its tasks belong to `run`."""

    def __init__(self, proxy: FaultyProxy, near: socket.socket) -> None:
        self._proxy = proxy
        self._near = near
        self._far = socket.socket()
        for sock in (self._near, self._far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _limit_buffers(self._far, proxy.buffer_size)
        self._directions_left = 2
        # Its result is how to end; None when both sides have finished by themselves.
        self._end_waiter: asyncio.Future[End | None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def end(self, by: End | None) -> None:
        if not self._end_waiter.done():
            self._end_waiter.set_result(by)

    def close(self) -> None:
        self._near.close()
        self._far.close()

    async def run(self) -> None:
        try:
            try:
                await asyncio.get_running_loop().sock_connect(self._far, self._proxy.target)
            except OSError:
                reset(self._near)
                return
            by = await self._pass_on()
            if by == "reset":
                reset(self._near)
                reset(self._far)
            elif by == "fin":
                for sock in (self._near, self._far):
                    _finish(sock)
            self.ended.set()
            if by == "fin":
                # A socket closed with bytes unread says reset, not FIN: so all is read until its sender ends.
                await asyncio.gather(_drain(self._near), _drain(self._far))
        finally:
            self.ended.set()
            self.close()

    async def _pass_on(self) -> End | None:
        there, back = self._proxy.to_server, self._proxy.to_client
        lines = _Line(), _Line()
        tasks = [
            asyncio.create_task(task, name=f"faulty proxy {name}")
            for name, task in (
                ("reads client", self._read(self._near, there, lines[0])),
                ("writes server", self._write(self._far, there, lines[0])),
                ("reads server", self._read(self._far, back, lines[1])),
                ("writes client", self._write(self._near, back, lines[1])),
            )
        ]
        for task in tasks:
            task.add_done_callback(self._end_by_error)
        try:
            return await self._end_waiter
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _end_by_error(self, task: asyncio.Task[None]) -> None:
        # What is no OSError is a fault of this file: it ends `run`, and the proxy's block raises it.
        if not task.cancelled() and (error := task.exception()) is not None and not self._end_waiter.done():
            self._end_waiter.set_exception(error)

    async def _read(self, sock: socket.socket, direction: Direction, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await direction.flowing.wait()
                data = await loop.sock_recv(sock, MAX_READ)
                await line.put(loop.time() + direction.delay_s, data)
                if not data:
                    return
        except OSError:
            self.end("reset")

    async def _write(self, sock: socket.socket, direction: Direction, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                due, data = await line.get()
                await asyncio.sleep(due - loop.time())
                await direction.flowing.wait()
                if not data:
                    _finish(sock)
                    self._directions_left -= 1
                    if not self._directions_left:
                        self.end(None)
                    return
                while data:
                    await direction.flowing.wait()
                    size, by = direction.next_piece(len(data))
                    await loop.sock_sendall(sock, data[:size])
                    direction.passed += size
                    data = data[size:]
                    if by is not None:
                        if by == "reset":
                            await _delivered(sock)
                        self._proxy.cuts += 1
                        self.end(by)
                        return
                    # With no rate the loop turns, so that a reader in this process can take the piece alone.
                    await asyncio.sleep(size / direction.rate if direction.rate is not None else 0)
        except OSError:
            self.end("reset")


class FaultyProxy:
    """Passes on connections to a server, and spoils them as told: `async with FaultyProxy(portno) as proxy`.

        proxy.portno                    where to connect, on 127.0.0.1
        proxy.to_server, .to_client     a Direction each
        proxy.connections               how many are open
        proxy.cuts                      how many were cut

    A FIN and a reset are passed on as they are, and a server that refuses shows as a reset.

    Args:
        target_portno: the server's port, on `host`.
        buffer_size: the system's buffers of each of the proxy's sockets, in bytes (64 KiB: small, so that a
            sender notices a stall soon; left to grow by themselves, they take megabytes first).
    """

    def __init__(self, target_portno: int, *, host: str = "127.0.0.1", buffer_size: int = 65536) -> None:
        self.target = (host, target_portno)
        self.buffer_size = buffer_size
        self.to_server = Direction()
        self.to_client = Direction()
        self.cuts = 0
        self._cut_next: End | None = None
        self._errors: list[BaseException] = []
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def __aenter__(self) -> Self:
        self._listener = socket.socket()
        _limit_buffers(self._listener, self.buffer_size)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self.portno: int = self._listener.getsockname()[1]
        # Not sock_accept: cancelled at the wrong moment, it forgets the connection that it has taken.
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        connections = dict(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for connection in connections.values():
            # A task that is cancelled before its first step has run nothing of its own.
            connection.close()
        if error is None and self._errors:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(self, near)
            if self._cut_next is not None:
                connection.end(self._cut_next)
                self._cut_next = None
                self.cuts += 1
            task = asyncio.create_task(connection.run(), name="faulty proxy connection")
            self._connections[task] = connection
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut_after(self, count: int, *, by: End = "fin", direction: Way = "to_server") -> None:
        """Let exactly `count` more bytes pass in a direction, then end both sides of their connection.

        It happens once, later connections pass. With 0, what is connected is cut now, or if nothing is, the
        next connection. The receiver of the bytes has them all before it sees the end: a reset waits until
        they arrived.
        """
        if count:
            (self.to_server if direction == "to_server" else self.to_client).cut = (count, by)
        elif not self._end_all(by):
            self._cut_next = by

    async def cut(self, *, by: End = "fin") -> None:
        """End both sides of every connection now, and return when that is done."""
        connections = self._end_all(by)
        await asyncio.gather(*(connection.ended.wait() for connection in connections))

    def _end_all(self, by: End) -> list[_Connection]:
        connections = [
            connection for connection in self._connections.values() if not connection.ended.is_set()
        ]
        for connection in connections:
            connection.end(by)
            self.cuts += 1
        return connections


def _limit_buffers(sock: socket.socket, size: int) -> None:
    # Before it is connected, or the window is wider than that; an accepted socket has what its listener has.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def _finish(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # It has ended already.


async def _drain(sock: socket.socket) -> None:
    try:
        while await asyncio.get_running_loop().sock_recv(sock, 65536):
            pass
    except OSError:
        pass


async def _delivered(sock: socket.socket) -> None:
    """Wait until the other side's system has everything that was sent: a reset drops what it has not."""
    while _undelivered(sock):  # noqa: ASYNC110  the system tells it only when asked
        await asyncio.sleep(0.001)


def _undelivered(sock: socket.socket) -> int:
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, 0x1024)  # SO_NWRITE
    if sys.platform == "win32":
        raise NotImplementedError("Windows does not tell how much is undelivered; cut by FIN there")
    import fcntl
    import termios

    # On a TCP socket of Linux: the bytes that are not acknowledged (tcp(7), SIOCOUTQ).
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
