"""Who is measured at fan-out, and what each needs in order to be there.

A module that is not installed or a program that is not on the PATH leaves its contender out, which is told.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .protocols import MIDI, MQTT, NATS, WEBSOCKET, Protocol


@dataclass(frozen=True)
class Contender:
    """A server that is measured.

    Args:
        name: what it is called in tables and plots.
        style: matplotlib's keywords for its line in plots.
        peer: the module in `benchmarks.peers`.
        options: what that takes.
        role: what it does with messages.
        protocol: how it is spoken to.
        modules: what it imports that may not be there.
        program: what it runs that may not be there.
    """

    name: str
    style: Mapping[str, object]
    peer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    role: str = "relay"
    protocol: Protocol = MIDI
    modules: Sequence[str] = ()
    program: str = ""

    def is_there(self) -> bool:
        """Whether all that it needs is installed."""
        return all(map(importlib.util.find_spec, self.modules)) and (
            not self.program or shutil.which(self.program) is not None
        )


def _style(colour: str, dashes: str = "-", point: str = "o", *, strong: bool = False) -> dict[str, object]:
    width, size, order = (3.5, 9, 3) if strong else (1.8, 6, 2)
    drawn = {"color": colour, "linestyle": dashes, "marker": point}
    return {**drawn, "linewidth": width, "markersize": size, "zorder": order}


def _command(*words: str, **more: str) -> dict[str, object]:
    return {"words": words, **more}


# As people start it.
_SERVE = (sys.executable, "-m", "midinet", "serve", "--quiet", "127.0.0.1:{port}")

# mosquitto takes its options from a file. Nothing bounds what waits for a subscriber: the publisher does.
_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
"""

_HAS_CLI = importlib.util.find_spec("typer") is not None

CONTENDERS = (
    # Without the command line, the same by itself.
    Contender("midinet serve", _style("#0072b2", strong=True), "command", _command(*_SERVE))
    if _HAS_CLI
    else Contender("midinet hub", _style("#0072b2", strong=True), "midinet_hub"),
    Contender(
        "midinet serve --uvloop",
        _style("#0072b2", "--", strong=True),
        "command",
        _command(*_SERVE, "--uvloop"),
        modules=["typer", "uvloop"],
    ),
    Contender("midinet loop", _style("#56b4e9", strong=True), "midinet_loop"),
    Contender("asyncio+mido", _style("#009e73", point="s"), "asyncio_streams"),
    Contender(
        "asyncio+mido, uvloop",
        _style("#009e73", "--", point="s"),
        "asyncio_streams",
        {"uvloop": True},
        modules=["uvloop"],
    ),
    Contender(
        "websockets",
        _style("#e69f00", point="^"),
        "websockets_broadcast",
        protocol=WEBSOCKET,
        modules=["websockets"],
    ),
    Contender("mido", _style("#000000", point="s"), "mido_sockets"),
    Contender(
        "nats-server",
        _style("#d55e00", point="D"),
        "command",
        _command("nats-server", "-a", "127.0.0.1", "-p", "{port}"),
        protocol=NATS,
        program="nats-server",
    ),
    Contender(
        "mosquitto",
        _style("#cc79a7", point="D"),
        "command",
        _command("mosquitto", "-c", "{config}", config=_MOSQUITTO),
        protocol=MQTT,
        program="mosquitto",
    ),
    Contender(
        "ncat --broker",
        _style("#cc79a7", "--", point="^"),
        "command",
        _command("ncat", "--broker", "--max-conns", "2000", "-l", "127.0.0.1", "{port}"),
        program="ncat",
    ),
    Contender("bare sockets", _style("#8c8c8c", ":"), "bare_sockets"),
)


def choose(names: Iterable[str]) -> tuple[list[Contender], list[str]]:
    """Return the contenders of these names that can be measured here, and a note on those that cannot."""
    chosen = [contender for contender in CONTENDERS if contender.name in names]
    missing = ", ".join(contender.name for contender in chosen if not contender.is_there())
    notes = [f"Left out, since they are not installed: {missing}."] if missing else []
    return [contender for contender in chosen if contender.is_there()], notes
