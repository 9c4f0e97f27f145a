"""midinet demo: everything in one process, on a terminal or not."""

from __future__ import annotations

import mido
import pytest

from midinet.cli.demo import Heard, conclude
from midinet.cli.table import latency_figures, show_heard

NOTES = [mido.Message("note_on", note=note) for note in (60, 64, 67)]


def heard(who, messages, times):
    result = Heard(who)
    result.messages, result.times = list(messages), list(times)
    return result


@pytest.fixture(scope="module")
def sent():
    return heard("sent", NOTES, [1.0, 2.0, 3.0])


def test_what_it_shows(start):
    demo = start("demo")
    assert (demo.wait(), demo.err) == (0, "")
    assert "messages arrived, the same and in order" in demo.out
    assert "midinet monitor" in demo.out
    rows = [line for line in demo.out.splitlines() if "latency" in line]
    assert len(rows) == 3
    assert all(row.count(" ms") == 2 for row in rows)
    assert max(map(len, demo.out.splitlines())) <= 80


def test_ctrl_c_ends_it(start):
    demo = start("demo")
    demo.wait_for("goes across")
    demo.interrupt()
    assert (demo.wait(), demo.err) == (130, "")


def test_what_arrived_is_said(sent, capsys):
    assert conclude(sent, [heard("listener", NOTES, [1, 2, 3])]) == 0
    assert "All 3 messages arrived, the same and in order." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        (NOTES[:2], f"1 missing, the first '{NOTES[2]}'"),
        ([*NOTES, NOTES[0]], f"1 too many, the first '{NOTES[0]}'"),
        (NOTES[::-1], "the order is another"),
        ([], "3 missing"),
    ],
)
def test_what_did_not_arrive_is_said_and_status_1(sent, messages, what, capsys):
    assert conclude(sent, [heard("mido SocketPort", messages, range(len(messages)))]) == 1
    assert f"mido SocketPort did not hear what was sent: {what}" in capsys.readouterr().out


def test_the_table_has_who_heard_what(sent, capsys):
    show_heard(sent, [heard("listener", NOTES, [1.001, 2.002, 3.003]), heard("mido SocketPort", [], [])])
    rows = {
        cells[0]: cells[1:] for cells in map(_cells, capsys.readouterr().out.splitlines()) if len(cells) == 4
    }
    assert rows["note_on"] == ["3", "3", "0"]
    assert rows["the same, in order"] == ["", "yes", "no"]
    assert rows["latency, median"] == ["", "2.000 ms", "-"]
    assert rows["latency, maximum"] == ["", "3.000 ms", "-"]


def _cells(line):
    return [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (99, 99), (100, 99), (101, 100), (1000, 990)])
def test_the_99th_percentile_is_what_99_in_100_do_not_exceed(count, expected):
    assert latency_figures([float(value) for value in range(count, 0, -1)])["99th percentile"] == expected
