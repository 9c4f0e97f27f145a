"""Programs that tests start."""

from __future__ import annotations

import os


def uncovered() -> dict[str, str]:
    """Return the environment for a program that gets interrupted: this one's, without measuring coverage.

    What measures it takes a lock of its own for every call, in Python, which an interrupt at any moment
    leaves locked.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
