"""The portal in programs of its own: how they start, fork, are interrupted, and end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from midinet.sync import PortServer
from midinet.sync.inbox import Waiters
from midinet.sync.portal import get_portal, longest_wait
from tests.harness.programs import running, uncovered
from tests.harness.waiting import PATIENCE_S

HEAD = """
import os, signal, sys, threading, time
from mido import Message
from midinet import UsageError
from midinet.sync import PortServer, SocketPort, connect
portno = int(sys.argv[1])
NOTE = Message("note_on", note=60)
"""


def script(
    body: str, number: int = 0, **options: Any
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Run a program that begins with HEAD."""
    return running(HEAD + body, str(number), stderr=subprocess.PIPE, **options)


def run(body: str, portno: int = 0) -> subprocess.CompletedProcess[str]:
    with script(body, portno) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess([], process.returncode, out, err)


def test_nothing_runs_before_the_first_port() -> None:
    result = run("import midinet\nprint([thread.name for thread in threading.enumerate()])")
    assert (result.stdout, result.stderr) == ("['MainThread']\n", "")


def test_a_program_that_ends_with_open_ports_sends_what_is_left_and_ends_at_once() -> None:
    with PortServer("127.0.0.1", 0) as server:
        started = time.monotonic()
        result = run(
            """
server = PortServer("127.0.0.1", 0)
other = connect("127.0.0.1", server.addresses[0][1])
port = connect("127.0.0.1", portno)
for _ in range(1000):
    port.send(NOTE)
""",
            server.addresses[0][1],
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert time.monotonic() - started < PATIENCE_S / 2
        accepted = server.accept()
        assert accepted is not None
        heard = [message.type for message in accepted]
        assert heard[:1000] == ["note_on"] * 1000
        assert set(heard[1000:]) == {"note_off"}


def test_a_program_that_ends_while_a_peer_does_not_read_ends_all_the_same() -> None:
    with PortServer("127.0.0.1", 0) as server:
        result = run(
            """
port = connect("127.0.0.1", portno)
long = Message("sysex", data=bytes(200))
def send():
    while True:
        port.send(long)
threading.Thread(target=send, daemon=True).start()
while not port._port._link.outbox.stalled:
    time.sleep(0.01)
""",
            server.addresses[0][1],
        )
        assert (result.returncode, result.stderr) == (0, "")


def test_a_program_that_ends_sends_what_waited_for_a_busy_peer() -> None:
    body = """
port = connect("127.0.0.1", portno, slow="disconnect")
note = Message("sysex", data=bytes(100))
sent = 0
while not port._port._link.outbox.stalled:
    port.send(note)
    sent += 1
for _ in range(500):
    port.send(NOTE)
print(sent, flush=True)
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        script(body, listener.getsockname()[1]) as process,
    ):
        peer, _ = listener.accept()
        with peer:
            assert process.stdout is not None
            sent = int(process.stdout.readline())
            # By hand, since it has a second only.
            heard = b"".join(iter(partial(peer.recv, 65536), b""))
        assert heard.startswith(bytes((0xF0, *bytes(100), 0xF7)) * sent + b"\x90\x3c\x40" * 500 + b"\x80")
        assert process.wait(PATIENCE_S) == 0


def test_a_name_that_nobody_answers_for_does_not_hold_up_the_end() -> None:
    started = time.monotonic()
    result = run(
        """
import socket
def never(*args, **kwargs):
    threading.Event().wait(60)
socket.getaddrinfo = never
try:
    connect("stage.local", 8080, timeout=0.1)
except OSError as error:
    print(error.strerror)
"""
    )
    assert (result.stdout, result.stderr) == ("no answer from stage.local:8080 in 0.1 s\n", "")
    assert time.monotonic() - started < PATIENCE_S / 2


def test_threads_that_wait_at_the_end_say_nothing() -> None:
    result = run(
        """
server = PortServer("127.0.0.1", 0)
port = connect("127.0.0.1", server.addresses[0][1])
kept = []
for call in (server.accept, server.accept, port.receive, server.receive):
    threading.Thread(target=lambda call=call: kept.append(call()), daemon=True).start()
while not (port._inbox.awaited and server._server._accept_waiters):
    time.sleep(0.01)
"""
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_what_is_called_after_the_end_is_told_so() -> None:
    result = run(
        """
import atexit
def last():
    port.panic()
    port.close()
    try:
        connect("127.0.0.1", portno)
    except UsageError as error:
        print(error)
atexit.register(last)
server = PortServer("127.0.0.1", 0)
port = connect("127.0.0.1", server.addresses[0][1])
"""
    )
    assert (result.stdout, result.stderr) == ("the program is ending: midinet's event loop is closed\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_told_and_can_open_ports_of_its_own() -> None:
    result = run(
        """
server = PortServer("127.0.0.1", 0)
port = connect("127.0.0.1", server.addresses[0][1])
accepted = server.accept()
child = os.fork()
if child == 0:
    refused = 0
    for call in (lambda: port.send(NOTE), port.receive, port.poll, port.close, server.receive,
                 server.accept, lambda: server.accept(block=False), lambda: server.send(NOTE), server.close):
        try:
            call()
        except UsageError as error:
            assert "fork" in str(error)
            refused += 1
    del port, server, accepted
    with PortServer("127.0.0.1", 0) as mine, connect("127.0.0.1", mine.addresses[0][1]) as client:
        client.send(NOTE)
        assert mine.receive() == NOTE
    print("refused", refused, flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
port.send(NOTE)
print(status, accepted.receive() == NOTE, flush=True)
"""
    )
    assert (result.stdout, result.stderr) == ("refused 9\n0 True\n", "")


BLOCKED_CALLS = {
    "receive": "port.receive()",
    "iterate": "next(iter(port))",
    "server receive": "server.receive()",
    "accept": "server.accept()",
    "connect": "connect('127.0.0.1', full)",
    "close": "port.close()",
    "send": "\n    while True: stalled.send(NOTE)",
}


@pytest.mark.skipif(os.name != "posix", reason="signals are sent the POSIX way")
@pytest.mark.parametrize("call", BLOCKED_CALLS.values(), ids=BLOCKED_CALLS.keys())
def test_ctrl_c_ends_any_blocked_call_at_once(call: str) -> None:
    with script(
        f"""
import socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
listener.bind(("127.0.0.1", 0))
listener.listen()
port = connect("127.0.0.1", listener.getsockname()[1], close_timeout=60)
stalled = connect("127.0.0.1", listener.getsockname()[1], close_timeout=0.1)
server = PortServer("127.0.0.1", 0)
# A listener whose queue is full: nobody answers.
deaf = socket.socket()
deaf.bind(("127.0.0.1", 0))
deaf.listen(0)
full = deaf.getsockname()[1]
fillers = [socket.socket() for _ in range(4)]
for filler in fillers:
    filler.setblocking(False)
    filler.connect_ex(("127.0.0.1", full))
def fill():
    try:
        while True:
            port.send(Message("sysex", data=bytes(60000)))
    except ValueError:
        pass
if "close" in {call!r}:
    threading.Thread(target=fill, daemon=True).start()
    while not (port._port._link.outbox.stalled and port._port._outlet._gathered):
        time.sleep(0.01)
def interrupt():
    time.sleep(0.3)
    started.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
started = []
try:
    threading.Thread(target=interrupt, daemon=True).start()
    {call}
except KeyboardInterrupt:
    # Those of them that end by themselves take ten seconds or more.
    print("interrupted", time.monotonic() - started[0] < 5, flush=True)
port._portal.call(port._port._link.abort)
for sock in (listener, deaf, *fillers):
    sock.close()
""",
        env=uncovered(),
    ) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (out, process.returncode) == ("interrupted True\n", 0), err
        assert err == ""


def test_the_main_thread_alone_waits_in_pieces_for_ctrl_c_may_have_come_just_before() -> None:
    waiters = Waiters(get_portal())
    woken = threading.Event()

    def wake() -> None:
        woken.set()
        waiters.wake()

    rescue = threading.Timer(PATIENCE_S, wake)
    rescue.start()
    try:
        waiters.wait_unless(lambda: False)
        assert not woken.is_set()
    finally:
        rescue.cancel()
        rescue.join()
    with ThreadPoolExecutor() as threads:
        assert threads.submit(longest_wait).result() is None


@pytest.mark.skipif(os.name != "posix", reason="signals are sent the POSIX way")
def test_a_program_ended_by_ctrl_c_ends_like_any_other() -> None:
    with script(
        """
server = PortServer("127.0.0.1", 0)
print(server.addresses[0][1], flush=True)
for message in server:
    print(message)
""",
        env=uncovered(),
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert err.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert process.returncode == -signal.SIGINT
        assert out == ""
