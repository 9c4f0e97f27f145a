from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from typing import Any

import pytest

import midinet
import midinet.sync

EXTRAS = {"typer", "rich", "rtmidi", "uvloop", "click"}


def members(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_public_names() -> None:
    assert set(midinet.__all__) == {
        *("PortServer", "SocketPort", "connect", "Parser", "parse_address", "format_address"),
        *("PortStats", "ServerStats", "ParserStats", "CloseReason"),
        *("MidinetError", "ConnectError", "ConnectRefused", "ListenError", "PortClosed", "ConnectionLost"),
        *("UsageError", "MissingExtra"),
    }
    assert set(midinet.sync.__all__) == {
        *("PortServer", "SocketPort", "connect", "parse_address", "format_address")
    }
    assert all(hasattr(midinet, name) for name in midinet.__all__)


def test_what_a_server_a_port_and_a_parser_can_do() -> None:
    both = {
        "send",
        "receive",
        "poll",
        "iter_pending",
        "reset",
        "panic",
        "close",
        "wait_closed",
        "closed",
        "stats",
    }
    server = midinet.PortServer("localhost", 0)
    assert members(server) == both | {"accept", "ports", "addresses", "name", "relay", "yield_ports"}
    assert members(midinet.SocketPort) == both
    assert members(midinet.Parser()) == {"feed", "frames", "end", "stats", "max_sysex"}


@pytest.mark.parametrize("name", ["PortServer", "SocketPort", "connect"])
def test_everything_public_is_explained(name: str) -> None:
    for package in (midinet, midinet.sync):
        thing = getattr(package, name)
        assert inspect.getdoc(thing), f"{package.__name__}.{name}"
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{package.__name__}.{name}.{attribute}"


def test_importing_it_brings_in_no_extra() -> None:
    code = f"import midinet, midinet.sync, sys; print(sorted({EXTRAS!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_an_extra_that_is_missing_is_named_with_its_install() -> None:
    error = midinet.MissingExtra("cli", "the command line")
    assert str(error) == "the command line needs an extra: pip install 'midinet[cli]'"
    assert error.extra == "cli"
    assert isinstance(error, ImportError)


def test_the_version_is_that_of_the_distribution() -> None:
    assert midinet.__version__ == importlib.metadata.version("midinet")


def test_the_core_depends_on_mido_alone() -> None:
    required = [r for r in importlib.metadata.requires("midinet") or [] if "extra ==" not in r]
    assert [r.split("<")[0].split(">")[0] for r in required] == ["mido"]


def test_the_tree_of_errors() -> None:
    errors = {name: thing for name, thing in vars(midinet).items() if inspect.isclass(thing)}
    tree = {
        name: {base.__name__ for base in thing.__mro__}
        & {"OSError", "ValueError", "RuntimeError", "ImportError"}
        for name, thing in errors.items()
        if issubclass(thing, midinet.MidinetError)
    }
    assert tree == {
        "MidinetError": set(),
        "ConnectError": {"OSError"},
        "ConnectRefused": {"OSError"},
        "ListenError": {"OSError"},
        "PortClosed": {"OSError", "ValueError"},
        "ConnectionLost": {"OSError"},
        "UsageError": {"RuntimeError"},
        "MissingExtra": {"ImportError"},
    }
    assert issubclass(midinet.ConnectRefused, ConnectionRefusedError)
