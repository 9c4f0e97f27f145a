"""Runs all benchmark programs, one after another, each in a process of its own: none is to find what another
left in memory, or the core that it chose."""

from __future__ import annotations

import argparse
import subprocess
import sys

from . import PROGRAMS, __doc__, servers


def main(argv: list[str] | None = None) -> int:
    """Run the programs. Returns their exit codes' first that is not 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="All other options go to every program.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # What is not known is passed on, and so is what it might be short for.
        allow_abbrev=False,
    )
    parser.add_argument(
        "--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, metavar="PROGRAM", help="run these alone"
    )
    options, others = parser.parse_known_args(argv)
    codes = []
    for program in options.only:
        print(f"\n=== {program} ===\n", flush=True)
        words = [sys.executable, "-m", f"benchmarks.{program}", *others]
        codes.append(subprocess.run(words, cwd=servers.ROOT).returncode)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
