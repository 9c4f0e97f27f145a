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

# What the promises' rows begin with, up to the first number that depends on the sizes.
PROMISES = [
    *(
        f"note-offs when a client {end}, {count} listening"
        for count in (1, 2)
        for end in ("resets", "closes", "is killed")
    ),
    "note-offs in a client whose server is killed",
    "one stalled among 32 readers adds to the others' 99 %",
    *(
        f"8 stalled readers cost, {what} at full speed{system}"
        for what in ("all channels", "sysex")
        for system in ("", ", with the system's buffers")
    ),
    "99 % of 6 peers sending 100/s beside a flood",
    "... of which lost",
    "... what the flood came to",
    "max_rate=20,000",
    "10 clients back once a server listens again, gone for 0.5 s",
    "... how long it was gone",
    "... the most in any 100 ms",
    "first try of 10 clients whose server resets them",
    "... the most in any 100 ms",
    "active sensing that falls silent",
    "a stopped process is let go of, dead_peer_timeout=2",
    "a vanished host is let go of, idle, dead_peer_timeout=2",
    "a vanished host is let go of, with data under way, dead_peer_timeout=2",
    "a good client is in beside 20 that drip and 10 stalled TLS handshakes",
    "... with TLS",
    "... when it came behind all of them at once",
    "... until the last of the bad is gone",
    "out of descriptors, from the first free one to accepting",
    "SIGTERM to the end, with 32 that read and one that does not",
    "... notes left hanging at those who read",
    "memory after 80 connects and disconnects",
    "... descriptors and threads",
    "memory after 20 with TLS",
    "... descriptors and threads",
    "... together",
]


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


@pytest.mark.skipif(sys.platform != "linux", reason="much of it is measured by what Linux alone tells")
def test_a_quick_run_of_the_promises_prints_every_row() -> None:
    lines = run("promises", "--quick").splitlines()

    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[rule + 1 :]]
    assert [row[0] for row in rows] == PROMISES
    # Whether they are kept is not for a quick run to say, but that all that can be measured is measured.
    verdicts = {row[-1] for row in rows}
    assert verdicts <= {"yes", "no", "-", "not measured: needs Linux and root"}


def test_a_part_of_the_promises_can_be_measured_alone() -> None:
    with pytest.raises(AssertionError, match="invalid choice"):
        run("promises", "--only", "nothing")


@pytest.mark.parametrize("program", [*ROWS, "promises"])
def test_help_says_what_is_measured(program: str) -> None:
    text = run(program, "--help")

    assert "a second" in text or "microseconds" in text
    assert "--quick" in text
    assert "--rounds" in text
