"""A relay in a thread, on bare sockets, which does wrong what a test tells it to."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

# Takes what was read, whose it is and who is to hear it, numbered as they came. Returns what is sent.
Pass = Callable[[bytes, int, int], bytes]


def to_others(data: bytes, origin: int, listener: int) -> bytes:
    """As it should be: everybody hears all but itself."""
    return data if origin != listener else b""


@contextmanager
def relay(passes: Pass = to_others, *, greeting: bytes = b"") -> Iterator[int]:
    """Run a relay for the time of a block. Gives its port number.

    Args:
        passes: what it passes on.
        greeting: what it says to who comes, save the first.
    """
    ours, its = socket.socketpair()
    with ours, its, socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        thread = threading.Thread(target=_serve, args=[listener, its, passes, greeting])
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ours.close()
            thread.join()


def _serve(listener: socket.socket, end: socket.socket, passes: Pass, greeting: bytes) -> None:
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(end, selectors.EVENT_READ)
        clients: list[socket.socket] = []
        while True:
            for key, _ in selector.select():
                if key.fileobj is end:
                    return
                if key.fileobj is listener:
                    client = stack.enter_context(listener.accept()[0])
                    if clients:
                        client.sendall(greeting)
                    selector.register(client, selectors.EVENT_READ, len(clients))
                    clients.append(client)
                    continue
                origin = clients[key.data]
                if not (data := _read(origin)):
                    selector.unregister(origin)
                    continue
                for number, client in enumerate(clients):
                    _send(client, passes(data, key.data, number))


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except ConnectionError:
        pass  # It has gone, which reading it tells.
