"""The runner: options, rounds, contenders in turn, what is printed, and what is saved. Nothing is started."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contenders, runner
from benchmarks.runner import Benchmark, NothingToMeasureError, OptionError, cpu_us
from benchmarks.table import Column, Table, middle

Run = Callable[..., list[str]]


def tables(options: argparse.Namespace) -> list[Table]:
    return [Table("Speed", ["server"], [Column("messages/s", middle("speed"))])]


def measure(options: argparse.Namespace, table: Table) -> None:
    table.add("hub", speed=options.count / 3 + table.number)


def benchmark(measure: Callable[..., None] = measure, **more: Any) -> Benchmark:
    made = Benchmark("benchmarks.example", "Messages a second.", tables, measure, **more)
    made.size("count", 100, 1, "messages")
    made.size("clients", [1, 10], [2], "clients")
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark, and return the lines that it prints."""

    def run(made: Benchmark, *words: str) -> list[str]:
        assert made.run([*words, "--unpinned"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return run


def test_sizes_are_full_or_quick_or_as_they_are_told() -> None:
    def sizes(*words: str) -> tuple[int, list[int], int]:
        options = benchmark().options([*words, "--unpinned"])
        return options.count, options.clients, options.rounds

    assert sizes() == (100, [1, 10], 5)
    assert sizes("--quick") == (1, [2], 1)
    assert sizes("--quick", "--count", "7", "--clients", "3", "4", "--rounds", "2") == (7, [3, 4], 2)


@pytest.mark.parametrize("words", [["--count", "0"], ["--clients", "1", "-1"], ["--rounds", "0"]])
def test_sizes_have_to_be_above_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark().run(words)

    assert capsys.readouterr().err.endswith(f"{words[0]} has to be above 0\n")


def test_options_that_cannot_be_together_are_refused_before_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(options: argparse.Namespace) -> list[Table]:
        raise OptionError("--count has to be less")

    with pytest.raises(SystemExit, match="2"):
        Benchmark("benchmarks.example", "", refuse, measure).run(["--unpinned"])

    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "python -m benchmarks.example: error: --count has to be less")


def test_the_machine_and_then_the_medians_of_all_rounds_are_printed(run: Run) -> None:
    facts, *rest = run(benchmark(), "--count", "300", "--rounds", "3")

    assert "midinet" in facts
    assert "mido 1." in facts
    assert rest == ["", "Speed", "", "server  messages/s", "------------------", "hub            101"]


def test_what_goes_through_the_rounds_by_itself_is_called_once() -> None:
    numbers = []

    def measure(options: argparse.Namespace, table: Table) -> None:
        numbers.append(options.rounds)

    assert benchmark(measure, once=True).run(["--unpinned", "--rounds", "3"]) == 0
    assert numbers == [3]


def test_every_round_is_saved_with_the_table_and_the_options(run: Run, tmp_path: Path) -> None:
    run(benchmark(), "--rounds", "2", "--save", str(tmp_path / "results"))

    saved = json.loads((tmp_path / "results" / "example.json").read_text(encoding="utf-8"))
    assert saved["program"] == "example"
    assert saved["options"]["rounds"] == 2
    assert "save" not in saved["options"]
    assert {"mido", "midinet"} <= set(saved["versions"])
    (table,) = saved["tables"]
    assert (table["title"], table["columns"]) == ("Speed", ["server", "messages/s"])
    # Six digits are more than any figure is worth.
    assert table["rows"] == [["hub", 33.8333]]
    assert [one["speed"] for one in table["rounds"]] == [33.3333, 34.3333]
    markdown = (tmp_path / "results" / "example.md").read_text(encoding="utf-8").splitlines()
    assert markdown[0] == "**Speed**"
    assert markdown[-1].startswith("`python -m benchmarks.example`; ")


def test_plots_are_drawn_of_what_is_saved(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(saved: Mapping[str, Any]) -> dict[str, str]:
        return {"speed": f"<svg>{saved['tables'][0]['rows']}</svg>"}

    monkeypatch.setattr(runner, "has_matplotlib", lambda: True)
    run(benchmark(draw=draw), "--quick", "--save", str(tmp_path))

    assert (tmp_path / "example-speed.svg").read_text() == "<svg>[['hub', 0.333333]]</svg>"


def test_without_matplotlib_one_note_says_so_and_all_else_is_saved(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "has_matplotlib", lambda: False)
    lines = run(benchmark(draw=lambda saved: {"speed": "never"}), "--quick", "--save", str(tmp_path))

    note = "No plot is drawn: matplotlib is not installed (pip install 'midinet[bench]')."
    assert [line for line in lines if "plot" in line] == [note]
    assert {file.name for file in tmp_path.iterdir()} == {"example.json", "example.md"}


def test_where_nothing_can_be_measured_one_line_says_so_and_what_was_saved_stays(
    run: Run, tmp_path: Path
) -> None:
    def measure(options: argparse.Namespace, table: Table) -> None:
        raise NothingToMeasureError("jackd is not installed")

    lines = run(benchmark(measure), "--quick", "--save", str(tmp_path))

    assert lines[1:] == ["nothing is measured: jackd is not installed"]
    assert list(tmp_path.iterdir()) == []


def compare(contender: contenders.Contender, options: argparse.Namespace, table: Table) -> None:
    table.add(contender.name)
    if contender.name == "mido" and table.number == 1:
        raise ConnectionError("the server closed a connection")
    table.add(contender.name, speed=1.0)


def test_contenders_take_turns_and_one_that_fails_is_noted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where there is no program, there is no broker.
    monkeypatch.setenv("PATH", "")
    made = benchmark(compare, contenders=["mido", "bare sockets", "nats-server"])
    lines = run(made, "--quick", "--rounds", "2", "--save", str(tmp_path))

    assert lines[-2:] == [
        "Left out, since they are not installed: nats-server.",
        "mido failed in round 2: the server closed a connection.",
    ]
    (table,) = json.loads((tmp_path / "example.json").read_text(encoding="utf-8"))["tables"]
    assert table["rows"] == [["mido", 1.0], ["bare sockets", 1.0]]
    assert [one["round"] for one in table["rounds"]] == [0, 0, 1]


def test_one_contender_can_be_measured_alone(run: Run) -> None:
    made = benchmark(compare, contenders=["mido", "bare sockets"])

    assert [line.split()[0] for line in run(made, "--quick", "--only", "mido")[-1:]] == ["mido"]
    with pytest.raises(SystemExit, match="2"):
        made.run(["--only", "somebody"])


def test_who_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    chosen, notes = contenders.choose(["mido", "nats-server", "ncat --broker"])

    assert [contender.name for contender in chosen] == ["mido"]
    assert notes == ["Left out, since they are not installed: nats-server, ncat --broker."]


@pytest.mark.parametrize(
    ("before", "after", "messages", "us"),
    [(1.0, 1.5, 100, 5000.0), (None, 1.5, 100, None), (1.0, None, 100, None), (1.0, 1.5, 0, None)],
)
def test_processor_time_is_told_for_each_message_where_it_is_known(
    before: float | None, after: float | None, messages: int, us: float | None
) -> None:
    assert cpu_us(before, after, messages) == us
