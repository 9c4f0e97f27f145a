"""`midinet play`: a MIDI file, in time.

Each message is scheduled against the start and not against the one before, so lateness never adds up. What
is played when is decided before the first message is sent: see `schedule`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from mido import Message

from ..net.port import SocketPort
from .access import DeviceTarget, Target, connecting
from .common import run, talk
from .progress import ProgressBar
from .schedule import Passage, Schedule, load, passage_of, piece_of


@connecting(
    "The server to play to, as HOST:PORT or midi://NAME, or an output port of this machine.", devices="output"
)
def play_command(
    target: Target | DeviceTarget,
    file: Annotated[Path, typer.Argument(metavar="FILE.mid", help="A MIDI file of type 0 or 1.")],
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
    """Play a MIDI file in time. Ctrl-C silences what sounds and leaves.

    A port of this machine that is unplugged is waited for, and the file goes on meanwhile.

    TIME is counted from the beginning of the file, in seconds (12.5) or in minutes and seconds (1:23.5), or
    it is where a bar begins, by the file's own time signatures (bar17; the first is bar1). What begins in the
    middle is first told what is set there (programs, controllers, bends, sysex); no note that began before is
    struck. At --to, what still sounds is let go.

    A loop is as long as the file: up to its last end-of-track event, which is exact and may come after the
    last note. Where it does not end on a bar, say with --to where it shall; that may be past the end. Between
    two rounds what sounds is let go, and the controllers go back to what they were at the beginning.

    \b
    Examples:
      midinet play localhost:8080 tune.mid
      midinet play "USB MIDI" tune.mid --from 1:30
      midinet play midi://studio tune.mid --loop --from bar17 --to bar25
    """
    passage = passage_of(piece_of(load(file)), begin, end, loop=loop)
    raise typer.Exit(run(play(target, passage, title=file.name, loop=loop)))


async def play(target: Target | DeviceTarget, passage: Passage, *, title: str, loop: bool = False) -> None:
    """Play a passage. Ended or cancelled, the port lets go of what still sounds when it closes.

    Args:
        target: where to.
        passage: what.
        title: for the progress bar.
        loop: again and again, until this is cancelled.

    Raises:
        ConnectError: there is no server.
        PortClosed, ConnectionLost: the server went away.
    """
    async with target.connect() as port:
        with ProgressBar(title, passage.begin_s + passage.length_s, begin_s=passage.begin_s) as bar:
            await talk(port, perform_rounds(port, passage, bar.begin_round if loop else None))


async def perform_rounds(
    port: SocketPort, passage: Passage, on_round: Callable[[], None] | None = None
) -> None:
    """Send what a passage opens with, and then play it once, or again and again.

    Args:
        port: where to.
        passage: what.
        on_round: is called as each round of a loop begins; None plays it once.
    """
    clock = asyncio.get_running_loop().time
    for message in passage.opening:
        await port.send(message)
    start = clock()
    while True:
        if on_round is not None:
            on_round()
        await perform(port, passage.schedule, start=start)
        if on_round is None:
            return
        start += passage.length_s
        if (wait := start - clock()) > 0:
            await asyncio.sleep(wait)
        # Who was stopped for longer than a round does not make up for all that he missed.
        elif -wait > passage.length_s:
            start = clock()


async def perform(
    port: SocketPort,
    schedule: Schedule,
    before_send: Callable[[Message], None] | None = None,
    *,
    start: float | None = None,
) -> None:
    """Send each message of a schedule at its time; those that are late at once.

    Args:
        port: where to.
        schedule: the messages, with their seconds from the start.
        before_send: is called with each message just before it is sent.
        start: when it starts, by the event loop's clock; None is now.
    """
    clock = asyncio.get_running_loop().time
    if start is None:
        start = clock()
    for seconds, message in schedule:
        wait = start + seconds - clock()
        if wait > 0:
            await asyncio.sleep(wait)
        if before_send is not None:
            before_send(message)
        await port.send(message)
