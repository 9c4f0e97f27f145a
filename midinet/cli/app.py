"""The verbs put together to one command: its help and completion, and wrong usage turned into one line.

A verb is imported when it is used, or its help is shown. What they have in common stands once, here: what an
address is, exit statuses, environment variables, and which verbs go together.
"""

from __future__ import annotations

import importlib
import platform
import sys
import textwrap
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from ..errors import MidinetError
from .common import Complaint, complain

# Plain help, not rich's boxes: it reads the same in a pipe, and starts a tenth of a second sooner.
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

# Beside midinet's own version, in a report of a fault: what it stands on, and what the extras bring.
_PACKAGES = ("mido", "typer", "rich", "ifaddr", "python-rtmidi", "zeroconf", "nats-py", "uvloop")


class _Page(NamedTuple):
    """What is said of a verb here.

    Args:
        summary: what it is for, in a line.
        went_wrong: what exit status 1 means; empty where it is not used.
        is_stopped: it has no end of its own, so SIGTERM ends it with 0.
        reads: environment variables that it reads.
        see_also: other verbs.
    """

    summary: str
    went_wrong: str
    is_stopped: bool
    reads: tuple[str, ...]
    see_also: tuple[str, ...]


_GONE = "the connection broke or was closed"
_TOKEN, _INTERFACES, _BROKER = "MIDINET_TOKEN", "MIDINET_INTERFACES", "MIDINET_BROKER"

# In the order in which one comes to need them. The module and the function are named after the verb.
VERBS = {
    "demo": _Page(
        "Try it with nothing else at hand: a tune through a hub.",
        "not everything arrived",
        False,
        (),
        ("serve", "monitor"),
    ),
    "serve": _Page(
        "Be a hub: what one client sends, all the others get.",
        "",
        True,
        (_TOKEN, _INTERFACES, _BROKER),
        ("monitor", "ports", "bridge"),
    ),
    "ports": _Page(
        "List this machine's MIDI ports and the servers that can be found.",
        "",
        False,
        (_INTERFACES,),
        ("bridge", "serve"),
    ),
    "bridge": _Page(
        "Connect instruments and programs of this machine to a server.",
        _GONE,
        True,
        (_TOKEN, _INTERFACES),
        ("ports", "serve"),
    ),
    "monitor": _Page("Show what is heard.", _GONE, True, (_TOKEN, _INTERFACES), ("record", "ping", "send")),
    "send": _Page("Send messages.", _GONE, False, (_TOKEN, _INTERFACES), ("play", "monitor")),
    "play": _Page("Play MIDI files.", _GONE, False, (_TOKEN, _INTERFACES), ("record", "ports")),
    "record": _Page(
        "Record what is heard as a MIDI file.",
        f"{_GONE}; what came is saved",
        True,
        (_TOKEN, _INTERFACES),
        ("play", "ports"),
    ),
    "ping": _Page(
        "Measure how late notes arrive, and say what that means.",
        f"{_GONE}, or no answers came any more",
        False,
        (_TOKEN, _INTERFACES),
        ("monitor",),
    ),
}

_VARIABLES = {
    _BROKER: "The broker to join other hubs through, or several with commas between, where no option says.",
    _TOKEN: "The token to show, or that serve asks for, where no option gives one.",
    _INTERFACES: "Addresses of this machine, with commas between: servers announce themselves and are looked "
    "for there alone. 127.0.0.1 is this machine by itself.",
}


def _epilog(page: _Page | None) -> str:
    """The end of a help page: the verb's, or with None that of the whole command."""
    statuses = {
        "0": "It did what was asked" + ("; SIGTERM ended it." if page and page.is_stopped else "."),
        "1": f"It began, and then {page.went_wrong if page else 'the other side went away'}.",
        "2": "It could not begin: a wrong option, nobody there, a file or device that cannot be used.",
        "130": "Ctrl-C ended it" + ("." if page and page.is_stopped else "; 143: SIGTERM did."),
    }
    if page and not page.went_wrong:
        del statuses["1"]
    reads = _VARIABLES if page is None else page.reads
    parts = [_listed("Exit status:", statuses)]
    if reads:
        parts.append(_listed("Environment:", {name: _VARIABLES[name] for name in reads}))
    if page:
        parts.append("See also: " + ", ".join(f"midinet {verb}" for verb in page.see_also) + ".")
    return "\n\n".join(parts)


def _listed(title: str, items: dict[str, str]) -> str:
    """Return a title and a list, wrapped as click wraps its own; the \\b has it leave that alone."""
    width = max(map(len, items)) + 4
    lines = []
    for name, text in items.items():
        begin = f"  {name}".ljust(width)
        lines += textwrap.wrap(text, 76, initial_indent=begin, subsequent_indent=" " * width)
    return "\n".join(["\b", title, *lines])


class _Verbs(TyperGroup):
    """Knows the verbs, of which only one that is used has to be imported."""

    def list_commands(self, context: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, context: Any, name: str) -> Any:
        """Return what can be listed of a verb."""
        return TyperCommand(name, help=VERBS[name].summary) if name in VERBS else None

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        """Return the name of a verb, the verb itself, and its arguments."""
        name, listed, rest = super().resolve_command(context, arguments)
        return name, _imported(name) if name in VERBS else listed, rest


def _imported(name: str) -> Any:
    module = importlib.import_module(f".{name}", __package__)
    verb = typer.Typer(add_completion=False, **_PLAIN)
    verb.command(name, epilog=_epilog(VERBS[name]))(getattr(module, f"{name}_command"))
    command: Any = typer.main.get_command(verb)
    for one in command.params:
        if one.param_type_name == "argument":
            # Newer versions of typer have "{HOST:PORT}" and "HOST:PORT <str>", which say nothing more.
            one.get_usage_pieces = partial(_usage_of, one)
            one.display_type_rich = lambda ctx: None
    return command


def _usage_of(argument: Any, context: Any) -> list[str]:
    usage = argument.metavar if argument.required else f"[{argument.metavar}]"
    return [usage if argument.nargs == 1 else f"{usage}..."]


app = typer.Typer(name="midinet", cls=_Verbs, **_PLAIN)

# typer 0.12 has click beside it, later ones have it within: its class is found without naming either.
_UsageError = cast(
    "type[typer.BadParameter]",
    next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"midinet {__version__}")
        typer.echo(
            f"Python {platform.python_version()} ({platform.python_implementation()}), "
            f"{platform.system()} {platform.release()}, {platform.machine()}"
        )
        typer.echo(", ".join(f"{package} {_version_of(package)}" for package in _PACKAGES))
        raise typer.Exit


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@app.callback(invoke_without_command=True, epilog=_epilog(None))
def midinet(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version, and those of what it runs on, and exit.",
        ),
    ] = False,
) -> None:
    """MIDI over TCP: a hub for many programs and instruments, and what to use it with.

    Every verb has a help page of its own, with all its options and examples: midinet VERB --help.

    \b
    Example:
      midinet serve                                in one terminal,
      midinet monitor localhost:8080               in another, and in a third
      midinet send localhost:8080 note_on note=60

    \b
    Addresses:
      localhost:8080, studio.local:8080, 192.168.1.5:8080, [::1]:8080
                     a host and a port number
      :8080          for serve: every interface; elsewhere: this machine
      midi://studio  a server that announces itself by that name; the verb ports
                     shows which there are
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _command_of(arguments: list[str] | None) -> str:
    """The command whose help to see, where the error does not say: typer's parser knows no verbs."""
    first = next(iter(sys.argv[1:] if arguments is None else arguments), None)
    return f"midinet {first}" if first in VERBS else "midinet"


def run_app(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: what follows the program's name; None is the process's own.
    """
    try:
        status: Any = app(arguments, prog_name="midinet", standalone_mode=False)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else _command_of(arguments)
        return complain(f"{error.format_message().rstrip('.')}: see {command} --help")
    except Complaint as error:
        return complain(str(error), error.status)
    except MidinetError as error:
        return complain(str(error))
    except typer.Abort:
        # A Ctrl-C between two verbs' own handlers.
        return 130
    return int(status or 0)
