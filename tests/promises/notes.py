"""No note hangs: who heard a client that is gone gets note-offs at once.

It is measured from the moment at which the holder ends its connection, which is before the server can know
it, until the last listener has the last of what lets go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import midinet
from benchmarks import servers
from benchmarks.crowd import PATIENCE_S, Crowd, connect
from tests.promises.ends import reset
from tests.promises.finding import Finding

_BOUND_MS = 20.0

_KEYS = range(48, 58)
_STRUCK = b"".join(bytes((0x93, key, 100)) for key in _KEYS) + b"\xb3\x40\x7f\xe3\x00\x60"
# Note-offs, pedal up, bend centred: in which order is the server's choice.
_RELEASED = {bytes((0x83, key)) for key in _KEYS} | {b"\xb3\x40\x00", b"\xe3\x00\x40"}

# A process that holds what it is told to on standard input, until it is killed.
_HOLDER = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(bytes.fromhex(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""

End = Callable[[int], contextlib.AbstractContextManager[Callable[[], None]]]


@contextlib.contextmanager
def _by_socket(portno: int, end: Callable[[socket.socket], None]) -> Iterator[Callable[[], None]]:
    with connect(portno) as sock:
        sock.sendall(_STRUCK)
        yield lambda: end(sock)


@contextlib.contextmanager
def _by_kill(portno: int) -> Iterator[Callable[[], None]]:
    words = [sys.executable, "-S", "-I", "-c", _HOLDER, str(portno), _STRUCK.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process.kill
        finally:
            process.kill()


_ENDS: dict[str, End] = {
    "resets": lambda portno: _by_socket(portno, reset),
    "closes": lambda portno: _by_socket(portno, socket.socket.close),
    "is killed": _by_kill,
}


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    with servers.start("midinet_hub", "relay", options.cores) as server:
        for listeners in options.listeners:
            with Crowd(server.portno, listeners) as crowd, connect(server.portno) as sender:
                crowd.settle(sender)
                for name, end in _ENDS.items():
                    taken = [_release_ms(server.portno, crowd, end) for _ in range(options.repeats)]
                    yield Finding(f"note-offs when a client {name}, {listeners} listening", _BOUND_MS, taken)
    taken = [asyncio.run(_server_killed_ms(options)) for _ in range(options.rounds)]
    yield Finding("note-offs in a client whose server is killed", _BOUND_MS, taken)


def _release_ms(portno: int, crowd: Crowd, end: End) -> float:
    with end(portno) as go:
        crowd.wait(lambda: all(len(heard) == len(_STRUCK) for heard in crowd.heard), what="the notes")
        crowd.forget()
        start = time.perf_counter()
        go()
        size = 3 * len(_RELEASED)
        crowd.wait(lambda: all(len(heard) >= size for heard in crowd.heard), what="the note-offs")
    for heard in crowd.heard:
        _check([bytes(heard[at : at + 3]) for at in range(0, len(heard), 3)])
    taken = (max(crowd.heard_at) - start) * 1e3
    crowd.forget()
    return taken


def _check(frames: list[bytes]) -> None:
    # The velocity of a note-off is anybody's choice.
    said = {frame[:2] if frame[0] & 0xF0 == 0x80 else frame for frame in frames}
    if said != _RELEASED:
        raise AssertionError(f"released is {sorted(said)}")


async def _server_killed_ms(options: argparse.Namespace) -> float:
    with servers.start("midinet_hub", "relay", options.cores) as server:
        async with midinet.connect("127.0.0.1", server.portno) as port:
            with connect(server.portno) as holder, Crowd(server.portno, 1) as crowd:
                crowd.settle(holder)
                holder.sendall(_STRUCK)
                heard = b""
                while not heard.endswith(_STRUCK):
                    message = await asyncio.wait_for(port.receive(), PATIENCE_S)
                    heard += bytes(message.bin())
                start = time.perf_counter()
                os.kill(server.pid, signal.SIGKILL)
                frames = []
                try:
                    while True:
                        message = await asyncio.wait_for(port.receive(), PATIENCE_S)
                        frames.append(bytes(message.bin()))
                        if len(frames) == len(_RELEASED):
                            taken = time.perf_counter() - start
                except (midinet.ConnectionLost, midinet.PortClosed):
                    pass
                _check(frames)
                return taken * 1e3
