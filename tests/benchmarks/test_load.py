"""The load tells what a server does from what it should do, in every protocol."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks import load
from benchmarks.load import Load, Result
from benchmarks.protocols import MIDI, MQTT, NATS, WEBSOCKET, Protocol
from tests.harness.proxy import FaultyProxy
from tests.harness.relay import relay
from tests.harness.waiting import PATIENCE_S

SUBSCRIBERS = 2
COUNT = 200

# A tune request, after which a run begins.
MARKER = b"\xf6"

# The message with which a server does something else than with the others.
ODD = 100

# Takes what a message is delivered by, returns what a server sends instead.
Change = Callable[[bytes], bytes]

in_every_protocol = pytest.mark.parametrize(
    "protocol", [MIDI, NATS, MQTT, WEBSOCKET], ids=["midi", "nats", "mqtt", "websocket"]
)


@contextmanager
def broker(protocol: Protocol, change: Change) -> Iterator[int]:
    """Serve one load in a thread. Gives the port number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        errors: list[BaseException] = []
        thread = threading.Thread(target=serve, args=[listener, protocol, change, errors])
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(PATIENCE_S)
        assert errors == []


def serve(listener: socket.socket, protocol: Protocol, change: Change, errors: list[BaseException]) -> None:
    try:
        with ExitStack() as socks:
            *subscribers, publisher = [
                socks.enter_context(listener.accept()[0]) for _ in range(SUBSCRIBERS + 1)
            ]
            for sock in subscribers:
                greet(sock, protocol.subscribe, protocol.subscribed)
            greet(publisher, protocol.publish, protocol.publishing)
            number = None
            for frame in published(publisher, protocol):
                # It counts from the end of what comes first.
                number = 0 if frame == MARKER else None if number is None else number + 1
                data = protocol.delivery(frame)
                for sock in subscribers:
                    sock.sendall(change(data) if number == ODD else data)
    except BaseException as error:
        errors.append(error)


def greet(sock: socket.socket, greeting: bytes, answer: bytes) -> None:
    heard = b""
    while len(heard) < len(greeting):
        heard += sock.recv(len(greeting) - len(heard))
    assert heard == greeting
    sock.sendall(b"what comes first" * bool(answer) + answer)


def published(sock: socket.socket, protocol: Protocol) -> Iterator[bytes]:
    sock.settimeout(PATIENCE_S)
    marker, other = (protocol.publication(frame) for frame in (MARKER, b"\xff\xff\xff"))
    at = other.index(b"\xff\xff\xff")
    data = b""
    while True:
        while data.startswith(marker) or len(data) >= len(other):
            if data.startswith(marker):
                yield MARKER
                data = data[len(marker) :]
            else:
                yield data[at : at + 3]
                data = data[len(other) :]
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            return
        if not more:
            return
        data += more


@in_every_protocol
def test_what_is_delivered_is_counted_and_nothing_is_lost_or_wrong(protocol: Protocol) -> None:
    with broker(protocol, lambda data: data) as portno, Load(portno, SUBSCRIBERS, protocol) as running:
        fast = running.saturate(seconds=0.01, window=64, batch=16)
        paced = running.pace(count=COUNT, rate=100_000)

    for result in (fast, paced):
        assert result.deliveries == SUBSCRIBERS * result.published > 0
        assert (result.lost, result.wrong) == (0, 0)
    assert paced.published == COUNT
    assert len(paced.latencies) == SUBSCRIBERS * COUNT
    assert min(paced.latencies) > 0


@in_every_protocol
def test_what_is_altered_is_wrong(protocol: Protocol) -> None:
    def alter(data: bytes) -> bytes:
        return data.translate(bytes(byte ^ 1 for byte in range(256)))

    with broker(protocol, alter) as portno, Load(portno, SUBSCRIBERS, protocol) as running:
        result = running.pace(count=COUNT, rate=100_000)

    assert (result.lost, result.wrong) == (0, 1)


# It waits for a second of silence.
@pytest.mark.full
@in_every_protocol
def test_what_does_not_come_is_lost(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than the server's thread is ever kept from its turn: what comes behind what is lost is not.
    monkeypatch.setattr(load, "_MAX_SILENCE_S", 1.0)
    with broker(protocol, lambda data: b"") as portno, Load(portno, SUBSCRIBERS, protocol) as running:
        result = running.pace(count=COUNT, rate=100_000)

    assert result.lost == SUBSCRIBERS
    assert result.wrong > 0


def test_what_a_server_says_besides_is_neither_lost_nor_wrong() -> None:
    with (
        broker(NATS, lambda data: NATS.aside + data) as portno,
        Load(portno, SUBSCRIBERS, NATS) as running,
    ):
        paced = running.pace(count=COUNT, rate=100_000)
        fast = running.saturate(seconds=0.01, window=64, batch=16)

    for result in (fast, paced):
        assert result.deliveries == SUBSCRIBERS * result.published > ODD
        assert (result.lost, result.wrong) == (0, 0)


async def test_subscribers_are_spread_over_servers_that_are_joined() -> None:
    def measure(portno: int, far: int) -> Result:
        with Load(portno, 3, others=[far]) as running:
            return running.pace(count=COUNT, rate=100_000)

    with relay() as portno:
        async with FaultyProxy(portno) as proxy:
            proxy.to_client.delay_s = 0.02
            result = await asyncio.to_thread(measure, portno, proxy.portno)

    assert (result.lost, result.wrong) == (0, 0)
    first, _, third = map(min, result.latencies_by_subscriber)
    assert min(first, third) >= 0.02


def test_a_server_that_ends_a_connection_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ending = threading.Thread(target=lambda: listener.accept()[0].close())
        ending.start()
        running = Load(listener.getsockname()[1], 1, NATS)
        with pytest.raises(ConnectionError):
            running.__enter__()
        ending.join(PATIENCE_S)
