from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midinet.wire.aside import Aside, AsideReader
from midinet.wire.parser import Parser
from tests.fuzz import fuzz_asides, fuzz_parser, seed_inputs

TARGETS = pytest.mark.parametrize("target", [fuzz_parser, fuzz_asides], ids=["parser", "asides"])

# For each target. By hand it is minutes, see tests/fuzz/__init__.py.
SECONDS = 5


def check_seeds(target: ModuleType) -> None:
    inputs = seed_inputs(target.SEEDS)
    assert len(inputs) == 2 * len(target.SEEDS)
    for data in inputs:
        target.check(data)


@TARGETS
def test_what_the_fuzzer_begins_with_holds(target: ModuleType) -> None:
    check_seeds(target)
    target.check(b"")
    target.check(b"\0")


@st.composite
def mutants(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """What the fuzzer begins with, but for a few bytes here and there."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


@TARGETS
def test_nothing_fails_near_what_the_fuzzer_begins_with(target: ModuleType) -> None:
    @settings(max_examples=60)
    @given(mutants(seed_inputs(target.SEEDS)))
    def check(data: bytes) -> None:
        target.check(data)

    check()


@pytest.mark.full
@TARGETS
def test_nothing_fails_that_the_fuzzer_finds_in_a_few_seconds(target: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: there is none for this Python or platform")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            target.__name__,
            f"-max_total_time={SECONDS}",
            "-seed=1",
            f"-artifact_prefix={tmp_path}/",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    done = re.search(r"^Done (\d+) runs", run.stderr, re.MULTILINE)
    assert done is not None
    assert int(done[1]) > len(seed_inputs(target.SEEDS))
    assert not list(tmp_path.iterdir())


# That the targets can fail.


class Forgetful(Parser):
    """Its running status is lost at the end of a chunk."""

    def frames(self, data: Any) -> list[bytes]:
        if not self._held:
            self._status = 0
        return super().frames(data)


class Uncounting(Parser):
    def _take_stray_data(self, data: bytes, frames: list[bytes]) -> None:
        pass


class Hoarding(Parser):
    def _extend_sysex(self, sysex: bytearray, data: bytes) -> None:
        sysex += data


class Raising(Parser):
    def _take_status(self, status: int, frames: list[bytes]) -> None:
        raise ValueError


@pytest.mark.parametrize("parser", [Forgetful, Uncounting, Hoarding, Raising])
def test_a_parser_that_breaks_a_promise_is_found_out(
    parser: type[Parser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_parser, "Parser", parser)
    with pytest.raises((AssertionError, ValueError)):
        check_seeds(fuzz_parser)


def test_an_aside_that_holds_too_much_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midinet.wire.aside.MAX_ASIDE_BYTES", 2048)
    with pytest.raises(AssertionError):
        check_seeds(fuzz_asides)


def test_an_aside_that_is_not_well_formed_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: AsideReader, text: bytes) -> Aside:
        self.stats.asides += 1
        return Aside("PING", headers={"id": text.decode()})

    monkeypatch.setattr(AsideReader, "_read", read)
    with pytest.raises(AssertionError):
        check_seeds(fuzz_asides)
