"""The screen: paints what is new, follows the terminal's size, and gives it back whatever happens."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from types import SimpleNamespace

import pytest
from rich.text import Text

from midinet.cli import screen as screen_module
from midinet.cli.common import lent_terminals
from midinet.cli.screen import Screen
from tests.harness.terminal import CTRL_S, Terminal


class Output:
    """A terminal in the place of standard output."""

    encoding = "utf-8"

    def __init__(self, descriptor):
        self._descriptor = descriptor

    def fileno(self):
        return self._descriptor

    def write(self, text):
        raise AssertionError("it is written to the descriptor, and not through this")


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Terminal(40, 10) as terminal:
        # Not sys.stdout itself, which pytest changes too.
        monkeypatch.setattr(screen_module, "sys", SimpleNamespace(stdout=Output(terminal.end)))
        yield terminal
        for thread in threading.enumerate():
            if thread.name == "midinet screen":
                thread.join(10)


def compose(state, width, height):
    return [Text(f"{width} by {height}"), *(Text(line) for line in state)]


async def shows(terminal, text):
    """Wait until a terminal shows a text, with the loop going on."""
    return await asyncio.to_thread(terminal.wait_for, text)


async def test_it_paints_over_what_was_there_and_gives_that_back(terminal):
    os.write(terminal.end, b"before\r\n")
    async with Screen(compose) as screen:
        screen.show(["one", "two"])
        assert await shows(terminal, "two") == "40 by 10\none\ntwo"
        assert b"\x1b[?1049l" not in terminal.seen
        assert terminal.end in lent_terminals
    assert terminal.wait_until_given_back() == "before"
    assert terminal.end not in lent_terminals
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_what_is_as_it_was_is_not_painted_again(terminal, monkeypatch):
    monkeypatch.setattr(screen_module, "_PAINT_ALL_EVERY_S", 1000.0)
    async with Screen(compose) as screen:
        screen.show(["same", "first"])
        await shows(terminal, "first")
        before = len(terminal.seen)
        screen.show(["same", "second"])
        assert await shows(terminal, "second") == "40 by 10\nsame\nsecond"
        assert b"same" not in terminal.seen[before:]
        assert b"\x1b[2J" not in terminal.seen[before:]
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_what_others_wrote_is_painted_over_in_the_end(terminal, monkeypatch):
    monkeypatch.setattr(screen_module, "_PAINT_ALL_EVERY_S", 0.0)
    async with Screen(compose) as screen:
        screen.show(["one"])
        await shows(terminal, "one")
        os.write(terminal.end, b"\x1b[2;1Hstray")
        await shows(terminal, "stray")
        screen.show(["one"])
        assert await shows(terminal, "one") == "40 by 10\none"
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_it_follows_the_size_of_the_terminal_and_never_paints_beyond_it(terminal):
    async with Screen(compose) as screen:
        for columns, lines in ((60, 20), (10, 3), (40, 10)):
            terminal.resize(columns, lines)
            screen.show([f"{number} is a long line" for number in range(30)])
            text = await shows(terminal, f"{columns} by {lines}")
            assert text.splitlines()[1] == ("0 is a lo…" if columns == 10 else "0 is a long line")
            assert len(text.splitlines()) == lines
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_terminal_that_is_stopped_holds_up_nobody_and_is_given_back(terminal):
    async with Screen(compose) as screen:
        screen.show(["one"])
        await shows(terminal, "one")
        terminal.press(CTRL_S)
        begin = time.monotonic()
        for number in range(10_000):
            screen.show([str(number)])
            await asyncio.sleep(0)
    assert time.monotonic() - begin < 10
    terminal.wait_until_given_back()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_terminal_that_is_gone_is_no_fault(terminal):
    async with Screen(compose) as screen:
        screen.show(["one"])
        await shows(terminal, "one")
        terminal.hang_up()
        screen.show(["two"])
        await asyncio.wait_for(screen._given_back, 10)
        screen.show(["three"])
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_nothing_has_to_be_shown(terminal):
    async with Screen(compose):
        pass
    terminal.wait_until_given_back()


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), ("NOTHING", True)])
async def test_colours_are_for_those_who_want_them(terminal, monkeypatch, variable, coloured):
    monkeypatch.setenv(variable, "1")
    async with Screen(lambda state, width, height: [Text("red", "bold black on red")]) as screen:
        screen.show([])
        await shows(terminal, "red")
        assert bool(terminal.colours) is coloured
    await asyncio.get_running_loop().shutdown_default_executor()
