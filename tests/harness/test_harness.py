"""The harness itself: each faulty thing does what it says, and the synth what the specification says."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from tests.harness import waiting
from tests.harness.clock import Clock
from tests.harness.proxy import FaultyProxy
from tests.harness.raw import RawListener, RawPeer
from tests.harness.servers import portno, serving
from tests.harness.synth import VirtualSynth
from tests.harness.two_hosts import TwoHosts, requires_two_hosts, two_hosts
from tests.harness.waiting import until, wait_until

NOTE_ON, NOTE_OFF = b"\x90\x3c\x40", b"\x80\x3c\x40"
# More than all buffers between a peer, the proxy and the other peer hold (4 MiB is tcp_wmem's maximum).
MUCH = bytes(1 << 24)


def synth(text: str = "", **options: bool) -> VirtualSynth:
    """An instrument that was fed the bytes of a hex dump."""
    fed = VirtualSynth(**options)
    fed.feed(bytes.fromhex(text))
    return fed


# The virtual instrument: notes.


def test_a_synth_at_power_up_is_silent_and_has_no_state() -> None:
    assert synth().is_silent()
    assert synth().describe() == "silent"
    assert synth().state() == {}


def test_a_note_sounds_until_its_note_off() -> None:
    held = synth("93 3C 40")
    assert (held.sounding, held.voices) == ({(3, 60)}, Counter({(3, 60): 1}))
    assert not held.is_silent()
    assert held.describe() == "channel 3 note 60: key down, voices 1"
    held.feed(bytes.fromhex("83 3C 00"))
    assert held.is_silent()


@pytest.mark.parametrize("note_off", ["80 3C 40", "90 3C 00"])
def test_a_note_on_with_velocity_0_is_a_note_off(note_off: str) -> None:
    assert synth("90 3C 40" + note_off).is_silent()


def test_two_note_ons_take_two_note_offs_where_each_has_a_voice() -> None:
    once = synth("90 3C 40 90 3C 40 80 3C 40")
    assert (once.sounding, once.voices) == (set(), Counter({(0, 60): 1}))
    assert not once.is_silent()
    assert once.describe() == "channel 0 note 60: key up, voices 1"
    once.feed(NOTE_OFF)
    assert once.is_silent()


def test_a_redundant_note_off_does_no_harm() -> None:
    assert synth("80 3C 40").is_silent()
    # Nor is it owed to a later note.
    assert synth("80 3C 40 90 3C 40").voices == {(0, 60): 1}


def test_running_status_and_real_time_inside_messages_are_heard() -> None:
    assert synth("90 3C 40 3E F8 40").sounding == {(0, 60), (0, 62)}
    assert synth("F0 01 F8 02 F7 90 3C 40").sounding == {(0, 60)}


def test_what_no_status_precedes_is_ignored() -> None:
    aside = synth("90 3C 40 F7")
    aside.feed(b"MIDINET/1 PING\r\n\r\n")
    assert aside.sounding == {(0, 60)}
    assert aside.state() == {}


@pytest.mark.parametrize("mode", ["78", "7B", "7C", "7D", "7E", "7F"])
def test_mode_messages_silence_their_channel_unless_ignored(mode: str) -> None:
    script = f"90 3C 40 90 3C 40 91 3E 40 B0 {mode} 00"
    assert synth(script).sounding == {(1, 62)}
    assert synth(script).voices == {(1, 62): 1}
    deaf = synth(script, ignores_mode_messages=True)
    assert deaf.sounding == {(0, 60), (1, 62)}
    assert deaf.state() == {}


def test_all_notes_off_leaves_the_pedals() -> None:
    assert synth("B0 40 7F 90 3C 40 B0 7B 00").pedals == {(0, 64): 127}


def test_with_omni_on_all_notes_off_and_reset_all_controllers_are_ignored() -> None:
    for held in (
        synth("B0 7D 00 90 3C 40 B0 40 7F B0 7B 00 B0 79 00"),
        synth("90 3C 40 B0 40 7F B0 7B 00 B0 79 00", omni=True),
    ):
        assert held.sounding == {(0, 60)}
        assert held.pedals == {(0, 64): 127}
    assert synth("90 3C 40 B0 7C 00", omni=True).is_silent()
    assert synth("90 3C 40 B0 78 00", omni=True).is_silent()


@pytest.mark.parametrize("pedal", ["40", "42", "43", "45"])
def test_a_pedal_that_is_down_is_not_silence(pedal: str) -> None:
    down = synth(f"B2 {pedal} 40")
    assert not down.is_silent()
    assert down.describe() == f"channel 2 pedal {int(pedal, 16)}: 64"
    assert synth(f"B2 {pedal} 40 B2 {pedal} 00").is_silent()
    # Page 12: 0 to 63 is off.
    assert synth(f"B2 {pedal} 3F").is_silent()


def test_a_bend_off_its_centre_is_not_silence() -> None:
    bent = synth("E0 00 00 E1 7F 7F E2 01 40")
    assert bent.bends == {0: -8192, 1: 8191, 2: 1}
    assert not bent.is_silent()
    assert "channel 2 bend: +1" in bent.describe()
    assert synth("E0 00 00 E0 00 40").is_silent()


# The virtual instrument: state.


def test_a_program_takes_the_bank_of_its_moment() -> None:
    assert synth("C0 05").programs == {0: (None, 0, 5)}
    assert synth("B0 00 01 B0 20 02 C0 05").programs == {0: (1, 2, 5)}
    later = synth("B0 00 01 B0 20 02 C0 05 B0 00 03")
    assert later.programs == {0: (1, 2, 5)}
    later.feed(bytes.fromhex("C0 06"))
    assert later.programs == {0: (3, 0, 6)}


def test_high_bits_clear_low_bits_unless_the_hardware_leaves_them() -> None:
    script = "B0 07 40 B0 27 05 B0 07 41"
    assert synth(script).state() == {("controller", 0, 7): 65}
    assert synth(script, msb_clears_lsb=False).state() == {
        ("controller", 0, 7): 65,
        ("controller", 0, 39): 5,
    }


def test_portamento_control_holds_for_one_note() -> None:
    assert synth("B0 54 3C").state() == {("controller", 0, 84): 60}
    assert synth("B0 54 3C 91 40 40").state() == {("controller", 0, 84): 60}
    assert synth("B0 54 3C 90 40 40").state() == {}


def test_reset_all_controllers_resets_what_rp_015_names() -> None:
    everything = "B0 01 10 B0 0B 20 B0 40 7F B0 41 7F B0 42 7F B0 43 7F B0 65 00 B0 64 01 B0 63 02"
    everything += "E0 00 00 D0 40 A0 3C 40"
    assert len(synth(everything).state()) == 6 + 3 + 3
    assert synth(everything + "B0 79 00").state() == {}
    assert synth(everything + "B1 79 00").state() == synth(everything).state()


def test_reset_all_controllers_leaves_what_rp_015_leaves() -> None:
    kept = "B0 00 01 B0 20 02 C0 05 B0 07 64 B0 0A 10 B0 46 10 B0 4F 10 B0 5B 10 B0 5F 10 B0 7A 00 B0 7E 03"
    # Parameter values stay and their selection goes.
    kept += "B0 65 00 B0 64 00 B0 06 0C B0 65 7F B0 64 7F"
    before = synth(kept)
    after = synth(kept + "B0 79 00")
    assert after.state() == before.state()
    assert before.difference(after) == []
    assert len(before.state()) == 12
    assert synth("90 3C 40 B0 79 00").sounding == {(0, 60)}


def test_what_rp_015_does_not_name_is_reset_or_left() -> None:
    assert synth("B0 45 7F B0 79 00").is_silent()
    left = synth("B0 45 7F B0 40 7F B0 79 00", resets_unlisted=False)
    assert left.pedals == {(0, 69): 127}
    # The low bits of what it names are a part of it.
    assert synth("B0 21 05 B0 79 00", resets_unlisted=False).state() == {}


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("B0 65 00 B0 64 00 B0 06 0C", (12, 0)),
        ("B0 65 00 B0 64 00 B0 06 0C B0 26 32", (12, 50)),
        ("B0 65 00 B0 64 00 B0 26 32", (2, 50)),
        # RP-018: the low bits of RPN 0 (here cents) and 1, the high bits of 2; whatever the value byte.
        ("B0 65 00 B0 64 00 B0 06 0C B0 60 7F", (12, 1)),
        ("B0 65 00 B0 64 00 B0 06 0C B0 61 00", (11, 99)),
        ("B0 65 00 B0 64 01 B0 06 40 B0 61 00", (63, 127)),
        ("B0 65 00 B0 64 02 B0 06 40 B0 60 00", (65, 0)),
        ("B0 65 00 B0 64 02 B0 06 7F B0 60 00", (127, 0)),
        ("B0 63 01 B0 62 02 B0 06 00 B0 61 00", (0, 0)),
        ("B0 63 01 B0 62 02 B0 06 7F B0 26 7F B0 60 00", (127, 127)),
    ],
)
def test_data_entry_sets_the_selected_parameter(script: str, value: tuple[int, int]) -> None:
    assert list(synth(script).parameters.values()) == [value]


def test_data_entry_goes_to_the_number_that_came_last_and_to_nothing_after_null() -> None:
    both = synth("B0 65 00 B0 64 01 B0 63 03 B0 62 04 B0 06 05")
    assert both.state() == {
        ("number", 0, "rpn"): (0, 1),
        ("number", 0, "nrpn"): (3, 4),
        ("selected", 0): "nrpn",
        ("parameter", 0, "nrpn", 3, 4): (5, 0),
    }
    for null in ("B0 06 05", "B0 65 00 B0 64 01 B0 65 7F B0 64 7F B0 06 05", "B0 63 7F B0 62 7F B0 60 00"):
        assert synth(null).state() == {}


def test_modes_are_state() -> None:
    assert synth("B0 7E 04 B1 7D 00 B2 7A 00").state() == {
        ("mono", 0): 4,
        ("omni", 1): True,
        ("local", 2): False,
    }
    assert synth("B0 7E 04 B1 7D 00 B2 7A 00 B0 7F 00 B1 7C 00 B2 7A 7F").state() == {}


@pytest.mark.parametrize(
    ("script", "running", "position"),
    [
        ("F8", False, 0),
        ("FA F8 F8", True, 2),
        ("FA F8 FC F8", False, 1),
        ("FA F8 FC FB F8", True, 2),
        ("FA F8 FC FA", True, 0),
        # Page 32: a Start while playing is ignored.
        ("FA F8 FA F8", True, 2),
        # Page 29: position 4, Continue and three clocks are the 27th clock.
        ("F2 04 00 FB F8 F8 F8", True, 27),
        ("F2 00 01", False, 128 * 6),
    ],
)
def test_transport(script: str, running: bool, position: int) -> None:
    played = synth(script)
    assert (played.running, played.song_position) == (running, position)


def test_system_reset_is_power_up() -> None:
    used = "90 3C 40 B0 40 7F B0 07 10 C0 05 E0 00 00 FA F8 F3 02 B0 7E 01"
    assert len(synth(used).state()) == 8
    reset = synth(used + "FF")
    assert reset.state() == {}
    assert reset.is_silent()
    # Page 33: it clears running status.
    assert synth("90 3C 40 FF 3E 40").is_silent()


def test_a_difference_says_what_differs() -> None:
    one, other = synth("B0 07 64 C0 05"), synth("B0 07 65 B0 01 00")
    assert one.difference(other) == [
        "controller 0 7: 100 here, 101 there",
        "program 0: (None, 0, 5) here, at rest there",
    ]
    assert one.difference(synth("C0 05 B0 07 64")) == []


def test_a_set_volume_differs_from_a_volume_never_set() -> None:
    assert synth("B0 07 64").difference(synth()) != []
    assert synth("B0 01 00 B0 0B 7F D0 00 E0 00 40 B0 27 00").difference(synth()) == []


# The proxy.


@contextlib.asynccontextmanager
async def through_a_proxy(
    *, receive_buffer: int | None = None
) -> AsyncIterator[tuple[FaultyProxy, RawPeer, RawPeer]]:
    """A proxy, the client's end and the server's end of a connection through it."""
    async with (
        RawListener() as listener,
        FaultyProxy(listener.portno) as proxy,
        RawPeer(proxy.portno, receive_buffer=receive_buffer) as client,
        await listener.accept() as server,
    ):
        yield proxy, client, server


async def test_it_passes_on_both_ways_and_counts() -> None:
    async with through_a_proxy() as (proxy, client, server):
        await client.send(b"there")
        assert await server.read(5) == b"there"
        await server.send(b"and back")
        assert await client.read(8) == b"and back"
        await until(lambda: (proxy.to_server.passed, proxy.to_client.passed) == (5, 8))


async def test_a_half_closed_connection_stays_half_open() -> None:
    async with through_a_proxy() as (proxy, client, server):
        await client.send(b"last")
        client.finish()
        assert await server.read_to_end() == b"last"
        await server.send(b"answer")
        server.finish()
        assert await client.read_to_end() == b"answer"
        await until(lambda: proxy.connections == 0)
        assert proxy.cuts == 0


async def test_a_reset_is_passed_on() -> None:
    async with through_a_proxy() as (proxy, client, server):
        client.reset()
        with pytest.raises(ConnectionResetError):
            await server.read_to_end()
        await until(lambda: proxy.connections == 0)


async def test_a_server_that_refuses_shows_as_a_reset() -> None:
    async with RawListener() as listener:
        portno = listener.portno
    async with FaultyProxy(portno) as proxy, RawPeer(proxy.portno) as client:
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()


@pytest.mark.parametrize("by", ["fin", "reset"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9])
async def test_a_cut_lets_exactly_so_many_bytes_pass(count: int, by: Literal["fin", "reset"]) -> None:
    script = NOTE_ON * 3
    for direction in ("to_server", "to_client"):
        async with through_a_proxy() as (proxy, client, server):
            sender, receiver = (client, server) if direction == "to_server" else (server, client)
            proxy.cut_after(count, by=by, direction=direction)
            if count:
                await sender.send(script)
            assert await receiver.read(count) == script[:count]
            for peer in (receiver, sender):
                if by == "fin":
                    assert await peer.read_to_end() == b""
                else:
                    with pytest.raises(ConnectionResetError):
                        await peer.read_to_end()
            assert (proxy.to_server.passed + proxy.to_client.passed, proxy.cuts) == (count, 1)


async def test_a_reset_waits_until_a_slow_reader_has_the_bytes() -> None:
    async with through_a_proxy(receive_buffer=4096) as (proxy, client, server):
        count = 1 << 15
        proxy.cut_after(count, by="reset", direction="to_client")
        sending = asyncio.create_task(server.send(MUCH))
        await until(lambda: proxy.to_client.passed == count)
        assert proxy.cuts == 0
        assert len(await client.read(count)) == count
        with pytest.raises(ConnectionResetError):
            await client.read_to_end()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sending


async def test_a_fin_reaches_a_sender_that_goes_on_sending() -> None:
    async with through_a_proxy() as (proxy, client, server):
        proxy.cut_after(3, by="fin")
        await client.send(MUCH)
        assert await client.read_to_end() == b""
        assert await server.read_to_end() == bytes(3)


async def test_bytes_counted_before_a_cut_was_asked_for_do_not_count() -> None:
    async with through_a_proxy() as (proxy, client, server):
        await client.send(b"before")
        assert await server.read(6) == b"before"
        proxy.cut_after(2)
        await client.send(b"after")
        assert await server.read_to_end() == b"af"


async def test_with_nothing_connected_a_cut_after_0_bytes_is_for_the_next_connection() -> None:
    async with RawListener() as listener, FaultyProxy(listener.portno) as proxy:
        proxy.cut_after(0)
        async with RawPeer(proxy.portno) as client, await listener.accept() as server:
            assert await client.read_to_end() == b""
            assert await server.read_to_end() == b""
        async with RawPeer(proxy.portno) as client, await listener.accept() as server:
            await client.send(b"!")
            assert await server.read(1) == b"!"
            await proxy.cut()
            # What is cut already and not yet closed does not count as connected.
            proxy.cut_after(0)
            async with RawPeer(proxy.portno) as other, await listener.accept():
                assert await other.read_to_end() == b""
        assert proxy.cuts == 3


@pytest.mark.parametrize("by", ["fin", "reset"])
async def test_a_cut_now_ends_every_connection(by: Literal["fin", "reset"]) -> None:
    async with RawListener() as listener, FaultyProxy(listener.portno) as proxy:
        async with (
            RawPeer(proxy.portno) as one,
            await listener.accept() as first,
            RawPeer(proxy.portno) as other,
            await listener.accept() as second,
        ):
            await proxy.cut(by=by)
            assert proxy.cuts == 2
            for peer in (one, first, other, second):
                if by == "fin":
                    assert await peer.read_to_end() == b""
                else:
                    with pytest.raises(ConnectionResetError):
                        await peer.read_to_end()
        await until(lambda: proxy.connections == 0)


async def test_a_stall_pushes_back_until_it_is_over() -> None:
    async with through_a_proxy() as (proxy, client, server):
        proxy.to_server.stalled = True
        sending = asyncio.create_task(client.send(MUCH))
        # A sender who is pushed back has a socket that cannot be written.
        await until(lambda: not _writable(client.sock))
        # The other direction is not stalled.
        await server.send(b"meanwhile")
        assert await client.read(9) == b"meanwhile"
        assert not sending.done()
        assert proxy.to_server.passed == 0
        proxy.to_server.stalled = False
        assert len(await server.read(len(MUCH))) == len(MUCH)
        await sending


def _writable(sock: socket.socket) -> bool:
    return bool(select.select([], [sock], [], 0)[1])


async def test_a_stalled_end_is_held_back_too() -> None:
    async with through_a_proxy() as (proxy, client, server):
        proxy.to_server.stalled = True
        client.finish()
        reading = asyncio.create_task(server.read_to_end())
        await server.send(b"turn")
        assert await client.read(4) == b"turn"
        assert not reading.done()
        proxy.to_server.stalled = False
        assert await reading == b""


async def test_bytes_are_late_by_the_delay_and_not_slower() -> None:
    async with through_a_proxy() as (proxy, client, server):
        # So long that a busy machine takes less without.
        proxy.to_server.delay_s = 1.5
        began = time.monotonic()
        for _ in range(20):
            await client.send(b"a")
            await asyncio.sleep(0.001)
        assert await server.read(20) == b"a" * 20
        # All twenty are on their way at once: one after the other would be 30 s.
        assert 1.5 <= time.monotonic() - began < 30
        proxy.to_server.delay_s = 0.0
        began = time.monotonic()
        await client.send(b"b")
        assert await server.read(1) == b"b"
        assert time.monotonic() - began < 1.5


async def test_a_rate_is_kept() -> None:
    async with through_a_proxy() as (proxy, client, server):
        proxy.to_client.rate = 10_000
        began = time.monotonic()
        await server.send(bytes(1000))
        assert await client.read(900) == bytes(900)
        assert time.monotonic() - began >= 0.08
        assert await client.read(100) == bytes(100)


def segments_received(sock: socket.socket) -> int:
    """How many segments with data came in, of Linux's struct tcp_info: tcpi_data_segs_in."""
    return struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)[0]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the segments of a socket")


@on_linux
async def test_each_chunk_is_a_segment() -> None:
    async with through_a_proxy() as (proxy, client, server):
        await client.send(b"abcde")
        assert await server.read(5) == b"abcde"
        assert segments_received(server.sock) == 1
        proxy.to_server.chunk = 2
        await client.send(b"abcde")
        assert await server.read(5) == b"abcde"
        assert segments_received(server.sock) == 1 + 3


async def test_a_proxy_that_ends_takes_its_connections_along() -> None:
    async with RawListener() as listener:
        async with FaultyProxy(listener.portno) as proxy:
            client = RawPeer(proxy.portno)
            await client.__aenter__()
            server = await listener.accept()
        async with client, server:
            assert await server.read_to_end() == b""
            with pytest.raises(OSError, match="Connect call failed"):
                async with RawPeer(proxy.portno):
                    pass


async def test_a_proxy_ends_while_connections_are_just_coming() -> None:
    async with (
        contextlib.AsyncExitStack() as clients,
        RawListener() as listener,
        FaultyProxy(listener.portno) as proxy,
    ):
        for _ in range(10):
            await clients.enter_async_context(RawPeer(proxy.portno))


# The raw peer.


@on_linux
async def test_send_slowly_sends_each_byte_in_a_segment() -> None:
    async with (
        RawListener() as listener,
        RawPeer(listener.portno) as client,
        await listener.accept() as server,
    ):
        await client.send_slowly(NOTE_ON)
        assert await server.read(3) == NOTE_ON
        assert segments_received(server.sock) == 3


async def test_a_tiny_receive_buffer_pushes_back_early() -> None:
    async with (
        RawListener() as listener,
        RawPeer(listener.portno, receive_buffer=2048) as client,
        await listener.accept() as server,
    ):
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        taken = 0
        while _writable(server.sock):
            taken += server.sock.send(bytes(1024))
        assert taken < 1 << 16
        assert await client.read(taken) == bytes(taken)


# Two hosts.


@contextlib.asynccontextmanager
async def across_the_cable() -> AsyncIterator[tuple[TwoHosts, RawPeer, RawPeer]]:
    """Two hosts, a client on the first and its server's end on the second."""
    loop = asyncio.get_running_loop()
    async with two_hosts() as hosts:
        with hosts.socket_in(1) as listener, hosts.socket_in(0) as sock:
            listener.bind((hosts.addresses[1], 0))
            listener.listen()
            listener.setblocking(False)
            sock.setblocking(False)
            await loop.sock_connect(sock, listener.getsockname())
            taken, _ = await loop.sock_accept(listener)
            async with RawPeer(sock=sock) as client, RawPeer(sock=taken) as server:
                yield hosts, client, server


@requires_two_hosts
async def test_two_hosts_hear_each_other_by_the_cable() -> None:
    async with across_the_cable() as (hosts, client, server):
        before = hosts.cable.passed
        await client.send(NOTE_ON)
        assert await server.read(3) == NOTE_ON
        assert hosts.cable.passed > before


@requires_two_hosts
async def test_a_pulled_cable_carries_nothing_until_it_is_plugged_in() -> None:
    async with across_the_cable() as (hosts, client, server):
        hosts.cable.up = False
        await client.send(NOTE_ON)
        await until(lambda: hosts.cable.dropped > 0)
        with pytest.raises(BlockingIOError):
            server.sock.recv(3)
        hosts.cable.up = True
        assert await server.read(3) == NOTE_ON


@requires_two_hosts
async def test_a_cable_is_late_and_loses() -> None:
    async with across_the_cable() as (hosts, client, server):
        hosts.cable.delay_s, hosts.cable.jitter_s = 0.02, 0.005
        began = time.monotonic()
        await client.send(NOTE_ON)
        assert await server.read(3) == NOTE_ON
        assert time.monotonic() - began >= 0.02
        hosts.cable.delay_s = hosts.cable.jitter_s = 0.0
        hosts.cable.loss = 0.1
        before = hosts.cable.dropped
        script = NOTE_ON * 60_000
        sending = asyncio.create_task(client.send(script))
        assert await server.read(len(script)) == script
        await sending
        assert hosts.cable.dropped > before


@requires_two_hosts
async def test_a_program_runs_on_its_host() -> None:
    code = (
        "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(3).hex())"
    )
    loop = asyncio.get_running_loop()
    async with two_hosts() as hosts:
        with hosts.socket_in(1) as listener:
            listener.bind((hosts.addresses[1], 0))
            listener.listen()
            listener.setblocking(False)
            address, portno = listener.getsockname()
            program = await hosts.run_in(
                0, sys.executable, "-c", code, address, str(portno), stdout=asyncio.subprocess.PIPE
            )
            taken, peer = await loop.sock_accept(listener)
            with taken:
                assert peer[0] == hosts.addresses[0]
                await loop.sock_sendall(taken, NOTE_ON)
            assert (await program.communicate())[0].decode().strip() == NOTE_ON.hex()
            assert program.returncode == 0


@requires_two_hosts
async def test_what_still_runs_is_killed_and_two_pairs_do_not_meet() -> None:
    async with two_hosts() as hosts, two_hosts() as others:
        program = await hosts.run_in(1, sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
        for pair in (hosts, others):
            with pair.socket_in(0) as sock:
                # The same address and port number on both.
                sock.bind((pair.addresses[0], 7000))
    assert program.returncode is not None
    assert program.returncode < 0


@requires_two_hosts
async def test_two_hosts_are_cleared_away_after_a_failure() -> None:
    async def fail() -> None:
        async with two_hosts() as hosts:
            hosts.cable.delay_s = 60.0
            with hosts.socket_in(0, kind=socket.SOCK_DGRAM) as sock:
                sock.sendto(NOTE_ON, (hosts.addresses[1], 7000))
            await until(lambda: hosts._on_the_way)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


# Waiting.


async def test_waiting_gives_what_came() -> None:
    looks = iter([None, [], "it"])
    assert await until(lambda: next(looks)) == "it"
    looks = iter([0, "it"])
    assert wait_until(lambda: next(looks)) == "it"


async def test_waiting_ends_and_tells_what_did_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.01)
    with pytest.raises(AssertionError, match="waited in vain for the moon"):
        await until(lambda: False, "the moon")
    with pytest.raises(AssertionError, match="waited in vain for the moon"):
        wait_until(lambda: False, "the moon")


async def test_a_server_for_the_time_of_a_block() -> None:
    async with serving(relay=True) as server, RawPeer(portno(server)):
        await until(lambda: server.stats.clients == 1)
    assert server.closed


# Time that passes at once.


async def test_time_passes_when_it_is_told_to() -> None:
    loop, clock = asyncio.get_running_loop(), Clock()
    rung: list[float] = []
    alarms = [loop.call_later(seconds, rung.append, seconds) for seconds in (1000.0, 400.0)]
    began = loop.time()
    await clock.skip(500.0, step_s=50.0)
    assert rung == [400.0]
    assert loop.time() - began > 500
    await clock.skip(600.0, step_s=50.0)
    assert rung == [400.0, 1000.0]
    assert all(alarm.when() < loop.time() for alarm in alarms)


async def test_peers_answer_each_other_while_time_passes() -> None:
    clock = Clock()
    async with RawListener() as listener, RawPeer(listener.portno) as one, await listener.accept() as other:

        async def answer() -> None:
            while data := await other.read(1):
                await other.send(data)

        answering = asyncio.create_task(answer())
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await one.send(b"x")
            reading = asyncio.create_task(one.read(1))
            before = loop.time()
            await clock.skip(10.0, step_s=10.0)
            assert reading.done()
            assert loop.time() - before > 10
        one.finish()
        await answering
