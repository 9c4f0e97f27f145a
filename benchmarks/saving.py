"""What a benchmark leaves behind: JSON with every round's figures, the tables as Markdown, and plots as SVG.

Plots are drawn of what is in the JSON and nothing else, so they can be drawn anew from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .table import Table

RESULTS = Path(__file__).resolve().parent / "results"

# Digits of a number: more than any of these figures is worth.
_DIGITS = 6

# Takes what is saved, returns SVG texts by name.
Draw = Callable[[Mapping[str, Any]], Mapping[str, str]]


def save(
    directory: Path,
    name: str,
    load_average_before: str,
    options: Mapping[str, object],
    tables: Sequence[Table],
    draw: Draw | None = None,
) -> None:
    """Write what was measured to NAME.json, NAME.md and, for each plot, NAME-PLOT.svg.

    Args:
        load_average_before: what `machine.load_average` said before it began.
        options: what the program was told.
    """
    saved = {
        "program": name,
        "date": machine.now(),
        "machine": machine.hardware(),
        "load_average_before": load_average_before,
        "versions": machine.versions(),
        "options": dict(options),
        "tables": [
            {
                "title": table.title,
                "columns": [column.title for column in table.columns],
                "rows": _rounded(table.rows),
                "notes": table.notes,
                "rounds": _rounded(table.rounds),
            }
            for table in tables
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / f"{name}.json", json.dumps(saved, indent=1))
    command = f"`python -m benchmarks.{name}`; {', '.join(foot(saved))}."
    _write(directory / f"{name}.md", "\n\n".join([*(table.markdown() for table in tables), command]))
    for plot, text in (draw(saved) if draw else {}).items():
        _write(directory / f"{name}-{plot}.svg", text)


def foot(saved: Mapping[str, Any]) -> list[str]:
    """Return where and when it was measured, and the versions: what stands below a table or a plot."""
    where = ", ".join([saved["machine"], saved["load_average_before"] + " before", saved["date"]])
    return [where, ", ".join(f"{name} {version}" for name, version in saved["versions"].items())]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _write(file: Path, text: str) -> None:
    file.write_text(text + "\n", encoding="utf-8")
