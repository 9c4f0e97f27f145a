"""Starts a peer server in a process of its own and ends it.

The server chooses a free port and tells it on its standard output, which is also how it says that it is
ready. It ends when its standard input closes, and is killed if it does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import machine

ROOT = Path(__file__).resolve().parent.parent

# Seconds. Importing mido takes a fifth of one, on a machine that is busy several.
_MAX_START_S = 20.0
_MAX_STOP_S = 2.0


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    portno: int
    pid: int

    def cpu_seconds(self) -> float | None:
        """Return the processor time it has used, in seconds, or None where the system does not tell."""
        return machine.cpu_seconds(self.pid)


def command(peer: str, role: str, cores: tuple[int, int] | None, **options: object) -> list[str]:
    """Return what starts a server, in the repository's root. The arguments are those of `start`."""
    words = [sys.executable, "-m", f"benchmarks.peers.{peer}", role]
    if cores:
        words += ["--core", str(cores[0])]
    if options:
        words += ["--options", json.dumps(options)]
    return words


@contextmanager
def start(peer: str, role: str, cores: tuple[int, int] | None, **options: object) -> Iterator[Server]:
    """Run a server for the time of a block.

    Args:
        peer: the module in `benchmarks.peers`.
        role: what it does with messages.
        cores: one for the server and one for the load, or None to leave that to the system.
        options: what else the peer takes.

    Raises:
        RuntimeError: it did not start.
    """
    words = command(peer, role, cores, **options)
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield _read_ready(process, peer)
        finally:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(_MAX_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _read_ready(process: subprocess.Popen[bytes], peer: str) -> Server:
    assert process.stdout
    killer = threading.Timer(_MAX_START_S, process.kill)
    killer.start()
    try:
        line = process.stdout.readline()
    finally:
        killer.cancel()
    if not line:
        raise RuntimeError(f"the server {peer} did not start: see its error above")
    # Where the peer itself is not the one that serves, it says who is.
    portno, *pid = map(int, line.split())
    return Server(portno, *pid or [process.pid])
