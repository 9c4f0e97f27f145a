"""midinet bridge: devices of this machine and a server, both ways, whoever comes and goes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mido
import pytest

from midinet import PortState
from midinet.cli.bridge import what_is_up
from midinet.gateways.hardware import DeviceState
from tests.harness.jack import Jack
from tests.harness.waiting import wait_until

ON, OFF = [0x90, 60, 64], [0x80, 60, 64]


@pytest.fixture
def bridge(jack: Jack, start: Callable[..., Any]) -> Callable[..., Any]:
    """Start `midinet bridge` to an address, with JACK's ports."""

    def bridge(address: str, *arguments: str, **options: Any) -> Any:
        return start("bridge", address, *arguments, "--api", "jack", **options)

    return bridge


@pytest.fixture
def client(quiet_hub: Any) -> Iterator[Client]:
    """Another client of the hub."""
    with socket.create_connection(("127.0.0.1", quiet_hub.portno), 20) as connection:
        yield Client(connection)


class Client:
    """A client by hand, which hears what all the others send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parser = mido.Parser()

    def hear(self) -> list[int]:
        """Wait for the next message, and return its bytes."""
        while not self._parser.pending():
            data = self._connection.recv(4096)
            assert data, "the hub has closed"
            self._parser.feed(data)
        return list(self._parser.get_message().bytes())

    def play(self, message: list[int]) -> None:
        """Send a message."""
        self._connection.sendall(bytes(message))


# What passes.


def test_what_inputs_bring_the_others_hear_and_what_they_send_the_outputs_play(
    quiet_hub, client, bridge, plug
):
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    bridged = bridge(quiet_hub.address, "--input", "Keys", "--output", "Synth")
    bridged.wait_for(f"{quiet_hub.address} up | in: {keys.out} | out: {synth.into}\n")
    keys.play(ON, OFF)
    assert [client.hear(), client.hear()] == [ON, OFF]
    # What one device plays the others play too.
    wait_until(lambda: synth.heard == [bytes(ON), bytes(OFF)], "the synthesizer")
    client.play([0x91, 61, 1])
    wait_until(lambda: synth.heard[2:] == [bytes([0x91, 61, 1])], "the synthesizer")
    assert bridged.err == ""


def test_without_thru_devices_hear_the_server_alone(quiet_hub, client, bridge, plug):
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    bridged = bridge(quiet_hub.address, "--input", "Keys", "--output", "Synth", "--no-thru")
    bridged.wait_for(" up | in: ")
    keys.play(ON)
    assert client.hear() == ON
    client.play([0x91, 61, 1])
    wait_until(lambda: bool(synth.heard), "the synthesizer")
    assert synth.heard[0] == bytes([0x91, 61, 1])


@pytest.mark.parametrize(("options", "heard"), [([], [[0xF8], ON]), (["--no-clock"], [ON])])
def test_clock_passes_or_does_not(quiet_hub, client, bridge, plug, options, heard):
    keys = plug("Keys", sounds=False)
    bridge(quiet_hub.address, "--input", "Keys", *options).wait_for(" up | in: ")
    keys.play([0xF8], ON)
    assert [client.hear() for _ in heard] == heard


def test_every_port_that_a_pattern_fits_is_bridged_also_one_that_comes_later(quiet_hub, client, bridge, plug):
    bridged = bridge(quiet_hub.address, "--input", "Key*")
    bridged.wait_for(f"{quiet_hub.address} up | no device yet\n")
    plug("Other", sounds=False)
    keys = plug("Keys", sounds=False)
    bridged.wait_for(f" up | in: {keys.out}\n")
    keys.play(ON)
    assert client.hear() == ON


def test_other_programs_can_use_a_virtual_port(quiet_hub, client, bridge, jack, plug):
    bridged = bridge(quiet_hub.address, "--virtual", "stage")
    bridged.wait_for(" up | in: stage | out: stage\n")
    keys = plug("Keys", sounds=False)
    [_, into] = jack.own_ports("stage")
    asyncio.run(jack.connect(keys.out, into))
    keys.play(ON)
    assert client.hear() == ON


# Who comes and goes.


def test_a_device_that_is_not_there_is_waited_for_and_the_others_are_named(quiet_hub, bridge, plug):
    keys = plug("Keys")
    bridged = bridge(quiet_hub.address, "--input", "Keys", "--output", "Pad")
    bridged.wait_for(f"waiting for the output 'Pad'; there are: {keys.into!r}\n")
    bridged.wait_for(f"{quiet_hub.address} up | in: {keys.out} | waiting for: Pad\n")
    pad = plug("Pad", plays=False)
    bridged.wait_for(f"{quiet_hub.address} up | in: {keys.out} | out: {pad.into}\n")


def test_what_a_device_held_is_let_go_when_it_is_unplugged(quiet_hub, client, bridge, plug):
    keys = plug("Keys", sounds=False)
    bridged = bridge(quiet_hub.address, "--input", "Keys")
    bridged.wait_for(" up | in: ")
    keys.play(ON)
    assert client.hear() == ON
    keys.unplug()
    assert client.hear()[:2] == OFF[:2]
    bridged.wait_for(f" up | waiting for: {keys.out}\n")
    again = plug("Keys", sounds=False)
    bridged.wait_for(f" up | in: {keys.out}\n", count=2)
    again.play(ON)
    assert client.hear() == ON


def test_a_server_is_waited_for_at_first_and_when_it_is_gone(start_hub, start, bridge, plug, run):
    keys = plug("Keys", sounds=False)
    hub = start_hub("--quiet")
    hub.process.terminate()
    hub.wait()
    bridged = bridge(hub.address, "--input", "Keys")
    bridged.wait_for(f"connecting to {hub.address} ...\n")
    for count in (1, 2):
        again = start("serve", hub.address, "--quiet")
        bridged.wait_for(f"{hub.address} up | in: {keys.out}\n", count=count)
        again.process.terminate()
        again.wait()
        bridged.wait_for(f"{hub.address} gone, trying | in: {keys.out}\n", count=count)
    bridged.interrupt()
    assert (bridged.wait(), bridged.err) == (130, "")


@pytest.mark.full  # It waits for ten seconds.
def test_a_server_that_does_not_come_is_one_line_and_status_2(bridge, plug):
    plug("Keys")
    # Bound, so that nobody else gets it, and not listening.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*silent.getsockname())
        bridged = bridge(address, "--input", "Keys")
        assert bridged.wait() == 2
    assert bridged.err == f"midinet: nobody listens on {address}\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_and_lets_go_of_what_is_held(quiet_hub, client, bridge, plug, number, status):
    keys = plug("Keys", sounds=False)
    bridged = bridge(quiet_hub.address, "--input", "Keys")
    bridged.wait_for(" up | in: ")
    keys.play(ON)
    assert client.hear() == ON
    bridged.process.send_signal(number)
    assert client.hear()[:2] == OFF[:2]
    assert (bridged.wait(), bridged.err) == (status, "")


# In a terminal.


def test_in_a_terminal_one_line_is_drawn_over_and_over(quiet_hub, client, bridge, plug):
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    termios = pytest.importorskip("termios")
    keys, master, slave = plug("Keys", sounds=False), *pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, 80))
        arguments = ("--input", "Keys", "--output", "Pad")
        bridged = bridge(quiet_hub.address, *arguments, stdout=slave, env=os.environ | {"TERM": "xterm"})
        shown = ""
        while "(0) | waiting for: Pad" not in shown:
            shown += os.read(master, 65536).decode()
        assert "waiting for the output 'Pad'; there are: none\x1b[K\r\n" in shown
        keys.play(ON, OFF)
        while f"\r{quiet_hub.address} up | in: {keys.out} (2) | waiting for: Pad" not in shown:
            shown += os.read(master, 65536).decode()
        assert all(len(line) < 80 + len("\x1b[K") for line in re.split("[\r\n]", shown))
        # What is drawn over is no new line.
        assert shown.count("\n") == 1
        bridged.interrupt()
        assert bridged.wait() == 130
        # The last one stays.
        while not shown.endswith("\x1b[K\r\n"):
            shown += os.read(master, 65536).decode()
        assert "waiting for: Pad" in shown.rpartition("\r")[0].rpartition("\r")[2]
    finally:
        os.close(master)
        os.close(slave)


def test_names_are_cut_and_counts_are_shown_where_there_is_little_room():
    port: Any = SimpleNamespace(name="h:1", state=PortState.CONNECTED)
    states = [
        DeviceState("Keystation 49", True, True, True, messages_in=1234, messages_out=5),
        DeviceState("Pad", False, True, False),
        DeviceState("Evil\x1b[2J", True, False, True, messages_dropped=3),
    ]
    assert what_is_up(port, states) == (
        "h:1 up | in: Keystation 49, Evil?[2J | out: Keystation 49 | waiting for: Pad | 3 lost"
    )
    assert what_is_up(port, states, most=8, counts=True) == (
        "h:1 up | in: Keysta.. (1.23k), Evil?[2J (0) | out: Keysta.. (5) | waiting for: Pad | 3 lost"
    )
    port.state = PortState.RECONNECTING
    assert what_is_up(port, []) == "h:1 gone, trying | no device yet"


# Wrong use, and the list.


def test_a_name_that_several_ports_have_is_one_line_before_anything_is_connected(bridge, plug):
    one, other = plug("Keys A", sounds=False), plug("Keys B", sounds=False)
    bridged = bridge("127.0.0.1:1", "--input", "Keys")
    assert (bridged.wait(), bridged.out) == (2, "")
    assert bridged.err == f"midinet: 'Keys' may be any of {one.out!r}, {other.out!r}\n"


@pytest.mark.parametrize("option", ["--input", "--output", "--virtual"])
def test_an_empty_name_is_one_line(bridge, option):
    bridged = bridge("127.0.0.1:1", option, "")
    assert (bridged.wait(), bridged.out) == (2, "")
    assert bridged.err.count("\n") == 1
    assert "empty" in bridged.err


@pytest.mark.parametrize("arguments", [["ports", "--seconds", "0"], ["bridge", "--list"]])
def test_the_ports_are_listed_with_what_they_are(run, plug, arguments):
    plug("Grand Piano")
    status, out, err = run(*arguments, "--api", "jack")
    assert (status, err) == (0, "")
    assert "\n  input   'Grand Piano out:midi'\n" in out
    assert "\n  output  'Grand Piano in:midi'\n" in out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("Grand", r"Grand\ Piano\ out\:midi"), ("'Grand", "Grand Piano out:midi"), ("Flute", "")],
)
def test_bash_completes_the_names_of_ports(run, plug, typed, completed):
    plug("Grand Piano")
    words = ["midinet", "bridge", "localhost", ":", "8080", "--api", "jack", "--input", typed]
    environment = {
        "_MIDINET_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    assert run(env=os.environ | environment) == (0, f"{completed}\n", "")


def test_no_ports_at_all_is_said_in_words(run, jack):
    assert run("bridge", "--list", "--api", "jack") == (0, "This machine has no MIDI ports.\n", "")
