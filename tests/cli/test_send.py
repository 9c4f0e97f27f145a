"""midinet send: messages as people write them, and all of them on the wire before it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import mido
import pytest
from hypothesis import given

from midinet.cli.common import Complaint
from midinet.cli.send import read_arguments, read_message
from tests.harness.messages import any_message, edge_messages

ON = mido.Message("note_on", note=60, velocity=90)
OFF = mido.Message("note_off", note=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ["note_on", "note=60", "velocity=90", "note_off", "note=60"],
        ["note_on note=60 velocity=90", "note_off note=60"],
        ["note_on note=60 velocity=90 note_off note=60"],
        ["  note_on  note=60 velocity=90 time=0.5", "note_off", "note=60"],
    ],
)
def test_it_does_not_matter_what_is_one_argument_to_the_shell(arguments):
    first, second = read_arguments(arguments)
    assert (first.copy(time=0), second) == (ON, OFF)


def test_types_alone_are_messages():
    assert read_arguments(["clock", "start note_on"]) == [
        mido.Message(kind) for kind in ("clock", "start", "note_on")
    ]


@given(any_message())
def test_whatever_mido_writes_is_read(message):
    assert read_message(str(message)) == message


@pytest.mark.parametrize("message", edge_messages(), ids=lambda message: str(message)[:30])
def test_whatever_mido_writes_is_read_at_the_edges(message):
    assert read_message(str(message)) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bogus",
        "note_on note",
        "note_on note=",
        "note_on note=sixty",
        "note_on note=128",
        "note_on channel=16",
        "note_on type=note_off",
        "note_on data=()",
        "sysex data=",
        "sysex data=1,2",
        "sysex data=(1,2",
        "sysex data=(1,2,34",
        "sysex data=(1,,2)",
        "pitchwheel pitch=8192",
        "set_tempo tempo=5",
        "note_on note=60 time=now",
    ],
)
def test_what_is_no_message_is_a_complaint(text):
    with pytest.raises(Complaint, match="is no message"):
        read_message(text)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def address(server):
    return "{}:{}".format(*server.getsockname())


def rest_of(client):
    return b"".join(iter(lambda: client.recv(65536), b""))


def everything_from(server):
    client, _ = server.accept()
    with client:
        client.settimeout(20)
        return rest_of(client)


def test_arguments_are_sent_and_it_ends(server, start):
    send = start("send", address(server), "note_on", "note=60", "velocity=90", "note_off note=60")
    assert everything_from(server) == bytes(ON.bin() + OFF.bin())
    assert (send.wait(), send.out, send.err) == (0, "", "")


def test_of_wrong_arguments_none_is_sent(server, run):
    assert run("send", address(server), "note_on", "note=60", "note_off", "note=600")[0] == 2
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


@pytest.mark.parametrize("dash", [[], ["-"]])
def test_lines_are_sent_as_they_come(server, start, dash):
    send = start("send", address(server), *dash, stdin=subprocess.PIPE)
    client, _ = server.accept()
    with client:
        client.settimeout(20)
        for message in (ON, OFF):
            send.process.stdin.write(f"# the next\nactive_sensing\n\n{message}\n".encode())
            send.process.stdin.flush()
            assert client.recv(3, socket.MSG_WAITALL) == bytes(message.bin())
        # The last line need not end.
        send.process.stdin.write(str(ON).encode())
        send.process.stdin.close()
        # Its end lets go of what it holds.
        assert rest_of(client) == bytes(ON.bin() + OFF.bin())
    assert (send.wait(), send.out, send.err) == (0, "", "")


def test_lines_may_come_from_a_file(server, start, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text(f"{ON}\n{OFF}\n" * 20_000)
    with lines.open() as opened:
        send = start("send", address(server), stdin=opened)
        assert everything_from(server) == bytes(ON.bin() + OFF.bin()) * 20_000
    assert send.wait() == 0


def test_a_wrong_line_is_named_by_its_number_and_the_lines_before_it_are_sent(server, start):
    send = start("send", address(server), stdin=subprocess.PIPE)
    send.process.stdin.write(f"# a comment\n{ON}\n\nbogus note=60\n{OFF}\n".encode())
    send.process.stdin.flush()
    assert everything_from(server) == bytes(ON.bin() + OFF.bin())
    assert send.wait() == 2
    assert send.err == "midinet: line 4: 'bogus note=60' is no message: Unknown message type 'bogus'\n"


def test_what_monitor_prints_send_can_send(start_hub, start):
    here, there = start_hub(), start_hub()
    reader, writer = os.pipe()
    monitor = start("monitor", here.address, stdout=writer)
    start("send", there.address, "-", stdin=reader)
    os.close(reader)
    os.close(writer)
    listener = start("monitor", there.address)
    here.wait_for(" connected")
    there.wait_for(" connected", count=2)
    start("send", here.address, str(ON), "sysex", "data=()")
    listener.wait_for("\n", count=3)
    assert listener.out == f"{ON}\nsysex data=() time=0\n{OFF}\n"
    assert monitor.process.poll() is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting_for_lines(server, start, number, status):
    send = start("send", address(server), stdin=subprocess.PIPE)
    client, _ = server.accept()
    with client:
        send.process.send_signal(number)
        assert (send.wait(), send.err) == (status, "")


def test_a_server_that_goes_away_is_one_line_and_status_1(server, start):
    send = start("send", address(server), stdin=subprocess.PIPE)
    client, _ = server.accept()
    with client:
        client.sendall(b"\xf8")
    assert send.wait() == 1
    assert send.err == f"midinet: the port to {address(server)} is closed by the peer\n"


def test_a_hub_that_is_killed_is_one_line_and_status_1(hub, start):
    send = start("send", hub.address, stdin=subprocess.PIPE)
    hub.wait_for(" connected")
    hub.process.kill()
    assert send.wait() == 1
    assert send.err.startswith("midinet: ")
    assert hub.address in send.err
    assert send.err.count("\n") == 1


def test_what_a_hub_sends_meanwhile_does_not_make_it_a_slow_client(start_hub, start):
    count = 200_000
    # To show them all takes a busy machine longer than anybody waits here.
    hub = start_hub("--type", "start")
    send = start("send", hub.address, stdin=subprocess.PIPE)
    hub.wait_for(" connected")
    with socket.create_connection(("127.0.0.1", hub.portno), timeout=20) as player:
        player.sendall(bytes(ON.bin()) * count)
    hub.wait_for(" disconnected")
    send.process.stdin.write(b"start\n")
    send.process.stdin.close()
    hub.wait_for(" start time=0")
    assert send.wait() == 0
