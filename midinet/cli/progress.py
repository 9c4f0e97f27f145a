"""A progress bar that takes no time from what is played."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from .schedule import minutes

if TYPE_CHECKING:
    from typing import Self

# Seconds.
_REDRAW_EVERY_S = 0.1
# For the last picture; a terminal that takes longer is left alone.
_LAST_PICTURE_S = 0.5


class ProgressBar:
    """Shows on standard error where in a tune one is, while it is a terminal.

    It knows the time itself and draws in a thread of its own, so that a terminal which is slow, or stopped
    with Ctrl-S, never stops the music.

    Args:
        title: what plays.
        end_s: where in the tune it ends, in seconds.
        begin_s: where in the tune it begins, in seconds.
    """

    def __init__(self, title: str, end_s: float, *, begin_s: float = 0.0) -> None:
        self._title = title
        self._begin_s, self._end_s = begin_s, end_s
        # Which round it is, of a loop, and when it began. The one that draws reads both at once.
        self._round = (0, time.monotonic())
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._round = (0, time.monotonic())
            self._thread = threading.Thread(target=self._draw, name="midinet progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_PICTURE_S)

    def begin_round(self) -> None:
        """Tell that it plays in a loop, of which a round begins now."""
        self._round = (self._round[0] + 1, time.monotonic())

    def _draw(self) -> None:
        title = TextColumn("{task.description}", markup=False, table_column=Column(overflow="ellipsis"))
        columns = (title, BarColumn(bar_width=None), TextColumn("{task.fields[place]}"))
        progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, expand=True)
        with progress:
            task = progress.add_task(self._title, total=self._end_s - self._begin_s, place="")
            is_over = False
            while not is_over:
                is_over = self._over.wait(_REDRAW_EVERY_S)
                number, start = self._round
                elapsed = min(time.monotonic() - start, self._end_s - self._begin_s)
                place = f"{minutes(self._begin_s + elapsed)} / {minutes(self._end_s)}"
                if number:
                    place += f", round {number}"
                progress.update(task, completed=elapsed, place=place, refresh=True)
