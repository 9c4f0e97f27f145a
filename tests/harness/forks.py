"""A fork server: commands in processes of their own, without the time that an interpreter takes to start.

A command takes a quarter of a second of processor time to begin, nearly all of it imports. Here one process
imports everything once, and each command is a fork of it: a real process, with descriptors, signals, a
terminal, an exit status and the end of an interpreter, in a tenth of that time.

What is not as after a start: modules are there before they are used. Whatever asks for an interpreter that
starts differently (another locale, variables for Python itself, a function that is called before) gets one of
its own, and so does a client of JACK, and everything where there is no Linux or where coverage is measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

# From linux/prctl.h.
_PR_SET_CHILD_SUBREAPER = 36

# A request is arguments and an environment.
_MAX_REQUEST = 1 << 20

# The options of subprocess.Popen that forks know.
_OPTIONS = {"stdin", "stdout", "stderr", "env", "cwd", "preexec_fn"}

_ROOT = Path(__file__).parents[2]


def _of_interpreters(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that decide how an interpreter starts."""
    return {
        name: value
        for name, value in environment.items()
        if name == "LANG" or name.startswith(("LC_", "LD_", "PYTHON", "COVERAGE"))
    }


def _is_measured() -> bool:
    """Return whether coverage is measured, which processes do from their start."""
    return any(name.startswith("COVERAGE") for name in os.environ)


class ForkServer:
    """Starts commands as forks of one process, which begins with the server."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        # Requests come from several threads, and each waits for its own answer.
        self._lock = threading.Lock()
        if sys.platform == "linux" and not _is_measured():
            self._begin()

    def _begin(self) -> None:
        self._environment = _of_interpreters(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.forks", str(theirs.fileno())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End it. Commands that still run go on."""
        if self._process is not None:
            self._socket.close()
            self._process.wait()

    def start(self, arguments: tuple[str, ...], **options: Any) -> Any:
        """Start `midinet ...` and return its process, a `Fork` or a subprocess.Popen.

        Args:
            arguments: of the command.
            options: of subprocess.Popen.
        """
        terminal = _terminal_of(options.get("preexec_fn"))
        environment = dict(os.environ if options.get("env") is None else options["env"])
        if (
            self._process is None
            or set(options) - _OPTIONS
            or (options.get("preexec_fn") is not None and terminal is None)
            or _of_interpreters(environment) != self._environment
            # Tests with JACK failed in some of the runs in which its clients were forks; why is not known.
            or "jack" in arguments
        ):
            return subprocess.Popen([sys.executable, "-m", "midinet", *arguments], **options)
        return self._fork(arguments, environment, terminal, options)

    def _fork(
        self, arguments: tuple[str, ...], environment: dict[str, str], terminal: int | None, options: Any
    ) -> Fork:
        request = pickle.dumps((arguments, environment, os.fspath(options.get("cwd") or os.getcwd())))
        ours, theirs, pipes = _streams(options)
        descriptors = theirs if terminal is None else [*theirs, terminal]
        prctl = ctypes.CDLL(None).prctl
        with self._lock:
            # The process that forks the command ends at once, which makes the command a child of this one.
            prctl(_PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self._socket, [request], descriptors)
                answer = self._socket.recv(64)
            finally:
                prctl(_PR_SET_CHILD_SUBREAPER, 0)
                for descriptor in pipes:
                    os.close(descriptor)
        assert answer, "the fork server has ended"
        return Fork(int(answer), ["midinet", *arguments], ours)


def _terminal_of(preexec_fn: Any) -> int | None:
    """Return the terminal that a function takes as the process's own; None if it does anything else."""
    if isinstance(preexec_fn, functools.partial) and preexec_fn.func is os.login_tty:
        return int(preexec_fn.args[0])
    return None


def _streams(options: Any) -> tuple[list[IO[bytes] | None], list[int], list[int]]:
    """Return our ends of the standard streams, the descriptors for the process, and those to close then."""
    ours: list[IO[bytes] | None] = []
    theirs: list[int] = []
    pipes: list[int] = []
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        option, end = options.get(name), None
        if option is None:
            option = number
        elif option == subprocess.DEVNULL:
            option = os.open(os.devnull, os.O_RDWR)
            pipes.append(option)
        elif option == subprocess.PIPE:
            reader, writer = os.pipe()
            option, end = (
                (reader, os.fdopen(writer, "wb")) if number == 0 else (writer, os.fdopen(reader, "rb"))
            )
            pipes.append(option)
        elif option == subprocess.STDOUT:
            option = theirs[1]
        ours.append(end)
        theirs.append(option if isinstance(option, int) else option.fileno())
    return ours, theirs, pipes


class Fork:
    """The process of a command, as far as subprocess.Popen has the same.

    Attributes:
        pid: its number.
        args: the command, for people.
        returncode: its exit status, or the negative number of the signal that ended it; None if it runs.
        stdin, stdout, stderr: our ends of pipes, where it was started with such.
    """

    def __init__(self, pid: int, args: list[str], streams: list[IO[bytes] | None]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = streams

    def poll(self) -> int | None:
        """Return the exit status, or None if it still runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                ended, _, _ = select.select([descriptor], [], [], timeout)
            finally:
                os.close(descriptor)
            if not ended:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _import_everything() -> None:
    """Import what commands import, as far as it is installed."""
    import importlib
    import pkgutil

    import midinet.cli
    import midinet.gateways

    for package in (midinet.cli, midinet.gateways):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            _import(importlib, module.name)
    for name in ("rich.live", "rich.progress", "rich.table", "rich.text", "uvloop", "zeroconf.asyncio"):
        _import(importlib, name)

    from midinet.cli.app import run_app

    # What reads the arguments imports more when it does so first.
    with contextlib.redirect_stdout(io.StringIO()):
        run_app(["demo", "--help"])


def _import(importlib: Any, name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # An extra that is not installed: who needs it says so.


def _serve(sock: socket.socket) -> tuple[tuple[str, ...], dict[str, str], str, list[int]] | None:
    """Fork for each request. Return the request in the fork, and None at the end in the server."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, _MAX_REQUEST, 4)
        if not data:
            return None
        reader, writer = os.pipe()
        parent = os.fork()
        if not parent:
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
                os._exit(0)
            for descriptor in (reader, writer):
                os.close(descriptor)
            return *pickle.loads(data), descriptors
        os.waitpid(parent, 0)
        # The command is somebody else's child by now.
        sock.send(os.read(reader, 64))
        for descriptor in (reader, writer, *descriptors):
            os.close(descriptor)


def _become(
    arguments: tuple[str, ...], environment: dict[str, str], cwd: str, descriptors: list[int]
) -> None:
    """Have this process look as one that was started with a request."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    if len(descriptors) > 3:
        os.login_tty(os.dup(descriptors[3]))
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(cwd)
    sys.argv[1:] = arguments
    # As Python makes them.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        old = getattr(sys, name)
        new = os.fdopen(old.fileno(), mode, encoding=old.encoding, errors=old.errors, closefd=False)
        if name == "stderr":
            new.reconfigure(line_buffering=True)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _main() -> None:
    import gc

    # Ctrl-C in a terminal is for who runs the tests.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv.pop()))
    _import_everything()
    from midinet.__main__ import main

    # What is there stays, and is not looked through in each of the forks.
    gc.collect()
    gc.freeze()
    request = _serve(sock)
    sock.close()
    if request is not None:
        signal.signal(signal.SIGINT, interrupted)
        _become(*request)
        sys.exit(main())


if __name__ == "__main__":
    _main()
