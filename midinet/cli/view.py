"""The picture of the live view: how things stand, in as many columns and lines as there are.

From top to bottom: who this is and for how long, where it is, what passes, what was lost, the keyboard, the
clients (of a hub), the last messages, the last events. Where lines are few, first the events go, then the
clients, then the keyboard; the messages take what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import NamedTuple

from rich.cells import set_cell_size
from rich.text import Text

from ..wire.codec import decode
from ..wire.parser import split_messages
from ..wire.spec import FIRST_SYSTEM, SYSEX
from .common import printable
from .keyboard import ASCII_GLYPHS, GLYPHS, channel_style, draw_keyboard, name_held, note_name
from .report import short

# Lines below which something is left out.
_MIN_FOR_KEYBOARD = 10
_MIN_FOR_CLIENTS = 14
_MIN_FOR_EVENTS = 18
# Lines of events, and how many are too few for that many.
_MAX_EVENT_LINES = 3
_FEW = 24

# Columns from which on there is room for more than the most important.
_WIDE = 70

# Columns of the name of who sent a message.
_WIDE_NAME, _NARROW_NAME = 16, 8
_ADDRESS = 22
_RATE = 8
_FIGURE = 8
# The longest of mido's types and a space.
_TYPE = 15

# Where the text of an event begins, after its time.
_AFTER_TIME = 11

# Bytes of a sysex that are shown.
_SYSEX_SHOWN = 8

_FAINT = "dim"
_HEADING = "bold"


class ClientLine(NamedTuple):
    """One client of a hub."""

    name: str
    address: str
    received_rate: float
    sent_rate: float
    lost: int
    """Messages that did not get where they were meant to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How things stand.

    Attributes:
        title: who this is.
        seconds: for how long.
        status: how it goes, in a few words.
        where: the addresses.
        figures: what they are called, and each in words, as in ("in", "1.23k/s").
        losses: what was lost, in words; empty is nothing.
        held: notes, as `channel << 7 | note`.
        clients: of a hub; None of anything else.
        reads: who said what last, the newest at the end: whole messages, joined. No name is shown where it
            is None.
        events: the newest at the end.
    """

    title: str
    seconds: float
    status: str
    where: str = ""
    figures: Sequence[tuple[str, str]] = ()
    losses: str = ""
    held: Sequence[int] = ()
    clients: Sequence[ClientLine] | None = None
    reads: Sequence[tuple[str | None, bytes]] = ()
    events: Sequence[str] = ()


def can_draw(encoding: str) -> bool:
    """Whether an encoding has what a keyboard is drawn with."""
    try:
        "".join(GLYPHS).encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True


def compose(state: State, width: int, height: int, *, in_ascii: bool = False) -> list[Text]:
    """Return the lines of a picture, at most `height`; they may be longer than `width`."""
    lines = [_ends(Text(f"{state.title}  {clock_time(state.seconds)}", "bold"), Text(state.status), width)]
    if state.where:
        lines.append(Text(printable(state.where)))
    lines += [_figures(state), Text(state.losses, "red") if state.losses else Text("nothing lost", _FAINT)]
    if height >= _MIN_FOR_KEYBOARD:
        lines += draw_keyboard(state.held, width, ASCII_GLYPHS if in_ascii else GLYPHS)
        lines.append(name_held(state.held, width) if state.held else Text("no note is held", _FAINT))
    events = _events(state.events, width, height) if height >= _MIN_FOR_EVENTS else []
    room = height - len(lines) - len(events)
    if state.clients is not None and height >= _MIN_FOR_CLIENTS:
        clients = _clients(state.clients, width, max(1, room // 2 - 2))
        room -= len(clients)
        lines += clients
    lines += _messages(state, width, room)
    return [*lines, *events]


def clock_time(seconds: float) -> str:
    """Return a time as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def counted(count: int | None, word: str) -> str:
    """Return so many of something, as in "1 client"; of None, "- clients"."""
    return f"{'-' if count is None else count} {word}{'' if count == 1 else 's'}"


def _ends(left: Text, right: Text, width: int) -> Text:
    """Put one text at either end of a line."""
    gap = max(2, width - left.cell_len - right.cell_len)
    return Text.assemble(left, " " * gap, right)


def _figures(state: State) -> Text:
    line = Text()
    for word, figure in state.figures:
        line.append(f"{word} ", _FAINT)
        line.append(f"{figure:<{_FIGURE}}", "bold")
    return line


def _clients(clients: Sequence[ClientLine], width: int, most: int) -> list[Text]:
    """The clients; where not all have room, those that say most."""
    if not clients:
        return [Text("clients", _HEADING), Text("  nobody is connected yet", _FAINT)]
    is_wide = width >= _WIDE
    name_width = width - 2 * _RATE - (_ADDRESS + _RATE if is_wide else 0) - 2
    heads = ("address".ljust(_ADDRESS) if is_wide else "", "in/s", "out/s", "lost" if is_wide else "")
    lines = [_client_line("clients".ljust(name_width + 2), *heads, style=_HEADING)]
    if left_out := max(0, len(clients) - most):
        clients = sorted(clients, key=lambda client: client.received_rate, reverse=True)[: most - 1]
        left_out = left_out + 1
    for client in clients:
        name = "  " + set_cell_size(printable(client.name), name_width - 1) + " "
        address = client.address if client.address != client.name else ""
        lines.append(
            _client_line(
                name,
                address.ljust(_ADDRESS) if is_wide else "",
                short(client.received_rate),
                short(client.sent_rate),
                (short(client.lost) if client.lost else "-") if is_wide else "",
            )
        )
    if left_out:
        lines.append(Text(f"  and {left_out} more", _FAINT))
    return lines


def _client_line(name: str, address: str, received: str, sent: str, lost: str, *, style: str = "") -> Text:
    return Text(f"{name}{address}{received:>{_RATE}}{sent:>{_RATE}}{lost and lost.rjust(_RATE)}", style)


def _messages(state: State, width: int, most: int) -> list[Text]:
    """The last messages with a heading, in so many lines."""
    if most < 2:
        return []
    lines = [_message_line(name, frame, width) for name, frame in _last(state.reads, most - 1)]
    if not lines:
        lines.append(Text("  none yet", _FAINT))
    lines += [Text()] * (most - 1 - len(lines))
    return [Text("last messages", _HEADING), *lines]


def _last(reads: Sequence[tuple[str | None, bytes]], most: int) -> list[tuple[str | None, bytes]]:
    """Return the last messages of reads, each with who said it."""
    found: list[tuple[str | None, bytes]] = []
    for name, data in reversed(reads):
        found += [(name, frame) for frame in reversed(split_messages(data))]
        if len(found) >= most:
            break
    return found[:most][::-1]


def _message_line(name: str | None, frame: bytes, width: int) -> Text:
    is_wide = width >= _WIDE
    line = Text("  ")
    if name is not None:
        line.append(set_cell_size(printable(name), _WIDE_NAME if is_wide else _NARROW_NAME) + " ", _FAINT)
    status = frame[0]
    if status < FIRST_SYSTEM:
        channel = status & 15
        line.append(f"ch {channel + 1:<2} ", channel_style(channel))
    elif is_wide:
        line.append("      ")
    kind, values = _describe(frame, is_wide)
    line.append(kind.ljust(_TYPE) if is_wide else f"{kind} ")
    line.append(values)
    return line


def _describe(frame: bytes, is_wide: bool) -> tuple[str, str]:
    """Return the type of a message and its values, in mido's words, and notes by their names too."""
    if frame[0] == SYSEX:
        data = frame[1:-1]
        more = " ..." if len(data) > _SYSEX_SHOWN else ""
        return "sysex", f"{len(data)} bytes: {data[:_SYSEX_SHOWN].hex(' ')}{more}"
    values = decode(frame).dict()
    kind: str = values["type"]
    words = []
    for name, value in values.items():
        if name == "note":
            words.append(f"{note_name(value):<4} note={value}" if is_wide else note_name(value))
        elif name not in ("type", "time", "channel"):
            words.append(f"{name}={value}")
    return kind, " ".join(words)


def _events(events: Iterable[str], width: int, height: int) -> list[Text]:
    lines = [
        Text(line)
        for event in events
        for line in wrap(printable(event), width, initial_indent="  ", subsequent_indent=" " * _AFTER_TIME)
    ]
    most = 1 if height < _FEW else _MAX_EVENT_LINES
    return [Text("events", _HEADING), *lines[-most:]] if lines else []
