from __future__ import annotations

import ast
import importlib.metadata
import inspect
import itertools
import re
import subprocess
import sys
from typing import Any

import pytest

import midinet
import midinet.sync

EXTRAS = {"typer", "rich", "rtmidi", "uvloop", "click", "zeroconf", "ifaddr"}


def members(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_public_names() -> None:
    assert set(midinet.__all__) == {
        *("PortServer", "SocketPort", "connect", "Parser", "parse_address", "format_address"),
        *("discover", "Service", "ServiceChange"),
        *("LinkOptions", "tls_client_context", "tls_server_context"),
        *(
            "PortState",
            "PortStats",
            "ServerStats",
            "BrokerStats",
            "ParserStats",
            "ClosedConnection",
            "CloseReason",
        ),
        *("MidinetError", "ConnectError", "ConnectRefused", "ListenError", "PortClosed", "ConnectionLost"),
        *("DeviceError", "NotAuthorized", "ServerBusy", "UsageError", "MissingExtra"),
    }
    assert midinet.__all__ == sorted(midinet.__all__)
    assert set(midinet.sync.__all__) == {
        *("PortServer", "SocketPort", "connect", "discover", "Service", "parse_address", "format_address")
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
    assert members(server) == both | {
        *("accept", "ports", "addresses", "name", "relay", "yield_ports", "snapshot", "closed_connections"),
        "announced",
    }
    assert members(midinet.SocketPort) == both | {"state", "wait_connected", "ping", "peer_clients"}
    assert members(midinet.Parser()) == {
        *("feed", "frames", "joined", "end", "stats", "max_sysex", "take_asides", "in_sysex", "abort_sysex")
    }


@pytest.mark.parametrize("name", ["PortServer", "SocketPort", "connect", "discover"])
def test_everything_public_is_explained(name: str) -> None:
    for package in (midinet, midinet.sync):
        thing = getattr(package, name)
        assert inspect.getdoc(thing), f"{package.__name__}.{name}"
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{package.__name__}.{name}.{attribute}"


# What each setting is when nobody sets it. Bytes, messages and seconds, as the docstrings have it.
LINK_DEFAULTS = {
    "max_sysex": 65536,
    "max_inbox": 1024,
    "slow": "thin",
    "max_outbox": 1 << 20,
    "soft_outbox": 1 << 18,
    "soft_messages": 1 << 17,
    "soft_age": 1.0,
    "stall_timeout": None,
    "dead_peer_timeout": 10.0,
    "max_rate": None,
    "rate_burst": None,
    "sysex": None,
    "release_notes": True,
    "send_buffer": 65536,
    "close_timeout": 2.0,
    "running_status": False,
}
SERVER_DEFAULTS = {
    "relay": False,
    "yield_ports": False,
    "snapshot": False,
    "allow": None,
    "ssl": None,
    "tokens": None,
    "insecure_token": False,
    "hello_timeout": 5.0,
    "max_clients": 256,
    "max_clients_per_address": 32,
    "backlog": 1024,
    "announce": None,
    "broker": None,
    "session": None,
    "broker_options": None,
}
CONNECT_DEFAULTS = {
    "timeout": 10.0,
    "name": None,
    "token": None,
    "insecure_token": False,
    "ssl": None,
    "reconnect": False,
    "reconnect_for": None,
    "on_state": None,
    "listen": True,
}


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (midinet.LinkOptions, LINK_DEFAULTS),
        (midinet.PortServer, SERVER_DEFAULTS),
        (midinet.connect, CONNECT_DEFAULTS),
        (midinet.discover, {"interfaces": None}),
    ],
)
def test_the_defaults(thing: Any, expected: dict[str, Any]) -> None:
    keywords = {
        parameter.name: parameter.default
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == expected


def test_every_setting_of_a_connection_is_explained() -> None:
    [tree] = ast.parse(inspect.getsource(midinet.LinkOptions)).body
    assert isinstance(tree, ast.ClassDef)
    explained = {
        setting.target.id
        for setting, text in itertools.pairwise(tree.body)
        if isinstance(setting, ast.AnnAssign)
        and isinstance(setting.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
    assert explained == set(LINK_DEFAULTS)


@pytest.mark.parametrize("thing", [midinet.PortServer, midinet.connect, midinet.discover])
def test_every_other_setting_is_among_its_arguments(thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    for parameter in inspect.signature(thing).parameters:
        assert re.search(rf"^    (\w+, )*{parameter}(, \w+)*: ", text, re.MULTILINE), parameter


@pytest.mark.parametrize("option", LINK_DEFAULTS)
def test_servers_and_clients_take_every_setting_of_a_connection(option: str) -> None:
    value = {"max_rate": 100.0, "rate_burst": 5, "sysex": {0x41}}.get(option, LINK_DEFAULTS[option])
    # It has no effect by itself.
    options = {option: value} | ({"max_rate": 100.0} if option == "rate_burst" else {})
    for thing in (
        midinet.PortServer("localhost", 0, **options),
        midinet.connect("", 1, **options),
    ):
        assert getattr(thing._options, option) == value  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "thing", [midinet.PortServer, midinet.connect, midinet.sync.connect, midinet.sync.PortServer]
)
def test_what_is_no_setting_is_a_type_error(thing: Any) -> None:
    with pytest.raises(TypeError, match="max_outbux"):
        thing("localhost", 0, max_outbux=1)


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
        "DeviceError": {"OSError"},
        "PortClosed": {"OSError", "ValueError"},
        "ConnectionLost": {"OSError"},
        "UsageError": {"RuntimeError"},
        "NotAuthorized": {"OSError"},
        "ServerBusy": {"OSError"},
        "MissingExtra": {"ImportError"},
    }
    assert issubclass(midinet.ConnectRefused, ConnectionRefusedError)
    assert issubclass(midinet.NotAuthorized, PermissionError)
