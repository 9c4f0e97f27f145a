"""The status bytes of MIDI 1.0 and how many data bytes each takes, in one place.

Source: MIDI 1.0 Detailed Specification 4.2.1, table I (page T-1: channel voice), tables V and VI
(pages T-6, T-7: system common and system real-time), pages 5 and 6 (status and data bytes).
"""

from __future__ import annotations

SYSEX = 0xF0
END_OF_SYSEX = 0xF7
TUNE_REQUEST = 0xF6

# From here on statuses are system messages, which have no running status (page A-2) ...
FIRST_SYSTEM = 0xF0
# ... and from here on single-byte real-time messages, which may stand inside any other (page 5).
FIRST_REAL_TIME = 0xF8

SYSTEM_RESET = 0xFF

UNDEFINED = frozenset({0xF4, 0xF5, 0xF9, 0xFD})

# Data bytes after each status byte; -1 where there is no fixed length: system exclusive, its end, and
# what is undefined.
DATA_LENGTHS: tuple[int, ...] = (
    *(-1 for _ in range(0x80)),  # data bytes are no statuses
    *(2 for _ in range(0x80, 0xC0)),  # note off, note on, polyphonic pressure, control change
    *(1 for _ in range(0xC0, 0xE0)),  # program change, channel pressure
    *(2 for _ in range(0xE0, 0xF0)),  # pitch bend
    -1,  # F0 system exclusive
    1,  # F1 MIDI time code quarter frame
    2,  # F2 song position pointer
    1,  # F3 song select
    -1,  # F4 undefined
    -1,  # F5 undefined
    0,  # F6 tune request
    -1,  # F7 end of system exclusive
    0,  # F8 timing clock
    -1,  # F9 undefined
    0,  # FA start
    0,  # FB continue
    0,  # FC stop
    -1,  # FD undefined
    0,  # FE active sensing
    0,  # FF system reset
)

# For re: one channel message of three bytes, one of two, and one whole message of any kind, where %d is how
# many data bytes a system exclusive message may have.
THREE_BYTE_MESSAGE = rb"[\x80-\xbf\xe0-\xef][\x00-\x7f][\x00-\x7f]"
TWO_BYTE_MESSAGE = rb"[\xc0-\xdf][\x00-\x7f]"
COMPLETE_MESSAGE = (
    THREE_BYTE_MESSAGE + rb"|" + TWO_BYTE_MESSAGE + rb"|[\xf8\xfa-\xfc\xfe\xff]"
    rb"|\xf0[\x00-\x7f]{0,%d}\xf7"
    rb"|[\xf1\xf3][\x00-\x7f]"
    rb"|\xf2[\x00-\x7f][\x00-\x7f]"
    rb"|\xf6"
)
