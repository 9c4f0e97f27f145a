"""The table of the demo: what was sent and heard, kind by kind, and how long it took."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .demo import Heard


def show_heard(sent: Heard, hearers: list[Heard]) -> None:
    """Print the table."""
    table = Table()
    table.add_column("messages")
    for one in (sent, *hearers):
        table.add_column(one.who, justify="right")
    counts = [Counter(message.type for message in one.messages) for one in (sent, *hearers)]
    for kind in sorted(set().union(*counts)):
        table.add_row(kind, *(str(count[kind]) for count in counts))
    table.add_row("all", *(str(count.total()) for count in counts))
    same = ["yes" if one.messages == sent.messages else "no" for one in hearers]
    table.add_row("the same, in order", "", *same, end_section=True)
    columns = [latency_figures(one.latencies(sent)) for one in hearers]
    for name in ("median", "99th percentile", "maximum"):
        cells = (f"{figures[name] * 1000:.3f} ms" if figures else "-" for figures in columns)
        table.add_row(f"latency, {name}", "", *cells)
    Console().print(table)


def latency_figures(latencies: list[float]) -> dict[str, float]:
    """Return the median, 99th percentile and maximum by name, in the unit they came in; none of nothing."""
    if not latencies:
        return {}
    # The 99th percentile is the smallest value that 99 % of them do not exceed.
    rank = math.ceil(0.99 * len(latencies))
    return {
        "median": statistics.median(latencies),
        "99th percentile": sorted(latencies)[rank - 1],
        "maximum": max(latencies),
    }
