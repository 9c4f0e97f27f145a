"""`midinet monitor`: print what is heard, one line a message."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ..net.port import PortState, SocketPort
from .access import Target, connecting
from .common import Complaint, run, tell
from .printer import OutputGone, Printer

# Seconds. After Ctrl-C: enough for any output that still moves.
_LAST_LINES_S = 0.5


@connecting("The server to listen to.")
def monitor_command(
    target: Target,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="Connect again when the connection is lost, for as long as it takes. A server that is not "
            "there at first is waited for 10 s.",
        ),
    ] = False,
) -> None:
    """Print what is heard, one line a message, in mido's own text form.

    It ends when the server closes (unless it is to reconnect), when nobody reads its output any more, or
    with Ctrl-C.

    \b
    Examples:
      midinet monitor localhost:8080 | grep note_on
      midinet monitor studio.local:8080 --tls --token-file token --reconnect
    """
    raise typer.Exit(run(monitor(target, reconnect=reconnect), until_stopped=True))


async def monitor(target: Target, *, reconnect: bool = False) -> None:
    """Print what a server sends until it closes or nobody reads the output.

    Args:
        target: the server.
        reconnect: follow it across restarts, and say so on standard error.

    Raises:
        ConnectionLost: the link broke; what arrived before is printed.
    """
    connection = target.connect(listens=True, reconnect=reconnect, on_state=_tell_state)
    async with Printer() as printer, connection as port:
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
    if state is PortState.RECONNECTING:
        tell(f"{port.name} is gone; trying to connect again")
    elif state is PortState.CONNECTED:
        tell(f"connected to {port.name} again")


async def _print_all(port: SocketPort, printer: Printer) -> None:
    async for message in port:
        await printer.put(str(message))
