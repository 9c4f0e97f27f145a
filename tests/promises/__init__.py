"""The promises that have numbers, measured: `python -m benchmarks.promises` shows them in full."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from tests.promises import back, dead, door, end, memory, notes, slow
from tests.promises.finding import Finding

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
