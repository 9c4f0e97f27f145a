"""Sockets alone, without a look at the bytes.

echo and relay show what the system and the load cost by themselves. Two more roles are the other end of a
client that is measured: `flood` answers the marker with a burst of messages, and `sink` reads everything
and answers the marker with one message. `greet` is a relay for a crowd: it says a word to each who comes, and
sends what the first says to all others; who has gone is found when sending fails.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from .. import streams
from . import process

_GREETING = b"\xb0\x07\x64"


def answer(client: socket.socket, burst: bytes) -> None:
    while data := client.recv(262144):
        if data.endswith(streams.MARKER):
            client.sendall(burst)


def one_by_one(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    while True:
        client, _ = listener.accept()
        with client:
            try:
                handle(client)
            except ConnectionError:
                pass


def greet_all(listener: socket.socket) -> None:
    first, _ = listener.accept()
    clients: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        for sock in (listener, first):
            selector.register(sock, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    client.sendall(_GREETING)
                    clients.append(client)
                elif data := first.recv(65536):
                    clients = [client for client in clients if sends(client, data)]
                else:
                    return


def sends(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
    except ConnectionError:
        client.close()
        return False
    return True


def all_at_once(listener: socket.socket, role: str) -> None:
    clients: set[socket.socket] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                client = key.fileobj
                assert isinstance(client, socket.socket)
                if client is listener:
                    client, _ = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(client, selectors.EVENT_READ)
                    clients.add(client)
                    continue
                try:
                    data = client.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    selector.unregister(client)
                    clients.discard(client)
                    client.close()
                    continue
                for other in [client] if role == "echo" else clients - {client}:
                    try:
                        other.sendall(data)
                    except ConnectionError:
                        pass  # Its own turn to be read tells the end.


role = process.begin("echo", "relay", "flood", "sink", "greet")
with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
    process.ready(listener.getsockname()[1])
    if role in ("flood", "sink"):
        burst = b"".join(streams.played_frames(streams.BURST if role == "flood" else 1))
        one_by_one(listener, lambda client: answer(client, burst))
    elif role == "greet":
        greet_all(listener)
    else:
        all_at_once(listener, role)
