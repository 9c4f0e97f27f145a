"""Held notes as a keyboard, three lines high.

Each white key has a column, and each black key stands above the white one to its left, so that all 128 notes
have room in 75 columns. A held key shows its channel: 1 to 9, and from 10 on A to G, in the channel's colour.
All 16 channels share the keyboard. C4 is note 60.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from rich.text import Span, Text

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_BLACK = frozenset({1, 3, 6, 8, 10})
# The white key of each note in an octave, or that to its left.
_WHITE_KEYS = (0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6)
_OCTAVE_COLUMNS = 7
_COLUMNS = 75

_CHANNEL_SIGNS = "123456789ABCDEFG"

# Apart from each other as far as sixteen can be, and light enough for black letters. Of 256, which terminals
# with fewer come near to.
_CHANNEL_COLOURS = (
    "dodger_blue1", "orange1", "green3", "hot_pink", "yellow1", "medium_purple1", "cyan1", "red1",
    "tan", "spring_green1", "magenta1", "sky_blue1", "chartreuse1", "light_salmon1", "plum1", "grey82",
)  # fmt: skip


class Glyphs(NamedTuple):
    """What a keyboard is drawn with."""

    white: str
    black: str


GLYPHS = Glyphs("█", "▄")
ASCII_GLYPHS = Glyphs("_", "#")

# There are held notes beyond the lowest key, and beyond the highest.
_LOWER, _HIGHER = "<", ">"


def note_name(note: int) -> str:
    """Return the name of a note: C4 of 60."""
    return f"{_NAMES[note % 12]}{note // 12 - 1}"


def channel_style(channel: int) -> str:
    """Return the colour of a channel, counted from 0."""
    return _CHANNEL_COLOURS[channel]


def draw_keyboard(held: Collection[int], width: int, glyphs: Glyphs = GLYPHS) -> list[Text]:
    """Return three lines: black keys, white keys, and the names of the Cs.

    Args:
        held: the notes that are held, as `channel << 7 | note`. Of several channels on one key, the last one
            shows.
        width: columns there are. Where not all notes have room, the middle ones are shown, and a mark at the
            end of the keys says that further ones are held.
        glyphs: what it is drawn with.
    """
    # A column on either side is for the marks. The lowest key is a C, and most instruments end above C1.
    columns = min(max(width - 2, _OCTAVE_COLUMNS), _COLUMNS)
    octaves_left_out = max(0, -(-(_COLUMNS - columns) // (2 * _OCTAVE_COLUMNS)))
    first = octaves_left_out * _OCTAVE_COLUMNS
    columns = min(columns, _COLUMNS - first)
    channels: dict[tuple[bool, int], int] = {}
    below = above = False
    for key in held:
        channel, note = divmod(key, 128)
        column = note // 12 * _OCTAVE_COLUMNS + _WHITE_KEYS[note % 12] - first
        below |= column < 0
        above |= column >= columns
        channels[note % 12 in _BLACK, column] = channel
    blacks = [" " if _lacks_black(column + first) else glyphs.black for column in range(columns)]
    whites = [glyphs.white] * columns
    styles: tuple[list[Span], list[Span]] = ([], [])
    for (is_black, column), channel in channels.items():
        if 0 <= column < columns:
            (blacks if is_black else whites)[column] = _CHANNEL_SIGNS[channel]
            styles[is_black].append(
                Span(column + 1, column + 2, f"not dim bold black on {channel_style(channel)}")
            )
    lower, higher = _LOWER if below else " ", _HIGHER if above else " "
    return [
        Text(f" {''.join(blacks)}", "dim", spans=styles[True]),
        Text(f"{lower}{''.join(whites)}{higher}", spans=styles[False]),
        _names(first, columns),
    ]


def _lacks_black(column: int) -> bool:
    """Whether there is no black key above a white one: E, B, and the very last."""
    return column % _OCTAVE_COLUMNS in (2, 6) or column == _COLUMNS - 1


def _names(first: int, columns: int) -> Text:
    names = Text(" ")
    for column in range(0, columns, _OCTAVE_COLUMNS):
        note = (column + first) // _OCTAVE_COLUMNS * 12
        name = f"{note_name(note)}={note}" if note == 60 else note_name(note)
        room = min(_OCTAVE_COLUMNS, columns - column)
        names.append(name[:room].ljust(room), "bold" if note == 60 else "dim")
    return names


def name_held(held: Collection[int], width: int) -> Text:
    """Return the names of held notes by channel, as in "ch 1 C4 E4  ch 10 C2", and no more than have room.

    Args:
        held: as `channel << 7 | note`.
        width: columns there are. A line that is longer goes on.
    """
    by_channel: dict[int, list[int]] = {}
    for key in held:
        by_channel.setdefault(key >> 7, []).append(key & 127)
    line = Text()
    for channel, notes in sorted(by_channel.items()):
        line.append("  " if line else "")
        line.append(f"ch {channel + 1}", f"bold {channel_style(channel)}")
        line.append("".join(f" {note_name(note)}" for note in sorted(notes)[:width]), channel_style(channel))
        if len(line) > width:
            break
    return line
