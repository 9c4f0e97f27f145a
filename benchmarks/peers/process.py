"""What the server processes have in common: their options, how they tell their port number, how they end.

A server ends when its standard input does. So it ends with the program that started it, however that ends.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
from typing import Any

from .. import machine


def begin(*roles: str) -> str:
    """Read the options and do as they say. Returns the role."""
    return begin_with_options(*roles)[0]


def begin_with_options(*roles: str) -> tuple[str, dict[str, Any]]:
    """Read the options and do as they say. Returns the role and those that only this peer knows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=roles)
    parser.add_argument("--core", type=int, help="run on this core alone")
    parser.add_argument("--options", type=json.loads, default={}, help="a JSON object")
    options = parser.parse_args()
    if options.core is not None:
        machine.pin(options.core)
    threading.Thread(target=_end_with_input, daemon=True).start()
    return options.role, options.options


def ready(portno: int) -> None:
    """Tell whoever waits for it that the server listens, and where."""
    print(portno, flush=True)


def _end_with_input() -> None:
    # Descriptor 0, not sys.stdin: its lock would be in the way when the interpreter ends first.
    while os.read(0, 1):
        pass
    os._exit(0)
