"""Peers that are nothing but a socket, to do what no port would."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

from midinet.wire.aside import answer
from tests.harness.waiting import PATIENCE_S

# What a command says first that has no name and no token to show.
HELLO = b"\xf7MIDINET/1 HELLO\r\n\r\n"


def accept_command(listener: socket.socket, *, answers: bool = False) -> socket.socket:
    """Wait for a command to connect and say HELLO, which is read, and return the connection.

    Args:
        answers: answer it, as a midinet server does that lets everybody in.
    """
    connection, _ = listener.accept()
    connection.settimeout(PATIENCE_S)
    hello = connection.recv(len(HELLO), socket.MSG_WAITALL)
    assert hello == HELLO
    if answers:
        connection.sendall(answer(200))
    return connection


class RawPeer:
    """A TCP connection by hand. Usable as `async with RawPeer(port number) as peer`.

    It reads only when it is told to: a peer that never reads is one that is left alone.

    Args:
        portno: where to connect, on `host`.
        receive_buffer: the size of the system's receive buffer, in bytes; None is its default.
        sock: a connected socket to take over instead.
    """

    def __init__(
        self,
        portno: int = 0,
        *,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        self.address = (host, portno)
        self._connected = sock is not None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = sock if sock is not None else socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def __aenter__(self) -> Self:
        try:
            if not self._connected:
                await asyncio.get_running_loop().sock_connect(self.sock, self.address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.sock.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send_slowly(self, data: bytes, *, pause_s: float = 0.0) -> None:
        """Send one byte at a time, each as a segment of its own, with a pause in seconds after each."""
        for byte in data:
            await self.send(bytes([byte]))
            # Even with no pause the loop turns, so that a reader in this process can take the byte alone.
            await asyncio.sleep(pause_s)

    async def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end of the stream."""
        data = bytearray()
        async with asyncio.timeout(PATIENCE_S):
            while len(data) < count:
                more = await asyncio.get_running_loop().sock_recv(self.sock, min(count - len(data), 65536))
                if not more:
                    break
                data += more
        return bytes(data)

    def read_nowait(self, most: int) -> bytes:
        """Return what has come already, `most` bytes at most, and nothing at the end of the stream."""
        try:
            return self.sock.recv(most)
        except BlockingIOError:
            return b""

    async def read_to_end(self) -> bytes:
        """Return everything up to the end of the stream."""
        return await self.read(1 << 40)

    def finish(self) -> None:
        """Say FIN, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection by a reset."""
        reset(self.sock)


class RawListener:
    """A server by hand on 127.0.0.1: `async with RawListener() as listener`, then `await listener.accept()`.

    Args:
        receive_buffer: the size of each connection's receive buffer, in bytes; None is the system's default.
    """

    def __init__(self, *, receive_buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)

    async def __aenter__(self) -> Self:
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen()
        self.sock.setblocking(False)
        self.portno: int = self.sock.getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    async def accept(self) -> RawPeer:
        """Return the next connection, to be used as a block."""
        async with asyncio.timeout(PATIENCE_S):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        return RawPeer(sock=sock)


def reset(sock: socket.socket) -> None:
    """Close a socket by a reset: nothing lingers, and what was not yet delivered is dropped."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
