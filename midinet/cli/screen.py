"""A picture that fills a terminal, painted by a thread of its own.

A terminal that is slow, or stopped with Ctrl-S, blocks whoever writes to it. Here that is the thread, and
never the event loop: who has something to show leaves it here, and of what was left the newest is painted.

The picture is on the alternate screen, so that what stood there before is there again at the end, and a
terminal may change its size at any time. Lines that are as they were are not painted again; every few seconds
all are, in case something else wrote between them. Nothing is ever erased before it is painted over.

The thread writes to the descriptor itself. Through sys.stdout it would hold a lock that Python needs to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from .common import lent_terminals
from .printer import write_all

if TYPE_CHECKING:
    from typing import Self

State = TypeVar("State")

# Seconds. As often as an eye follows; each picture costs about a millisecond of a processor.
PAINT_EVERY_S = 0.1

_PAINT_ALL_EVERY_S = 2.0

# Seconds. For the thread to give the terminal back; and once more when output that was stopped was let go on.
_GIVE_BACK_S = 0.25

# Where a terminal does not say how large it is.
_USUAL_SIZE = (80, 24)

# The alternate screen (xterm), the cursor (DECTCEM) and plain letters (SGR).
_BEGIN = b"\x1b[?1049h\x1b[?25l\x1b[2J"
_END = b"\x1b[0m\x1b[?25h\x1b[?1049l"

# Where the cursor waits (CUP). At the bottom, an Enter that somebody types would move all lines up.
_HOME = "\x1b[H"

_COLOUR_SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}


class Screen(Generic[State]):
    """Paints on standard output, a terminal, as an async context manager that gives it back at the end.

    Args:
        compose: makes the lines of a picture, by state, columns and lines. It is called by the thread.
    """

    def __init__(self, compose: Callable[[State, int, int], Sequence[Text]]) -> None:
        self._compose = compose
        self._output = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._console = Console(file=sys.stdout, force_terminal=True)
        self._colours = _COLOUR_SYSTEMS.get(self._console.color_system or "")
        # Guards the three that follow.
        self._changed = threading.Condition()
        self._state: State | None = None
        self._is_ending = False
        self._is_stopping = False
        # Of the thread.
        self._size = (0, 0)
        self._lines: list[tuple[object, ...]] = []
        self._painted_all_at = 0.0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._given_back: asyncio.Future[None] = self._loop.create_future()
        lent_terminals[self._output] = _END
        threading.Thread(target=self._paint, name="midinet screen", daemon=True).start()
        with contextlib.suppress(AttributeError, NotImplementedError):  # There is none on Windows.
            if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
                self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        return self

    async def __aexit__(self, *error: object) -> None:
        with contextlib.suppress(AttributeError, NotImplementedError):
            self._loop.remove_signal_handler(signal.SIGTSTP)
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        if not await self._is_given_back():
            _let_go_on(self._output)
            if not await self._is_given_back():
                return  # Whoever ends the process at once may still try.
        del lent_terminals[self._output]

    async def _is_given_back(self) -> bool:
        done, _ = await asyncio.wait((self._given_back,), timeout=_GIVE_BACK_S)
        return bool(done)

    def show(self, state: State) -> None:
        """Have this painted, in place of what has not been painted yet."""
        with self._changed:
            self._state = state
            self._changed.notify()

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back, and stop the process until it is to go on."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    # The thread.

    def _paint(self) -> None:
        try:
            write_all(self._output, _BEGIN)
            try:
                while (state := self._next()) is not None:
                    write_all(self._output, self._picture(state))
            finally:
                write_all(self._output, _END)
        except OSError:
            pass  # The terminal is gone.
        finally:
            with contextlib.suppress(RuntimeError):  # The loop is over: nobody waits.
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._given_back.done():
            self._given_back.set_result(None)

    def _next(self) -> State | None:
        with self._changed:
            while self._state is None and not self._is_ending:
                self._changed.wait()
            is_stopping, self._is_stopping = self._is_stopping, False
            state, self._state = self._state, None
        if self._is_ending:
            return None
        if is_stopping:
            write_all(self._output, _END)
            # To this thread, which so stops here, and all others with it.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            write_all(self._output, _BEGIN)
            self._size = (0, 0)
        return state

    def _picture(self, state: State) -> bytes:
        """Return what brings the terminal from the last picture to this one."""
        now = time.monotonic()
        width, height = size = _size_of(self._output)
        if size != self._size or now - self._painted_all_at >= _PAINT_ALL_EVERY_S:
            self._lines = []
            self._painted_all_at = now
        begin = "" if size == self._size else "\x1b[0m\x1b[2J"
        self._size = size
        lines = list(self._compose(state, width, height))[:height]
        lines += [Text()] * (height - len(lines))
        painted = [begin]
        before, self._lines = self._lines, []
        for row, line in enumerate(lines):
            # Filled up with spaces, nothing has to be erased.
            line.truncate(width, overflow="ellipsis", pad=True)
            self._lines.append((line.plain, line.style, line.spans))
            if self._lines[-1:] != before[row : row + 1]:
                painted.append(f"\x1b[{row + 1};1H{self._escapes_of(line)}")
        return "".join([*painted, _HOME]).encode(self._encoding, "replace")

    def _escapes_of(self, line: Text) -> str:
        if line.spans:
            segments = line.render(self._console)
        else:
            segments = iter([Segment(line.plain, self._console.get_style(line.style))])
        if self._console.no_color:
            segments = Segment.remove_color(segments)
        return "".join(
            [
                segment.style.render(segment.text, color_system=self._colours)
                if segment.style
                else segment.text
                for segment in segments
            ]
        )


def _size_of(descriptor: int) -> tuple[int, int]:
    """Return the columns and lines of a terminal."""
    try:
        width, height = os.get_terminal_size(descriptor)
    except OSError:
        return _USUAL_SIZE
    return width or _USUAL_SIZE[0], height or _USUAL_SIZE[1]


def _let_go_on(descriptor: int) -> None:
    """Have a terminal that was stopped with Ctrl-S take output again: it has to be given back."""
    try:
        import termios

        # Linux lets go on only what was stopped in this way.
        termios.tcflow(descriptor, termios.TCOOFF)
        termios.tcflow(descriptor, termios.TCOON)
    except (ImportError, OSError):
        pass  # On Windows nothing is ever stopped so; and a terminal that is gone needs nothing any more.
