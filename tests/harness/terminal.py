"""A terminal that a command runs in: what it shows, and keys that can be pressed in it."""

from __future__ import annotations

import copy
import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pyte

from tests.harness.waiting import PATIENCE_S

if TYPE_CHECKING:
    from typing import Self

CTRL_C, CTRL_S, CTRL_Z = b"\x03", b"\x13", b"\x1a"


class _Screen(pyte.Screen):
    """With the alternate screen, which pyte has not."""

    def set_mode(self, *modes: int, **keywords: Any) -> None:
        if keywords.get("private") and 1049 in modes:
            self._before = copy.deepcopy((self.buffer, self.cursor))
        super().set_mode(*modes, **keywords)

    def reset_mode(self, *modes: int, **keywords: Any) -> None:
        super().reset_mode(*modes, **keywords)
        if keywords.get("private") and 1049 in modes:
            is_hidden = self.cursor.hidden
            self.buffer, self.cursor = self._before
            self.cursor.hidden = is_hidden


class Terminal:
    """A terminal of so many columns and lines, as a context manager.

    Attributes:
        end: the descriptor that is a command's standard output.
        seen: all bytes that were written to it.
    """

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self._screen = _Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._keys, self.end = os.openpty()
        os.set_blocking(self._keys, False)
        self.seen = b""
        self.resize(columns, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.hang_up()
        os.close(self.end)

    def hang_up(self) -> None:
        """Close the window: nothing can be written any more."""
        if self._keys >= 0:
            os.close(self._keys)
            self._keys = -1

    @property
    def options(self) -> dict[str, Any]:
        """Of subprocess.Popen: the terminal is the command's own, and its Ctrl-C reaches it."""
        return {
            "stdin": self.end,
            "stdout": self.end,
            "stderr": self.end,
            "preexec_fn": partial(os.login_tty, self.end),
            "env": {**os.environ, "TERM": "xterm-256color"},
        }

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def press(self, keys: bytes) -> None:
        os.write(self._keys, keys)

    def take(self) -> None:
        """Show what has been written."""
        try:
            while data := os.read(self._keys, 65536):
                self.seen += data
                self._stream.feed(data)
        except BlockingIOError:
            pass

    @property
    def lines(self) -> list[str]:
        """The lines as they are, without the spaces at their ends."""
        self.take()
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def colours(self) -> set[str]:
        """The colours that anything is painted on."""
        return {cell.bg for row in self._screen.buffer.values() for cell in row.values()} - {"default"}

    def wait_for(self, condition: str | Callable[[str], bool]) -> str:
        """Wait until it shows a text, or one of which something is true, and return all that it shows."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            text = self.text
            if condition in text if isinstance(condition, str) else condition(text):
                return text
            assert time.monotonic() < deadline, f"waited in vain for {condition!r} in\n{text}"
            time.sleep(0.01)

    def wait_until_given_back(self, last: str = "") -> str:
        """Wait until the alternate screen has been left, the cursor is to be seen and a text beside it, and
        return all that it shows. What was written is here a moment later, even after its writer's end."""
        return self.wait_for(lambda text: self._is_given_back() and last in text)

    def _is_given_back(self) -> bool:
        in_order = self.seen.rfind(b"\x1b[?1049l") >= self.seen.rfind(b"\x1b[?1049h")
        return in_order and not self._screen.cursor.hidden
