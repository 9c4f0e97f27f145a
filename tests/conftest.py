"""Every test leaves tasks, threads and descriptors as it found them, or fails."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from midinet.sync.portal import get_portal
from tests.harness.forks import ForkServer
from tests.harness.jack import Instrument, Jack, alone, need_jack
from tests.harness.needs import EVERYTHING

# What a person has set for terminals and for midinet's commands is not for those of the tests, which set what
# they are about.
_SET_BY_PEOPLE = re.compile(
    r"(LC_.*|LANG|LANGUAGE|COLUMNS|LINES|TERM|COLORTERM|NO_COLOR|(FORCE|CLICOLOR).*|TTY_.*|MIDINET_(?!TEST_).*"
    r"|MIDO_.*|PYTHON(UTF8|IOENCODING|WARNINGS|UNBUFFERED|OPTIMIZE|DEVMODE))"
)
for _name in filter(_SET_BY_PEOPLE.fullmatch, tuple(os.environ)):
    del os.environ[_name]
os.environ.update(LANG="C.UTF-8", TERM="xterm-256color")

# How long an example takes says nothing of what is tested: hypothesis allows 0.2 s for each, and so much for
# making them, which a busy machine under coverage exceeds.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The quick suite says the same of the same code each time; the full one looks at other examples in each run.
settings.register_profile("quick", _PATIENT, derandomize=True, database=None)
settings.register_profile("full", _PATIENT, derandomize=False)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "not full":
        settings.load_profile("full")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    # Half of the time a test waits for a socket or a process.
    return 2 * (os.cpu_count() or 1)


def pytest_itemcollected(item: pytest.Item) -> None:
    # Servers of JACK wait for each other, so a run has one, in one worker. pytest-xdist reads the marker
    # before the hooks of a conftest.py that change the collection.
    if "jack" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group("jack"))


def _do_nothing(number: int, frame: object) -> None:
    pass


def pytest_sessionstart() -> None:
    # What nohup or a shell's & has this process ignore, the programs that tests start would ignore too, and
    # could not be interrupted. A handler of this process's own is not handed on.
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    # The loop of the blocking ports stays for the whole process; started here, it is no test's leak.
    get_portal()
    try:
        import uvloop
    except ImportError:
        return
    # It opens a pipe for the whole process at its first loop.
    uvloop.new_event_loop().close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line for each reason how many tests were skipped."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple))
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail where everything has to be there, and something was skipped for want of it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(EVERYTHING) and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# Seconds, many times what it takes.
_PRINTER_S = 2.0

# Descriptors that are there until the last test: no single one's.
_KEPT: set[str] = set()


def _descriptors() -> set[str]:
    if not os.path.isdir("/proc/self/fd"):
        return set()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            pass  # The one that lists the directory.
    return found - _KEPT


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("midinet l")}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEFORE] = (_descriptors(), _threads())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    result = yield
    descriptors, threads = item.stash[_BEFORE]
    if _descriptors() - descriptors:
        gc.collect()
    for thread in threading.enumerate():
        # It ends by itself after what it was printing, and nobody waits for it.
        if thread.name == "midinet printer":
            thread.join(_PRINTER_S)
    assert not (left := _threads() - threads), f"threads were left running: {sorted(left)}"
    assert not (left := _descriptors() - descriptors), f"descriptors were left open: {sorted(left)}"
    return result


_BEFORE = pytest.StashKey[tuple[set[str], set[str]]]()


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    # A connection that just ended may still be telling its last callbacks.
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, "tasks were left running"


@pytest.fixture(autouse=True)
def _no_task_left_in_async_tests(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A fork server, which starts commands."""
    before = _descriptors()
    server = ForkServer()
    _KEPT.update(_descriptors() - before)
    yield server
    server.close()


@pytest.fixture(scope="session")
def _jack_server() -> Iterator[Jack]:
    before = _descriptors()
    need_jack()
    with alone():
        server = Jack()
    _KEPT.update(_descriptors() - before)
    yield server
    with alone():
        server.end()


@pytest.fixture
def jack(_jack_server: Jack) -> Iterator[Jack]:
    """A JACK server, while all others of tests are still."""
    with alone():
        yield _jack_server


@pytest.fixture
def plug(jack: Jack) -> Iterator[Callable[..., Instrument]]:
    """Plugs in instruments, which are gone after the test."""
    plugged: list[Instrument] = []

    def plug(name: str, *, plays: bool = True, sounds: bool = True) -> Instrument:
        plugged.append(jack.plug(name, plays=plays, sounds=sounds))
        return plugged[-1]

    yield plug
    for instrument in plugged:
        instrument.begin_unplug()
    for instrument in plugged:
        instrument.unplug()
