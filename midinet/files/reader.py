"""Standard MIDI Files to a time line. Reads what other players play.

Read by Standard MIDI Files 1.0 (RP-001):

- A chunk is four letters, a length and as many bytes. Chunks of other kinds than MThd and MTrk are skipped.
- A variable-length quantity has seven bits a byte and at most four bytes.
- Running status goes on across meta events. It ends with a system exclusive event, but nearly all players let
  it go on there too, and so does this, in files alone.
- `F0` begins a system exclusive message. Where its bytes do not end with F7, `F7` events go on with it; it is
  sent as one, at the time of the last of them. Any other `F7` event is an escape: its bytes are sent as they
  are.
- The tracks of types 0 and 1 begin together; those of type 2 follow each other, each with a tempo of its own.
- An end-of-track event ends its track, whatever the chunk's length says.

Some wrap such a file: RIFF (RP-029, .rmi), MacBinary, by a header of 128 bytes, and gzip (RFC 1952).

Damaged files are read as far as that makes sense, and what was wrong is said once for each kind. No input
raises anything but NotAMidiFile.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from operator import itemgetter

from ..wire.parser import Parser
from ..wire.spec import DATA_LENGTHS, END_OF_SYSEX, SYSEX
from .timeline import DEFAULT_TEMPO, TimeLine, time_line

_META = 0xFF
_ACTIVE_SENSING = b"\xfe"

# Types of meta events (RP-001, pages 8 to 10). No player needs the others.
_END_OF_TRACK, _SET_TEMPO, _TIME_SIGNATURE = 0x2F, 0x51, 0x58

# Ticks to a beat of a file that says 0: those of the standard's own examples.
_SPARE_DIVISION = 96

_SMPTE_RATES = (24, 25, 29, 30)

# 4 bytes of 7 bits (RP-001, page 2).
_MAX_QUANTITY = (1 << 28) - 1

# A denominator is a power of 2. What is beyond a 256th note is no note.
_MAX_EXPONENT = 8

# The size of the header, and where in it the length of the data fork stands.
_MACBINARY_HEADER = 128
_MACBINARY_LENGTH = slice(83, 87)

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# Far beyond any MIDI file: a few bytes may hold zeros without end.
_MAX_UNPACKED = 1 << 28

# Bytes of an MThd chunk.
_MIN_SIZE = 14

_CHUNK_TYPE = re.compile(rb"[ -~]{4}")
_CLIP = bytes(min(value, 0x7F) for value in range(256))
_TYPE_2 = 2


class NotAMidiFile(ValueError):
    """The bytes are no MIDI file, or nothing in them can be played. The text says why."""


class _TrackBroken(Exception):
    """A track breaks off: an event is longer than what is left of it."""


def read_midi_file(data: bytes) -> TimeLine:
    """Return the time line of a MIDI file.

    Args:
        data: the content of the file.

    Raises:
        NotAMidiFile: it has no MIDI file's header, or no track.
    """
    damage: Counter[str] = Counter()
    data = _unwrap(data, damage)
    length = int.from_bytes(data[4:8], "big")
    header = data[8 : 8 + length]
    if len(data) < _MIN_SIZE and len(header) < length:
        raise NotAMidiFile("it ends within its header")
    kind, count, division = _read_header(header, damage)
    tracks = _read_tracks(data, 8 + length, damage)
    if not tracks:
        raise NotAMidiFile("it has no tracks")
    if count != len(tracks):
        damage[f"its header says {_number(count, 'track')}, and it has {len(tracks)}"] += 1
    if kind > _TYPE_2 or (kind == 0 and len(tracks) > 1):
        damage[f"it has {_number(len(tracks), 'track')} and says type {kind}; read as type 1"] += 1
    if kind == _TYPE_2:
        _put_in_a_row(tracks)
    frames = [event for track in tracks for event in track.frames]
    frames.sort(key=itemgetter(0))
    return time_line(
        division,
        frames,
        tempos=sorted([mark for track in tracks for mark in track.tempos], key=itemgetter(0)),
        signatures=sorted([mark for track in tracks for mark in track.signatures], key=itemgetter(0)),
        end=max(track.end for track in tracks),
        damage=[text if times == 1 else f"{text} ({times} times)" for text, times in damage.items()],
    )


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _unwrap(data: bytes, damage: Counter[str]) -> bytes:
    """Return the file from its MThd on."""
    if data.startswith(_GZIP):
        try:
            data = zlib.decompressobj(_GZIP_WINDOW).decompress(data, _MAX_UNPACKED)
        except zlib.error:
            raise NotAMidiFile("it is compressed, and cannot be unpacked") from None
    if data.startswith(b"MThd"):
        return data
    start = data.find(b"MThd")
    if start < 0:
        if not data:
            raise NotAMidiFile("it is empty")
        raise NotAMidiFile("it has no MThd, by which a MIDI file begins")
    is_riff = data.startswith(b"RIFF") and data[8:12] == b"RMID"
    if is_riff:
        # The pieces beside it may follow: a size stands before the MThd.
        size = int.from_bytes(data[start - 4 : start], "little")
        return data[start : start + size] if size > _MIN_SIZE else data[start:]
    if start == _MACBINARY_HEADER and data[0] == 0:
        # What follows, the file's resource fork, is no part of it.
        size = int.from_bytes(data[_MACBINARY_LENGTH], "big")
        return data[start : start + size] if size > _MIN_SIZE else data[start:]
    damage[f"{_number(start, 'byte')} before its header skipped"] += 1
    return data[start:]


def _read_header(header: bytes, damage: Counter[str]) -> tuple[int, int, int]:
    """Return type, count of tracks and division, of which no part is 0."""
    if len(header) < 6:
        damage["its header is too short"] += 1
        header += bytes(6 - len(header))
    kind, count = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:4], "big")
    division = int.from_bytes(header[4:6], "big", signed=True)
    if division == 0 or (division < 0 and not division & 0xFF):
        damage[f"its division is 0; read as {_SPARE_DIVISION} ticks to a beat"] += 1
        division = _SPARE_DIVISION
    elif division < 0 and -(division >> 8) not in _SMPTE_RATES:
        damage[f"it counts {-(division >> 8)} frames a second, which SMPTE does not know"] += 1
    return kind, count, division


def _read_tracks(data: bytes, position: int, damage: Counter[str]) -> list[_Track]:
    """Return the tracks of the chunks that begin at a position."""
    tracks: list[_Track] = []
    while position < len(data):
        if data.startswith(b"MThd", position):
            damage["a second file behind its end skipped"] += 1
            break
        start = position + 8
        end = start + int.from_bytes(data[position + 4 : start], "big")
        is_track = data.startswith(b"MTrk", position)
        if not is_track and (end > len(data) or not _CHUNK_TYPE.match(data, position)):
            following = data.find(b"MTrk", position + 1)
            # Files are often padded at their end.
            if following >= 0 or data[position:].strip(b"\0\x1a\r\n"):
                damage["bytes between or behind its tracks skipped"] += 1
            if following < 0:
                break
            position = following
        elif not is_track:
            position = end
        else:
            track = _Track(data, start, _end_of_track(data, start, end), damage)
            tracks.append(track)
            position = track.read(end, len(tracks))
    return tracks


def _end_of_track(data: bytes, start: int, end: int) -> int:
    """Return where a track ends at most: by its length where that can be, or at the next track."""
    if end == len(data) or (end < len(data) and _CHUNK_TYPE.match(data, end)):
        return end
    following = data.find(b"MTrk", start)
    return following if following >= 0 else len(data)


def _put_in_a_row(tracks: list[_Track]) -> None:
    offset = 0
    for track in tracks:
        track.move(offset)
        offset = track.end


class _Track:
    """One track, while it is read.

    Attributes:
        frames: whole MIDI messages with their ticks.
        tempos, signatures: as `time_line` takes them.
        end: the tick at which it ends.
    """

    def __init__(self, data: bytes, start: int, limit: int, damage: Counter[str]) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.tempos: list[tuple[int, int]] = []
        self.signatures: list[tuple[int, int, int]] = []
        self.end = 0
        self._data, self._limit, self._position = data, limit, start
        self._damage = damage
        # A system exclusive message whose end has not come, and the tick of what came of it last.
        self._sysex: bytearray | None = None
        self._sysex_tick = 0
        # An escape may hold a part of a message.
        self._escape = Parser(max_sysex=max(limit - start, 2))

    def read(self, declared_end: int, number: int) -> int:
        """Read all events, and return where the next chunk begins.

        Args:
            declared_end: where the track ends by the length that stands before it.
            number: of the track, for what is said of its damage.
        """
        try:
            is_ended = self._read_events()
        except _TrackBroken as error:
            self._damage[f"track {number} breaks off: {error}"] += 1
            self._end_sysex()
            return self._limit
        self._end_sysex()
        if not is_ended:
            self._damage["a track has no end"] += 1
            return self._limit
        stop = self._position
        if stop == declared_end:
            return stop
        following = self._data.find(b"MTrk", stop, self._limit)
        if self._limit != declared_end or following >= 0:
            self._damage["a track's length is wrong"] += 1
            return stop if following < 0 else following
        self._damage["bytes behind the end of a track skipped"] += 1
        return declared_end

    def move(self, ticks: int) -> None:
        """Have the track begin later, with a tempo and bars of its own."""
        self.frames = [(tick + ticks, frame) for tick, frame in self.frames]
        self.tempos = [(ticks, DEFAULT_TEMPO), *((tick + ticks, tempo) for tick, tempo in self.tempos)]
        self.signatures = [(tick + ticks, above, below) for tick, above, below in self.signatures]
        self.end += ticks

    def _read_events(self) -> bool:
        """Read up to the end-of-track event, and return whether there is one."""
        data, limit, frames = self._data, self._limit, self.frames
        lengths = DATA_LENGTHS
        position, tick, running = self._position, 0, 0
        after_sysex = False
        while position < limit:
            delta = data[position]
            position += 1
            if delta & 0x80:
                self._position = position - 1
                delta = self._quantity()
                position = self._position
            tick += delta
            self.end = tick
            if position >= limit:
                # A time without an event.
                return False
            status = data[position]
            if status < 0x80:
                if not running:
                    self._damage["data without a status skipped"] += 1
                    position += 1
                    continue
                if after_sysex:
                    self._damage["running status goes on after system exclusive"] += 1
                    after_sysex = False
                status = running
            else:
                position += 1
                if status < SYSEX:
                    running, after_sysex = status, False
            if status < SYSEX:
                if self._sysex is not None:
                    self._end_sysex()
                end = position + lengths[status]
                if end > limit:
                    raise _TrackBroken("its last message is not all there")
                values = data[position:end]
                if not values.isascii():
                    self._damage["values above 127 read as 127"] += 1
                    values = values.translate(_CLIP)
                frames.append((tick, b"%c%b" % (status, values)))
                position = end
                continue
            self._position = position
            if status == _META:
                if self._read_meta(tick):
                    return True
            else:
                after_sysex = status in (SYSEX, END_OF_SYSEX) and bool(running)
                self._read_system(status, tick)
            position = self._position
        self._position = position
        return False

    def _quantity(self) -> int:
        """Read a variable-length quantity. Of one that is too long, the last 28 bits count."""
        start, value = self._position, 0
        while True:
            if self._position >= self._limit:
                raise _TrackBroken("it ends within a number")
            byte = self._data[self._position]
            self._position += 1
            value = (value << 7 | byte & 0x7F) & _MAX_QUANTITY
            if byte < 0x80:
                break
        if self._position - start > 4:
            self._damage["a time or length of more than four bytes"] += 1
        return value

    def _take(self) -> bytes:
        """Read a length and as many bytes."""
        length = self._quantity()
        end = self._position + length
        if end > self._limit:
            raise _TrackBroken(f"an event of {length} bytes is longer than it")
        content = self._data[self._position : end]
        self._position = end
        return content

    def _read_meta(self, tick: int) -> bool:
        """Read a meta event, and return whether it ends the track."""
        if self._position >= self._limit:
            raise _TrackBroken("it ends within a meta event")
        kind = self._data[self._position]
        self._position += 1
        if kind == _END_OF_TRACK and self._position == self._limit:
            # Its length, which is 0, is cut off.
            return True
        content = self._take()
        if kind == _SET_TEMPO:
            if len(content) < 3 or not any(content[:3]):
                self._damage["a tempo that is none skipped"] += 1
            else:
                self.tempos.append((tick, int.from_bytes(content[:3], "big")))
        elif kind == _TIME_SIGNATURE:
            if len(content) < 2 or not content[0] or content[1] > _MAX_EXPONENT:
                self._damage["a time signature that is none skipped"] += 1
            else:
                self.signatures.append((tick, content[0], content[1]))
        return kind == _END_OF_TRACK

    def _read_system(self, status: int, tick: int) -> None:
        if status == SYSEX:
            self._end_sysex()
            content = self._take()
            self._sysex = bytearray()
            self._extend_sysex(content, tick)
        elif status == END_OF_SYSEX:
            content = self._take()
            if self._sysex is not None:
                self._extend_sysex(content, tick)
            else:
                self._escape_bytes(content, tick)
        else:
            # Not allowed in a file but in an escape, and read by others all the same.
            self._damage["system messages outside of an escape"] += 1
            length = max(DATA_LENGTHS[status], 0)
            if self._position + length > self._limit:
                raise _TrackBroken("its last message is not all there")
            values = self._data[self._position : self._position + length]
            self._position += length
            self._escape_bytes(bytes((status,)) + values.translate(_CLIP), tick)

    def _extend_sysex(self, content: bytes, tick: int) -> None:
        assert self._sysex is not None
        self._sysex += content
        self._sysex_tick = tick
        if content.endswith(b"\xf7"):
            self._end_sysex()

    def _end_sysex(self) -> None:
        """Send the system exclusive message that was begun, if there is one."""
        if self._sysex is None:
            return
        content, self._sysex = bytes(self._sysex), None
        if not content:
            return
        if not content.endswith(b"\xf7"):
            self._damage["a system exclusive message has no end; sent with one"] += 1
            content += b"\xf7"
        body = content[:-1]
        if body.isascii():
            self.frames.append((self._sysex_tick, b"\xf0%b\xf7" % body))
            return
        # Several in one event, or values out of their range.
        self._damage["a system exclusive message with other bytes than data"] += 1
        for part in body.split(b"\xf7"):
            if part := part.removeprefix(b"\xf0"):
                self.frames.append((self._sysex_tick, b"\xf0%b\xf7" % part.translate(_CLIP)))

    def _escape_bytes(self, content: bytes, tick: int) -> None:
        for frame in self._escape.frames(content):
            # It promises another one within 0.3 s, which no file keeps.
            if frame == _ACTIVE_SENSING:
                self._damage["active sensing left out"] += 1
            else:
                self.frames.append((tick, frame))
