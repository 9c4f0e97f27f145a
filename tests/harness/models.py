"""A MIDI parser written for being read, one byte at a time, to compare the real one with.

Source: MIDI 1.0 Detailed Specification 4.2.1, pages 5, 6 and A-1 to A-3.
"""

from __future__ import annotations

DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
SYSTEM_COMMON = {0xF1: 1, 0xF2: 2, 0xF3: 1}


class SlowParser:
    def __init__(self, max_sysex: int) -> None:
        self.max_sysex = max_sysex
        self.status: int | None = None
        self.wanted = 0
        self.data: list[int] = []
        self.started = False
        self.sysex: list[int] | None = None
        self.out: list[bytes] = []
        self.counts = dict.fromkeys(
            ("stray_data", "stray_ends", "undefined", "unfinished", "sysex_aborted", "sysex_too_long"), 0
        )

    def feed(self, data: bytes) -> list[bytes]:
        self.out = []
        for byte in data:
            if byte >= 0xF8:
                self.real_time(byte)
            elif byte >= 0x80:
                self.on_status(byte)
            else:
                self.on_data(byte)
        return self.out

    def real_time(self, byte: int) -> None:
        if byte in (0xF9, 0xFD):
            self.counts["undefined"] += 1
        else:
            self.out.append(bytes([byte]))

    def drop(self) -> None:
        if self.sysex is not None:
            if len(self.sysex) < self.max_sysex:
                self.counts["sysex_aborted"] += 1
        elif self.started:
            self.counts["unfinished"] += 1
        self.sysex = None
        self.started = False
        self.data = []

    def on_status(self, byte: int) -> None:
        if byte == 0xF7 and self.sysex is not None:
            if len(self.sysex) < self.max_sysex:
                self.out.append(bytes([*self.sysex, 0xF7]))
            self.sysex = None
            self.status = None
            return
        self.drop()
        self.status = None
        if byte < 0xF0:
            self.status, self.wanted, self.started = byte, DATA_BYTES[byte >> 4], True
        elif byte in SYSTEM_COMMON:
            self.status, self.wanted, self.started = byte, SYSTEM_COMMON[byte], True
        elif byte == 0xF6:
            self.out.append(b"\xf6")
        elif byte == 0xF0:
            self.sysex = [0xF0]
        elif byte == 0xF7:
            self.counts["stray_ends"] += 1
        else:
            self.counts["undefined"] += 1

    def on_data(self, byte: int) -> None:
        if self.sysex is not None:
            if len(self.sysex) < self.max_sysex:
                self.sysex.append(byte)
                if len(self.sysex) == self.max_sysex:
                    self.counts["sysex_too_long"] += 1
        elif self.status is None:
            self.counts["stray_data"] += 1
        else:
            self.started = True
            self.data.append(byte)
            if len(self.data) == self.wanted:
                self.out.append(bytes([self.status, *self.data]))
                self.data = []
                self.started = False
                if self.status >= 0xF0:
                    self.status = None
