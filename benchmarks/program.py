"""What all benchmark programs have in common: options, the line about the machine, what is saved, and a bound
on all waits.

A program has sizes, each with a full and a quick default, and a `measure` function that returns tables.
"""

from __future__ import annotations

import argparse
import faulthandler
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import machine, saving
from .table import Table

Size = int | float | list[int]

# Seconds. Far beyond what any one measurement takes, on a slow machine too.
MAX_MEASUREMENT_S = 120.0


class NothingToMeasureError(Exception):
    """A need that the whole measurement has and this machine does not meet; the text names it."""


class Program:
    """A benchmark program.

    Args:
        name: the module that is run.
        description: what is measured, in which unit and how, for `--help`.
    """

    def __init__(self, name: str, description: str) -> None:
        self._name = name
        self._parser = argparse.ArgumentParser(
            prog=f"python -m {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._parser.add_argument(
            "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
        )
        self._parser.add_argument(
            "--unpinned", action="store_true", help="let the system choose the cores (default: one for each)"
        )
        self._parser.add_argument(
            "--save",
            type=Path,
            nargs="?",
            const=saving.RESULTS,
            metavar="DIRECTORY",
            help="write what was measured to a directory too (default: benchmarks/results)",
        )
        # By option: the full default and the quick one.
        self._sizes: dict[str, tuple[Size, Size]] = {}
        self.size("rounds", full=5, quick=1, help="rounds of every measurement, medians are shown")

    def size(self, name: str, *, full: Size, quick: Size, help: str) -> None:
        """Add an option for a number or a list of numbers, with its default and its quick default."""
        self._sizes[name] = full, quick
        if isinstance(full, list):
            shown = " ".join(map(str, full))
            self._parser.add_argument(f"--{name}", type=int, nargs="+", help=f"{help} (default: {shown})")
        else:
            self._parser.add_argument(f"--{name}", type=type(full), help=f"{help} (default: {full:,})")

    def choice(self, name: str, *, among: Sequence[str], help: str) -> None:
        """Add an option for some of several words; without it, it is all of them."""
        self._parser.add_argument(
            f"--{name}", nargs="+", choices=among, default=list(among), metavar="NAME", help=help
        )

    def run(
        self,
        measure: Callable[[argparse.Namespace], Sequence[Table]],
        argv: list[str] | None,
        *,
        draw: saving.Draw | None = None,
    ) -> int:
        """Read the options, measure, print and save.

        Args:
            measure: returns the tables.
            argv: the options; None is the command line's.
            draw: makes plots of what is saved.

        Returns:
            The exit code. Where `measure` raises NothingToMeasureError it is 0 too: one line says what is
            missing, and nothing is saved.
        """
        options = self._parser.parse_args(argv)
        for name, (full, quick) in self._sizes.items():
            if getattr(options, name) is None:
                setattr(options, name, quick if options.quick else full)
            value = getattr(options, name)
            if min(value if isinstance(value, list) else [value]) <= 0:
                self._parser.error(f"--{name} has to be above 0")
        options.cores = None if options.unpinned else machine.choose_cores()
        before = machine.load_average()
        print(machine.facts(), flush=True)
        if options.cores:
            print(f"servers on core {options.cores[0]}, load on core {options.cores[1]}", flush=True)
            machine.pin(options.cores[1])
        try:
            tables = measure(options)
        except NothingToMeasureError as missing:
            print(f"nothing is measured: {missing}")
            return 0
        for table in tables:
            print()
            print(table.render(), flush=True)
        if options.save is not None:
            shown = {name: value for name, value in vars(options).items() if name != "save"}
            saving.save(options.save, self._name.rpartition(".")[2], before, shown, tables, draw)
        return 0


@contextmanager
def bounded(seconds: float = MAX_MEASUREMENT_S) -> Iterator[None]:
    """End the program, with a traceback on standard error, if this block takes longer.

    It also ends what no timeout reaches, such as mido's blocking `receive`. The servers end by themselves
    when this process does.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
