"""Multicast DNS for tests: names that nobody else on this machine has, and none of the waiting.

Whoever uses multicast DNS on 127.0.0.1 hears all others there: other workers, other runs and programs that
have nothing to do with tests. So each test takes names of its own, and a host name of its own too, because a
test may say that another machine has it.
"""

from __future__ import annotations

import importlib
import socket
import uuid
from collections.abc import Callable
from typing import Any

LOOPBACK = "127.0.0.1"

# Waits of zeroconf for others on a slow network, in milliseconds. A version that does not know one waits.
_ZEROCONF_WAITS = {
    "_CHECK_TIME": 20,
    "_PROBE_RANDOM_DELAY_INTERVAL": (5, 10),
    "_ONE_SECOND": 20,
    "_AGGREGATION_DELAY": 20,
    "_PROTECTED_AGGREGATION_DELAY": 20,
}

# Those of midinet, in seconds.
_OWN_WAITS = {"announcement._LISTEN_S": 0.0, "mdns._GOODBYE_S": 0.01}


def unique_name(name: str = "stage") -> str:
    """Return a name that no other test and no program has."""
    return f"{name} {uuid.uuid4().hex[:8]}"


def unique_host() -> str:
    """Return a name for this machine that no other test and no machine has, without its domain."""
    return f"host-{uuid.uuid4().hex[:8]}"


def hurry(set_attribute: Callable[[object, str, Any], object] = setattr) -> None:
    """Wait for nobody to object to a name, and repeat answers at once.

    Args:
        set_attribute: sets one; pytest's MonkeyPatch has one that is undone.
    """
    core = importlib.import_module("zeroconf._core")
    for name, value in _ZEROCONF_WAITS.items():
        if hasattr(core, name):
            set_attribute(core, name, value)
    for path, seconds in _OWN_WAITS.items():
        module, name = path.split(".")
        set_attribute(importlib.import_module(f"midinet.gateways.{module}"), name, seconds)


def call_this_machine(host: str, set_attribute: Callable[[object, str, Any], object] = setattr) -> None:
    """Give this machine a name, see `unique_host`, as far as this process goes."""
    set_attribute(socket, "gethostname", lambda: host)
