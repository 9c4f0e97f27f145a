"""midinet ports: the servers that announce themselves, and what is missing to list those or the ports.

How ports are listed is tested where there are some: in test_bridge.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import uuid

import pytest

from midinet import PortServer
from tests.harness.waiting import until

# Discovery asks on this address alone, and nothing leaves this machine.
LOOPBACK = {"MIDINET_INTERFACES": "127.0.0.1"}


@pytest.fixture
def ports(run):
    """Run `midinet ports`: (exit status, standard output, standard error)."""

    def ports(*arguments: str) -> tuple[int, str, str]:
        return run("ports", *arguments, env=os.environ | LOOPBACK)

    return ports


def without(*packages: str) -> subprocess.CompletedProcess[str]:
    """`midinet ports` where packages are not installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages!r})); "
        "from midinet.cli.app import run_app; sys.exit(run_app(['ports', '--seconds', '0.1']))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | LOOPBACK,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


# Servers.


async def test_servers_are_listed_as_what_can_be_typed_with_what_they_ask_for(ports, monkeypatch):
    monkeypatch.setenv("MIDINET_INTERFACES", "127.0.0.1")
    name = f"big stage {uuid.uuid4().hex[:8]}"
    async with (
        PortServer("", 0, announce=name) as plain,
        PortServer("", 0, announce=f"{name} locked", tokens=["t0ken"], insecure_token=True) as locked,
    ):
        await until(lambda: plain.announced and locked.announced)
        (status, out, _), (_, objects, _) = await asyncio.gather(
            asyncio.to_thread(ports, "--seconds", "3"), asyncio.to_thread(ports, "--seconds", "3", "--json")
        )
    assert status == 0
    portno, locked_portno = plain.addresses[0][1], locked.addresses[0][1]
    assert f"\n  server  'midi://{name}'  127.0.0.1:{portno}\n" in out
    assert f"\n  server  'midi://{name} locked' (token)  127.0.0.1:{locked_portno}\n" in out
    # The hint can be typed as it stands.
    hint = re.search(r"^To listen to one: (.*)$", out, re.MULTILINE)[1]
    assert shlex.split(hint)[:2] == ["midinet", "monitor"]
    assert len(shlex.split(hint)) == 3
    servers = [one for line in objects.splitlines() if (one := json.loads(line))["kind"] == "server"]
    assert {
        "kind": "server",
        "name": f"{name} locked",
        "address": f"midi://{name} locked",
        "addresses": [f"127.0.0.1:{locked_portno}"],
        "tls": False,
        "token": True,
    } in servers


def test_an_address_that_this_machine_does_not_have_is_one_line_and_status_2(run):
    environment = os.environ | {"MIDINET_INTERFACES": "203.0.113.1"}
    status, _, err = run("ports", "--seconds", "1", env=environment)
    assert status == 2
    assert "203.0.113.1" in err.splitlines()[-1]
    status, _, err = run("ports", "--seconds", "1", env=environment | {"MIDINET_INTERFACES": "eth0"})
    assert status == 2
    assert "MIDINET_INTERFACES" in err.splitlines()[-1]


# Without what they need.


def test_without_zeroconf_the_ports_are_listed_and_one_line_says_what_is_missing():
    ended = without("zeroconf")
    assert "pip install 'midinet[discovery]'" in ended.stderr.splitlines()[-1]
    # There may be no MIDI system here, which is another line.
    assert ended.returncode == (0 if ended.stdout else 2)


def test_without_rtmidi_the_servers_are_looked_for_and_one_line_says_what_is_missing():
    ended = without("rtmidi")
    assert ended.returncode == 0
    assert "erver" in ended.stdout
    assert ended.stderr.count("\n") == 1
    assert "pip install 'midinet[rtmidi]'" in ended.stderr


def test_without_either_it_cannot_begin():
    ended = without("rtmidi", "zeroconf")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 2
