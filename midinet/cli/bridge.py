"""`midinet bridge`: instruments and programs of this machine to a server, until it is stopped.

Whatever is not there is waited for: the server for ten seconds at first, as by `monitor --reconnect`, and
then for as long as it takes; devices from the start, since a cable comes last.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..address import format_address
from ..net.port import PortState, SocketPort
from ..net.tasks import BackgroundTask
from .access import Target, connecting
from .common import Complaint, printable, run
from .ports import ApiOption, complete_input, complete_output, show_ports
from .printer import Printer
from .report import short
from .status import MARGIN, StatusLine, is_drawable

if TYPE_CHECKING:
    from ..gateways.hardware import Bridge, DeviceState

# Seconds. As often as running counts can be read.
_SHOW_EVERY_S = 0.25

_LAST_LINES_S = 0.5

# Characters of a device's name, of which the most that fit are shown.
_NAME_LENGTHS = (40, 24, 16, 12, 10, 8, 6)


def _bridge_command(
    target: Target,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME",
            autocompletion=complete_input,
            help="A port whose messages go to the server; a unique part of its name will do. With * and ? in "
            "it, every port that fits. May be given several times.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="NAME",
            autocompletion=complete_output,
            help="A port that gets what comes from the server, named as for --input.",
        ),
    ] = None,
    virtual: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Make ports of that name, in and out, for other programs of this machine. Windows has none.",
        ),
    ] = None,
    api: ApiOption = None,
    no_clock: Annotated[
        bool,
        typer.Option("--no-clock", help="Leave out timing clock and time code, both ways."),
    ] = False,
    active_sensing: Annotated[
        bool, typer.Option("--active-sensing", help="Pass active sensing too, both ways.")
    ] = False,
    no_thru: Annotated[
        bool,
        typer.Option("--no-thru", help="Have what an input brings go to the server alone, to no output."),
    ] = False,
) -> None:
    """Connect MIDI ports of this machine to a server, both ways, until Ctrl-C.

    What the inputs bring goes to the server and to the outputs, and what comes from the server goes to the
    outputs. Nothing goes back to where it came from.

    What is not there is waited for: a device that is not plugged in yet, or is unplugged, for as long as it
    takes; a server that is not there at first 10 s, one that goes away as long as it takes. What was held is
    let go meanwhile.

    One line says what is up, at the bottom of a terminal; elsewhere there is a line whenever that changes.

    \b
    Examples:
      midinet bridge --list
      midinet bridge localhost:8080 --input Keystation --output Synth
      midinet bridge midi://studio --input '*' --no-clock
      midinet bridge localhost:8080 --virtual midinet
    """
    names = [*(inputs or []), *(outputs or []), *([] if virtual is None else [virtual])]
    if "" in names:
        raise Complaint("a name that is empty is given, and would mean every port: --input '*' says that")
    if not names:
        raise Complaint(
            "there is nothing to connect: give --input NAME, --output NAME or --virtual NAME; --list has the "
            "names"
        )
    settings = {
        "inputs": inputs or [],
        "outputs": outputs or [],
        "virtual": virtual,
        "api": api,
        "clock": not no_clock,
        "active_sensing": active_sensing,
        "thru": not no_thru,
    }
    raise typer.Exit(run(bridge(target, settings), until_stopped=True))


def _with_list(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that connects the option --list, with which there is no address."""
    option = Annotated[bool, typer.Option("--list", help="List the ports of this machine, and leave.")]
    signature = inspect.signature(command)

    @wraps(command)
    def with_list(*, lists: bool, **given: Any) -> None:
        if lists:
            show_ports(given["api"])
        elif given["address"] is None:
            raise Complaint("Missing argument 'HOST:PORT': see midinet bridge --help")
        else:
            command(**given)

    lists = inspect.Parameter("lists", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    parameters = [
        one.replace(default=None) if one.name == "address" else one for one in signature.parameters.values()
    ]
    with_list.__signature__ = inspect.Signature([parameters[0], lists, *parameters[1:]])  # type: ignore[attr-defined]
    return with_list


bridge_command = _with_list(connecting("The server to connect them to, or midi://NAME.")(_bridge_command))


async def bridge(target: Target, settings: dict[str, Any]) -> None:
    """Connect devices to a server until cancelled, and show how it stands on standard output.

    Args:
        target: the server.
        settings: keywords of `midinet.gateways.hardware.bridge`.

    Raises:
        DeviceError: there is no such MIDI system, or a name fits several ports.
        ConnectError: the server is not there.
        PortClosed, ConnectionLost: it does not let anybody in any more.
    """
    from ..gateways import hardware

    missing = await asyncio.to_thread(_missing, settings)
    changed = asyncio.Event()

    def note_change(*_: object) -> None:
        changed.set()

    async with Printer() as printer:
        with StatusLine(sys.stdout, keep=True) as line:
            board = _Board(printer, line)
            for text in missing:
                board.note(text)
            board.say(f"connecting to {format_address(target.host, target.portno)} ...")
            async with (
                target.connect(reconnect=True, on_state=note_change) as port,
                hardware.bridge(port, **settings, on_change=note_change) as devices,
            ):
                showing_task = BackgroundTask(board.follow(port, devices, changed), name="midinet board")
                try:
                    await port.wait_closed()
                    # Says why it is.
                    await port.wait_connected()
                finally:
                    await showing_task.stop()
                    await printer.flush(_LAST_LINES_S)


def _missing(settings: dict[str, Any]) -> list[str]:
    """Return a line for each name that no port has at present. It may take a moment.

    Raises:
        DeviceError: there is no such MIDI system, or a name fits several ports.
    """
    from ..gateways.hardware import find_port, list_ports

    lines = []
    ports = list_ports(settings["api"])
    for key, is_output in (("inputs", False), ("outputs", True)):
        names = [port.name for port in ports if (port.is_output if is_output else port.is_input)]
        for wish in settings[key]:
            if set(wish) & set("*?"):
                continue
            if any(wish.casefold() in name.casefold() for name in names):
                find_port(wish, output=is_output, api=settings["api"])
            else:
                there = ", ".join(map(repr, names)) or "none"
                lines.append(f"waiting for the {key[:-1]} {wish!r}; there are: {there}")
    return lines


class _Board:
    """Shows what is up: in the last line of a terminal, or elsewhere as a line whenever that changes.

    Args:
        printer: for lines.
        line: of the terminal.
    """

    def __init__(self, printer: Printer, line: StatusLine) -> None:
        self._is_drawn = is_drawable(sys.stdout)
        self._printer = printer
        self._line = line

    def say(self, text: str) -> None:
        """Show a text until there is another."""
        if self._is_drawn:
            self._line.show(text)
        else:
            self._printer.offer(text)

    def note(self, text: str) -> None:
        """Show a text for good."""
        if self._is_drawn:
            self._line.note(text)
        else:
            self._printer.offer(printable(text))

    async def follow(self, port: SocketPort, devices: Bridge, changed: asyncio.Event) -> None:
        """Show how it stands, for as long as this is not cancelled."""
        shown, troubles = "", set[str]()
        while True:
            changed.clear()
            states = devices.devices
            for text in (f"{one.name}: {one.trouble}" for one in states if one.trouble):
                if text not in troubles:
                    troubles.add(text)
                    self.note(text)
            if self._is_drawn:
                self._line.show(_fitting(port, states))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SHOW_EVERY_S):
                        await changed.wait()
            else:
                text = what_is_up(port, states)
                if text != shown:
                    shown = text
                    self._printer.offer(text)
                await changed.wait()


def _fitting(port: SocketPort, devices: Sequence[DeviceState]) -> str:
    """Return what is up and what has passed, with names as short as the terminal wants them."""
    width = shutil.get_terminal_size().columns - MARGIN
    texts = [what_is_up(port, devices, most=most, counts=True) for most in _NAME_LENGTHS]
    return next((text for text in texts if len(text) <= width), texts[-1])


def what_is_up(
    port: SocketPort, devices: Sequence[DeviceState], *, most: int = 1000, counts: bool = False
) -> str:
    """Return in a line how the server and the devices stand.

    Args:
        port: to the server.
        devices: as the bridge has them.
        most: characters of a device's name.
        counts: say how many messages have passed.
    """
    is_connected = port.state is PortState.CONNECTED
    parts = [printable(port.name) + (" up" if is_connected else " gone, trying")]
    up = [one for one in devices if one.is_up]
    lists = {
        "in": [_named(one, most, one.messages_in if counts else None) for one in up if one.is_input],
        "out": [_named(one, most, one.messages_out if counts else None) for one in up if one.is_output],
        "waiting for": [_named(one, most) for one in devices if not one.is_up],
    }
    parts += [f"{title}: {', '.join(names)}" for title, names in lists.items() if names]
    if not devices:
        parts.append("no device yet")
    if dropped := sum(one.messages_dropped for one in devices):
        parts.append(f"{short(dropped)} lost")
    return " | ".join(parts)


def _named(device: DeviceState, most: int, count: int | None = None) -> str:
    name = printable(device.name)
    if len(name) > most:
        name = f"{name[: most - 2]}.."
    return name if count is None else f"{name} ({short(count)})"
