from __future__ import annotations

import copy
import hmac
import ipaddress
import pickle
from typing import Any

import pytest

from midinet.net.access import (
    DEFAULT_MAX_CLIENTS,
    DEFAULT_MAX_CLIENTS_PER_ADDRESS,
    AllowList,
    Crowd,
    Tokens,
    check_token,
    is_loopback,
)

SECRET = "3f6c-not.to_be~seen+anywhere/=="
NO_ADDRESS = ["", "localhost", "10.0.0", "10.0.0.5:8080", "[::1]", "fe80::1%", "/run/midi.sock"]


@pytest.mark.parametrize(
    ("item", "inside", "outside"),
    [
        ("192.168.1.0/24", ["192.168.1.0", "192.168.1.255", "::ffff:192.168.1.7"], ["192.168.2.0", "::1"]),
        ("10.0.0.5", ["10.0.0.5", "::ffff:10.0.0.5", "::ffff:a00:5"], ["10.0.0.4", "10.0.0.6", "::10.0.0.5"]),
        ("::1", ["::1"], ["::2", "127.0.0.1"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:db8:ffff::"], ["2001:db9::"]),
        ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["::1"]),
        ("::/0", ["::1", "2001:db8::1", "fe80::1%eth0"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("::ffff:10.0.0.5", ["10.0.0.5", "::ffff:10.0.0.5"], ["10.0.0.6"]),
        ("::ffff:10.0.0.0/104", ["10.255.0.1", "::ffff:10.255.0.1"], ["11.0.0.0"]),
        ("fe80::1", ["fe80::1", "fe80::1%eth0", "fe80::1%2"], ["fe80::2%eth0"]),
        ("fe80::1%eth0", ["fe80::1%eth0"], ["fe80::1", "fe80::1%eth1", "fe80::2%eth0"]),
        ("fe80::%eth0/10", ["fe80::1%eth0", "febf::2%eth0"], ["fe80::1%eth1", "fec0::1%eth0"]),
        (ipaddress.ip_address("10.0.0.5"), ["10.0.0.5"], ["10.0.0.6"]),
        (ipaddress.ip_address("fe80::1%eth0"), ["fe80::1%eth0"], ["fe80::1%eth1"]),
        (ipaddress.ip_network("10.0.0.0/8"), ["10.1.2.3"], ["11.0.0.0"]),
        (ipaddress.ip_network("2001:db8::/32"), ["2001:db8::1"], ["2001:db9::"]),
    ],
)
def test_an_item_permits_its_addresses_and_no_others(
    item: Any, inside: list[str], outside: list[str]
) -> None:
    allowed = AllowList([item])
    assert [address for address in inside if not allowed.permits(address)] == []
    assert [address for address in outside + NO_ADDRESS if allowed.permits(address)] == []


def test_any_item_of_several_is_enough() -> None:
    allowed = AllowList({"10.0.0.5", "::1", "192.168.0.0/16"})
    assert allowed.permits("10.0.0.5")
    assert allowed.permits("::1")
    assert allowed.permits("192.168.7.7")
    assert not allowed.permits("10.0.0.6")


def test_no_items_permit_nobody() -> None:
    allowed = AllowList([])
    assert not allowed.permits("127.0.0.1")
    assert not allowed.permits("::1")
    assert repr(allowed) == "<AllowList nobody>"


def test_an_allow_list_says_whom_it_permits() -> None:
    allowed = AllowList(["10.0.0.5", "192.168.1.0/24", "fe80::%eth0/10"])
    assert repr(allowed) == "<AllowList 10.0.0.5/32, 192.168.1.0/24, fe80::%eth0/10>"


@pytest.mark.parametrize(
    "item",
    [
        *NO_ADDRESS,
        "10.0.0.0/33",
        "192.168.1.5/24",
        "10.0.0.5%eth0",
        "fe80::1%a%b",
        "fe80::/10%eth0",
        "10.0.0.5/",
        5,
        True,
        None,
        b"\x0a\x00\x00\x05",
    ],
)
def test_an_item_that_is_no_address_is_named(item: Any) -> None:
    with pytest.raises(ValueError, match="neither an address nor a network") as caught:
        AllowList(["10.0.0.5", item])
    assert repr(item) in str(caught.value)


def test_the_error_says_why_a_network_is_none() -> None:
    with pytest.raises(ValueError, match=r"192\.168\.1\.5/24.* host bits"):
        AllowList(["192.168.1.5/24"])


@pytest.mark.parametrize(
    "items",
    [
        "10.0.0.5",
        b"10.0.0.5",
        ipaddress.ip_address("10.0.0.5"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("2001:db8::/32"),
        iter(["10.0.0.5"]),
        None,
    ],
)
def test_one_address_in_place_of_a_collection_is_explained(items: Any) -> None:
    with pytest.raises(ValueError, match="allow is a collection of addresses and networks"):
        AllowList(items)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.255.1.2", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "::1%lo"]
)
def test_loopback_is_known(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [*NO_ADDRESS, "128.0.0.1", "10.0.0.5", "0.0.0.0", "::", "::2", "::ffff:10.0.0.5", "::127.0.0.1"],
)
def test_nothing_else_is_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("given", [["a", SECRET], (SECRET, "b"), {"a", SECRET, "b"}, {SECRET: "a name"}])
def test_each_of_the_tokens_is_accepted_and_no_other(given: Any) -> None:
    tokens = Tokens(given)
    assert all(tokens.accepts(token) for token in given)
    for wrong in (
        None,
        "",
        "x",
        SECRET[:-1],
        SECRET + "=",
        SECRET.upper(),
        " " + SECRET,
        "é",
        "\ud800",
        "\0",
    ):
        assert not tokens.accepts(wrong)


def test_no_tokens_accept_nobody_and_are_not_false() -> None:
    tokens = Tokens([])
    assert not tokens.accepts(None)
    assert not tokens.accepts("")
    # `if tokens:` must not take it for a server that asks for none.
    assert tokens


def test_every_token_is_compared_in_constant_time_even_after_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, compared = hmac.compare_digest, []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = Tokens(["a", "bb", "c" * 100])
    for shown in ("a", "bb", "c" * 100, "wrong"):
        compared.clear()
        assert tokens.accepts(shown) is (shown != "wrong")
        # As long for each of them: a comparison of different lengths ends early.
        assert compared == [(32, 32)] * 3


def test_tokens_show_only_how_many_they_are() -> None:
    tokens = Tokens([SECRET, "abc"])
    assert repr(tokens) == str(tokens) == f"{tokens}" == "<Tokens: 2>"
    with pytest.raises(TypeError):
        vars(tokens)
    held = [getattr(tokens, name) for name in dir(tokens) if "digests" in name]
    assert held
    assert SECRET not in repr(held)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tokens_are_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        pickle.dumps(Tokens([SECRET]), protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_tokens_are_not_copied(duplicate: Any) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        duplicate(Tokens([SECRET]))


@pytest.mark.parametrize("tokens", [SECRET, SECRET.encode(), iter([SECRET]), None, 5])
def test_one_token_in_place_of_a_collection_is_explained_without_showing_it(tokens: Any) -> None:
    with pytest.raises(ValueError, match="tokens is a collection of strings") as caught:
        Tokens(tokens)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("", "must not be empty"),
        (SECRET + " ", "characters that cannot be sent"),
        (SECRET + "\n", "characters that cannot be sent"),
        ("\r\n" + SECRET, "characters that cannot be sent"),
        (SECRET + "x", "characters that cannot be sent"),
        ("ü" + SECRET, "characters that cannot be sent"),
        ("٣" + SECRET, "characters that cannot be sent"),
        ("=", "characters that cannot be sent"),
        (SECRET.encode(), "is a str, not bytes"),
        (None, "is a str, not NoneType"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(token: Any, text: str) -> None:
    for check in (check_token, lambda token: Tokens(["abc", token])):
        with pytest.raises(ValueError, match=text) as caught:
            check(token)
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_there_is_room_for_so_many_and_no_more() -> None:
    crowd = Crowd(max_clients=3)
    assert [crowd.enter(f"10.0.0.{number}") for number in range(5)] == [True, True, True, False, False]
    assert crowd.clients == 3
    crowd.leave("10.0.0.1")
    assert crowd.enter("10.0.0.9")
    assert not crowd.enter("10.0.0.1")


def test_one_address_takes_so_many_places_and_no_more() -> None:
    crowd = Crowd(max_clients_per_address=2)
    assert [crowd.enter("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert crowd.enter("10.0.0.2")
    assert crowd.clients == 3
    crowd.leave("10.0.0.1")
    assert crowd.enter("10.0.0.1")
    assert not crowd.enter("10.0.0.1")


def test_an_address_is_the_same_however_it_is_written() -> None:
    crowd = Crowd(max_clients_per_address=1)
    assert crowd.enter("10.0.0.1")
    assert not crowd.enter("::ffff:10.0.0.1")
    assert crowd.enter("2001:db8::1")
    assert not crowd.enter("2001:db8:0::0:1")
    crowd.leave("::ffff:10.0.0.1")
    assert crowd.enter("10.0.0.1")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_bounded_only_by_the_whole(address: str) -> None:
    crowd = Crowd(max_clients=5, max_clients_per_address=1)
    assert [crowd.enter(address) for _ in range(6)] == [True] * 5 + [False]


def test_peers_without_an_address_are_counted_like_others() -> None:
    crowd = Crowd(max_clients_per_address=1)
    assert crowd.enter("")
    assert not crowd.enter("")
    crowd.leave("")
    assert crowd.enter("")


def test_who_never_entered_cannot_leave() -> None:
    crowd = Crowd(max_clients_per_address=1)
    crowd.enter("10.0.0.1")
    crowd.enter("10.0.0.1")  # refused, and so not in
    crowd.leave("10.0.0.1")
    for address in ("10.0.0.1", "10.0.0.2"):
        with pytest.raises(ValueError, match=f"no connection from {address} is in"):
            crowd.leave(address)
    assert crowd.clients == 0


def test_addresses_that_left_or_were_refused_are_not_remembered() -> None:
    crowd = Crowd(max_clients=1)
    assert crowd.enter("10.0.0.1")
    for number in range(100):
        assert not crowd.enter(f"10.1.0.{number}")
    crowd.leave("10.0.0.1")
    assert not crowd._by_address


@pytest.mark.parametrize("name", ["max_clients", "max_clients_per_address"])
def test_a_limit_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be between 1 and"):
        Crowd(**{name: 0})


def test_the_default_limits_are_256_and_32() -> None:
    crowd = Crowd()
    assert (crowd.max_clients, crowd.max_clients_per_address) == (256, 32)
    assert (DEFAULT_MAX_CLIENTS, DEFAULT_MAX_CLIENTS_PER_ADDRESS) == (256, 32)
