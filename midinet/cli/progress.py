"""A progress bar that takes no time from what is played."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from typing import Self

# Seconds.
_REDRAW_EVERY_S = 0.1
# For the last picture; a terminal that takes longer is left alone.
_LAST_PICTURE_S = 0.5


class ProgressBar:
    """Shows on standard error how far a tune of known length is, while it is a terminal.

    It knows the time itself and draws in a thread of its own, so that a terminal which is slow, or stopped
    with Ctrl-S, never stops the music.

    Args:
        title: what plays.
        length_s: how long it is, in seconds.
    """

    def __init__(self, title: str, length_s: float) -> None:
        self._title = title
        self._length_s = length_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._start = time.monotonic()
            self._thread = threading.Thread(target=self._draw, name="midinet progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_PICTURE_S)

    def _draw(self) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), _Clock())
        progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, expand=True)
        with progress:
            task = progress.add_task(self._title, total=self._length_s)
            is_over = False
            while not is_over:
                is_over = self._over.wait(_REDRAW_EVERY_S)
                elapsed = min(time.monotonic() - self._start, self._length_s)
                progress.update(task, completed=elapsed, refresh=True)


class _Clock(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{_minutes(task.completed)} / {_minutes(task.total or 0.0)}", no_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
