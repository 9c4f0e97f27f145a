"""What was heard to a MIDI file that grows while it is written.

The rules (Standard MIDI Files 1.0):

- A MIDI file holds channel messages and system exclusive (<MTrk event>). The other system messages have no
  place in it, so nothing is kept of them but how many there were.
- It begins with the first message and ends with the last, or where the last notes were let go. A hub tells at
  the beginning what is set, before anybody plays: that stands right before what comes next.
- No note, pedal or bend lasts beyond the end: other players would have it hang.
- Every time is rounded by itself, so that rounding never adds up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import BinaryIO

from ..hub.performance import Performance
from ..hub.release import release_all
from ..wire.codec import decode
from ..wire.spec import FIRST_SYSTEM, SYSEX
from .reader import read_midi_file
from .timeline import TimedFrame

# A tenth of a millisecond a tick: finer than any network, and coarse enough to leave room for hours.
_TICKS_PER_BEAT = 5_000
_TICKS_PER_SECOND = 10_000
_TEMPO_EVENT = b"\x00\xff\x51\x03" + (500_000).to_bytes(3, "big")

_HEADER = b"MThd" + (6).to_bytes(4, "big") + bytes(3) + b"\x01" + _TICKS_PER_BEAT.to_bytes(2, "big") + b"MTrk"
_LENGTH_BYTES = 4
_END_OF_TRACK = b"\x00\xff\x2f\x00"

# The longest time that four bytes hold (page 2), and an empty text event, which makes a longer one of two.
_MAX_DELTA = (1 << 28) - 1
_EMPTY_EVENT = b"\xff\x01\x00"

# Seconds. A hub tells at once what is set, and then nothing for as long as nobody plays.
_SNAPSHOT_S = 0.5

_NOTE_ON = 0x90


class Recorder:
    """A take: the messages that go into a file, as the track of that file.

    Args:
        opened_at: when it began, in seconds of any clock.

    Attributes:
        track: the events as they stand in the file, without the end of the track.
        messages: how many messages are in the track.
        left_out: how many messages of each type have no place in a file.
    """

    def __init__(self, opened_at: float) -> None:
        self.track = bytearray(_TEMPO_EVENT)
        self.messages = 0
        self.left_out: Counter[str] = Counter()
        self._opened_at = opened_at
        # What is set already, with its times, until something comes that it stands before; then None.
        self._early: list[TimedFrame] | None = []
        self._begin = self._last = opened_at
        self._ticks = 0

    @property
    def length_s(self) -> float:
        """Seconds from the first message to the last."""
        return self._last - self._begin if self.messages else 0.0

    def receive(self, frame: bytes, at: float) -> None:
        """Take in a message.

        Args:
            frame: it.
            at: when it came, in seconds of the recorder's clock; never before the one before.
        """
        if frame[0] >= FIRST_SYSTEM and frame[0] != SYSEX:
            self.left_out[decode(frame).type] += 1
            return
        if self._early is not None:
            is_early = at - self._opened_at < _SNAPSHOT_S
            if is_early and frame[0] & 0xF0 != _NOTE_ON:
                self._early.append((at, frame))
                return
            self._write_early(None if is_early else at)
        self._append(frame, at)

    def finish(self, at: float) -> None:
        """End all that would last beyond the end.

        Args:
            at: when the take ended: so long sound the notes that are held.
        """
        self._write_early(None)
        if not self.messages:
            return
        performance = Performance()
        performance.observe(b"".join(frame for _, frame in self.frames()), None, 0.0)
        held = [performance.total(key) for key in performance.held_notes]
        end = at if any(note is not None and note.sounding for note in held) else self._last
        for frame in release_all(performance):
            self._append(frame, end)

    def frames(self) -> Iterable[TimedFrame]:
        """Return the messages in the track with their seconds from the first."""
        return read_midi_file(self.content()).frames

    def content(self) -> bytes:
        """Return the whole file."""
        track = bytes(self.track) + _END_OF_TRACK
        return _HEADER + len(track).to_bytes(_LENGTH_BYTES, "big") + track

    def _write_early(self, at: float | None) -> None:
        """Write what was set already, at its own times or, with a time, right then."""
        early, self._early = self._early or [], None
        for then, frame in early:
            self._append(frame, then if at is None else at)

    def _append(self, frame: bytes, at: float) -> None:
        if not self.messages:
            self._begin = at
        ticks = max(round((at - self._begin) * _TICKS_PER_SECOND), self._ticks)
        delta = ticks - self._ticks
        while delta > _MAX_DELTA:
            self.track += _quantity(_MAX_DELTA) + _EMPTY_EVENT
            delta -= _MAX_DELTA
        event = frame if frame[0] != SYSEX else b"\xf0%b%b" % (_quantity(len(frame) - 1), frame[1:])
        self.track += _quantity(delta) + event
        self._ticks, self._last = ticks, at
        self.messages += 1


def _quantity(number: int) -> bytes:
    """Return a variable-length quantity."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


class TakeFile:
    """The file of a take, which plays up to the last write whatever happens after that.

    It is written under another name and renamed when it is whole, so nothing that goes wrong costs a file
    that was there before. Where it cannot be written any more, since its folder is gone or the disk is full,
    all of it goes to the nearest folder that takes it.

    Args:
        path: what it is to be called in the end.
        recorder: what is written.

    Attributes:
        part: where it is until then.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, recorder: Recorder) -> None:
        self.path = path.resolve()
        self.part = part_of(path)
        self._recorder = recorder
        # How much of the track is in the file.
        self._written = 0
        self._file = self._open(self.part)
        self._moved_for: OSError | None = None

    def write(self) -> OSError | None:
        """Write what is new.

        Returns:
            Why it goes to another place from now on, which `part` then tells; None where it does not.

        Raises:
            OSError: no place takes it. It is tried again the next time.
        """
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError(2, "No such file or directory")
            self._write_new()
        except OSError as error:
            self._move(error)
            return error
        return None

    def finish(self) -> OSError | None:
        """Write all, and give the file its name.

        Returns:
            Why it is called `part` still, maybe in another place; None where it has its name.

        Raises:
            OSError: no place takes it.
        """
        error = self.write()
        try:
            os.fsync(self._file.fileno())
            if error is None:
                if self.path.exists():
                    self.part.chmod(self.path.stat().st_mode & 0o7777)
                # Windows renames no file that is open.
                self._file.close()
                self.part.replace(self.path)
        except OSError as failed:
            # From another disk it cannot have its name: what counts is why it is there.
            error = self._moved_for or failed
            if not self._file.closed or not self.part.exists():
                self._move(error)
        finally:
            self._file.close()
        return error

    def _open(self, part: Path) -> BinaryIO:
        """Open a file and write all there is, or leave nothing."""
        file = part.open("w+b", buffering=0)
        written, self._written = self._written, 0
        try:
            _write_all(file, 0, _HEADER + bytes(_LENGTH_BYTES))
            self._write_new(file)
        except OSError:
            self._written = written
            file.close()
            part.unlink(missing_ok=True)
            raise
        return file

    def _write_new(self, file: BinaryIO | None = None) -> None:
        file = file or self._file
        new = bytes(self._recorder.track[self._written :])
        if not new:
            return
        begin = len(_HEADER) + _LENGTH_BYTES + self._written
        length = self._written + len(new) + len(_END_OF_TRACK)
        try:
            _write_all(file, begin, new + _END_OF_TRACK)
        except OSError:
            # There was room for that before.
            with suppress(OSError):
                _write_all(file, begin, _END_OF_TRACK)
            raise
        _write_all(file, len(_HEADER), length.to_bytes(_LENGTH_BYTES, "big"))
        self._written += len(new)

    def _move(self, error: OSError) -> None:
        """Go on in the nearest folder that takes it, with the error if none does."""
        for folder in (*self.path.parents[:-1], Path.cwd(), Path.home(), Path(gettempdir())):
            part = folder / self.part.name
            if part == self.part:
                continue
            try:
                file = self._open(part)
            except OSError:
                continue
            self._file.close()
            with suppress(OSError):
                self.part.unlink(missing_ok=True)
            self._file, self.part, self._moved_for = file, part, error
            return
        raise error


def part_of(path: Path) -> Path:
    """Return where a file is written until it is whole: next to it, or to what it is a link to."""
    whole = path.resolve()
    return whole.with_name(f"{whole.stem}.{os.getpid()}.part{whole.suffix}")


def _write_all(file: BinaryIO, position: int, content: bytes) -> None:
    file.seek(position)
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
