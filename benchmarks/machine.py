"""The machine that a benchmark ran on: its facts in one line, and which core does what.

Servers are pinned to one core and the load to another, where the system can do that and has two: otherwise
the scheduler moves them about, and the same program gives two different figures.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path


def facts() -> str:
    """Return one line: processor, cores, system, Python, mido, midinet and the date."""
    return ", ".join(
        [
            f"{_processor()} ({os.cpu_count()} cores)",
            f"{platform.system()} {platform.release()}",
            f"{platform.python_implementation()} {platform.python_version()}",
            f"mido {version('mido')}",
            f"midinet {version('midinet')}",
            time.strftime("%Y-%m-%d %H:%M"),
        ]
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def choose_cores() -> tuple[int, int] | None:
    """Return one core for servers and one for the load, or None where that is not possible."""
    if sys.platform != "linux":
        return None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) >= 2 else None


def pin(core: int) -> None:
    """Keep this process on one core."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, in seconds, or None where it cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # User and system time are the 14th and 15th field of the line, of which the first two are cut off here.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
