"""What serve tells: a line of counts for people, JSON objects for programs."""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import fields

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet import BrokerStats, CloseReason
from midinet.cli.report import MISSED_EVENT, Rates, short, stats_line
from midinet.net.stats import PortStats, ServerStats
from midinet.wire.aside import answer, hello

NOTE = mido.Message("note_on", channel=3, note=60, velocity=90)

COUNTS = st.integers(0, 1 << 50)


def events(hub, kind):
    whole = hub.out.rpartition("\n")[0]
    return [event for line in whole.split("\n") if (event := json.loads(line))["event"] == kind]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (0.4, "0"),
        (999.4, "999"),
        (999.5, "1.00k"),
        (1234, "1.23k"),
        (9994, "9.99k"),
        (9995, "10.0k"),
        (9996, "10.0k"),
        (99_949, "99.9k"),
        (99_951, "100k"),
        (999_499, "999k"),
        (999_501, "1.00M"),
        (12_345_678, "12.3M"),
        (5e12, "5000G"),
    ],
)
def test_a_count_is_short(count, text):
    assert short(count) == text


def test_a_quiet_hub_has_a_short_line():
    assert stats_line(ServerStats(clients=1), 0, 0) == "stats: 1 client, in 0/s, out 0/s"


def test_what_did_not_arrive_is_in_the_line_those_that_matter_most_first():
    stats = ServerStats(
        clients=3, messages_dropped=1, messages_thinned=1000, late_notes=200, late_clocks=34, turned_away=5
    )
    assert stats_line(stats, 12.4, 49_600) == (
        "stats: 3 clients, in 12/s, out 49.6k/s, dropped 1, thinned 1.23k, turned away 5"
    )


def test_a_hub_that_is_joined_to_others_says_to_how_many_and_what_went_amiss():
    broker = BrokerStats(connected=True, hubs=2, gaps=3, late_notes=1, messages_thinned=5)
    assert stats_line(ServerStats(clients=1, broker=broker), 0, 0) == (
        "stats: 1 client, in 0/s, out 0/s, 3 hubs, not for other hubs 5, ..."
    )
    assert (
        stats_line(ServerStats(broker=BrokerStats()), 0, 0) == "stats: 0 clients, in 0/s, out 0/s, no broker"
    )


def test_what_has_no_place_in_the_line_is_hinted_at():
    counts = {"messages_dropped": 1 << 30, "messages_thinned": 1 << 20, "turned_away": 12_345, "undefined": 1}
    line = stats_line(ServerStats(clients=256, **counts), 12_300, 999_000)
    assert line == "stats: 256 clients, in 12.3k/s, out 999k/s, dropped 1.07G, thinned 1.05M, ..."


@given(
    st.builds(
        ServerStats,
        **{
            one.name: COUNTS for one in fields(ServerStats) if one.name not in ("closed", "clients", "broker")
        },
        clients=st.integers(0, 99_999),
        broker=st.none()
        | st.builds(BrokerStats, connected=st.booleans(), hubs=st.integers(0, 99), gaps=COUNTS),
    ),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
)
def test_the_line_is_never_wider_than_a_terminal(stats, received_rate, sent_rate):
    line = stats_line(stats, received_rate, sent_rate)
    assert len(line) <= 80
    assert line.isprintable()


def test_a_rate_is_that_since_the_last_look(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("midinet.cli.report.time.monotonic", lambda: now[0])
    rates = Rates()
    now[0] += 2
    assert rates.of(PortStats(messages_received=10, messages_sent=30)) == (5, 15)
    now[0] += 1
    assert rates.of(PortStats(messages_received=10, messages_sent=31)) == (0, 1)


def test_the_counts_are_shown_as_often_as_asked(start_hub):
    hub = start_hub("--stats-every", "0.1", "--quiet")
    with socket.create_connection(("127.0.0.1", hub.portno), timeout=20):
        hub.wait_for("stats: 1 client, in ", count=2)
    hub.wait_for("stats: 0 clients, in 0/s, out 0/s\n")
    assert all(line.startswith("stats: ") for line in hub.out.splitlines()[1:])


def test_programs_get_one_json_object_a_line(start_hub):
    hub = start_hub("--json", "--stats-every", "0.1", "--token", "c2VjcmV0")
    (listening,) = events(hub, "listening")
    portno = listening["port"]
    assert listening["addresses"] == [f"127.0.0.1:{portno}"]
    assert listening["time"] > 1.7e9
    with socket.create_connection(("127.0.0.1", portno), timeout=20) as client:
        client.sendall(hello("stage left", "c2VjcmV0"))
        assert client.recv(1000) == answer(200)
        client.sendall(NOTE.bin())
        hub.wait_for('"connected"')
        (connected,) = events(hub, "connected")
        here = "{}:{}".format(*client.getsockname())
        assert (connected["name"], connected["peer"]) == ("stage left", here)
        hub.wait_for('"messages_received": 1')
        stats = next(event for event in events(hub, "stats") if event["messages_received"])
        assert (stats["clients"], stats["clients_total"], stats["closed"]) == (1, 1, {})
    with socket.create_connection(("127.0.0.1", portno), timeout=20) as wrong:
        wrong.sendall(hello(None, "d3Jvbmc"))
        hub.wait_for('"disconnected"', count=2)
    hub.wait_for('"turned_away": 1')
    hub.process.send_signal(signal.SIGTERM)
    assert (hub.wait(), hub.err) == (0, "")
    gone, refused = events(hub, "disconnected")
    assert (gone["name"], gone["peer"], gone["reason"]) == ("stage left", here, "peer")
    assert gone["stats"]["messages_received"] == 1
    assert 0 < gone["seconds"] < 60
    assert refused["reason"] == "unauthorized"
    assert len(events(hub, "connected")) == 1
    assert events(hub, "stats")[-1]["closed"] == {"peer": 1, "unauthorized": 1}
    assert NOTE.type not in hub.out
    assert "c2VjcmV0" not in hub.out
    assert "d3Jvbmc" not in hub.out


def test_every_count_there_is_is_in_the_json(start_hub):
    hub = start_hub("--json", "--stats-every", "0.1")
    hub.wait_for('"stats"')
    stats = events(hub, "stats")[0]
    assert stats.keys() - {"event", "time"} == {one.name for one in fields(ServerStats)}
    assert {reason.name.lower() for reason in CloseReason} >= stats["closed"].keys()


def test_what_could_not_be_written_is_json_too():
    assert json.loads(MISSED_EVENT.format(3)) == {"event": "missed", "lines": 3}
