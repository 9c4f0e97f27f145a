"""`midinet record`: what is heard, in time, as a MIDI file.

A file is written under another name and renamed when it is whole, so nothing that goes wrong costs a
recording that was there before.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from mido import Message, MetaMessage, MidiFile, MidiTrack

from .access import Target, connecting
from .common import Complaint, run, tell

# A tenth of a millisecond a tick: finer than any network, and coarse enough to leave room for hours.
_TEMPO = 500_000
_TICKS_PER_BEAT = 5_000
_TICKS_PER_SECOND = 10_000

# A MIDI file holds channel messages and sysex (Standard MIDI Files 1.0, <MTrk event>). The other system
# messages have no place in it: mido refuses some of them, and some would read back as something else.
_FIRST_SYSTEM_STATUS = 0xF0

Take = list[tuple[float, Message]]


@connecting("The server to listen to.")
def record_command(
    target: Target,
    file: Annotated[Path, typer.Argument(metavar="FILE.mid", help="What to write; it may exist.")],
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="SECONDS", help="Stop after so long, counted from now."),
    ] = None,
) -> None:
    """Record what is heard as a MIDI file.

    It ends with Ctrl-C or when the server closes, and saves in either case.

    The file begins with the first message; the silence before is left out. So are messages that have no
    place in a MIDI file, clock, start, stop, song position and their kind; they are counted at the end.

    \b
    Example:
      midinet record localhost:8080 take1.mid
    """
    if seconds is not None and not seconds > 0:
        raise Complaint("--seconds has to be more than 0")
    check_writable(file)
    raise typer.Exit(run(record(target, file, seconds), until_stopped=True))


def check_writable(path: Path) -> None:
    """Find out now, and not after the take, whether a file can be written, with a Complaint if it cannot."""
    if path.exists() and not path.is_file():
        raise Complaint(f"cannot write {path}: it is no regular file")
    try:
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(None, "Permission denied")
        part = _part(path)
        part.touch()
        part.unlink()
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from None


def file_of(take: Sequence[tuple[float, Message]]) -> MidiFile:
    """Return the MIDI file of a take: messages with the seconds at which they came, in order.

    The first is at 0. Every time is rounded by itself, so that rounding never adds up.
    """
    track = MidiTrack([MetaMessage("set_tempo", tempo=_TEMPO)])
    before = 0
    for seconds, message in take:
        ticks = round((seconds - take[0][0]) * _TICKS_PER_SECOND)
        track.append(message.copy(time=ticks - before))
        before = ticks
    return MidiFile(type=0, ticks_per_beat=_TICKS_PER_BEAT, tracks=[track])


def is_storable(message: Message) -> bool:
    """Whether a message has a place in a MIDI file."""
    return bool(message.type == "sysex" or message.bytes()[0] < _FIRST_SYSTEM_STATUS)


async def record(target: Target, path: Path, seconds: float | None = None) -> None:
    """Record what a server sends, until it closes or this is cancelled, and save it in either case.

    Args:
        target: the server.
        path: the file to write.
        seconds: how long to record at most; None is without end.

    Raises:
        Complaint: the file cannot be written.
        ConnectError: there is no server; no file is written.
        ConnectionLost: the link broke; the file is written.
    """
    take: Take = []
    async with target.connect(listens=True) as port:
        tell(f"recording {port.name}; Ctrl-C ends it and saves")
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(seconds):
                async for message in port:
                    take.append((clock(), message))
        except TimeoutError:
            pass
        finally:
            save(take, path)


def save(take: Take, path: Path) -> None:
    """Write a take to a file and say so on standard error.

    Raises:
        Complaint: it cannot be written; a file that was there before is still as it was.
    """
    kept = [(seconds, message) for seconds, message in take if is_storable(message)]
    part = _part(path)
    try:
        try:
            with part.open("wb") as file:
                file_of(kept).save(file=file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, part)
            part.replace(path.resolve())
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from error
    length = kept[-1][0] - kept[0][0] if kept else 0.0
    tell(f"{len(kept)} messages over {length:.1f} s saved to {path}")
    if left_out := sorted({message.type for _, message in take if not is_storable(message)}):
        tell(f"{len(take) - len(kept)} left out, which have no place in a MIDI file: {', '.join(left_out)}")


def _part(path: Path) -> Path:
    """Where a file is written until it is whole: next to it, or to what it is a link to."""
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.{os.getpid()}.part")
