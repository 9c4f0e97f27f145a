"""Devices on the side of their drivers: the MIDI systems of this machine, their ports, and what is open.

Rules:

- Everything that talks to a driver may take long, so all of it but `Input.take` and `Output.write` belongs in
  a thread of its own.
- What a driver's thread calls takes no lock, waits for nothing and raises nothing: it appends to a deque, and
  calls the loop if no call is under way.
- A driver is only ever sent whole messages with their statuses.

python-rtmidi 1.5.8 keeps hold of the interpreter in every call, and needs it in every callback:

- A driver that waits holds up the program. JACK's is never sent more than it takes (jack.py). WinMM's waits
  for each system exclusive message to be sent, twenty seconds for 64 KiB over a cable of 3,125 bytes/s.
  ALSA's never waits.
- Opening or closing a client of JACK waits until the server has run a cycle with it, and a cycle waits for
  the callbacks of every client. A message that came meanwhile would hold up both until JACK gives up: for a
  second, and for ten where the server is synchronous. So JACK's inputs have no callbacks. rtmidi's own thread
  puts what comes into a queue, for which it needs no interpreter, and a thread here takes it out.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import importlib
import itertools
import logging
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

from ..errors import DeviceError, MissingExtra
from ..hub.outbox import LATE_NOTE_S
from ..wire.parser import split_messages
from .jack import MAX_EVENT, JackServer, Pace

logger = logging.getLogger("midinet.devices")

T = TypeVar("T")

# What this calls the systems, and what rtmidi does.
_NAMES = {"alsa": "LINUX_ALSA", "jack": "UNIX_JACK", "coremidi": "MACOSX_CORE", "winmm": "WINDOWS_MM"}
_SEQUENCER = "/dev/snd/seq"

# The name of every client here, by which its ports are known: ALSA has "midinet:Stage 128:0", and JACK
# "midinet-01:Stage" for the second client of one name.
CLIENT = "midinet"
_OWN_PORT = re.compile(rf"{CLIENT}(-\d+)?:")
# CoreMIDI says only what a virtual port is called. By name, how often this process has it open.
_own_virtual: Counter[str] = Counter()

# Bytes that may wait to be taken from an input, each message counted with what Python adds to it: 16,000
# notes, far more than anybody plays while a program is busy elsewhere.
_MAX_GATHERED = 1 << 20
_OVERHEAD = 64

# Bytes handed over to an output's thread at once, before the rest waits in the outbox, which knows what to do
# with what comes late: a third of a second of a MIDI cable, of 3,125 bytes/s.
MAX_HANDED = 1024

# Seconds between two looks into the queues of JACK's inputs: a fraction of a usual period, of 5 ms.
_POLL_S = 0.0005

# Messages that such a queue has room for: nobody looks into it while something else has hold of the
# interpreter.
_QUEUED = 16384

# Seconds. Calls that a driver's thread had begun have been made by then.
_QUIET_S = 0.02

# Seconds that closing waits for an output's thread.
_JOIN_S = 2.0

# Bytes: no more may go into an event that is not the first of a system exclusive message (python-rtmidi).
_REST = 3

# Seconds that a thread without work takes to end, many times over.
_END_S = 0.2

# How often ports that come and go may spoil a listing of them.
_LISTINGS = 5


_Call: TypeAlias = tuple[concurrent.futures.Future[Any], Callable[[], Any]]


class Worker:
    """A thread that talks to drivers, one call after another. One that never returns holds up nobody: the
    thread ends with the program."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="midinet devices", daemon=True)
        self._thread.start()

    async def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Have the thread call a function, and return what it returns.

        Cancelling is not safe: what the function opens would stay open.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._queue.put((future, partial(function, *args, **options)))
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End the thread, if it has nothing to do."""
        self._queue.put(None)
        self._thread.join(_END_S)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            # They may hold the last reference to something that only they can let go of.
            del item, future, call


class _Probe(Protocol):
    """What lists the ports of a system."""

    @property
    def runs(self) -> bool: ...
    def inputs(self) -> list[str]: ...
    def outputs(self) -> list[str]: ...
    def close(self) -> None: ...


class _RtProbe:
    """Lists ports by rtmidi."""

    runs = True

    def __init__(self, rtmidi: Any, api: Any) -> None:
        self._midi_in = rtmidi.MidiIn(api, name=CLIENT)
        try:
            self._midi_out = rtmidi.MidiOut(api, name=CLIENT)
        except BaseException:
            self._midi_in.delete()
            raise

    def inputs(self) -> list[str]:
        return _names(self._midi_in)

    def outputs(self) -> list[str]:
        return _names(self._midi_out)

    def close(self) -> None:
        self._midi_in.delete()
        self._midi_out.delete()


def _names(midi: Any) -> list[str]:
    for _ in range(_LISTINGS):
        try:
            return [name or "" for name in midi.get_ports()]
        except OSError as error:
            failure = error  # One vanished after they were counted.
    raise DeviceError(f"the ports cannot be listed: {failure}")


class System:
    """A MIDI system of this machine.

    Args:
        rtmidi: python-rtmidi's module.
        name: as in `_NAMES`.

    Raises:
        DeviceError: it is not compiled in, or does not run.
    """

    def __init__(self, rtmidi: Any, name: str) -> None:
        self._rtmidi = rtmidi
        self.name = name
        self._api: Any = getattr(rtmidi, f"API_{_NAMES[name]}", None)
        if self._api not in rtmidi.get_compiled_api():
            raise DeviceError(
                f"{name} is not compiled into this python-rtmidi, which has {_listed(_compiled(rtmidi))}"
            )
        if name == "alsa" and not os.access(_SEQUENCER, os.R_OK | os.W_OK):
            # ALSA's library would print a line of its own.
            raise DeviceError(f"alsa does not run here: {_SEQUENCER} is missing or may not be opened")
        try:
            self._probe: _Probe = JackServer() if name == "jack" else _RtProbe(rtmidi, self._api)
            self._poller = Poller() if name == "jack" else None
        except DeviceError:
            raise
        except OSError as error:
            raise DeviceError(f"{name} does not run here: {error}") from error

    @property
    def runs(self) -> bool:
        """Whether it still runs."""
        return self._probe.runs

    def inputs(self) -> list[str]:
        """The names of the ports that one can hear, but for those that midinet has opened itself."""
        return [name for name in self._probe.inputs() if not self._is_own(name)]

    def outputs(self) -> list[str]:
        """The names of the ports that one can play on, but for those that midinet has opened itself."""
        return [name for name in self._probe.outputs() if not self._is_own(name)]

    def _is_own(self, name: str) -> bool:
        if self.name == "coremidi" and _own_virtual[name]:
            return True
        return not name or _OWN_PORT.match(name) is not None

    def open_input(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        gathered: Callable[[], object],
        *,
        virtual: bool,
        clock: bool,
        active_sensing: bool,
    ) -> Input:
        """Open an input.

        Args:
            name: its whole name, or what to call a virtual one.
            gathered: called on the loop when there is something to take.
            virtual: make one that other programs can play on.

        Raises:
            DeviceError: it is not there or cannot be opened.
        """
        midi = self._made(self._rtmidi.MidiIn, name, queue_size_limit=_QUEUED)
        done = Input(midi, loop, gathered, self._poller)
        try:
            midi.ignore_types(sysex=False, timing=not clock, active_sense=not active_sensing)
            if self._poller is None:
                midi.set_callback(done._call)
            else:
                self._poller.add(done)
            self._connect(midi, name, "input", virtual)
        except BaseException:
            done.close()
            raise
        done.virtual_name = name if virtual else ""
        return done

    def open_output(
        self, loop: asyncio.AbstractEventLoop, name: str, has_room: Callable[[], object], *, virtual: bool
    ) -> Output:
        """Open an output.

        Args:
            name: its whole name, or what to call a virtual one.
            has_room: called on the loop when there is room after there was none.
            virtual: make one that other programs can hear.

        Raises:
            DeviceError: it is not there or cannot be opened.
        """
        midi = self._made(self._rtmidi.MidiOut, name)
        try:
            self._connect(midi, name, "output", virtual)
        except BaseException:
            midi.delete()
            raise
        pace = Pace(self._probe) if isinstance(self._probe, JackServer) else None
        return Output(midi, loop, name, has_room, pace, virtual_name=name if virtual else "")

    def _made(self, kind: Callable[..., Any], name: str, **options: Any) -> Any:
        try:
            return kind(self._api, name=CLIENT, **options)
        except OSError as error:
            raise DeviceError(f"{name!r} cannot be opened: {error}") from error

    def _connect(self, midi: Any, name: str, label: str, virtual: bool) -> None:
        try:
            if virtual:
                midi.open_virtual_port(name)
                _own_virtual[name] += 1
                return
            names = _names(midi)
            if name not in names:
                raise DeviceError(f"there is no port {name!r} any more")
            number = names.index(name)
            midi.open_port(number, name=label)
            if _names(midi)[number : number + 1] != [name]:
                # It was opened by its number, and may be another.
                raise DeviceError(f"the ports changed while {name!r} was opened")
            if isinstance(self._probe, JackServer):
                # JACK connects from a later cycle on. What is played in this one would be lost.
                Pace(self._probe).settle()
        except NotImplementedError as error:
            raise DeviceError(f"{self.name} has no virtual ports") from error
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, DeviceError):
                raise
            raise DeviceError(f"{name!r} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close it, after everything that it opened."""
        if self._poller is not None:
            self._poller.close()
        self._probe.close()


def open_system(api: str | None) -> System:
    """Open a MIDI system.

    Args:
        api: "alsa", "jack", "coremidi" or "winmm", or rtmidi's name for one, in any case. None is the first
            of those compiled in that has a port; if none has, the first that runs.

    Raises:
        DeviceError: there is none of that name, or it does not run here.
        MissingExtra: python-rtmidi is not installed.
    """
    try:
        rtmidi = importlib.import_module("rtmidi")
    except ImportError as error:
        raise MissingExtra("rtmidi", "a MIDI port of this machine") from error
    if api is not None:
        short = {long.casefold(): short for short, long in _NAMES.items()}.get(api.casefold(), api.casefold())
        if short not in _NAMES:
            raise DeviceError(f"there is no MIDI system {api!r}: {_listed(list(_NAMES), 'or')}")
        return System(rtmidi, short)
    running: list[System] = []
    failures: list[str] = []
    for name in _compiled(rtmidi):
        try:
            system = System(rtmidi, name)
        except DeviceError as error:
            failures.append(str(error))
            continue
        running.append(system)
        if system.inputs() or system.outputs():
            break
    else:
        if not running:
            raise DeviceError("; ".join(failures) or "this python-rtmidi knows no MIDI system")
        system = running[0]
    for other in running:
        if other is not system:
            other.close()
    return system


def _compiled(rtmidi: Any) -> list[str]:
    short = {getattr(rtmidi, f"API_{long}", None): short for short, long in _NAMES.items()}
    return [short[api] for api in rtmidi.get_compiled_api() if api in short]


def _listed(names: list[str], word: str = "and") -> str:
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names or ["none"])


class Poller:
    """A thread that takes what has come from the queues of inputs, while there are any."""

    def __init__(self) -> None:
        # Held while inputs are polled: none is closed meanwhile.
        self._lock = threading.Lock()
        self._inputs: list[Input] = []
        self._thread: threading.Thread | None = None

    def add(self, midi_input: Input) -> None:
        """Poll an input from now on."""
        with self._lock:
            self._inputs.append(midi_input)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="midinet inputs", daemon=True)
                self._thread.start()

    def remove(self, midi_input: Input) -> None:
        """Poll an input no more."""
        with self._lock:
            self._inputs.remove(midi_input)

    def close(self) -> None:
        """Wait for the end of the thread. No input may be left."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(_JOIN_S)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._inputs:
                    self._thread = None
                    return
                for midi_input in self._inputs:
                    midi_input.poll()
            time.sleep(_POLL_S)


class Input:
    """An open input: what its driver's thread, or the poller's, hands over to the loop.

    Args:
        gathered: called on the loop when there is something to take.
        poller: calls `poll` from the time it is told of this input; None where the driver calls.
    """

    def __init__(
        self,
        midi: Any,
        loop: asyncio.AbstractEventLoop,
        gathered: Callable[[], object],
        poller: Poller | None,
    ) -> None:
        self._midi = midi
        self._poller = poller
        self._loop = loop
        self._tell = gathered
        self._gathered: deque[bytes] = deque()
        self._called = False
        # Counted by the driver's thread, and by the loop: no count is changed by both.
        self._put = self._taken = 0
        self.lost = 0
        self.virtual_name = ""

    def poll(self) -> None:
        """In the poller's thread: take the messages that have come."""
        while (event := self._midi.get_message()) is not None:
            self._call(event, None)

    def _call(self, event: tuple[list[int], float], _: object) -> None:
        """In the driver's thread: take a message."""
        message = bytes(event[0])
        size = len(message) + _OVERHEAD
        if self._put - self._taken + size > _MAX_GATHERED:
            self.lost += 1
            return
        self._put += size
        self._gathered.append(message)
        if not self._called:
            self._called = True
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                pass  # The loop is closed.

    def take(self) -> bytes:
        """On the loop: return what has gathered."""
        # First: what comes from here on calls again, or is taken.
        self._called = False
        messages: list[bytes] = []
        while self._gathered:
            messages.append(self._gathered.popleft())
        data = b"".join(messages)
        self._taken += len(data) + len(messages) * _OVERHEAD
        return data

    def close(self) -> None:
        """Close it. To be called off the loop."""
        if self._poller is not None:
            self._poller.remove(self)
            _delete(self._midi)
            _forget_virtual(self.virtual_name)
            return
        # rtmidi would join a thread that waits for the interpreter, while it has hold of the interpreter. So
        # first the calls end: those under way are given the time, and what they refer to is kept for them,
        # which is a tuple that rtmidi itself lets go at once.
        kept = gc.get_referents(self._midi)
        self._midi.cancel_callback()
        time.sleep(_QUIET_S)
        _delete(self._midi)
        del kept
        _forget_virtual(self.virtual_name)


class Output:
    """An open output, with a thread that sends what it is handed.

    Args:
        has_room: called on the loop when there is room after `is_full`.
        pace: waits until JACK can take something; None where the driver takes everything.
    """

    def __init__(
        self,
        midi: Any,
        loop: asyncio.AbstractEventLoop,
        name: str,
        has_room: Callable[[], object],
        pace: Pace | None,
        *,
        virtual_name: str,
    ) -> None:
        self._midi = midi
        self._loop = loop
        self._name = name
        self._has_room = has_room
        self._pace = pace
        self._virtual_name = virtual_name
        self._queue: SimpleQueue[tuple[bytes, float] | None] = SimpleQueue()
        # Bytes, counted by the loop and by the thread: no count is changed by both.
        self._handed = self._done = 0
        self._is_awaited = False
        # Messages sent, those that the driver did not take, and note-ons that would have come too late.
        self.sent = self.failed = self.late_notes = 0
        self._thread = threading.Thread(target=self._run, name=f"midinet output {name}", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """On the loop: hand over whole messages. Does not wait."""
        self._handed += len(data)
        self._queue.put((data, time.monotonic()))

    @property
    def is_full(self) -> bool:
        """Whether no more should be handed over, until `has_room` is called."""
        if self._handed - self._done <= MAX_HANDED:
            return False
        # In this order: the thread may be done with it by now.
        self._is_awaited = True
        return self._handed - self._done > MAX_HANDED

    @property
    def is_idle(self) -> bool:
        """Whether everything that was handed over has been sent. If not, `has_room` will be called."""
        if self._handed == self._done:
            return True
        self._is_awaited = True
        return self._handed == self._done

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            data, at = item
            for frame in split_messages(data):
                if 0x90 <= frame[0] < 0xA0 and frame[2] and time.monotonic() - at > LATE_NOTE_S:
                    self.late_notes += 1
                else:
                    self._send(frame)
            self._done += len(data)
            if self._is_awaited and self._handed - self._done <= MAX_HANDED:
                self._is_awaited = False
                try:
                    self._loop.call_soon_threadsafe(self._has_room)
                except RuntimeError:
                    pass  # The loop is closed.

    def _send(self, frame: bytes) -> None:
        try:
            if self._pace is None:
                self._midi.send_message(frame)
            elif not self._send_paced(frame, self._pace):
                raise DeviceError("the JACK server has stopped")
        except (OSError, ValueError, RuntimeError) as error:
            if not self.failed:
                logger.warning("%s does not take what it is sent: %s", self._name, error)
            self.failed += 1
        else:
            self.sent += 1

    def _send_paced(self, frame: bytes, pace: Pace) -> bool:
        if len(frame) <= MAX_EVENT:
            if not pace.spend(len(frame)):
                return False
            self._midi.send_message(frame)
            return True
        ends = [0, *range(MAX_EVENT, len(frame), _REST), len(frame)]
        for start, end in itertools.pairwise(ends):
            if not pace.spend(end - start):
                return False
            self._midi.send_message(frame[start:end])
        return True

    def close(self) -> None:
        """Close it, after what it was handed, for as long as that takes within two seconds. To be called off
        the loop."""
        self._queue.put(None)
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            # To delete what a thread still uses would be the end of the process.
            logger.error("the driver of %s does not return: it is left open", self._name)
            return
        if self._pace is not None:
            self._pace.settle()
        _delete(self._midi)
        _forget_virtual(self._virtual_name)


def _delete(midi: Any) -> None:
    """Close a port. rtmidi frees what JACK's thread may still be using at that moment, unless it has the time
    to find that there is no port any more."""
    midi.close_port()
    time.sleep(_QUIET_S)
    midi.delete()


def _forget_virtual(name: str) -> None:
    if name:
        _own_virtual[name] -= 1
