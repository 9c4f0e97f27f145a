"""A crowd of idle clients: they connect, and from then on only listen.

A connection that the system has made is not one that the server has taken, so each client is in when it has
been told something: what a snapshot has for it, or the answer to what it says first. So many are on their way
in at once as fit in a server's backlog; beyond that the system would have each wait a second.
"""

from __future__ import annotations

import gc
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

from .crowd import PATIENCE_S, Connections, connect
from .protocols import MIDI, Protocol

_READ_BYTES = 4096

# Connections that wait to be accepted. Half of what midinet's backlog and most others have room for.
_ON_THE_WAY = 500


class Idlers(Connections):
    """Clients that listen.

    Args:
        portno: where the server listens.
        count: how many.
        protocol: how it is spoken to. It has to tell each that it is in.

    Attributes:
        seconds: from the first connecting to the last being in.
    """

    def __init__(self, portno: int, count: int, protocol: Protocol = MIDI) -> None:
        self._portno = portno
        self.count = count
        self._protocol = protocol
        self.seconds = 0.0

    def _open(self, resources: ExitStack) -> None:
        self._selector = resources.enter_context(selectors.DefaultSelector())
        # Looking for garbage among thousands of sockets that are kept would be the load's own pause.
        gc.disable()
        try:
            self._come(resources)
        finally:
            gc.enable()

    def _come(self, resources: ExitStack) -> None:
        protocol = self._protocol
        inside: set[int] = set()
        answers: dict[int, bytes] = {}
        come = 0
        start = last = time.perf_counter()
        while len(inside) < self.count:
            while come < self.count and come - len(inside) < _ON_THE_WAY:
                sock = resources.enter_context(connect(self._portno))
                if protocol.subscribe:
                    sock.sendall(protocol.subscribe)
                self._selector.register(sock, selectors.EVENT_READ, come)
                come += 1
            for number, data in self._read():
                last = time.perf_counter()
                answers[number] = answers.get(number, b"") + data
                if answers[number].endswith(protocol.subscribed):
                    inside.add(number)
            if time.perf_counter() - last > PATIENCE_S:
                raise TimeoutError(f"{self.count - len(inside):,} of the clients are not let in")
        self.seconds = last - start

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """Read what there is, and tell whose it is."""
        for key, _ in self._selector.select(0):
            sock = cast(socket.socket, key.fileobj)
            data = sock.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the server closed a connection")
            yield key.data, data

    def tell(self, sender: socket.socket, frame: bytes) -> float:
        """Send a message, wait until all have heard it, and return the seconds from the one to the other.

        Raises:
            TimeoutError: somebody does not hear it.
            ConnectionError: somebody hears something else.
        """
        delivery, aside = self._protocol.delivery(frame), self._protocol.aside
        heard: dict[int, bytes] = {}
        told: set[int] = set()
        start = last = time.perf_counter()
        sender.sendall(self._protocol.publication(frame))
        while len(told) < self.count:
            for number, data in self._read():
                if data != delivery:
                    if aside and not (data := data.replace(aside, b"")):
                        continue
                    data = heard[number] = heard.get(number, b"") + data
                if data == delivery and number not in told:
                    told.add(number)
                    last = time.perf_counter()
                elif number in told or not delivery.startswith(data):
                    raise ConnectionError(f"a client was sent {data!r} too")
            if time.perf_counter() - last > PATIENCE_S:
                raise TimeoutError(f"{self.count - len(told):,} of the clients do not hear a message")
        return last - start
