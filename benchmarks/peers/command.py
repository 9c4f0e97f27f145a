"""A program that knows nothing of these benchmarks: started, waited for, and ended.

In its words, and in its configuration if it has one, {port} stands for the port number to listen on, and in
its words {config} for the file with the configuration. It runs on the core that this process is given.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import process

# Seconds.
_MAX_START_S = 15.0
_MAX_STOP_S = 1.0
_LOOK_EVERY_S = 0.02

# Another process may take a port between its choice and its use.
_TRIES = 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        portno: int = listener.getsockname()[1]
    return portno


@contextmanager
def running(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_MAX_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def listens(child: subprocess.Popen[bytes], portno: int) -> bool:
    """Wait until the program listens, or has ended without."""
    end = time.monotonic() + _MAX_START_S
    while child.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", portno)).close()
        except OSError:
            time.sleep(_LOOK_EVERY_S)
        else:
            return True
    return False


def main(ended: threading.Event, directory: Path, *, words: Sequence[str], config: str = "") -> None:
    file, log = directory / "config", directory / "log"
    for _ in range(_TRIES):
        portno = free_port()
        file.write_text(config.replace("{port}", str(portno)))
        filled = [word.replace("{port}", str(portno)).replace("{config}", str(file)) for word in words]
        with running(filled, log) as child:
            if listens(child, portno):
                process.ready(portno, child.pid)
                ended.wait()
                return
    sys.exit(f"{words[0]} does not listen: {log.read_text(errors='replace')}")


ended = threading.Event()
_, options = process.begin_with_options("relay", at_end=ended.set)
with tempfile.TemporaryDirectory() as name:
    main(ended, Path(name), **options)
