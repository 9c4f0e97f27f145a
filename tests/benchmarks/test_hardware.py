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
    assert hardware.main([]) == 0
    assert capsys.readouterr().out == (
        "nothing is measured: jackd is not installed (Debian: apt-get install jackd2)\n"
    )
