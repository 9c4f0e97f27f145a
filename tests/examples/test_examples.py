"""The examples, run as programs against mido's own socket ports."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import os
import queue
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import mido.sockets
import pytest
from mido import Message

from tests.harness.needs import need
from tests.harness.programs import uncovered
from tests.harness.screen import Screen
from tests.harness.servers import reserved_portno
from tests.harness.waiting import PATIENCE_S, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("two_line_server", "client", "send_to_all", "listen", "accept", "accept_many", "stay_connected")
# How midinet lives in other programs, each of its own kind.
RECIPES = {"sync": ["tkinter_keys"], "asyncio": ["aiohttp_hub"]}

NOTE_ON = Message("note_on", note=60, velocity=100)
NOTE_OFF = Message("note_off", note=60)


class Program:
    """An example that runs, and the lines it prints."""

    def __init__(self, path: Path, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            env={**uncovered(), **environment},
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


def hear(port: Any, count: int) -> list[Message]:
    """Read so many messages from a port of mido's."""
    return [wait_until(port.poll) for _ in range(count)]


def own_address(port: Any) -> str:
    host, portno = port._socket.getsockname()
    return f"{host}:{portno}"


class Stage:
    """What a test has started, ended with it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        # A shell starts its background jobs with Ctrl-C ignored, and their children inherit that.
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        self.portno = self.reserve()

    def reserve(self) -> int:
        """Keep a port number for a program."""
        return self._stack.enter_context(reserved_portno())

    def run(self, name: str, *arguments: str, **environment: str) -> Program:
        """Start an example."""
        address = f"127.0.0.1:{self.portno}"
        program = Program(self._directory / f"{name}.py", address, *arguments, **environment)
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

        port = wait_until(try_to_connect)
        self._stack.callback(hang_up, port)
        return port

    def listen(self) -> Any:
        """Open a server of mido's for an example to connect to."""
        server = mido.sockets.PortServer("127.0.0.1", self.portno)
        self._stack.callback(server.close)
        return server

    def accept(self, server: Any) -> Any:
        """Return the server's port for the example that connects to it."""
        port = wait_until(lambda: server.accept(block=False))
        self._stack.callback(hang_up, port)
        return port


@pytest.fixture(params=["sync", "asyncio"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(EXAMPLES / request.param, stack)


@pytest.fixture
def web_stage() -> Iterator[Stage]:
    need(importlib.util.find_spec("aiohttp"), "the package aiohttp")
    with ExitStack() as stack:
        yield Stage(EXAMPLES / "asyncio", stack)


@pytest.fixture
def window_stage() -> Iterator[Stage]:
    need(importlib.util.find_spec("_tkinter"), "tkinter (Debian: apt-get install python3-tk)")
    with ExitStack() as stack:
        yield Stage(EXAMPLES / "sync", stack)


def test_there_is_a_blocking_and_an_async_version_of_each_but_the_recipes() -> None:
    for directory, recipes in RECIPES.items():
        found = sorted(path.stem for path in (EXAMPLES / directory).glob("*.py"))
        assert found == sorted([*NAMES, *recipes])


def test_the_list_of_examples_has_all_of_them() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    for name in itertools.chain(NAMES, *RECIPES.values()):
        assert f"`{name}.py`" in listed


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*/*.py")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_without_an_address_it_is_localhost_8080(path: Path) -> None:
    assert '"localhost:8080"' in path.read_text()


@pytest.mark.parametrize("folder", ["sync", "asyncio"])
@pytest.mark.parametrize("name", NAMES)
def test_an_address_that_is_none_is_refused(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(EXAMPLES / folder / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, "127.0.0.1:0"])
    with pytest.raises(ValueError, match="port must be between 1 and 65535"):
        runpy.run_path(path, run_name="__main__")


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


@pytest.mark.parametrize("leave", [reset, pytest.param(hang_up, marks=pytest.mark.full)])
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


# The recipes.


def introduce(first: Any, second: Any) -> None:
    """Wait until both are clients of a hub that relays, which takes them in the order in which they came."""
    second.send(Message("clock"))
    assert hear(first, 1) == [Message("clock")]


class Page:
    """The web page of an example, asked without a browser."""

    def __init__(self, portno: int) -> None:
        self._portno = portno

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Return the status and the text of an answer."""
        connection = http.client.HTTPConnection("localhost", self._portno, timeout=PATIENCE_S)
        try:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, path, body, form)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def held(self) -> list[int]:
        return list(json.loads(self.ask("GET", "/held")[1])["held"])

    def wait_for_held(self, notes: list[int]) -> None:
        wait_until(lambda: self.held() == notes)


def run_web_program(stage: Stage) -> tuple[Program, Page]:
    portno = stage.reserve()
    # aiohttp's own line, which it leaves in the buffer of a pipe.
    program = stage.run("aiohttp_hub", str(portno), PYTHONUNBUFFERED="1")
    line = program.line()
    assert line is not None
    assert f"http://localhost:{portno}" in line, program.wait()
    return program, Page(portno)


def test_aiohttp_hub_shows_what_is_held_and_plays_notes(web_stage: Stage) -> None:
    program, page = run_web_program(web_stage)
    player, listener = web_stage.connect(program), web_stage.connect(program)
    introduce(player, listener)
    assert page.held() == []
    assert "<title>midinet</title>" in page.ask("GET", "/")[1]
    player.send(NOTE_ON)
    assert hear(listener, 1) == [NOTE_ON]
    page.wait_for_held([60])
    assert page.ask("POST", "/play", "note=64") == (204, "")
    assert [message.note for message in hear(listener, 2)] == [64, 64]
    assert [message.type for message in hear(player, 2)] == ["note_on", "note_off"]
    for wrong in ("note=128", "note=C", "", "note="):
        assert page.ask("POST", "/play", wrong)[0] == 400
    hang_up(player)
    assert hear(listener, 1) == [NOTE_OFF]
    page.wait_for_held([])
    assert program.interrupt()[0] == 0


def test_aiohttp_hub_lets_go_of_every_note_when_it_ends(web_stage: Stage) -> None:
    program, page = run_web_program(web_stage)
    player, listener = web_stage.connect(program), web_stage.connect(program)
    introduce(player, listener)
    player.send(NOTE_ON)
    assert hear(listener, 1) == [NOTE_ON]
    answers: queue.Queue[tuple[int, str]] = queue.Queue()
    poster = threading.Thread(target=lambda: answers.put(page.ask("POST", "/play", "note=64")))
    poster.start()
    # The note of this request sounds still when the program is asked to end.
    assert [message.type for message in hear(listener, 1)] == ["note_on"]
    status, printed = program.interrupt()
    poster.join()
    assert (status, [line for line in printed if "Press CTRL+C" not in line]) == (0, [])
    assert answers.get_nowait() == (204, "")
    assert sorted(message.note for message in hear(listener, 2) if message.type == "note_off") == [60, 64]


WHITE, ORANGE = (255, 255, 255), (255, 165, 0)

# A line of pixels that crosses all keys.
ACROSS = 60


def find_keys(screen: Screen) -> list[int] | None:
    """Where the keys are, once they are there: the middle of each, in pixels from the left."""
    middles, left = [], 0
    for colour, pixels in itertools.groupby(screen.row(ACROSS)):
        width = len(list(pixels))
        if colour == WHITE:
            middles.append(left + width // 2)
        left += width
    return middles if len(middles) == 8 else None


def run_window(stage: Stage, screen: Screen) -> tuple[Program, Any, list[int]]:
    server = stage.listen()
    program = stage.run("tkinter_keys", DISPLAY=screen.display)
    port = stage.accept(server)
    return program, port, wait_until(lambda: find_keys(screen))


def lit(screen: Screen, keys: list[int]) -> list[int]:
    """Which keys are lit, by their numbers."""
    row = screen.row(ACROSS)
    return [number for number, key in enumerate(keys) if row[key] == ORANGE]


def test_tkinter_keys_light_up_with_what_is_heard_and_play(window_stage: Stage) -> None:
    with Screen() as screen:
        program, port, keys = run_window(window_stage, screen)

        def wait_for_lit(wanted: list[int]) -> None:
            wait_until(lambda: lit(screen, keys) == wanted)

        # C and E, and one for which there is no key.
        for note in (60, 64, 61):
            port.send(Message("note_on", note=note))
        wait_for_lit([0, 2])
        port.send(Message("note_on", note=60, velocity=0))
        port.send(Message("note_off", note=64))
        wait_for_lit([])
        screen.press(keys[1], ACROSS)
        wait_for_lit([1])
        assert hear(port, 1) == [Message("note_on", note=62)]
        screen.release()
        wait_for_lit([])
        assert hear(port, 1) == [Message("note_off", note=62)]
        # A key that is held down is let go.
        screen.press(keys[0], ACROSS)
        assert hear(port, 1) == [Message("note_on", note=60)]
        assert program.interrupt() == (0, [])
        assert hear(port, 1) == [NOTE_OFF]


def test_tkinter_keys_ends_when_its_server_does(window_stage: Stage) -> None:
    with Screen() as screen:
        program, port, _ = run_window(window_stage, screen)
        hang_up(port)
        assert program.wait() == (0, [])


def test_tkinter_keys_stays_alive_in_a_flood(window_stage: Stage) -> None:
    with Screen() as screen:
        program, port, keys = run_window(window_stage, screen)
        stopped = threading.Event()

        def flood() -> None:
            with suppress(OSError):
                while not stopped.is_set():
                    port._socket.sendall(bytes((0x90, 61, 1)) * 1000)

        player = threading.Thread(target=flood)
        player.start()
        try:
            screen.press(keys[3], ACROSS)
            assert hear(port, 1) == [Message("note_on", note=65)]
            wait_until(lambda: lit(screen, keys) == [3])
        finally:
            stopped.set()
            program.end()
            player.join()
