"""`midinet monitor`: show what is heard, in a live view or one line a message."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated

import typer

from ..net.options import DEFAULT_MAX_INBOX
from ..net.port import PortState, SocketPort
from ..net.tasks import BackgroundTask
from .access import DeviceTarget, Target, connecting
from .common import Complaint, run, tell
from .filters import Channels, FilteredInbox, MessageFilter, NoClock, Tail, Types, message_filter
from .printer import OutputGone, Printer
from .report import Events, shown_log
from .status import is_drawable

# Seconds. After Ctrl-C: enough for any output that still moves.
_LAST_LINES_S = 0.5


@connecting(
    "The server to listen to, as HOST:PORT or midi://NAME, or an input port of this machine.", devices="input"
)
def monitor_command(
    target: Target | DeviceTarget,
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Print one line a message, and no live view, in a terminal too."),
    ] = False,
    channel: Channels = None,
    types: Types = None,
    no_clock: NoClock = False,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="Connect again when the connection is lost, for as long as it takes. A server that is not "
            "there at first is waited for 10 s. A port of this machine is waited for in any case.",
        ),
    ] = False,
) -> None:
    """Show what is heard: in a terminal in a live view, elsewhere one line a message, in mido's text form.

    The live view has messages/s, the notes that are held on a keyboard, the last messages, how many clients
    the server has and how long the way there and back takes ("-" where the server does not say), and what
    was damaged on its way.

    It ends when the server closes (unless it is to reconnect), when nobody reads its output any more, or
    with Ctrl-C.

    \b
    Examples:
      midinet monitor localhost:8080
      midinet monitor localhost:8080 --channel 10 --type note_on
      midinet monitor "USB MIDI" --no-clock | grep note_on
      midinet monitor studio.local:8080 --tls --token-file token --reconnect
    """
    only = message_filter(channel, types, no_clock)
    if lines or not is_drawable(sys.stdout):
        work = monitor(target, only=only, reconnect=reconnect)
    else:
        work = watch(target, only=only, reconnect=reconnect)
    raise typer.Exit(run(work, until_stopped=True))


def _listen(
    target: Target | DeviceTarget, reconnect: bool, tell: Callable[[str], object]
) -> AbstractAsyncContextManager[SocketPort]:
    """Connect, and tell when the other side goes and when it is back."""
    if isinstance(target, DeviceTarget):
        return target.connect(listens=True, tell=tell)

    def tell_state(port: SocketPort, state: PortState) -> None:
        if state is PortState.RECONNECTING:
            tell(f"{port.name} is gone; trying to connect again")
        elif state is PortState.CONNECTED:
            tell(f"connected to {port.name} again")

    return target.connect(listens=True, reconnect=reconnect, on_state=tell_state)


async def monitor(
    target: Target | DeviceTarget, *, only: MessageFilter | None = None, reconnect: bool = False
) -> None:
    """Print what is heard until the other side closes or nobody reads the output.

    Args:
        target: the server or the device.
        only: the messages to print; None is all.
        reconnect: follow a server across restarts, and say so on standard error.

    Raises:
        ConnectionLost: the link broke; what arrived before is printed.
    """
    async with Printer() as printer, _listen(target, reconnect, tell) as port:
        if only is not None:
            port._fill(FilteredInbox(only, DEFAULT_MAX_INBOX))
        printer.watch_reader()
        printing_task = asyncio.create_task(_print_all(port, printer), name="midinet monitor")
        try:
            await asyncio.wait((printing_task, printer.gone), return_when=asyncio.FIRST_COMPLETED)
            if printing_task.done():
                await printer.flush()
        except asyncio.CancelledError:
            await printer.flush(_LAST_LINES_S)
            raise
        finally:
            printing_task.cancel()
            await asyncio.gather(printing_task, return_exceptions=True)
        try:
            await (printer.gone if printing_task.cancelled() else printing_task)
        except OutputGone as error:
            if not isinstance(error.cause, BrokenPipeError):
                raise Complaint(f"cannot write: {error.cause.strerror}", 1) from None


async def _print_all(port: SocketPort, printer: Printer) -> None:
    async for message in port:
        await printer.put(str(message))


async def watch(
    target: Target | DeviceTarget, *, only: MessageFilter | None = None, reconnect: bool = False
) -> None:
    """Show what is heard in a live view on standard output, a terminal, until the other side closes.

    Args:
        target: the server or the device.
        only: the messages to show; None is all.
        reconnect: follow a server across restarts.

    Raises:
        ConnectionLost: the link broke.
    """
    from .live import PortView, paint

    events = Events()
    async with Printer() as printer, _listen(target, reconnect, events.tell) as port:
        tail = Tail(only, follow=True)
        port._fill(tail)
        is_server = isinstance(target, Target)
        view = PortView(port, tail, events, only=only, is_server=is_server)
        try:
            with shown_log(events, logging.INFO):
                tasks = [BackgroundTask(paint(view.look), name="midinet view")]
                if is_server:
                    tasks.append(BackgroundTask(view.ping(), name="midinet ping"))
                try:
                    # Nothing is left to be read: this waits for the end, and raises what that was.
                    async for _ in port:
                        pass
                finally:
                    for task in tasks:
                        await task.stop()
        finally:
            for line in (view.summary(), *events.take_warnings()):
                printer.offer(line)
            await printer.flush(_LAST_LINES_S)
