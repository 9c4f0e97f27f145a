"""Each benchmark runs, ends well, prints every row and saves it. Nothing here looks at a time."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

import benchmarks
from benchmarks.contenders import CONTENDERS
from benchmarks.runner import Benchmark
from tests.harness.needs import need

ROOT = Path(__file__).resolve().parents[2]

# Seconds that a program may take: many times what it does, and less than pytest lets a test take.
PATIENCE_S = 100.0

PARSERS = ["mido.Parser", "midinet Parser.feed", "midinet Parser.frames"]
CLIENTS = ["midinet", "midinet.sync", "asyncio+mido", "mido", "bare socket"]
SERVERS = ["midinet", "asyncio+mido", "mido"]

# By program, those that it has and that are installed.
HUBS = [contender.name for contender in CONTENDERS if contender.is_there()]
RELAYS = [name for name in HUBS if name in ("midinet serve", "midinet serve --uvloop")]
NATS = [name for name in HUBS if name == "nats-server"]
UVLOOP = ["midinet on uvloop"] if find_spec("uvloop") else []
IS_JOINED = bool(NATS) and find_spec("nats") is not None

# By program, what its rows begin with.
ROWS: dict[str, list[tuple[str, ...]]] = {
    "parser": [
        *product(["played", "all kinds", "running status, clock"], PARSERS),
        ("decode one frame", "mido Message.from_bytes"),
        ("decode one frame", "midinet decode"),
        ("encode one message", "mido Message.bin"),
        ("encode one message", "midinet encode"),
    ],
    "latency": [*product(SERVERS, CLIENTS)],
    "fanout": [*product(["1", "10"], HUBS)],
    "jam": [*product(["2", "5"], [*RELAYS, "asyncio+mido", *NATS, "bare sockets"])],
    "growth": [*((name,) for name in [*RELAYS, *NATS, "bare sockets"]), *product(["1", "10"], RELAYS)],
    "session": [
        ("1", "4"),
        ("2", "2"),
        *(
            (name,)
            for name in ["one hub by itself", "midinet", *UVLOOP, "nats-py alone", "nats-server alone"]
        ),
        *product(["1", "10"], ["0", "1"]),
        *((state,) for state in ["none", "there", "stopped", "killed"]),
    ],
    "sysex": [*((name,) for name in 2 * [*RELAYS, "asyncio+mido", "bare sockets"])],
    "sync": [
        ("receive", "messages/s"),
        ("send", "messages/s"),
        *((f"round trip, {server} server", "µs") for server in SERVERS),
        ("round trip, own blocking server", "µs"),
    ],
}


def run(program: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-m", f"benchmarks.{program}".rstrip("."), *options],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def rows(lines: list[str]) -> list[list[str]]:
    """The cells of the rows of all tables, each of which ends at an empty line."""
    found = []
    in_table = False
    for line in lines:
        if line.startswith("---"):
            in_table = True
        elif not line:
            in_table = False
        elif in_table:
            found.append([cell.strip() for cell in line.split("  ") if cell.strip()])
    return found


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[list[str], Path]]:
    """Run a program once, quick. Returns what it printed and where it saved the rest."""

    @cache
    def run_once(program: str) -> tuple[list[str], Path]:
        directory = tmp_path_factory.mktemp(program) / "results"
        return run(program, "--quick", "--save", str(directory)).splitlines(), directory

    return run_once


@pytest.mark.full
@pytest.mark.parametrize("program", ROWS)
def test_a_quick_run_prints_and_saves_the_machine_and_every_row(
    program: str, quick_run: Callable[[str], tuple[list[str], Path]]
) -> None:
    need(program != "session" or IS_JOINED, "nats-server and nats-py")
    lines, directory = quick_run(program)

    assert "midinet" in lines[0]
    assert "mido 1." in lines[0]
    found = rows(lines)
    heads = [tuple(row[: len(head)]) for row, head in zip(found, ROWS[program], strict=True)]
    assert heads == ROWS[program]
    saved = json.loads((directory / f"{program}.json").read_text(encoding="utf-8"))
    assert sum(len(table["rows"]) for table in saved["tables"]) == len(found)
    assert all(len(table["rounds"]) >= len(table["rows"]) for table in saved["tables"])
    assert saved["options"]["rounds"] == 1
    assert {"mido", "midinet"} <= set(saved["versions"])
    markdown = (directory / f"{program}.md").read_text(encoding="utf-8").splitlines()
    titles = 2 * len(saved["tables"])
    assert len([line for line in markdown if line.startswith("| ")]) == len(found) + titles


@pytest.mark.full
def test_fan_out_loses_nothing_and_says_who_is_missing(
    quick_run: Callable[[str], tuple[list[str], Path]],
) -> None:
    lines, _ = quick_run("fanout")

    assert {row[-1] for row in rows(lines)} == {"0"}
    missing = [contender.name for contender in CONTENDERS if not contender.is_there()]
    notes = [f"Left out, since they are not installed: {', '.join(missing)}."] if missing else []
    assert [line for line in lines if "Left out" in line or "failed" in line] == notes


@pytest.mark.full
def test_all_programs_run_by_one_command(tmp_path: Path) -> None:
    out = run("", "--only", "parser", "sync", "--quick", "--save", str(tmp_path))

    assert out.index("=== parser ===") < out.index("=== sync ===")
    assert {file.name for file in tmp_path.iterdir()} >= {"parser.json", "sync.json"}


@pytest.mark.full
def test_the_one_command_fails_where_a_program_does() -> None:
    with pytest.raises(AssertionError, match="unrecognized arguments: --window"):
        run("", "--only", "parser", "--quick", "--window", "1")


def test_the_list_of_programs_is_complete() -> None:
    directory = Path(benchmarks.__file__).parent
    programs = {
        file.stem for file in directory.glob("*.py") if "BENCHMARK.run(" in file.read_text(encoding="utf-8")
    }
    assert programs == set(benchmarks.PROGRAMS)
    assert all(f"python -m benchmarks.{program} " in (benchmarks.__doc__ or "") for program in programs)


def call(program: str, *options: str) -> int:
    """Run a program in this process."""
    benchmark: Benchmark = importlib.import_module(f"benchmarks.{program}").BENCHMARK
    return benchmark.run(list(options))


@pytest.mark.parametrize(
    ("program", "options", "words"),
    [
        ("promises", ["--only", "nothing"], "invalid choice: 'nothing'"),
        ("fanout", ["--only", "midinet"], "invalid choice: 'midinet'"),
        ("parser", ["--count", "0"], "--count has to be above 0"),
        ("jam", ["--players", "1"], "--players has to be from 2"),
        ("jam", ["--players", "129"], "--players has to be from 2"),
        ("jam", ["--seconds", "100"], "--seconds times --rate has to be"),
        ("session", ["--hubs", "1"], "--hubs has to be 2"),
        ("session", ["--together", "100000"], "--together has to be"),
        ("latency", ["--count", "many"], "invalid int value: 'many'"),
        ("latency", ["--window", "1"], "unrecognized arguments: --window 1"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    program: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(program, "--quick", "--unpinned", *options)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("program", benchmarks.PROGRAMS)
def test_help_says_what_is_measured(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(program, "--help")

    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "a second" in text or "microseconds" in text
    assert "--quick" in text
    assert "--rounds" in text
