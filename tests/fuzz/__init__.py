"""Targets for atheris, and what they have in common.

A target is a module with SEEDS, where the fuzzer begins, and `check`, which takes any bytes and fails when
what it promises does not hold. By hand, for as long as one likes:

    python -m tests.fuzz.fuzz_parser -max_total_time=60
    python -m tests.fuzz.fuzz_asides -max_total_time=60

Options are libFuzzer's; a folder among them is where inputs worth keeping are read from and written to. An
input that fails is written to `crash-...` in the current folder, and given as an argument it is tried again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType

# The last bytes of an input say how it is used, so that what is before them stays a stream: the limit of a
# system exclusive message, and the sizes of the chunks.
CONTROLS = 6

# Limits worth trying: the least there is, around the length of the seeds' messages, and one never reached.
_LIMITS = (2, 3, 4, 5, 8, 16, 64, 65536)


def controls(data: bytes) -> tuple[bytes, int, list[int]]:
    """Part an input into the stream, a `max_sysex` and at least one size of a chunk, in bytes."""
    stream, said = data[:-CONTROLS], data[-CONTROLS:].ljust(CONTROLS, b"\0")
    return stream, _LIMITS[said[0] % len(_LIMITS)], [1 + size for size in said[1:]]


def chunks(stream: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut a stream into chunks of these sizes, over and over."""
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        yield stream[at : at + size]
        at += size
        turn += 1


def seed_inputs(seeds: Sequence[bytes]) -> list[bytes]:
    """The seeds as inputs: each in one chunk, and by the byte."""
    return [seed + said for seed in seeds for said in (b"\x07" + b"\xff" * 5, b"\x04" + b"\0" * 5)]


def fuzz(check: Callable[[bytes], None], seeds: Sequence[bytes]) -> None:
    """Fuzz with the options of the command line. It ends the process."""
    import atheris

    with tempfile.TemporaryDirectory(prefix="midinet-fuzz-") as folder:
        for number, data in enumerate(seed_inputs(seeds)):
            (Path(folder) / f"seed-{number}").write_bytes(data)
        # Of several folders libFuzzer writes to the first, and a single file is tried instead of all else.
        given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        arguments = sys.argv if any(Path(path).is_file() for path in given) else [*sys.argv, folder]
        for function in _functions("midinet.wire"):
            atheris.instrument_func(function)
        atheris.Setup(arguments, check)
        atheris.Fuzz()


def _functions(package: str) -> Iterator[FunctionType]:
    """What of a package is loaded and has paths for the fuzzer to tell apart."""
    for module in [module for name, module in sys.modules.items() if name.startswith(package)]:
        for thing in list(vars(module).values()):
            for function in (thing, *(vars(thing).values() if isinstance(thing, type) else ())):
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    yield function
