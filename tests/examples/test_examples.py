"""The examples, run as programs against mido's own socket ports."""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mido.sockets
import pytest
from mido import Message

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("two_line_server", "client", "send_to_all", "listen", "accept", "accept_many", "stay_connected")

# Seconds that anything here is waited for: far more than it takes, for machines that are busy.
PATIENCE_S = 30.0

NOTE_ON = Message("note_on", note=60, velocity=100)
NOTE_OFF = Message("note_off", note=60)


class Program:
    """An example that runs, and the lines it prints."""

    def __init__(self, path: Path, address: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(path), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def line(self) -> str | None:
        """The next line it prints, or None at the end of its output."""
        return self._lines.get(timeout=PATIENCE_S)

    def wait(self) -> tuple[int, list[str]]:
        """Its exit status, once it has ended, and what else it printed."""
        status = self._process.wait(PATIENCE_S)
        rest: list[str] = []
        while (line := self.line()) is not None:
            rest.append(line)
        return status, rest

    def interrupt(self) -> tuple[int, list[str]]:
        """Press Ctrl-C, and wait for it to end."""
        if os.name == "nt":
            pytest.skip("Windows has no Ctrl-C for one process alone")
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def hang_up(port: Any) -> None:
    """Close a port of mido's for good: its own close() leaves the connection open."""
    port.close()
    port._rfile.close()
    port._wfile.close()
    port._socket.close()


def reset(port: Any) -> None:
    """Break the connection of a port of mido's."""
    port._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hang_up(port)


def until(found: Callable[[], Any]) -> Any:
    """Poll until there is something, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while (result := found()) is None:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.001)
    return result


def hear(port: Any, count: int) -> list[Message]:
    """Read so many messages from a port of mido's."""
    return [until(port.poll) for _ in range(count)]


def own_address(port: Any) -> str:
    host, portno = port._socket.getsockname()
    return f"{host}:{portno}"


class Stage:
    """What a test has started, ended with it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.portno: int = sock.getsockname()[1]

    def run(self, name: str) -> Program:
        """Start an example."""
        program = Program(self._directory / f"{name}.py", f"127.0.0.1:{self.portno}")
        self._stack.callback(program.end)
        return program

    def connect(self, program: Program) -> Any:
        """Connect a port of mido's to an example, as soon as that listens."""

        def try_to_connect() -> Any:
            try:
                return mido.sockets.connect("127.0.0.1", self.portno)
            except ConnectionRefusedError:
                assert program.running, program.wait()
                return None

        port = until(try_to_connect)
        self._stack.callback(hang_up, port)
        return port

    def listen(self) -> Any:
        """Open a server of mido's for an example to connect to."""
        server = mido.sockets.PortServer("127.0.0.1", self.portno)
        self._stack.callback(server.close)
        return server

    def accept(self, server: Any) -> Any:
        """Return the server's port for the example that connects to it."""
        port = until(lambda: server.accept(block=False))
        self._stack.callback(hang_up, port)
        return port


@pytest.fixture(params=["sync", "asyncio"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        # A shell starts its background jobs with Ctrl-C ignored, and their children inherit that.
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        yield Stage(EXAMPLES / request.param, stack)


def test_there_is_a_blocking_and_an_async_version_of_each() -> None:
    for directory in ("sync", "asyncio"):
        assert sorted(path.stem for path in (EXAMPLES / directory).glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/*.py")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_without_an_address_it_is_localhost_8080(path: Path) -> None:
    assert '"localhost:8080"' in path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_address_that_is_none_is_refused(stage: Stage, name: str) -> None:
    stage.portno = 0
    status, printed = stage.run(name).wait()
    assert status == 1
    assert "port must be between 1 and 65535" in printed[-1]


def test_two_line_server_prints_what_every_client_sends(stage: Stage) -> None:
    program = stage.run("two_line_server")
    first, second = stage.connect(program), stage.connect(program)
    for port, note in ((first, 60), (second, 61), (first, 62)):
        message = Message("note_on", note=note)
        port.send(message)
        assert program.line() == str(message)
    reset(second)
    # What lets go of what it held.
    assert program.line() == str(Message("note_off", note=61))
    for note in (60, 62):
        message = Message("note_off", note=note)
        first.send(message)
        assert program.line() == str(message)
    assert program.interrupt() == (0, [])


def test_client_plays_a_note_and_ends(stage: Stage) -> None:
    server = stage.listen()
    program = stage.run("client")
    assert hear(stage.accept(server), 2) == [NOTE_ON, NOTE_OFF]
    assert program.wait() == (0, [])


def test_send_to_all_plays_to_every_client(stage: Stage) -> None:
    program = stage.run("send_to_all")
    for port in (stage.connect(program), stage.connect(program)):
        notes = hear(port, 2)
        # Whoever comes in the middle of a note hears its end first.
        assert notes in ([NOTE_ON, NOTE_OFF], [NOTE_OFF, NOTE_ON])
    assert program.interrupt() == (0, [])


def test_listen_prints_what_it_hears_until_the_server_closes(stage: Stage) -> None:
    server = stage.listen()
    program = stage.run("listen")
    port = stage.accept(server)
    for message in (NOTE_ON, Message("sysex", data=range(128)), NOTE_OFF):
        port.send(message)
        assert program.line() == str(message)
    hang_up(port)
    assert program.wait() == (0, [])


def test_listen_ends_with_an_interrupt(stage: Stage) -> None:
    server = stage.listen()
    program = stage.run("listen")
    stage.accept(server).send(NOTE_ON)
    assert program.line() == str(NOTE_ON)
    assert program.interrupt() == (0, [])


@pytest.mark.parametrize("leave", [hang_up, reset])
def test_stay_connected_plays_on_when_its_server_is_back(stage: Stage, leave: Callable[[Any], None]) -> None:
    server = stage.listen()
    program = stage.run("stay_connected")
    for _ in range(3):
        port = stage.accept(server)
        heard = [message.type for message in hear(port, 3)]
        assert heard in (["note_on", "note_off", "note_on"], ["note_off", "note_on", "note_off"])
        leave(port)
    assert program.line() == f"127.0.0.1:{stage.portno} is connected"
    assert program.interrupt()[0] == 0


@pytest.mark.parametrize("leave", [hang_up, reset])
def test_accept_takes_one_client_after_another(stage: Stage, leave: Callable[[Any], None]) -> None:
    program = stage.run("accept")
    first, second = stage.connect(program), stage.connect(program)
    second.send(Message("program_change"))
    first.send(NOTE_ON)
    assert program.line() == str(NOTE_ON)
    first.send(NOTE_ON)
    assert program.line() == str(NOTE_ON)
    leave(first)
    assert [program.line(), program.line()] == [str(NOTE_OFF)] * 2
    assert program.line() == str(Message("program_change"))
    assert program.interrupt() == (0, [])


@pytest.mark.parametrize("leave", [hang_up, reset])
def test_accept_many_looks_after_all_clients_at_once(stage: Stage, leave: Callable[[Any], None]) -> None:
    program = stage.run("accept_many")
    first = stage.connect(program)
    assert program.line() == f"{own_address(first)} connected"
    second = stage.connect(program)
    assert program.line() == f"{own_address(second)} connected"
    for port in (first, second, first):
        port.send(NOTE_ON)
        assert program.line() == f"{own_address(port)} sent {NOTE_ON}"
    gone = own_address(first)
    leave(first)
    assert [program.line(), program.line()] == [f"{gone} sent {NOTE_OFF}"] * 2
    assert program.line() == f"{gone} disconnected"
    second.send(NOTE_OFF)
    assert program.line() == f"{own_address(second)} sent {NOTE_OFF}"
    assert program.interrupt() == (0, [])
