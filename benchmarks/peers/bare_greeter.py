"""Sockets alone for a crowd: whoever comes is sent a message, and what the first says is sent to all others.

It shows what accepting and sending cost by themselves. Who has gone is found when sending fails.
"""

from __future__ import annotations

import selectors
import socket

from . import process

_GREETING = b"\xb0\x07\x64"


def serve(listener: socket.socket) -> None:
    clients: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    client, _ = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if clients:
                        client.sendall(_GREETING)
                    else:
                        selector.register(client, selectors.EVENT_READ)
                    clients.append(client)
                    continue
                data = clients[0].recv(65536)
                if not data:
                    return
                gone = [client for client in clients[1:] if not _send(client, data)]
                for client in gone:
                    clients.remove(client)
                    client.close()


def _send(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
    except ConnectionError:
        return False
    return True


process.begin("relay")
with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
    process.ready(listener.getsockname()[1])
    serve(listener)
