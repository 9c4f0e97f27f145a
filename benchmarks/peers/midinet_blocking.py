"""midinet.sync, one client after the other."""

from midinet.sync import PortServer

from . import process

process.begin("echo")
with PortServer("127.0.0.1", 0) as server:
    process.ready(server.addresses[0][1])
    while True:
        with server.accept() as port:
            for message in port:
                port.send(message)
