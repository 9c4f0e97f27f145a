"""midinet play: everything in time, in loops without end, and silence when it is interrupted."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import subprocess
import time
from math import inf

import mido
import pytest

from midinet import PortServer, connect
from midinet.cli.play import perform, perform_rounds, remarks_on, sysex_remarks
from midinet.cli.schedule import Passage
from midinet.files.timeline import TimeLine
from midinet.hub.performance import Performance
from midinet.wire.codec import decode, encode
from tests.harness.messages import control, note, off, program_change
from tests.harness.midi_files import NOTE_ON, midi_file
from tests.harness.raw import accept_command


def track(*messages):
    return mido.MidiTrack(messages)


def tempo(microseconds, time=0):
    return mido.MetaMessage("set_tempo", tempo=microseconds, time=time)


def end(time):
    return mido.MetaMessage("end_of_track", time=time)


# Performing it.


def frames(*timed):
    return [(seconds, encode(message)) for seconds, message in timed]


async def test_messages_go_out_in_time_and_lateness_never_adds_up():
    schedule = [(number / 200, encode(note(number))) for number in range(100)]
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
    assert heard == [decode(frame) for _, frame in schedule]
    assert late[0] >= 0
    assert late[50] < 0.02


async def test_what_is_late_goes_out_at_once():
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        begin = time.monotonic()
        await perform(port, frames((0.0, note(1)), (-1.0, note(2)), (0.0, note(3))))
        assert time.monotonic() - begin < 5
        assert [(await server.receive()).note for _ in range(3)] == [1, 2, 3]


async def rounds_of(passage, on_round):
    """Play a passage in rounds, until `on_round` raises, and return what was heard."""
    heard = []
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        with pytest.raises(ZeroDivisionError):
            await perform_rounds(port, passage, on_round, max_late_s=inf)
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

    passage = Passage(0.0, 0.01, [encode(note(0))], frames((0.0, note(1)), (0.005, note(2))))
    assert await rounds_of(passage, on_round) == [0, 1, 2, 1, 2, 0]


async def test_who_was_held_up_for_rounds_does_not_make_up_for_them():
    clock = asyncio.get_running_loop().time
    begins = []

    def on_round():
        begins.append(clock())
        if len(begins) == 2:
            time.sleep(1.0)  # As if the terminal's Ctrl-Z had stopped it.
        1 // (22 - len(begins))

    await rounds_of(Passage(0.0, 0.05, [], frames((0.0, note(1)))), on_round)
    # The one after it may follow at once.
    assert begins[21] - begins[2] > 17 * 0.05


async def test_what_was_missed_while_it_stood_still_is_set_and_not_struck():
    missed = [
        note(61),
        control(7, 90),
        control(7, 80),
        off(60),
        bytes_of_sysex(),
        note(62),
        program_change(3),
    ]
    schedule = frames((0.0, note(60)), *((0.01, message) for message in missed), (3600.0, note(63)))
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:

        def stand_still(message):
            if message == note(60):
                time.sleep(0.25)

        perform_task = asyncio.create_task(perform(port, schedule, stand_still, max_late_s=0.2))
        heard = [await server.receive() for _ in range(5)]
        perform_task.cancel()
        await asyncio.wait([perform_task])
    assert heard == [note(60), bytes_of_sysex(), off(60), program_change(3), control(7, 80)]


def bytes_of_sysex():
    return mido.Message("sysex", data=(1, 2, 3))


async def test_what_was_missed_last_is_made_up_for_at_the_end():
    async with PortServer("127.0.0.1", 0) as server, connect(*server.addresses[0]) as port:
        start = asyncio.get_running_loop().time() - 9
        assert (
            await perform(port, frames((1, note(60)), (2, control(7, 9))), start=start, max_late_s=0.2) == 1
        )
        assert await server.receive() == control(7, 9)


def test_it_says_what_would_look_like_a_fault_of_the_player():
    def remarks(*frames, length_s=0.0):
        return remarks_on(TimeLine(frames, length_s, 1, (), ()))

    on = encode(note(60))
    assert remarks() == ["there is no message in it"]
    assert remarks((0.0, on), length_s=3600.0) == []
    assert remarks((0.0, on), (7.0, on), (7208.0, on)) == ["nothing happens from 0:07 to 120:08"]
    assert remarks((0.0, on), length_s=3661.0) == ["nothing happens from 0:00 to 61:01"]


def test_it_says_which_system_exclusive_messages_may_not_pass():
    def remarks(*sizes, address="192.0.2.1", is_trusted=False):
        line = [(0.0, b"\xf0" + bytes(size - 2) + b"\xf7") for size in sizes]
        return sysex_remarks(TimeLine(line, 0.0, 1, (), ()), address, is_trusted=is_trusted)

    untrusted = "may not pass: a hub takes them from other machines only with a token or a certificate"
    assert remarks() == []
    assert remarks(9, 9) == [f"2 system exclusive messages {untrusted}"]
    assert remarks(9, address="fe80::1%eth0") == [f"1 system exclusive message {untrusted}"]
    assert (
        remarks(9, is_trusted=True) == remarks(9, address="::1") == remarks(65536, address="127.0.0.1") == []
    )
    assert remarks(65537, is_trusted=True) == [
        "a system exclusive message of 65537 bytes may not pass: a hub takes up to 65536 unless its "
        "max_sysex is more"
    ]


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
    with accept_command(server) as client:
        assert rest_of(client) == bytes(note(60).bin() + note(61).bin() + off(60).bin() + off(61).bin())
    assert (play.wait(), play.out, play.err) == (0, "", "")


def test_several_files_a_damaged_one_and_pipes_play_one_after_another(server, start, tmp_path):
    bend = mido.Message("pitchwheel", pitch=99)
    mido.MidiFile(tracks=[track(note(60), bend, end(24))]).save(tmp_path / "held.mid")
    (tmp_path / "clipped.mid").write_bytes(midi_file(b"\x00\xb0\x07\xff"))
    (tmp_path / "page.mid").write_text("<html>404 not found</html>")
    (tmp_path / "patch.syx").write_bytes(b"\xf0\x01\x02\xf7")
    os.mkfifo(tmp_path / "pipe")
    names = ["held.mid", "clipped.mid", "page.mid", "patch.syx", "pipe"]
    paths = [str(tmp_path / name) for name in names]
    play = start("play", address(server), *paths, "-", stdin=subprocess.PIPE)
    with accept_command(server) as client:
        (tmp_path / "pipe").write_text("F0 03 F7")
        play.process.stdin.write(midi_file(b"\x00\xb0\x0a\x05"))
        play.process.stdin.close()
        unbent = mido.Message("pitchwheel", pitch=0)
        first = b"".join(message.bin() for message in (note(60), bend, off(60), unbent))
        # Between two files everything goes back.
        rest = b"\xb0\x07\x7f\xb0\x79\x00\xf0\x01\x02\xf7\xf0\x03\xf7\xb0\x0a\x05"
        heard = rest_of(client)
    assert heard.replace(b"\xb0\x79\x00", b"") == (first + rest).replace(b"\xb0\x79\x00", b"")
    assert play.wait() == 2
    assert play.err.splitlines() == [
        f"{tmp_path}/clipped.mid is damaged: values above 127 read as 127",
        f"midinet: {tmp_path}/page.mid is no MIDI file, or is damaged: it has no MThd, by which a MIDI file "
        "begins",
    ]


def test_a_note_sounds_up_to_the_end_of_the_longest_track(server, start, tmp_path):
    path = tmp_path / "ring.mid"
    path.write_bytes(midi_file(b"\x00" + NOTE_ON + b"\x60\xff\x01\x00", b"\x00\xc1\x05"))
    play = start("play", address(server), str(path))
    with accept_command(server) as client:
        client.settimeout(20)
        client.recv(len(NOTE_ON) + 2, socket.MSG_WAITALL)
        begin = time.monotonic()
        assert rest_of(client) == bytes(off(60).bin())
        assert time.monotonic() - begin > 0.4
    assert (play.wait(), play.err) == (0, "")


def test_a_file_without_messages_is_over_at_once(server, start, tmp_path):
    path = tmp_path / "silent.mid"
    mido.MidiFile(tracks=[track(tempo(400_000, 48_000))]).save(path)
    play = start("play", address(server), str(path))
    with accept_command(server) as client:
        assert rest_of(client) == b""
    assert play.wait() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_silences_what_sounds_before_it_leaves(server, start, long_tune, number, status):
    play = start("play", address(server), str(long_tune))
    with accept_command(server) as client:
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
    with accept_command(server) as client:
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
    with accept_command(server) as client:
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
    with accept_command(server) as client, client.makefile("rb") as heard:
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
        ("/dev/zero", "/dev/zero is no MIDI file: it is longer than 256 MiB"),
        ("-", "standard input is no MIDI file, or is damaged: it is empty"),
        ("tune.mid tune.mid --loop", "--loop is for one file, and 2 are given"),
        ("tune.mid tune.mid --from 0", "--from is for one file, and 2 are given"),
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
    status, out, err = run(
        "play", address(server), name if name in ("-", "/dev/zero") else str(tmp_path / name), *options
    )
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert what.format(there=tmp_path) in err
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_bar_tells_the_place_in_the_piece_and_the_round(server, start, long_tune):
    terminal, other_end = pty.openpty()
    try:
        options = ["--from", "30:00", "--to", "30:00.3", "--loop"]
        play = start("play", address(server), str(long_tune), *options, stderr=other_end)
        with accept_command(server):
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
        with accept_command(server):
            seen = b""
            while b"0:00 / 60:00" not in seen:
                seen += os.read(terminal, 1000)
            play.interrupt()
            assert play.wait() == 130
        assert b"long.mid" in seen
    finally:
        os.close(terminal)
        os.close(other_end)
