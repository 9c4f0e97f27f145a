"""midinet play: exact times, everything in time, and silence when it is interrupted."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import time

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet import PortServer, connect
from midinet.cli.play import Sounding, load, perform, schedule_of
from midinet.cli.tune import ode_to_joy


def track(*messages):
    return mido.MidiTrack(messages)


def tempo(microseconds, time=0):
    return mido.MetaMessage("set_tempo", tempo=microseconds, time=time)


def note(number, time=0, **values):
    return mido.Message("note_on", note=number, time=time, **values)


def off(number):
    return mido.Message("note_off", note=number)


def times(midi_file):
    return [seconds for seconds, _ in schedule_of(midi_file)]


# The schedule of a file.


def test_a_beat_is_half_a_second_until_the_file_says_otherwise():
    assert times(mido.MidiFile(tracks=[track(note(60), note(61, 480), note(62, 960))])) == [0, 0.5, 1.5]


def test_tempo_changes_hold_from_where_they_stand_and_for_all_tracks():
    changes = track(tempo(1_000_000), tempo(250_000, 480), tempo(2_000_000, 240))
    notes = track(note(60, 240), note(61, 480), note(62, 480))
    # 240 ticks at 1 s a beat; 240 more and 240 at 0.25 s; 480 at 2 s.
    assert times(mido.MidiFile(tracks=[changes, notes])) == [0.5, 1.125, 3.125]


def test_tracks_are_merged_in_time_and_meta_messages_left_out():
    tune = mido.MidiFile(
        tracks=[
            track(mido.MetaMessage("track_name", name="one"), note(1, 10), note(3, 20)),
            track(note(2, 10), mido.MetaMessage("lyrics", text="la", time=30), note(4)),
        ]
    )
    assert [message.note for _, message in schedule_of(tune)] == [1, 2, 3, 4]


def test_messages_carry_no_time_of_their_own():
    assert schedule_of(mido.MidiFile(tracks=[track(note(60, 480))]))[0][1] == note(60)


def test_20000_odd_tempo_changes_leave_no_error():
    beats = track(*(message for _ in range(20_000) for message in (tempo(333_333), note(60, 7))))
    # Seven ticks of 1/11 beat, 20,000 times; the first of the changes is at the beginning.
    assert times(mido.MidiFile(ticks_per_beat=11, tracks=[beats]))[-1] == 20_000 * 7 * 333_333 / 11_000_000


@pytest.mark.parametrize(
    ("division", "per_second"),
    [
        (b"\xe8\x50", 24 * 80),
        (b"\xe7\x28", 25 * 40),
        (b"\xe3\x04", 30000 / 1001 * 4),
        (b"\xe2\x64", 30 * 100),
    ],
)
def test_files_that_count_in_frames_have_no_tempo(tmp_path, division, per_second):
    path = tmp_path / "frames.mid"
    mido.MidiFile(tracks=[track(tempo(100_000), note(60, 1000))]).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:12] + division + content[14:])
    assert times(load(path)) == [pytest.approx(1000 / per_second, rel=1e-12)]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5000), st.one_of(st.none(), st.integers(1, 0xFFFFFF)))), max_size=3
    ),
    st.integers(1, 32767),
)
def test_a_file_plays_as_mido_plays_it(parts, division):
    tracks = [
        track(*(note(60, t) if value is None else tempo(value, t) for t, value in part)) for part in parts
    ]
    tune = mido.MidiFile(ticks_per_beat=division, tracks=tracks)
    elapsed, expected = 0.0, []
    for message in tune:
        elapsed += message.time
        if not message.is_meta:
            expected.append(elapsed)
    assert times(tune) == pytest.approx(expected, rel=1e-9)


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


# What sounds.


def test_silence_is_for_what_sounds_and_for_pedals_that_are_down():
    def control(control, value, channel=0):
        return mido.Message("control_change", control=control, value=value, channel=channel)

    sounding = Sounding()
    for message in (
        note(60),
        note(61, channel=2),
        note(62),
        note(60),
        mido.Message("note_off", note=62),
        note(63),
        note(63, velocity=0),
        control(64, 127),
        control(64, 90, channel=1),
        control(64, 0, channel=1),
        control(66, 1, channel=5),
        control(7, 100),
        mido.Message("clock"),
    ):
        sounding.observe(message)
    assert sounding.silence() == [
        mido.Message("note_off", note=60),
        mido.Message("note_off", note=61, channel=2),
        control(64, 0),
        control(66, 0, channel=5),
    ]


def test_nothing_is_silent_already():
    assert Sounding().silence() == []


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


def test_the_tune_of_the_demo_has_what_a_demo_needs():
    schedule = schedule_of(ode_to_joy())
    assert 6 < schedule[-1][0] < 8
    assert 200 < len(schedule) < 1000
    assert {message.type for _, message in schedule} > {"note_on", "note_off", "control_change", "pitchwheel"}
    sounding = Sounding()
    for _, message in schedule:
        sounding.observe(message)
    assert sounding.silence() == []
