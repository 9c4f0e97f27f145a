"""mido's own functions and programs over midinet: the backend."""

from __future__ import annotations

import gc
import logging
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import pytest
from mido import Message, MidiFile, MidiTrack

from midinet import ConnectError, ConnectRefused, ListenError, MissingExtra
from midinet.backend import get_devices
from midinet.sync import PortServer, connect
from tests.harness.mdns import LOOPBACK, call_this_machine, hurry, unique_host, unique_name
from tests.harness.servers import reserved_portno
from tests.harness.waiting import PATIENCE_S, wait_until

NAME = "midinet.backend"
NOTE_ON = Message("note_on", note=60, velocity=100)
RELEASED = Message("note_off", note=60, velocity=64)
RESET = list(mido.ports.reset_messages())

LONG = Message("sysex", data=[1] * 20_000)

# Comes last, so that a reader knows that it has everything.
MARK = Message("song_select", song=1)


@pytest.fixture
def backend() -> mido.Backend:
    return mido.Backend(NAME, use_environ=False)


@pytest.fixture
def server() -> Iterator[PortServer]:
    with PortServer("127.0.0.1", 0) as server:
        yield server


def address_of(server: Any) -> str:
    return f"127.0.0.1:{server.addresses[0][1]}"


class Heard:
    """A callback, and what it was called with."""

    def __init__(self) -> None:
        self._messages: queue.Queue[Message] = queue.Queue()
        self.threads: set[str] = set()

    def __call__(self, message: Message) -> None:
        self.threads.add(threading.current_thread().name)
        self._messages.put(message)

    def next(self) -> Message:
        return self._messages.get(timeout=PATIENCE_S)

    def rest(self) -> list[Message]:
        return [self._messages.get_nowait() for _ in range(self._messages.qsize())]


# Opening.


def test_set_backend_takes_it_by_its_name(server: PortServer) -> None:
    before = mido.backend
    try:
        mido.set_backend(NAME)
        with mido.open_output(address_of(server)) as port:
            port.send(NOTE_ON)
            assert server.receive() == NOTE_ON
    finally:
        mido.set_backend(before)


def test_ports_are_of_the_kind_that_was_asked_for(backend: mido.Backend, server: PortServer) -> None:
    address = address_of(server)
    with (
        backend.open_input(address) as hears,
        backend.open_output(address) as speaks,
        backend.open_ioport(address) as both,
    ):
        assert [(port.is_input, port.is_output) for port in (hears, speaks, both)] == [
            (True, False),
            (False, True),
            (True, True),
        ]
        assert isinstance(hears, mido.ports.BaseInput)
        assert isinstance(speaks, mido.ports.BaseOutput)
        assert isinstance(both, mido.ports.BaseIOPort)
        assert not hasattr(hears, "send")
        assert not hasattr(speaks, "receive")
        assert repr(speaks) == f"<open output {address!r} (midinet)>"
        assert hears.name == address
    assert hears.closed
    assert speaks.closed
    assert both.closed
    assert repr(both) == f"<closed I/O port {address!r} (midinet)>"


@pytest.mark.parametrize("kind", ["input", "output", "ioport"])
def test_the_environment_gives_the_port_that_nobody_named(
    kind: str, server: PortServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MIDO_DEFAULT_{kind.upper()}", address_of(server))
    with getattr(mido.Backend(NAME), f"open_{kind}")() as port:
        assert port.name == address_of(server)


@pytest.mark.parametrize("kind", ["input", "output", "ioport"])
@pytest.mark.parametrize("virtual", [False, True])
def test_a_port_that_cannot_be_opened_says_why(
    backend: mido.Backend, server: PortServer, kind: str, virtual: bool
) -> None:
    open_port = getattr(backend, f"open_{kind}")
    error = ListenError if virtual else ConnectError
    with pytest.raises(error, match=rf"open_{kind}\('localhost:8080'\).*MIDO_DEFAULT_{kind.upper()}"):
        open_port(virtual=virtual)
    with pytest.raises(error, match="host:port is expected"):
        open_port("Grand Piano", virtual=virtual)
    with pytest.raises(TypeError, match="no_such_option"):
        open_port("localhost:8080", virtual=virtual, no_such_option=1)
    if virtual:
        with pytest.raises(ListenError, match="in use"):
            open_port(address_of(server), virtual=True)
    else:
        address = address_of(server)
        server.close()
        with pytest.raises(ConnectRefused):
            open_port(address)


def test_there_are_no_apis_to_choose_from(server: PortServer) -> None:
    backend = mido.Backend(f"{NAME}/LINUX_ALSA")
    with pytest.raises(ValueError, match="leave out /LINUX_ALSA"):
        backend.open_output(address_of(server))
    with pytest.raises(ValueError, match="leave out /LINUX_ALSA"):
        backend.get_output_names()


def test_options_are_those_of_connect_and_of_a_server(backend: mido.Backend) -> None:
    with PortServer("127.0.0.1", 0, tokens=["sesame"]) as server:
        with pytest.raises(PermissionError):
            backend.open_output(address_of(server), client_name="organ")
        with backend.open_output(address_of(server), client_name="organ", token="sesame") as port:
            port.send(NOTE_ON)
            assert server.receive() == NOTE_ON
            assert [port.name for port in server.ports] == ["organ"]


# Outputs.


def test_an_output_sends_and_lets_go_when_it_is_closed(backend: mido.Backend, server: PortServer) -> None:
    port = backend.open_output(address_of(server), autoreset=True)
    message = NOTE_ON.copy()
    port.send(message)
    message.note = 1
    assert server.receive() == NOTE_ON
    port.close()
    heard = [server.receive() for _ in range(len(RESET))]
    assert heard == RESET
    with pytest.raises(ValueError, match="closed"):
        port.send(NOTE_ON)
    port.close()
    port.reset()


def test_an_output_takes_messages_alone(backend: mido.Backend, server: PortServer) -> None:
    with backend.open_output(address_of(server)) as port, pytest.raises(TypeError):
        port.send(b"\x90\x3c\x40")


def test_a_closed_server_ends_an_output(backend: mido.Backend, server: PortServer) -> None:
    with backend.open_output(address_of(server)) as port:
        port.send(NOTE_ON)
        assert server.receive() == NOTE_ON
        server.close()
        wait_until(lambda: port.closed)
        with pytest.raises(ValueError, match="closed"):
            port.send(NOTE_ON)


def test_an_output_is_no_slow_client_of_a_busy_server(backend: mido.Backend) -> None:
    with (
        PortServer("127.0.0.1", 0, send_buffer=4096, slow="disconnect", max_outbox=65536) as server,
        backend.open_output(address_of(server), max_inbox=1) as port,
    ):
        # Many times what the system and the outbox have room for.
        for _ in range(200):
            server.send(LONG)
            wait_until(lambda: port.closed or not server.ports[0]._port._link.outbox.stalled)
        port.send(MARK)
        assert server.receive() == MARK
        assert server.stats.clients == 1


# Inputs.


def test_an_input_receives_polls_and_iterates(backend: mido.Backend, server: PortServer) -> None:
    with backend.open_input(address_of(server)) as port:
        assert port.poll() is None
        for note in range(5):
            server.send(NOTE_ON.copy(note=note))
        assert port.receive().note == 0
        assert next(iter(port)).note == 1
        wait_until(lambda: len(port._port._inbox) == 3)
        assert [message.note for message in port.iter_pending()] == [2, 3, 4]
        server.close()
        assert [message.type for message in port] == ["note_off"] * 5
        assert port.closed
        assert port.poll() is None
        with pytest.raises(ValueError, match="closed"):
            port.receive()


def test_mido_reads_several_ports_at_once(backend: mido.Backend, server: PortServer) -> None:
    ports = [backend.open_input(address_of(server)) for _ in range(3)]
    server.send(NOTE_ON)
    heard = mido.ports.multi_receive(ports)
    assert [next(heard) for _ in ports] == [NOTE_ON] * 3
    for port in ports:
        port.close()


def test_a_callback_gets_every_message_in_a_thread_of_its_own(
    backend: mido.Backend, server: PortServer
) -> None:
    heard = Heard()
    with backend.open_input(address_of(server), callback=heard) as port:
        sent = [NOTE_ON.copy(note=note % 128) for note in range(3000)]
        for message in sent:
            server.send(message)
        assert [heard.next() for _ in sent] == sent
        assert heard.threads == {f"midinet callback {port.name}"}
        assert port.callback is heard
        for receive in (port.receive, port.poll, lambda: next(iter(port))):
            with pytest.raises(ValueError, match="callback"):
                receive()


def test_a_callback_comes_goes_and_changes(backend: mido.Backend, server: PortServer) -> None:
    first, second = Heard(), Heard()
    with backend.open_input(address_of(server)) as port:
        assert port.callback is None
        server.send(NOTE_ON)
        wait_until(lambda: len(port._port._inbox))
        # What nobody has received goes to it first.
        port.callback = first
        assert first.next() == NOTE_ON
        port.callback = second
        server.send(MARK)
        assert second.next() == MARK
        port.callback = None
        server.send(NOTE_ON)
        assert port.receive() == NOTE_ON
        assert port.poll() is None
        port.callback = first
        server.send(MARK)
        assert first.next() == MARK
        assert second.rest() == []


def test_an_error_in_a_callback_is_logged_and_the_next_message_comes(
    backend: mido.Backend, server: PortServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def fail_once(message: Message) -> None:
        heard(message)
        if message == NOTE_ON:
            raise ZeroDivisionError

    with backend.open_input(address_of(server), callback=fail_once):
        server.send(NOTE_ON)
        server.send(MARK)
        assert [heard.next(), heard.next()] == [NOTE_ON, MARK]
    record, *rest = [record for record in caplog.records if record.name == NAME]
    assert not rest
    assert record.getMessage() == f"the callback of {address_of(server)} failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_closing_lets_go_and_then_calls_no_more(backend: mido.Backend, server: PortServer) -> None:
    heard = Heard()
    port = backend.open_input(address_of(server), callback=heard)
    server.send(NOTE_ON)
    assert heard.next() == NOTE_ON
    port.close()
    assert heard.rest() == [RELEASED]
    assert not [thread for thread in threading.enumerate() if "callback" in thread.name]
    port.close()


def test_a_callback_may_close_its_port(backend: mido.Backend, server: PortServer) -> None:
    closed = threading.Event()

    def close(message: Message) -> None:
        port.close()
        closed.set()

    port = backend.open_input(address_of(server), callback=close)
    server.send(NOTE_ON)
    assert closed.wait(PATIENCE_S)
    assert port.closed
    wait_until(lambda: not [thread for thread in threading.enumerate() if "callback" in thread.name])


def test_a_server_that_ends_lets_go_and_ends_the_thread(backend: mido.Backend, server: PortServer) -> None:
    heard = Heard()
    with backend.open_input(address_of(server), callback=heard) as port:
        server.send(NOTE_ON)
        assert heard.next() == NOTE_ON
        server.close()
        assert heard.next() == RELEASED
        wait_until(lambda: port.closed)
        wait_until(lambda: not [thread for thread in threading.enumerate() if "callback" in thread.name])


def test_a_link_that_breaks_under_a_callback_is_logged(
    backend: mido.Backend, caplog: pytest.LogCaptureFixture
) -> None:
    # Something unread makes the end of a connection a reset.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        portno = listener.getsockname()[1]
        with backend.open_ioport(f"127.0.0.1:{portno}", callback=print) as port:
            peer, _ = listener.accept()
            port.send(NOTE_ON)
            wait_until(lambda: peer.recv(3, socket.MSG_PEEK))
            peer.close()
            wait_until(lambda: port.closed)
            wait_until(lambda: [record for record in caplog.records if record.name == NAME])
    assert "is lost" in caplog.text


def test_a_port_that_nobody_has_any_more_is_closed(backend: mido.Backend, server: PortServer) -> None:
    port = backend.open_ioport(address_of(server), callback=Heard())
    port.send(MARK)
    assert server.receive() == MARK
    gone = weakref.ref(port)
    del port
    gc.collect()
    assert gone() is None
    wait_until(lambda: not server.ports)
    wait_until(lambda: not [thread for thread in threading.enumerate() if "callback" in thread.name])


def test_an_ioport_does_both(backend: mido.Backend, server: PortServer) -> None:
    heard = Heard()
    with backend.open_ioport(address_of(server), callback=heard, autoreset=True) as port:
        port.send(NOTE_ON)
        assert server.receive() == NOTE_ON
        server.send(MARK)
        assert heard.next() == MARK
        port.callback = None
        server.send(MARK)
        assert port.receive() == MARK
    assert [server.receive() for _ in range(len(RESET))] == RESET


# Virtual ports.


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with reserved_portno() as portno:
        yield f"127.0.0.1:{portno}"


def test_others_connect_to_a_virtual_input(backend: mido.Backend, address: str) -> None:
    heard = Heard()
    with backend.open_input(address, virtual=True, callback=heard), connect(address) as player:
        player.send(NOTE_ON)
        assert heard.next() == NOTE_ON
        player.close()
        assert heard.next() == RELEASED
        with connect(address) as another:
            another.send(MARK)
            assert heard.next() == MARK


def test_a_virtual_output_sends_to_all_and_hears_none(backend: mido.Backend, address: str) -> None:
    with (
        backend.open_output(address, virtual=True, max_inbox=1) as port,
        connect(address, send_buffer=4096, slow="disconnect", stall_timeout=1) as first,
        connect(address) as second,
    ):
        # Many times what would have room somewhere, were it not thrown away.
        for _ in range(200):
            first.send(LONG)
        # Nobody is asked who does not take what was sent before.
        wait_until(lambda: not first._port._link.outbox.stalled)
        assert first.ping(PATIENCE_S) > 0
        assert second.ping(PATIENCE_S) > 0
        port.send(MARK)
        assert [first.receive(), second.receive()] == [MARK, MARK]


def test_a_virtual_ioport_does_both(backend: mido.Backend, address: str) -> None:
    with backend.open_ioport(address, virtual=True) as port, connect(address) as player:
        player.send(NOTE_ON)
        assert port.receive() == NOTE_ON
        port.send(MARK)
        assert player.receive() == MARK


# Names.


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for servers, and announce them, on this machine alone."""
    pytest.importorskip("zeroconf", reason="zeroconf is not installed")
    monkeypatch.setenv("MIDINET_INTERFACES", LOOPBACK)
    call_this_machine(unique_host(), monkeypatch.setattr)
    hurry(monkeypatch.setattr)


@pytest.mark.usefixtures("on_loopback")
def test_a_virtual_port_with_a_name_is_found_by_it(backend: mido.Backend) -> None:
    name = f"midi://{unique_name()}"
    with backend.open_input(name, virtual=True) as port:
        assert port.name == name
        wait_until(lambda: port._port.announced)
        wait_until(lambda: name in backend.get_ioport_names(timeout=0.3))
        with backend.open_output(name) as player:
            player.send(NOTE_ON)
            assert port.receive() == NOTE_ON


@pytest.mark.usefixtures("on_loopback")
def test_a_virtual_port_on_an_address_is_announced_by_its_clients_name(
    backend: mido.Backend, address: str
) -> None:
    portno, name = address.rpartition(":")[2], unique_name()
    with backend.open_output(f":{portno}", virtual=True, client_name=name) as port:
        wait_until(lambda: port._port.announced == name)


@pytest.mark.usefixtures("on_loopback")
def test_nobody_is_an_empty_list(backend: mido.Backend) -> None:
    assert f"midi://{unique_name()}" not in backend.get_output_names(timeout=0.01)


def test_without_the_extra_the_list_is_empty(backend: mido.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "zeroconf"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    assert backend.get_output_names() == []
    with pytest.raises(MissingExtra, match=r"midinet\[discovery\]"):
        backend.open_output("midi://stage")


def test_without_a_network_the_list_is_empty_and_the_log_says_why(
    backend: mido.Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed")
    # RFC 5737: nobody has this address.
    monkeypatch.setenv("MIDINET_INTERFACES", "192.0.2.1")
    assert get_devices() == []
    assert "no servers are found" in caplog.text


# mido's own programs, as they are installed.


def run_script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(name + (".exe" if os.name == "nt" else ""))
    return subprocess.run(
        [path, *arguments],
        env={**os.environ, "MIDO_BACKEND": NAME, "MIDINET_INTERFACES": "127.0.0.1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE_S,
    )


@pytest.fixture
def song(tmp_path: Path) -> Path:
    file = MidiFile()
    track = MidiTrack()
    file.tracks.append(track)
    track.extend([NOTE_ON.copy(time=0), RELEASED.copy(time=24)])
    path = tmp_path / "song.mid"
    file.save(path)
    return path


def test_mido_play_plays_to_a_server(server: PortServer, song: Path) -> None:
    played = run_script("mido-play", "-o", address_of(server), str(song))
    assert played.returncode == 0, played.stdout
    assert f"Using output {address_of(server)!r}." in played.stdout
    heard = [server.receive() for _ in range(2 * len(RESET) + 2)]
    assert heard == [*RESET, NOTE_ON, RELEASED, *RESET]


def test_mido_play_takes_its_output_from_the_environment(server: PortServer, song: Path) -> None:
    played = run_script("mido-play", "-q", str(song), MIDO_DEFAULT_OUTPUT=address_of(server))
    assert played.returncode == 0, played.stdout
    while server.receive() != NOTE_ON:
        pass


# It looks for them several times, for as long as people wait for a list.
@pytest.mark.full
@pytest.mark.usefixtures("on_loopback")
def test_mido_ports_lists_who_announces_itself() -> None:
    name = unique_name()
    with PortServer("", 0, announce=name) as server:
        wait_until(lambda: server.announced)
        listed = run_script("mido-ports")
    assert listed.returncode == 0, listed.stdout
    assert re.search(
        rf"input Ports:\n.*'midi://{name}'\n.*output Ports:\n.*'midi://{name}'\n",
        listed.stdout,
        re.DOTALL,
    )
    assert f"Using backend {NAME}." in listed.stdout


def test_mido_connect_forwards_an_input_to_a_server(server: PortServer) -> None:
    # It runs for ever, as it was made.
    with PortServer("127.0.0.1", 0) as source:
        path = Path(sys.executable).with_name("mido-connect" + (".exe" if os.name == "nt" else ""))
        with subprocess.Popen(
            [path, address_of(server), address_of(source)],
            env={**os.environ, "MIDO_BACKEND": NAME},
            stdout=subprocess.DEVNULL,
        ) as program:
            try:
                client = source.accept()
                client.send(NOTE_ON)
                assert server.receive() == NOTE_ON
            finally:
                program.kill()


# Knows of mido alone. Echoes an octave higher, by callback.
PROGRAM = """
import sys, threading
import mido

done = threading.Event()

def echo(message):
    if message.type == "note_on":
        output.send(message.copy(note=message.note + 12))
    if message.type == "song_select":
        done.set()

with mido.open_output(sys.argv[1]) as output, mido.open_input(sys.argv[1], callback=echo) as source:
    done.wait()
"""


def test_a_program_of_mido_with_callbacks_runs_unchanged(server: PortServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, address_of(server)],
        env={**os.environ, "MIDO_BACKEND": NAME},
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            wait_until(lambda: server.stats.clients == 2)
            server.send(NOTE_ON)
            assert server.receive() == NOTE_ON.copy(note=72)
            server.send(MARK)
            assert program.wait(PATIENCE_S) == 0
            assert program.stderr is not None
            assert program.stderr.read() == ""
        finally:
            program.kill()


def test_its_log_is_quiet_where_nothing_is_wrong(
    backend: mido.Backend, server: PortServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, NAME), backend.open_ioport(address_of(server), callback=print):
        server.send(MARK)
    assert [record for record in caplog.records if record.name == NAME] == []
