"""Round trips by each kind of client: send a message to an echo server, read until it is back.

A client sends when its next pause is over, not before the last answer is in. The pauses are not all of one
length, since a server that polls would otherwise be met at the same point of its sleep every time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from random import Random

import mido
import mido.sockets

import midinet
import midinet.sync

from .runner import bounded

# Round trips before the first that counts.
_WARM_UP = 20

_MESSAGE = mido.Message("note_on", channel=3, note=60, velocity=64)

Client = Callable[[int, Sequence[float]], list[float]]


def pauses(count: int, rate: float) -> list[float]:
    """Return seconds to wait before each of so many messages, which make up a rate in messages a second."""
    random = Random(4)
    return [random.uniform(0.5, 1.5) / rate for _ in range(count)]


def round_trips(client: Client, portno: int, waits: Sequence[float]) -> list[float]:
    """Let a client make its round trips.

    Args:
        client: one of this module's.
        portno: where the echo server listens.
        waits: the pause before each message, in seconds.

    Returns:
        How long each took, in seconds.
    """
    with bounded():
        return client(portno, [0.0] * _WARM_UP + list(waits))[_WARM_UP:]


def midinet_async(portno: int, waits: Sequence[float]) -> list[float]:
    """midinet's own client."""
    return asyncio.run(_midinet_async(portno, waits))


async def _midinet_async(portno: int, waits: Sequence[float]) -> list[float]:
    taken = []
    # What lets go of the last note would be echoed to nobody, and the echo servers have no word for that.
    async with midinet.connect("127.0.0.1", portno, release_notes=False) as port:
        for wait in waits:
            await asyncio.sleep(wait)
            start = time.perf_counter()
            await port.send(_MESSAGE)
            await port.receive()
            taken.append(time.perf_counter() - start)
    return taken


def midinet_sync(portno: int, waits: Sequence[float]) -> list[float]:
    """midinet's blocking client."""
    with midinet.sync.connect("127.0.0.1", portno, release_notes=False) as port:
        return _blocking(port, waits)


def mido_sockets(portno: int, waits: Sequence[float]) -> list[float]:
    """mido's client."""
    with mido.sockets.connect("127.0.0.1", portno) as port:
        return _blocking(port, waits)


def _blocking(port: mido.ports.BaseIOPort, waits: Sequence[float]) -> list[float]:
    taken = []
    for wait in waits:
        time.sleep(wait)
        start = time.perf_counter()
        port.send(_MESSAGE)
        port.receive()
        taken.append(time.perf_counter() - start)
    return taken


def asyncio_streams(portno: int, waits: Sequence[float]) -> list[float]:
    """asyncio's streams with mido's Parser."""
    return asyncio.run(_asyncio_streams(portno, waits))


async def _asyncio_streams(portno: int, waits: Sequence[float]) -> list[float]:
    taken = []
    parser = mido.Parser()
    reader, writer = await asyncio.open_connection("127.0.0.1", portno)
    for wait in waits:
        await asyncio.sleep(wait)
        start = time.perf_counter()
        writer.write(_MESSAGE.bin())
        while not parser.pending():
            parser.feed(await reader.read(65536))
        parser.get_message()
        taken.append(time.perf_counter() - start)
    writer.close()
    await writer.wait_closed()
    return taken


def bare_socket(portno: int, waits: Sequence[float]) -> list[float]:
    """A blocking socket that only counts bytes: what the server and the system take by themselves."""
    taken = []
    frame = bytes(_MESSAGE.bin())
    with socket.create_connection(("127.0.0.1", portno)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for wait in waits:
            time.sleep(wait)
            start = time.perf_counter()
            sock.sendall(frame)
            missing = len(frame)
            while missing:
                missing -= len(sock.recv(missing))
            taken.append(time.perf_counter() - start)
    return taken
