"""`midinet ports`: this machine's MIDI ports, and the servers that announce themselves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from ..address import SCHEME, format_address
from ..errors import DeviceError, MidinetError, MissingExtra
from ..gateways.discovery import DEFAULT_DISCOVER_TIMEOUT, discover
from .common import Complaint, complain, printable, run
from .status import StatusLine

if TYPE_CHECKING:
    from ..gateways.discovery import Service
    from ..gateways.hardware import HardwarePort

# Seconds.
_MOST_SECONDS = 3600.0

ApiOption = Annotated[
    str | None,
    typer.Option(
        metavar="API",
        help="The MIDI system of this machine, by name: alsa, jack, coremidi or winmm. Without it, the "
        "first that is there.",
    ),
]


def ports_command(
    api: ApiOption = None,
    seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long to look for servers; 0 does not look for any."),
    ] = DEFAULT_DISCOVER_TIMEOUT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Show them as JSON, one object a line, without other words.")
    ] = False,
) -> None:
    """List the MIDI ports of this machine, and the servers that announce themselves on the network.

    A port is an input (it brings what an instrument plays), an output (it takes what an instrument is to
    play) or both; its name stands as a shell takes it. A server stands with its name, as an address that can
    be typed, what it asks for (tls, token), and the addresses at which it listens.

    A JSON object has a "kind", port or server, and a "name". A port has "input" and "output", true or false;
    a server "address", "addresses", "tls" and "token".

    \b
    Examples:
      midinet ports
      midinet ports --api jack --seconds 0
      midinet ports --json | grep '"server"'
    """
    if not 0 <= seconds <= _MOST_SECONDS:
        raise Complaint(f"--seconds has to be from 0 to {_MOST_SECONDS:g}")
    raise typer.Exit(run(list_all(api, seconds, as_json=as_json)))


async def list_all(api: str | None, seconds: float, *, as_json: bool = False) -> int:
    """List ports and servers on standard output, and return the exit status: 2 if neither could be listed.

    What cannot be listed for want of an extra, or of any MIDI system, is told on standard error.

    Args:
        api: the MIDI system, by its rtmidi name; None is the first that is there.
        seconds: how long to look for servers; 0 is not at all.
        as_json: print JSON objects.

    Raises:
        DeviceError: there is no such MIDI system.
    """
    listed = 0
    try:
        await asyncio.to_thread(show_ports, api, as_json=as_json)
        listed += 1
    except (MissingExtra, DeviceError) as error:
        if api is not None:
            raise
        complain(str(error))
    if seconds > 0:
        try:
            await _show_servers(seconds, as_json=as_json, is_first=not listed)
            listed += 1
        except MissingExtra as error:
            complain(str(error))
    return 0 if listed else 2


def show_ports(api: str | None = None, *, as_json: bool = False) -> None:
    """List the MIDI ports of this machine on standard output.

    Args:
        api: the MIDI system, by its rtmidi name; None is the first that is there.
        as_json: print JSON objects.

    Raises:
        MissingExtra: what knows of them is not installed.
        DeviceError: there is no such MIDI system.
    """
    from ..gateways.hardware import list_ports

    ports = list_ports(api)
    if as_json:
        _print(_port_object(port) for port in ports)
    elif ports:
        _print(
            [
                "MIDI ports of this machine:",
                *(f"  {_kind(port):<6}  {_shown(port.name)}" for port in ports),
                "To connect some to a server: midinet bridge ADDRESS --input NAME --output NAME",
            ]
        )
    else:
        _print(["This machine has no MIDI ports."])


def complete_input(context: typer.Context, incomplete: str) -> list[str]:
    """Return the inputs that a shell may complete a word to."""
    return _complete(context, incomplete, lambda port: port.is_input)


def complete_output(context: typer.Context, incomplete: str) -> list[str]:
    """Return the outputs that a shell may complete a word to."""
    return _complete(context, incomplete, lambda port: port.is_output)


def _complete(context: typer.Context, incomplete: str, fits: Callable[[HardwarePort], bool]) -> list[str]:
    from ..gateways.hardware import list_ports

    try:
        ports = list_ports(context.params.get("api"))
    except MidinetError:
        return []  # A shell that completes is no place to complain.
    names = [port.name for port in ports if fits(port) and port.name.startswith(incomplete)]
    # bash puts in what it gets as it is, and breaks words at colons too, unless it stands between quotes.
    if os.environ.get("_MIDINET_COMPLETE") == "complete_bash":
        words = os.environ.get("COMP_WORDS", "").split("\n")
        if not words[-1].startswith(("'", '"')):
            names = [re.sub(r"([^\w@%+=,./-])", r"\\\1", name) for name in names]
    return names


async def _show_servers(seconds: float, *, as_json: bool, is_first: bool) -> None:
    with StatusLine(sys.stderr) as line:
        line.show(f"looking for servers for {seconds:g} s ...")
        try:
            services = await discover(timeout=seconds)
        except ValueError as error:
            raise Complaint(str(error)) from None
    if as_json:
        _print(_service_object(service) for service in services)
        return
    lines = [] if is_first else [""]
    if services:
        lines += [
            "Servers that announce themselves:",
            *(f"  server  {_service_line(service)}" for service in services),
            f"To listen to one: midinet monitor {_shown(_address(services[0]))}",
        ]
    else:
        lines.append("No server announces itself here. Others may still be at some HOST:PORT.")
    _print(lines)


def _print(lines: Iterable[str]) -> None:
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def _shown(name: str) -> str:
    """Return a name as a shell takes it."""
    return shlex.quote(printable(name))


def _kind(port: HardwarePort) -> str:
    return "both" if port.is_input and port.is_output else "input" if port.is_input else "output"


def _address(service: Service) -> str:
    return f"{SCHEME}{service.name}"


def _asks_for(service: Service) -> list[str]:
    return [word for word, is_so in (("tls", service.tls), ("token", service.token)) if is_so]


def _service_line(service: Service) -> str:
    asks = f" ({', '.join(_asks_for(service))})" if _asks_for(service) else ""
    return f"{_shown(_address(service))}{asks}  {', '.join(format_address(*at) for at in service.addresses)}"


def _port_object(port: HardwarePort) -> str:
    return json.dumps({"kind": "port", "name": port.name, "input": port.is_input, "output": port.is_output})


def _service_object(service: Service) -> str:
    return json.dumps(
        {
            "kind": "server",
            "name": service.name,
            "address": _address(service),
            "addresses": [format_address(*at) for at in service.addresses],
            "tls": service.tls,
            "token": service.token,
        }
    )
