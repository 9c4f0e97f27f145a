"""What rtmidi does not say about JACK: which ports are there, whether the server runs, when it takes more.

rtmidi lists the ports of a JACK server that has died as if nothing had happened, and what it is given to send
goes to a ring buffer of 16 KiB, which it waits for when it is full: busily, holding up the whole interpreter,
and without end if the server is gone. So the server's cycles are watched here, by a client of its own through
the very library that rtmidi has loaded, and nobody sends more in a cycle than the ring has room for (RtMidi
5.0.0: RtMidi.cpp, MidiOutJack::sendMessage and jackProcessOut).

Rules:

- A server whose cycles have stopped is given up. A new client may only be opened when all old ones of this
  process have been closed: JACK's library frees them at that moment.
- Nothing here blocks, but to open and to close a client.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import threading
import time
from functools import lru_cache

from ..errors import DeviceError

# From jack/types.h: options of jack_client_open, and flags of ports.
_NO_START_SERVER = 0x01
_IS_INPUT, _IS_OUTPUT = 0x1, 0x2
_MIDI = b"8 bit raw midi"

# Seconds without a cycle after which a server counts as dead. The longest period there can be, of 8,192
# frames at 8 kHz, is one.
_DEAD_S = 1.2

# Bytes of rtmidi's ring to fill in one cycle, with the 4 that it adds to each message. So there is room even
# if the system was late to run rtmidi's client for three cycles, and JACK's own buffer of 32 KiB takes it.
_MAX_CYCLE = 4096

# Bytes. A message up to this goes in one event; what is longer than the ring, rtmidi would drop.
MAX_EVENT = 12288

# Seconds between two looks at the cycle: a fraction of the shortest period.
_LOOK_S = 0.0005

# Clients that are open in this process.
_open: set[JackServer] = set()
_lock = threading.Lock()


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """JACK's library, twice: for calls that let other threads go on, and for those too short for that."""
    path = _loaded() or ctypes.util.find_library("jack")
    if path is None:
        raise DeviceError("JACK's library is not installed")
    library, quick = ctypes.CDLL(path), ctypes.PyDLL(path)
    pointer, text, flags = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong
    library.jack_client_open.restype = pointer
    library.jack_client_open.argtypes = [text, ctypes.c_int, pointer]
    library.jack_activate.argtypes = library.jack_client_close.argtypes = [pointer]
    library.jack_get_ports.restype = ctypes.POINTER(text)
    library.jack_get_ports.argtypes = [pointer, text, text, flags]
    library.jack_free.argtypes = [pointer]
    library.jack_free.restype = None
    quick.jack_last_frame_time.argtypes = [pointer]
    quick.jack_last_frame_time.restype = ctypes.c_uint32
    # It would print several lines of its own for each thing that goes wrong. This is a function that does
    # nothing with what it is given, and in which no thread of JACK's can wait for the interpreter.
    library.jack_set_error_function(ctypes.pythonapi.Py_IsInitialized)
    return library, quick


def _loaded() -> str | None:
    """The library that rtmidi has loaded, which may be one that came with it."""
    if sys.platform != "linux":
        return None
    with open("/proc/self/maps") as maps:
        paths = [line.split(None, 5)[5].strip() for line in maps if "/libjack" in line]
    return paths[0] if paths else None


class JackServer:
    """A client of the JACK server that only looks.

    Raises:
        DeviceError: no server runs, or this process still has clients of one that has died.
    """

    def __init__(self) -> None:
        self._library, self._quick = _library()
        with _lock:
            if any(not server.runs for server in _open):
                raise DeviceError("the JACK server has stopped")
            self._client = self._library.jack_client_open(b"midinet", _NO_START_SERVER, None)
            if not self._client:
                raise DeviceError("no JACK server runs here: start jackd, or choose another system")
            self._stopped = False
            self._cycle = self.cycle
            self._seen_at = time.monotonic()
            _open.add(self)
        self._library.jack_activate(self._client)

    @property
    def cycle(self) -> int:
        """A number that changes with each cycle."""
        return int(self._quick.jack_last_frame_time(self._client))

    @property
    def runs(self) -> bool:
        """Whether the server runs, as far as is known: it takes a second to find out that it does not."""
        now = time.monotonic()
        if (cycle := self.cycle) != self._cycle:
            self._cycle, self._seen_at = cycle, now
        elif now - self._seen_at > _DEAD_S:
            # Of all of them at once, so that nobody opens a new one before all are closed.
            for server in tuple(_open):
                server._stopped = True
        return not self._stopped

    def inputs(self) -> list[str]:
        """The ports that one can hear."""
        return self._ports(_IS_OUTPUT)

    def outputs(self) -> list[str]:
        """The ports that one can play on."""
        return self._ports(_IS_INPUT)

    def _ports(self, flags: int) -> list[str]:
        found = self._library.jack_get_ports(self._client, None, _MIDI, flags)
        names: list[str] = []
        if found:
            while (name := found[len(names)]) is not None:
                names.append(name.decode(errors="replace"))
            self._library.jack_free(found)
        return names

    def close(self) -> None:
        """Close the client. Nothing else may be called then, and nobody may wait for its cycles any more."""
        with _lock:
            _open.discard(self)
            self._library.jack_client_close(self._client)


class Pace:
    """How much one output may be sent in each cycle of its server."""

    def __init__(self, server: JackServer) -> None:
        self._server = server
        self._cycle = server.cycle
        self._spent = 0

    def spend(self, size: int) -> bool:
        """Wait until so many bytes may be sent. Returns False when the server does not run any more."""
        size += 4
        if (cycle := self._server.cycle) != self._cycle:
            self._cycle, self._spent = cycle, 0
        if size > _MAX_CYCLE:
            # It needs the ring for itself, and what was sent just before may still be there.
            return self._wait() and self._wait(size)
        if self._spent + size > _MAX_CYCLE and not self._wait():
            return False
        self._spent += size
        return True

    def settle(self) -> None:
        """Wait until what was sent has been heard, and what was connected is: rtmidi's client has it in the
        next cycle, and who hears that client in the same one or in the one after."""
        for _ in range(3):
            self._wait()

    def _wait(self, spent: int = 0) -> bool:
        """Wait for another cycle."""
        while (cycle := self._server.cycle) == self._cycle:
            if not self._server.runs:
                return False
            time.sleep(_LOOK_S)
        self._cycle, self._spent = cycle, spent
        return True
