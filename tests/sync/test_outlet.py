"""The way out: what is written in the loop's place, what is not, in which order, and what interrupts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from mido import Message

from midinet import PortClosed
from midinet.net.tls import tls_client_context, tls_server_context
from midinet.sync import PortServer, SocketPort, connect
from midinet.sync import inbox as inbox_module
from midinet.sync import portal as portal_module
from midinet.sync.portal import Permit, Portal, get_portal
from tests.harness.certificates import certificates
from tests.harness.messages import note
from tests.harness.programs import uncovered
from tests.harness.servers import portno
from tests.harness.sizes import thorough
from tests.harness.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the loop has no selector here")

HOST = "127.0.0.1"


def until_asleep() -> None:
    """Wait until the loop has done everything and sleeps."""

    def sleeps() -> bool:
        permit = get_portal().permit
        return permit is not None and bool(permit._good)

    done = threading.Event()
    get_portal().call(done.set)
    assert done.wait(PATIENCE_S)
    wait_until(sleeps)


@contextlib.contextmanager
def wire(**options: Any) -> Iterator[tuple[SocketPort, socket.socket]]:
    """A port and the bare socket at its other end."""
    with socket.create_server((HOST, 0)) as listener:
        port = connect(HOST, listener.getsockname()[1], **options)
        peer, _ = listener.accept()
        peer.settimeout(PATIENCE_S)
        with peer, port:
            until_asleep()
            yield port, peer


def read(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := peer.recv(count - len(data))):
        data += more
    return data


class Writes:
    """What is written in the loop's place, and by which thread. `fate` may do something else."""

    def __init__(self) -> None:
        self.made: list[tuple[int, bytes]] = []
        self.fate: Callable[[int, bytes], int] = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        written = self.fate(descriptor, data)
        self.made.append((threading.get_ident(), data[:written]))
        return written


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    found = Writes()
    monkeypatch.setattr(portal_module, "os", type("os", (), {"write": found, "name": os.name}))
    return found


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """For the time of the block, the loop is awake and does something else."""
    begun, go_on = threading.Event(), threading.Event()

    def be_busy() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    get_portal().call(be_busy)
    assert begun.wait(PATIENCE_S)
    try:
        yield
    finally:
        go_on.set()


# What is written in the loop's place.


def test_a_message_that_finds_the_loop_asleep_is_written_by_who_sends_it(writes: Writes) -> None:
    with wire() as (port, peer):
        port.send(note(1))
        assert writes.made == [(threading.get_ident(), b"\x90\x01\x40")]
        assert read(peer, 3) == b"\x90\x01\x40"
        # It is noted all the same: counted, and let go of in the end.
        wait_until(lambda: port.stats.messages_sent == 1)
        assert port.stats.bytes_sent == 3
        port.close()
        assert read(peer, 100) == b"\x80\x01\x40"


def test_an_accepted_port_does_so_too(writes: Writes) -> None:
    with PortServer(HOST, 0) as server, connect(HOST, portno(server)) as client:
        accepted = server.accept()
        assert accepted is not None
        until_asleep()
        accepted.send(note(1))
        assert client.receive() == note(1)
        assert writes.made == [(threading.get_ident(), b"\x90\x01\x40")]


def test_what_comes_while_the_loop_is_awake_goes_through_it_in_order(writes: Writes) -> None:
    with wire() as (port, peer):
        with busy_loop():
            for number in range(5):
                port.send(note(number))
            assert writes.made == []
        assert read(peer, 15) == b"".join(bytes((0x90, number, 0x40)) for number in range(5))


def test_a_flood_is_left_to_the_loop_and_a_chord_is_not(
    writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_FLOOD_S", PATIENCE_S)
    with wire() as (port, peer):
        for count, written in ((16, 1), (17, 0)):
            with busy_loop():
                for number in range(count):
                    port.send(note(number))
            assert len(read(peer, 3 * count)) == 3 * count
            until_asleep()
            port.send(note(1))
            assert len(read(peer, 3)) == 3
            until_asleep()
            assert len(writes.made) == written
            writes.made.clear()
        port._port._outlet._flood_until = 0.0
        port.send(note(1))
        assert len(writes.made) == 1


def test_what_follows_a_message_that_is_not_noted_yet_comes_behind_it(writes: Writes) -> None:
    with wire() as (port, peer):

        def write(descriptor: int, data: bytes) -> int:
            # While this one is written, another thread sends.
            other = threading.Thread(target=port.send, args=(note(2),))
            other.start()
            other.join(PATIENCE_S)
            return os.write(descriptor, data)

        writes.fate = write
        port.send(note(1))
        assert read(peer, 6) == b"\x90\x01\x40\x90\x02\x40"
        assert len(writes.made) == 1
        wait_until(lambda: port.stats.messages_sent == 2)


def test_the_rest_of_a_message_that_is_written_in_part_comes_before_all_else(writes: Writes) -> None:
    with wire() as (port, peer):
        writes.fate = lambda descriptor, data: os.write(descriptor, data[:1])
        port.send(note(1))
        port.send(note(2))
        assert read(peer, 6) == b"\x90\x01\x40\x90\x02\x40"
        wait_until(lambda: port.stats.bytes_sent == 6)


@pytest.mark.parametrize("error", [BlockingIOError, BrokenPipeError])
def test_what_cannot_be_written_goes_through_the_loop(writes: Writes, error: type[OSError]) -> None:
    def fail(descriptor: int, data: bytes) -> int:
        raise error

    with wire() as (port, peer):
        writes.fate = fail
        port.send(note(1))
        port.send(note(2))
        assert read(peer, 6) == b"\x90\x01\x40\x90\x02\x40"


@pytest.mark.parametrize(
    ("options", "message", "data"),
    [
        ({"running_status": True}, note(1), b"\x90\x01\x40"),
        ({}, Message("sysex", data=(1,)), b"\xf0\x01\xf7"),
    ],
    ids=["running status", "sysex"],
)
def test_what_may_be_sent_otherwise_than_it_is_goes_through_the_loop(
    writes: Writes, options: dict[str, Any], message: Message, data: bytes
) -> None:
    with wire(**options) as (port, peer):
        port.send(message)
        assert read(peer, 3) == data
        assert writes.made == []


def test_nothing_goes_past_tls(writes: Writes) -> None:
    files = certificates()
    with (
        PortServer(HOST, 0, ssl=tls_server_context(files.server_cert, files.server_key)) as server,
        connect(HOST, portno(server), ssl=tls_client_context(files.ca)) as client,
    ):
        accepted = server.accept()
        assert accepted is not None
        for number in range(10):
            until_asleep()
            client.send(note(number))
            accepted.send(accepted.receive())
            assert client.receive() == note(number)
        assert writes.made == []


def test_what_ctrl_c_left_to_the_loop_comes_first(writes: Writes) -> None:
    with wire() as (port, peer):
        # Handed over, and interrupted before the loop was told.
        port._port._outlet._gathered.append(b"\x90\x01\x40")
        port.send(note(2))
        assert read(peer, 6) == b"\x90\x01\x40\x90\x02\x40"
        assert writes.made == []


def never(descriptor: int, data: bytes) -> int:
    raise AssertionError("it should have gone through the loop")


def test_a_peer_that_does_not_read_gets_everything_in_order_when_it_does(writes: Writes) -> None:
    with wire(slow="disconnect", max_outbox=1 << 22) as (port, peer):
        sent = bytearray()

        def send(number: int) -> None:
            port.send(Message("pitchwheel", pitch=number % 16384 - 8192))
            sent.extend((0xE0, number & 0x7F, number >> 7 & 0x7F))

        long = Message("sysex", data=bytes(1000))
        number = 0
        while not port._port._link.outbox.stalled:
            port.send(long)
            sent.extend(long.bin())
            send(number := number + 1)
        # While it does not read, and in the moment in which it reads again.
        get_portal().call(partial(port._port._outlet.drain, force=True))
        until_asleep()
        writes.fate = never
        received: list[bytes] = []
        count = len(sent) + 3 * 500
        reader = threading.Thread(target=lambda: received.append(read(peer, count)))
        for _ in range(250):
            send(number := number + 1)
        until_asleep()
        send(number := number + 1)
        writes.fate = os.write
        reader.start()
        for _ in range(249):
            send(number := number + 1)
            time.sleep(0)
        reader.join(PATIENCE_S)
        assert received == [bytes(sent)]


def test_both_ways_in_any_mixture_keep_the_order_of_each_thread(writes: Writes) -> None:
    each, threads = 2000, 3
    with wire(release_notes=False) as (port, peer):

        def send(channel: int) -> None:
            for number in range(each):
                port.send(Message("pitchwheel", channel=channel, pitch=number))
                if number % 7 == channel:
                    # Long enough for the loop to fall asleep, now and then.
                    time.sleep(0.0002)

        senders = [threading.Thread(target=send, args=(channel,)) for channel in range(threads)]
        for sender in senders:
            sender.start()
        data = read(peer, 3 * each * threads)
        for sender in senders:
            sender.join(PATIENCE_S)
        got: list[list[int]] = [[] for _ in range(threads)]
        for at in range(0, len(data), 3):
            got[data[at] & 15].append((data[at + 1] | data[at + 2] << 7) - 8192)
        assert got == [list(range(each))] * threads
        assert 0 < len(writes.made) < each * threads
        wait_until(lambda: port.stats.messages_sent == each * threads)


@contextlib.contextmanager
def speaking(way: str) -> Iterator[tuple[Any, Any, socket.socket]]:
    """What sends, what is closed meanwhile, and the bare socket that hears it."""
    if way == "a port":
        with wire(release_notes=False) as (port, peer):
            yield port, port, peer
        return
    with (
        PortServer(HOST, 0, release_notes=False) as server,
        socket.create_connection(server.addresses[0]) as peer,
    ):
        peer.settimeout(PATIENCE_S)
        if way == "a server's accepted port":
            speaker: Any = server.accept()
        else:
            wait_until(lambda: server.poll() or server.ports)
            speaker = server if way == "a server" else server.ports[0]
        yield speaker, server, peer


WAYS = ["a port", "a server", "a server's accepted port", "a server's adopted port"]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_sent_once_closing_has_begun_is_refused(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with speaking(way) as (speaker, closed, _):
        outlet = None if isinstance(speaker, PortServer) else speaker._port._outlet
        if outlet is None:
            outlet = closed._outlet
        drain = outlet.drain
        refused: list[Exception] = []

        def send() -> None:
            try:
                speaker.send(note(1))
            except PortClosed as error:
                refused.append(error)

        def drain_late(*, force: bool = False) -> None:
            if force:
                # The loop's thread has to wait for another one here.
                sender = threading.Thread(target=send)
                sender.start()
                sender.join(PATIENCE_S)
            drain(force=force)

        monkeypatch.setattr(outlet, "drain", drain_late)
        closed.close()
        assert refused


@thorough("rounds", quick=5, full=100)
@pytest.mark.parametrize("way", WAYS)
def test_closing_in_another_thread_meanwhile_loses_nothing_that_was_sent(way: str, rounds: int) -> None:
    for _ in range(rounds):
        with speaking(way) as (speaker, closed, peer):
            sent = 0

            def send(speaker: Any = speaker) -> None:
                nonlocal sent
                try:
                    while True:
                        speaker.send(note(sent % 128))
                        sent += 1
                        time.sleep(0)
                except PortClosed:
                    pass

            sender = threading.Thread(target=send)
            sender.start()
            got = read(peer, 3 * 20)
            closed.close()
            while more := peer.recv(65536):
                got += more
            sender.join(PATIENCE_S)
            # What is handed over at the very moment in which the port closes may be too late.
            assert got == b"".join(bytes((0x90, number % 128, 0x40)) for number in range(len(got) // 3))
            assert len(got) // 3 >= sent - 1


def test_a_server_that_says_something_to_all_leaves_it_to_the_loop(writes: Writes) -> None:
    with PortServer(HOST, 0) as server, connect(HOST, portno(server)) as client:
        wait_until(lambda: server.stats.clients == 1)
        until_asleep()
        server.send(note(1))
        assert client.receive() == note(1)
        assert writes.made == []


def test_a_loop_without_a_selector_of_ours_gives_no_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "new_event_loop", Other)
    portal = Portal()
    try:
        done = threading.Event()
        portal.call(done.set)
        assert done.wait(PATIENCE_S)
        assert portal.permit is None
    finally:
        portal.stop()


def test_what_is_read_at_once_is_kept_small() -> None:
    with PortServer(HOST, 0) as server, connect(HOST, portno(server)) as client:
        accepted = server.accept()
        assert accepted is not None
        for port in (client, accepted):
            assert port._port._link.transport.max_size == 65536  # type: ignore[attr-defined]


# The permit.


def pipe_permit() -> tuple[Permit, int, int, list[tuple[bytes, int]]]:
    reading, writing = os.pipe()
    return Permit(), reading, writing, []


def test_a_permit_is_good_once() -> None:
    permit, reading, writing, told = pipe_permit()
    with open(reading, "rb"), open(writing, "wb"):
        assert permit.write(writing, b"abc", lambda *what: told.append(what))
        assert not permit.write(writing, b"def", lambda *what: told.append(what))
        assert os.read(reading, 10) == b"abc"
        permit.end()
        assert told == [(b"abc", 3)]


def test_a_permit_is_good_no_more_when_the_loop_woke() -> None:
    permit, reading, writing, told = pipe_permit()
    with open(reading, "rb"), open(writing, "wb"):
        permit.end()
        assert not permit.write(writing, b"abc", lambda *what: told.append(what))
        assert told == []
    assert not permit.write(-1, b"abc", lambda *what: told.append(what))


def test_a_permit_that_was_of_no_use_is_given_back() -> None:
    permit, reading, writing, told = pipe_permit()
    with open(reading, "rb"), open(writing, "wb"):
        assert not permit.write(-1, b"abc", lambda *what: told.append(what))
        assert permit.write(writing, b"abc", lambda *what: told.append(what))
        permit.end()
        assert told == [(b"abc", 3)]


def test_a_loop_that_wakes_waits_for_what_is_being_written(
    writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    class Time:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            looked.set()
            time.sleep(seconds)

    monkeypatch.setattr(portal_module, "time", Time)
    permit, reading, writing, told = pipe_permit()
    with open(reading, "rb"), open(writing, "wb"):
        waking = threading.Thread(target=permit.end)

        def write(descriptor: int, data: bytes) -> int:
            waking.start()
            assert looked.wait(PATIENCE_S)
            return os.write(descriptor, data)

        monkeypatch.setattr(portal_module, "_MAX_WRITE_S", PATIENCE_S)
        writes.fate = write
        assert permit.write(writing, b"abc", lambda *what: told.append(what))
        waking.join(PATIENCE_S)
        assert told == [(b"abc", 3)]


def test_a_loop_that_wakes_does_not_wait_for_ever(writes: Writes) -> None:
    permit, reading, writing, told = pipe_permit()
    with open(reading, "rb"), open(writing, "wb"):

        def write(descriptor: int, data: bytes) -> int:
            permit.end()
            assert told == []
            return os.write(descriptor, data)

        writes.fate = write
        assert permit.write(writing, b"abc", lambda *what: told.append(what))


# What interrupts a program.

INTERRUPTED = """
import signal, sys, threading, time
from mido import Message
from midinet.sync import connect

class Alarm(Exception):
    pass

def ring(*args):
    raise Alarm

def bend(number):
    return Message("pitchwheel", pitch=number)

port = connect("127.0.0.1", int(sys.argv[1]), release_notes=False)
"""


def run(body: str, portno: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-W", "error", "-c", INTERRUPTED + body, str(portno)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=uncovered())


@contextlib.contextmanager
def interrupted(body: str) -> Iterator[tuple[list[int], str]]:
    """Run a program. Gives what its port sent, as numbers, and what it printed."""
    with socket.create_server((HOST, 0)) as listener, run(body, listener.getsockname()[1]) as process:
        try:
            peer, _ = listener.accept()
            peer.settimeout(2 * PATIENCE_S)
            with peer:
                data = b""
                while more := peer.recv(65536):
                    data += more
            out, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, err) == (0, "")
        finally:
            process.kill()
    assert len(data) % 3 == 0
    assert set(data[::3]) <= {0xE0}
    yield [(data[at + 1] | data[at + 2] << 7) - 8192 for at in range(0, len(data), 3)], out


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer signal here")
@thorough("count", quick=1_500, full=8_000)
def test_an_interrupt_at_any_moment_neither_loses_nor_doubles_what_was_sent(count: int) -> None:
    with interrupted(
        f"count = {count}"
        """
signal.signal(signal.SIGALRM, ring)
sent, alarms = [], 0
for number in range(count):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00001 + number % 50 * 0.000003)
        port.send(bend(number))
        sent.append(number)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        alarms += 1
    if number % 3:
        # The loop falls asleep meanwhile, if it may.
        try:
            time.sleep(0.0003)
        except Alarm:
            alarms += 1
port.close()
print(alarms)
print(*sent)
"""
    ) as (got, out):
        alarms, sent = out.splitlines()
        assert int(alarms) > count / 40
        assert got == sorted(set(got))
        assert set(map(int, sent.split())) <= set(got)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer signal here")
def test_a_signal_handler_may_use_the_port_and_wait_for_others_who_do() -> None:
    with interrupted(
        """
handled = 0
def handle(*args):
    global handled
    handled += 1
    port.send(bend(-1 - handled))
    if handled % 5 == 0:
        other = threading.Thread(target=port.wait_connected)
        other.start()
        other.join()
    # Not before this one is over: on a slow machine there would be no time for anything else.
    if not done:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
done = False
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001)
for number in range(1500):
    port.send(bend(number))
    if number % 3:
        time.sleep(0.0003)
done = True
signal.setitimer(signal.ITIMER_REAL, 0)
port.close()
print(handled)
"""
    ) as (got, out):
        handled = int(out)
        assert handled > 10
        assert [number for number in got if number >= 0] == list(range(1500))
        assert [number for number in got if number < 0] == list(range(-2, -2 - handled, -1))


def test_who_sends_does_not_wait_for_a_way_out_that_has_died() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("room")

    with wire() as (port, _):
        outlet = inbox_module.Outlet(get_portal(), lambda frames, written: None, fail, lambda frame: None)
        for _ in range(2 * inbox_module.MAX_OUTLET):
            outlet.send(b"\xf8", 1)
        wait_until(lambda: outlet.ended)
        port.send(note(1))
