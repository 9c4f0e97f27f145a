"""A screen for programs with windows: Xvfb, with a mouse to move and pixels to look at.

Speaks the X protocol itself, version 11 (X Window System Protocol, X Consortium Standard), and its extension
XTEST 2.2: what is needed of them is five requests, and no library has to be there.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from types import TracebackType
from typing import Self

from tests.harness.needs import need_program
from tests.harness.waiting import PATIENCE_S

# Requests and event types, by their numbers there (appendix B), and XTEST's one request.
_QUERY_EXTENSION, _GET_IMAGE = 98, 73
_FAKE_INPUT = 2
_BUTTON_PRESS, _BUTTON_RELEASE, _MOTION = 4, 5, 6
_Z_PIXMAP = 2
_LEFT_BUTTON = 1

Colour = tuple[int, int, int]


class Screen:
    """A display of its own, on a number that is free. Usable as `with Screen() as screen`.

    Skips the test where there is no Xvfb.

    Attributes:
        display: what a program's DISPLAY has to be.
    """

    def __init__(self, width: int = 640, height: int = 240) -> None:
        self._size = width, height
        self._program = need_program("Xvfb", "Debian: apt-get install xvfb")

    def __enter__(self) -> Self:
        width, height = self._size
        reading, writing = os.pipe()
        try:
            self._server = subprocess.Popen(
                [
                    *(self._program, "-displayfd", str(writing), "-nolisten", "tcp", "-noreset"),
                    *("-screen", "0", f"{width}x{height}x24"),
                ],
                pass_fds=[writing],
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(writing)
        with open(reading) as pipe:
            number = pipe.readline().strip()
        assert number, "Xvfb did not start"
        self.display = f":{number}"
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(PATIENCE_S)
            self._socket.connect(f"/tmp/.X11-unix/X{number}")
            self._shake_hands()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._server.terminate()
        self._server.wait()

    def _shake_hands(self) -> None:
        self._socket.sendall(struct.pack("<cxHHHHxx", b"l", 11, 0, 0, 0))
        accepted, length = struct.unpack("<B5xH", self._read(8))
        told = self._read(4 * length)
        assert accepted == 1, told
        vendor, formats = struct.unpack_from("<H", told, 16)[0], told[21]
        (self._root,) = struct.unpack_from("<I", told, 32 + -(-vendor // 4) * 4 + 8 * formats)
        name = b"XTEST"
        answer, _ = self._ask(struct.pack("<BxHHxx8s", _QUERY_EXTENSION, 4, len(name), name))
        present, self._xtest = answer[8], answer[9]
        assert present, "Xvfb has no XTEST"

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            assert more, "the display has gone"
            data += more
        return data

    def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Return the 32 bytes of an answer, and what is beyond them."""
        self._socket.sendall(request)
        answer = self._read(32)
        assert answer[0] == 1, f"the display refused: {answer!r}"
        return answer, self._read(4 * struct.unpack_from("<I", answer, 4)[0])

    def _fake(self, event: int, detail: int, x: int = 0, y: int = 0) -> None:
        event_data = struct.pack("<BBxxII8xhh8x", event, detail, 0, self._root, x, y)
        self._socket.sendall(struct.pack("<BBH", self._xtest, _FAKE_INPUT, 9) + event_data)

    def press(self, x: int, y: int) -> None:
        """Move the mouse, and press its left button."""
        self._fake(_MOTION, 0, x, y)
        self._fake(_BUTTON_PRESS, _LEFT_BUTTON)

    def release(self) -> None:
        """Let go of the mouse's left button."""
        self._fake(_BUTTON_RELEASE, _LEFT_BUTTON)

    def row(self, y: int) -> list[Colour]:
        """The colours of a line of pixels, from the left, each as red, green and blue."""
        width, _ = self._size
        _, data = self._ask(
            struct.pack("<BBHIhhHHI", _GET_IMAGE, _Z_PIXMAP, 5, self._root, 0, y, width, 1, 0xFFFFFFFF)
        )
        return [(data[at + 2], data[at + 1], data[at]) for at in range(0, 4 * width, 4)]
