"""`midinet play`: MIDI files, in time.

Each message is scheduled against the start and not against the one before, so lateness never adds up. What
is played when is decided before the first message is sent: see `schedule`.

No note is struck late: what was missed while the program stood still, or while the other side took nothing,
is made up for by what is set by now, without its notes.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Annotated

import typer
from mido import Message

from ..files.timeline import TimedFrame, TimeLine
from ..hub.difference import difference
from ..hub.performance import Performance
from ..net.port import SocketPort
from ..wire.codec import decode
from ..wire.parser import DEFAULT_MAX_SYSEX
from ..wire.spec import SYSEX
from .access import DeviceTarget, Target, connecting
from .common import Complaint, complain, run, talk, tell
from .progress import ProgressBar
from .schedule import Passage, cut, load, minutes, name_of, passage_of

# Seconds. A note that comes later than that is out of time, and worse than none.
_MAX_LATE_S = 0.2

# Seconds. Of a longer wait in a file it is told, or it would look as if nothing worked.
_LONG_PAUSE_S = 3600.0


@connecting(
    "The server to play to, as HOST:PORT or midi://NAME, or an output port of this machine.", devices="output"
)
def play_command(
    target: Target | DeviceTarget,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.mid", help="MIDI files of any type, .syx dumps or hexadecimal text; - is a pipe."
        ),
    ],
    loop: Annotated[
        bool,
        typer.Option("--loop", help="Play it again and again, until Ctrl-C."),
    ] = False,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Where to begin: 12.5, 1:23.5 or bar17."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Where to end, or to loop back: 12.5, 1:23.5 or bar25."),
    ] = None,
) -> None:
    """Play MIDI files in time, one after another. Ctrl-C silences what sounds and leaves.

    A file lasts up to its last end-of-track event, which may come after the last note. Damaged files are
    played as far as they can be, and it is told what was wrong. A .syx dump goes out at the speed of a MIDI
    cable. A port of this machine that is unplugged is waited for, and the file goes on meanwhile. After
    Ctrl-Z, no note that was missed is struck; what else was missed is made up for.

    TIME is counted from the beginning of the file, in seconds (12.5) or in minutes and seconds (1:23.5), or
    it is where a bar begins, by the file's own time signatures (bar17; the first is bar1). What begins in the
    middle is first told what is set there (programs, controllers, bends, sysex); no note that began before is
    struck. At --to, what still sounds is let go. These and --loop are for one file.

    A loop is as long as the file. Where it does not end on a bar, say with --to where it shall; that may be
    past the end. Between two rounds what sounds is let go, and the controllers go back to what they were at
    the beginning; so they do between two files.

    \b
    Examples:
      midinet play localhost:8080 tune.mid
      midinet play localhost:8080 one.mid two.mid
      midinet play "USB MIDI" tune.mid --from 1:30
      midinet play midi://studio tune.mid --loop --from bar17 --to bar25
    """
    if len(files) > 1:
        for option, is_given in (("--loop", loop), ("--from", begin is not None), ("--to", end is not None)):
            if is_given:
                raise Complaint(f"{option} is for one file, and {len(files)} are given")
    piece = load(files[0])
    passage = passage_of(piece, begin, end, loop=loop)
    raise typer.Exit(run(play(target, files, piece, passage, loop=loop)))


async def play(
    target: Target | DeviceTarget,
    files: Sequence[Path],
    piece: TimeLine,
    passage: Passage,
    *,
    loop: bool = False,
) -> int:
    """Play files. Ended or cancelled, the port lets go of what still sounds when it closes.

    Args:
        target: where to.
        files: their paths. All but the first are read when their turn comes.
        piece: what is in the first.
        passage: what of that to play.
        loop: play the first again and again, until this is cancelled.

    Returns:
        The exit status: 2 where one of several could not be read.

    Raises:
        ConnectError: there is no server.
        PortClosed, ConnectionLost: the server went away.
    """
    status = 0
    async with target.connect() as port:
        for position, path in enumerate(files):
            if position:
                try:
                    piece = await asyncio.to_thread(load, path)
                except Complaint as error:
                    status = complain(str(error), error.status)
                    continue
            if len(files) > 1:
                passage = _one_of_several(piece)
            _tell_remarks(name_of(path), piece, port, target)
            with ProgressBar(path.name, passage.begin_s + passage.length_s, begin_s=passage.begin_s) as bar:
                rounds = perform_rounds(port, passage, bar.begin_round if loop else None)
                missed = await talk(port, rounds)
            if missed:
                late = f"more than {_MAX_LATE_S} s late"
                tell(f"{name_of(path)}: {missed} notes left out, which would have been {late}")
    stats = port.stats
    if lost := stats.sysex_refused + stats.messages_dropped:
        raise Complaint(f"{port.name} did not take {lost} message{'' if lost == 1 else 's'}", 1)
    return status


def _one_of_several(piece: TimeLine) -> Passage:
    """Return the whole of a piece, behind which everything is as before it."""
    return cut(piece, 0.0, None, loop=True)


def _tell_remarks(name: str, piece: TimeLine, port: SocketPort, target: Target | DeviceTarget) -> None:
    """Say what a person should know before a piece begins."""
    if piece.damage:
        tell(f"{name} is damaged: {'; '.join(piece.damage)}")
    remarks = remarks_on(piece)
    if isinstance(target, Target):
        is_trusted = target.keywords.get("token") is not None or target.shows_certificate
        remarks += sysex_remarks(piece, port.peer[0], is_trusted=is_trusted)
    for remark in remarks:
        tell(f"{name}: {remark}")


def remarks_on(piece: TimeLine) -> list[str]:
    """Return what would look like a fault of the player: no message, or a pause of more than an hour."""
    if not piece.frames:
        return ["there is no message in it"]
    times = [seconds for seconds, _ in piece.frames]
    pauses = zip([0.0, *times], [*times, piece.length_s], strict=True)
    begin, end = max(pauses, key=lambda pause: pause[1] - pause[0])
    if end - begin > _LONG_PAUSE_S:
        return [f"nothing happens from {minutes(begin)} to {minutes(end)}"]
    return []


def sysex_remarks(piece: TimeLine, address: str, *, is_trusted: bool) -> list[str]:
    """Return why system exclusive messages may not arrive, by the defaults of a hub.

    Args:
        piece: what is played.
        address: of the hub.
        is_trusted: a token or a certificate is shown to it.
    """
    sizes = [len(frame) for _, frame in piece.frames if frame[0] == SYSEX]
    remarks = []
    if sizes and max(sizes) > DEFAULT_MAX_SYSEX:
        remarks.append(
            f"a system exclusive message of {max(sizes)} bytes may not pass: a hub takes up to "
            f"{DEFAULT_MAX_SYSEX} unless its max_sysex is more"
        )
    if sizes and not is_trusted and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        number = f"{len(sizes)} system exclusive message{'' if len(sizes) == 1 else 's'}"
        remarks.append(
            f"{number} may not pass: a hub takes them from other machines only with a token or a certificate"
        )
    return remarks


async def perform_rounds(
    port: SocketPort,
    passage: Passage,
    on_round: Callable[[], None] | None = None,
    *,
    max_late_s: float = _MAX_LATE_S,
) -> int:
    """Send what a passage opens with, and then play it once to its end, or again and again.

    Args:
        port: where to.
        passage: what.
        on_round: is called as each round of a loop begins; None plays it once.
        max_late_s: as `perform` has it.

    Returns:
        How many notes were left out.
    """
    clock = asyncio.get_running_loop().time
    for frame in passage.opening:
        await port.send(decode(frame))
    start = clock()
    missed = 0
    while True:
        if on_round is not None:
            on_round()
        missed += await perform(port, passage.schedule, start=start, max_late_s=max_late_s)
        start += passage.length_s
        if (wait := start - clock()) > 0:
            # What takes no time but has a long end, as a file without messages, is over.
            if on_round is not None or passage.schedule:
                await asyncio.sleep(wait)
        # Who was stopped for longer than a round does not make up for all that he missed.
        elif -wait > passage.length_s:
            start = clock()
        if on_round is None:
            return missed


async def perform(
    port: SocketPort,
    schedule: Iterable[TimedFrame],
    before_send: Callable[[Message], None] | None = None,
    *,
    start: float | None = None,
    max_late_s: float = inf,
) -> int:
    """Send each message of a schedule at its time; those that are late at once.

    Args:
        port: where to.
        schedule: frames, with their seconds from the start.
        before_send: is called with each message just before it is sent.
        start: when it starts, by the event loop's clock; None is now.
        max_late_s: the seconds by which a message may be late. In place of those that are later comes what
            they set, without their notes. inf sends them all.

    Returns:
        How many notes were left out.
    """
    clock = asyncio.get_running_loop().time
    if start is None:
        start = clock()
    catching_up = _CatchingUp()

    async def send(frame: bytes) -> None:
        message = decode(frame)
        if before_send is not None:
            before_send(message)
        await port.send(message)

    for seconds, frame in schedule:
        wait = start + seconds - clock()
        if wait < -max_late_s:
            catching_up.miss(frame)
            continue
        for other in catching_up.frames():
            await send(other)
        if wait > 0:
            await asyncio.sleep(wait)
        catching_up.sent.append(frame)
        await send(frame)
    for other in catching_up.frames():
        await send(other)
    return catching_up.missed_notes


class _CatchingUp:
    """What was sent and what was missed, and what makes up for that.

    Attributes:
        sent: all that was sent.
        missed_notes: how many notes were not struck.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.missed_notes = 0
        self._missed: list[bytes] = []

    def miss(self, frame: bytes) -> None:
        """Take note of a frame that is too late."""
        self._missed.append(frame)
        self.missed_notes += frame[0] & 0xF0 == 0x90 and frame[2] > 0

    def frames(self) -> list[bytes]:
        """Return what makes up for all that was missed, which counts as sent then."""
        if not self._missed:
            return []
        missed, self._missed = self._missed, []
        performance = Performance()
        performance.observe(b"".join(self.sent), None, 0.0)
        before = performance.copy()
        performance.observe(b"".join(missed), None, 0.0)
        self.sent += missed
        return [frame for frame in missed if frame[0] == SYSEX] + difference(before, performance)
