"""The benchmark of bridges runs, ends well and prints every row, or says in one line what it lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import hardware
from tests.harness.jack import load_rtmidi
from tests.harness.needs import need_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.full
def test_it_prints_every_way() -> None:
    need_program("jackd", "Debian: apt-get install jackd2")
    load_rtmidi()
    words = [sys.executable, "-m", "benchmarks.hardware", "--quick", "--unpinned"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    for way in ("JACK alone", "hub, socket", "hub, TCP, bridge"):
        assert f"\n{way} " in done.stdout


def test_without_jackd_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert hardware.BENCHMARK.run(["--quick", "--unpinned"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line == "nothing is measured: jackd is not installed (Debian: apt-get install jackd2)"


def test_a_jackd_that_does_not_start_is_named_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    load_rtmidi()
    for name in ("jackd", "jack_lsp"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "")
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "")
    assert hardware.BENCHMARK.run(["--quick", "--unpinned"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line == "nothing is measured: jackd is installed, but does not start here"
