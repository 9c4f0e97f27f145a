"""Hubs joined through a real nats-server."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import mido.sockets
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from mido import Message

from midinet import MissingExtra, PortServer, SocketPort, UsageError, connect, sync, tls_client_context
from midinet.cli.joining import read_broker
from midinet.gateways.broker import first_messages
from midinet.gateways.packets import FRAMES, pack
from midinet.wire.parser import count_messages, split_messages
from tests.harness.nats import NatsServer
from tests.harness.raw import RawPeer
from tests.harness.servers import portno
from tests.harness.synth import VirtualSynth
from tests.harness.waiting import PATIENCE_S, until, wait_until

NOTE_ON = Message("note_on", note=60, velocity=100)
NOTE_OFF = Message("note_off", note=60)


@pytest.fixture(autouse=True)
def _nats_py() -> None:
    pytest.importorskip("nats")


@pytest.fixture(scope="module")
def broker() -> Iterator[NatsServer]:
    """One for tests that leave it running."""
    with NatsServer() as server:
        yield server


@pytest.fixture
def own_broker() -> Iterator[NatsServer]:
    """One to kill and stop."""
    with NatsServer() as server:
        yield server


class Stage:
    """Hubs and ports of a test, closed at its end."""

    def __init__(self, stack: AsyncExitStack, session: str) -> None:
        self._stack = stack
        self.session = session
        self.hubs: list[PortServer] = []

    async def hub(self, url: Any, **options: Any) -> PortServer:
        options = {"relay": True, "broker": url, "session": self.session, "snapshot": True, **options}
        hub = await self._stack.enter_async_context(PortServer("127.0.0.1", 0, **options))
        self.hubs.append(hub)
        return hub

    async def together(self, *hubs: PortServer) -> None:
        """Wait until hubs know each other."""
        await until(lambda: all(hub.stats.broker.hubs == len(hubs) - 1 for hub in hubs), "the hubs to meet")

    async def port(self, hub: PortServer, **options: Any) -> SocketPort:
        others = len(hub.ports)
        port = await self._stack.enter_async_context(connect(*hub.addresses[0], **options))
        await until(lambda: len(hub.ports) > others, "the hub to adopt the port")
        return port


@pytest.fixture
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", request.node.name)[-60:]
    async with AsyncExitStack() as stack:
        yield Stage(stack, name)


async def receive(port: SocketPort) -> Message:
    async with asyncio.timeout(PATIENCE_S):
        return await port.receive()


async def receive_until(port: SocketPort, last: Message) -> list[Message]:
    """What a port gets, up to a message."""
    heard = []
    while not heard or heard[-1] != last:
        heard.append(await receive(port))
    return heard


async def test_three_hubs_are_one_for_a_client_of_mido(stage: Stage, broker: NatsServer) -> None:
    hubs = [await stage.hub(broker.url) for _ in range(3)]
    await stage.together(*hubs)
    ports = [mido.sockets.connect(*hub.addresses[0]) for hub in hubs]
    try:
        await until(lambda: all(len(hub.ports) == 1 for hub in hubs), "mido's ports to be adopted")
        for sender in ports:
            await asyncio.to_thread(sender.send, NOTE_ON)
            await asyncio.to_thread(sender.send, NOTE_OFF)
            for listener in ports:
                if listener is not sender:
                    assert [await asyncio.to_thread(listener.receive) for _ in range(2)] == [
                        NOTE_ON,
                        NOTE_OFF,
                    ]
        assert all(port.poll() is None for port in ports)
    finally:
        for port in ports:
            port.close()
            for file in (port._rfile, port._wfile, port._socket):
                file.close()


async def test_sessions_do_not_hear_each_other(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    other = await stage.hub(broker.url, session="another")
    await stage.together(one, two)
    sender, listener, stranger = [await stage.port(hub) for hub in (one, two, other)]
    await sender.send(NOTE_ON)
    assert await receive(listener) == NOTE_ON
    assert stranger.poll() is None
    assert other.stats.broker.hubs == 0
    assert other.stats.broker.packets_received == 0


async def test_a_hub_that_joins_is_in_tune(stage: Stage, broker: NatsServer) -> None:
    one = await stage.hub(broker.url)
    sender = await stage.port(one)
    program = Message("program_change", program=5)
    await sender.send(program)
    await sender.send(NOTE_ON)
    await until(lambda: one.stats.messages_received == 2, "the hub to hear it")
    await asyncio.sleep(0.3)  # The note is no young one any more.
    two = await stage.hub(broker.url)
    listener = await stage.port(two)
    assert await receive(listener) == program
    await sender.send(NOTE_OFF)
    assert await receive(listener) == NOTE_OFF


async def test_the_notes_of_a_hub_that_ends_are_let_go_of(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    sender, listener = await stage.port(one), await stage.port(two)
    await sender.send(NOTE_ON)
    assert await receive(listener) == NOTE_ON
    await one.close()
    assert (await receive(listener)).type == "note_off"
    await until(lambda: two.stats.broker.hubs == 0, "the hub to be gone")
    assert two.stats.broker.hubs_gone == 0


async def test_the_notes_of_a_client_are_let_go_of_everywhere(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    sender, listener = await stage.port(one, release_notes=False), await stage.port(two)
    await sender.send(NOTE_ON)
    assert await receive(listener) == NOTE_ON
    await sender.close()
    assert (await receive(listener)).type == "note_off"


async def test_who_reads_a_hub_hears_the_others_clients(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url, yield_ports=True)
    await stage.together(one, two)
    assert two.poll() is None
    sender = await stage.port(one)
    await sender.send(NOTE_ON)
    async with asyncio.timeout(PATIENCE_S):
        port, message = await two.receive()
    assert message == NOTE_ON
    assert port.name == f"session {stage.session}"


async def test_what_a_hub_s_program_sends_reaches_all_clients(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    listeners = [await stage.port(one), await stage.port(two)]
    await one.send(NOTE_ON)
    assert [await receive(listener) for listener in listeners] == [NOTE_ON, NOTE_ON]


async def test_a_hub_goes_on_while_there_is_no_broker_and_finds_it_later(
    stage: Stage, own_broker: NatsServer
) -> None:
    own_broker.kill()
    one, two = await stage.hub(own_broker.url), await stage.hub(own_broker.url)
    sender, near, far = await stage.port(one), await stage.port(one), await stage.port(two)
    program = Message("program_change", program=7)
    await sender.send(program)
    assert await receive(near) == program
    assert not one.stats.broker.connected
    own_broker.start()
    assert await receive(far) == program
    await stage.together(one, two)
    assert one.stats.broker.connected
    assert one.stats.broker.url == own_broker.url


async def test_after_the_broker_was_killed_the_states_agree_and_no_note_hangs(
    stage: Stage, own_broker: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = await stage.hub(own_broker.url), await stage.hub(own_broker.url)
    await stage.together(one, two)
    first, second = await stage.port(one), await stage.port(two)
    await first.send(NOTE_ON)
    assert await receive(second) == NOTE_ON
    await second.send(NOTE_ON.copy(note=72))
    assert await receive(first) == NOTE_ON.copy(note=72)
    own_broker.kill()
    await until(lambda: not (one.stats.broker.connected or two.stats.broker.connected), "the loss")
    await first.send(NOTE_OFF)
    await first.send(Message("control_change", control=7, value=11))
    await second.send(Message("control_change", control=10, value=12))
    await asyncio.sleep(0.3)
    own_broker.start()
    await stage.together(one, two)
    await until(lambda: two._hub.present().values == one._hub.present().values, "the states to agree")
    heard = await receive_until(second, Message("control_change", control=7, value=11))
    assert [message.note for message in heard if message.type == "note_off"] == [60]
    assert await receive(first) == Message("control_change", control=10, value=12)
    # The other one still holds its note, and it is not struck again.
    assert first.poll() is None
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([line for line in told if "no broker" in line]) == 2  # One for each hub.


async def test_a_broker_that_stops_costs_the_clients_here_nothing(
    stage: Stage, own_broker: NatsServer
) -> None:
    one, two = await stage.hub(own_broker.url), await stage.hub(own_broker.url)
    await stage.together(one, two)
    far = await stage.port(two)
    async with RawPeer(portno(one)) as sender, RawPeer(portno(one)) as near:
        await until(lambda: len(one.ports) == 2, "two clients")
        own_broker.stop()
        try:
            # Far more than may be under way or wait. Odd notes are held in the end.
            piece = b"".join(
                bytes((0x90, note, 64)) + (b"" if note % 2 else bytes((0x80, note, 0)))
                for note in (number % 128 for number in range(4000))
            )
            count = 40
            heard, _ = await asyncio.gather(near.read(count * len(piece)), _send_all(sender, [piece] * count))
            assert heard == piece * count
            stats = one.stats.broker
            assert (stats.slow_episodes, stats.messages_thinned > 0) == (1, True)
            assert one._broker is not None
            assert one._broker.outbox.backlog_bytes <= 1 << 20
            await until(lambda: not one.stats.broker.connected, "the broker to be missed")
        finally:
            own_broker.go_on()
        await until(lambda: one.stats.broker.connected and two.stats.broker.connected, "the broker")
        await stage.together(one, two)
        await sender.send(b"\xc0\x09")
        synth = VirtualSynth()
        for message in await receive_until(far, Message("program_change", program=9)):
            synth.feed(bytes(message.bytes()))
        here = VirtualSynth()
        here.feed(heard)
        # What was struck so long ago is not struck any more, and nothing sounds that is over.
        assert set(synth.sounding) <= set(here.sounding)


async def _send_all(peer: RawPeer, pieces: list[bytes]) -> None:
    for piece in pieces:
        await peer.send(piece)


async def test_what_waits_for_a_broker_gives_way_also_where_slow_clients_are_disconnected(
    stage: Stage, own_broker: NatsServer
) -> None:
    options = {"slow": "disconnect", "max_outbox": 1000}
    one, two = await stage.hub(own_broker.url, **options), await stage.hub(own_broker.url, **options)
    await stage.together(one, two)
    listener = await stage.port(two)
    own_broker.kill()
    await until(lambda: not one.stats.broker.connected, "the loss")
    async with RawPeer(portno(one)) as sender:
        await sender.send(bytes((0xB0, 7, 1)) * 5000 + bytes((0xB0, 7, 90)))
        await until(lambda: one.stats.messages_received == 5001, "the hub to hear it")
        own_broker.start()
        while (heard := await receive(listener)) != Message("control_change", control=7, value=90):
            assert heard.control == 7
        await sender.send(b"\xc0\x05")
        assert (await receive_until(listener, Message("program_change", program=5)))[-1].program == 5
    assert one.stats.broker.messages_dropped == 0


async def test_a_sender_that_ends_is_no_end_of_the_session(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    sender, listener = await stage.port(one), await stage.port(two)
    assert one._broker is not None
    assert one._broker._send_task is not None
    one._broker._send_task.cancel()
    await until(lambda: one.stats.broker.connects == 2, "the hub to join again")
    await sender.send(NOTE_ON)
    assert await receive(listener) == NOTE_ON


async def test_one_of_two_brokers_of_a_cluster_is_lost(stage: Stage) -> None:
    with (
        NatsServer("--cluster_name", "c", "--cluster", "nats://127.0.0.1:-1") as first,
        NatsServer(
            "--cluster_name", "c", "--cluster", "nats://127.0.0.1:-1", "--routes", first.cluster_url
        ) as second,
    ):
        urls = [first.url, second.url]
        one, two = await stage.hub(first.url), await stage.hub(",".join(reversed(urls)))
        await stage.together(one, two)
        sender, listener = await stage.port(one), await stage.port(two)
        await sender.send(NOTE_ON)
        assert await receive(listener) == NOTE_ON
        lost, left = (first, second) if two.stats.broker.url == first.url else (second, first)
        three = await stage.hub([left.url])
        await stage.together(one, two, three)
        player = await stage.port(three)
        lost.kill()
        await until(lambda: two.stats.broker.url == left.url, "the other broker")
        await player.send(Message("program_change", program=3))
        heard = await receive_until(listener, Message("program_change", program=3))
        assert heard[-1].program == 3


async def test_a_million_frames_none_twice_none_echoed_none_lost(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    count, piece, ahead = 1_000_000, 10_000, 5
    data = b"".join(
        bytes((0xB0 | number >> 14 & 15, number >> 7 & 127, number & 127))
        for number in range(1 << 18)
        if number >> 7 & 127 < 120
    )
    pieces = [data[3 * at : 3 * (at + piece)] for at in range(0, len(data) // 3 - piece, piece)]
    async with RawPeer(portno(one)) as sender, RawPeer(portno(two)) as listener:
        await until(lambda: one.ports and two.ports, "two clients")
        # Never far ahead: nobody would be waited for.
        sent = [pieces[number % len(pieces)] for number in range(count // piece)]
        for number in range(len(sent) + ahead):
            if number < len(sent):
                await sender.send(sent[number])
            if number >= ahead:
                assert await listener.read(3 * piece) == sent[number - ahead]
        stats = two.stats.broker
        assert (stats.messages_received, stats.gaps, stats.duplicates) == (count, 0, 0)
        assert one.stats.broker.messages_received == 0
        # Nothing came back: what the sender gets first is what is said now.
        await listener.send(b"\xf6")
        assert await sender.read(1) == b"\xf6"


async def test_what_others_say_on_the_subject_is_counted_and_ignored(
    stage: Stage, broker: NatsServer
) -> None:
    import nats

    one = await stage.hub(broker.url)
    listener = await stage.port(one)
    await until(lambda: one.stats.broker.connected, "the broker")
    stranger = await nats.connect(broker.url)
    try:
        for payload in (b"", b"hello", pack(FRAMES, b"x" * 16, 1, 0.0)[:-1], bytes(range(256)) * 100):
            await stranger.publish(f"midinet.{stage.session}", payload)
        await stranger.flush()
        await until(lambda: one.stats.broker.malformed == 4, "four packets that are none")
        assert listener.poll() is None
        assert one.stats.broker.hubs == 0
    finally:
        await stranger.close()


async def test_a_system_exclusive_message_longer_than_the_broker_takes_is_counted(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "small.conf").write_text("max_payload: 4096")
    with NatsServer("--config", str(tmp_path / "small.conf")) as small:
        one, two = await stage.hub(small.url), await stage.hub(small.url)
        await stage.together(one, two)
        sender, listener = await stage.port(one), await stage.port(two)
        await sender.send(Message("sysex", data=bytes(5000)))
        await sender.send(NOTE_ON)
        assert await receive(listener) == NOTE_ON
        assert one.stats.broker.too_long == 1


async def test_a_password_is_asked_for_and_never_shown(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer("--user", "stage", "--pass", "s3cret") as guarded:
        address = guarded.url.removeprefix("nats://")
        one = await stage.hub(f"nats://stage:s3cret@{address}")
        await until(lambda: one.stats.broker.connected, "the broker")
        two = await stage.hub(f"nats://stage:wr0ng@{address}")
        await until(lambda: "no broker" in caplog.text, "the refusal")
        assert not two.stats.broker.connected
        assert two._hub is not None
    assert "s3cret" not in caplog.text + str(one.stats)
    assert "wr0ng" not in caplog.text + str(two.stats)


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost:4222", "nats://", "nats://h:x", []])
def test_what_is_no_broker_is_refused_at_once(url: Any) -> None:
    with pytest.raises(ValueError, match="no broker"):
        PortServer("127.0.0.1", 0, relay=True, broker=url)


@pytest.mark.parametrize("session", ["", "a.b", "*", ">", "a b", "x" * 65, "ä"])
def test_a_session_s_name_has_no_dots_and_wildcards(session: str) -> None:
    with pytest.raises(ValueError, match="is no session"):
        PortServer("127.0.0.1", 0, relay=True, broker="nats://127.0.0.1:4222", session=session)


def test_only_a_relaying_server_is_joined() -> None:
    with pytest.raises(ValueError, match="relay=True"):
        PortServer("127.0.0.1", 0, broker="nats://127.0.0.1:4222")


async def test_without_nats_py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nats", None)
    with pytest.raises(MissingExtra, match=r"pip install 'midinet\[nats\]'"):
        await PortServer("127.0.0.1", 0, relay=True, broker="nats://127.0.0.1:4222")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from([b"\x90\x3c\x40", b"\xc0\x05", b"\xf8", b"\xf6", b"\xf0\xf7", b"\xf0\1\2\3\4\5\xf7"]),
        min_size=1,
    ),
    st.integers(1, 12),
)
def test_what_is_too_long_for_one_packet_goes_in_several_of_whole_messages(
    messages: list[bytes], size: int
) -> None:
    data = b"".join(messages)
    pieces = []
    while data:
        pieces.append(data if len(data) <= size else first_messages(data, size))
        data = data[len(pieces[-1]) :]
        assert pieces[-1]
    assert [message for piece in pieces for message in split_messages(piece)] == messages
    assert all(len(piece) <= size or count_messages(piece) == 1 for piece in pieces)


async def test_an_nkey_is_shown_to_a_broker_that_asks_for_it(stage: Stage, tmp_path: Path) -> None:
    import nkeys

    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "seed").write_bytes(seed)
    (tmp_path / "nats.conf").write_text(f"authorization {{ users = [ {{ nkey: {public} }} ] }}")
    with NatsServer("--config", str(tmp_path / "nats.conf")) as guarded:
        options = read_broker(
            [guarded.url],
            stage.session,
            credentials=None,
            nkey=tmp_path / "seed",
            ca=None,
            cert=None,
            key=None,
        )["broker_options"]
        known = await stage.hub(guarded.url, broker_options=options)
        stranger = await stage.hub(guarded.url)
        await until(lambda: known.stats.broker.connected, "the broker")
        assert not stranger.stats.broker.connected


async def test_a_broker_with_tls_is_trusted_by_its_ca(stage: Stage, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = ("--tlscert", str(tmp_path / "cert.pem"), "--tlskey", str(tmp_path / "key.pem"))
    with NatsServer("--tls", *files) as guarded:
        url = guarded.url.replace("nats://", "tls://")
        context = tls_client_context(tmp_path / "ca.pem")
        one, two = [await stage.hub(url, broker_options={"tls": context}) for _ in range(2)]
        await stage.together(one, two)
        sender, listener = await stage.port(one), await stage.port(two)
        await sender.send(NOTE_ON)
        assert await receive(listener) == NOTE_ON


def test_a_blocking_server_reads_what_comes_from_other_hubs_with_who_it_is_from(broker: NatsServer) -> None:
    options = {"relay": True, "yield_ports": True, "broker": broker.url, "session": "blocking"}
    with sync.PortServer("127.0.0.1", 0, **options) as one, sync.PortServer("127.0.0.1", 0, **options) as two:
        assert one.poll() is None
        wait_until(lambda: one.stats.broker.hubs == two.stats.broker.hubs == 1, "the hubs to meet")
        with sync.connect("127.0.0.1", portno(two)) as client:
            client.send(NOTE_ON)
            port, message = one.receive()
            assert message == NOTE_ON
            assert (port.name, port.peer, port.closed) == ("session blocking", ("", 0), False)
            for use in (port.reset, port.panic, lambda: port.send(NOTE_OFF)):
                with pytest.raises(UsageError, match="what the server sends they all get"):
                    use()
            port.close()
        assert one.receive()[1] == Message("note_off", note=60)


async def test_the_port_of_other_hubs_says_why_nothing_can_be_sent_to_it_alone(
    stage: Stage, broker: NatsServer
) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url, yield_ports=True)
    await stage.together(one, two)
    assert two.poll() is None
    await (await stage.port(one)).send(NOTE_ON)
    async with asyncio.timeout(PATIENCE_S):
        port, _ = await two.receive()
    assert (port.peer, port.closed, port.stats.messages_received) == (("", 0), False, 1)
    with pytest.raises(UsageError, match="alone"):
        await port.send(NOTE_OFF)
    for use in (port.reset, port.panic):
        with pytest.raises(UsageError, match="alone"):
            use()


async def test_active_sensing_does_not_go_to_other_hubs(stage: Stage, broker: NatsServer) -> None:
    one, two = await stage.hub(broker.url), await stage.hub(broker.url)
    await stage.together(one, two)
    sender, here, there = await stage.port(one), await stage.port(one), await stage.port(two)
    await sender.send(Message("active_sensing"))
    await sender.send(NOTE_ON)
    assert [await receive(here) for _ in range(2)] == [Message("active_sensing"), NOTE_ON]
    assert await receive(there) == NOTE_ON
