"""Instruments in place of servers: midinet play and send play on them, record and monitor hear them."""

from __future__ import annotations

import asyncio

import mido
import pytest

from midinet.cli.access import DeviceTarget
from tests.harness.terminal import CTRL_C, Terminal
from tests.harness.waiting import wait_until

NOTE = mido.Message("note_on", note=60, velocity=90)
NOTE_OFF = mido.Message("note_off", note=60)

# There may be other MIDI systems.
JACK = ("--api", "jack")


def tune_of(path, *messages, length=0):
    end = mido.MetaMessage("end_of_track", time=length)
    mido.MidiFile(tracks=[mido.MidiTrack([*messages, end])]).save(path)
    return str(path)


def messages_in(path):
    return [message.copy(time=0) for message in mido.MidiFile(path) if not message.is_meta]


# Playing.


def test_a_device_plays_a_file_and_is_let_go_of(plug, run, tmp_path):
    synth = plug("synth")
    bend = mido.Message("pitchwheel", pitch=99)
    path = tune_of(tmp_path / "tune.mid", NOTE, bend, mido.Message("sysex", data=(1, 2, 3), time=10))
    assert run("play", synth.into, path, *JACK) == (0, "", "")
    unbent = mido.Message("pitchwheel", pitch=0)
    played = [NOTE, bend, mido.Message("sysex", data=(1, 2, 3)), NOTE_OFF, unbent]
    wait_until(lambda: len(synth.heard) >= len(played), "the last of it")
    assert synth.heard == [bytes(message.bytes()) for message in played]


def test_ctrl_c_lets_go_of_what_sounds_on_a_device(plug, start, tmp_path):
    synth = plug("synth")
    path = tune_of(tmp_path / "tune.mid", NOTE, mido.Message("note_on", note=61, time=480 * 7200))
    play = start("play", "synth", path, *JACK)
    wait_until(lambda: synth.heard, "the first note")
    play.interrupt()
    assert (play.wait(), play.err) == (130, "")
    wait_until(lambda: len(synth.heard) == 2, "the note-off")
    assert synth.heard == [bytes(NOTE.bytes()), bytes(NOTE_OFF.bytes())]


def test_a_loop_goes_on_when_a_device_comes_back(plug, start, tmp_path):
    synth = plug("synth")
    path = tune_of(tmp_path / "tune.mid", NOTE, mido.Message("note_off", note=60, time=24), length=24)
    play = start("play", "synth", path, "--loop", *JACK)
    wait_until(lambda: len(synth.heard) > 4, "some rounds")
    synth.unplug()
    play.wait_for("synth is gone; it is waited for\n", where="err")
    synth = plug("synth")
    play.wait_for("synth is back\n", where="err")
    wait_until(lambda: len(synth.heard) > 4, "some rounds more")
    play.interrupt()
    assert play.wait() == 130


# Recording.


def test_a_device_is_recorded(plug, start, tmp_path):
    path, picture = tmp_path / "take.mid", tmp_path / "take.svg"
    keys = plug("keys")
    options = ["--until-silence", "0.3", "--svg", str(picture)]
    record = start("record", "keys", str(path), *options, *JACK)
    record.wait_for("recording keys; Ctrl-C ends it and saves\n", where="err")
    keys.play(b"\xf8", NOTE.bytes(), b"\xf0\x01\x02\x03\xf7", b"\x90\x3c\x00")
    assert record.wait() == 0
    assert messages_in(path) == [
        NOTE,
        mido.Message("sysex", data=(1, 2, 3)),
        mido.Message("note_on", note=60, velocity=0),
    ]
    assert "1 note" in picture.read_text()


def test_a_device_that_is_unplugged_ends_no_take_but_its_notes(plug, start, tmp_path):
    path = tmp_path / "take.mid"
    keys = plug("keys")
    record = start("record", "keys", str(path), *JACK)
    record.wait_for("recording", where="err")
    pedal = mido.Message("control_change", control=64, value=127)
    keys.play(NOTE.bytes(), pedal.bytes())
    keys.unplug()
    record.wait_for("keys is gone; it is waited for\n", where="err")
    plug("keys")
    record.wait_for("keys is back\n", where="err")
    record.interrupt()
    assert record.wait() == 130
    assert messages_in(path) == [NOTE, pedal, NOTE_OFF, pedal.copy(value=0)]


async def test_a_device_that_is_back_is_heard_again(plug, capsys):
    keys = plug("keys")
    async with asyncio.timeout(60), DeviceTarget("keys", "jack").connect(listens=True) as port:
        assert port.name == "keys"
        keys.play(NOTE.bytes())
        assert await port.receive() == NOTE
        keys.unplug()
        assert await port.receive() == NOTE_OFF
        keys, told = plug("keys"), ""
        while "keys is back\n" not in told:
            told += capsys.readouterr().err
            await asyncio.sleep(0.01)
        keys.play(NOTE.bytes())
        assert await port.receive() == NOTE
    assert told == "keys is gone; it is waited for\nkeys is back\n"


def test_a_midi_system_that_stops_costs_no_take(plug, jack, start, tmp_path):
    path = tmp_path / "take.mid"
    keys = plug("keys")
    record = start("record", "keys", str(path), *JACK)
    record.wait_for("recording", where="err")
    keys.play(NOTE.bytes())
    keys.unplug()
    record.wait_for("keys is gone; it is waited for\n", where="err")
    jack.stop(kill=True)
    try:
        record.wait_for("jack has stopped", where="err")
        record.interrupt()
        assert record.wait() == 130
    finally:
        jack.start()
    assert messages_in(path) == [NOTE, NOTE_OFF]


# Messages by hand.


def test_messages_are_sent_to_a_device_and_what_is_held_is_let_go_of(plug, run):
    synth = plug("synth")
    program = mido.Message("program_change", program=5)
    assert run("send", "synth", str(program), str(NOTE), *JACK) == (0, "", "")
    wait_until(lambda: len(synth.heard) >= 3, "the note-off")
    assert synth.heard == [bytes(message.bytes()) for message in (program, NOTE, NOTE_OFF)]


def test_what_a_device_plays_is_shown_also_when_it_was_away(plug, start):
    keys = plug("keys")
    monitor = start("monitor", "keys", "--type", "note_on", "--type", "note_off", *JACK)

    def strike():
        keys.play(b"\xf8", NOTE.bytes())
        return monitor.out

    wait_until(strike, "the first note")
    keys.unplug()
    monitor.wait_for("keys is gone; it is waited for\n", where="err")
    keys = plug("keys")
    monitor.wait_for("keys is back\n", where="err")
    keys.play(b"\x80\x3d\x40")
    monitor.wait_for(f"{NOTE_OFF.copy(note=61)}\n")
    monitor.interrupt()
    assert monitor.wait() == 130
    *before, _ = monitor.out.splitlines()
    strikes = len(before) // 2
    assert before == [str(NOTE)] * strikes + [str(NOTE_OFF)] * strikes


def test_what_a_device_plays_is_watched(plug, start):
    keys = plug("keys")
    with Terminal() as terminal:
        monitor = start("monitor", "keys", *JACK, **terminal.options)
        assert "on this machine" in terminal.wait_for("midinet monitor")
        keys.play(NOTE.bytes())
        text = terminal.wait_for("ch 1 C4")
        assert "ping" not in text
        keys.unplug()
        terminal.wait_for("keys is gone; it is waited for")
        terminal.wait_for("held 0")
        terminal.press(CTRL_C)
        assert monitor.wait() == 130


# Wrong use.


@pytest.mark.parametrize(
    ("target", "options", "what"),
    [
        (
            "nothing",
            [],
            "'nothing': there are 'synth in:midi' (a server would be HOST:PORT, with a port from",
        ),
        ("localhost:99999", [], "'localhost:99999': there are 'synth in:midi' (a server would be HOST:PORT"),
        ("synth out", [], "there is no MIDI output 'synth out'"),
        ("nothing", ["--api", "jack"], "there is no MIDI output 'nothing': there are 'synth in:midi'\n"),
        ("localhost:8080", ["--api", "jack"], "there is no MIDI output 'localhost:8080'"),
        ("synth", ["--api", "fax"], "there is no MIDI system 'fax': "),
        ("synth", ["--tls"], "--tls is for servers, and 'synth' is taken for a port of this machine"),
    ],
)
def test_what_is_no_device_is_one_line_and_status_2(target, options, what, plug, run, tmp_path):
    plug("synth")
    status, out, err = run("play", target, tune_of(tmp_path / "tune.mid", NOTE), *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("midinet: ")
    assert what in err


def test_a_name_that_two_devices_have_is_one_line_and_status_2(plug, run, tmp_path):
    plug("synth A")
    plug("synth B")
    status, _, err = run("play", "synth", tune_of(tmp_path / "tune.mid", NOTE), *JACK)
    assert (status, err.count("\n")) == (2, 1)
    assert "'synth' may be any of 'synth A in:midi', 'synth B in:midi'" in err
