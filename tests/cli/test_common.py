"""Running a verb: signals, faults, and an end that does not wait for what hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from midinet import ConnectionLost, ListenError, PortClosed
from midinet.cli.common import Complaint, read_address, run


async def raising(error: BaseException) -> None:
    raise error


async def signalled(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Complaint("so it is"), 2, "so it is"),
        (Complaint("so it was", 1), 1, "so it was"),
        (ListenError(98, "the port is in use"), 2, "the port is in use"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied"),
        (ConnectionLost("the link broke"), 1, "the link broke"),
        (PortClosed("the port is closed"), 1, "the port is closed"),
        (Complaint("two\nlines"), 2, "two lines"),
    ],
)
def test_a_fault_is_one_line_and_a_status(error, status, line, capsys):
    assert run(raising(error)) == status
    assert capsys.readouterr() == ("", f"midinet: {line}\n")


def test_a_mistake_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_what_a_verb_returns_is_the_status():
    assert run(asyncio.sleep(0, result=1)) == 1


@pytest.mark.parametrize(
    ("until_stopped", "numbers", "status"),
    [
        (False, [signal.SIGINT], 130),
        (True, [signal.SIGINT], 130),
        (False, [signal.SIGTERM], 143),
        (True, [signal.SIGTERM], 0),
        (True, [signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130),
    ],
)
def test_the_first_signal_ends_a_verb_and_says_with_what_status(until_stopped, numbers, status, capsys):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert run(signalled(*numbers), until_stopped=until_stopped) == status
    assert capsys.readouterr() == ("", "")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_verb_that_is_cancelled_may_finish_what_it_has_to():
    done = []

    async def verb() -> None:
        try:
            await signalled(signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
            done.append("finished")

    assert run(verb()) == 130
    assert done == ["finished"]


def test_a_name_look_up_that_hangs_does_not_delay_the_end():
    code = """
import asyncio, os, signal, sys, time
from midinet.cli.common import run
async def verb():
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 30)
sys.exit(run(verb()))
"""
    begin = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")
    assert time.monotonic() - begin < 15


def test_a_server_may_have_any_free_port_and_a_client_may_not():
    assert read_address("localhost:0", free_port=True) == ("localhost", 0)
    assert read_address("[::1]:0", free_port=True) == ("::1", 0)
    with pytest.raises(Complaint):
        read_address("localhost:0")
    with pytest.raises(Complaint):
        read_address("::1:0", free_port=True)


def test_what_asyncio_logs_is_one_line_of_midinet_or_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def log() -> None:
        asyncio_log = logging.getLogger("asyncio")
        asyncio_log.warning("socket.send() raised exception.")
        try:
            raise ZeroDivisionError("callback")
        except ZeroDivisionError:
            asyncio_log.exception("Exception in callback\nhandle: <Handle>")

    assert run(log()) == 0
    assert logging.getLogger("asyncio").handlers == []
    lines = [record.getMessage() for record in caplog.records if record.name == "midinet"]
    assert lines == ["Exception in callback: ZeroDivisionError: callback"]
