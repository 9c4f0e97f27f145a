"""midinet play: everything in time, in loops without end, and silence when it is interrupted."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import time

import mido
import pytest

from midinet import PortServer, connect
from midinet.cli.play import perform, perform_rounds
from midinet.cli.schedule import Passage
from midinet.hub.performance import Performance
from tests.harness.messages import note, off


def track(*messages):
    return mido.MidiTrack(messages)


def tempo(microseconds, time=0):
    return mido.MetaMessage("set_tempo", tempo=microseconds, time=time)


def end(time):
    return mido.MetaMessage("end_of_track", time=time)


# Performing it.


async def test_messages_go_out_in_time_and_lateness_never_adds_up():
    schedule = [(number / 200, note(number)) for number in range(100)]
    loop = asyncio.get_running_loop()
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        sent = []

        def before_send(message):
            sent.append(loop.time())
            time.sleep(0.002)  # A burden that would add up to 0.2 s.

        begin = loop.time()
        await perform(port, schedule, before_send)
        heard = [await server.receive() for _ in schedule]
    late = sorted(then - begin - seconds for then, (seconds, _) in zip(sent, schedule, strict=True))
    assert heard == [message for _, message in schedule]
    assert late[0] >= 0
    assert late[50] < 0.02


async def test_what_is_late_goes_out_at_once():
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        begin = time.monotonic()
        await perform(port, [(0.0, note(1)), (-1.0, note(2)), (0.0, note(3))], lambda message: None)
        assert time.monotonic() - begin < 5
        assert [(await server.receive()).note for _ in range(3)] == [1, 2, 3]


async def rounds_of(passage, on_round):
    """Play a passage in rounds, until `on_round` raises, and return what was heard."""
    heard = []
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        with pytest.raises(ZeroDivisionError):
            await perform_rounds(port, passage, on_round)
        await port.close()
        async for message in server:
            heard.append(message.note)
            if message.type == "note_off":
                break
    return heard


async def test_rounds_follow_each_other_after_what_comes_first_once():
    left = iter(range(3))

    def on_round():
        1 // (2 - next(left))

    passage = Passage(0.0, 0.01, [note(0)], [(0.0, note(1)), (0.005, note(2))])
    assert await rounds_of(passage, on_round) == [0, 1, 2, 1, 2, 0]


async def test_who_was_held_up_for_rounds_does_not_make_up_for_them():
    clock = asyncio.get_running_loop().time
    begins = []

    def on_round():
        begins.append(clock())
        if len(begins) == 2:
            time.sleep(1.0)  # As if the terminal's Ctrl-Z had stopped it.
        1 // (22 - len(begins))

    await rounds_of(Passage(0.0, 0.05, [], [(0.0, note(1))]), on_round)
    # The one after it may follow at once.
    assert begins[21] - begins[2] > 17 * 0.05


# The command.


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


@pytest.fixture
def long_tune(tmp_path):
    """A chord and a pedal at once, and a note that is an hour away."""
    path = tmp_path / "long.mid"
    pedal = mido.Message("control_change", channel=1, control=64, value=127)
    mido.MidiFile(tracks=[track(note(60), note(64, channel=1), pedal, note(67, 480 * 7200))]).save(path)
    return path


CHORD_BYTES = 9


def address(server):
    return "{}:{}".format(*server.getsockname())


def rest_of(client):
    client.settimeout(20)
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_plays_a_file_lets_go_of_what_still_sounds_and_ends(server, start, tmp_path):
    path = tmp_path / "short.mid"
    mido.MidiFile(tracks=[track(note(60), note(61, 100))]).save(path)
    play = start("play", address(server), str(path))
    client, _ = server.accept()
    with client:
        assert rest_of(client) == bytes(note(60).bin() + note(61).bin() + off(60).bin() + off(61).bin())
    assert (play.wait(), play.out, play.err) == (0, "", "")


def test_a_file_without_messages_is_over_at_once(server, start, tmp_path):
    path = tmp_path / "silent.mid"
    mido.MidiFile(tracks=[track(tempo(400_000, 48_000))]).save(path)
    play = start("play", address(server), str(path))
    client, _ = server.accept()
    with client:
        assert rest_of(client) == b""
    assert play.wait() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_silences_what_sounds_before_it_leaves(server, start, long_tune, number, status):
    play = start("play", address(server), str(long_tune))
    client, _ = server.accept()
    with client:
        client.settimeout(20)
        client.recv(CHORD_BYTES, socket.MSG_WAITALL)
        play.process.send_signal(number)
        play.process.send_signal(number)
        assert rest_of(client) == bytes(
            mido.Message("note_off", note=60).bin()
            + mido.Message("note_off", note=64, channel=1).bin()
            + mido.Message("control_change", channel=1, control=64, value=0).bin()
        )
    assert (play.wait(), play.err) == (status, "")


def test_a_server_that_goes_away_is_noticed_at_once(server, start, long_tune):
    play = start("play", address(server), str(long_tune))
    client, _ = server.accept()
    with client:
        client.settimeout(20)
        client.recv(CHORD_BYTES, socket.MSG_WAITALL)
        client.sendall(b"\xf8")
    assert play.wait() == 1
    assert play.err == f"midinet: the port to {address(server)} is closed by the peer\n"


def test_a_hub_that_is_killed_is_one_line_and_status_1(hub, start, long_tune):
    play = start("play", hub.address, str(long_tune))
    hub.wait_for("note_on", count=2)
    hub.process.kill()
    assert play.wait() == 1
    assert play.err.startswith("midinet: ")
    assert hub.address in play.err
    assert play.err.count("\n") == 1


def test_a_passage_begins_with_what_is_set_there_and_ends_with_silence(server, start, tmp_path):
    path = tmp_path / "tune.mid"
    program = mido.Message("program_change", program=5)
    mido.MidiFile(tracks=[track(program, note(60), note(61, 96), note(62, 48), note(63, 480))]).save(path)
    play = start("play", address(server), str(path), "--from", "0.1", "--to", "0:00.2")
    client, _ = server.accept()
    with client:
        expected = [program, note(61), note(62), off(61), off(62)]
        assert rest_of(client) == b"".join(message.bin() for message in expected)
    assert (play.wait(), play.out, play.err) == (0, "", "")


def test_a_loop_goes_round_until_ctrl_c_and_then_lets_go(server, start, tmp_path):
    path = tmp_path / "loop.mid"
    bend = mido.Message("pitchwheel", pitch=99)
    mido.MidiFile(tracks=[track(note(60), bend, note(61, 24), off(60), end(24))]).save(path)
    play = start("play", address(server), str(path), "--loop")
    unbent = mido.Message("pitchwheel", pitch=0)
    lasting = b"".join(message.bin() for message in (note(60), bend, note(61), off(60)))
    seam = bytes(off(61).bin() + unbent.bin())
    client, _ = server.accept()
    with client:
        client.settimeout(20)
        with client.makefile("rb") as heard:
            assert heard.read(4 * len(lasting + seam)) == 4 * (lasting + seam)
            play.interrupt()
            rest = heard.read()
    assert (play.wait(), play.err) == (130, "")
    # It is interrupted wherever it is, and what sounds there is let go.
    while rest.startswith(lasting + seam):
        rest = rest[len(lasting + seam) :]
    listener = Performance()
    listener.observe(rest, None, 0.0)
    assert not listener.held_notes
    assert not listener.off_neutral()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("none.mid", "cannot read {there}/none.mid: No such file or directory"),
        ("text.mid", "text.mid is no MIDI file, or is damaged"),
        ("tune.mid --from 5", "--from 5 is not before the end: it is 0:01 long"),
        (
            "tune.mid --from soon",
            "--from: 'soon' is no time: write seconds as 12.5, minutes as 1:23.5, or a bar",
        ),
        ("tune.mid --to 1:99", "--to: '1:99' is no time"),
        ("tune.mid --from 0.5 --to 0.5", "--to 0.5 has to be after --from 0.5"),
        ("silent.mid --loop", "--loop: what would be repeated takes 0 s, and 0.05 s is the least"),
        ("tune.mid --loop --to 0.001", "--loop: what would be repeated takes 0.001 s"),
        ("tune.mid --loop 4", "midinet: "),
    ],
)
def test_wrong_use_is_one_line_before_anybody_is_asked(arguments, what, server, run, tmp_path):
    (tmp_path / "text.mid").write_text("Ode to Joy")
    mido.MidiFile(tracks=[track(note(60), off(60), note(61, 960))]).save(tmp_path / "tune.mid")
    mido.MidiFile(tracks=[track()]).save(tmp_path / "silent.mid")
    server.settimeout(0)
    name, *options = arguments.split()
    status, out, err = run("play", address(server), str(tmp_path / name), *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert what.format(there=tmp_path) in err
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_bar_tells_the_place_in_the_piece_and_the_round(server, start, long_tune):
    terminal, other_end = pty.openpty()
    try:
        options = ["--from", "30:00", "--to", "30:00.3", "--loop"]
        play = start("play", address(server), str(long_tune), *options, stderr=other_end)
        client, _ = server.accept()
        with client:
            seen = b""
            while b"30:00 / 30:00, round 3" not in seen:
                seen += os.read(terminal, 1000)
            play.interrupt()
            assert play.wait() == 130
    finally:
        os.close(terminal)
        os.close(other_end)


def test_a_bar_is_shown_on_a_terminal(server, start, long_tune):
    terminal, other_end = pty.openpty()
    try:
        play = start("play", address(server), str(long_tune), stderr=other_end)
        client, _ = server.accept()
        with client:
            seen = b""
            while b"0:00 / 60:00" not in seen:
                seen += os.read(terminal, 1000)
            play.interrupt()
            assert play.wait() == 130
        assert b"long.mid" in seen
    finally:
        os.close(terminal)
        os.close(other_end)
