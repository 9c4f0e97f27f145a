"""What midinet promises in numbers: for each promise what was promised and what was measured.

Every line says what is promised, the bound, the median and the worst of what was measured, and whether every
single value was within the bound. Times are in ms (milliseconds) or s, rates in messages a second (/s). What
this machine cannot measure says so: two hosts with a cable between them, for one, take Linux and root.

What measures them is what the tests run in small, in tests/promises.

The server is midinet's hub in a process of its own, on a core of its own. The peers are bare sockets in this
process, save where it is midinet's own client that promises something. `--only` measures a part:

    notes     who heard a client that is gone gets note-offs
    slow      a stalled reader, many of them, a flood, max_rate
    back      clients of a server that is killed and started again
    dead      peers that vanish, stop or fall silent
    door      who comes in while others only pretend to; out of descriptors
    end       SIGTERM
    memory    thousands that come and go
"""

from __future__ import annotations

import argparse
import sys

from .runner import Benchmark, NothingToMeasureError, bounded
from .table import Cell, Column, Figure, Head, Table

# The parts of `tests.promises`.
PARTS = ("notes", "slow", "back", "dead", "door", "end", "memory")

# Seconds that one part may take.
_MAX_PART_S = 400.0


def _written(place: int) -> Figure:
    def figure(table: Table, head: Head) -> Cell:
        cell: Cell = table.rounds[head][0]["written"][place]
        return cell

    return figure


def tables(options: argparse.Namespace) -> list[Table]:
    """Return the one table."""
    titles = ("at most", "median", "worst", "kept")
    columns = [Column(title, _written(place)) for place, title in enumerate(titles)]
    return [Table("What is promised and what was measured", ["promise"], columns, as_added=True)]


def measure(options: argparse.Namespace, table: Table) -> None:
    """Measure every part, one after the other."""
    try:
        # The measuring is the tests' own: these have what it takes.
        from tests.promises import PARTS as parts
        from tests.promises.finding import Finding
    except ImportError as error:
        raise NothingToMeasureError(f"{error} (pip install 'midinet[test]')") from None
    for name in options.only:
        try:
            with bounded(_MAX_PART_S):
                for finding in parts[name](options):
                    table.add(finding.promise, **finding.figures())
        except (OSError, AssertionError) as error:
            # The others are still worth to be measured.
            failed = Finding(f"the rest of {name}", None, why_not=f"it failed: {error}")
            table.add(failed.promise, **failed.figures())


BENCHMARK = Benchmark("benchmarks.promises", __doc__, tables, measure, once=True)
BENCHMARK.choice("only", PARTS, "the parts to measure (default: all)")
BENCHMARK.size("listeners", [1, 32], [1, 2], "who hears a client that is gone")
BENCHMARK.size("repeats", 20, 1, "how often each end of a client is measured")
BENCHMARK.size("count", 2_000, 50, "messages for a latency beside a stalled reader")
BENCHMARK.size("seconds", 1.0, 0.1, "how long to flood")
BENCHMARK.size("stalled", 256, 8, "stalled readers")
BENCHMARK.size("seconds_stalled", 4.0, 0.3, "how long they are stalled; at 5 they are let go")
BENCHMARK.size("clients", 200, 10, "clients that come back")
BENCHMARK.size("drippers", 1_000, 20, "peers that drip a byte a second")
BENCHMARK.size("handshakes", 500, 10, "peers that stall in the TLS handshake")
BENCHMARK.size("connects", 10_000, 100, "connects and disconnects, a fifth of them with TLS")

if __name__ == "__main__":
    sys.exit(BENCHMARK.run())
