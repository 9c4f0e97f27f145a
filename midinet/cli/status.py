"""A line that says how things stand, redrawn in place by a thread of its own.

A terminal that is slow, or stopped with Ctrl-S, blocks whoever writes to it. Here that is the thread: who has
something to say leaves it here and goes on, and what could not be shown in time is never shown.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

from rich.cells import set_cell_size

from .common import printable
from .printer import write_all

if TYPE_CHECKING:
    from typing import Self

# Seconds. As often as figures that run can be read.
_REDRAW_EVERY_S = 0.1
# For the last picture; a terminal that takes longer is left alone.
_LAST_PICTURE_S = 0.5

# Places at the end of a line that stay free: for the ^C that a terminal shows, and one more, since some go to
# the next line when the last is taken.
MARGIN = 3

# Lines. More than anybody gets to read while a terminal stands still.
_MAX_NOTES = 1000

# Erases to the end of the line (EL, ECMA-48).
_ERASE = "\x1b[K"


def is_drawable(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a line can be drawn in place."""
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):
        return False  # There is no such stream, or it is closed.
    return is_terminal and os.environ.get("TERM") not in ("dumb", "unknown")


class StatusLine:
    """One line at the bottom of a terminal, as a context manager. Elsewhere it shows nothing.

    Args:
        stream: standard output or standard error.
        keep: leave the last one standing at the end, and do not erase it.
    """

    def __init__(self, stream: TextIO, *, keep: bool = False) -> None:
        self._stream = stream
        self._keep = keep
        self._text = ""
        self._notes: deque[str] = deque(maxlen=_MAX_NOTES)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if is_drawable(self._stream):
            self._thread = threading.Thread(target=self._draw, name="midinet status", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_PICTURE_S)

    def show(self, text: str) -> None:
        """Have another text stand there. It is cut to the terminal's width."""
        self._text = text

    def note(self, line: str) -> None:
        """Have a line stand above it for good."""
        self._notes.append(line)

    def _draw(self) -> None:
        descriptor = self._stream.fileno()
        shown: tuple[str, int] | None = None
        is_over = False
        # A terminal that is gone, or that Python can write to no more as it ends.
        with contextlib.suppress(OSError, ValueError):
            while not is_over:
                is_over = self._over.wait(_REDRAW_EVERY_S)
                notes = [self._notes.popleft() for _ in range(len(self._notes))]
                now = (self._text, os.get_terminal_size(descriptor).columns - MARGIN)
                if notes or now != shown or is_over:
                    shown = now
                    lines = [*map(printable, notes), _cut(*now) if self._keep or not is_over else ""]
                    picture = "".join(f"\r{line}{_ERASE}\n" for line in lines)
                    # Not by the stream itself: that has a lock, which Python needs when it ends.
                    if not (is_over and self._keep):
                        picture = picture.removesuffix("\n")
                    write_all(descriptor, picture.encode(self._stream.encoding or "utf-8", "replace"))


def _cut(text: str, width: int) -> str:
    """Return a text in so many places of a terminal at most, in which some characters take two."""
    text = printable(text)
    fitted = set_cell_size(text, max(width, 1)).rstrip()
    if fitted == text.rstrip():
        return text
    return f"{set_cell_size(text, max(width - 3, 1)).rstrip()}..."
