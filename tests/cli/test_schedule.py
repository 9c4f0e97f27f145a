"""What is played when: exact times, passages that begin with what is set there, and loops that come back."""

from __future__ import annotations

from dataclasses import replace

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midinet.cli import schedule
from midinet.cli.common import Complaint
from midinet.cli.schedule import load, piece_of, read_time
from midinet.cli.tune import ode_to_joy
from midinet.hub.performance import Performance
from midinet.wire.codec import decode, encode
from tests.harness.messages import control, note, off, program_change
from tests.harness.midi_files import schedule_of
from tests.harness.sizes import thorough


def track(*messages):
    return mido.MidiTrack(messages)


def meta(kind, time=0, **values):
    return mido.MetaMessage(kind, time=time, **values)


def tempo(microseconds, time=0):
    return meta("set_tempo", time, tempo=microseconds)


def bars_of(numerator, denominator, time=0):
    return meta("time_signature", time, numerator=numerator, denominator=denominator)


def end(time=0):
    return meta("end_of_track", time)


def bend(pitch, time=0, **values):
    return mido.Message("pitchwheel", pitch=pitch, time=time, **values)


def file(*messages, **options):
    return mido.MidiFile(tracks=[track(*messages)], **options)


def piece(*messages, **options):
    return piece_of(file(*messages, **options))


def times(midi_file):
    return [seconds for seconds, _ in piece_of(midi_file).frames]


def decoded(passage):
    """Return a passage with Messages in place of frames."""
    timed = [(seconds, decode(frame)) for seconds, frame in passage.schedule]
    return replace(passage, opening=[decode(frame) for frame in passage.opening], schedule=timed)


def passage_of(*arguments, **options):
    return decoded(schedule.passage_of(*arguments, **options))


def cut(*arguments, **options):
    return decoded(schedule.cut(*arguments, **options))


def complaint(*arguments, **options):
    with pytest.raises(Complaint) as caught:
        passage_of(*arguments, **options)
    return str(caught.value)


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


@thorough("count", quick=1_000, full=20_000)
def test_odd_tempo_changes_leave_no_error(count):
    beats = track(*(message for _ in range(count) for message in (tempo(333_333), note(60, 7))))
    # Seven ticks of 1/11 beat, so many times; the first of the changes is at the beginning.
    assert times(mido.MidiFile(ticks_per_beat=11, tracks=[beats]))[-1] == count * 7 * 333_333 / 11_000_000


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
    assert [seconds for seconds, _ in load(path).frames] == [pytest.approx(1000 / per_second, rel=1e-12)]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5000), st.one_of(st.none(), st.integers(1, 0xFFFFFF)))),
        min_size=1,
        max_size=3,
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


# Places in a file.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("12.5", 12.5),
        ("90", 90),
        ("007.50", 7.5),
        ("0:05", 5),
        ("1:23.5", 83.5),
        ("1:5", 65),
        ("90:00", 5400),
        ("bar1", 0),
        ("bar 3", 4),
        ("BAR17", 32),
    ],
)
def test_times_are_seconds_minutes_or_bars(text, seconds):
    assert read_time(text, "--from", piece(note(60))) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "-1",
            "+1",
            "1e3",
            "nan",
            "inf",
            "1.",
            ".5",
            "1,5",
            " 1",
            "1 ",
            "1\n",
            "\u0663",
            "9" * 400,
        ),
        *("1:60", "1:2:3", ":5", "5:", "1:\u0663"),
        *("bar", "bar0", "bar-1", "bar1.5", "bar 1 2", "bar9999999", "bars 2"),
    ],
)
def test_what_is_no_time_says_how_one_is_written(text):
    assert complaint(piece(note(60)), text).startswith(f"--from: {text!r} is no time: write seconds as 12.5,")


def test_bars_are_those_of_the_files_time_signatures_and_tempos():
    # One bar of one beat before the first, two of 3/4, the second twice as fast, and then 6/8 with a cut bar.
    signatures = track(bars_of(1, 4), bars_of(3, 4, 100), bars_of(6, 8, 600), bars_of(2, 4, 400), end())
    tempos = track(tempo(1_000_000), tempo(500_000, 400), note(60, 5000))
    score = piece_of(mido.MidiFile(ticks_per_beat=100, tracks=[signatures, tempos]))
    assert [score.bar_at(number) for number in range(1, 8)] == [0, 1, 4, 5.5, 7, 7.5, 8.5]


def test_bars_go_on_past_the_end():
    assert piece(note(60)).bar_at(101) == 200


@given(
    st.lists(
        st.tuples(st.integers(1, 32), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(1, 9)), min_size=1
    ),
    st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 0xFFFFFF)), max_size=5),
    st.integers(1, 96).map(lambda beats: beats * 8),
)
def test_a_note_on_the_first_beat_of_a_bar_is_where_the_bar_begins(parts, tempos, division):
    """To the last digit: from there to there, no bar's first note is missing, and none is too many."""
    signatures, notes, wait, length = [], [], 0, 0
    for numerator, denominator, bars in parts:
        signatures.append(bars_of(numerator, denominator, wait))
        ticks = numerator * 4 * division // denominator
        for _ in range(bars):
            notes.append(note(60, length))
            length = ticks
        wait = ticks * bars
    changes = track(*(tempo(value, time) for time, value in tempos))
    score = piece_of(
        mido.MidiFile(ticks_per_beat=division, tracks=[track(*signatures), track(*notes), changes])
    )
    begins = [score.bar_at(number + 1) for number in range(len(notes))]
    assert begins == [seconds for seconds, _ in score.frames]


def test_a_signature_without_beats_is_none():
    score = mido.MidiFile(tracks=[track(note(60))])
    score.tracks[0].append(meta("time_signature", numerator=1, denominator=4))
    score.tracks[0][-1].__dict__["numerator"] = 0
    assert piece_of(score).bar_at(2) == 2


def test_a_file_that_counts_in_frames_has_no_bars(tmp_path):
    path = tmp_path / "frames.mid"
    file(bars_of(3, 4), note(60, 1000)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:12] + b"\xe7\x28" + content[14:])
    said = complaint(load(path), "bar2")
    assert said == "--from bar2: the file counts in frames and has no bars: write a time in seconds"


# Passages.


def test_from_the_middle_what_is_set_there_comes_first_and_no_note():
    score = piece(
        mido.Message("sysex", data=(1, 2, 3)),
        control(0, 5, channel=2),
        program_change(7, channel=2),
        control(7, 90, channel=2),
        note(60),
        bend(100, channel=2),
        note(61, 480),
        control(7, 80, channel=2),
        control(64, 127, channel=2),
        note(62, 480),
        off(61, 480),
        off(60),
    )
    passage = passage_of(score, "0.75")
    assert passage.opening == [
        mido.Message("sysex", data=(1, 2, 3)),
        control(0, 5, channel=2),
        program_change(7, channel=2),
        control(7, 80, channel=2),
        control(64, 127, channel=2),
        bend(100, channel=2),
    ]
    assert passage.schedule == [(0.25, note(62)), (0.75, off(61)), (0.75, off(60))]
    assert (passage.begin_s, passage.length_s) == (0.75, 0.75)


def test_what_is_at_the_beginning_is_in_it_and_what_is_at_the_end_is_not():
    score = piece(*(note(60 + number, 480 * min(number, 1)) for number in range(4)))
    passage = passage_of(score, "0.5", "1.5")
    assert passage.schedule == [(0.0, note(61)), (0.5, note(62)), (1.0, off(61)), (1.0, off(62))]
    assert passage.length_s == 1.0


def test_what_is_held_over_the_end_is_let_go_there_and_settings_stay():
    score = piece(
        note(60), note(62, channel=3), control(64, 127), bend(500), control(7, 90), off(60, 960), end(960)
    )
    passage = passage_of(score, None, "0:01")
    assert passage.schedule[5:] == [
        (1.0, off(60)),
        (1.0, off(62, channel=3)),
        (1.0, control(64, 0)),
        (1.0, bend(0)),
    ]


def test_it_lasts_to_the_end_of_the_longest_track_and_not_to_the_last_message():
    drums, bass = track(note(60), off(60, 240), end(720)), track(note(40), off(40, 480))
    tune = piece_of(mido.MidiFile(tracks=[drums, bass]))
    assert passage_of(tune).length_s == 1.0
    assert passage_of(tune, "0.25", "0.75").length_s == 0.5


def test_an_end_past_the_end_changes_nothing():
    score = piece(note(60), off(60, 480))
    assert passage_of(score, None, "99:00") == passage_of(score)


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        ("1", None, "--from 1 is not before the end: it is 0:01 long"),
        ("bar2", None, "--from bar2 is not before the end: it is 0:01 long"),
        (None, "0", "--to 0 has to be more than 0"),
        ("0.5", "0.5", "--to 0.5 has to be after --from 0.5"),
        ("bar2", "0:01", "--to 0:01 has to be after --from bar2"),
    ],
)
def test_where_there_is_nothing_to_play_it_says_so(begin, end, said):
    assert complaint(piece(note(60), off(60, 960)), begin, end) == said


# Loops.


def test_a_loop_is_as_long_as_the_last_track_by_its_end():
    drums = track(note(60), off(60, 240), end(720))
    bass = track(note(40), off(40, 900), end(20))
    passage = passage_of(piece_of(mido.MidiFile(tracks=[drums, bass])), loop=True)
    assert passage.length_s == 1.0
    assert passage.schedule[-1] == (900 / 960, off(40))


def test_the_last_message_of_a_loop_that_ends_with_it_is_played():
    passage = passage_of(piece(note(60), control(7, 5, 480)), loop=True)
    assert passage.schedule[1] == (0.5, control(7, 5))


def test_a_loop_lets_go_and_comes_back_to_what_was_set_where_it_begins():
    score = piece(
        program_change(1),
        control(7, 90),
        control(1, 0),
        note(59),
        note(60, 960),
        program_change(2, 240),
        control(7, 80),
        control(64, 127),
        bend(1000),
        control(7, 70, 960),
    )
    passage = passage_of(score, "1", "2", loop=True)
    assert passage.opening == [program_change(1), control(1, 0), control(7, 90)]
    # The note that began before is not let go: it was never struck.
    assert passage.schedule[5:] == [
        (1.0, off(60)), (1.0, control(64, 0)), (1.0, bend(0)), (1.0, program_change(1)), (1.0, control(7, 90))
    ]  # fmt: skip


def test_a_loop_from_the_beginning_resets_what_was_not_set_there():
    passage = passage_of(
        piece(program_change(1), note(60), control(1, 50, 240), off(60, 240), end()), loop=True
    )
    assert passage.schedule[4:] == [(0.5, control(121, 0))]


def test_a_loop_may_end_after_the_file_does():
    passage = passage_of(piece(note(60), off(60, 480), end()), None, "bar2", loop=True)
    assert (passage.length_s, len(passage.schedule)) == (2.0, 2)


@pytest.mark.parametrize("notes", [[], [note(60), off(60)], [note(60), off(60, 20)]])
def test_what_takes_no_time_is_no_loop(notes):
    assert complaint(piece(*notes), loop=True).endswith(" s, and 0.05 s is the least")


def channel_messages():
    few = st.integers(0, 2)
    return st.one_of(
        st.builds(note, few, channel=few, velocity=st.sampled_from([0, 90])),
        st.builds(off, few, channel=few),
        st.builds(
            control, st.sampled_from([0, 1, 7, 33, 39, 64, 66, 101, 100, 6, 120, 121, 123]), few, channel=few
        ),
        st.builds(program_change, few, channel=few),
        st.builds(bend, st.sampled_from([-5, 0, 5]), channel=few),
        st.builds(mido.Message, st.just("aftertouch"), value=few, channel=few),
        st.builds(mido.Message, st.just("polytouch"), note=few, value=few, channel=few),
    )


class Listener:
    """What holds and is set at whoever hears all of this."""

    def __init__(self):
        self.performance = Performance()

    def hear(self, messages):
        for message in messages:
            self.performance.observe(encode(message), None, 0.0)
        return self

    def heard(self, passage):
        return self.hear(passage.opening).hear(message for _, message in passage.schedule)


@given(st.lists(channel_messages(), max_size=30), st.data())
def test_every_round_of_a_loop_begins_as_the_first_one_did(messages, data):
    begin = data.draw(st.integers(0, len(messages)))
    score = piece(*(message.copy(time=480) for message in messages))
    passage = cut(score, begin / 2 + 0.1, None, loop=True)
    first, later = Listener().hear(passage.opening), Listener().heard(passage)
    assert not later.performance.held_notes
    assert not later.performance.off_neutral().keys() - first.performance.off_neutral().keys()
    for place, value in enumerate(first.performance.values):
        if value != 0xFF:
            assert later.performance.values[place] == value
    assert first.performance.parameters.items() <= later.performance.parameters.items()


@given(st.lists(channel_messages(), max_size=30), st.integers(0, 30))
def test_what_is_cut_off_leaves_nothing_that_sounds(messages, cut_at):
    score = piece(*(message.copy(time=480) for message in messages))
    listener = Listener().heard(cut(score, 0.0, cut_at / 2, loop=False))
    assert not listener.performance.held_notes
    assert not listener.performance.off_neutral()


# The tune of the demo.


def test_the_tune_of_the_demo_has_what_a_demo_needs():
    tune = schedule_of(ode_to_joy())
    assert 6 < tune[-1][0] < 8
    assert 200 < len(tune) < 1000
    assert {message.type for _, message in tune} > {"note_on", "note_off", "control_change", "pitchwheel"}
    listener = Listener().hear(message for _, message in tune)
    assert not listener.performance.held_notes
    assert not listener.performance.off_neutral()
