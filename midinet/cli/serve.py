"""`midinet serve`: a hub that shows who comes and goes and what passes.

Showing never holds up the relay. A relaying server that is read has to go on being read, so the reader here
only offers lines to a printer that drops what it has no room for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import MissingExtra, UsageError
from ..hub.policy import ManufacturerID, SysexRule, SysexWish
from ..net.access import DEFAULT_MAX_CLIENTS
from ..net.server import PortServer
from .access import in_options, read_tokens, server_context
from .common import Complaint, read_address, run
from .printer import Printer
from .report import MISSED_EVENT, MISSED_LINE, JsonReport, LineReport, ReportHandler

# Seconds. As often as a screen is worth changing; with the printer's limit it shows 40,000 lines a second at
# most, a fifth of a processor's time.
_SHOW_EVERY_S = 0.05

# Seconds that clients have to take what is left, so that with the last lines and Python's own end it is over
# within three.
_CLOSE_TIMEOUT_S = 1.5

_LAST_LINES_S = 0.5

# Digits of a manufacturer ID of one byte, and of three.
_ID_DIGITS = (2, 6)


class Snapshot(StrEnum):
    """What a new client gets before anything else."""

    SETTINGS = "settings"
    NOTES = "notes"
    NONE = "none"


class Slow(StrEnum):
    """What becomes of a client that does not read fast enough."""

    THIN = "thin"
    DISCONNECT = "disconnect"


_SNAPSHOTS: dict[Snapshot, bool | Literal["notes"]] = {
    Snapshot.SETTINGS: True,
    Snapshot.NOTES: "notes",
    Snapshot.NONE: False,
}


def serve_command(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Where to listen; port 0 is any free one.")
    ] = "localhost:8080",
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Show only where it listens and what goes wrong. The fastest."),
    ] = False,
    snapshot: Annotated[
        Snapshot,
        typer.Option(
            help="What a new client gets first: the settings as they are (programs, controllers, bends, "
            "transport), those and the notes that are held, or nothing."
        ),
    ] = Snapshot.SETTINGS,
    slow: Annotated[
        Slow,
        typer.Option(
            help="What becomes of a client that does not read fast enough: what waits for it is thinned out, "
            "or it is disconnected."
        ),
    ] = Slow.THIN,
    sysex: Annotated[
        str,
        typer.Option(
            metavar="all|none|auto|ID,...",
            help="System exclusive messages that may pass. auto: all, from and to this machine and clients "
            "with a token or certificate, otherwise none. Or manufacturer IDs, as in 41,7E,002029.",
        ),
    ] = "auto",
    max_clients: Annotated[
        int, typer.Option(metavar="COUNT", min=1, help="The most clients at once.")
    ] = DEFAULT_MAX_CLIENTS,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let in this address or network alone, as in 192.168.1.0/24; may be given several times.",
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use TLS, with the certificate in this file.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key, if that is not in the same file.")
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Let in only who has a certificate from the CAs in this file."),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKEN",
            help="Let in only who shows this token, or one of several. Other users of this machine can see "
            "it here: rather use --token-file or the environment's MIDINET_TOKEN.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read tokens from a file, one a line.")
    ] = None,
    insecure_token: Annotated[
        bool, typer.Option("--insecure-token", help="Take tokens without TLS, from other machines too.")
    ] = False,
    stats_every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.1, help="Show a line of counts every so many seconds."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Show what happens as JSON, one object a line, but not the messages that pass. Its "
            '"event" is listening, connected, disconnected, stats, log or missed.',
        ),
    ] = False,
    uvloop: Annotated[bool, typer.Option("--uvloop", help="Run on uvloop, an extra.")] = False,
) -> None:
    """Be a hub: what one client sends, all the others get. Shows who comes and goes and what passes.

    When more passes than can be shown, lines are left out and counted; nothing that passes is held up.
    ":8080" listens on every interface, for other machines too.

    Ctrl-C and SIGTERM let go of every note before they end it, within three seconds. A second one ends it
    at once.

    \b
    Examples:
      midinet serve localhost:8080
      midinet serve :8080 --allow 192.168.1.0/24
      midinet serve :8080 --cert hub.pem --key hub.key --token-file tokens
    """
    host, portno = read_address(address, free_port=True)
    settings = {
        "snapshot": _SNAPSHOTS[snapshot],
        "slow": slow.value,
        "sysex": read_sysex(sysex),
        "max_clients": max_clients,
        "allow": allow or None,
        "ssl": server_context(cert, key, client_ca),
        "tokens": read_tokens(token or [], token_file, insecure=insecure_token),
        "insecure_token": insecure_token,
    }
    loop_factory = _uvloop_factory() if uvloop else None
    work = serve(host, portno, settings, quiet=quiet, as_json=as_json, stats_every=stats_every)
    raise typer.Exit(run(work, until_stopped=True, loop_factory=loop_factory))


def read_sysex(text: str) -> SysexWish | None:
    """Return what `--sysex` asks for, with a Complaint if it is nothing of the kind."""
    if text in ("all", "none", "auto"):
        return {"all": True, "none": False, "auto": None}[text]
    return [_read_id(word.strip()) for word in text.split(",")]


def _read_id(word: str) -> ManufacturerID:
    try:
        if len(word) not in _ID_DIGITS or not word.isalnum():
            raise ValueError
        numbers = bytes.fromhex(word)
        one = numbers[0] if len(numbers) == 1 else numbers
        SysexRule([one])
    except ValueError:
        raise Complaint(
            f"--sysex: {word!r} is no manufacturer ID, which is two hexadecimal digits from 01 to 7F, or six "
            "that begin with 00"
        ) from None
    return one


async def serve(
    host: str,
    portno: int,
    settings: dict[str, Any],
    *,
    quiet: bool = False,
    as_json: bool = False,
    stats_every: float | None = None,
) -> None:
    """Relay until cancelled.

    Args:
        host: a name or an address; '' is every interface.
        portno: 0 lets the system choose.
        settings: keywords of PortServer.
        quiet: print nothing but the address and what goes wrong, and leave the server unread: it relays
            faster.
        as_json: print JSON objects, and no messages.
        stats_every: print the counts every so many seconds; None is never.

    Raises:
        Complaint: a setting cannot be.
        ListenError: it cannot listen there.
    """
    missed_line = MISSED_EVENT if as_json else MISSED_LINE
    async with Printer(pause_s=_SHOW_EVERY_S, missed_line=missed_line) as printer:
        report = JsonReport(printer) if as_json else LineReport(printer)
        with _shown_log(report, logging.WARNING if quiet else logging.INFO):
            try:
                async with _server(host, portno, settings) as server:
                    report.listening(server.name, server.addresses)
                    with _shown_stats(server, report, stats_every):
                        if quiet or isinstance(report, JsonReport):
                            await server.wait_closed()
                        else:
                            async for port, message in server:
                                report.message(port, message)
            except UsageError as error:
                raise Complaint(in_options(str(error), of_server=True)) from None
            finally:
                await printer.flush(_LAST_LINES_S)


def _server(host: str, portno: int, settings: dict[str, Any]) -> PortServer:
    try:
        return PortServer(
            host, portno, relay=True, yield_ports=True, close_timeout=_CLOSE_TIMEOUT_S, **settings
        )
    except ValueError as error:
        raise Complaint(str(error)) from None


@contextmanager
def _shown_stats(
    server: PortServer, report: LineReport | JsonReport, seconds: float | None
) -> Iterator[None]:
    """Report the counts every so many seconds."""
    if seconds is None:
        yield
        return
    stats_task = asyncio.create_task(_report_stats(server, report, seconds), name="midinet stats")
    try:
        yield
    finally:
        stats_task.cancel()


async def _report_stats(server: PortServer, report: LineReport | JsonReport, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        report.stats(server.stats)


@contextmanager
def _shown_log(report: LineReport | JsonReport, level: int) -> Iterator[None]:
    """Report what midinet logs. Written by logging itself, it could block the loop."""
    logger = logging.getLogger("midinet")
    handler = ReportHandler(report)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
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
