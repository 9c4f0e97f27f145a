"""A real nats-server that is killed, stopped and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.needs import need_program

if TYPE_CHECKING:
    from typing import Self

# Seconds. Far beyond what a start takes.
_PATIENCE_S = 20.0


class NatsServer:
    """nats-server on a port of 127.0.0.1 that the system picks, the same at every start.

    Args:
        options: more of its command line.
    """

    def __init__(self, *options: str) -> None:
        self._program = need_program("nats-server", "Debian: apt-get install nats-server")
        self._options = options
        self._directory = tempfile.TemporaryDirectory(prefix="midinet-nats-")
        self._process: subprocess.Popen[bytes] | None = None
        self.portno = -1
        self.cluster_portno = -1

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.portno}"

    @property
    def cluster_url(self) -> str:
        return f"nats://127.0.0.1:{self.cluster_portno}"

    def start(self, *more: str) -> None:
        for old in Path(self._directory.name).iterdir():
            old.unlink()
        ports = ("--addr", "127.0.0.1", "--port", str(self.portno), "--ports_file_dir", self._directory.name)
        self._process = subprocess.Popen(
            [self._program, *ports, *self._options, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            assert self._process.poll() is None, "nats-server did not start"
            assert time.monotonic() < deadline, "nats-server did not say where it listens"
            for found in Path(self._directory.name).glob("*.ports"):
                try:
                    ports_told = json.loads(found.read_text())
                except ValueError:
                    continue  # It is being written.
                self.portno = int(ports_told["nats"][0].rpartition(":")[2])
                if "cluster" in ports_told:
                    self.cluster_portno = int(ports_told["cluster"][0].rpartition(":")[2])
                return
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._directory.cleanup()
