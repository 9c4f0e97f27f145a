"""Many peers on bare sockets in one thread, for what no port would do, and for when it happens.

A peer of a crowd reads whatever comes and remembers when; other sockets are made by `connect` and left alone.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

_READ_BYTES = 65536

# Seconds. A wait this long is over: what is measured takes far less, on a busy machine too.
PATIENCE_S = 20.0

_PROBE = b"\x80\x00\x00"

# After this, nothing that was sent before is still under way. A tune request is in no stream of these
# benchmarks, and in no snapshot.
_MARKER = b"\xf6"


def connect(portno: int, *, host: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    """Return a connected socket that does not block.

    Args:
        receive_buffer: the size of the system's receive buffer, in bytes; None is the system's choice.
    """
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.connect((host, portno))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def allow_descriptors(wanted: int) -> None:
    """Let this process, and those that it starts, have so many descriptors, as far as the system permits."""
    import resource  # Not on Windows.

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def send_some(sock: socket.socket, data: bytes) -> int:
    """Send what the system takes of the data. Returns how many bytes that was."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


class Connections:
    """Connections, for the time of a block: a subclass opens them in `_open`, with all that they need."""

    _resources: ExitStack

    def _open(self, resources: ExitStack) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._open(resources)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()


class Crowd(Connections):
    """Peers that read all they get.

    Args:
        portno: where the server listens.
        count: how many.

    Attributes:
        heard: what each peer has been sent since `forget`.
        heard_at: when each was last sent something, by `time.perf_counter`.
        ended: the numbers of the peers whose connection is over.
    """

    def __init__(self, portno: int, count: int, *, host: str = "127.0.0.1") -> None:
        self._where = portno, host
        self.count = count
        self.heard = [bytearray() for _ in range(count)]
        self.heard_at = [0.0] * count
        self.ended: set[int] = set()
        self.socks: list[socket.socket] = []

    def _open(self, resources: ExitStack) -> None:
        portno, host = self._where
        self._selector = resources.enter_context(selectors.DefaultSelector())
        for number in range(self.count):
            self.socks.append(resources.enter_context(connect(portno, host=host)))
            self._selector.register(self.socks[-1], selectors.EVENT_READ, number)

    def read(self, seconds: float = 0.0) -> None:
        """Read what is there, after waiting for so many seconds at most until there is something."""
        for key, _ in self._selector.select(seconds):
            number: int = key.data
            sock = self.socks[number]
            try:
                data = sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            if data:
                self.heard[number] += data
                self.heard_at[number] = time.perf_counter()
            else:
                self._selector.unregister(sock)
                self.ended.add(number)

    def wait(self, condition: Callable[[], bool], *, seconds: float = PATIENCE_S, what: str) -> None:
        """Read until a condition holds.

        Raises:
            TimeoutError: it does not; the text says `what` did not happen.
        """
        end = time.perf_counter() + seconds
        while not condition():
            if time.perf_counter() > end:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            self.read(0.01)

    def forget(self) -> None:
        """Forget what was heard."""
        for heard in self.heard:
            heard.clear()

    def settle(self, sender: socket.socket) -> None:
        """Have a sender heard by all, so that all are in, and forget it."""
        end = time.perf_counter() + PATIENCE_S
        while not all(self.heard):
            if time.perf_counter() > end:
                raise TimeoutError("the server does not serve everybody")
            sender.sendall(_PROBE)
            self.read(0.01)
            drain(sender)
        self.tell(sender, b"")

    def tell(self, sender: socket.socket, data: bytes) -> None:
        """Send something, wait until all have heard it, and forget it."""
        sender.sendall(data + _MARKER)
        self.wait(lambda: all(heard.endswith(_MARKER) for heard in self.heard), what="everybody hears it")
        self.forget()


def drain(sock: socket.socket) -> bool:
    """Throw away what there is to read. Returns whether the connection goes on."""
    try:
        while data := sock.recv(_READ_BYTES):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return bool(data)
