from __future__ import annotations

import pytest

from midinet import DeviceError
from midinet.gateways.names import choose, instrument, is_pattern, lasting, match

ALSA = ["Midi Through:Midi Through Port-0 14:0", "Synth:Synth MIDI 1 24:0", "Keys [2]:Keys MIDI 1 28:0"]


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ("Synth:Synth MIDI 1 24:0", ALSA[1]),
        ("Synth:Synth MIDI 1", ALSA[1]),
        ("Synth", ALSA[1]),
        ("synth", ALSA[1]),
        ("keys [2]", ALSA[2]),
        ("Organ", None),
    ],
)
def test_a_whole_name_or_a_part_that_only_one_has_means_it(wish: str, found: str | None) -> None:
    assert choose(wish, ALSA, "alsa") == found


def test_the_case_counts_where_it_makes_a_difference() -> None:
    assert choose("Synth", ["my synth", "Synth B"], "jack") == "Synth B"


def test_a_whole_name_that_is_a_part_of_another_means_itself() -> None:
    assert choose("Synth", ["Synth", "Synth B"], "jack") == "Synth"


def test_a_part_of_several_is_an_error_that_lists_them() -> None:
    with pytest.raises(DeviceError, match=r"^'MIDI 1' may be any of 'Synth:Synth MIDI 1 24:0', 'Keys"):
        choose("MIDI 1", ALSA, "alsa")


def test_a_pattern_means_all_that_match_but_what_only_gives_back() -> None:
    assert match("*", ALSA) == ALSA[1:]
    assert match("keys [2]*", ALSA) == [ALSA[2]]
    assert match("S?nth*", ALSA) == [ALSA[1]]
    assert is_pattern("S?nth")
    assert not is_pattern("Keys [2]")


@pytest.mark.parametrize(
    ("one", "other", "system"),
    [
        ("Synth:Synth MIDI 1 24:0", "Synth:Synth MIDI 1 24:0", "alsa"),
        ("system:midi_capture_1", "system:midi_playback_1", "jack"),
        ("synth:out_1", "synth:in_1", "jack"),
        ("Midi-Bridge:Synth (capture)", "Midi-Bridge:Synth (playback)", "jack"),
        ("Synth 0", "Synth 1", "winmm"),
    ],
)
def test_the_two_directions_of_an_instrument_belong_together(one: str, other: str, system: str) -> None:
    assert instrument(one, system) == instrument(other, system)


@pytest.mark.parametrize(
    ("one", "other", "system"),
    [
        ("system:midi_capture_1", "system:midi_playback_2", "jack"),
        ("Main:out", "Ma:in", "jack"),
        ("Synth 0", "Synth 1", "coremidi"),
    ],
)
def test_different_instruments_do_not(one: str, other: str, system: str) -> None:
    assert instrument(one, system) != instrument(other, system)


def test_numbers_that_change_are_no_part_of_what_lasts() -> None:
    assert lasting("Synth:Synth MIDI 1 24:0", "alsa") == lasting("Synth:Synth MIDI 1 28:0", "alsa")
    assert lasting("Synth 12:0", "jack") == "Synth 12:0"
