"""The keyboard: every note has a place of its own, C4 is note 60, and channels can be told apart."""

from __future__ import annotations

import pytest

from midinet.cli.keyboard import ASCII_GLYPHS, channel_style, draw_keyboard, name_held, note_name


def plain(held, width, **options):
    return [line.plain for line in draw_keyboard(held, width, **options)]


def places(held, width=80):
    """Where keys are held: (line, column)."""
    signs = "123456789ABCDEFG"
    return [
        (line, column)
        for line, text in enumerate(plain(held, width)[:2])
        for column, sign in enumerate(text)
        if sign in signs
    ]


def test_every_note_has_a_place_of_its_own_in_80_columns():
    found = [places([note]) for note in range(128)]
    assert all(len(one) == 1 for one in found)
    assert len({one[0] for one in found}) == 128
    # White keys are the notes of C major.
    assert [note % 12 for note in range(12) if found[note][0][0] == 1] == [0, 2, 4, 5, 7, 9, 11]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_c4_is_note_60_and_stands_under_its_key(width):
    _, _, names = plain([], width)
    ((line, column),) = places([60], width)
    assert line == 1
    assert names[column:].startswith("C4=60")


@pytest.mark.parametrize("width", range(9, 100))
def test_it_is_never_wider_than_there_is_room(width):
    assert max(map(len, plain(range(2048), width))) <= width


def test_a_held_key_shows_its_channel_as_a_sign_and_as_a_colour():
    for channel in range(16):
        keys = draw_keyboard([channel << 7 | 60], 80)[1]
        assert keys.plain.count("123456789ABCDEFG"[channel]) == 1
        assert any(channel_style(channel) in str(span.style) for span in keys.spans)
    assert len({channel_style(channel) for channel in range(16)}) == 16


def test_what_is_held_beyond_its_ends_is_marked():
    assert plain([60], 40)[1][0] == plain([60], 40)[1][-1] == " "
    assert plain([0], 40)[1][0] == "<"
    assert plain([127], 40)[1][-1] == ">"


def test_there_is_one_of_ascii_alone():
    assert "".join(plain([60], 80, glyphs=ASCII_GLYPHS)).isascii()


def test_names():
    assert [note_name(note) for note in (0, 60, 61, 127)] == ["C-1", "C4", "C#4", "G9"]
    assert name_held([9 << 7 | 36, 64, 60], 80).plain == "ch 1 C4 E4  ch 10 C2"
    assert 80 < len(name_held(range(2048), 80)) < 400
