"""Tables: rounds of figures go in, and one row for each thing that was measured comes out.

A cell is a text, a number or None. Numbers are written as their column says, with the text columns to the
left and the numbers to the right; None, for what could not be measured, is written as a dash.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None

# What names a row: one cell for each of the table's heads.
Head = tuple[Any, ...]

# The figures of one round, by name.
Round = Mapping[str, Any]

# Makes a cell of a table's rounds and the head of its row.
Figure = Callable[["Table", Head], Cell]


@dataclass(frozen=True)
class Column:
    """One column of figures.

    Args:
        title: what stands above it.
        figure: makes its cells.
        form: how its numbers are written, in the language of `format`.
    """

    title: str
    figure: Figure
    form: str = ",.0f"

    def write(self, cell: Cell) -> str:
        """Return the cell as text."""
        return _text(cell, self.form)


def noise_column(name: str, title: str = "noise %") -> Column:
    """Return a column of the noise of a figure."""
    return Column(title, noise(name))


@dataclass
class Table:
    """What was measured, by rounds.

    Args:
        title: what stands above it.
        heads: the titles of the columns that say what a row is about.
        columns: the others.
        as_added: whether the rows stand as they were first added; otherwise they are grouped by their heads.

    Attributes:
        rounds: the figures of every round, by the row's head.
        number: the round that is being measured, from 0.
        notes: lines to be read with it.
    """

    title: str
    heads: Sequence[str]
    columns: Sequence[Column]
    as_added: bool = False
    rounds: dict[Head, list[Round]] = field(default_factory=dict)
    number: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, *head: Any, **figures: Any) -> None:
        """Add the figures of a round to a row; without any, have the row in the table all the same."""
        done = self.rounds.setdefault(head, [])
        if figures:
            done.append({"round": self.number, **figures})

    @property
    def titles(self) -> list[str]:
        """The titles of all columns."""
        return [*self.heads, *(column.title for column in self.columns)]

    def rows(self) -> list[list[Cell]]:
        """Return the cells of all rows."""
        return [[*head, *(column.figure(self, head) for column in self.columns)] for head in self._ordered()]

    def saved_rounds(self) -> list[dict[str, Any]]:
        """Return the figures of every round with the head of its row."""
        return [
            {**dict(zip(self.heads, head, strict=True)), **figures}
            for head in self._ordered()
            for figures in self.rounds[head]
        ]

    def _ordered(self) -> list[Head]:
        if self.as_added:
            return list(self.rounds)
        seen: list[dict[Any, int]] = [{} for _ in self.heads]
        for head in self.rounds:
            for cell, places in zip(head, seen, strict=True):
                places.setdefault(cell, len(places))
        return sorted(
            self.rounds, key=lambda head: [places[cell] for cell, places in zip(head, seen, strict=True)]
        )

    def render(self) -> str:
        """Return the table as lines of text."""
        rows = self.rows()
        lines = self._lines(rows)
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        is_text = [all(isinstance(row[i], str) for row in rows) for i in range(len(widths))]
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
        titles, *body = self._lines(self.rows())
        texts = [f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *body]]
        return "\n\n".join([f"**{self.title}**", "\n".join(texts), *self.notes])

    def _lines(self, rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
        forms = [",.0f"] * len(self.heads) + [column.form for column in self.columns]
        written = [[_text(cell, form) for cell, form in zip(row, forms, strict=True)] for row in rows]
        return [self.titles, *written]


def _text(cell: Cell, form: str) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else format(cell, form)


def _known(table: Table, head: Head, name: str) -> list[Any]:
    return [done[name] for done in table.rounds[head] if done.get(name) not in (None, [], {})]


def middle(name: str, key: Any = None) -> Figure:
    """Return what makes the median of a figure over the rounds.

    Args:
        name: of the figure.
        key: of an item, where the figure is a list or a mapping.
    """

    def figure(table: Table, head: Head) -> Cell:
        known = _known(table, head, name)
        return statistics.median([one if key is None else one[key] for one in known]) if known else None

    return figure


def noise(name: str) -> Figure:
    """Return what makes half the distance between the best and the worst round, in percent of the median."""

    def figure(table: Table, head: Head) -> Cell:
        known = _known(table, head, name)
        if not known:
            return None
        half = (max(known) - min(known)) / 2
        return half / statistics.median(known) * 100 if statistics.median(known) else 0.0

    return figure


def total(*names: str) -> Figure:
    """Return what makes the sum of some figures over the rounds."""

    def figure(table: Table, head: Head) -> Cell:
        done = table.rounds[head]
        return sum(one[name] for one in done for name in names) if done else None

    return figure


def ratio(name: str, reference: Callable[[Head], Head], *, inverse: bool = False) -> Figure:
    """Return what makes the median of the rounds' ratios to another row's figure in the same round.

    Args:
        name: of the figure.
        reference: takes a row's head, returns that of the other row.
        inverse: whether less is better, so that it is the other row's figure that is divided.
    """

    def figure(table: Table, head: Head) -> Cell:
        others = {done["round"]: done[name] for done in table.rounds.get(reference(head), [])}
        pairs = [(done[name], others.get(done["round"])) for done in table.rounds[head]]
        found = [other / own if inverse else own / other for own, other in pairs if own and other]
        return statistics.median(found) if found else None

    return figure


def kept_up(**most: float) -> Figure:
    """Return what says whether the medians of some figures, by their names, are no more than they may be."""

    def figure(table: Table, head: Head) -> Cell:
        keeps_up = all(median(_known(table, head, name)) <= bound for name, bound in most.items())
        return "yes" if keeps_up else "no"

    return figure


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that so many percent of them do not exceed."""
    return percentiles(values, [percent])[0]


def percentiles(values: Sequence[float], percents: Sequence[float], unit: float = 1.0) -> list[float]:
    """Return the percentile of the values for each of the percents, times a unit; nothing of no values."""
    ordered = sorted(values)
    if not ordered:
        return []
    return [ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] * unit for percent in percents]
