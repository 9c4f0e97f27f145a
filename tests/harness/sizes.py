"""Tests in two sizes: a quick one for every run, and one that is long by nature."""

from __future__ import annotations

from typing import Any

import pytest


def thorough(names: str, *, quick: Any, full: Any) -> pytest.MarkDecorator:
    """Parametrize a test with a small size and, under the marker `full`, with a large one.

    Args:
        names: of the test's arguments that say the size, as pytest.mark.parametrize takes them.
        quick: their values for every run.
        full: their values for runs with the marker.
    """
    small, large = (size if isinstance(size, tuple) else (size,) for size in (quick, full))
    return pytest.mark.parametrize(
        names, [pytest.param(*small, id="quick"), pytest.param(*large, id="full", marks=pytest.mark.full)]
    )
