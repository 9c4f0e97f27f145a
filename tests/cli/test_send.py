"""midinet send: messages as people write them, and all of them on the wire before it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import mido
import pytest
from hypothesis import given

from midinet.cli.common import Complaint
from midinet.cli.send import read_arguments, read_message
from tests.harness.messages import any_message, edge_messages
from tests.harness.raw import accept_command
from tests.harness.terminal import Terminal

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


@pytest.mark.parametrize(
    "arguments",
    [
        ["F0 7E 7F 06 01 F7", "note_on note=C4 velocity=90"],
        ["F0", "7E", "7F", "06", "01", "F7", "90", "3C", "5A"],
        ["f07e7f0601f7", "note_on", "note=60", "velocity=90"],
        ["0xF0, 0x7E, 0x7F, 0x06, 0x01, 0xF7", "0x90 0x3C 0x5A"],
        ["sysex data=(126, 127, 6, 1)", "90 3C 5A"],
        ["sysex", "data=(126, 127, 6, 1)", "note_on", "note=c4", "velocity=90"],
        ["sysex data=( 126,127, 6,1 ) time=0 note_on note=C4 velocity=90"],
    ],
)
def test_messages_are_written_as_bytes_or_as_python_prints_them_too(arguments):
    assert read_arguments(arguments) == [mido.Message("sysex", data=(126, 127, 6, 1)), ON]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("C4", 60),
        ("c4", 60),
        ("A4", 69),
        ("F#3", 54),
        ("Gb3", 54),
        ("g♭3", 54),
        ("C-1", 0),
        ("G9", 127),
        ("B#3", 60),
        ("Cb4", 59),
        ("Bb-1", 10),
    ],
)
def test_notes_have_names(name, number):
    assert read_message(f"note_on note={name}").note == number
    assert read_message(f"polytouch note={name} value=3").note == number


@pytest.mark.parametrize("name", ["C", "H4", "C10", "G#9", "Cb-1", "C4x", "C##4", "Do4"])
def test_what_is_no_name_of_a_note_says_how_one_is_written(name):
    with pytest.raises(Complaint, match=r"is no note: write 60, C4|notes go from C-1 to G9"):
        read_message(f"note_on note={name}")


@pytest.mark.parametrize(
    "text", ["F0 7E", "F0 7E 7F", "90 3C", "F9", "F7", "90 3C 5A 00", "F0 1 F7", "90 zz"]
)
def test_bytes_that_are_no_whole_message_are_a_complaint(text):
    with pytest.raises(Complaint, match="message"):
        read_arguments([text])


def test_dumps_are_sent_as_they_are(tmp_path, capsys):
    dump, damaged = tmp_path / "patch one.syx", tmp_path / "DAMAGED.SYX"
    dump.write_bytes(b"\xf0\x01\xf7\xf0\x02\xf7")
    damaged.write_bytes(b"\xf0\x03\xf7\xf0\x04")
    sent = read_arguments(["note_on", "note=1", str(dump), str(damaged), "clock"])
    assert [message.hex() for message in sent] == ["90 01 40", "F0 01 F7", "F0 02 F7", "F0 03 F7", "F8"]
    assert capsys.readouterr().err == f"{damaged} is damaged: bytes that belong to no message skipped\n"


def test_a_dump_that_cannot_be_read_is_a_complaint(tmp_path):
    path = tmp_path / "none.syx"
    with pytest.raises(Complaint, match=r"cannot read .*none\.syx: No such file"):
        read_arguments([str(path)])
    path.write_text("Ode to Joy")
    with pytest.raises(Complaint, match="holds no whole MIDI message"):
        read_arguments([str(path)])


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
        "note_on note=60 time=-1",
        "note_on note=60 time=nan",
        "note_on note=60 time=inf",
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
    with accept_command(server) as client:
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
    with accept_command(server) as client:
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


def test_the_bytes_of_a_dump_may_come_through_a_pipe(server, start):
    send = start("send", address(server), "-", stdin=subprocess.PIPE)
    with accept_command(server) as client:
        client.settimeout(20)
        send.process.stdin.write(b"\xf0\x01\x0a")
        send.process.stdin.flush()
        send.process.stdin.write(b"\x02\xf7\xf0\x03\xf7\xf0\x04")
        send.process.stdin.close()
        assert rest_of(client) == b"\xf0\x01\x0a\x02\xf7\xf0\x03\xf7"
    assert send.wait() == 2
    assert send.err == "midinet: standard input ends within a system exclusive message\n"


def test_lines_may_be_in_hexadecimal(server, start):
    send = start("send", address(server), stdin=subprocess.PIPE)
    send.process.stdin.write(b"90 3C 5A\r\nnote_off note=C4\nF0 01 F7")
    send.process.stdin.close()
    assert everything_from(server) == bytes(ON.bin() + OFF.bin()) + b"\xf0\x01\xf7"
    assert send.wait() == 0


def test_a_note_is_held_for_as_long_as_is_wanted(server, start):
    send = start("send", address(server), "note_on note=C4 velocity=90", "--hold", "0.5")
    with accept_command(server) as client:
        client.settimeout(20)
        assert client.recv(3, socket.MSG_WAITALL) == bytes(ON.bin())
        begin = time.monotonic()
        assert rest_of(client) == bytes(OFF.bin())
        assert time.monotonic() - begin > 0.2
    assert send.wait() == 0


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "long"])
def test_a_wrong_time_to_hold_is_one_line(seconds, server, run):
    status, out, err = run("send", address(server), "clock", f"--hold={seconds}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--hold" in err


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


def test_a_typo_in_a_terminal_is_said_and_the_next_line_is_sent(server, start):
    with Terminal() as terminal:
        send = start("send", address(server), **terminal.options)
        with accept_command(server) as client:
            terminal.wait_for("Ctrl-D ends")
            terminal.press(b"note_on notte=60\r")
            terminal.wait_for("midinet: 'note_on notte=60' is no message")
            terminal.press(f"{OFF}\r\x04".encode())
            assert rest_of(client) == bytes(OFF.bin())
        assert send.wait() == 0


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
    with accept_command(server):
        send.process.send_signal(number)
        assert (send.wait(), send.err) == (status, "")


def test_a_server_that_goes_away_is_one_line_and_status_1(server, start):
    send = start("send", address(server), stdin=subprocess.PIPE)
    with accept_command(server) as client:
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
