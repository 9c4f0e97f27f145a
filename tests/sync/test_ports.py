from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import mido
import pytest
from mido import Message
from mido.ports import BaseIOPort

import midinet.net.inbox as inbox_module
from midinet import ConnectError, ConnectRefused, ListenError, PortClosed, UsageError
from midinet.sync import PortServer, SocketPort, connect, format_address, parse_address
from midinet.sync.inbox import MAX_OUTLET
from midinet.sync.portal import get_portal
from tests.harness.messages import note, off
from tests.harness.servers import portno
from tests.harness.waiting import PATIENCE_S, wait_until

NOTE = Message("note_on", note=60)


@contextlib.contextmanager
def pair(
    client_options: dict[str, Any] | None = None, **options: Any
) -> Iterator[tuple[SocketPort, SocketPort]]:
    """A client and the port that a server accepted it as."""
    with (
        PortServer("127.0.0.1", 0, **options) as server,
        connect("127.0.0.1", portno(server), **(client_options or {})) as client,
    ):
        accepted = server.accept()
        assert accepted is not None
        with accepted:
            yield client, accepted


@contextlib.contextmanager
def thread(function: Callable[[], object]) -> Iterator[list[Any]]:
    """Run a function in a thread; the list gets what it returns or raises, and is full after the block."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function())
        except Exception as error:
            result.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield result
    finally:
        worker.join(PATIENCE_S)
        assert not worker.is_alive(), "the thread hangs"


# mido's port contract.


def test_ports_are_mido_ports() -> None:
    with pair() as (client, accepted):
        for port in (client, accepted):
            assert isinstance(port, BaseIOPort)
            assert (port.is_input, port.is_output, port.closed) == (True, True, False)
            assert repr(port) == f"<open I/O port '{port.name}' (SocketPort)>"
    assert repr(client) == f"<closed I/O port '{client.name}' (SocketPort)>"


def test_messages_go_both_ways() -> None:
    with pair() as (client, accepted):
        client.send(note(1))
        assert accepted.receive() == note(1)
        accepted.send(note(2))
        assert client.receive() == note(2)
        assert client.stats.messages_sent == client.stats.messages_received == 1


def test_without_blocking_there_is_none_when_there_is_nothing() -> None:
    with pair() as (client, accepted):
        assert client.receive(block=False) is None
        assert client.poll() is None
        assert list(client.iter_pending()) == []
        accepted.send(note(1))
        accepted.send(note(2))
        # They are counted a little before they can be read.
        wait_until(lambda: len(client._inbox) == 2)
        assert list(client.iter_pending()) == [note(1), note(2)]


def test_a_closed_port_raises_what_mido_raises() -> None:
    with pair() as (client, _):
        client.close()
        assert client.closed
        client.close()
        with pytest.raises(ValueError, match="closed"):
            client.send(NOTE)
        with pytest.raises(ValueError, match="closed"):
            client.receive()
        assert client.poll() is None
        assert list(client) == []
        client.reset()
        client.panic()


def test_what_is_no_message_is_a_type_error() -> None:
    with pair() as (client, _), PortServer("127.0.0.1", 0) as server:
        for port in (client, server):
            for thing in ("note_on", b"\x90\x3c\x40", mido.MetaMessage("set_tempo")):
                with pytest.raises(TypeError):
                    port.send(thing)


def test_a_receive_that_waits_raises_an_os_error_when_the_port_closes() -> None:
    with pair() as (client, accepted):
        with thread(client.receive) as result:
            wait_until(lambda: client._inbox.awaited)
            client.close()
        assert isinstance(result[0], OSError)
        with thread(accepted.receive) as result:
            pass
        assert isinstance(result[0], PortClosed)


def test_iteration_ends_quietly_however_the_port_closes() -> None:
    with pair() as (client, accepted):
        client.send(note(1))
        with thread(lambda: list(accepted)) as result:
            wait_until(lambda: accepted.stats.messages_received == 1)
            client.close()
        # What the peer still held when it ended is let go of.
        assert result == [[note(1), off(1)]]
    with pair() as (client, accepted):
        client.send(note(1))
        with thread(lambda: list(accepted)) as result:
            wait_until(lambda: accepted.stats.messages_received == 1)
            _reset(client)
        # What the peer still held when it ended is let go of.
        assert result == [[note(1), off(1)]]
        with pytest.raises(ValueError, match="lost"):
            accepted.send(note(1))


def _reset(port: SocketPort) -> None:
    import socket
    import struct

    sock = port._port._link.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    port._portal.call(port._port._link.abort)


def test_what_had_arrived_can_be_read_after_the_peer_closed() -> None:
    with pair() as (client, accepted):
        client.send(note(1))
        client.close()
        wait_until(lambda: accepted._port._is_over)
        assert not accepted.closed
        assert list(accepted.iter_pending()) == [note(1), off(1)]
        assert accepted.closed
        with pytest.raises(ValueError, match="closed by the peer"):
            accepted.send(NOTE)


@pytest.mark.parametrize("autoreset", [True, False])
def test_autoreset_resets_at_the_end(autoreset: bool) -> None:
    with PortServer("127.0.0.1", 0) as server:
        client = connect("127.0.0.1", portno(server), autoreset=autoreset)
        accepted = server.accept()
        client.close()
        assert list(accepted) == (list(mido.ports.reset_messages()) if autoreset else [])


def test_reset_and_panic_are_those_of_mido() -> None:
    with pair() as (client, accepted):
        client.reset()
        client.panic()
        expected = [*mido.ports.reset_messages(), *mido.ports.panic_messages()]
        assert [accepted.receive() for _ in expected] == expected


def test_a_message_may_be_changed_after_it_was_sent() -> None:
    with pair() as (client, accepted):
        message = note(1)
        client.send(message)
        message.note = 2
        assert accepted.receive() == note(1)


def test_ports_of_midinet_work_in_a_multi_port_of_mido() -> None:
    with pair() as (client, accepted):
        multi = mido.ports.MultiPort([client])
        multi.send(note(1))
        assert accepted.receive() == note(1)
        accepted.send(note(2))
        wait_until(lambda: len(client._inbox) == 1)
        # Not receive(), which hangs in mido 1.3.3 whatever the ports are.
        assert multi.poll() == note(2)


def test_ports_of_midinet_work_in_an_io_port_of_mido() -> None:
    with pair() as (client, accepted), PortServer("127.0.0.1", 0) as server:
        both = mido.ports.IOPort(client, client)
        both.send(note(1))
        client.send(note(2))
        assert [accepted.receive().note, accepted.receive().note] == [1, 2]
        accepted.send(note(3))
        assert both.receive() == note(3)
        mido.ports.IOPort(server, server).close()
        assert server.closed


def test_addresses_read_and_write() -> None:
    assert parse_address("localhost:8080") == ("localhost", 8080)
    assert format_address("localhost", 8080) == "localhost:8080"


# The server.


def test_a_two_line_server_hears_its_clients() -> None:
    server = PortServer("localhost", 0)
    with connect("localhost", portno(server)) as client:
        with thread(lambda: list(server)) as result:
            client.send(note(1))
            client.send(note(2))
            wait_until(lambda: server.stats.messages_received == 2)
            assert len(server.ports) == 1
            server.close()
        assert result == [[note(1), note(2), off(1), off(2)]]
        assert list(client) == []
    with pytest.raises(ValueError, match="closed"):
        server.send(NOTE)
    with pytest.raises(ValueError, match="closed"):
        server.receive()
    assert server.closed
    assert server.poll() is None


def test_a_client_that_comes_while_the_server_waits_is_heard() -> None:
    with PortServer("127.0.0.1", 0) as server, thread(server.receive) as result:
        wait_until(lambda: server._inbox.awaited)
        with connect("127.0.0.1", portno(server)) as client:
            client.send(note(1))
            wait_until(lambda: result)
    assert result == [note(1)]


def test_polling_adopts_who_waits() -> None:
    with PortServer("127.0.0.1", 0) as server, connect("127.0.0.1", portno(server)) as client:
        client.send(note(1))
        wait_until(lambda: str(server.poll()) == str(note(1)))


def test_sending_reaches_everyone() -> None:
    with PortServer("127.0.0.1", 0) as server, contextlib.ExitStack() as stack:
        number = portno(server)
        clients = [stack.enter_context(connect("127.0.0.1", number)) for _ in range(3)]
        wait_until(lambda: server.stats.clients == 3)
        server.send(note(1))
        assert [client.receive() for client in clients] == [note(1)] * 3


def test_ports_are_given_with_yield_ports_and_stay_the_same() -> None:
    with PortServer("127.0.0.1", 0, yield_ports=True) as server:
        assert server.yield_ports
        with connect("127.0.0.1", portno(server)) as client:
            client.send(note(1))
            client.send(note(2))
            port, message = server.receive()
            assert message == note(1)
            assert server.receive() == (port, note(2))
            assert server.ports == [port]
            port.send(note(3))
            assert client.receive() == note(3)
            with pytest.raises(UsageError, match="through its server"):
                port.receive()
            del port
            client.send(note(4))
            assert server.receive()[1] == note(4)


def test_accept_without_blocking_is_none_when_nobody_waits() -> None:
    with PortServer("127.0.0.1", 0) as server:
        assert server.accept(block=False) is None
        with connect("127.0.0.1", portno(server)) as client:
            wait_until(lambda: server.stats.clients_waiting == 1)
            accepted = server.accept(block=False)
            assert server.accept(block=False) is None
            assert accepted.name == format_address(*accepted.peer)
            client.send(note(1))
            assert accepted.receive() == note(1)
    for block in (True, False):
        with pytest.raises(ValueError, match="closed"):
            server.accept(block=block)


def test_accept_waits_for_a_client() -> None:
    with (
        PortServer("127.0.0.1", 0) as server,
        thread(server.accept) as result,
        connect("127.0.0.1", portno(server)) as client,
    ):
        wait_until(lambda: result)
        client.send(note(1))
        assert result[0].receive() == note(1)


def test_a_relay_works_in_the_background() -> None:
    with PortServer("127.0.0.1", 0, relay=True) as server:
        number = portno(server)
        with connect("127.0.0.1", number) as a, connect("127.0.0.1", number) as b:
            wait_until(lambda: len(server.ports) == 2)
            a.send(note(1))
            assert b.receive() == note(1)
            assert server.poll() is None
            a.send(note(2))
            assert server.receive() == note(2)


@pytest.mark.parametrize("autoreset", [True, False])
def test_a_server_with_autoreset_resets_its_clients(autoreset: bool) -> None:
    with PortServer("127.0.0.1", 0, autoreset=autoreset, release_notes=False) as server:
        client = connect("127.0.0.1", portno(server), release_notes=False)
        wait_until(lambda: server.stats.clients == 1)
        server.send(note(1))
        server.close()
        assert list(client) == [note(1), *(mido.ports.reset_messages() if autoreset else [])]


def test_mido_takes_the_backlog_third_and_so_does_this() -> None:
    with PortServer("127.0.0.1", 0, 5) as server:
        assert server._server._backlog == 5


def test_errors_of_the_network_are_os_errors() -> None:
    with PortServer("127.0.0.1", 0) as server:
        number = portno(server)
        with pytest.raises(ListenError, match="in use"):
            PortServer("127.0.0.1", number)
    with pytest.raises(ConnectRefused, match=f"nobody listens on 127.0.0.1:{number}"):
        connect("127.0.0.1", number)
    with pytest.raises(ConnectionRefusedError):
        SocketPort("127.0.0.1", number, timeout=1.0)


# Threads.


def test_sending_keeps_the_order_and_loses_nothing() -> None:
    count = 20_000
    with (
        pair() as (client, accepted),
        thread(lambda: [accepted.receive().note for _ in range(count)]) as result,
    ):
        for number in range(count):
            client.send(note(number % 128))
    assert result == [[number % 128 for number in range(count)]]


def test_sending_pushes_back_when_the_peer_is_slow() -> None:
    count = 6_000
    # Long, to fill what the system holds before a busy machine has lost patience.
    messages = [Message("sysex", data=(number, *bytes(240))) for number in range(128)]
    # Disconnecting, for with it every message is sent, however late.
    with pair({"slow": "disconnect"}, max_inbox=100) as (client, accepted):

        def send() -> None:
            for number in range(count):
                client.send(messages[number % 128])

        with thread(send):
            wait_until(
                lambda: (
                    client._port._link.outbox.stalled and len(client._port._outlet._gathered) >= MAX_OUTLET
                )
            )
            outbox = client._port._link.outbox
            assert outbox.backlog_bytes <= outbox.limits.max_bytes
            assert len(client._port._outlet._gathered) == MAX_OUTLET
            assert [accepted.receive().data[0] for _ in range(count)] == [n % 128 for n in range(count)]


def test_sending_a_long_message_waits_until_it_is_taken() -> None:
    with pair(max_inbox=1) as (client, accepted):
        message = Message("sysex", data=bytes(60_000))

        def send() -> None:
            for _ in range(100):
                client.send(message)
                assert not client._port._outlet._gathered

        with thread(send) as result:
            for _ in range(100):
                assert accepted.receive() == message
        assert result == [None]


def test_closing_sends_everything_that_was_handed_over() -> None:
    count = 2000
    with PortServer("127.0.0.1", 0) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(connect("127.0.0.1", portno(server), soft_outbox=1000))
        accepted = server.accept()

        def read_late() -> int:
            # The sender is pushed back by now, and closes while much is on its way.
            wait_until(lambda: client.closed)
            return len(list(accepted))

        with thread(read_late) as result:
            for _ in range(count):
                client.send(Message("sysex", data=bytes(200)))
                if client._port._link.outbox.stalled:
                    break
            sent = client.stats.messages_sent + len(client._port._outlet)
            client.close()
        assert result[0] >= sent
        assert client.stats.messages_dropped == 0


def test_a_server_that_is_busy_reading_adopts_new_clients() -> None:
    with PortServer("127.0.0.1", 0) as server, connect("127.0.0.1", portno(server)) as busy:
        for _ in range(500):
            busy.send(note(1))
        assert server.receive() == note(1)
        with connect("127.0.0.1", portno(server)) as late:
            late.send(note(2))
            wait_until(lambda: server.stats.clients == 2)
            heard = []
            while note(2) not in heard:
                heard.append(server.receive())
                # There is always something to read.
                busy.send(note(1))
            assert len(heard) < 20_000


def test_what_a_server_says_to_one_and_to_all_stays_in_order() -> None:
    with (
        PortServer("127.0.0.1", 0, yield_ports=True) as server,
        connect("127.0.0.1", portno(server)) as client,
    ):
        for _ in range(120):
            client.send(note(0))
        for number in range(0, 120, 2):
            # A new wrapper each time.
            server.receive()[0].send(note(number))
            server.send(note(number + 1))
        assert [client.receive().note for _ in range(120)] == list(range(120))


@pytest.mark.parametrize("side", ["client", "server"])
def test_autoreset_does_not_wait_for_a_peer_that_does_not_read(side: str) -> None:
    options: dict[str, Any] = {"autoreset": True, "close_timeout": 0.1}
    with PortServer("127.0.0.1", 0, **options, max_inbox=1) as server:
        client = connect("127.0.0.1", portno(server), **options, max_inbox=1)
        accepted = server.accept()
        sender, closing = (client, client) if side == "client" else (accepted, server)

        def send_for_ever() -> None:
            while True:
                sender.send(Message("sysex", data=bytes(1000)))

        with thread(send_for_ever) as result:
            wait_until(lambda: sender._port._link.outbox.stalled)
            with thread(closing.close):
                pass
        assert isinstance(result[0], OSError)
        client.close()


def test_the_counts_can_be_read_while_clients_come_and_go() -> None:
    with PortServer("127.0.0.1", 0, relay=True) as server:

        def come_and_go() -> None:
            for _ in range(30):
                connect("127.0.0.1", portno(server)).close()

        with thread(come_and_go) as result:
            while not result:
                assert server.stats.clients_total <= 30
        wait_until(lambda: server.stats.clients_total == 30 and server.stats.clients == 0)


def test_an_accepted_port_outlives_the_variable_of_its_server() -> None:
    def accept_one() -> tuple[SocketPort, SocketPort]:
        server = PortServer("127.0.0.1", 0)
        client = connect("127.0.0.1", portno(server))
        accepted = server.accept()
        assert accepted is not None
        return client, accepted

    client, accepted = accept_one()
    client.send(note(1))
    assert accepted.receive() == note(1)
    client.close()
    accepted.close()


def test_a_sender_that_is_pushed_back_ends_when_the_port_closes() -> None:
    with pair(max_inbox=100, close_timeout=0.05) as (client, _):

        def send_for_ever() -> None:
            while True:
                client.send(NOTE)

        with thread(send_for_ever) as result:
            wait_until(lambda: len(client._port._outlet._gathered) >= MAX_OUTLET)
            client.close()
        assert isinstance(result[0], ValueError)


def test_several_threads_may_send_and_receive_on_one_port() -> None:
    each, senders, readers = 3000, 4, 3
    with pair() as (client, accepted), contextlib.ExitStack() as stack:

        def send(channel: int) -> None:
            for number in range(each):
                client.send(Message("note_on", channel=channel, note=number % 128))

        def receive() -> list[Message]:
            heard = []
            while (message := accepted.receive()).type != "stop":
                heard.append(message)
            return heard

        results = [stack.enter_context(thread(receive)) for _ in range(readers)]
        with contextlib.ExitStack() as sending:
            for channel in range(senders):
                sending.enter_context(thread(lambda channel=channel: send(channel)))
        for _ in range(readers):
            client.send(Message("stop"))
        wait_until(lambda: all(results))
        heard = [message for [messages] in results for message in messages]
        assert len(heard) == each * senders
        for [messages] in results:
            for channel in range(senders):
                assert sum(message.channel == channel for message in messages) <= each


def test_a_port_that_only_sends_is_read_by_nobody() -> None:
    with (
        PortServer("localhost", 0, relay=True) as server,
        connect("localhost", portno(server), listen=False, max_inbox=1) as port,
    ):
        wait_until(lambda: server.ports)
        for _ in range(100):
            server.send(note(60))
        wait_until(lambda: port.stats.messages_received == 100)
        with pytest.raises(UsageError, match="listen=False"):
            port.receive(block=False)
        with pytest.raises(UsageError, match="listen=False"):
            port.poll()


@pytest.mark.parametrize("readers", [1, 4])
def test_a_port_that_was_not_read_gives_way_and_is_read_again(
    readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "UNREAD_PATIENCE_S", 0.05)
    last = Message("sysex", data=(0x7D, 1))
    count = 3000
    with (
        PortServer("localhost", 0, relay=True) as server,
        connect("localhost", portno(server)) as player,
        connect("localhost", portno(server), max_inbox=100) as port,
    ):
        wait_until(lambda: len(server.ports) == 2)
        player.send(note(60))
        for number in range(count):
            player.send(Message("control_change", control=number >> 7, value=number & 127))
        player.send(off(60))
        player.send(last)
        wait_until(lambda: port.stats.messages_received == count + 3)
        assert 0 < port.stats.messages_unread < count
        heard: list[Message] = []

        def read() -> None:
            while last not in heard or off(60) not in heard:
                if (message := port.receive(block=False)) is not None:
                    heard.append(message)

        threads = [threading.Thread(target=read) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert note(60) not in heard
        assert len(heard) < 2000


def test_the_loops_own_thread_is_refused() -> None:
    with pair() as (client, _), PortServer("127.0.0.1", 0) as server:
        results: list[type[Exception]] = []

        def misuse() -> None:
            for call in (
                lambda: client.send(NOTE),
                client.receive,
                client.close,
                server.receive,
                server.accept,
                lambda: connect("127.0.0.1", 1),
            ):
                try:
                    call()
                except UsageError as error:
                    results.append(type(error))
            done.set()

        done = threading.Event()
        get_portal().call(misuse)
        assert done.wait(PATIENCE_S)
        assert results == [UsageError] * 6


def test_a_blocked_receive_costs_no_cpu() -> None:
    with pair() as (client, accepted), thread(client.receive) as result:
        wait_until(lambda: client._inbox.awaited)
        before = time.process_time()
        assert not threading.Event().wait(0.5)
        assert time.process_time() - before < 0.05
        accepted.send(NOTE)
        wait_until(lambda: result)


def test_a_port_that_is_dropped_sends_what_is_left_and_closes() -> None:
    with PortServer("127.0.0.1", 0) as server:
        connect("127.0.0.1", portno(server)).send(note(1))
        accepted = server.accept()
        assert list(accepted) == [note(1), off(1)]


def test_a_server_that_is_dropped_closes() -> None:
    portno = PortServer("127.0.0.1", 0).addresses[0][1]

    def refused() -> bool:
        try:
            connect("127.0.0.1", portno).close()
        except ConnectRefused:
            return True
        except ConnectError:
            pass  # It was about to be accepted when the listener closed: a reset.
        return False

    wait_until(refused)
