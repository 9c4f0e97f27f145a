"""The machine that a benchmark ran on: its facts, what is installed there, and which core does what.

Servers are pinned to one core and the load to another, where the system can do that and has two: otherwise
the scheduler moves them about, and the same program gives two different figures.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Modules and programs that are measured where they are installed, and how a program is asked its version.
_MODULES = ("mido", "midinet", "nats-py", "uvloop", "websockets")
_PROGRAMS = {"nats-server": "--version", "mosquitto": "-h", "ncat": "--version"}

# Seconds.
_MAX_ANSWER_S = 5.0


def facts() -> str:
    """Return one line: processor, cores, system, Python, mido, midinet, the date and how busy it is."""
    return ", ".join(
        [
            hardware(),
            f"{platform.python_implementation()} {platform.python_version()}",
            f"mido {version('mido')}",
            f"midinet {version('midinet')}",
            now(),
            load_average(),
        ]
    )


def hardware() -> str:
    """Return processor, cores and system."""
    return f"{_processor()} ({os.cpu_count()} cores), {platform.system()} {platform.release()}"


def now() -> str:
    """Return the date and the time."""
    return time.strftime("%Y-%m-%d %H:%M")


def load_average() -> str:
    """Return how busy the machine was in the last minute."""
    return f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load average unknown"


def versions() -> dict[str, str]:
    """Return the versions of what is measured, as far as it is installed."""
    found = {platform.python_implementation(): platform.python_version()}
    for module in _MODULES:
        try:
            found[module] = version(module)
        except PackageNotFoundError:
            pass
    for program, question in _PROGRAMS.items():
        if shutil.which(program):
            asked = subprocess.run(
                [program, question],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=_MAX_ANSWER_S,
            )
            number = re.search(r"\d+(\.\d+)+", asked.stdout)
            found[program] = number[0] if number else "unknown"
    return found


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


def memory_kib(pid: int) -> float | None:
    """Return the memory that a process has at present, in KiB, or None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, in seconds, or None where it cannot be read."""
    if sys.platform != "linux":
        return None
    try:
        # The number of another process's clock, as clock_getcpuclockid makes it: to the nanosecond, while
        # /proc has hundredths of a second.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None
