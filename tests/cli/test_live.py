"""The live views of serve and monitor, in a terminal: what they show, and how they leave it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import threading
import time

import mido
import mido.sockets
import pytest

from midinet.sync import PortServer, connect
from tests.harness.raw import accept_command
from tests.harness.terminal import CTRL_C, CTRL_S, CTRL_Z, Terminal

NOTE = mido.Message("note_on", channel=3, note=60, velocity=90)
CLOCK = mido.Message("clock")


@pytest.fixture
def terminal():
    with Terminal() as terminal:
        yield terminal


def shows(*parts):
    """Whether a text has all of these. What is painted in one go is read in several, from the top."""
    return lambda text: all(part in text for part in parts)


@pytest.fixture
def serve(start, terminal):
    """Start `serve` with a live view: (command, port number)."""

    def serve(*arguments, where="127.0.0.1:0", **options):
        command = start("serve", where, *arguments, **{**terminal.options, **options})
        text = terminal.wait_for("nobody is connected yet")
        return command, int(re.search(r":(\d+)", text.splitlines()[1])[1])

    return serve


# serve.


def test_a_hub_shows_who_is_there_what_is_held_and_what_passes(serve, terminal):
    hub, portno = serve()
    assert "127.0.0.1:" in terminal.lines[1]
    assert "(this machine only)" in terminal.lines[1]
    with connect("127.0.0.1", portno, name="keys") as player, connect("127.0.0.1", portno) as listener:
        terminal.wait_for("2 clients")
        player.send(NOTE)
        assert listener.receive() == NOTE
        message = "keys             ch 4  note_on        C4   note=60 velocity=90"
        text = terminal.wait_for(shows("ch 4 C4", message, "nothing lost", "calls itself keys"))
        assert re.search(r"^midinet serve  0:00:\d\d", text)
        # Its channel, on its key.
        assert "4" in terminal.lines[5]
        assert len(terminal.colours) == 1
        terminal.wait_for(lambda text: re.search(r"in 0/s +out 0/s +held 1", text))
    terminal.wait_for(shows("no note is held", "disconnected: closed by the peer"))
    terminal.press(CTRL_C)
    assert hub.wait() == 130


def test_rates_are_shown_for_all_and_for_each(serve, terminal):
    _, portno = serve()
    with connect("127.0.0.1", portno, name="keys") as player, connect("127.0.0.1", portno, name="synth"):
        terminal.wait_for("2 clients")
        over = threading.Event()

        def play():
            while not over.wait(0.002):
                player.send(NOTE)

        thread = threading.Thread(target=play)
        thread.start()
        try:
            terminal.wait_for(
                lambda text: (
                    re.search(r"^in [1-9]\d*/s +out [1-9]\d*/s", text, re.M)
                    and re.search(r"^  keys .* [1-9]\d* +0 +-$", text, re.M)
                    and re.search(r"^  synth .* 0 +[1-9]\d* +-$", text, re.M)
                )
            )
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_hub_that_is_ended_gives_the_terminal_back_with_a_summary(serve, terminal, number, status):
    hub, portno = serve()
    with connect("127.0.0.1", portno) as player:
        terminal.wait_for("1 client")
        player.send(NOTE)
        terminal.wait_for("note_on")
        begin = time.monotonic()
        hub.process.send_signal(number)
        assert hub.wait() == status
        assert time.monotonic() - begin < 10
    first, second, third = terminal.wait_until_given_back("nothing lost").splitlines()
    assert first == f"midinet listens on 127.0.0.1:{portno}"
    assert second.startswith("only this machine can connect")
    assert re.fullmatch(r"0:00:\d\d, 1 client, 1 message in, 0 out; nothing lost", third)


def test_a_second_ctrl_c_gives_the_terminal_back_too(serve, terminal):
    hub, portno = serve()
    with socket.socket() as client:
        # It is sent more than the system takes for somebody who does not read, so the end takes a second.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", portno))
        with connect("127.0.0.1", portno) as player:
            terminal.wait_for("2 clients")
            for _ in range(500):
                player.send(mido.Message("sysex", data=bytes(1000)))
            terminal.wait_for("sysex")
            terminal.press(CTRL_C)
            terminal.wait_until_given_back()
            # Long enough to be another press; meanwhile it gets no nearer to its end.
            with hub.stopped():
                time.sleep(0.5)
                terminal.press(CTRL_C)
            assert hub.wait() == 130
    terminal.wait_until_given_back()


def test_a_terminal_that_is_stopped_holds_up_neither_the_relay_nor_the_end(serve, terminal):
    hub, portno = serve()
    with (
        socket.create_connection(("127.0.0.1", portno), timeout=20) as player,
        mido.sockets.connect("127.0.0.1", portno) as listener,
    ):
        terminal.wait_for("2 clients")
        terminal.press(CTRL_S)
        for _ in range(100):
            player.sendall(NOTE.bin())
            assert listener.receive() == NOTE
            time.sleep(0.005)
        hub.process.send_signal(signal.SIGTERM)
        assert hub.wait() == 0
    terminal.wait_until_given_back()


def test_ctrl_z_gives_the_terminal_back_until_it_is_to_go_on(serve, terminal):
    hub, _ = serve()
    terminal.press(CTRL_Z)
    os.waitid(os.P_PID, hub.process.pid, os.WSTOPPED)
    assert terminal.wait_until_given_back().startswith("midinet listens on")
    hub.process.send_signal(signal.SIGCONT)
    terminal.wait_for("nobody is connected yet")
    terminal.press(CTRL_C)
    assert hub.wait() == 130
    terminal.wait_until_given_back()


def test_a_window_that_is_closed_ends_a_hub(serve, terminal):
    hub, portno = serve()
    with socket.create_connection(("127.0.0.1", portno), timeout=20) as client:
        terminal.wait_for("1 client")
        terminal.hang_up()
        assert client.recv(100) == b""
    assert hub.wait() == 129


def test_it_follows_the_size_of_the_window(serve, terminal):
    _, portno = serve()
    with connect("127.0.0.1", portno, name="keys") as player:
        player.send(NOTE)
        terminal.wait_for("velocity=90")
        terminal.resize(40, 12)
        text = terminal.wait_for(lambda text: "note_on C4 velocity=90" in text)
        assert len(text.splitlines()) <= 12
        assert "\nclients" not in text
        terminal.resize(100, 40)
        terminal.wait_for(lambda text: "C4   note=60 velocity=90" in text and "\nclients" in text)


def test_filters_of_a_hub_are_for_what_is_shown_alone(serve, terminal):
    _, portno = serve("--channel", "4", "--type", "note_on,note_off")
    with connect("127.0.0.1", portno) as player, connect("127.0.0.1", portno) as listener:
        terminal.wait_for("2 clients")
        others = [CLOCK, NOTE.copy(channel=4, note=61), mido.Message("control_change", channel=3)]
        for message in (*others, NOTE):
            player.send(message)
        assert [listener.receive() for _ in range(4)] == [*others, NOTE]
        text = terminal.wait_for(shows("ch 4 C4", "note_on"))
        assert text.count("note_on") == 1
        assert "C#4" not in text
        assert "clock" not in text
        assert "control_change" not in text
        assert "nothing lost" in text


@pytest.mark.parametrize(
    ("arguments", "variables"), [(["--lines"], {}), ([], {"TERM": "dumb"}), (["--stats-every", "60"], {})]
)
def test_lines_are_for_those_who_want_them_and_for_terminals_that_cannot(
    start, terminal, arguments, variables
):
    options = terminal.options
    options["env"] = options["env"] | variables
    start("serve", "127.0.0.1:0", *arguments, **options)
    text = terminal.wait_for("only this machine can connect")
    portno = int(re.search(r":(\d+)", text)[1])
    with connect("127.0.0.1", portno, name="keys") as player:
        terminal.wait_for("calls itself keys")
        player.send(NOTE)
        terminal.wait_for(f"keys {NOTE}")
    assert b"\x1b" not in terminal.seen


@pytest.mark.parametrize("argument", ["--quiet", "--json"])
def test_neither_quiet_nor_json_has_a_view(start, terminal, argument):
    hub = start("serve", "127.0.0.1:0", argument, **terminal.options)
    terminal.wait_for("127.0.0.1:")
    terminal.press(CTRL_C)
    assert hub.wait() == 130
    assert b"\x1b" not in terminal.seen


def test_what_is_wrong_is_told_where_it_stays(serve, terminal):
    hub, portno = serve("--sysex", "none", where=":0")
    terminal.wait_for("is open to everybody")
    with connect("127.0.0.1", portno) as player:
        player.send(mido.Message("sysex", data=(1, 2, 3)))
        terminal.wait_for("was dropped")
        terminal.wait_for("refused 1")
        terminal.press(CTRL_C)
        assert hub.wait() == 130
    text = terminal.wait_until_given_back("was dropped")
    assert text.startswith("midinet listens on")
    assert text.count("is open to everybody") == text.count("was dropped") == 1
    assert text.index("is open to everybody") < text.index("refused 1") < text.index("was dropped")


# monitor.


@pytest.fixture
def server():
    """A server by hand: `accept()` gives the monitor's connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def address(server):
    return "{}:{}".format(*server.getsockname())


def test_a_monitor_shows_what_is_held_what_came_and_how_far_the_server_is(start, terminal, hub):
    monitor = start("monitor", hub.address, **terminal.options)
    with connect("127.0.0.1", hub.portno) as player:
        hub.wait_for(" connected", count=2)
        player.send(NOTE)
        terminal.wait_for("ch 4 C4")
        terminal.wait_for("ch 4  note_on        C4   note=60 velocity=90")
        text = terminal.wait_for(lambda text: re.search(r"ping \d+\.\d ms", text) and "2 clients" in text)
        assert hub.address in text
    terminal.wait_for("no note is held")
    terminal.press(CTRL_C)
    assert monitor.wait() == 130
    assert re.fullmatch(
        r"0:00:\d\d, 2 messages; nothing lost", terminal.wait_until_given_back("nothing lost")
    )


def test_of_a_server_that_says_nothing_of_itself_there_is_nothing(start, terminal):
    with mido.sockets.PortServer("127.0.0.1", 0) as server:
        portno = server._socket.getsockname()[1]
        start("monitor", f"127.0.0.1:{portno}", **terminal.options)
        with server.accept() as port:
            port.send(NOTE)
            text = terminal.wait_for("ch 4 C4")
            assert "- clients" in text
            assert "ping -" in text


def test_filters_of_a_monitor(start, terminal):
    with PortServer("127.0.0.1", 0) as server:
        portno = server.addresses[0][1]
        start("monitor", f"127.0.0.1:{portno}", "--no-clock", "--channel", "4", **terminal.options)
        port = server.accept()
        for message in (CLOCK, NOTE.copy(note=61, channel=5), NOTE):
            port.send(message)
        text = terminal.wait_for(shows("ch 4 C4", "note_on"))
        assert text.count("note_on") == 1
        assert "clock" not in text
        assert "nothing lost" in text


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], [CLOCK, NOTE.copy(channel=4), NOTE]),
        (["--channel", "4"], [NOTE]),
        (["--channel", "4", "--channel", "5"], [NOTE.copy(channel=4), NOTE]),
        (["--type", "clock", "--type", "start"], [CLOCK]),
        (["--no-clock"], [NOTE.copy(channel=4), NOTE]),
    ],
)
def test_filters_are_for_lines_too(start, server, arguments, shown):
    monitor = start("monitor", address(server), *arguments)
    client, _ = server.accept()
    with client:
        client.sendall(b"".join(bytes(one.bin()) for one in (CLOCK, NOTE.copy(channel=4), NOTE)))
        monitor.wait_for("\n", count=len(shown))
    assert (monitor.wait(), monitor.err) == (0, "")
    offs = [mido.Message("note_off", channel=one.channel, note=one.note) for one in shown if one != CLOCK]
    lines = monitor.out.splitlines()
    assert lines[: len(shown)] == list(map(str, shown))
    assert sorted(lines[len(shown) :]) == sorted(map(str, offs))


def test_filters_of_a_hub_are_for_lines_too(start_hub):
    hub = start_hub("--channel", "4")
    with (
        connect("127.0.0.1", hub.portno, name="keys") as player,
        connect("127.0.0.1", hub.portno) as listener,
    ):
        # Until the hub has let in both.
        hub.wait_for("calls itself keys")
        listener.ping()
        for message in (CLOCK, NOTE):
            player.send(message)
        assert [listener.receive(), listener.receive()] == [CLOCK, NOTE]
        hub.wait_for(f"keys {NOTE}\n")
    assert "clock" not in hub.out
    assert "not shown" not in hub.out


def test_a_server_that_closes_ends_a_monitor_with_its_summary(start, terminal, server):
    monitor = start("monitor", address(server), **terminal.options)
    client, _ = server.accept()
    with client:
        client.sendall(NOTE.bin())
        terminal.wait_for("ch 4 C4")
        # The system resets what is closed with something unread in it, and there may be more than one.
        client.shutdown(socket.SHUT_WR)
        assert b"PING" in b"".join(iter(lambda: client.recv(1000), b""))
    assert monitor.wait() == 0
    assert re.fullmatch(r"0:00:\d\d, 1 message; nothing lost", terminal.wait_until_given_back("nothing lost"))


def test_a_link_that_breaks_is_one_line_in_a_terminal_that_is_as_it_was(start, terminal, server):
    monitor = start("monitor", address(server), **terminal.options)
    with accept_command(server, answers=True) as client:
        client.sendall(NOTE.bin())
        terminal.wait_for("ch 4 C4")
        # With this, closing sends a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert monitor.wait() == 1
    summary, *error = terminal.wait_until_given_back("is lost").splitlines()
    assert "1 message" in summary
    assert "".join(error).startswith(f"midinet: the connection to {address(server)} is lost")


def test_a_hub_that_is_killed_is_followed_by_a_monitor_that_reconnects(start, start_hub, terminal):
    hub = start_hub("--quiet")
    monitor = start("monitor", hub.address, "--reconnect", **terminal.options)
    terminal.wait_for("1 client")
    hub.process.kill()
    hub.process.wait()
    text = terminal.wait_for("is gone; trying to connect again")
    assert "reconnecting" in text
    start("serve", hub.address, "--quiet")
    text = terminal.wait_for(lambda text: "again\n" in f"{text}\n" and "connected to" in text)
    terminal.wait_for("1 client")
    os.kill(monitor.process.pid, signal.SIGTERM)
    assert monitor.wait() == 0
    terminal.wait_until_given_back()


def test_what_came_at_once_with_the_connection_is_shown(start, terminal, server):
    start("monitor", address(server), **terminal.options)
    client, _ = server.accept()
    with client:
        client.sendall(NOTE.bin() * 50)
        terminal.wait_for(lambda text: text.count("note_on") > 5)
