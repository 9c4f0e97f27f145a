"""`midinet serve`: a hub that shows who comes and goes and what passes.

Showing never holds up the relay. For the live view, a read of a socket is kept as it is, and what is held the
hub knows anyway. For lines, the server is read; a reader that is too slow makes the senders wait, so the one
here only offers lines to a printer that drops what it has no room for.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..address import service_name
from ..errors import ListenError, MissingExtra, UsageError
from ..hub.policy import ManufacturerID, SysexRule, SysexWish
from ..net.access import DEFAULT_MAX_CLIENTS, AllowList
from ..net.options import DEFAULT_MAX_INBOX
from ..net.server import PortServer
from ..net.tasks import BackgroundTask
from .access import in_options, read_tokens, server_context
from .common import Complaint, read_address, run
from .config import Config, counted, read_config
from .filters import Channels, FilteredInbox, MessageFilter, NoClock, Tail, Types, message_filter
from .here import reachable
from .joining import read_broker
from .printer import Printer
from .report import MISSED_EVENT, MISSED_LINE, Events, JsonReport, LineReport, shown_log
from .status import is_drawable

# Seconds. As often as a screen is worth changing; with the printer's limit it shows 40,000 lines a second at
# most, a fifth of a processor's time.
_SHOW_EVERY_S = 0.05

# Seconds that clients have to take what is left, so that with the last lines and Python's own end it is over
# within three.
_CLOSE_TIMEOUT_S = 1.5

_LAST_LINES_S = 0.5

_BROKER_TLS = ("broker_ca", "broker_cert", "broker_key")

# Digits of a manufacturer ID of one byte, and of three.
_ID_DIGITS = (2, 6)


class Shown(enum.Enum):
    """What a hub shows beside where it listens and what goes wrong."""

    NOTHING = enum.auto()
    LINES = enum.auto()
    JSON = enum.auto()
    VIEW = enum.auto()


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
    context: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="HOST:PORT",
            help="Where to listen. localhost is for this machine alone, and no host, as in :8080, is every "
            "interface, for other machines too. Port 0 is any free one.",
        ),
    ] = "localhost:8080",
    announce: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Announce it on the local network, so that others find it as midi://NAME. If there is one "
            "of that name already, it gets a number. Takes the extra discovery.",
        ),
    ] = None,
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Show lines, one a message, and not the live view, in a terminal too."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Show only where it listens and what goes wrong. The fastest."),
    ] = False,
    channel: Channels = None,
    types: Types = None,
    no_clock: NoClock = False,
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
            help="Let in this address or network alone, as in 192.168.1.0/24 or 10.0.0.5; may be given "
            "several times. Otherwise everybody is let in who can reach it.",
        ),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use TLS, with the certificate in this PEM file.")
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
        Path | None,
        typer.Option(metavar="FILE", help="Read tokens from a file, one a line; # begins a remark."),
    ] = None,
    insecure_token: Annotated[
        bool, typer.Option("--insecure-token", help="Take tokens without TLS, from other machines too.")
    ] = False,
    broker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Join all hubs with the same session through this NATS server, as in nats://host:4222; may "
            "be given several times for a cluster. Takes the extra nats. A password in it can be seen here "
            "by other users of this machine: rather use the environment's MIDINET_BROKER.",
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What hubs that are one have in common: letters, digits, - and _. With --broker, it is "
            "midinet if nothing else is said.",
        ),
    ] = None,
    broker_credentials: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The NATS credentials to show, as nsc makes them.")
    ] = None,
    broker_nkey: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The seed of an NKEY to show to the broker.")
    ] = None,
    broker_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The CAs that the broker's TLS certificate may be from."),
    ] = None,
    broker_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A client certificate to show to the broker.")
    ] = None,
    broker_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key, if that is not in the same file.")
    ] = None,
    stats_every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="Show a line of counts every so many seconds, and lines in place of the live view, which "
            "has them always.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Show what happens as JSON, one object a line, but not the messages that pass. Its "
            '"event" is listening (with the addresses that others can use), connected, disconnected, '
            "stats, log or missed.",
        ),
    ] = False,
    uvloop: Annotated[
        bool, typer.Option("--uvloop", help="Run on uvloop, a faster event loop. Takes the extra uvloop.")
    ] = False,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            is_eager=True,
            callback=read_config,
            help="Take options from a TOML file, by their names here, and HOST:PORT as address; what is "
            "given here goes before. File names in it are relative to it.",
        ),
    ] = None,
) -> None:
    """Be a hub: what one client sends, all the others get. Shows who is there and what passes.

    In a terminal that is a live view: clients, messages/s, the notes that are held on a keyboard, the last
    messages, and what was lost. Elsewhere it is lines, one a message; when more passes than can be shown,
    lines are left out and counted. Neither holds up what passes.

    Ctrl-C and SIGTERM let go of every note before they end it, within three seconds. A second one ends it
    at once.

    \b
    Examples:
      midinet serve localhost:8080
      midinet serve :8080 --announce stage --allow 192.168.1.0/24
      midinet serve :8080 --cert hub.pem --key hub.key --token-file tokens
      midinet serve --no-clock --channel 1 --channel 10
      midinet serve :8080 --broker nats://10.0.0.5:4222 --session stage
      midinet serve --config hub.toml

    \b
    A file for --config:
      address = ":8080"
      announce = "stage"
      allow = ["192.168.1.0/24", "10.0.0.5"]
      max-clients = 32
    """
    config = counted(context)
    with config.blaming("address"):
        host, portno = _read_listening(address)
    with config.blaming("channel", "types", "no_clock"):
        only = message_filter(channel, types, no_clock)
    with config.blaming("sysex"):
        sysex_wish = read_sysex(sysex)
    with config.blaming("allow"):
        _check_allow(allow)
    with config.blaming("cert", "key", "client_ca"):
        ssl = server_context(cert, key, client_ca)
    with config.blaming("token", "token_file", "insecure_token"):
        tokens = read_tokens(token or [], token_file, insecure=insecure_token)
    with config.blaming("broker", "session", "broker_credentials", "broker_nkey", *_BROKER_TLS):
        joined = read_broker(
            broker,
            session,
            credentials=broker_credentials,
            nkey=broker_nkey,
            ca=broker_ca,
            cert=broker_cert,
            key=broker_key,
        )
    settings = {
        "snapshot": _SNAPSHOTS[snapshot],
        "slow": slow.value,
        "sysex": sysex_wish,
        "max_clients": max_clients,
        "allow": allow or None,
        "ssl": ssl,
        "tokens": tokens,
        "insecure_token": insecure_token,
        "announce": announce,
        **joined,
    }
    loop_factory = _uvloop_factory() if uvloop else None
    if as_json:
        shown = Shown.JSON
    elif quiet:
        shown = Shown.NOTHING
    else:
        shown = Shown.LINES if lines or stats_every or not is_drawable(sys.stdout) else Shown.VIEW
    work = serve(host, portno, settings, shown=shown, only=only, stats_every=stats_every, config=config)
    raise typer.Exit(run(work, until_stopped=True, loop_factory=loop_factory))


def _read_listening(address: str) -> tuple[str, int]:
    if (name := service_name(address)) is not None:
        raise Complaint(
            f"serve listens on an address, as in :8080; --announce {name or 'NAME'} gives it a name"
        )
    return read_address(address, free_port=True)


def _check_allow(allow: list[str] | None) -> None:
    try:
        AllowList(allow or ())
    except ValueError as error:
        raise Complaint(str(error)) from None


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
    shown: Shown = Shown.LINES,
    only: MessageFilter | None = None,
    stats_every: float | None = None,
    config: Config | None = None,
) -> None:
    """Relay until cancelled.

    Args:
        host: a name or an address; '' is every interface.
        portno: 0 lets the system choose.
        settings: keywords of PortServer.
        shown: what standard output shows; for a VIEW it has to be a terminal. With NOTHING and JSON the
            server is left unread: it relays faster.
        only: the messages that are shown; None is all.
        stats_every: print the counts every so many seconds; None is never.
        config: where settings may come from, for what is wrong with them.

    Raises:
        Complaint: a setting cannot be.
        ListenError: it cannot listen there.
    """
    config = config or Config()
    missed_line = MISSED_EVENT if shown is Shown.JSON else MISSED_LINE
    async with Printer(pause_s=_SHOW_EVERY_S, missed_line=missed_line) as printer:
        report = (
            JsonReport(printer) if shown is Shown.JSON else LineReport(printer, quiet=shown is Shown.NOTHING)
        )
        events = Events()
        level = logging.WARNING if shown is Shown.NOTHING else logging.INFO
        with shown_log(events if shown is Shown.VIEW else report, level):
            try:
                with config.blaming("announce"):
                    server = _server(host, portno, settings)
                tail = Tail(only)
                if shown is Shown.VIEW:
                    server._fill(tail)
                elif shown is Shown.LINES and only is not None:
                    server._fill(FilteredInbox(only, DEFAULT_MAX_INBOX, tagged=True))
                async with _listening(server, config):
                    others = reachable(server.addresses)
                    report.listening(server.name, server.addresses, others)
                    with _shown_stats(server, report, stats_every):
                        if shown is Shown.VIEW:
                            from .live import HubView, paint

                            for warning in events.take_warnings():
                                printer.offer(warning)
                            await printer.flush(_LAST_LINES_S)
                            view = HubView(server, tail, events, others=others, only=only)
                            try:
                                await paint(view.look)
                            finally:
                                printer.offer(view.summary())
                        elif shown is Shown.LINES and isinstance(report, LineReport):
                            async for port, message in server:
                                report.message(port, message)
                        else:
                            await server.wait_closed()
            finally:
                for warning in events.take_warnings():
                    printer.offer(warning)
                await printer.flush(_LAST_LINES_S)


def _server(host: str, portno: int, settings: dict[str, Any]) -> PortServer:
    try:
        return PortServer(
            host, portno, relay=True, yield_ports=True, close_timeout=_CLOSE_TIMEOUT_S, **settings
        )
    except ValueError as error:
        raise Complaint(str(error)) from None


@asynccontextmanager
async def _listening(server: PortServer, config: Config) -> AsyncIterator[None]:
    try:
        await server
    except UsageError as error:
        with config.blaming("token", "token_file"):
            raise Complaint(in_options(str(error), of_server=True)) from None
    except ListenError as error:
        with config.blaming("address"):
            raise Complaint(error.strerror or str(error)) from None
    async with server:
        yield


@contextmanager
def _shown_stats(
    server: PortServer, report: LineReport | JsonReport, seconds: float | None
) -> Iterator[None]:
    """Report the counts every so many seconds."""
    if seconds is None:
        yield
        return
    stats_task = BackgroundTask(_report_stats(server, report, seconds), name="midinet stats")
    try:
        yield
    finally:
        stats_task.cancel()


async def _report_stats(server: PortServer, report: LineReport | JsonReport, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        report.stats(server.stats)


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:
        raise MissingExtra("uvloop", "--uvloop") from None
    return uvloop.new_event_loop
