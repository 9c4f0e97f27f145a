"""A peer that is nothing but a socket, to do what no port would."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

# Far beyond what anything here takes: a wait that is over is a failure.
PATIENCE_S = 10.0


class RawPeer:
    """A TCP connection by hand. Usable as `async with RawPeer(port number) as peer`.

    Args:
        portno: where to connect, on `host`.
        receive_buffer: the size of the system's receive buffer, in bytes; None is its default.
    """

    def __init__(self, portno: int, *, host: str = "127.0.0.1", receive_buffer: int | None = None) -> None:
        self.address = (host, portno)
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().sock_connect(self.sock, self.address)
        except BaseException:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end of the stream."""
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            while len(data) < count:
                more = await asyncio.get_running_loop().sock_recv(self.sock, min(count - len(data), 65536))
                if not more:
                    break
                data += more
        return data

    async def read_to_end(self) -> bytes:
        """Return everything up to the end of the stream."""
        return await self.read(1 << 40)

    def finish(self) -> None:
        """Say FIN, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection by a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def until(condition: object) -> None:
    """Let the loop turn until `condition()` is true."""
    assert callable(condition)
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  any condition, not only one that has an Event
            await asyncio.sleep(0.001)
