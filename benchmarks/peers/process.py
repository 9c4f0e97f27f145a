"""What the server processes have in common: their options, how they tell their port number, how they end.

A server ends when its standard input does. So it ends with the program that started it, however that ends.
"""

from __future__ import annotations

import argparse
import os
import threading

from .. import machine


def begin(*roles: str) -> str:
    """Read the options and do as they say. Returns the role."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=roles)
    parser.add_argument("--core", type=int, help="run on this core alone")
    options = parser.parse_args()
    if options.core is not None:
        machine.pin(options.core)
    threading.Thread(target=_end_with_input, daemon=True).start()
    role: str = options.role
    return role


def ready(portno: int) -> None:
    """Tell whoever waits for it that the server listens, and where."""
    print(portno, flush=True)


def _end_with_input() -> None:
    # Descriptor 0, not sys.stdin: its lock would be in the way when the interpreter ends first.
    while os.read(0, 1):
        pass
    os._exit(0)
