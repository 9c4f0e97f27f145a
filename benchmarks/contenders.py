"""Who is measured at fan-out, and what each needs in order to be there.

A module that is not installed or a program that is not on the PATH leaves its contender out, which is told.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .plot import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Style
from .protocols import MIDI, MQTT, NATS, WEBSOCKET, Protocol


@dataclass(frozen=True)
class Contender:
    """A server that is measured.

    Args:
        name: what it is called in tables and plots.
        style: how its line looks in plots.
        peer: the module in `benchmarks.peers`.
        options: what that takes.
        protocol: how it is spoken to.
        modules: what it imports that may not be there.
        program: what it runs that may not be there.
    """

    name: str
    style: Style
    peer: str
    options: Mapping[str, object] = field(default_factory=dict)
    protocol: Protocol = MIDI
    modules: Sequence[str] = ()
    program: str = ""

    def is_there(self) -> bool:
        """Whether all that it needs is installed."""
        return all(map(importlib.util.find_spec, self.modules)) and (
            not self.program or shutil.which(self.program) is not None
        )


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
    Contender("midinet serve", Style(BLUE, strong=True), "command", _command(*_SERVE))
    if _HAS_CLI
    else Contender("midinet hub", Style(BLUE, strong=True), "midinet_hub"),
    Contender(
        "midinet serve --uvloop",
        Style(BLUE, "7 4", strong=True),
        "command",
        _command(*_SERVE, "--uvloop"),
        modules=["typer", "uvloop"],
    ),
    Contender("midinet loop", Style(SKY, strong=True), "midinet_loop"),
    Contender("asyncio+mido", Style(GREEN, point="square"), "asyncio_streams"),
    Contender(
        "asyncio+mido, uvloop",
        Style(GREEN, "5 4", point="square"),
        "asyncio_streams",
        {"uvloop": True},
        modules=["uvloop"],
    ),
    Contender(
        "websockets",
        Style(ORANGE, point="triangle"),
        "websockets_broadcast",
        protocol=WEBSOCKET,
        modules=["websockets"],
    ),
    Contender("mido", Style(BLACK, point="square"), "mido_sockets"),
    Contender(
        "nats-server",
        Style(VERMILLION, point="diamond"),
        "command",
        _command("nats-server", "-a", "127.0.0.1", "-p", "{port}"),
        NATS,
        program="nats-server",
    ),
    Contender(
        "mosquitto",
        Style(PURPLE, point="diamond"),
        "command",
        _command("mosquitto", "-c", "{config}", config=_MOSQUITTO),
        MQTT,
        program="mosquitto",
    ),
    Contender(
        "ncat --broker",
        Style(PURPLE, "5 4", point="triangle"),
        "command",
        _command("ncat", "--broker", "--max-conns", "2000", "-l", "127.0.0.1", "{port}"),
        program="ncat",
    ),
    Contender("bare sockets", Style(GREY, "2 3"), "bare_sockets"),
)


def choose(names: Iterable[str]) -> tuple[list[Contender], list[str]]:
    """Return the contenders of these names that can be measured here, and a note on those that cannot."""
    chosen = [contender for contender in CONTENDERS if contender.name in names]
    missing = ", ".join(contender.name for contender in chosen if not contender.is_there())
    notes = [f"Left out, since they are not installed: {missing}."] if missing else []
    return [contender for contender in chosen if contender.is_there()], notes
