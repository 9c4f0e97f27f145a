"""The promises that have numbers are kept, in small; nothing is lost and nothing hangs.

A machine that is busy with other tests says nothing of times: so a time, a rate and a size may be ten times
what is promised, and a time of milliseconds two seconds. In full and by itself, `python -m
benchmarks.promises` holds them to what is promised.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.promises import BENCHMARK
from tests.promises import PARTS
from tests.promises.finding import Finding

# By part, what is measured, in order.
PROMISES = {
    "notes": [
        *(
            f"note-offs when a client {end}, {count} listening"
            for count in (1, 2)
            for end in ("resets", "closes", "is killed")
        ),
        "note-offs in a client whose server is killed",
    ],
    "slow": [
        "one stalled among 32 readers adds to the others' 99 %",
        *(
            f"8 stalled readers cost, {what} at full speed{system}"
            for what in ("all channels", "sysex")
            for system in ("", ", with the system's buffers")
        ),
        "99 % of 6 peers sending 100/s beside a flood",
        "... of which lost",
        "... what the flood came to",
        "max_rate=20,000",
    ],
    "back": [
        "10 clients back once a server listens again, gone for 0.5 s",
        "... how long it was, gone for 0.5 s",
        "... the most in any 100 ms, gone for 0.5 s",
        "first try of 10 clients whose server resets them",
        "... the most in any 100 ms",
    ],
    "dead": [
        "active sensing that falls silent",
        "a stopped process is let go of, dead_peer_timeout=2",
        "a vanished host is let go of, idle, dead_peer_timeout=2",
        "a vanished host is let go of, with data under way, dead_peer_timeout=2",
    ],
    "door": [
        "a good client is in beside 20 that drip and 10 stalled TLS handshakes",
        "... with TLS",
        "... when it came behind all of them at once",
        "... until the last of the bad is gone",
        "out of descriptors, from the first free one to accepting",
    ],
    "end": [
        "SIGTERM to the end, with 32 that read and one that does not",
        "... notes left hanging at those who read",
    ],
    "memory": [
        "memory after 80 connects and disconnects",
        "... descriptors and threads",
        "memory after 20 with TLS",
        "... descriptors and threads, with TLS",
        "... together",
    ],
}

# By unit, what may come at most where the least bound would be below it.
_WIDE = {"ms": 2_000.0, "s": 2.0}


def is_about_kept(finding: Finding) -> bool:
    """Return whether every value is within ten times the bound, and within a bound of 0 itself."""
    if finding.bound is None:
        return True
    low, high = finding.bound if isinstance(finding.bound, tuple) else (float("-inf"), finding.bound)
    most = max(10 * high, _WIDE.get(finding.unit, 0.0)) if high else 0.0
    return all(low / 10 <= value <= most for value in finding.values)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="much of it is measured by what Linux alone tells")
@pytest.mark.parametrize("part", PARTS)
def test_what_is_promised_is_kept(part: str) -> None:
    if part == "end" and importlib.util.find_spec("typer") is None:
        pytest.skip("the extra cli is not installed")
    findings = list(PARTS[part](BENCHMARK.options(["--quick", "--unpinned"])))

    assert [finding.promise for finding in findings] == PROMISES[part]
    for finding in findings:
        assert finding.values or finding.why_not == "needs Linux and root"
        assert is_about_kept(finding), finding


def finding(bound: float | tuple[float, float] | None, *values: float, unit: str = "s") -> Finding:
    return Finding("", bound, values, unit=unit)


@pytest.mark.parametrize(
    ("found", "texts", "kept", "about"),
    [
        (finding(1.0, 0.5, 0.7, 1.0), ["1 s", "0.70 s", "1.00 s", "yes"], True, True),
        (finding(1.0, 0.5, 1.5), ["1 s", "1.00 s", "1.50 s", "no"], False, True),
        (finding(1.0, 10.5), ["1 s", "10.50 s", "10.50 s", "no"], False, False),
        (finding(20.0, 300.0, unit="ms"), ["20 ms", "300.0 ms", "300.0 ms", "no"], False, True),
        (finding((180, 204), 190, 100, unit="/s"), ["180 to 204 /s", "145 /s", "100 /s", "no"], False, True),
        (finding((180, 204), 10, unit="/s"), ["180 to 204 /s", "10 /s", "10 /s", "no"], False, False),
        (finding(0, 0, 1, unit=""), ["0", "0", "1", "no"], False, False),
        (finding(None, 5, unit=""), ["-", "5", "5", "-"], None, True),
        (Finding("", 2.0, unit="MiB", why_not="needs /proc"), ["2 MiB", "-", "-"], None, True),
    ],
)
def test_a_finding_is_kept_where_every_value_is(
    found: Finding, texts: Sequence[str], kept: bool | None, about: bool
) -> None:
    figures = found.figures()

    assert figures["written"] in ([*texts], [*texts, "not measured: needs /proc"])
    assert figures["kept"] is kept
    assert is_about_kept(found) is about


def test_all_that_was_found_is_shown_and_saved_and_a_part_that_fails_is_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(options: object) -> list[Finding]:
        raise ConnectionError("the server is gone")

    monkeypatch.setitem(PARTS, "notes", fail)
    monkeypatch.setitem(PARTS, "end", lambda options: iter([Finding("SIGTERM to the end", 3.0, [1.5], "s")]))
    words = ["--quick", "--unpinned", "--only", "notes", "end", "--save", str(tmp_path)]

    assert BENCHMARK.run(words) == 0

    failed, ended = capfd.readouterr().out.splitlines()[-2:]
    assert failed.split("  ")[0] == "the rest of notes"
    assert failed.endswith("not measured: it failed: the server is gone")
    assert ended.split() == ["SIGTERM", "to", "the", "end", "3", "s", "1.50", "s", "1.50", "s", "yes"]
    (table,) = json.loads((tmp_path / "promises.json").read_text(encoding="utf-8"))["tables"]
    assert table["rows"][1] == ["SIGTERM to the end", "3 s", "1.50 s", "1.50 s", "yes"]
    assert [(one["values"], one["kept"]) for one in table["rounds"]] == [([], None), ([1.5], True)]
