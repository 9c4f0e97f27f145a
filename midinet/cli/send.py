"""`midinet send`: messages as people write them, from the arguments or from standard input.

A message is written in one of three ways: in mido's text form, where a note may have a name, as hexadecimal
bytes, or as the path of a .syx file. A fourth comes through a pipe: the bytes of a .syx file.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from mido import Message

from ..files.dump import read_frames, read_hex
from ..net.port import SocketPort
from ..wire.codec import decode
from ..wire.parser import Parser
from .access import DeviceTarget, Target, connecting
from .common import Complaint, complain, run, talk, tell
from .pace import Pace

# Seconds. What was given to `send` has to arrive, also over a slow network.
_CLOSE_TIMEOUT_S = 10.0

_READ_BYTES = 65536

# Middle C is C4 (note 60), as mido's users and most programs have it; some instruments call it C3.
_NOTE_NAME = re.compile(r"([A-Ga-g])(#|b|♯|♭)?(-?[0-9]{1,2})")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_C_MINUS_1_OCTAVE = -1

# data=(1, 2, 3), as Python prints it, is one word here.
_DATA = re.compile(r"data=\([^()]*\)")
_HEX_WORD = re.compile(r"(?:0x)?[0-9A-Fa-f]{2}(?:[,;]?(?:0x)?[0-9A-Fa-f]{2})*[,;]?")

_RAW_SYSEX = b"\xf0"

# Far beyond any dump of one message. What has no end is not kept on and on.
_MAX_PIPED_SYSEX = 1 << 26


@connecting(
    "The server to send to, as HOST:PORT or midi://NAME, or an output port of this machine.", devices="output"
)
def send_command(
    target: Target | DeviceTarget,
    messages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MESSAGE",
            help="Messages in mido's text form, in hexadecimal, or .syx files; none, or -, reads lines.",
        ),
    ] = None,
    hold: Annotated[
        float | None,
        typer.Option(
            "--hold",
            metavar="SECONDS",
            min=0,
            help="Wait so long at the end, before notes are let go. Without it, a note that is held then "
            "sounds for half a second.",
        ),
    ] = None,
) -> None:
    """Send messages, each as a type and its name=value pairs. What is left out has mido's default.

    A note may have a name: C4 is 60, F#3 or Gb3 is 54. Messages may be written as bytes too, in hexadecimal,
    and .syx files are sent as they are. With time=SECONDS a message waits so long before it is sent.

    Without messages, or with "-", lines are read from standard input and sent as they come; empty lines,
    those that begin with #, and active_sensing are skipped. A wrong line ends it, and what was before it has
    been sent; typed in a terminal, it is only not sent. Messages given as arguments are all checked before
    the first is sent.

    A note that is still held at the end sounds for half a second, or for --hold, and is then let go.

    \b
    Examples:
      midinet send localhost:8080 note_on note=60 velocity=90
      midinet send localhost:8080 note_on note=C4 note_on note=E4 --hold 2
      midinet send localhost:8080 note_on note=60 note_off note=60 time=0.2
      midinet send "USB MIDI" "F0 7E 7F 06 01 F7" patch.syx
      midinet send "USB MIDI" program_change program=5
      midinet monitor localhost:8080 | midinet send localhost:9090 -
    """
    if hold is not None and not hold < inf:
        raise Complaint("--hold has to be a number of seconds")
    if messages and messages != ["-"]:
        work = send(target, read_arguments(messages), hold_s=hold)
    else:
        if sys.stdin.isatty():
            tell("One message a line, as in: note_on note=60 velocity=90. Ctrl-D ends.")
        work = send(target, None, hold_s=hold)
    raise typer.Exit(run(work))


def read_arguments(arguments: Iterable[str]) -> list[Message]:
    """Return the messages that arguments spell: a word without "=" begins a new one.

    So it does not matter what is one argument to the shell: a word, a message, or several. A .syx file is one
    argument.
    """
    messages: list[Message] = []
    words: list[str] = []
    for argument in arguments:
        if argument.lower().endswith(".syx"):
            messages += _read_words(words) + _read_dump(Path(argument))
            words = []
        else:
            words += _words_of(argument)
    messages += _read_words(words)
    if not messages:
        raise Complaint("there is no message to send")
    return messages


def _words_of(text: str) -> list[str]:
    """Return the words of a text, of which data=(...) is one whatever spaces it has."""
    return _DATA.sub(lambda found: "".join(found[0].split()), text).split()


def _read_words(words: list[str]) -> list[Message]:
    texts: list[list[str]] = []
    for word in words:
        if _is_hex(word, texts):
            if not texts or not _is_hex(texts[-1][0]):
                texts.append([])
            texts[-1].append(word)
            continue
        if word.isdecimal():
            raise Complaint(
                f"{word!r} begins no message: values have names, as in note_on note=60 velocity=90"
            )
        if "=" not in word:
            texts.append([])
        elif not texts:
            raise Complaint(f"{word!r} begins no message: its type is expected first, as in note_on {word}")
        texts[-1].append(word)
    return [message for words in texts for message in read_messages(" ".join(words))]


def _is_hex(word: str, texts: list[list[str]] | None = None) -> bool:
    """Return whether a word is hexadecimal bytes: a status byte comes first, or others stand before it."""
    if not _HEX_WORD.fullmatch(word):
        return False
    if texts and texts[-1] and _is_hex(texts[-1][0]):
        return True
    return word.lower().removeprefix("0x")[0] in "89abcdef"


def read_messages(text: str) -> list[Message]:
    """Return the messages of hexadecimal bytes, or the one of mido's text form, with a Complaint if none."""
    if not _is_hex(text.split(maxsplit=1)[0] if text.strip() else ""):
        return [read_message(text)]
    try:
        return _whole_messages(read_hex(text), repr(text))
    except ValueError as error:
        raise Complaint(f"{text!r} is no message: {error}") from None


def _whole_messages(data: bytes, name: str) -> list[Message]:
    parser = Parser(max_sysex=max(len(data), 2))
    messages = parser.feed(data)
    parser.end()
    stats = parser.stats
    if not messages or stats.unfinished or stats.sysex_aborted or stats.undefined or stats.stray_data:
        raise Complaint(f"{name} is no message, or not a whole one")
    return messages


def _read_dump(path: Path) -> list[Message]:
    try:
        frames, is_damaged = read_frames(path.read_bytes())
    except OSError as error:
        raise Complaint(f"cannot read {path}: {error.strerror}") from None
    if not frames:
        raise Complaint(f"{path} holds no whole MIDI message")
    if is_damaged:
        tell(f"{path} is damaged: bytes that belong to no message skipped")
    return [decode(frame) for frame in frames]


def note_number(name: str) -> int:
    """Return the number of a note by its name: C4 is 60.

    Raises:
        ValueError: it is no name, or of a note that MIDI does not have.
    """
    found = _NOTE_NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no note: write 60, C4, F#3 or Gb3")
    letter, accidental, octave = found[1].upper(), found[2] or "", int(found[3])
    number = 12 * (octave - _C_MINUS_1_OCTAVE) + _SEMITONES[letter] + _ACCIDENTALS[accidental]
    if not 0 <= number <= 127:
        raise ValueError(f"MIDI's notes go from C-1 to G9, and {name} is none of them")
    return number


def read_message(text: str) -> Message:
    """Return the message of mido's text form, with a Complaint if it is none."""
    words = _words_of(text)
    for word in words:
        # mido cuts off the ends of `data` whatever they are.
        if word.startswith("data=") and not (word.startswith("data=(") and word.endswith(")")):
            raise Complaint(f"{text!r} is no message: data is written as data=(1,2,3)")
    try:
        words = [_numbered(word) for word in words]
        # mido writes a sysex without data as data=(), and cannot read that.
        if words[:1] == ["sysex"]:
            words = [word for word in words if word != "data=()"]
        message = Message.from_str(" ".join(words))
        if not 0 <= message.time < inf:
            raise ValueError("time is in seconds, 0 or more")
        return message
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, str) and reason.startswith("not enough values"):
            reason = "what follows the type is name=value, as in note_on note=60"
        raise Complaint(f"{text!r} is no message: {reason}") from None


def _numbered(word: str) -> str:
    """Return a word with the number of a note in place of its name."""
    name, _, value = word.partition("=")
    if name == "note" and value[:1].isalpha():
        return f"note={note_number(value)}"
    return word


async def send(
    target: Target | DeviceTarget, messages: list[Message] | None, *, hold_s: float | None = None
) -> None:
    """Send messages, or those of standard input, and wait until they are on the wire.

    Args:
        target: where to.
        messages: them; None is those of standard input.
        hold_s: the seconds to wait at the end; None is until a note that is held has sounded for 0.5 s.

    Raises:
        Complaint: a line is no message, or the other side did not take everything.
        ConnectError, ConnectionLost, PortClosed: as the port says.
    """
    async with target.connect(close_timeout=_CLOSE_TIMEOUT_S) as port:
        await talk(port, _Sender(port).send(messages, hold_s))
    if port.stats.messages_dropped:
        raise Complaint(f"{port.name} did not take {port.stats.messages_dropped} messages", 1)


class _Sender:
    """Sends messages at their times.

    Args:
        port: where to.
    """

    def __init__(self, port: SocketPort) -> None:
        self._port = port
        self._clock = asyncio.get_running_loop().time
        self._pace = Pace(self._clock())

    async def send(self, messages: list[Message] | None, hold_s: float | None) -> None:
        """Send messages, or those of standard input, and let the last notes sound."""
        if messages is None:
            await self._send_input()
        for message in messages or ():
            await self._send_in_time(message)
        if hold_s is None:
            await self._sleep_until(self._pace.end())
        else:
            await asyncio.sleep(hold_s)

    async def _send_input(self) -> None:
        """Send what comes by standard input: lines, or the bytes of a dump, by how it begins."""
        pieces = _pieces_of_input()
        first = await anext(pieces, b"")
        parser = Parser(max_sysex=_MAX_PIPED_SYSEX)
        rest, number = b"", 0
        is_raw = first.startswith(_RAW_SYSEX)
        piece = first
        while piece:
            if is_raw:
                for message in parser.feed(piece):
                    await self._port.send(message)
            else:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    number += 1
                    await self._send_line(line, number)
            piece = await anext(pieces, b"")
        if rest:
            await self._send_line(rest, number + 1)
        parser.end()
        if is_raw and (parser.stats.sysex_aborted or not parser.stats.messages):
            raise Complaint("standard input ends within a system exclusive message")

    async def _send_line(self, line: bytes, number: int) -> None:
        text = line.decode("utf-8", "replace")
        if not text.strip() or text.lstrip().startswith("#"):
            return
        try:
            messages = read_messages(text)
        except Complaint as error:
            if not sys.stdin.isatty():
                raise Complaint(f"line {number}: {error}") from None
            # Whoever typed it can type another.
            complain(str(error))
            return
        for message in messages:
            # Lines may come from many instruments. That the active sensing of one of them ends says nothing
            # of the others, whose notes it would end.
            if message.type != "active_sensing":
                await self._send_in_time(message)

    async def _send_in_time(self, message: Message) -> None:
        await self._sleep_until(self._pace.due(message, self._clock()))
        await self._port.send(message)
        self._pace.note_sent(message, self._clock())

    async def _sleep_until(self, moment: float) -> None:
        if (wait := moment - self._clock()) > 0:
            await asyncio.sleep(wait)


async def _pieces_of_input() -> AsyncIterator[bytes]:
    """Yield standard input as it comes, read by a thread.

    The event loop can wait for a pipe or a terminal, but not for a file, and on Windows for none of them.
    """
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    # The thread reads on when the last piece has been taken.
    taken = threading.Semaphore()
    threading.Thread(
        target=_read_pieces,
        args=(sys.stdin.fileno(), pieces, taken, asyncio.get_running_loop()),
        name="midinet input",
        daemon=True,
    ).start()
    while piece := await pieces.get():
        if isinstance(piece, OSError):
            raise piece
        yield piece
        taken.release()


def _read_pieces(
    descriptor: int,
    pieces: asyncio.Queue[bytes | OSError],
    taken: threading.Semaphore,
    loop: asyncio.AbstractEventLoop,
) -> None:
    piece: bytes | OSError = b" "
    while piece and not isinstance(piece, OSError):
        taken.acquire()
        try:
            # Not sys.stdin: that has a lock, which Python needs when it ends while this still waits.
            piece = os.read(descriptor, _READ_BYTES)
        except OSError as error:
            piece = error
        try:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)
        except RuntimeError:
            return  # The loop is over.
