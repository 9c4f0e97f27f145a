"""`midinet monitor`: show what is heard, in a live view or one line a message."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Annotated

import typer

from ..net.options import DEFAULT_MAX_INBOX
from ..net.port import PortState, SocketPort
from .access import Target, connecting
from .common import Complaint, run, tell
from .filters import Channels, FilteredInbox, MessageFilter, NoClock, Tail, Types, message_filter
from .printer import OutputGone, Printer
from .report import Events, shown_log
from .status import is_drawable

# Seconds. After Ctrl-C: enough for any output that still moves.
_LAST_LINES_S = 0.5


@connecting("The server to listen to.")
def monitor_command(
    target: Target,
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
            "there at first is waited for 10 s.",
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
      midinet monitor localhost:8080 --no-clock | grep note_on
      midinet monitor studio.local:8080 --tls --token-file token --reconnect
    """
    only = message_filter(channel, types, no_clock)
    if lines or not is_drawable(sys.stdout):
        work = monitor(target, only=only, reconnect=reconnect)
    else:
        work = watch(target, only=only, reconnect=reconnect)
    raise typer.Exit(run(work, until_stopped=True))


async def monitor(target: Target, *, only: MessageFilter | None = None, reconnect: bool = False) -> None:
    """Print what a server sends until it closes or nobody reads the output.

    Args:
        target: the server.
        only: the messages to print; None is all.
        reconnect: follow it across restarts, and say so on standard error.

    Raises:
        ConnectionLost: the link broke; what arrived before is printed.
    """
    connection = target.connect(listens=True, reconnect=reconnect, on_state=_tell_state)
    async with Printer() as printer, connection as port:
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


def _tell_state(port: SocketPort, state: PortState) -> None:
    if text := _state_text(port, state):
        tell(text)


def _state_text(port: SocketPort, state: PortState) -> str:
    if state is PortState.RECONNECTING:
        return f"{port.name} is gone; trying to connect again"
    return f"connected to {port.name} again" if state is PortState.CONNECTED else ""


async def _print_all(port: SocketPort, printer: Printer) -> None:
    async for message in port:
        await printer.put(str(message))


async def watch(target: Target, *, only: MessageFilter | None = None, reconnect: bool = False) -> None:
    """Show what a server sends in a live view on standard output, a terminal, until it closes.

    Args:
        target: the server.
        only: the messages to show; None is all.
        reconnect: follow it across restarts.

    Raises:
        ConnectionLost: the link broke.
    """
    from .live import PortView, paint

    events = Events()

    def tell_state(port: SocketPort, state: PortState) -> None:
        if text := _state_text(port, state):
            events.tell(text)

    connection = target.connect(listens=True, reconnect=reconnect, on_state=tell_state)
    async with Printer() as printer, connection as port:
        tail = Tail(only, follow=True)
        port._fill(tail)
        view = PortView(port, tail, events, only=only)
        try:
            with shown_log(events, logging.INFO):
                tasks = [
                    asyncio.create_task(paint(view.look), name="midinet view"),
                    asyncio.create_task(view.ping(), name="midinet ping"),
                ]
                try:
                    # Nothing is left to be read: this waits for the end, and raises what that was.
                    async for _ in port:
                        pass
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for line in (view.summary(), *events.take_warnings()):
                printer.offer(line)
            await printer.flush(_LAST_LINES_S)
