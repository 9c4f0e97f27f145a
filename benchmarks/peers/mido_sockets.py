"""mido.sockets: the loop of its documentation for many clients, with its body filled in.

mido's ports are asked in turn whether anything has come, and when nothing has, the loop sleeps as long as
mido itself does where it waits.
"""

from mido.ports import sleep
from mido.sockets import PortServer, SocketPort

from . import process


def serve(server: PortServer, role: str) -> None:
    clients: list[SocketPort] = []
    while True:
        idle = True
        client = server.accept(block=False)
        if client:
            idle = False
            clients.append(client)
        for client in clients:
            for message in client.iter_pending():
                idle = False
                for other in [client] if role == "echo" else clients:
                    if role == "echo" or other is not client:
                        send(other, message)
        clients = [client for client in clients if not client.closed]
        if idle:
            sleep()


def send(port: SocketPort, message: object) -> None:
    try:
        if not port.closed:
            port.send(message)
    except OSError:
        port.close()


role = process.begin("echo", "relay")
with PortServer("127.0.0.1", 0, backlog=1024) as server:
    # mido has no other way to tell which port number the system chose.
    process.ready(server._socket.getsockname()[1])
    serve(server, role)
