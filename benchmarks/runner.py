"""The runner of all benchmarks: options, rounds, contenders in turn, tables, and what is saved.

A benchmark is a module that says which tables it fills and what one round of it is; where it compares
contenders, what one round of one of them is. Everything else is done here.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import machine
from .contenders import Contender, choose
from .table import Table

RESULTS = Path(__file__).resolve().parent / "results"

Size = int | float | list[int]

# Takes what is saved, returns SVG texts by name.
Draw = Callable[[Mapping[str, Any]], Mapping[str, str]]

# Seconds. Far beyond what any one measurement takes, on a slow machine too.
MAX_MEASUREMENT_S = 120.0

# Digits of a number that is saved: more than any of these figures is worth.
_DIGITS = 6


class NothingToMeasureError(Exception):
    """A need that the whole benchmark has and this machine does not meet; the text names it."""


class OptionError(Exception):
    """Options that cannot be; the text says so in one line."""


class Benchmark:
    """A benchmark program.

    Args:
        name: the module that is run.
        description: what is measured, in which unit and how, for `--help`.
        tables: takes the options, returns the tables that are filled.
        measure: measures one round of everything: takes the options and the tables. Of a benchmark that
            compares contenders it measures one round of one, which is the first argument. It may raise
            OSError or RuntimeError: then the contender is noted to have failed, and the others are measured.
        contenders: the names of those that can be measured; None where there are none.
        draw: makes plots of what is saved.
        once: whether `measure` goes through the rounds by itself.
    """

    def __init__(
        self,
        name: str,
        description: str | None,
        tables: Callable[[argparse.Namespace], Sequence[Table]],
        measure: Callable[..., None],
        *,
        contenders: Sequence[str] | None = None,
        draw: Draw | None = None,
        once: bool = False,
    ) -> None:
        self.name = name.rpartition(".")[2]
        self._tables = tables
        self._measure = measure
        self._draw = draw
        self._once = once
        self._has_contenders = contenders is not None
        self._parser = argparse.ArgumentParser(
            prog=f"python -m {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        flag = self._parser.add_argument
        flag("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
        unpinned = "let the system choose the cores (default: one for each)"
        flag("--unpinned", action="store_true", help=unpinned)
        saved = "write what was measured to a directory too (default: benchmarks/results)"
        flag("--save", type=Path, nargs="?", const=RESULTS, metavar="DIRECTORY", help=saved)
        # By option: the full default and the quick one.
        self._sizes: dict[str, tuple[Size, Size]] = {}
        self.size("rounds", 5, 1, "rounds of every measurement, medians are shown")
        if contenders is not None:
            self.choice("only", contenders, "who is measured (default: all)")

    def size(self, name: str, full: Size, quick: Size, help: str) -> None:
        """Add an option for a number or a list of numbers, with its default and its quick default."""
        self._sizes[name] = full, quick
        if isinstance(full, list):
            shown = " ".join(map(str, full))
            self._parser.add_argument(f"--{name}", type=int, nargs="+", help=f"{help} (default: {shown})")
        else:
            self._parser.add_argument(f"--{name}", type=type(full), help=f"{help} (default: {full:,})")

    def choice(self, name: str, among: Sequence[str], help: str) -> None:
        """Add an option for some of several words; without it, it is all of them."""
        self._parser.add_argument(
            f"--{name}", nargs="+", choices=among, default=list(among), metavar="NAME", help=help
        )

    def options(self, argv: list[str] | None = None) -> argparse.Namespace:
        """Return the options, with their defaults and with the cores that are used.

        Args:
            argv: the words; None is the command line's.

        Raises:
            SystemExit: they cannot be, or help was asked for.
        """
        options = self._parser.parse_args(argv)
        for name, (full, quick) in self._sizes.items():
            if getattr(options, name) is None:
                setattr(options, name, quick if options.quick else full)
            value = getattr(options, name)
            if min(value if isinstance(value, list) else [value]) <= 0:
                self._parser.error(f"--{name} has to be above 0")
        options.cores = None if options.unpinned else machine.choose_cores()
        return options

    def run(self, argv: list[str] | None = None) -> int:
        """Read the options, measure, print and save.

        Returns:
            The exit code. Where NothingToMeasureError is raised it is 0 too: one line says what is missing,
            and nothing is saved.
        """
        options = self.options(argv)
        before = machine.load_average()
        try:
            tables = self._tables(options)
            print(machine.facts(), flush=True)
            if options.cores:
                print(f"servers on core {options.cores[0]}, load on core {options.cores[1]}", flush=True)
                machine.pin(options.cores[1])
            self._go_through(options, tables)
        except OptionError as error:
            self._parser.error(str(error))
        except NothingToMeasureError as missing:
            print(f"nothing is measured: {missing}")
            return 0
        for table in tables:
            print(f"\n{table.render()}", flush=True)
        if options.save is not None:
            self._save(options, before, tables)
        return 0

    def _go_through(self, options: argparse.Namespace, tables: Sequence[Table]) -> None:
        contenders: list[Contender] = []
        if self._has_contenders:
            contenders, tables[0].notes = choose(options.only)
        for number in range(1 if self._once else options.rounds):
            for table in tables:
                table.number = number
            if not self._has_contenders:
                self._measure(options, *tables)
            for contender in contenders:
                try:
                    self._measure(contender, options, *tables)
                except (OSError, RuntimeError) as error:
                    # The others are still worth to be measured.
                    tables[0].notes.append(f"{contender.name} failed in round {number + 1}: {error}.")

    def _save(self, options: argparse.Namespace, before: str, tables: Sequence[Table]) -> None:
        """Write what was measured to NAME.json, NAME.md and, for each plot, NAME-PLOT.svg.

        Plots are drawn of what is in the JSON and nothing else, so they can be drawn anew from it.
        """
        saved = {
            "program": self.name,
            "date": machine.now(),
            "machine": machine.hardware(),
            "load_average_before": before,
            "versions": machine.versions(),
            "options": {name: value for name, value in vars(options).items() if name != "save"},
            "tables": [
                {
                    "title": table.title,
                    "columns": table.titles,
                    "rows": _rounded(table.rows()),
                    "notes": table.notes,
                    "rounds": _rounded(table.saved_rounds()),
                }
                for table in tables
            ],
        }
        options.save.mkdir(parents=True, exist_ok=True)
        _write(options.save / f"{self.name}.json", json.dumps(saved, indent=1))
        command = f"`python -m benchmarks.{self.name}`; {', '.join(foot(saved))}."
        texts = [*(table.markdown() for table in tables), command]
        _write(options.save / f"{self.name}.md", "\n\n".join(texts))
        if self._draw is None:
            return
        if not has_matplotlib():
            print("\nNo plot is drawn: matplotlib is not installed (pip install 'midinet[bench]').")
            return
        for plot, text in self._draw(saved).items():
            (options.save / f"{self.name}-{plot}.svg").write_text(text, encoding="utf-8")


def has_matplotlib() -> bool:
    """Return whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def foot(saved: Mapping[str, Any]) -> list[str]:
    """Return where and when it was measured, and the versions: what stands below a table or a plot."""
    where = ", ".join([saved["machine"], saved["load_average_before"] + " before", saved["date"]])
    return [where, ", ".join(f"{name} {version}" for name, version in saved["versions"].items())]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _write(file: Path, text: str) -> None:
    file.write_text(text + "\n", encoding="utf-8")


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


def cpu_us(before: float | None, after: float | None, messages: int) -> float | None:
    """Return the processor time for each of so many messages, in µs; None where it is not known."""
    if before is None or after is None or not messages:
        return None
    return (after - before) / messages * 1e6
