from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from midinet import LinkOptions, PortServer, connect, sync
from midinet.checks import MAX_COUNT, check_count, check_effect, check_flag, check_number
from midinet.gateways import hardware


@pytest.mark.parametrize("value", [1, 5, MAX_COUNT])
def test_a_count_is_a_whole_number_in_its_range(value: int) -> None:
    check_count("max", value)
    check_count("max", None, or_none=True)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((value, TypeError) for value in (None, True, "5", 5.0)),
        *((value, ValueError) for value in (0, MAX_COUNT + 1)),
    ],
)
def test_no_other_value_is_a_count(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max must be"):
        check_count("max", value)


@pytest.mark.parametrize(
    ("value", "error"),
    [(None, TypeError), (False, TypeError), ("5", TypeError), (0, ValueError), (float("nan"), ValueError)],
)
def test_a_number_is_in_its_range(value: Any, error: type[Exception]) -> None:
    check_number("age", 0.5, above=0)
    check_number("age", None, above=0, or_none=True)
    with pytest.raises(error, match="age must be"):
        check_number("age", value, above=0)


def test_a_flag_is_no_text_and_not_nothing() -> None:
    for flag in (True, False, 1):
        check_flag("relay", flag)
    for other in (None, "no"):
        with pytest.raises(TypeError, match="relay must be True or False"):
            check_flag("relay", other)


def test_an_option_needs_the_one_that_it_has_an_effect_with() -> None:
    check_effect("session", False, "broker", False)
    check_effect("session", True, "broker", True)
    with pytest.raises(ValueError, match="session has no effect without broker"):
        check_effect("session", True, "broker", False)


# The options of what a program makes.


def serve(**options: Any) -> None:
    PortServer("localhost", 0, **options)


def client(**options: Any) -> None:
    connect("localhost", 8080, **options)


BROKER = {"relay": True, "broker": "nats://localhost"}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (serve, {"session": "stage"}),
        (serve, {"broker_options": {"name": "stage"}}),
        (serve, {"insecure_token": True}),
        (serve, {"hello_timeout": 3.0}),
        (serve, {"rate_burst": 5}),
        (serve, {**BROKER, "broker_options": {"error_cb": print}}),
        (client, {"insecure_token": True}),
        (client, {"reconnect_for": 5.0}),
        (client, {"rate_burst": 5}),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    make: Callable[..., None], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"has no effect without|not for a caller"):
        make(**options)


MAY_BE_NONE = {
    *("allow", "ssl", "tokens", "announce", "broker", "session", "broker_options"),
    *("timeout", "name", "token", "reconnect_for", "on_state"),
    *("stall_timeout", "dead_peer_timeout", "max_rate", "rate_burst", "sysex"),
}


@pytest.mark.parametrize("make", [serve, client])
def test_none_is_refused_where_it_means_nothing(make: Callable[..., None]) -> None:
    kind: Any = PortServer if make is serve else connect
    own = [*kind.__init__.__kwdefaults__]
    fields = LinkOptions.__dataclass_fields__.values()
    for name in [*own, *(field.name for field in fields if field.init)]:
        if name in MAY_BE_NONE:
            make(**{name: None})
        else:
            with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
                make(**{name: None})


def test_thru_is_refused_at_a_server_which_has_relay_for_that() -> None:
    with pytest.raises(ValueError, match="leave out thru"):
        hardware.bridge(PortServer("localhost", 0), inputs=["*"], thru=False)


def test_a_wrong_keyword_of_a_broker_is_refused() -> None:
    for kind in (PortServer, sync.PortServer):
        with pytest.raises(TypeError, match=r"nats\.connect has no option 'user_credential'"):
            kind("127.0.0.1", 0, **BROKER, broker_options={"user_credential": "typo"})  # type: ignore[arg-type]
