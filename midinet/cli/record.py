"""`midinet record`: what is heard, in time, as a MIDI file and as a picture.

A file is written under another name and renamed when it is whole, so nothing that goes wrong costs a
recording that was there before.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..net.port import SocketPort
from .access import DeviceTarget, Target, connecting
from .common import Complaint, run, tell
from .piano_roll import draw
from .take import Silence, Take, file_of, is_storable, music_of


@connecting(
    "The server to listen to, as HOST:PORT or midi://NAME, or an input port of this machine.", devices="input"
)
def record_command(
    target: Target | DeviceTarget,
    file: Annotated[Path, typer.Argument(metavar="FILE.mid", help="What to write; it may exist.")],
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="SECONDS", help="Stop after so long, counted from now."),
    ] = None,
    until_silence: Annotated[
        float | None,
        typer.Option(
            "--until-silence",
            metavar="SECONDS",
            help="Stop when it has been silent for so long after the music.",
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw a piano roll of the take too, as an SVG picture; it may exist."
        ),
    ] = None,
) -> None:
    """Record what is heard as a MIDI file.

    It ends with Ctrl-C or when the server closes, or by choice with --seconds or --until-silence; whatever
    ends it, the take is saved. A port of this machine that is unplugged is waited for, and its notes let go.

    The file begins with the first message and ends with the last; the silence before and after is left out.
    So are messages that have no place in a MIDI file, clock, start, stop, song position and their kind; they
    are counted at the end. What a hub says is set already stands right before what comes first after that.

    Silence is when nothing comes and no note is held. It is waited for from the first note on; clock and
    active sensing are no sound, and neither is a pedal that stays down.

    \b
    Examples:
      midinet record localhost:8080 take1.mid
      midinet record "USB MIDI" take1.mid --until-silence 5 --svg take1.svg
    """
    for option, value in (("--seconds", seconds), ("--until-silence", until_silence)):
        if value is not None and not value > 0:
            raise Complaint(f"{option} has to be more than 0")
    check_writable(file)
    if svg is not None:
        if svg.resolve() == file.resolve():
            raise Complaint(f"--svg {svg} is where the MIDI file goes: give it another name")
        check_writable(svg)
    work = record(target, file, seconds=seconds, silence_s=until_silence, svg=svg)
    raise typer.Exit(run(work, until_stopped=True))


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


async def record(
    target: Target | DeviceTarget,
    path: Path,
    *,
    seconds: float | None = None,
    silence_s: float | None = None,
    svg: Path | None = None,
) -> None:
    """Record what comes, until the other side closes or this is cancelled, and save it in any case.

    Args:
        target: the server or the device.
        path: the file to write.
        seconds: how long to record at most; None is without end.
        silence_s: the seconds of silence that end it; None is without end.
        svg: where to draw a piano roll; None is nowhere.

    Raises:
        Complaint: the file cannot be written.
        ConnectError: there is no server; no file is written.
        ConnectionLost: the link broke; the file is written.
    """
    take: Take = []
    async with target.connect(listens=True) as port:
        tell(f"recording {port.name}; Ctrl-C ends it and saves")
        clock = asyncio.get_running_loop().time
        opened_at = clock()
        try:
            async with asyncio.timeout(seconds):
                await _listen(port, take, silence_s)
        except TimeoutError:
            pass
        finally:
            # A signal may come before what had arrived by then was listened to.
            take.extend((clock(), message) for message in port.iter_pending())
            save(take, music_of(take, opened_at, clock()), path, svg)


async def _listen(port: SocketPort, take: Take, silence_s: float | None) -> None:
    """Add what comes to a take, until the port closes.

    Raises:
        TimeoutError: it has been silent for `silence_s`.
    """
    clock = asyncio.get_running_loop().time
    silence = Silence()
    async with asyncio.timeout(None) as end:
        async for message in port:
            now = clock()
            take.append((now, message))
            if silence_s is not None:
                silence.observe(message, now)
                end.reschedule(None if silence.since is None else silence.since + silence_s)


def save(take: Take, music: Take, path: Path, svg: Path | None = None) -> None:
    """Write music to a file, and draw it if that is wanted, and say so on standard error.

    Args:
        take: what was heard, of which it is told what is left out.
        music: what is written.
        path: the file.
        svg: where to draw it; None is nowhere.

    Raises:
        Complaint: it cannot be written; a file that was there before is still as it was.
    """
    content = io.BytesIO()
    file_of(music).save(file=content)
    _write(path, content.getvalue())
    length = music[-1][0] - music[0][0] if music else 0.0
    tell(f"{len(music)} message{'' if len(music) == 1 else 's'} over {length:.1f} s saved to {path}")
    if left_out := [message.type for _, message in take if not is_storable(message)]:
        kinds = ", ".join(sorted(set(left_out)))
        tell(f"{len(left_out)} left out, which have no place in a MIDI file: {kinds}")
    if svg is not None:
        _write(svg, draw(path.name, music).encode())
        tell(f"piano roll saved to {svg}")


def _write(path: Path, content: bytes) -> None:
    part = _part(path)
    try:
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, part)
            part.replace(path.resolve())
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from error


def _part(path: Path) -> Path:
    """Where a file is written until it is whole: next to it, or to what it is a link to."""
    whole = path.resolve()
    return whole.with_name(f".{whole.name}.{os.getpid()}.part")
