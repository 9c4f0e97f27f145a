"""`midinet send`: messages in mido's text form, from the arguments or from standard input."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

import typer
from mido import Message

from ..net.port import SocketPort
from .access import DeviceTarget, Target, connecting
from .common import Complaint, run, talk, tell

# Seconds. What was given to `send` has to arrive, also over a slow network.
_CLOSE_TIMEOUT_S = 10.0

_READ_BYTES = 65536


@connecting(
    "The server to send to, as HOST:PORT or midi://NAME, or an output port of this machine.", devices="output"
)
def send_command(
    target: Target | DeviceTarget,
    messages: Annotated[
        list[str] | None,
        typer.Argument(metavar="MESSAGE", help="Messages in mido's text form; none, or -, reads lines."),
    ] = None,
) -> None:
    """Send messages, each as a type and its name=value pairs. What is left out has mido's default.

    Without messages, or with "-", lines are read from standard input and sent as they come; empty lines,
    those that begin with #, and active_sensing are skipped. A wrong line ends it: what was before it has been
    sent.
    Messages given as arguments are all checked before the first is sent. A time=... is ignored.

    Notes that are still held when it ends are let go. A server that lets nobody in without a token, or not
    from here, may not say so in time: with --name it is asked first.

    \b
    Examples:
      midinet send localhost:8080 note_on note=60 velocity=90
      midinet send "USB MIDI" program_change program=5
      midinet monitor localhost:8080 | midinet send localhost:9090 -
    """
    if messages and messages != ["-"]:
        work = send(target, read_arguments(messages))
    else:
        if sys.stdin.isatty():
            tell("One message a line, as in: note_on note=60 velocity=90. Ctrl-D ends.")
        work = send(target, None)
    raise typer.Exit(run(work))


def read_arguments(arguments: Iterable[str]) -> list[Message]:
    """Return the messages that arguments spell: a word without "=" begins a new one.

    So it does not matter what is one argument to the shell: a word, a message, or several.
    """
    texts: list[list[str]] = []
    for word in " ".join(arguments).split():
        if word.isdecimal():
            raise Complaint(
                f"{word!r} begins no message: values have names, as in note_on note=60 velocity=90"
            )
        if "=" not in word:
            texts.append([])
        elif not texts:
            raise Complaint(f"{word!r} begins no message: its type is expected first, as in note_on {word}")
        texts[-1].append(word)
    if not texts:
        raise Complaint("there is no message to send")
    return [read_message(" ".join(words)) for words in texts]


def read_message(text: str) -> Message:
    """Return the message of mido's text form, with a Complaint if it is none."""
    words = text.split()
    for word in words:
        # mido cuts off the ends of `data` whatever they are.
        if word.startswith("data=") and not (word.startswith("data=(") and word.endswith(")")):
            raise Complaint(f"{text!r} is no message: data is written as data=(1,2,3)")
    try:
        # mido writes a sysex without data as data=(), and cannot read that.
        if words[:1] == ["sysex"]:
            words = [word for word in words if word != "data=()"]
        return Message.from_str(" ".join(words))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error.args[0] if error.args else error
        if isinstance(reason, str) and reason.startswith("not enough values"):
            reason = "what follows the type is name=value, as in note_on note=60"
        raise Complaint(f"{text!r} is no message: {reason}") from None


async def send(target: Target | DeviceTarget, messages: list[Message] | None) -> None:
    """Send messages, or those of standard input, and wait until they are on the wire.

    Raises:
        Complaint: a line is no message, or the other side did not take everything.
        ConnectError, ConnectionLost, PortClosed: as the port says.
    """
    async with target.connect(close_timeout=_CLOSE_TIMEOUT_S) as port:
        await talk(port, _send_lines(port) if messages is None else _send_all(port, messages))
    if port.stats.messages_dropped:
        raise Complaint(f"{port.name} did not take {port.stats.messages_dropped} messages", 1)


async def _send_all(port: SocketPort, messages: list[Message]) -> None:
    for message in messages:
        await port.send(message)


async def _send_lines(port: SocketPort) -> None:
    number = 0
    async for line in _lines_of_input():
        number += 1
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                message = read_message(line)
            except Complaint as error:
                raise Complaint(f"line {number}: {error}") from None
            # Lines may come from many instruments. That the active sensing of one of them ends says nothing
            # of the others, whose notes it would end.
            if message.type != "active_sensing":
                await port.send(message)


async def _lines_of_input() -> AsyncIterator[str]:
    """Yield the lines of standard input as they come, read by a thread.

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
    rest = b""
    while piece := await pieces.get():
        if isinstance(piece, OSError):
            raise piece
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
        taken.release()
    if rest:
        yield rest.decode("utf-8", "replace")


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
