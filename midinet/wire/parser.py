"""Bytes in, frames or Messages out.

The rules (MIDI 1.0 Detailed Specification 4.2.1, pages 5, 6 and A-1 to A-3):

- System real-time (F8 to FF) may stand anywhere. It comes out at once, before the message that it
  interrupts, and disturbs nothing. F9 and FD are undefined: ignored, disturbing nothing.
- A channel status starts a message and sets running status. Any later status byte ends what was unfinished.
- F0 to F7 clear running status. F4 and F5 are undefined and ignored with their data.
- A system exclusive message ends with F7. Any other status but real-time aborts it: it is dropped.
- Data bytes with no status in force are ignored, and so is an F7 outside a system exclusive message: that is
  where asides stand (see aside.py), for whoever asks for them.
- A fixed-length message is complete at its last data byte.

How it is fast: nearly everything that arrives is whole messages. Whether a chunk is channel messages of
three bytes, its columns tell; whatever else consists of whole messages, one compiled `re` splits. Where a
chunk is anything else (a message cut in two, running status, a clock byte inside a message, garbage) it is
read again a piece at a time, a piece being one whole message, one lone status byte or one run of data bytes.

Nothing that a peer sends raises here, every drop is counted, and however the bytes are cut into chunks
the result is the same.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from mido import Message

from .aside import Aside, AsideReader, AsideStats
from .codec import decode, decode_channel_messages
from .columns import three_byte_columns
from .spec import (
    COMPLETE_MESSAGE,
    DATA_LENGTHS,
    END_OF_SYSEX,
    FIRST_REAL_TIME,
    FIRST_SYSTEM,
    SYSEX,
    THREE_BYTE_MESSAGE,
    TWO_BYTE_MESSAGE,
    UNDEFINED,
)

# Bytes of one system exclusive message with F0 and F7. Sample dumps come in packets of 128 bytes and the
# patch banks of common synthesizers in 4 to 32 KiB, so 64 KiB passes all of them and bounds the memory.
DEFAULT_MAX_SYSEX = 65536

# In bytes that are whole messages.
_WHOLE_MESSAGE = re.compile(rb"[\x80-\xff][\x00-\x7f]*\xf7?")

_DATA_BYTES = bytes(range(128))

# Three-byte messages, so many at a time: half of what `re` takes for each.
_BLOCK = struct.Struct("3s" * 32)

_CHANNEL_MESSAGES = re.compile(rb"(?:%b|%b)++" % (THREE_BYTE_MESSAGE, TWO_BYTE_MESSAGE))


@functools.lru_cache(16)
def _patterns(max_sysex: int) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    # re counts no further than 32 bits; longer messages are then put together from pieces.
    complete = COMPLETE_MESSAGE % min(max_sysex - 2, 1 << 30)
    return re.compile(complete), re.compile(complete + rb"|[\x80-\xff]|[\x00-\x7f]+")


@dataclass(slots=True, kw_only=True)
class DropStats(AsideStats):
    """What was in a stream and in no message."""

    undefined: int = 0
    """Undefined status bytes (F4, F5, F9, FD) ignored."""
    unfinished: int = 0
    """Fixed-length messages dropped because a status byte or the end of the stream came too early."""
    sysex_aborted: int = 0
    """System exclusive messages dropped for the same reason."""
    sysex_too_long: int = 0
    """System exclusive messages dropped because they were longer than `max_sysex`."""


@dataclass(slots=True, kw_only=True)
class ParserStats(DropStats):
    """What a parser has read and what it dropped, since it was made."""

    bytes: int = 0
    """Bytes taken in."""
    messages: int = 0
    """Whole messages that came out."""


class Parser:
    """A MIDI byte stream parser.

    Args:
        max_sysex: the longest system exclusive message to pass on, in bytes with its F0 and F7.
            A longer one is dropped whole and counted.
        asides: read the asides between messages, for `take_asides`. Otherwise they are stray data, as for
            any MIDI parser.

    Raises:
        ValueError: `max_sysex` is below 2, the length of the empty system exclusive message.
    """

    def __init__(self, *, max_sysex: int = DEFAULT_MAX_SYSEX, asides: bool = False) -> None:
        if max_sysex < 2:
            raise ValueError("max_sysex must be at least 2 bytes, F0 and F7")
        self.max_sysex = max_sysex
        self.stats = ParserStats()
        self._complete, self._pieces = _patterns(max_sysex)
        # The status that data bytes belong to: running status, or a system common message under way.
        self._status = 0
        # An unfinished fixed-length message, its status byte first.
        self._held = b""
        # An unfinished system exclusive message; empty while one that is too long streams by.
        self._sysex: bytearray | None = None
        self._aside_reader = AsideReader(self.stats) if asides else None
        # The same reader while an aside is under way. There is no status in force then.
        self._aside: AsideReader | None = None
        # The asides that the last bytes completed, each with how many frames came before it.
        self._asides: list[tuple[int, Aside]] = []

    def feed(self, data: bytes | bytearray | memoryview | Iterable[int]) -> list[Message]:
        """Take in bytes and return the Messages they complete, in order.

        Args:
            data: bytes-like, or an iterable of integers from 0 to 255.
        """
        data = self._take_in(data)
        messages: list[Message] = []
        if self._sysex is None and self._aside is None:
            # Channel messages at the beginning, which is nearly always all there is, need no frames.
            match = _CHANNEL_MESSAGES.match(data)
            if end := match.end() if match else 0:
                messages = decode_channel_messages(data[:end])
                # The last status is the last byte but one or two.
                self._status = data[end - 2] if data[end - 2] & 0x80 else data[end - 3]
                self.stats.messages += len(messages)
                data = data[end:]
        frames = self._split(data)
        if self._asides:
            self._asides = [(len(messages) + position, aside) for position, aside in self._asides]
        messages += [decode(frame) for frame in frames]
        return messages

    def frames(self, data: bytes | bytearray | memoryview | Iterable[int]) -> list[bytes]:
        """Take in bytes and return the frames they complete: each one whole message with its status byte.

        Args:
            data: bytes-like, or an iterable of integers from 0 to 255.
        """
        return self._split(self._take_in(data))

    def joined(self, data: bytes) -> tuple[bytes, int]:
        """Take in bytes and return the messages they complete, joined, and how many they are.

        Nearly always these are the very bytes that came in, so this is the fastest way to read a stream for
        whoever passes it on. `split_messages` makes frames of them.
        """
        data = self._take_in(data)
        whole = len(data) - len(data) % 3
        if self._sysex is not None or self._aside is not None or three_byte_columns(data[:whole]) is None:
            frames = self._split(data)
            return b"".join(frames), len(frames)
        if whole:
            self._status = data[whole - 3]
        messages = whole // 3
        self.stats.messages += messages
        if whole < len(data):
            frames = []
            self._read_pieces(data[whole:], frames)
            self.stats.messages += len(frames)
            return data[:whole] + b"".join(frames), messages + len(frames)
        return data, messages

    def take_asides(self) -> list[tuple[int, Aside]]:
        """Return the asides that the last bytes taken in completed, in order, and forget them.

        Each comes with how many of the messages that this call returned came before it. The next call
        forgets what was not taken.
        """
        asides, self._asides = self._asides, []
        return asides

    @property
    def in_sysex(self) -> bool:
        """Whether a system exclusive message is under way, even one that is too long already."""
        return self._sysex is not None

    def abort_sysex(self) -> None:
        """Drop the system exclusive message that is under way, if there is one, and count it as aborted.

        What still comes of it is ignored as stray data. This is for whoever has a clock and waits no longer.
        """
        if self._sysex is not None:
            self._drop_unfinished()

    def _take_in(self, data: bytes | bytearray | memoryview | Iterable[int]) -> bytes:
        if not isinstance(data, bytes):
            if isinstance(data, int):
                raise TypeError("bytes are expected, not an int")
            data = bytes(data)
        self.stats.bytes += len(data)
        if self._asides:
            self._asides = []
        if self._held:
            data = self._held + data
            self._held = b""
        return data

    def _split(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        if self._sysex is None and self._aside is None:
            frames = self._complete.findall(data)
            covered = b"".join(frames)
            # findall() skips what does not match. What it found is a prefix of the data only if it
            # skipped nothing before the end of that prefix: at the first skipped byte the prefix would
            # go on with the next match, and then that would have matched there already.
            if data.startswith(covered):
                self._status = _running_status(frames, self._status)
                data = data[len(covered) :]
            else:
                frames = []
        if data:
            self._read_pieces(data, frames)
        self.stats.messages += len(frames)
        return frames

    def end(self) -> None:
        """Take note of the end of the stream: what is unfinished is dropped and counted."""
        self._drop_unfinished()
        self._status = 0

    def _read_pieces(self, data: bytes, frames: list[bytes]) -> None:
        for piece in self._pieces.findall(data):
            first = piece[0]
            if first < 0x80:
                self._take_data(piece, frames)
            elif first >= FIRST_REAL_TIME:
                if first in UNDEFINED:
                    self.stats.undefined += 1
                else:
                    frames.append(piece)
            elif len(piece) == 1:
                self._take_status(first, frames)
            else:
                if self._held or self._sysex is not None or self._aside is not None:
                    self._drop_unfinished()
                self._status = first if first < FIRST_SYSTEM else 0
                frames.append(piece)

    def _take_status(self, status: int, frames: list[bytes]) -> None:
        if status == END_OF_SYSEX:
            self._end_sysex(frames)
            return
        self._drop_unfinished()
        length = DATA_LENGTHS[status]
        if length > 0:
            self._status = status
            self._held = bytes((status,))
            return
        self._status = 0
        if length == 0:
            frames.append(bytes((status,)))
        elif status == SYSEX:
            self._sysex = bytearray((SYSEX,))
        else:
            self.stats.undefined += 1

    def _take_data(self, data: bytes, frames: list[bytes]) -> None:
        if self._sysex is not None:
            self._extend_sysex(self._sysex, data)
            return
        status = self._status
        if not status:
            self._take_stray_data(data, frames)
            return
        head = bytes((status,))
        length = DATA_LENGTHS[status]
        # What is held begins with the status byte; a message under running status holds nothing.
        data = self._held[1:] + data
        if status >= FIRST_SYSTEM:
            # System common has no running status: one message, and the rest has no status in force.
            if len(data) >= length:
                frames.append(head + data[:length])
                self.stats.stray_data += len(data) - length
                self._status = 0
                self._held = b""
                return
            whole = 0
        else:
            whole = len(data) - len(data) % length
            frames += [head + data[i : i + length] for i in range(0, whole, length)]
        rest = data[whole:]
        self._held = head + rest if rest else b""

    def _take_stray_data(self, data: bytes, frames: list[bytes]) -> None:
        if self._aside is None:
            self.stats.stray_data += len(data)
            return
        if aside := self._aside.feed(data):
            self._asides.append((len(frames), aside))
        if not self._aside.active:
            self._aside = None

    def _extend_sysex(self, sysex: bytearray, data: bytes) -> None:
        if not sysex:
            return
        # One more byte has to fit: the F7.
        if len(sysex) + len(data) < self.max_sysex:
            sysex += data
        else:
            sysex.clear()
            self.stats.sysex_too_long += 1

    def _end_sysex(self, frames: list[bytes]) -> None:
        if self._sysex is None:
            self._drop_unfinished()
            self._begin_aside()
        elif self._sysex:
            self._sysex.append(END_OF_SYSEX)
            frames.append(bytes(self._sysex))
        self._sysex = None
        self._status = 0

    def _begin_aside(self) -> None:
        self._aside = self._aside_reader
        if self._aside is None:
            self.stats.stray_ends += 1
        else:
            self._aside.begin()

    def _drop_unfinished(self) -> None:
        if self._sysex:
            self.stats.sysex_aborted += 1
        elif self._held:
            self.stats.unfinished += 1
        elif self._aside is not None:
            self._aside.abort()
            self._aside = None
        self._sysex = None
        self._held = b""


def count_messages(data: bytes) -> int:
    """Return how many whole messages these bytes are."""
    # Each has one status byte, and a system exclusive message another one at its end.
    return len(data.translate(None, _DATA_BYTES)) - data.count(END_OF_SYSEX)


def split_messages(data: bytes) -> list[bytes]:
    """Return the frames of bytes that are whole messages with their statuses."""
    if three_byte_columns(data) is None:
        return _WHOLE_MESSAGE.findall(data)
    blocks = len(data) - len(data) % _BLOCK.size
    frames = list(chain.from_iterable(_BLOCK.iter_unpack(data[:blocks])))
    return frames + _WHOLE_MESSAGE.findall(data[blocks:])


def _running_status(frames: list[bytes], status: int) -> int:
    """The running status after these frames: real-time leaves it, system messages clear it."""
    for frame in reversed(frames):
        if frame[0] < FIRST_SYSTEM:
            return frame[0]
        if frame[0] < FIRST_REAL_TIME:
            return 0
    return status
