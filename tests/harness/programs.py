"""Programs that tests start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Seconds that a program gets to end by itself.
_END_S = 5.0


def end(process: subprocess.Popen[Any]) -> None:
    """End a program that may still run, by Ctrl-C if that helps.

    JACK waits for a client that was killed, for ten seconds and more, in which no other gets in.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()
    process.wait()


def uncovered() -> dict[str, str]:
    """Return the environment for a program that gets interrupted: this one's, without measuring coverage.

    What measures it takes a lock of its own for every call, in Python, which an interrupt at any moment
    leaves locked.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@contextmanager
def running(code: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program, with pipes to and from it, for the time of a block at most.

    Args:
        code: the program, in which every warning is an error.
        arguments: what it finds in sys.argv.
        options: more of subprocess.Popen's.
    """
    argv = [sys.executable, "-W", "error", "-c", code, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()
