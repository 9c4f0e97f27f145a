"""By which addresses a server can be reached: all of the machine's, or the one that it listens on."""

from __future__ import annotations

import socket
import sys

import pytest

from midinet.cli import here
from midinet.cli.here import own_addresses, reachable
from midinet.errors import MissingExtra


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_is_for_this_machine_alone(address):
    assert reachable([(address, 8080)]) == []


def test_a_single_address_is_that_address():
    assert reachable([("192.0.2.7", 8080), ("fe80::1%eth0", 8080), ("127.0.0.1", 8080)]) == [
        "192.0.2.7:8080",
        "[fe80::1%eth0]:8080",
    ]


def test_every_interface_is_every_address_but_loopback_and_link_local(monkeypatch):
    own = [here.ip_address(text) for text in ("192.168.1.5", "10.0.0.1", "fe80::1", "2001:db8::5")]
    monkeypatch.setattr(here, "own_addresses", lambda: own)
    both = [("0.0.0.0", 8080), ("::", 8080)]
    assert reachable(both) == ["192.168.1.5:8080", "10.0.0.1:8080", "[2001:db8::5]:8080"]
    assert reachable(both[:1]) == ["192.168.1.5:8080", "10.0.0.1:8080"]
    assert reachable(both[1:]) == ["[2001:db8::5]:8080"]


def test_addresses_of_this_machine_can_be_listened_on():
    for address in own_addresses():
        if address.is_link_local:
            continue
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family) as sock:
            sock.bind((str(address), 0))
        assert not address.is_loopback


def test_a_missing_package_is_an_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    with pytest.raises(MissingExtra, match=r"midinet\[cli\]"):
        reachable([("0.0.0.0", 8080)])
    assert reachable([("127.0.0.1", 8080)]) == []
