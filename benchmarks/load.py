"""The load of the fan-out benchmark: one publisher and many subscribers on bare sockets.

It has to be much cheaper than the servers it measures, so it parses nothing: every message is 3 bytes, and
what a subscriber has received is a number of bytes. The bytes of the first subscriber are compared with
what was published. One thread does everything and never sleeps, which is why it has a core to itself.

The publisher is never more than a window of messages ahead of the slowest subscriber. So a slow server is
measured at its own speed instead of being buried.
"""

from __future__ import annotations

import selectors
import socket
import time
from array import array
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from . import streams

if TYPE_CHECKING:
    from typing import Self

FRAME_BYTES = 3

# Messages, published over and over in this order.
_RING_FRAMES = 65536
_READ_BYTES = 65536

# Seconds until everybody is connected, and without any delivery at the end, before it is given up.
_MAX_CONNECT_S = 20.0
_MAX_SILENCE_S = 5.0

# Stands for the publisher where subscribers have numbers.
_PUBLISHER = -1

_PROBE = b"\x80\x00\x00"


@dataclass
class Result:
    """What came of one run."""

    published: int = 0
    deliveries: int = 0
    """Messages that reached a subscriber."""
    lost: int = 0
    """Messages that did not reach a subscriber."""
    wrong: int = 0
    """Reads of the first subscriber that were not what had been published."""
    seconds: float = 0.0
    """From the first message published to the last delivery."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Seconds from the publisher's write to the subscriber's read, for every delivery of a paced run."""


class Load:
    """A publisher and its subscribers, connected to a server.

    Args:
        portno: where the server listens.
        subscribers: how many.
    """

    def __init__(self, portno: int, subscribers: int) -> None:
        self._portno = portno
        self._count = subscribers
        self._ring = b"".join(streams.played_frames(_RING_FRAMES))
        self._buffer = bytearray(_READ_BYTES)
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._selector = resources.enter_context(selectors.DefaultSelector())
            self._subscribers = [resources.enter_context(_connect(self._portno)) for _ in range(self._count)]
            self._publisher = resources.enter_context(_connect(self._portno))
            self._wait_for_all()
            for number, sock in enumerate(self._subscribers):
                self._selector.register(sock, selectors.EVENT_READ, number)
            self._selector.register(self._publisher, selectors.EVENT_READ, _PUBLISHER)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _wait_for_all(self) -> None:
        """Publish until every subscriber hears it, then a marker, and read up to that."""
        end = time.perf_counter() + _MAX_CONNECT_S
        tails = [b""] * len(self._subscribers)
        while not all(tails):
            self._publisher.sendall(_PROBE)
            time.sleep(0.01)
            self._read_tails(tails, end)
        self._publisher.sendall(streams.MARKER)
        while not all(tail.endswith(streams.MARKER) for tail in tails):
            time.sleep(0.001)
            self._read_tails(tails, end)

    def _read_tails(self, tails: list[bytes], end: float) -> None:
        if time.perf_counter() > end:
            raise TimeoutError("the server does not serve all subscribers")
        self._drain_publisher()
        for number, sock in enumerate(self._subscribers):
            try:
                tails[number] = (tails[number] + sock.recv(_READ_BYTES))[-len(streams.MARKER) :]
            except BlockingIOError:
                pass

    def _drain_publisher(self) -> None:
        # A server may send everybody what it gets, the publisher too.
        try:
            while self._publisher.recv_into(self._buffer):
                pass
        except BlockingIOError:
            return
        raise ConnectionError("the server closed the publisher's connection")

    def saturate(self, *, seconds: float, window: int, batch: int) -> Result:
        """Publish as fast as the server delivers.

        Args:
            seconds: how long to publish.
            window: how many messages to be ahead of the slowest subscriber at most.
            batch: how many messages to write at once.
        """
        result = Result()
        received = [0] * len(self._subscribers)
        step = batch * FRAME_BYTES
        # Bytes of whole batches, so that none goes over the end of the ring.
        ring_bytes = len(self._ring) // step * step
        sent = slowest = 0
        start = last = time.perf_counter()
        publishing = True
        while publishing or slowest < sent:
            # Batch by batch until the window is full, whatever the subscribers have to say: what a server
            # finds waiting for it must not depend on how long the load took to read.
            while publishing and sent - slowest <= (window - batch) * FRAME_BYTES:
                at = sent % ring_bytes
                size = self._write(self._ring[at : at + step - sent % step])
                if not size:
                    break
                sent += size
            now = time.perf_counter()
            # A batch that is only half out has to be finished.
            publishing = now - start < seconds or sent % step != 0
            if self._read(received, ring_bytes, result):
                last = now
                slowest = min(received)
            elif now - last > _MAX_SILENCE_S:
                break
        return self._finish(result, received, sent, last - start)

    def pace(self, *, count: int, rate: float) -> Result:
        """Publish a message at a time, at times of a clock.

        Args:
            count: messages.
            rate: messages a second.
        """
        result = Result()
        received = [0] * len(self._subscribers)
        counted = [0] * len(self._subscribers)
        written: list[float] = []
        total = count * FRAME_BYTES
        sent = 0
        start = last = time.perf_counter()
        while sent < total or min(received) < sent:
            now = time.perf_counter()
            if sent < total and (now - start) * rate >= sent // FRAME_BYTES:
                if sent % FRAME_BYTES == 0:
                    written.append(now)
                at = sent % len(self._ring)
                sent += self._write(self._ring[at : at + FRAME_BYTES - sent % FRAME_BYTES])
            for number in self._read(received, len(self._ring), result):
                last = time.perf_counter()
                whole = received[number] // FRAME_BYTES
                for frame in range(counted[number], whole):
                    result.latencies.append(last - written[frame])
                counted[number] = whole
            if now - last > _MAX_SILENCE_S:
                break
        return self._finish(result, received, sent, last - start)

    def _write(self, data: bytes) -> int:
        try:
            return self._publisher.send(data)
        except BlockingIOError:
            return 0

    def _read(self, received: list[int], ring_bytes: int, result: Result) -> list[int]:
        """Read every subscriber that has something. Returns which had."""
        numbers = []
        for key, _ in self._selector.select(0):
            number: int = key.data
            if number == _PUBLISHER:
                self._drain_publisher()
                continue
            size = self._subscribers[number].recv_into(self._buffer)
            if not size:
                raise ConnectionError("the server closed a connection")
            if number == 0:
                self._check(received[0] % ring_bytes, size, ring_bytes, result)
            received[number] += size
            numbers.append(number)
        return numbers

    def _check(self, at: int, size: int, ring_bytes: int, result: Result) -> None:
        first = min(size, ring_bytes - at)
        if (
            self._buffer[:first] != self._ring[at : at + first]
            or self._buffer[first:size] != self._ring[: size - first]
        ):
            result.wrong += 1

    def _finish(self, result: Result, received: list[int], sent: int, seconds: float) -> Result:
        result.published = sent // FRAME_BYTES
        result.deliveries = sum(received) // FRAME_BYTES
        result.lost = result.published * len(received) - result.deliveries
        result.seconds = seconds
        return result


def _connect(portno: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", portno), timeout=_MAX_CONNECT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock
