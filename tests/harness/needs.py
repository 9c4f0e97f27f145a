"""What some tests need from the system, and may not find."""

from __future__ import annotations

import os
import shutil

import pytest

# Set where everything has to be there, so that nothing is passed over in silence.
EVERYTHING = "MIDINET_TEST_EVERYTHING"


def need(condition: object, what: str) -> None:
    """Go on if what a test needs is there; otherwise skip it, or fail where everything has to be there."""
    if condition:
        return
    if os.environ.get(EVERYTHING):
        pytest.fail(f"{EVERYTHING} is set, and this needs {what}")
    pytest.skip(f"needs {what}")


def need_program(name: str, how: str) -> str:
    """Return the path of a program that a test needs.

    Args:
        name: of the program.
        how: how it is brought here, as in "apt-get install jackd2".
    """
    path = shutil.which(name)
    need(path, f"the program {name} ({how})")
    assert path is not None
    return path
