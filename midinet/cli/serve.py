"""`midinet serve`: a hub that shows who comes and goes and what passes.

Showing never holds up the relay. A relaying server that is read has to go on being read, so the reader here
only offers lines to a printer that drops what it has no room for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..errors import MissingExtra
from ..net.server import PortServer
from .common import read_address, run
from .printer import Printer

# Seconds. As often as a screen is worth changing; with the printer's limit it shows 40,000 lines a second at
# most, a fifth of a processor's time.
_SHOW_EVERY_S = 0.05

# Lines that say who comes and goes find room when those of a flood do not, up to this many.
_SPARE_LINES = 1000

_LAST_LINES_S = 0.5


def serve_command(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Where to listen; port 0 is any free one.")
    ] = "localhost:8080",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only where it listens. The fastest.")
    ] = False,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Run on uvloop, an extra.")] = False,
) -> None:
    """Be a hub: what one client sends, all the others get. Shows who comes and goes and what passes.

    When more passes than can be shown, lines are left out and counted; nothing that passes is held up.
    ":8080" listens on every interface, for other machines too.

    \b
    Example:
      midinet serve localhost:8080
    """
    host, portno = read_address(address, free_port=True)
    loop_factory = _uvloop_factory() if uvloop else None
    raise typer.Exit(run(serve(host, portno, quiet=quiet), until_stopped=True, loop_factory=loop_factory))


async def serve(host: str, portno: int, *, quiet: bool = False) -> None:
    """Relay until cancelled.

    Args:
        host: a name or an address; '' is every interface.
        portno: 0 lets the system choose.
        quiet: print nothing but the address, and leave the server unread: it relays faster.
    """
    async with Printer(pause_s=_SHOW_EVERY_S, missed_line="... {} messages not shown") as printer:
        with _shown_log(None if quiet else printer):
            try:
                async with PortServer(host, portno, relay=True, yield_ports=True) as server:
                    printer.offer("midinet listens on", server.name)
                    if quiet:
                        await server.wait_closed()
                    else:
                        async for port, message in server:
                            printer.offer(port.name, message)
            finally:
                await printer.flush(_LAST_LINES_S)


class _LineHandler(logging.Handler):
    """Gives what is logged to a printer."""

    def __init__(self, printer: Printer) -> None:
        super().__init__()
        self._printer = printer

    def emit(self, record: logging.LogRecord) -> None:
        self._printer.offer(record.getMessage(), spare=_SPARE_LINES)


@contextmanager
def _shown_log(printer: Printer | None) -> Iterator[None]:
    """Show what midinet logs, or nothing of it: written by logging itself, it could block the loop."""
    logger = logging.getLogger("midinet")
    handler = logging.NullHandler() if printer is None else _LineHandler(printer)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if printer is None else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:
        raise MissingExtra("uvloop", "--uvloop") from None
    return uvloop.new_event_loop
