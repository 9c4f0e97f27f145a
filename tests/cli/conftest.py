"""The command line as people run it: processes, with what they print in files that tests can wait on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.forks import ForkServer
from tests.harness.programs import end
from tests.harness.waiting import PATIENCE_S, wait_until


class Command:
    """`midinet ...` in a process of its own.

    Args:
        server: which starts it.
        directory: for what it prints.
        arguments: of the command.
        options: of subprocess.Popen.
    """

    def __init__(
        self, server: ForkServer, directory: Path, arguments: tuple[str, ...], options: dict[str, Any]
    ) -> None:
        self.files = {"out": directory / "out", "err": directory / "err"}
        with self.files["out"].open("wb") as out, self.files["err"].open("wb") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err}
            self.process = server.start(arguments, **{**streams, **options})

    @property
    def out(self) -> str:
        return self.files["out"].read_text()

    @property
    def err(self) -> str:
        return self.files["err"].read_text()

    def wait_for(self, text: str, *, where: str = "out", count: int = 1) -> None:
        """Wait until it has printed a text, so many times."""

        def is_there() -> bool:
            # In this order: what it printed last is there once it has ended.
            has_ended = self.process.poll() is not None
            there = self.files[where].read_text().count(text) >= count
            assert there or not has_ended, f"it ended without {text!r}: {self.out!r}, {self.err!r}"
            return there

        wait_until(is_there, f"{text!r} from {self.process.args}")

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(PATIENCE_S)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it stand still for the block. Signals that it gets meanwhile are what it heeds first."""
        self.process.send_signal(signal.SIGSTOP)
        ended = os.WEXITED | os.WNOWAIT
        found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | ended)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED, "it has ended"
        yield
        self.process.send_signal(signal.SIGCONT)


class Hub(Command):
    """`midinet serve` on a free port. `address` says where; `wait_for("connected")` who is there."""

    def __init__(
        self, server: ForkServer, directory: Path, arguments: tuple[str, ...], options: dict[str, Any]
    ) -> None:
        super().__init__(server, directory, ("serve", "127.0.0.1:0", *arguments), options)
        self.wait_for("\n")
        # As text or as JSON.
        self.address = re.findall(r"127\.0\.0\.1:\d+", self.out)[0]
        self.portno = int(self.address.rpartition(":")[2])


@pytest.fixture
def start(
    fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Command]]:
    """Start commands, and end those that still run at the end."""
    commands: list[Command] = []

    def start(*arguments: str, kind: type[Command] = Command, **options: Any) -> Command:
        command = kind(fork_server, tmp_path_factory.mktemp("command"), arguments, options)
        commands.append(command)
        return command

    yield start
    for command in commands:
        end(command.process)
        for pipe in (command.process.stdin, command.process.stdout, command.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def run(start: Callable[..., Command]) -> Callable[..., tuple[int, str, str]]:
    """Run a command to its end: (exit status, standard output, standard error)."""

    def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
        command = start(*arguments, **options)
        return command.wait(), command.out, command.err

    return run


@pytest.fixture
def start_hub(start: Callable[..., Any]) -> Callable[..., Any]:
    """Start a `Hub` with arguments of `serve` and options of subprocess.Popen."""
    return partial(start, kind=Hub)


@pytest.fixture
def hub(start_hub: Callable[..., Any]) -> Any:
    """A hub that shows what happens."""
    return start_hub()


@pytest.fixture
def quiet_hub(start_hub: Callable[..., Any]) -> Any:
    """A hub that shows nothing."""
    return start_hub("--quiet")
