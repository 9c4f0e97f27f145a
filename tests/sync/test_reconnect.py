"""The blocking port that survives outages."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import Any

import mido
import pytest
from mido import Message

from midinet import PortClosed, UsageError
from midinet.net.port import PortState
from midinet.sync import PortServer, SocketPort, connect
from midinet.sync.portal import get_portal
from tests.harness.messages import control
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, wait_until

HOST = "127.0.0.1"
NOTE = Message("note_on", note=60)
CONNECTED, RECONNECTING, CLOSED = PortState.CONNECTED, PortState.RECONNECTING, PortState.CLOSED


@contextlib.contextmanager
def down(**options: Any) -> Iterator[tuple[SocketPort, int]]:
    """A port whose server is gone, after it had heard a note and set a program, and the server's number."""
    with PortServer(HOST, 0) as server:
        number = server.addresses[0][1]
        port = connect(HOST, number, reconnect=True, **options)
        port.send(Message("program_change", program=5))
        assert server.receive() == Message("program_change", program=5)
        server.send(NOTE)
        assert port.receive() == NOTE
    with port:
        # A short outage may be over by now.
        wait_until(lambda: port.state is not CONNECTED)
        yield port, number


def test_a_blocking_port_comes_back_with_what_is_set_by_then() -> None:
    with down() as (port, number):
        # What it had heard is let go, and it is not at its end.
        assert port.receive() == Message("note_off", note=60)
        assert port.receive(block=False) is None
        assert not port.closed
        port.send(control(7, 1))
        port.send(control(7, 2))
        port.send(NOTE)
        port.send(Message("note_off", note=60))
        with PortServer(HOST, number) as server:
            port.wait_connected()
            assert port.state is CONNECTED
            assert [server.receive() for _ in range(2)] == [
                Message("program_change", program=5),
                control(7, 2),
            ]
            port.send(control(7, 3))
            assert server.receive() == control(7, 3)
            server.send(NOTE)
            assert port.receive() == NOTE
            assert port.stats.reconnects == 1
    assert port.state is CLOSED


def test_a_reader_in_a_thread_reads_on() -> None:
    synth = VirtualSynth(ignores_mode_messages=True)
    heard: list[Message] = []

    def read(port: SocketPort) -> None:
        for message in port:
            synth.feed(message.bin())
            heard.append(message)

    with PortServer(HOST, 0) as server:
        number = server.addresses[0][1]
        port = connect(HOST, number, reconnect=True)
        reader = threading.Thread(target=read, args=(port,))
        reader.start()
        wait_until(lambda: server.stats.clients)
        server.send(NOTE)
        server.send(control(64, 127))
        wait_until(lambda: len(heard) == 2)
    wait_until(lambda: port.state is RECONNECTING)
    wait_until(synth.is_silent)
    with PortServer(HOST, number) as server:
        port.wait_connected()
        wait_until(lambda: server.stats.clients)
        server.send(Message("note_on", note=1))
        wait_until(lambda: synth.sounding == {(0, 1)})
        port.close()
        reader.join()


def test_sending_while_down_waits_for_nothing() -> None:
    with down() as (port, number):
        for value in range(5_000):
            port.send(control(7, value % 128))
        assert port.state is RECONNECTING
        with PortServer(HOST, number) as server:
            port.wait_connected()
            assert server.receive() == Message("program_change", program=5)
            assert server.receive() == control(7, 4_999 % 128)
            assert server.poll() is None


def test_its_states_call_back_on_midinets_thread() -> None:
    states: list[tuple[Any, PortState]] = []
    errors: list[Exception] = []

    def note(port: SocketPort, state: PortState) -> None:
        states.append((port, state))
        try:
            port.send(NOTE)
        except UsageError as error:
            errors.append(error)

    with down(on_state=note) as (port, number), PortServer(HOST, number):
        port.wait_connected()
        port.close()
    wait_until(lambda: len(states) == 3)
    assert states == [(port, RECONNECTING), (port, CONNECTED), (port, CLOSED)]
    # It would wait for itself.
    assert len(errors) == 3


def test_it_can_be_closed_while_it_is_down() -> None:
    with down() as (port, _):
        results: list[Exception] = []

        def wait() -> None:
            try:
                port.wait_connected()
            except PortClosed as error:
                results.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        port.close()
        waiting.join()
        assert len(results) == 1
        assert port.state is CLOSED
        with pytest.raises(ValueError, match="closed"):
            port.send(NOTE)
        assert list(port) == [Message("note_off", note=60)]
        assert port.closed
    assert port._port not in get_portal().opened


def test_an_outage_that_lasts_too_long_ends_it() -> None:
    with down(reconnect_for=0.01) as (port, _):
        wait_until(lambda: port.state is CLOSED)
        assert list(port) == [Message("note_off", note=60)]
        assert port.closed
        with pytest.raises(ValueError, match="closed"):
            port.send(NOTE)
    assert port._port not in get_portal().opened


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    with PortServer(HOST, 0) as server:
        number = server.addresses[0][1]
    ports: list[SocketPort] = []
    connecting = threading.Thread(
        target=lambda: ports.append(connect(HOST, number, reconnect=True, timeout=None))
    )
    connecting.start()
    with PortServer(HOST, number):
        connecting.join(PATIENCE_S)
        with ports[0] as port:
            assert port.state is CONNECTED


def test_a_port_that_nobody_keeps_is_closed_while_it_is_down() -> None:
    with PortServer(HOST, 0) as server:
        port = connect(HOST, server.addresses[0][1], reconnect=True)
    inner = port._port
    wait_until(lambda: inner.state is RECONNECTING)
    del port
    wait_until(lambda: inner.state is CLOSED)


def test_midos_own_code_takes_it_as_a_port() -> None:
    with down() as (port, number), PortServer(HOST, number) as server:
        port.wait_connected()
        with mido.ports.MultiPort([port]) as many:
            many.send(NOTE)
            assert server.receive() == Message("program_change", program=5)
            assert server.receive() == NOTE


def test_a_port_that_nobody_has_any_more_is_closed_though_somebody_is_told_of_its_state() -> None:
    with PortServer(HOST, 0) as server:
        port = connect(HOST, server.addresses[0][1], reconnect=True, on_state=lambda port, state: None)
        opened = port._port
        del port
        gc.collect()
        wait_until(lambda: opened.state is CLOSED)
