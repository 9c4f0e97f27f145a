"""Tables in plain text and in Markdown, and the figures that go into them.

A cell is a text, a number or None. Numbers are written as their column says, with the text columns to the
left and the numbers to the right; None, for what could not be measured, is written as a dash.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

Cell = str | float | None


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        title: what stands above it.
        form: how its numbers are written, in the language of `format`.
    """

    title: str
    form: str = ",.0f"

    def write(self, cell: Cell) -> str:
        """Return the cell as text."""
        if cell is None:
            return "-"
        return cell if isinstance(cell, str) else format(cell, self.form)


@dataclass
class Table:
    """Rows of cells under a title and columns.

    Attributes:
        notes: lines to be read with it.
        rounds: the figures of every round, which are only saved.
    """

    title: str
    columns: Sequence[Column]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: list[dict[str, object]] = field(default_factory=list)

    def render(self) -> str:
        """Return the table as lines of text."""
        lines = self._lines()
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        is_text = [all(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]
        texts = [
            "  ".join(
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(line, widths, is_text, strict=True)
            ).rstrip()
            for line in lines
        ]
        texts.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
        return "\n".join([self.title, "", *texts, *([""] if self.notes else []), *self.notes])

    def markdown(self) -> str:
        """Return the table as Markdown."""
        titles, *body = self._lines()
        texts = [f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *body]]
        return "\n\n".join([f"**{self.title}**", "\n".join(texts), *self.notes])

    def _lines(self) -> list[list[str]]:
        body = [
            [column.write(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]
        return [[column.title for column in self.columns], *body]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that so many percent of them do not exceed."""
    return percentiles(values, [percent])[0]


def percentiles(values: Sequence[float], percents: Sequence[float]) -> list[float]:
    """Return the percentile of the values for each of the percents."""
    ordered = sorted(values)
    return [ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] for percent in percents]


def median(values: Sequence[float]) -> float:
    """Return the median of the rounds' figures."""
    return statistics.median(values)


def noise(values: Sequence[float]) -> float:
    """Return half the distance between the best and the worst round, in percent of the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle * 100 if middle else 0.0
