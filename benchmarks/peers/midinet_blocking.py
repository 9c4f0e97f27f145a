"""midinet.sync, one client after the other."""

from midinet.sync import PortServer

from . import process

process.begin("echo")
# What lets go of a client's notes comes when it has gone: too late for an echo.
with PortServer("127.0.0.1", 0, release_notes=False) as server:
    process.ready(server.addresses[0][1])
    while True:
        with server.accept() as port:
            for message in port:
                port.send(message)
