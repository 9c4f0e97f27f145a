"""midinet monitor: what is heard, one line a message, to a file, a pipe, or nobody."""

from __future__ import annotations

import os
import signal
import socket
import struct

import mido
import mido.sockets
import pytest

from tests.harness.raw import accept_command
from tests.harness.waiting import wait_until

NOTES = [mido.Message("note_on", note=note) for note in (60, 64, 67)]
WIRE = b"".join(bytes(note.bin()) for note in NOTES)
LINES = "".join(f"{note}\n" for note in NOTES)
# What lets go of them, when their sender is gone.
OFF_LINES = "".join(f"{mido.Message('note_off', note=note.note)}\n" for note in NOTES)


@pytest.fixture
def server():
    """A server by hand: `accept()` gives the monitor's connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def address(server):
    return "{}:{}".format(*server.getsockname())


def test_prints_each_message_at_once_in_midos_text_form(server, start):
    monitor = start("monitor", address(server))
    client, _ = server.accept()
    with client:
        for count, note in enumerate(NOTES, start=1):
            client.sendall(note.bin())
            monitor.wait_for("\n", count=count)
            assert monitor.out.splitlines()[-1] == str(note)


def test_what_it_prints_mido_reads_back(hub, start):
    messages = [
        mido.Message("pitchwheel", channel=15, pitch=-8192),
        mido.Message("sysex", data=(1, 2, 127)),
        mido.Message("songpos", pos=16383),
        mido.Message("clock"),
    ]
    monitor = start("monitor", hub.address)
    hub.wait_for("connected")
    with mido.sockets.connect("127.0.0.1", hub.portno) as player:
        for message in messages:
            player.send(message)
        monitor.wait_for("\n", count=len(messages))
    assert [mido.Message.from_str(line) for line in monitor.out.splitlines()] == messages


def test_ends_with_0_when_the_server_closes_and_everything_is_printed(server, start):
    monitor = start("monitor", address(server))
    client, _ = server.accept()
    with client:
        client.sendall(WIRE * 10_000)
    assert (monitor.wait(), monitor.err) == (0, "")
    assert monitor.out.startswith(LINES * 10_000)
    released = monitor.out.removeprefix(LINES * 10_000)
    assert set(released.splitlines()) == set(OFF_LINES.splitlines())


def test_a_broken_link_is_one_line_and_status_1_after_what_had_arrived(server, start):
    monitor = start("monitor", address(server))
    with accept_command(server, answers=True) as client:
        client.sendall(WIRE)
        monitor.wait_for("\n", count=len(NOTES))
        # With this, closing sends a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert monitor.wait() == 1
    assert monitor.err.startswith(f"midinet: the connection to {address(server)} is lost")
    assert monitor.err.count("\n") == 1
    assert monitor.out == LINES + OFF_LINES


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it(server, start, number, status):
    monitor = start("monitor", address(server))
    client, _ = server.accept()
    with client:
        client.sendall(WIRE)
        monitor.wait_for("\n", count=len(NOTES))
        monitor.process.send_signal(number)
        assert (monitor.wait(), monitor.err, monitor.out) == (status, "", LINES)


def test_ends_quietly_when_the_reader_of_its_pipe_leaves_although_nothing_more_comes(server, start):
    reader, writer = os.pipe()
    monitor = start("monitor", address(server), stdout=writer)
    os.close(writer)
    client, _ = server.accept()
    with client:
        client.sendall(WIRE)
        assert os.read(reader, 1000).startswith(f"{NOTES[0]}\n".encode())
        os.close(reader)
        assert (monitor.wait(), monitor.err) == (0, "")


def test_ends_quietly_when_the_reader_leaves_in_the_middle_of_a_flood(server, start):
    reader, writer = os.pipe()
    monitor = start("monitor", address(server), stdout=writer)
    os.close(writer)
    client, _ = server.accept()
    with client:
        client.sendall(WIRE * 1000)
        os.read(reader, 100)
        os.close(reader)
        assert (monitor.wait(), monitor.err) == (0, "")


def test_an_output_that_is_blocked_holds_up_the_server_and_not_ctrl_c(server, start, pipe):
    _, writer = pipe
    monitor = start("monitor", address(server), stdout=writer)
    client, _ = server.accept()
    with client:
        client.settimeout(0.5)
        # TCP pushes back when the pipe, the monitor and the sockets are full.
        with pytest.raises(TimeoutError):
            client.sendall(WIRE * 1_000_000)
        monitor.interrupt()
        assert (monitor.wait(), monitor.err) == (130, "")


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="what a process connects to is read there")
def test_ctrl_c_while_connecting_is_130(start):
    # A full backlog: the system answers nobody, and connecting waits.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())
            monitor = start("monitor", address(server))
            wait_until(lambda: _connects(monitor, server), "a connection that is being made")
            monitor.interrupt()
            assert (monitor.wait(), monitor.err) == (130, "")
        finally:
            for filler in fillers:
                filler.close()


def _connects(monitor, server):
    """Whether the process waits in a connect: it has a SYN_SENT socket to that port."""
    portno = f":{server.getsockname()[1]:04X}"
    inodes = set()
    with open("/proc/net/tcp") as table:
        for line in table:
            words = line.split()
            if words[2].endswith(portno) and words[3] == "02":
                inodes.add(f"socket:[{words[9]}]")
    return bool(inodes) and any(link in inodes for link in _links(monitor.process.pid))


def _links(pid):
    directory = f"/proc/{pid}/fd"
    for number in os.listdir(directory):
        try:
            yield os.readlink(f"{directory}/{number}")
        except FileNotFoundError:
            pass
