"""`midinet play`: a MIDI file, in time.

Each message is scheduled against the start and not against the one before, so lateness never adds up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import mido
import typer
from mido import Message, MidiFile

from ..net.port import SocketPort
from .access import Target, connecting
from .common import Complaint, run, talk
from .progress import ProgressBar

# Microseconds to a beat, until the file says otherwise (Standard MIDI Files 1.0, set_tempo).
_DEFAULT_TEMPO = 500_000

# Controllers that hold what is no longer played: sustain, sostenuto, hold 2.
_PEDALS = (64, 66, 69)

# Seconds. After Ctrl-C, for a server that does not take what silences it.
_SILENCE_TIMEOUT_S = 2.0

Schedule = Sequence[tuple[float, Message]]


@connecting("The server to play to.")
def play_command(
    target: Target,
    file: Annotated[Path, typer.Argument(metavar="FILE.mid", help="A MIDI file of type 0 or 1.")],
) -> None:
    """Play a MIDI file in time. Ctrl-C silences what sounds and leaves.

    \b
    Example:
      midinet play localhost:8080 tune.mid
    """
    schedule = schedule_of(load(file))
    raise typer.Exit(run(play(target, schedule, title=file.name)))


def load(path: Path) -> MidiFile:
    """Read a MIDI file, with a Complaint if it cannot be read or played."""
    try:
        midi_file = MidiFile(path)
    except Exception as error:  # mido raises whatever wrong bytes made it trip over.
        if isinstance(error, OSError) and error.strerror:
            raise Complaint(f"cannot read {path}: {error.strerror}") from None
        reason = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise Complaint(f"{path} is no MIDI file, or is damaged: {reason}") from None
    if midi_file.type not in (0, 1):
        raise Complaint(f"{path} is of type {midi_file.type}: its tracks have no time in common")
    if midi_file.ticks_per_beat == 0:
        raise Complaint(f"{path} is no MIDI file, or is damaged: it has no ticks in a beat")
    return midi_file


def schedule_of(midi_file: MidiFile) -> list[tuple[float, Message]]:
    """Return the messages of a MIDI file, without its meta messages, each with its seconds from the start.

    Time is added up in whole numbers and divided once, so the last message is as exact as the first.
    """
    schedule: list[tuple[float, Message]] = []
    # A negative division is frames a second, as a negative number, and ticks in a frame: time without tempo.
    division = midi_file.ticks_per_beat
    if division < 0:
        frames, ticks_per_frame = -(division >> 8), division & 0xFF
        per_second = ticks_per_frame * (30000 / 1001 if frames == 29 else frames)
    else:
        per_second = division * 1_000_000
    tempo = _DEFAULT_TEMPO
    elapsed = 0
    for message in mido.merge_tracks(midi_file.tracks):
        elapsed += message.time * (tempo if division > 0 else 1)
        if message.type == "set_tempo":
            tempo = message.tempo
        elif not message.is_meta:
            schedule.append((elapsed / per_second, message.copy(time=0)))
    return schedule


async def play(target: Target, schedule: Schedule, *, title: str) -> None:
    """Play a schedule to a server. Cancelled, it silences what sounds.

    Raises:
        ConnectError: there is no server.
        PortClosed, ConnectionLost: the server went away.
    """
    sounding = Sounding()
    async with target.connect() as port:
        with ProgressBar(title, schedule[-1][0] if schedule else 0.0):
            try:
                await talk(port, perform(port, schedule, sounding.observe))
            except asyncio.CancelledError:
                await _silence(port, sounding)
                raise


async def perform(port: SocketPort, schedule: Schedule, before_send: Callable[[Message], None]) -> None:
    """Send each message of a schedule at its time; those that are late at once.

    Args:
        port: where to.
        schedule: the messages, with their seconds from now.
        before_send: is called with each message just before it is sent.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    for seconds, message in schedule:
        wait = start + seconds - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        before_send(message)
        await port.send(message)


async def _silence(port: SocketPort, sounding: Sounding) -> None:
    try:
        async with asyncio.timeout(_SILENCE_TIMEOUT_S):
            for message in sounding.silence():
                await port.send(message)
    except OSError:
        pass  # It does not take them, or is gone (a TimeoutError is an OSError too).


class Sounding:
    """What a player has set sounding and has not let go yet."""

    def __init__(self) -> None:
        # Kept in the order in which they began.
        self._notes: dict[tuple[int, int], None] = {}
        self._pedals: dict[tuple[int, int], None] = {}

    def observe(self, message: Message) -> None:
        """Take notice of a message that is sent."""
        if message.type in ("note_on", "note_off"):
            key, held = (message.channel, message.note), self._notes
            is_on = message.type == "note_on" and message.velocity > 0
        elif message.type == "control_change" and message.control in _PEDALS:
            key, held = (message.channel, message.control), self._pedals
            is_on = message.value > 0
        else:
            return
        if is_on:
            held[key] = None
        else:
            held.pop(key, None)

    def silence(self) -> list[Message]:
        """Return the messages that let everything go: notes first, then pedals."""
        notes = [Message("note_off", channel=channel, note=note) for channel, note in self._notes]
        pedals = [
            Message("control_change", channel=channel, control=control, value=0)
            for channel, control in self._pedals
        ]
        return notes + pedals
