"""`midinet` and `python -m midinet`: the command line, or one line that says what it needs."""

from __future__ import annotations

import sys

from .errors import MissingExtra

# What the extra `cli` brings. Another missing module is a fault, and has to look like one.
_CLI_PACKAGES = {"typer", "rich", "click"}


def main() -> int:
    """Run the command line on the process's arguments and return its exit status."""
    try:
        try:
            import rich  # noqa: F401  only some verbs use it, but a half-working command line helps nobody

            from .cli.app import run_app
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _CLI_PACKAGES:
                raise
            print(f"midinet: {MissingExtra('cli', 'the command line')}", file=sys.stderr)
            return 2
        return run_app()
    except KeyboardInterrupt:
        # Before a verb has begun, or after it has ended: within one, `cli.common.run` sees to it.
        return 130


if __name__ == "__main__":
    sys.exit(main())
