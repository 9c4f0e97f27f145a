"""Hubs of the command line joined through a real nats-server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mido.sockets
import pytest
from mido import Message

from midinet.cli.common import Complaint
from midinet.cli.joining import BROKER_VARIABLE, read_broker
from tests.harness.nats import NatsServer
from tests.harness.waiting import wait_until

NOTE_ON, NOTE_OFF = Message("note_on", note=60), Message("note_off", note=60)
FILES = {"credentials": None, "nkey": None, "ca": None, "cert": None, "key": None}


@pytest.fixture(scope="module")
def broker() -> Iterator[NatsServer]:
    pytest.importorskip("nats")
    with NatsServer() as server:
        yield server


def close(port: mido.sockets.SocketPort) -> None:
    port.close()
    for file in (port._rfile, port._wfile, port._socket):
        file.close()


def test_three_hubs_are_one_for_mido_s_ports(start_hub: Callable[..., Any], broker: NatsServer) -> None:
    hubs = [start_hub("--broker", broker.url, "--session", "three", "--json") for _ in range(3)]
    for hub in hubs:
        hub.wait_for("joined through the broker")
    ports = []
    for hub in hubs:
        ports.append(mido.sockets.connect("127.0.0.1", hub.portno))
        hub.wait_for('"connected"')
    try:
        # The hubs have to have met, which nobody tells: so it is tried until all hear it.
        heard: list[list[Message]] = [[], [], []]

        def all_hear() -> bool:
            ports[0].send(NOTE_ON)
            ports[0].send(NOTE_OFF)
            for port, messages in zip(ports, heard, strict=True):
                messages.extend(port.iter_pending())
            return all(heard[1:])

        wait_until(all_hear, "the hubs to meet")
        marker = Message("program_change", program=7)
        ports[0].send(marker)
        for port, messages in zip(ports[1:], heard[1:], strict=True):
            while not messages or messages[-1] != marker:
                messages.append(port.receive())
        assert heard[0] == []
        # From some point on they hear the same, whichever hub they are at.
        shorter, longer = sorted(heard[1:], key=len)
        assert longer[-len(shorter) :] == shorter
        for sender in (1, 2):
            ports[sender].send(NOTE_ON)
            for listener in {0, 1, 2} - {sender}:
                assert ports[listener].receive() == NOTE_ON
            # What it held is let go of at all hubs.
            close(ports[sender])
            for listener in {0, 1, 2} - {sender}:
                if not (sender == 2 and listener == 1):
                    assert ports[listener].receive().type == "note_off"
            if sender == 1:
                ports[1] = mido.sockets.connect("127.0.0.1", hubs[1].portno)
                hubs[1].wait_for('"connected"', count=2)
                assert ports[1].receive() == marker  # It is in tune.
    finally:
        for port in ports:
            close(port)


def test_the_state_is_told(start_hub: Callable[..., Any], broker: NatsServer) -> None:
    lines = start_hub("--broker", broker.url, "--session", "told", "--stats-every", "0.1")
    lines.wait_for("session told: joined through the broker at nats://127.0.0.1:")
    lines.wait_for("0/s, 1 hub")
    told = start_hub("--broker", broker.url, "--session", "told", "--stats-every", "0.1", "--json")
    told.wait_for('"hubs": 1')
    # The last line may be half written.
    events = [json.loads(line) for line in told.out.split("\n")[:-1]]
    (stats, *_) = [
        event["broker"] for event in events if event["event"] == "stats" and event["broker"]["hubs"]
    ]
    assert (stats["session"], stats["connected"], stats["url"]) == ("told", True, broker.url)
    lines.wait_for("0/s, 2 hubs")


def test_a_broker_that_is_not_there_is_no_reason_not_to_serve(start_hub: Callable[..., Any]) -> None:
    with NatsServer() as broker:
        broker.kill()
        hub = start_hub("--broker", broker.url, "--stats-every", "0.1")
        hub.wait_for("session midinet: no broker at nats://127.0.0.1:")
        hub.wait_for("0/s, no broker")
        broker.start()
        hub.wait_for("joined through the broker")
        assert hub.out.count("no broker at") == 1
        hub.interrupt()
        assert hub.wait() == 130


def test_the_options_of_a_file(start: Callable[..., Any], tmp_path: Path, broker: NatsServer) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(f'address = "127.0.0.1:0"\nbroker = ["{broker.url}"]\nsession = "a.b"\n')
    hub = start("serve", "--config", str(config))
    assert hub.wait() == 2
    assert "line 3: 'a.b' is no session" in " ".join(hub.err.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"session": "stage"}, "--session is of no use without --broker"),
        ({"nkey": Path("seed")}, "--broker-nkey is of no use without --broker"),
        ({"urls": ["http://x"]}, "'http://x' is no broker"),
        ({"urls": ["nats://u:secret@x:y"]}, "'nats://x:y' is no broker"),
        ({"urls": ["nats://x"], "session": "*"}, "'*' is no session"),
        ({"urls": ["nats://x"], "key": Path("key")}, "--broker-key is of no use without --broker-cert"),
        ({"urls": ["nats://x"], "nkey": Path("/nowhere/seed")}, "cannot read /nowhere/seed"),
        ({"urls": ["nats://x"], "ca": Path("/nowhere/ca")}, "cannot read /nowhere/ca"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Complaint) as caught:
        read_broker(**{"urls": None, "session": None, **FILES, **arguments})
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_environment_s_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_broker(None, None, **FILES) == {}
    monkeypatch.setenv(BROKER_VARIABLE, "nats://a:4222, nats://b:4222")
    found = read_broker(None, "stage", **FILES)
    assert found == {"broker": ["nats://a:4222", "nats://b:4222"], "broker_options": {}, "session": "stage"}
    assert read_broker(["nats://c:1"], None, **FILES)["broker"] == ["nats://c:1"]


def test_what_is_shown_to_the_broker(tmp_path: Path) -> None:
    (tmp_path / "creds").write_text("x")
    (tmp_path / "seed").write_text("y")
    files = {**FILES, "credentials": tmp_path / "creds", "nkey": tmp_path / "seed"}
    options = read_broker(["tls://x"], None, **files)["broker_options"]
    assert options == {"user_credentials": str(tmp_path / "creds"), "nkeys_seed": str(tmp_path / "seed")}
