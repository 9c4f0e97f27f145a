"""`midinet record`: what is heard, in time, as a MIDI file and as a picture.

A file is written under another name while it is recorded, and renamed when it is whole. So nothing that goes
wrong costs a recording that was there before, or more of this one than its last second.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path
from typing import Annotated

import typer

from ..files.recorder import Recorder, TakeFile, part_of
from ..net.port import SocketPort
from ..net.tasks import BackgroundTask
from ..wire.codec import decode, encode
from .access import DeviceTarget, Target, connecting
from .common import Complaint, run, tell
from .piano_roll import draw
from .take import Silence

# Seconds. So much of a take is lost at most if the process is killed.
_WRITE_EVERY_S = 1.0


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

    It is written as it goes: after a kill, all but the last second is in the file that is named at the
    beginning. Where the disk is full or the folder gone, it goes on in the nearest folder that takes it, and
    that is told.

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
        part = part_of(path)
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
    async with target.connect(listens=True) as port:
        clock = asyncio.get_running_loop().time
        recorder = Recorder(clock())
        try:
            take_file = TakeFile(path, recorder)
        except OSError as error:
            raise Complaint(f"cannot write {path}: {error.strerror}") from None
        tell(f"recording {port.name}; Ctrl-C ends it and saves")
        tell(f"until then it is in {take_file.part}")
        writer = _Writer(take_file)
        write_task = BackgroundTask(writer.write_as_it_goes(), name="midinet record writer")
        try:
            async with asyncio.timeout(seconds):
                await _listen(port, recorder, silence_s)
        except TimeoutError:
            pass
        finally:
            # A signal may come before what had arrived by then was listened to.
            for message in port.iter_pending():
                recorder.receive(encode(message), clock())
            recorder.finish(clock())
            write_task.cancel()
            writer.wait()
            save(recorder, take_file, path, svg)


class _Writer:
    """Writes what is new once a second, in a thread: a disk may be slow, and times are told meanwhile."""

    def __init__(self, take_file: TakeFile) -> None:
        self._take_file = take_file
        self._is_idle = threading.Lock()
        self._is_in_trouble = False

    async def write_as_it_goes(self) -> None:
        """Write, until this is cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            await asyncio.to_thread(self._write)

    def wait(self) -> None:
        """Wait until nothing is being written, and have nothing more written."""
        self._is_idle.acquire()

    def _write(self) -> None:
        if not self._is_idle.acquire(blocking=False):
            return
        try:
            if error := self._take_file.write():
                tell(f"{_why_not(self._take_file.path, error)}; the take goes on in {self._take_file.part}")
            self._is_in_trouble = False
        except OSError as error:
            if not self._is_in_trouble:
                self._is_in_trouble = True
                tell(f"{_why_not(self._take_file.path, error)}; the take is kept in memory meanwhile")
        finally:
            self._is_idle.release()


def _why_not(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror}"


async def _listen(port: SocketPort, recorder: Recorder, silence_s: float | None) -> None:
    """Record what comes, until the port closes.

    Raises:
        TimeoutError: it has been silent for `silence_s`.
    """
    clock = asyncio.get_running_loop().time
    silence = Silence()
    async with asyncio.timeout(None) as end:
        async for message in port:
            now = clock()
            recorder.receive(encode(message), now)
            if silence_s is not None:
                silence.observe(message, now)
                end.reschedule(None if silence.since is None else silence.since + silence_s)


def save(recorder: Recorder, take_file: TakeFile, path: Path, svg: Path | None = None) -> None:
    """Give the file of a take its name, and draw it if that is wanted, and say so on standard error.

    Args:
        recorder: the take, which is finished.
        take_file: its file.
        path: what the file is called in messages.
        svg: where to draw it; None is nowhere.

    Raises:
        Complaint: it cannot be written there; a file that was there before is still as it was, and it is said
            where the take is.
    """
    try:
        error = take_file.finish()
    except OSError as failed:
        raise Complaint(f"{_why_not(path, failed)}; the take is nowhere") from None
    where = path if error is None else take_file.part
    count = recorder.messages
    tell(f"{count} message{'' if count == 1 else 's'} over {recorder.length_s:.1f} s saved to {where}")
    if left_out := recorder.left_out:
        kinds = ", ".join(sorted(left_out))
        tell(f"{left_out.total()} left out, which have no place in a MIDI file: {kinds}")
    if svg is not None:
        music = [(seconds, decode(frame)) for seconds, frame in recorder.frames()]
        _write(svg, draw(path.name, music).encode())
        tell(f"piano roll saved to {svg}")
    if error is not None:
        raise Complaint(f"{_why_not(path, error)}; the take is in {where}")


def _write(path: Path, content: bytes) -> None:
    part = part_of(path)
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
