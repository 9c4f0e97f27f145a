"""A take: what of it is in the file, when it begins and ends, and that the file plays whatever happens."""

from __future__ import annotations

import io
import os
import shutil

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.files import recorder as recorder_module
from midinet.files.reader import read_midi_file
from midinet.files.recorder import Recorder, TakeFile, part_of
from midinet.wire.codec import decode, encode
from tests.harness.messages import any_message

NOTE = mido.Message("note_on", note=60, velocity=90)
NOTE_OFF = mido.Message("note_off", note=60)


def message(kind, **values):
    return mido.Message(kind, **values)


SUSTAINED = message("control_change", control=64, value=127)


def recorder_of(take, opened_at=0.0):
    recorder = Recorder(opened_at)
    for at, one in take:
        recorder.receive(encode(one), at)
    return recorder


def music_of(take, opened_at, ended_at):
    """What is in the file of a take, with its seconds from the first message."""
    recorder = recorder_of(take, opened_at)
    recorder.finish(ended_at)
    return [(round(seconds, 4), decode(frame)) for seconds, frame in recorder.frames()]


# What is in the file.


@given(
    st.lists(
        st.tuples(
            st.floats(0, 20), any_message().filter(lambda one: one.type == "sysex" or one.bytes()[0] < 0xF0)
        ),
        max_size=50,
    ),
    st.floats(0, 1e6),
)
def test_it_plays_back_what_was_heard_and_rounding_never_adds_up(heard, begin):
    now, take = begin, []
    for wait, one in heard:
        now += wait
        take.append((now, one))
    # It was opened so long before that nothing was set already.
    recorder = recorder_of(take, begin - 1.0)
    read = mido.MidiFile(file=io.BytesIO(recorder.content()))
    elapsed, played = 0.0, []
    for one in read:
        elapsed += one.time
        if not one.is_meta:
            played.append((elapsed, one.copy(time=0)))
    assert [one for _, one in played] == [one for _, one in take]
    for (seconds, _), (then, _) in zip(played, take, strict=True):
        assert seconds == pytest.approx(then - take[0][0], abs=0.000_051)
    assert recorder.messages == len(take)
    assert recorder.length_s == pytest.approx(take[-1][0] - take[0][0] if take else 0.0)


@pytest.mark.parametrize(
    "kind", ["clock", "start", "continue", "stop", "active_sensing", "reset", "tune_request", "songpos"]
)
def test_of_messages_that_have_no_place_in_a_file_only_their_number_is_kept(kind):
    recorder = recorder_of([(1.0, message(kind))] * 5 + [(2.0, NOTE_OFF)])
    assert recorder.left_out == {kind: 5}
    assert [decode(frame) for _, frame in recorder.frames()] == [NOTE_OFF]
    size = len(recorder.track)
    recorder.receive(encode(message(kind)), 3.0)
    assert len(recorder.track) == size


def test_what_was_set_already_stands_right_before_what_comes_later():
    program, pedal_up = message("program_change", program=3), message("control_change", control=64)
    take = [(10.1, program), (10.1, pedal_up), (10.2, message("clock")), (70.0, NOTE), (71.0, NOTE_OFF)]
    assert music_of(take, 10.0, 99.0) == [(0, program), (0, pedal_up), (0, NOTE), (1, NOTE_OFF)]


@pytest.mark.parametrize(
    "take",
    [
        # Not set already, but later; all there is; and a tune that is under way.
        [(10.6, NOTE_OFF), (70.0, NOTE_OFF)],
        [(10.1, NOTE_OFF), (10.2, NOTE_OFF)],
        [(10.1, NOTE_OFF), (10.2, NOTE), (70.0, NOTE_OFF)],
    ],
)
def test_what_is_played_keeps_its_times(take):
    assert music_of(take, 10.0, 99.0) == [(round(at - take[0][0], 4), one) for at, one in take]


def test_a_note_that_is_held_ends_when_the_take_does():
    take = [(1.0, NOTE), (2.0, SUSTAINED)]
    assert music_of(take, 0.0, 9.0)[2:] == [(8.0, NOTE_OFF), (8.0, message("control_change", control=64))]


def test_a_note_that_was_struck_twice_and_let_go_once_is_silent():
    assert music_of([(1.0, NOTE), (2.0, NOTE), (3.0, NOTE_OFF)], 0.0, 9.0)[3:] == [(2.0, NOTE_OFF)]


def test_a_pedal_or_a_bend_alone_makes_no_take_longer():
    take = [(1.0, SUSTAINED), (2.0, message("pitchwheel", pitch=5)), (3.0, message("clock"))]
    assert music_of(take, 0.0, 9.0)[2:] == [
        (1.0, message("control_change", control=64)),
        (1.0, message("pitchwheel", pitch=0)),
    ]


def test_a_take_without_music_is_an_empty_file():
    assert music_of([(1.0, message("clock"))], 0.0, 9.0) == []


def test_a_pause_may_be_longer_than_a_file_can_say_at_once():
    days = 3 * 86_400.0
    assert music_of([(1.0, NOTE), (1.0 + days, NOTE_OFF)], 0.0, 9.0) == [(0, NOTE), (days, NOTE_OFF)]


# The file.


@pytest.fixture
def recorder():
    return recorder_of([(1.0, NOTE)])


def messages_in(path):
    return [one.copy(time=0) for one in mido.MidiFile(path) if not one.is_meta]


def test_it_plays_after_each_write_and_has_its_name_in_the_end(tmp_path, recorder):
    path = tmp_path / "take.mid"
    file = TakeFile(path, recorder)
    for count in range(1, 9):
        line = read_midi_file(file.part.read_bytes())
        assert (len(line.frames), line.damage) == (count, [])
        recorder.receive(encode(NOTE), 1.0 + count)
        assert len(messages_in(file.part)) == count
        assert file.write() is None
    assert file.write() is None
    assert not path.exists()
    assert file.finish() is None
    assert len(messages_in(path)) == 9
    assert os.listdir(tmp_path) == ["take.mid"]


def test_a_write_that_a_kill_cuts_short_leaves_what_was_there(tmp_path, recorder):
    file = TakeFile(tmp_path / "take.mid", recorder)
    before = file.part.read_bytes()
    recorder.receive(encode(NOTE), 2.0)
    assert file.write() is None
    after = file.part.read_bytes()
    file.finish()
    begin = len(before) - 4
    for end in range(begin, len(after) + 1):
        # The events are written first, over the end of the track, and then its length.
        line = read_midi_file(before[:begin] + after[begin:end] + before[end:])
        assert line.frames[0] == (0.0, encode(NOTE))


def test_where_its_folder_is_gone_it_goes_to_the_nearest(tmp_path, recorder):
    path = tmp_path / "stick" / "takes" / "take.mid"
    path.parent.mkdir(parents=True)
    file = TakeFile(path, recorder)
    shutil.rmtree(tmp_path / "stick")
    assert file.write().strerror == "No such file or directory"
    assert file.part == tmp_path / part_of(path).name
    assert messages_in(file.part) == [NOTE]
    recorder.finish(2.0)
    # Its folder is gone still.
    assert file.finish().strerror == "No such file or directory"
    assert messages_in(file.part) == [NOTE, NOTE_OFF]
    assert os.listdir(tmp_path) == [file.part.name]


def full(*arguments):
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_what_was_there_and_another_one_takes_it(tmp_path, recorder, monkeypatch):
    path = tmp_path / "disk" / "take.mid"
    path.parent.mkdir()
    file = TakeFile(path, recorder)
    recorder.receive(encode(NOTE), 2.0)
    write_all = recorder_module._write_all

    def write_in_another_folder(opened, position, content):
        if os.fstat(opened.fileno()).st_ino == on_the_disk and len(content) > 4:
            write_all(opened, position, content[:2])
            full()
        write_all(opened, position, content)

    on_the_disk = file.part.stat().st_ino
    monkeypatch.setattr(recorder_module, "_write_all", write_in_another_folder)
    assert file.write().strerror == "No space left on device"
    assert file.part.parent == tmp_path
    assert len(messages_in(file.part)) == 2
    assert os.listdir(path.parent) == []
    # By now there is room again.
    assert file.finish() is None
    assert os.listdir(path.parent) == ["take.mid"]


def test_where_no_disk_takes_it_the_file_is_what_it_was_and_it_is_tried_again(
    tmp_path, recorder, monkeypatch
):
    file = TakeFile(tmp_path / "take.mid", recorder)
    recorder.receive(encode(NOTE), 2.0)
    write_all = recorder_module._write_all

    def write_an_end_alone(opened, position, content):
        if len(content) > 4:
            full()
        write_all(opened, position, content)

    with monkeypatch.context() as context:
        context.setattr(recorder_module, "_write_all", write_an_end_alone)
        with pytest.raises(OSError, match="No space left"):
            file.write()
    assert messages_in(file.part) == [NOTE]
    assert file.write() is None
    assert len(messages_in(file.part)) == 2
    file.finish()


def test_a_file_that_was_there_is_replaced_as_it_was_and_links_stay(tmp_path, recorder):
    path, link = tmp_path / "take.mid", tmp_path / "link.mid"
    path.write_text("an older take")
    path.chmod(0o640)
    link.symlink_to(path)
    assert TakeFile(link, recorder).finish() is None
    assert link.is_symlink()
    assert messages_in(path) == [NOTE]
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.mid", "take.mid"]


def test_what_cannot_be_saved_leaves_what_was_there_and_is_elsewhere(tmp_path, monkeypatch, recorder):
    path = tmp_path / "disk" / "take.mid"
    path.parent.mkdir()
    path.write_text("an older take")
    file = TakeFile(path, recorder)
    monkeypatch.setattr(recorder_module.os, "fsync", full)
    assert file.finish().strerror == "No space left on device"
    assert path.read_text() == "an older take"
    assert os.listdir(path.parent) == ["take.mid"]
    assert messages_in(file.part) == [NOTE]
