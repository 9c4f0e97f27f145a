"""What is sent: random MIDI messages, the same ones in every run.

One message sent over and over would be kind to any cache. Real music has 16 channels, 128 keys and 128
velocities, and so have these.
"""

from __future__ import annotations

from random import Random

CLOCK = 0xF8

# After this, nothing that was sent before is still under way. It is in none of the streams below.
MARKER = bytes((0xCF, 0x7F))

# Messages that the sender of `benchmarks.sync` sends at once when it is asked to.
BURST = 10_000

# Data bytes of each kind of channel message.
_LENGTHS = {0x80: 2, 0x90: 2, 0xA0: 2, 0xB0: 2, 0xC0: 1, 0xD0: 1, 0xE0: 2}

# Notes are most of what is played. Controllers from 120 on are commands to the whole channel.
_PLAYED = (0x80, 0x90, 0x80, 0x90, 0xA0, 0xB0, 0xB0, 0xE0)
_FIRST_MODE_CONTROLLER = 120


def channel_frames(count: int) -> list[bytes]:
    """Return channel messages of every kind, in equal parts."""
    random = Random(1)
    kinds = list(_LENGTHS)
    return [_frame(random, random.choice(kinds)) for _ in range(count)]


def played_frames(count: int) -> list[bytes]:
    """Return notes, pressures, controllers and pitch bends: 3 bytes each, so that bytes tell messages."""
    random = Random(2)
    return [_frame(random, random.choice(_PLAYED)) for _ in range(count)]


def instrument_stream(count: int) -> bytes:
    """Return so many messages as a keyboard with a sequencer sends them.

    Half of the channel messages are under running status, and every eighth message is a clock byte, which
    may stand inside another message.
    """
    random = Random(3)
    stream = bytearray()
    status = 0
    kinds = list(_LENGTHS)
    clocks = count // 8
    due = set(random.sample(range(count - clocks), clocks))
    for number in range(count - clocks):
        if status and random.random() < 0.5:
            piece = bytearray(_frame(random, status & 0xF0)[1:])
        else:
            piece = bytearray(_frame(random, random.choice(kinds)))
            status = piece[0]
        if number in due:
            piece.insert(random.randrange(len(piece) + 1), CLOCK)
        stream += piece
    return bytes(stream)


def _frame(random: Random, kind: int) -> bytes:
    top = _FIRST_MODE_CONTROLLER if kind == 0xB0 else 128
    data = [random.randrange(top), random.randrange(128)][: _LENGTHS[kind]]
    return bytes((kind | random.randrange(16), *data))
