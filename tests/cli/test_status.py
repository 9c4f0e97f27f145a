"""The line that says how things stand: drawn in place, cut to the width, and never waited for."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from typing import TextIO

import pytest
from rich.cells import cell_len

from midinet.cli.status import StatusLine, is_drawable

END = "\x1b[K"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, TextIO]]:
    """A pseudo-terminal of 40 columns: (what stands in for the person, what the program writes to)."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    termios = pytest.importorskip("termios")
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 40))
    with open(slave, "w", encoding="utf-8") as stream:
        yield master, stream
    os.close(master)


def read_until(master: int, text: str) -> str:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(master, 65536)
    return shown.decode()


def test_a_text_is_drawn_over_the_one_before_and_taken_away_at_the_end(terminal):
    master, stream = terminal
    with StatusLine(stream) as line:
        line.show("one")
        assert read_until(master, "one").endswith(f"\rone{END}")
        line.show("two")
        assert read_until(master, "two") == f"\rtwo{END}"
    assert read_until(master, END) == f"\r{END}"


def test_the_last_one_can_be_left_standing(terminal):
    master, stream = terminal
    with StatusLine(stream, keep=True) as line:
        line.show("one")
    assert read_until(master, "\n").endswith(f"\rone{END}\r\n")


def test_notes_stand_above_it_for_good(terminal):
    master, stream = terminal
    with StatusLine(stream) as line:
        line.show("how it is")
        read_until(master, f"how it is{END}")
        line.note("first")
        line.note("second")
        redrawn = f"\rhow it is{END}"
        shown = read_until(master, f"second{END}\r\n{redrawn}")
        # It may have been redrawn between the two.
        assert shown.replace(redrawn, "") == f"\rfirst{END}\r\n\rsecond{END}\r\n"


@pytest.mark.parametrize("text", ["x" * 100, "音" * 50, "a" + "音" * 50])
def test_what_is_too_long_is_cut_by_the_places_that_it_takes(terminal, text):
    master, stream = terminal
    with StatusLine(stream) as line:
        line.show(text)
        shown = read_until(master, f"...{END}").rpartition("\r")[2].removesuffix(END)
    assert 34 <= cell_len(shown) <= 37
    assert text.startswith(shown.removesuffix("..."))


def test_what_just_fits_is_not_cut(terminal):
    master, stream = terminal
    with StatusLine(stream) as line:
        line.show("x" * 37)
        assert f"\r{'x' * 37}{END}" in read_until(master, "x" * 37 + END)


def test_nothing_in_it_commands_the_terminal(terminal):
    master, stream = terminal
    with StatusLine(stream) as line:
        line.show("a\x1b[2Jb\nc")
        assert "a?[2Jb?c" in read_until(master, "c" + END)


def test_a_terminal_that_stands_still_is_not_waited_for(terminal):
    _, stream = terminal
    with StatusLine(stream) as line:
        begin = time.monotonic()
        for number in range(10_000):
            line.note(f"{number} " + "x" * 100)
        # It takes a hundredth of that; a terminal that is read by nobody takes for ever.
        assert time.monotonic() - begin < 10
        # Reading is what ends the thread, or closing the terminal.
    os.set_blocking(terminal[0], False)
    deadline = time.monotonic() + 20
    while line._thread is not None and line._thread.is_alive():
        assert time.monotonic() < deadline
        try:
            os.read(terminal[0], 65536)
        except BlockingIOError:
            time.sleep(0.01)


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_draw_in_place_is_left_alone(terminal, term, monkeypatch):
    assert is_drawable(terminal[1])
    monkeypatch.setenv("TERM", term)
    assert not is_drawable(terminal[1])


def test_what_is_no_terminal_gets_nothing():
    stream = io.StringIO()
    with StatusLine(stream) as line:
        line.show("one")
        line.note("two")
    assert stream.getvalue() == ""
    stream.close()
    assert not is_drawable(stream)
