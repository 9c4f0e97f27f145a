"""Hubs joined through a real nats-server, measured: every figure is there.

The figures themselves are not looked at, nor what is lost: a machine that stalls makes notes late.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import session
from tests.harness.needs import need, need_program

ROOT = Path(__file__).resolve().parents[2]

UVLOOP = [session.UVLOOP_HUBS] if importlib.util.find_spec("uvloop") else []


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a quick run with 2 and with 3 hubs saves."""
    need_program("nats-server", "Debian: apt-get install nats-server")
    need(importlib.util.find_spec("nats"), "nats-py (pip install 'midinet[nats]')")
    directory = tmp_path_factory.mktemp("session")
    words = ["--quick", "--hubs", "2", "3", "--save", str(directory)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.session", *words],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    saved: list[Any] = json.loads((directory / "session.json").read_text(encoding="utf-8"))["tables"]
    return saved


@pytest.mark.full
def test_deliveries_stand_beside_one_hub_with_as_many_clients(tables: list[Any]) -> None:
    assert [row[:2] for row in tables[0]["rows"]] == [[1, 4], [2, 2], [1, 6], [3, 2]]
    assert all(row[2] > 0 for row in tables[0]["rows"])


@pytest.mark.full
def test_a_hop_stands_beside_what_is_no_part_of_midinet(tables: list[Any]) -> None:
    names = [session.ALONE, session.HUBS, *UVLOOP, session.NATS_PY, session.NATS_SERVER]
    assert [row[0] for row in tables[1]["rows"]] == names
    hops = {each["joined by"]: each for each in tables[1]["rounds"]}
    for name, hop in hops.items():
        assert len(hop["own_us"]) == (0 if name == session.NATS_SERVER else len(session.PERCENTS))
        assert len(hop["other_us"]) == (0 if name == session.ALONE else len(session.PERCENTS))


@pytest.mark.full
def test_costs_are_told_for_every_number_of_hubs(tables: list[Any]) -> None:
    assert [row[:2] for row in tables[2]["rows"]] == [[1, 0], [1, 1], [1, 2], [10, 0], [10, 1], [10, 2]]


@pytest.mark.full
def test_a_hub_s_own_clients_are_served_whatever_the_broker_is_at(tables: list[Any]) -> None:
    assert [row[0] for row in tables[3]["rows"]] == list(session.STATES)
    assert all(row[1] > 0 and row[5] == 0 for row in tables[3]["rows"])


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells another process's time")
def test_every_processor_time_is_told_where_there_is_somebody_to_take_it(tables: list[Any]) -> None:
    for each in [*tables[0]["rounds"], *tables[2]["rounds"]]:
        alone = each.get("hubs") == 1 or each.get("other hubs") == 0
        missing = {name for name, figure in each.items() if figure is None}
        assert missing == ({"broker_us", "hearer_us"} & each.keys() if alone else set())


def test_without_a_broker_one_line_says_so_and_what_was_saved_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")

    assert session.BENCHMARK.run(["--quick", "--unpinned", "--save", str(tmp_path)]) == 0

    _, line = capsys.readouterr().out.splitlines()
    assert line == ("nothing is measured: nats-server is not installed (Debian: apt-get install nats-server)")
    assert list(tmp_path.iterdir()) == []
