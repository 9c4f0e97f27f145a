"""Every code block of the README is run as it stands, but for the port number.

The two lines that set up a virtual environment are run by the gate of continuous integration, .ci/run, which
takes them from the README: the tests could not run the line that runs the tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import mido
import mido.sockets
import pytest

import benchmarks
from midinet import sync
from tests.harness.jack import Instrument
from tests.harness.mdns import LOOPBACK, hurry, unique_name
from tests.harness.nats import NatsServer
from tests.harness.programs import end, uncovered
from tests.harness.servers import reserved_portno
from tests.harness.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
SHELL = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
NOTE = "note_on channel=0 note=60 velocity=90 time=0\n"
NOTE_OFF = "note_off channel=0 note=60 velocity=64 time=0\n"


@pytest.fixture
def portno() -> Iterator[int]:
    with reserved_portno() as portno:
        yield portno


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        end(process)
        process.communicate()


def start(*command: str, cwd: Path = ROOT, env: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        env={**env, "PYTHONUNBUFFERED": "1", "MIDINET_INTERFACES": LOOPBACK},
    )


def program(block: str, portno: int, cwd: Path = ROOT) -> subprocess.Popen[str]:
    assert "8080" in block
    return start(sys.executable, "-c", block.replace("8080", str(portno)), cwd=cwd)


def wait_until_listening(portno: int, process: subprocess.Popen[str]) -> None:
    for _ in range(int(PATIENCE_S / 0.01)):
        with socket.socket() as sock:
            sock.settimeout(PATIENCE_S)
            if sock.connect_ex(("127.0.0.1", portno)) == 0:
                return
        assert process.poll() is None, process.communicate()[1]
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            pass
    pytest.fail("it does not listen")


def make_certificate_and_token(folder: Path) -> None:
    """Run the README's own lines, and give the clients their copy."""
    for line in SHELL:
        if line.startswith("openssl "):
            subprocess.run(line, shell=True, check=True, capture_output=True, cwd=folder, timeout=PATIENCE_S)
    shutil.copy(folder / "server.pem", folder / "ca.pem")


def test_there_is_nothing_but_python_and_shell() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(PYTHON) == 12


def test_the_server_and_both_clients_of_the_first_screen(
    portno: int, started: list[subprocess.Popen[str]]
) -> None:
    server = program(PYTHON[0], portno)
    started.append(server)
    wait_until_listening(portno, server)
    for block in PYTHON[1:3]:
        assert program(block, portno).communicate(timeout=PATIENCE_S) == (NOTE, "")
    assert server.stdout is not None
    # Each client lets go of its note when it closes.
    assert [server.stdout.readline() for _ in range(4)] == [NOTE, NOTE_OFF] * 2


def test_the_client_that_survives_outages(portno: int, started: list[subprocess.Popen[str]]) -> None:
    heard = []
    with mido.sockets.PortServer("127.0.0.1", portno) as server:
        client = program(PYTHON[5], portno)
        started.append(client)
        for message in server.accept():
            heard.append((message.type, message.note))
            if len(heard) == 6:
                break
    assert heard == [(kind, note) for note in (60, 62, 64) for kind in ("note_on", "note_off")]


def test_who_may_play(portno: int, started: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed")
    make_certificate_and_token(tmp_path)
    server = program(PYTHON[6], portno, tmp_path)
    started.append(server)
    wait_until_listening(portno, server)
    assert program(PYTHON[7], portno, tmp_path).communicate(timeout=PATIENCE_S) == ("", "")
    stranger = program(PYTHON[7].replace("3f6c0a", "3f6c0b"), portno, tmp_path)
    assert "does not accept the token" in stranger.communicate(timeout=PATIENCE_S)[1]


@pytest.mark.full
def test_who_may_play_on_the_command_line(
    portno: int, started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("typer", reason="the extra cli is not installed")
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed")
    make_certificate_and_token(tmp_path)
    midinet = (sys.executable, "-m", "midinet")
    where = f"localhost:{portno}"
    server = start(
        *midinet,
        *("serve", where, "--cert", "server.pem", "--key", "server.key", "--token-file", "token"),
        cwd=tmp_path,
    )
    started.append(server)
    wait_until_listening(portno, server)
    send = (*midinet, "send", where, "--ca", "ca.pem", "program_change", "program=5")
    welcome = start(*send, "--token-file", "token", cwd=tmp_path)
    assert welcome.communicate(timeout=PATIENCE_S) == ("", "")
    assert welcome.returncode == 0
    stranger = start(*send, "--token", "3f6c0b", cwd=tmp_path)
    assert "does not accept the token" in stranger.communicate(timeout=PATIENCE_S)[1]
    unsure = start(*midinet, "send", where, "--tls", "--token-file", "token", "clock", cwd=tmp_path)
    assert "self-signed certificate" in unsure.communicate(timeout=PATIENCE_S)[1].replace(
        "self signed", "self-signed"
    )


@pytest.mark.full
def test_instruments_are_members_of_a_hub(
    portno: int, started: list[subprocess.Popen[str]], plug: Callable[..., Instrument]
) -> None:
    pytest.importorskip("rtmidi", reason="the extra rtmidi is not installed")
    instrument = plug("Keystation")
    hub = program(PYTHON[3], portno)
    started.append(hub)
    wait_until_listening(portno, hub)
    with sync.connect("localhost", portno) as port:
        # Until it is bridged.
        while (heard := port.poll()) is None:
            instrument.play(b"\x90\x3c\x5a")
            hub_is_there(hub)
        assert str(heard) + "\n" == NOTE
        # Its output may be bridged a little later than its input.
        while b"\xc0\x05" not in instrument.heard:
            port.send(mido.Message("program_change", program=5))
            hub_is_there(hub)


def hub_is_there(hub: subprocess.Popen[str]) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        hub.wait(0.02)


def test_a_server_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zeroconf", reason="the extra discovery is not installed")
    monkeypatch.setenv("MIDINET_INTERFACES", LOOPBACK)
    hurry(monkeypatch.setattr)
    name = unique_name()
    with sync.PortServer("", 0, announce=name) as server:
        # The client looks for three seconds alone.
        wait_until(lambda: server.announced)
        client = start(sys.executable, "-c", PYTHON[4].replace("midi://stage", f"midi://{name}"))
        assert str(server.receive()) + "\n" == NOTE
        out, err = client.communicate(timeout=PATIENCE_S)
        assert (f"midi://{name} ('127.0.0.1', {server.addresses[0][1]})" in out, err) == (True, "")


def test_a_program_of_mido_s_over_its_backend(portno: int) -> None:
    with sync.PortServer("127.0.0.1", portno) as server:
        assert program(PYTHON[9], portno).communicate(timeout=PATIENCE_S) == ("", "")
        assert [str(server.receive()) + "\n" for _ in range(2)] == [NOTE, NOTE_OFF]
    assert "MIDO_BACKEND=midinet.backend mido-play -o localhost:8080 tune.mid" in README


def test_two_ports_without_a_network() -> None:
    assert start(sys.executable, "-c", PYTHON[10]).communicate(timeout=PATIENCE_S) == ("", "")


def test_moving_from_mido_is_changing_the_import(portno: int) -> None:
    assert program(PYTHON[8], portno).communicate(timeout=PATIENCE_S) == ("", "")
    assert "was: from mido.sockets import PortServer, connect" in PYTHON[8]


def test_two_hubs_of_one_session(portno: int, started: list[subprocess.Popen[str]]) -> None:
    pytest.importorskip("nats", reason="the extra nats is not installed")
    with NatsServer() as broker, reserved_portno() as other:
        portnos = portno, other
        block = PYTHON[11].replace("nats://localhost:4222", broker.url)
        for number in portnos:
            started.append(program(block, number))
            wait_until_listening(number, started[-1])
        with sync.connect("localhost", portnos[0]) as one, sync.connect("localhost", portnos[1]) as two:
            note = mido.Message("note_on", note=60, velocity=90)
            # Until the hubs have met.
            while (heard := two.poll()) is None:
                one.send(note)
                hub_is_there(started[0])
            assert heard == note


def test_the_commands_that_set_up_are_those_of_continuous_integration() -> None:
    setups = [line for line in SHELL if line.startswith("python3 -m venv")]
    assert ["midinet demo" in setups[0], "pytest" in setups[1], len(setups)] == [True, True, 2]
    gate = (ROOT / ".ci" / "run").read_text()
    for word in ("pytest", "demo"):
        assert f'eval "$(readme_command {word})"' in gate


def test_there_is_no_other_command() -> None:
    kinds = ("python3 -m venv ", "python3 -m benchmarks.", "midinet ", "openssl ")
    assert [line for line in SHELL if not line.startswith(kinds)] == []


FIGURES = [line for line in SHELL if line.startswith("python3 -m benchmarks.")]


def test_every_command_behind_the_figures_is_a_benchmark_s() -> None:
    assert {line.removeprefix("python3 -m benchmarks.") for line in FIGURES} <= set(benchmarks.PROGRAMS)
    assert len(FIGURES) == 9


@pytest.mark.full
@pytest.mark.parametrize("line", FIGURES)
def test_the_commands_behind_the_figures(line: str, started: list[subprocess.Popen[str]]) -> None:
    # Quick: that it runs. The figures take minutes and a machine of one's own.
    program = start(sys.executable, *line.split()[1:], "--quick", env=uncovered())
    started.append(program)
    # Less than pytest lets a test take.
    out, err = program.communicate(timeout=250)
    assert (program.returncode, err) == (0, "")
    # A machine that lacks what all of it needs, such as jackd, is told so in one line, and has no table.
    lacks = [line for line in out.splitlines() if line.startswith("nothing is measured: ")]
    assert ("\n----" in out, len(lacks)) in [(True, 0), (False, 1)]


def test_every_command_line_is_one_that_the_program_takes() -> None:
    pytest.importorskip("typer", reason="the extra cli is not installed")
    from midinet.cli.app import app, typer

    group = typer.main.get_command(app)
    lines = [line for line in SHELL if line.startswith("midinet ")]
    lines += re.findall(r"`(midinet [a-z]+ [^`\n]+)`", README)
    assert len(lines) >= 12
    for line in lines:
        verb, *words = shlex.split(line)[1:]
        with group.make_context("midinet", [verb, *words]) as context:
            _, command, rest = group.resolve_command(context, [verb, *words])
            assert command.make_context(verb, rest, parent=context).args == []


@pytest.mark.full
def test_the_command_line_as_it_is_shown(
    portno: int, started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    pytest.importorskip("typer", reason="the extra cli is not installed")
    lines = {line.split()[1]: line for line in SHELL if line.startswith("midinet ")}
    assert list(lines) == [*("ports", "bridge", "serve", "monitor", "send", "record", "play", "ping", "demo")]
    tune = mido.MidiFile(
        tracks=[
            mido.MidiTrack([mido.Message("note_on", note=61), mido.Message("note_off", note=61, time=48)])
        ]
    )
    tune.save(tmp_path / "tune.mid")

    def midinet(verb: str) -> subprocess.Popen[str]:
        words = shlex.split(lines[verb].replace("8080", str(portno)))
        return start(sys.executable, "-m", "midinet", *words[1:], cwd=tmp_path)

    def finish(process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        return out

    def interrupt(process: subprocess.Popen[str]) -> str:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, "Traceback" in err) == (130, False), err
        return out

    server = midinet("serve")
    started.append(server)
    wait_until_listening(portno, server)
    monitor = midinet("monitor")
    started.append(monitor)
    assert monitor.stdout is not None
    heard = ""
    while "note=60" not in heard:  # Until the monitor is there to hear it.
        finish(midinet("send"))
        if select_readable(monitor):
            heard = monitor.stdout.readline()
    recorder = midinet("record")
    started.append(recorder)
    assert recorder.stderr is not None
    recorder.stderr.readline()
    finish(midinet("play"))
    while "note_off channel=0 note=61" not in heard:
        heard = monitor.stdout.readline()
    assert "median" in finish(midinet("ping"))
    interrupt(recorder)
    assert [m.type for m in mido.MidiFile(tmp_path / "take.mid") if not m.is_meta] == ["note_on", "note_off"]
    interrupt(monitor)
    assert "note=61" in interrupt(server)
    assert "Ode to Joy" in finish(midinet("demo"))


@pytest.mark.full
def test_the_command_line_of_instruments(
    portno: int, started: list[subprocess.Popen[str]], plug: Callable[..., Instrument]
) -> None:
    pytest.importorskip("typer", reason="the extra cli is not installed")
    lines = {line.split()[1]: line for line in SHELL if line.startswith("midinet ")}
    keys, synth = plug("Keystation", sounds=False), plug("Synth", plays=False)
    with sync.PortServer("127.0.0.1", portno) as server:
        listing = start(sys.executable, "-m", *lines["ports"].split())
        out, _ = listing.communicate(timeout=PATIENCE_S)
        assert (keys.out in out, synth.into in out) == (True, True)
        words = shlex.split(lines["bridge"].replace("8080", str(portno)))
        bridge = start(sys.executable, "-m", *words)
        started.append(bridge)
        while (heard := server.poll()) is None:
            keys.play(b"\x90\x3c\x5a")
            hub_is_there(bridge)
        assert str(heard) + "\n" == NOTE
        while b"\xc0\x05" not in synth.heard:
            server.send(mido.Message("program_change", program=5))
            hub_is_there(bridge)


def select_readable(process: subprocess.Popen[str]) -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.2)[0])
