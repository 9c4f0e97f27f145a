"""SIGTERM: `midinet serve` lets go of everything, and ends in time whoever does not read."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks import servers, streams
from benchmarks.crowd import Crowd, connect, send_some
from tests.promises.finding import Finding

_READERS = 32
_MOST_S = 3.0

# Messages, beforehand. It is more than the system takes for one that does not read.
_FLOOD = 65_536


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    ended = f"SIGTERM to the end, with {_READERS} that read and one that does not"
    hanging = "... notes left hanging at those who read"
    if importlib.util.find_spec("typer") is None or os.name != "posix":
        yield Finding(ended, _MOST_S, unit="s", why_not="needs midinet[cli] and signals")
        return
    taken, left = [], []
    for _ in range(options.rounds):
        seconds, notes = _end(options)
        taken.append(seconds)
        left.append(notes)
    yield Finding(ended, _MOST_S, taken, unit="s")
    yield Finding(hanging, 0, left, unit="")


def _end(options: argparse.Namespace) -> tuple[float, int]:
    """Return the seconds to the end and how many notes somebody still hears then."""
    words = [sys.executable, "-m", "midinet", "serve", "127.0.0.1:0", "--quiet"]
    with subprocess.Popen(words, cwd=servers.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            if options.cores:
                os.sched_setaffinity(process.pid, {options.cores[0]})
            assert process.stdout
            assert process.stderr
            portno = int(process.stdout.readline().rpartition(b":")[2])
            with (
                Crowd(portno, _READERS) as crowd,
                connect(portno) as sender,
                connect(portno, receive_buffer=2048),
            ):
                crowd.settle(sender)
                data, at = b"".join(streams.played_frames(_FLOOD)), 0
                while at < len(data):
                    at += send_some(sender, data[at:])
                    crowd.read()
                crowd.wait(lambda: not _reads_more(crowd), what="the flood is read")
                start = time.perf_counter()
                process.send_signal(signal.SIGTERM)
                crowd.wait(lambda: process.poll() is not None, what="the server ends")
                taken = time.perf_counter() - start
                crowd.wait(lambda: len(crowd.ended) == _READERS, what="all connections end")
                if process.returncode != 0 or process.stderr.read():
                    raise AssertionError(f"the server ended with status {process.returncode}")
                # Most have heard the same.
                return taken, max(_hanging(heard) for heard in {bytes(heard) for heard in crowd.heard})
        finally:
            process.kill()


def _reads_more(crowd: Crowd) -> bool:
    before = sum(map(len, crowd.heard))
    crowd.read(0.1)
    return sum(map(len, crowd.heard)) > before


def _hanging(heard: bytes) -> int:
    """Return how many notes sound at the end."""
    held: set[bytes] = set()
    at = 0
    while at < len(heard):
        kind = heard[at] & 0xF0
        key = bytes((heard[at] & 0x0F, heard[at + 1]))
        if kind == 0x90 and heard[at + 2]:
            held.add(key)
        elif kind in (0x80, 0x90):
            held.discard(key)
        at += 2 if kind in (0xC0, 0xD0) else 3
    return len(held)
