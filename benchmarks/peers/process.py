"""What the server processes have in common: their options, how they say that they listen, how they end.

A server ends when its standard input does. So it ends with the program that started it, however that ends.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections.abc import Callable
from typing import Any

from .. import machine


def begin(*roles: str) -> str:
    """Read the options and do as they say. Returns the role."""
    return begin_with_options(*roles)[0]


def begin_with_options(*roles: str, at_end: Callable[[], object] | None = None) -> tuple[str, dict[str, Any]]:
    """Read the options and do as they say.

    Args:
        roles: those that this peer knows.
        at_end: called in another thread when the standard input ends; None ends the process.

    Returns:
        The role and the options that only this peer knows.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=roles)
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--options", type=json.loads, default={}, help="a JSON object")
    options = parser.parse_args()
    if options.core is not None:
        machine.pin(options.core)
    threading.Thread(target=_wait_for_end, args=[at_end], daemon=True).start()
    return options.role, options.options


def ready(portno: int, pid: int | None = None) -> None:
    """Tell whoever waits for it that the server listens, and where.

    Args:
        pid: the process that serves; None is this one.
    """
    print(*[portno] if pid is None else [portno, pid], flush=True)


def _wait_for_end(at_end: Callable[[], object] | None) -> None:
    # Descriptor 0, not sys.stdin: its lock would be in the way when the interpreter ends first.
    while os.read(0, 1):
        pass
    if at_end is None:
        os._exit(0)
    at_end()
