"""Each benchmark runs, ends well and prints every row. Nothing here looks at a time."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PARSERS = ["mido.Parser", "midinet Parser.feed", "midinet Parser.frames"]
CLIENTS = ["midinet", "midinet.sync", "asyncio+mido", "mido", "bare socket"]
SERVERS = ["midinet", "asyncio+mido", "mido"]
HUBS = ["midinet relay", "midinet loop", "asyncio+mido", "mido", "bare sockets"]

# By program, what its rows begin with.
ROWS = {
    "parser": [
        *product(["played", "all kinds", "running status, clock"], PARSERS),
        ("decode one frame", "mido Message.from_bytes"),
        ("decode one frame", "midinet decode"),
        ("encode one message", "mido Message.bin"),
        ("encode one message", "midinet encode"),
    ],
    "latency": [*product(SERVERS, CLIENTS)],
    "fanout": [*product(["1", "10"], HUBS)],
    "sync": [
        ("receive", "messages/s"),
        ("send", "messages/s"),
        *((f"round trip, {server} server", "µs") for server in SERVERS),
        ("round trip, own blocking server", "µs"),
    ],
}


def run(program: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-m", f"benchmarks.{program}", *options],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("program", ROWS)
def test_a_quick_run_prints_the_machine_and_every_row(program: str) -> None:
    lines = run(program, "--quick").splitlines()

    assert "midinet" in lines[0]
    assert "mido 1." in lines[0]
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    found = [tuple(cell for cell in line.strip().split("  ") if cell)[:2] for line in lines[rule + 1 :]]
    assert [tuple(cell.strip() for cell in row) for row in found] == ROWS[program]


@pytest.mark.parametrize("program", ROWS)
def test_help_says_what_is_measured(program: str) -> None:
    text = run(program, "--help")

    assert "a second" in text or "microseconds" in text
    assert "--quick" in text
    assert "--rounds" in text
