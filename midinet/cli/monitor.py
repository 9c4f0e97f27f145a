"""`midinet monitor`: print what is heard, one line a message."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ..net.client import connect
from ..net.port import SocketPort
from .common import Complaint, read_address, run
from .printer import OutputGone, Printer

# Seconds. After Ctrl-C: enough for any output that still moves.
_LAST_LINES_S = 0.5


def monitor_command(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The server to listen to.")],
) -> None:
    """Print what is heard, one line a message, in mido's own text form.

    It ends when the server closes, when nobody reads its output any more, or with Ctrl-C.

    \b
    Example:
      midinet monitor localhost:8080 | grep note_on
    """
    raise typer.Exit(run(monitor(*read_address(address)), until_stopped=True))


async def monitor(host: str, portno: int) -> None:
    """Print what a server sends until it closes or nobody reads the output.

    Raises:
        ConnectionLost: the link broke; what arrived before is printed.
    """
    async with Printer() as printer, connect(host, portno) as port:
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
