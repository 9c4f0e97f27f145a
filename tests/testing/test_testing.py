"""Pairs of ports for the tests of other programs, by hand and as pytest's fixtures."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from mido import Message

import midinet
from midinet import PortClosed, UsageError, sync
from midinet.sync.portal import get_portal
from midinet.testing import pair
from tests.harness.waiting import PATIENCE_S

pytest_plugins = "pytester"

NOTE_ON = Message("note_on", note=60, velocity=100)
RELEASED = Message("note_off", note=60, velocity=64)


async def test_an_async_block_gives_two_async_ports() -> None:
    async with asyncio.timeout(PATIENCE_S), pair() as (ours, theirs):
        assert type(ours) is type(theirs) is midinet.SocketPort
        await ours.send(NOTE_ON)
        assert await theirs.receive() == NOTE_ON
        await theirs.send(NOTE_ON)
        assert await ours.receive() == NOTE_ON
    assert ours.closed
    assert list(theirs.iter_pending()) == [RELEASED]


def test_a_plain_block_gives_two_blocking_ports() -> None:
    with pair() as (ours, theirs):
        assert type(ours) is type(theirs) is sync.SocketPort
        ours.send(NOTE_ON)
        assert theirs.receive() == NOTE_ON
        theirs.send(NOTE_ON)
        assert ours.receive() == NOTE_ON
        assert ours.ping() > 0
        assert ours.poll() is None
        ours.close()
        assert list(theirs) == [RELEASED]
        with pytest.raises(ValueError, match="closed"):
            theirs.send(NOTE_ON)
    assert ours.closed
    assert theirs.closed
    # There may be others, which an earlier test left to end by themselves.
    assert not {ours._port, theirs._port} & get_portal().opened.keys()


def test_a_flood_between_blocking_ports_loses_nothing() -> None:
    sent = [Message("note_on", note=number % 128, channel=number % 16) for number in range(20_000)]
    with pair(max_inbox=16) as (ours, theirs):

        def play() -> None:
            for message in sent:
                ours.send(message)

        player = threading.Thread(target=play)
        player.start()
        assert [theirs.receive() for _ in sent] == sent
        player.join()


def test_blocking_ports_that_are_forgotten_are_closed() -> None:
    async def opened() -> set[Any]:
        return set(get_portal().opened)

    with pair() as ports:
        assert {port._port for port in ports} <= get_portal().run(opened())
    with pair() as ports:
        ours, _ = ports
        del _, ports
    with pytest.raises(ValueError, match="closed"):
        ours.send(NOTE_ON)


def test_an_error_in_the_block_closes_the_ports_and_goes_on() -> None:
    with pytest.raises(ZeroDivisionError), pair() as (ours, theirs):
        raise ZeroDivisionError
    assert ours.closed
    assert theirs.closed


async def test_options_are_those_of_a_connection() -> None:
    async with pair(max_sysex=4) as (ours, theirs):
        await ours.send(Message("sysex", data=[1, 2, 3]))
        await ours.send(NOTE_ON)
        assert await theirs.receive() == NOTE_ON
    with pair(sysex=False) as (ours, theirs):
        ours.send(Message("sysex", data=[1]))
        ours.send(NOTE_ON)
        assert theirs.receive() == NOTE_ON


def test_wrong_options_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        pair(no_such_option=True)
    with pytest.raises(ValueError, match="max_sysex"):
        pair(max_sysex=0)


async def test_a_pair_is_opened_once() -> None:
    both = pair()
    async with both as (ours, _):
        with pytest.raises(UsageError, match=r"write pair\(\) again"), both:
            pass
        await ours.send(NOTE_ON)
    with pytest.raises(PortClosed):
        await ours.send(NOTE_ON)


# In a project of its own.

INI = """
[pytest]
filterwarnings = error
{}
"""

BLOCKING = """
    from mido import Message

    def test_a_note(midinet_pair):
        ours, theirs = midinet_pair
        ours.send(Message("note_on", note=60))
        assert theirs.receive().note == 60
"""

ASYNC = """
    from mido import Message

    async def test_a_note(midinet_async_pair):
        ours, theirs = midinet_async_pair
        await ours.send(Message("note_on", note=60))
        assert (await theirs.receive()).note == 60
"""

# Passes on what its port gets from a server, an octave higher, and is tested without one.
PROGRAM = """
    import asyncio
    import pytest
    import pytest_asyncio
    from mido import Message

    async def octave_up(port):
        async for message in port:
            await port.send(message.copy(note=message.note + 12))

    @pytest_asyncio.fixture
    async def musician(midinet_async_pair):
        ours, theirs = midinet_async_pair
        task = asyncio.create_task(octave_up(theirs))
        yield ours
        task.cancel()

    @pytest.mark.asyncio
    async def test_an_octave(musician):
        await musician.send(Message("note_on", note=60))
        assert (await musician.receive()).note == 72
"""


# A process of its own takes a second; what is different there is how pytest finds the plugin.
@pytest.mark.parametrize("way", ["inprocess", pytest.param("subprocess", marks=pytest.mark.full)])
def test_a_project_gets_a_fixture_of_two_blocking_ports(pytester: pytest.Pytester, way: str) -> None:
    pytester.makeini(INI.format(""))
    pytester.makepyfile(BLOCKING)
    run = pytester.runpytest_inprocess if way == "inprocess" else pytester.runpytest_subprocess
    run("-p", "no:asyncio").assert_outcomes(passed=1)


@pytest.mark.parametrize(("mode", "program"), [("auto", ASYNC), ("strict", PROGRAM)])
def test_a_project_gets_a_fixture_of_two_async_ports(
    pytester: pytest.Pytester, mode: str, program: str
) -> None:
    pytester.makeini(INI.format(f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function"))
    pytester.makepyfile(program)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_without_pytest_asyncio_the_async_fixture_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a_note(midinet_async_pair): pass")
    result = pytester.runpytest_inprocess("-p", "no:asyncio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["midinet_async_pair needs pytest-asyncio: pip install pytest-asyncio*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_the_fixtures_are_listed_with_what_they_are(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format("asyncio_default_fixture_loop_scope = function"))
    result = pytester.runpytest_inprocess("--fixtures")
    result.stdout.fnmatch_lines(["midinet_pair -- *", "    Two blocking ports*"])
    result.stdout.fnmatch_lines(["midinet_async_pair -- *", "    Two async ports*"])
