"""The load of the fan-out benchmark: one publisher and many subscribers on bare sockets.

It has to be much cheaper than the servers it measures, so it parses nothing: every message is 3 bytes, what
publishes it is made beforehand, and what a subscriber has received is a number of bytes. What the first
subscriber receives is compared with what was published, byte by byte. One thread does everything and never
sleeps, which is why it has a core to itself. Nearly all of its time is the system's, for sending and reading:
a thread or process more would only share that core.

The publisher is never more than a window of messages ahead of the slowest subscriber. So a slow server is
measured at its own speed instead of being buried.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

from . import streams
from .crowd import Connections
from .protocols import MIDI, Protocol

if TYPE_CHECKING:
    from .runner import Benchmark

# Messages, published over and over in this order.
_RING_FRAMES = 65536
_READ_BYTES = 65536

# Seconds until everybody is connected, and without any delivery at the end, before it is given up.
_MAX_CONNECT_S = 20.0
_MAX_SILENCE_S = 5.0

_PROBE = b"\x80\x00\x00"

# After this, nothing that was published before is still under way. A tune request is in no stream of these
# benchmarks, and in no snapshot of a server that was played to before.
_MARKER = b"\xf6"


def add_sizes(benchmark: Benchmark) -> None:
    """Give a benchmark the options of `Load.saturate`."""
    benchmark.size("seconds", 1.0, 0.02, "how long to publish at a time")
    benchmark.size("window", 2_000, 200, "messages ahead of the slowest subscriber")
    benchmark.size("batch", 16, 16, "messages in one write at full speed")


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
    latencies_by_subscriber: list[array[float]] = field(default_factory=list)
    """Seconds from the publisher's write to the subscriber's read, for every delivery of a paced run."""

    @property
    def speed(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> int:
        """What was lost or wrong."""
        return self.lost + self.wrong

    @property
    def latencies(self) -> array[float]:
        """Those of all subscribers."""
        return array("d", chain.from_iterable(self.latencies_by_subscriber))


class Load(Connections):
    """A publisher and its subscribers, connected to a server.

    Args:
        portno: where the server listens.
        subscribers: how many.
        protocol: how the server is spoken to.
        others: where the servers listen that are joined with it. The subscribers are spread over all of them,
            the first of these first, and the publisher is at none of these.
    """

    def __init__(
        self, portno: int, subscribers: int, protocol: Protocol = MIDI, *, others: Sequence[int] = ()
    ) -> None:
        self._portno = portno
        self._portnos = list(islice(cycle([*others, portno]), subscribers))
        self._count = subscribers
        self._protocol = protocol
        frames = streams.played_frames(_RING_FRAMES)
        self._publications = b"".join(map(protocol.publication, frames))
        self._deliveries = b"".join(map(protocol.delivery, frames))
        # Bytes of one message.
        self._published_bytes = len(self._publications) // _RING_FRAMES
        self._delivered_bytes = len(self._deliveries) // _RING_FRAMES
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def _open(self, resources: ExitStack) -> None:
        protocol = self._protocol
        self._selector = resources.enter_context(selectors.DefaultSelector())
        self._subscribers = [resources.enter_context(_connect(portno)) for portno in self._portnos]
        self._publisher = resources.enter_context(_connect(self._portno))
        _greet(self._subscribers, protocol.subscribe, protocol.subscribed)
        _greet([self._publisher], protocol.publish, protocol.publishing)
        for number, sock in enumerate([*self._subscribers, self._publisher]):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, number)
        self._readers = [sock.recv_into for sock in self._subscribers]

    def saturate(self, *, seconds: float, window: int, batch: int) -> Result:
        """Publish as fast as the server delivers.

        Args:
            seconds: how long to publish.
            window: how many messages to be ahead of the slowest subscriber at most.
            batch: how many messages to write at once.
        """
        # Whole batches, so that none goes over the end of the ring.
        frames = _RING_FRAMES // batch * batch
        self._begin(frames)
        ring, end = self._publications, frames * self._published_bytes
        step, most = batch * self._published_bytes, (window - batch) * self._published_bytes
        send, clock = self._publisher.send, time.perf_counter
        sent = at = 0
        start = last = clock()
        publishing = True
        while publishing or self._slowest * self._published_bytes < sent:
            # Batch by batch until the window is full, whatever the subscribers have to say: what a server
            # finds waiting for it must not depend on how long the load took to read.
            if publishing:
                room = self._slowest * self._published_bytes + most
                try:
                    while sent <= room:
                        size = send(ring[at : at + step - sent % step])
                        sent += size
                        at = (at + size) % end
                except BlockingIOError:
                    pass
            now = clock()
            # A batch that is only half out has to be finished.
            publishing = now - start < seconds or sent % step != 0
            if self._read():
                last = now
            elif now - last > _MAX_SILENCE_S:
                break
        return self._result(sent, last - start)

    def saturate_as(self, options: argparse.Namespace) -> Result:
        """Publish as fast as the server delivers, in the sizes of `add_sizes`."""
        window = max(options.window, options.batch)
        return self.saturate(seconds=options.seconds, window=window, batch=options.batch)

    def pace(self, *, count: int, rate: float) -> Result:
        """Publish a message at a time, at times of a clock.

        Args:
            count: messages.
            rate: messages a second.
        """
        self._begin(_RING_FRAMES)
        ring, step = self._publications, self._published_bytes
        clock = time.perf_counter
        latencies = [array("d") for _ in range(self._count)]
        counted = [0] * self._count
        written: list[float] = []
        sent = 0
        start = last = clock()
        while sent < count * step or self._slowest < count:
            now = clock()
            if sent < count * step and (now - start) * rate >= sent // step:
                if sent % step == 0:
                    written.append(now)
                at = sent % len(ring)
                try:
                    sent += self._publisher.send(ring[at : at + step - sent % step])
                except BlockingIOError:
                    pass
            for number in self._read():
                last = clock()
                whole = self._received[number] // self._delivered_bytes
                for frame in range(counted[number], whole):
                    latencies[number].append(last - written[frame])
                counted[number] = whole
            if now - last > _MAX_SILENCE_S:
                break
        return self._result(sent, last - start, latencies)

    def _begin(self, frames: int) -> None:
        """Have nothing under way, and nothing received of a run that publishes so many messages in a ring."""
        self._settle()
        self._received = [0] * self._count
        # Messages that every subscriber has received.
        self._slowest = 0
        self._wrong = 0
        self._compared = 0
        self._period = frames * self._delivered_bytes
        ring = self._deliveries[: self._period]
        # A read may begin at the ring's last byte.
        while len(ring) < self._period + _READ_BYTES:
            ring += ring[:_READ_BYTES]
        self._expected = ring

    def _result(self, sent: int, seconds: float, latencies: Sequence[array[float]] = ()) -> Result:
        published = sent // self._published_bytes
        # What a server says besides is less than a delivery.
        deliveries = sum(min(size // self._delivered_bytes, published) for size in self._received)
        lost = published * self._count - deliveries
        return Result(published, deliveries, lost, self._wrong, seconds, list(latencies))

    def _read(self) -> list[int]:
        """Read every subscriber that has something. Returns which had."""
        numbers = []
        received, readers, buffer = self._received, self._readers, self._buffer
        for key, _ in self._selector.select(0):
            number: int = key.data
            if number == self._count:
                self._drain_publisher()
                continue
            size = readers[number](buffer)
            if not size:
                raise ConnectionError("the server closed a connection")
            if number == 0:
                self._compare(size)
            received[number] += size
            numbers.append(number)
        if numbers:
            self._slowest = min(received) // self._delivered_bytes
        return numbers

    def _compare(self, size: int) -> None:
        """Compare what the first subscriber has just read with what comes next."""
        at = self._compared % self._period
        if not self._expected.startswith(self._buffer[:size], at):
            read = bytes(self._buffer[:size])
            if self._protocol.aside:
                read = read.replace(self._protocol.aside, b"")
            size = len(read)
            self._wrong += not self._expected.startswith(read, at)
        self._compared += size

    def _settle(self) -> None:
        """Publish until every subscriber hears it, then a marker, and read up to that."""
        publication, marker = self._protocol.publication, self._protocol.delivery(_MARKER)
        # Behind the marker there may be an aside.
        kept = len(marker) + len(self._protocol.aside)
        end = time.perf_counter() + _MAX_CONNECT_S
        tails = [b""] * self._count
        while not all(tails):
            self._publisher.sendall(publication(_PROBE))
            time.sleep(0.01)
            self._read_tails(tails, kept, end)
        self._publisher.sendall(publication(_MARKER))
        while not all(marker in tail for tail in tails):
            time.sleep(0.001)
            self._read_tails(tails, kept, end)

    def _read_tails(self, tails: list[bytes], kept: int, end: float) -> None:
        if time.perf_counter() > end:
            raise TimeoutError("the server does not serve all subscribers")
        self._drain_publisher()
        for number, sock in enumerate(self._subscribers):
            try:
                tails[number] = (tails[number] + sock.recv(_READ_BYTES))[-kept:]
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


def _connect(portno: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", portno), timeout=_MAX_CONNECT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _greet(socks: list[socket.socket], greeting: bytes, answer: bytes) -> None:
    """Say what comes first, and read up to the end of the answer."""
    for sock in socks:
        sock.sendall(greeting)
        heard = b""
        while not heard.endswith(answer):
            data = sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionError(f"the server ended a connection after {heard!r}")
            heard += data
