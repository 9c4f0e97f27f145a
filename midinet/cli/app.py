"""The verbs put together to one command, and wrong usage turned into one line."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import typer

from .. import __version__
from ..errors import MissingExtra
from .common import Complaint, complain
from .demo import demo_command
from .monitor import monitor_command
from .play import play_command
from .record import record_command
from .send import send_command
from .serve import serve_command

# Plain help, not rich's boxes: it reads the same in a pipe, and starts a tenth of a second sooner.
app = typer.Typer(
    name="midinet",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve_command)
app.command("monitor")(monitor_command)
app.command("send")(send_command)
app.command("play")(play_command)
app.command("record")(record_command)
app.command("demo")(demo_command)

# typer 0.12 has click beside it, later ones have it within: its class is found without naming either.
_UsageError = cast(
    "type[typer.BadParameter]",
    next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"midinet {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def midinet(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    """MIDI over TCP: a hub for many programs and instruments, and what to use it with.

    \b
    Example:
      midinet serve                          in one terminal,
      midinet monitor localhost:8080         in another,
      midinet send localhost:8080 note_on note=60
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def _command_of(arguments: list[str] | None) -> str:
    """The command whose help to see, where the error does not say: typer's parser knows no verbs."""
    first = next(iter(sys.argv[1:] if arguments is None else arguments), None)
    verbs = {command.name for command in app.registered_commands}
    return f"midinet {first}" if first in verbs else "midinet"


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
    except MissingExtra as error:
        return complain(str(error))
    except typer.Abort:
        # A Ctrl-C between two verbs' own handlers.
        return 130
    return int(status or 0)
