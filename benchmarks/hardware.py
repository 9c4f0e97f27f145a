"""From one instrument to another through a bridge, beside JACK alone, in µs (microseconds).

JACK's dummy driver gives rtmidi virtual instruments without any hardware; where jackd or python-rtmidi is not
installed, there is nothing to measure. A player sends numbered pitch bends at a moderate rate, at times of
its own, and is heard in three ways at once:

- "JACK alone": by an input of another process that is connected to it directly.
- "hub, socket": by a bridge in the hub's process, and from the hub by a bare socket.
- "hub, TCP, bridge": by that hub, from there over TCP by a bridge in another process, and through that one's
  output by another input of the first process.

"median" and "99 %" are from the sending of a message to its being heard. JACK hands messages over once a
period, which is 256 frames at 48 kHz, 5,333 µs. So what counts is "added": how much later the very same
message was heard than by JACK alone. The second way is heard as soon as it is there; the third goes through
JACK once more, which takes it a period, so of what is added there 5,333 µs are JACK's own.

Each figure is the median of the rounds' figures. "lost" messages were not heard, or not within a second after
the last was sent, and are the sum over the rounds. JACK's server does not wait for a client that is late to
run, and what came in the period is lost to it: on a machine where nothing runs in real time, that is seen
with JACK alone too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from midinet import Parser

from . import servers
from .runner import Benchmark, NothingToMeasureError, bounded
from .table import Column, Table, middle, percentiles, total

PERCENTS = (50.0, 99.0)

# Seconds.
_START_S = 15.0
_LAST_S = 1.0
_LOOK_S = 0.05

# As many numbers as a pitch bend has.
_MAX_COUNT = 1 << 14

# What was heard when, by number, in seconds.
Heard = dict[int, float]


def load_rtmidi() -> Any:
    """Return the module rtmidi, where this machine has all that is needed."""
    for name in ("jackd", "jack_lsp"):
        if shutil.which(name) is None:
            raise NothingToMeasureError(f"{name} is not installed (Debian: apt-get install jackd2)")
    try:
        rtmidi = importlib.import_module("rtmidi")
    except ImportError:
        raise NothingToMeasureError(
            "python-rtmidi is not installed (pip install 'midinet[rtmidi]')"
        ) from None
    if rtmidi.API_UNIX_JACK not in rtmidi.get_compiled_api():
        raise NothingToMeasureError("this python-rtmidi has no JACK")
    return rtmidi


@contextmanager
def jack_server() -> Iterator[None]:
    """Run a JACK server without hardware, which all processes started from here on find."""
    # JACK has few places for servers, and one that was killed keeps its own until its name comes again.
    name = "midinet-benchmark"
    os.environ["JACK_DEFAULT_SERVER"] = name
    os.environ["JACK_NO_AUDIO_RESERVATION"] = "1"
    words = ["jackd", "--name", name, "--no-realtime", "-d", "dummy", "-r", "48000", "-p", "256"]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=nowhere, stderr=nowhere) as process:
        try:
            end = time.monotonic() + _START_S
            while subprocess.run(["jack_lsp", "-s", name], stdout=nowhere, stderr=nowhere).returncode:
                if process.poll() is not None or time.monotonic() > end:
                    raise NothingToMeasureError("jackd is installed, but does not start here")
                time.sleep(_LOOK_S)
            yield
        finally:
            process.terminate()


@contextmanager
def recorder(cores: tuple[int, int] | None) -> Iterator[dict[str, Heard]]:
    """Record for the time of a block. What was heard is there after it."""
    heard: dict[str, Heard] = {}
    words = servers.command("instruments", "recorder", cores)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=servers.ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        yield heard
        process.stdin.close()
        for name, numbers in json.loads(process.stdout.readline()).items():
            heard[name] = {int(number): at for number, at in numbers.items()}


def listen(portno: int, heard: Heard) -> tuple[socket.socket, threading.Thread]:
    """Hear the hub by a bare socket, in another thread, until it is closed."""
    sock = socket.create_connection(("127.0.0.1", portno))
    parser = Parser()

    def read() -> None:
        while data := sock.recv(65536):
            at = time.monotonic()
            for frame in parser.frames(data):
                if frame[0] == 0xE0:
                    heard[frame[1] | frame[2] << 7] = at

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return sock, thread


def play(player: Any, options: argparse.Namespace) -> Heard:
    """Send the numbers, and return when each was sent."""
    random = Random(4)
    sent: Heard = {}
    for number in range(options.count):
        time.sleep(random.uniform(0.5, 1.5) / options.rate)
        sent[number] = time.monotonic()
        player.send_message((0xE0, number & 127, number >> 7))
    time.sleep(_LAST_S)
    return sent


def play_through(player: Any, options: argparse.Namespace) -> tuple[Heard, dict[str, Heard]]:
    """Play once, and return when what was sent, and heard by the way it took."""
    socket_heard: Heard = {}
    with (
        bounded(),
        recorder(options.cores) as recorded,
        servers.start("instruments", "hub", options.cores) as hub,
        servers.start("instruments", "far", options.cores, portno=hub.portno),
    ):
        sock, thread = listen(hub.portno, socket_heard)
        sent = play(player, options)
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        sock.close()
    ways = {
        "JACK alone": recorded["near"],
        "hub, socket": socket_heard,
        "hub, TCP, bridge": recorded["far"],
    }
    return sent, ways


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    options.count = min(options.count, _MAX_COUNT)
    columns = [
        Column("median µs", middle("us", 0)),
        Column("99 % µs", middle("us", 1)),
        Column("added median µs", middle("added_us", 0)),
        Column("added 99 % µs", middle("added_us", 1)),
        Column("lost", total("lost")),
    ]
    title = f"Through bridges, {options.count:,} messages a round at {options.rate:,.0f}/s"
    return [Table(title, ["way"], columns)]


def measure(options: argparse.Namespace, table: Table) -> None:
    """Measure a round: every way at once."""
    rtmidi = load_rtmidi()
    with jack_server():
        player = rtmidi.MidiOut(rtmidi.API_UNIX_JACK, name="player")
        player.open_virtual_port("out")
        sent, ways = play_through(player, options)
        player.delete()
    near = ways["JACK alone"]
    for way, heard in ways.items():
        whole = [at - sent[number] for number, at in heard.items()]
        added = [at - near[number] for number, at in heard.items() if number in near and heard is not near]
        table.add(
            way,
            us=percentiles(whole, PERCENTS, 1e6),
            added_us=percentiles(added, PERCENTS, 1e6),
            lost=len(sent.keys() - heard.keys()),
        )


BENCHMARK = Benchmark("benchmarks.hardware", __doc__, tables, measure)
BENCHMARK.size("count", 1_000, 20, "messages in a round, 16,384 at most")
BENCHMARK.size("rate", 200.0, 200.0, "messages a second")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
