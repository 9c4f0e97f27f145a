"""What midinet promises in numbers: for each promise what was promised and what was measured.

Every line says what is promised, the bound, the median and the worst of what was measured, and whether every
single value was within the bound. Times are in ms (milliseconds) or s, rates in messages a second (/s). What
this machine cannot measure says so: two hosts with a cable between them, for one, take Linux and root.

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
from collections.abc import Callable, Iterator

from .program import Program, bounded
from .promised import back, dead, door, end, memory, notes, slow
from .promised.finding import Finding
from .table import Column, Table

# By name, what measures a part of the promises.
PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Finding]]] = {
    "notes": notes.measure,
    "slow": slow.measure,
    "back": back.measure,
    "dead": dead.measure,
    "door": door.measure,
    "end": end.measure,
    "memory": memory.measure,
}

# Seconds that one part may take.
_MAX_PART_S = 400.0

_TITLES = ["promise", "at most", "median", "worst", "kept"]


def measure(options: argparse.Namespace) -> list[Table]:
    """Measure what the module says."""
    findings: list[Finding] = []
    for name in options.only:
        try:
            with bounded(_MAX_PART_S):
                for finding in PARTS[name](options):
                    findings.append(finding)
        except (OSError, AssertionError) as error:
            # The others are still worth to be measured.
            findings.append(Finding(f"the rest of {name}", None, why_not=f"it failed: {error}"))
    table = Table("What is promised and what was measured", [Column(title) for title in _TITLES])
    for finding in findings:
        table.rows.append(finding.cells())
        table.rounds.append(
            {
                "promise": finding.promise,
                "bound": finding.bound,
                "unit": finding.unit,
                "values": list(finding.values),
                "kept": finding.kept,
                "why_not": finding.why_not,
            }
        )
    return [table]


def main(argv: list[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    program = Program("benchmarks.promises", __doc__)
    program.choice("only", among=list(PARTS), help="the parts to measure (default: all)")
    program.size("listeners", full=[1, 32], quick=[1, 2], help="who hears a client that is gone")
    program.size("repeats", full=20, quick=1, help="how often each end of a client is measured")
    program.size("count", full=2_000, quick=50, help="messages for a latency beside a stalled reader")
    program.size("seconds", full=1.0, quick=0.1, help="how long to flood")
    program.size("stalled", full=256, quick=8, help="stalled readers")
    program.size(
        "seconds_stalled", full=4.0, quick=0.3, help="how long they are stalled; at 5 they are let go"
    )
    program.size("clients", full=200, quick=10, help="clients that come back")
    program.size("drippers", full=1_000, quick=20, help="peers that drip a byte a second")
    program.size("handshakes", full=500, quick=10, help="peers that stall in the TLS handshake")
    program.size(
        "connects", full=10_000, quick=100, help="connects and disconnects, a fifth of them with TLS"
    )
    return program.run(measure, argv)


if __name__ == "__main__":
    sys.exit(main())
