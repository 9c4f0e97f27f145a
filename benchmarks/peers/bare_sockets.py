"""Sockets alone, without a look at the bytes.

echo and relay show what the system and the load cost by themselves. Two more roles are the other end of a
client that is measured: `flood` answers the marker with a burst of messages, and `sink` reads everything
and answers the marker with one message.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable

from .. import streams
from . import process


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


role = process.begin("echo", "relay", "flood", "sink")
with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
    process.ready(listener.getsockname()[1])
    if role in ("flood", "sink"):
        burst = b"".join(streams.played_frames(streams.BURST if role == "flood" else 1))
        one_by_one(listener, lambda client: answer(client, burst))
    else:
        all_at_once(listener, role)
