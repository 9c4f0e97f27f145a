"""A peer that is nothing but a socket with TLS on it. It reads only when it is told to."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from tests.harness.raw import RawPeer

# Bytes. More than a TLS record has (RFC 8446 section 5.2).
_RECORD = 20_000


class TlsPeer:
    """A TLS client by hand, with a RawPeer under it: `async with TlsPeer(raw, context) as peer`.

    Args:
        raw: the connection, which has been made. It is closed with this.
        context: the client's.
        host: whose certificate is expected.
    """

    def __init__(self, raw: RawPeer, context: ssl.SSLContext, *, host: str = "localhost") -> None:
        self.raw = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    @property
    def sock(self) -> socket.socket:
        return self.raw.sock

    async def __aenter__(self) -> Self:
        await self.raw.__aenter__()
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._fill()
            await self._flush()
        except BaseException:
            self.sock.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), _RECORD):
            self._tls.write(data[at : at + _RECORD])
        await self._flush()

    async def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end of the stream."""
        data = bytearray()
        while len(data) < count:
            try:
                more = self._tls.read(min(count - len(data), _RECORD))
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not more:
                break
            data += more
        return bytes(data)

    def read_nowait(self, most: int) -> bytes:
        """Return what has come already, `most` bytes at most."""
        try:
            return self._tls.read(most)
        except ssl.SSLError:
            return b""

    async def read_to_end(self) -> bytes:
        """Return everything up to the end of the stream, and answer the other side's goodbye."""
        data = await self.read(1 << 40)
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError):
            pass
        try:
            await self._flush()
        except OSError:
            pass  # The other side has not waited for it.
        return data

    async def _fill(self) -> None:
        if data := await self.raw.read(1):
            # The rest of what is there already, a record at most.
            try:
                data += self.sock.recv(_RECORD)
            except BlockingIOError:
                pass
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self.raw.send(data)
