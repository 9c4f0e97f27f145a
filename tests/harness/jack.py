"""JACK's dummy driver, which gives rtmidi real ports without any hardware, and instruments to plug in."""

from __future__ import annotations

import ctypes
import glob
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.needs import need, need_program

# Seconds, many times what it takes.
_START_S = 20.0

# Milliseconds that JACK waits for a client in one period: longer than the system makes anybody wait, and
# short enough for one that was killed.
_PATIENCE_MS = 500

# JACK has room for so many servers on a machine. One that was killed keeps its place until another of its
# name comes, so the names are few.
_PLACES = 8

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


class Jack:
    """A JACK server of the tests' own. JACK's library finds it by the environment.

    It waits for its clients in each period. Otherwise it would go on without those that are late, and
    what came in a period would be lost to them or come twice, which on a busy machine would be seen here.
    """

    def __init__(self) -> None:
        self.program = need_jack()
        self.rtmidi = load_rtmidi()
        place, self._lock = _take_place()
        self.name = f"midinet-test-{place}"
        os.environ["JACK_DEFAULT_SERVER"] = self.name
        os.environ["JACK_NO_AUDIO_RESERVATION"] = "1"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes clients."""
        pace = ["--no-realtime", "--sync", "--timeout", str(_PATIENCE_MS)]
        words = ["--name", self.name, *pace, "-d", "dummy", "-r", "48000", "-p", "256"]
        self._process = subprocess.Popen(
            [self.program, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        end = time.monotonic() + _START_S
        while True:
            # In a process of its own: JACK's library would say much about each failure.
            asked = subprocess.run(
                ["jack_lsp", "-s", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if asked.returncode == 0:
                return
            assert self._process.poll() is None, "jackd has ended"
            assert time.monotonic() < end, "jackd takes no clients"
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """End it, in order or not."""
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait()
        # What clients leave that ended after it.
        for path in glob.glob(f"/dev/shm/jack_*{self.name}_*"):
            os.unlink(path)

    def end(self) -> None:
        """End it for good."""
        self.stop()
        os.close(self._lock)

    def _ask(self, *words: str) -> str:
        """Run one of JACK's programs, and return what it prints."""
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    async def connect(self, out: str, into: str) -> None:
        """Connect two ports, as somebody would by hand."""
        self._ask("jack_connect", "-s", self.name, out, into)

    def own_ports(self, name: str) -> list[str]:
        """The virtual ports of a name that midinet has open: what one hears, and what one plays on."""
        listed = self._ask("jack_lsp", "-s", self.name, "-p").split("\n")
        ports = [
            (port, "input" in properties)
            for port, properties in zip(listed[::2], listed[1::2], strict=False)
            if port.startswith("midinet") and port.endswith(f":{name}")
        ]
        return [port for port, _ in sorted(ports, key=lambda port: port[1])]

    def run_python(self, code: str) -> None:
        """Run a program to its end."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=_START_S
        )
        assert (done.stderr, done.returncode) == ("", 0)

    def plug(self, name: str, **options: Any) -> Instrument:
        """Plug in an instrument."""
        return Instrument(name, **options)


@contextmanager
def alone() -> Iterator[None]:
    """Keep the JACK of all other tests on this machine, of other workers and other runs, still meanwhile.

    Its servers share one list of their memory. Where several are at work, clients are refused.
    """
    import fcntl  # As below.

    path = Path(tempfile.gettempdir()) / f"midinet-test-jack-alone-{os.getuid()}.lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _take_place() -> tuple[int, int]:
    """Return the number of a place that no other tests have, and the descriptor that keeps it while open."""
    import fcntl  # Windows has none, and no JACK for these tests.

    for place in range(_PLACES):
        path = Path(tempfile.gettempdir()) / f"midinet-test-jack-{place}.lock"
        lock = os.open(path, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return place, lock
    pytest.fail(f"{_PLACES} servers of JACK run in tests already")


def need_jack() -> str:
    """Return the path of JACK's server, or skip the test where there is none or where it cannot run."""
    program = need_program("jackd", "Debian: apt-get install jackd2")
    need(sys.platform != "linux" or os.access("/dev/shm", os.W_OK), "a /dev/shm to write to, for JACK")
    need(importlib.util.find_spec("jack"), "JACK-Client (pip install JACK-Client)")
    return program


def load_rtmidi() -> Any:
    """Return python-rtmidi, or skip the test where it is not installed or without JACK."""
    try:
        rtmidi = importlib.import_module("rtmidi")
    except ImportError:
        rtmidi = None
    need(rtmidi, "python-rtmidi (pip install python-rtmidi)")
    assert rtmidi is not None
    need(rtmidi.API_UNIX_JACK in rtmidi.get_compiled_api(), "a python-rtmidi that knows JACK")
    return rtmidi


def _end_with_parent() -> None:
    # A test process that is killed would leave its own.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Instrument:
    """Something with a MIDI output, which one hears, and a MIDI input, which one plays on.

    It is a process of its own, as rtmidi holds up the whole interpreter while it opens or closes anything.
    It does without rtmidi, which crashes now and then when it closes an input: JACK waits ten seconds for a
    client that has crashed, and holds up everybody else meanwhile.

    Attributes:
        out, into: the whole names of these ports.
        heard: the messages that it was sent.
    """

    def __init__(self, name: str, *, plays: bool = True, sounds: bool = True) -> None:
        self.out, self.into = f"{name} out:midi", f"{name} in:midi"
        self.heard: list[bytes] = []
        ports = [name if plays else "", name if sounds else ""]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _INSTRUMENT, *ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, name=f"instrument {name}")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.heard.extend(bytes.fromhex(line) for line in self._process.stdout)

    def play(self, *messages: Sequence[int]) -> None:
        """Send messages."""
        self._tell(" ".join([bytes(message).hex() for message in messages]))

    def play_bends(self, count: int) -> None:
        """Begin to send the pitch bends of the first so many numbers, some 3,000 a second."""
        self._tell(f"bends {count}")

    def _tell(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()

    def begin_unplug(self) -> None:
        """Begin to go. Several at once take no longer than one."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def unplug(self) -> None:
        """Be gone."""
        self.begin_unplug()
        if self._process.returncode is None:
            assert self._process.stdout is not None
            self._process.wait(_START_S)
            self._reader.join()
            self._process.stdout.close()


def bend(number: int) -> bytes:
    """The pitch bend of a number, below 16,384."""
    return bytes((0xE0, number & 127, number >> 7))


_INSTRUMENT = """
import collections, jack, queue, sys, threading, time

plays, sounds = sys.argv[1:]
jack.set_error_function(lambda text: None)
jack.set_info_function(lambda text: None)
clients = []


def open_client(name, register, process):
    client = jack.Client(name, no_start_server=True)
    port = register(client)("midi")
    client.set_process_callback(lambda frames: process(port))
    client.activate()
    clients.append(client)


# What is to be sent, and what was heard: JACK's threads wait for nobody who reads it.
due, heard = collections.deque(), queue.SimpleQueue()
# What is left to be done before it goes: whoever hears it has it in the same cycle, or in the next.
left, has_sent = [], threading.Event()


def send(port):
    port.clear_buffer()
    if left and not due and not left.pop():
        has_sent.set()
    while due:
        try:
            port.write_midi_event(0, due[0])
        except jack.JackErrorCode:
            return  # JACK's buffer is full: in the next period.
        due.popleft()


def hear(port):
    for _, event in port.incoming_midi_events():
        heard.put(bytes(event))


def tell():
    begun = b""
    while (event := heard.get()) is not None:
        # A long system exclusive message comes in several events.
        begun += event
        if begun[:1] != b"\\xf0" or begun[-1:] == b"\\xf7":
            print(begun.hex(), flush=True)
            begun = b""


teller = threading.Thread(target=tell)
teller.start()
if plays:
    open_client(f"{plays} out", lambda client: client.midi_outports.register, send)
if sounds:
    open_client(f"{sounds} in", lambda client: client.midi_inports.register, hear)
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "bends":
        for number in range(int(words[1])):
            due.append(bytes((0xE0, number & 127, number >> 7)))
            if number % 10 == 9:
                time.sleep(0.003)
    else:
        due.extend(bytes.fromhex(word) for word in words)
if plays:
    left.extend([False, True, True])
    has_sent.wait(1)  # But for a server that has died.
for client in clients:
    client.deactivate()
    client.close()
heard.put(None)
"""
