from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from mido import Message

import midinet
import midinet.sync
from midinet import DeviceError, PortState, UsageError
from midinet.gateways.hardware import Bridge, DeviceState, bridge, open_port
from midinet.gateways.members import DevicePort
from midinet.wire.codec import decode, encode
from tests.harness.jack import Instrument, Jack, bend
from tests.harness.sizes import thorough
from tests.harness.waiting import until

Plug = Callable[..., Instrument]

ON, OFF = bytes((0x90, 60, 64)), bytes((0x80, 60, 64))
OTHER_ON, OTHER_OFF = bytes((0x91, 62, 64)), bytes((0x81, 62, 64))


def served(**options: Any) -> midinet.PortServer:
    return midinet.PortServer("127.0.0.1", 0, **options)


def connected(server: midinet.PortServer, **options: Any) -> midinet.connect:
    return midinet.connect("127.0.0.1", server.addresses[0][1], **options)


def state_of(bridge: Any, name: str) -> DeviceState:
    states = [state for state in bridge.devices if state.name == name]
    return states[0] if states else DeviceState(name, False, False, False)


async def heard(port: Any, count: int = 1) -> list[bytes]:
    async with asyncio.timeout(20):
        return [encode(await port.receive()) for _ in range(count)]


# Both ways.


async def test_a_relay_and_its_devices_hear_each_other_and_nobody_himself(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with (
        served(relay=True) as server,
        connected(server) as port,
        bridge(server, inputs=["Keys", "Synth"], outputs=["Keys", "Synth"], api="jack"),
    ):
        keys.play(ON)
        assert await heard(port) == [ON]
        await until(lambda: synth.heard == [ON])
        await port.send(decode(OTHER_ON))
        await until(lambda: synth.heard == [ON, OTHER_ON])
        # What came last has come, so what came before would have.
        await until(lambda: keys.heard == [OTHER_ON])
        assert port.poll() is None


async def test_devices_at_a_port_are_heard_by_its_peer_and_hear_it(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with (
        served() as server,
        connected(server) as port,
        bridge(port, inputs=["Keys", "Synth"], outputs=["Keys", "Synth"], api="jack"),
    ):
        keys.play(ON)
        assert await heard(server) == [ON]
        await until(lambda: synth.heard == [ON])
        await server.send(decode(OTHER_ON))
        await until(lambda: synth.heard == [ON, OTHER_ON] and keys.heard == [OTHER_ON])


async def test_without_thru_devices_at_a_port_hear_only_the_peer(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with (
        served() as server,
        connected(server) as port,
        bridge(port, inputs=["*"], outputs=["*"], thru=False, api="jack"),
    ):
        keys.play(ON)
        assert await heard(server) == [ON]
        await server.send(decode(OTHER_ON))
        await until(lambda: synth.heard == [OTHER_ON] and keys.heard == [OTHER_ON])


async def test_a_server_that_does_not_relay_has_its_devices_as_clients(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with served() as server, bridge(server, inputs=["*"], outputs=["*"], api="jack"):
        keys.play(ON)
        assert await heard(server) == [ON]
        await server.send(decode(OTHER_ON))
        await until(lambda: synth.heard == [OTHER_ON] and keys.heard == [OTHER_ON])


async def test_a_server_that_yields_ports_gives_the_device_with_what_it_played(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with served(yield_ports=True) as server:
        async with bridge(server, inputs=["Keys", "Synth"], outputs=["*"], api="jack"):
            synth.play(ON)
            port, message = await server.receive()
            assert (port.name, port.peer, encode(message)) == (synth.out, ("", 0), ON)
            assert (port.state, port.stats.messages_received) == (PortState.CONNECTED, 1)
            await port.send(decode(OTHER_ON))
            await until(lambda: synth.heard == [OTHER_ON])
            assert keys.heard == []
        assert port.closed
        assert isinstance(port, DevicePort)


async def test_a_snapshot_brings_a_device_to_what_is_set(plug: Plug) -> None:
    synth = plug("Synth")
    async with served(relay=True, snapshot="notes") as server:
        await server.send(decode(b"\xc0\x05"))
        await server.send(decode(ON))
        async with bridge(server, outputs=["Synth"], api="jack"):
            await until(lambda: synth.heard == [b"\xc0\x05", ON])


# What a driver brings and takes.


@thorough("count", quick=500, full=10_000)
async def test_many_messages_keep_their_order(plug: Plug, count: int) -> None:
    keys = plug("Keys", sounds=False)
    bends = [bend(number) for number in range(count)]
    async with (
        served(relay=True) as server,
        connected(server) as port,
        bridge(server, inputs=["Keys"], api="jack") as devices,
    ):
        keys.play(*[ON] * 5)
        assert await heard(port, 5) == [ON] * 5
        keys.play_bends(len(bends))
        came = []
        while len(came) < len(bends) and (not came or came[-1] != bends[-1]):
            came += await heard(port)
        assert came == bends
        assert state_of(devices, keys.out)[4:7] == (len(bends) + 5, 0, 0)


@thorough("count", quick=500, full=10_000)
async def test_many_messages_to_a_device_keep_their_order(plug: Plug, count: int) -> None:
    synth = plug("Synth", plays=False)
    bends = [bend(number) for number in range(count)]
    synth.heard.clear()
    async with served() as server, bridge(server, outputs=["Synth"], api="jack") as devices:
        for number, message in enumerate(bends):
            await server.send(decode(message))
            if number % 10 == 9:
                await asyncio.sleep(0.003)
        await until(lambda: synth.heard[-1:] == bends[-1:])
        assert synth.heard == bends
        assert state_of(devices, synth.into)[4:7] == (0, len(bends), 0)


@pytest.mark.parametrize("size", [2, 100, 10_000, 60_000, pytest.param(300_000, marks=pytest.mark.full)])
async def test_system_exclusive_messages_of_any_size_reach_a_device(plug: Plug, size: int) -> None:
    synth = plug("Synth", plays=False)
    sysex = bytes((0xF0, *[number % 128 for number in range(size - 2)], 0xF7))
    async with served(max_sysex=1 << 20) as server, bridge(server, outputs=["Synth"], api="jack"):
        synth.heard.clear()
        server._say(sysex + b"\xc0\x05", 2)
        await until(lambda: synth.heard[-1:] == [b"\xc0\x05"])
        assert synth.heard == [sysex, b"\xc0\x05"]


async def test_a_virtual_port_takes_long_system_exclusive_messages_too(jack: Jack, plug: Plug) -> None:
    sysex = bytes((0xF0, *[number % 128 for number in range(60_000)], 0xF7))
    async with served() as server, bridge(server, virtual="Stage", api="jack"):
        listener = plug("Listener", plays=False)
        await jack.connect(jack.own_ports("Stage")[0], listener.into)
        listener.heard.clear()
        server._say(sysex + b"\xc0\x05", 2)
        await until(lambda: listener.heard[-1:] == [b"\xc0\x05"])
        assert listener.heard == [sysex, b"\xc0\x05"]


async def test_system_exclusive_messages_of_a_device_pass_up_to_the_bound(plug: Plug) -> None:
    keys = plug("Keys", sounds=False)
    longest, longer = [bytes((0xF0, *[1] * (size - 2), 0xF7)) for size in (3000, 3001)]
    async with served(max_sysex=3000) as server, bridge(server, inputs=["Keys"], api="jack") as devices:
        keys.play(longest, longer, ON)
        assert await heard(server, 2) == [longest, ON]
        assert state_of(devices, keys.out).messages_dropped == 1


async def test_clock_passes_and_active_sensing_does_not_unless_that_is_wished(plug: Plug) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    timing = [b"\xf8", b"\xf1\x05", b"\xfa"]
    for options, expected in (
        ({}, [*timing, ON]),
        ({"active_sensing": True}, [*timing, b"\xfe", ON]),
        ({"clock": False}, [b"\xfa", ON]),
    ):
        synth.heard.clear()
        async with (
            served() as server,
            bridge(server, inputs=["Keys"], outputs=["Synth"], api="jack", **options),
        ):
            keys.play(*timing, b"\xfe", ON)
            assert await heard(server, len(expected)) == expected
            for message in (*timing, b"\xfe", ON):
                await server.send(decode(message))
            await until(lambda: ON in synth.heard)
            assert synth.heard == expected
            await server.send(decode(OFF))
            await until(lambda: OFF in synth.heard)


async def test_a_device_that_nobody_reads_is_bounded_counted_and_let_go(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midinet.gateways.devices._MAX_GATHERED", 100 * 66)
    keys = plug("Keys", sounds=False)
    async with served(max_inbox=10) as server, bridge(server, inputs=["Keys"], api="jack") as devices:
        played = [ON, *[bytes((0xC0, number % 128)) for number in range(299)]]
        for start in range(0, len(played), 20):
            keys.play(*played[start : start + 20])
            await asyncio.sleep(0.03)
        # A hundred wait, and what came after them is lost.
        await until(lambda: state_of(devices, keys.out).messages_dropped)
        await until(lambda: sum(state_of(devices, keys.out)[4:7]) == len(played) - 100)
        came = await heard(server, 100)
        while came[-1] != OFF:
            came += await heard(server)
        # What was lost may have had the note's end in it.
        assert came == [*played[: len(came) - 1], OFF]
        keys.play(OTHER_ON)
        assert await heard(server) == [OTHER_ON]
        state = state_of(devices, keys.out)
        assert state.messages_in + state.messages_dropped == len(played) + 1


async def test_a_flood_leaves_a_device_where_everyone_is(plug: Plug) -> None:
    synth = plug("Synth", plays=False)
    last = [bytes((0xB0 | channel, number, 100)) for channel in range(16) for number in range(70, 80)]
    synth.heard.clear()
    async with (
        served(soft_outbox=4096) as server,
        bridge(server, outputs=["Synth"], api="jack") as devices,
    ):
        for value in [*range(100), *range(101)]:
            for message in last:
                server._say(bytes((message[0], message[1], value)), 1)
        await until(lambda: state_of(devices, synth.into).messages_dropped > 0)
        await until(lambda: synth.heard[-1:] == last[-1:])
        final = {message[:2]: message for message in synth.heard}
        assert set(final.values()) == set(last)


# Devices come and go.


# By a name it is found as test_names.py has it; this is that it is found again.
@pytest.mark.parametrize(
    "wish",
    ["Keys", "K*", *(pytest.param(wish, marks=pytest.mark.full) for wish in ("Keys out:midi", "keys"))],
)
async def test_a_device_that_comes_back_is_bridged_again_and_no_note_hangs(plug: Plug, wish: str) -> None:
    changes: list[list[DeviceState]] = []
    synth, keys = plug("Synth", plays=False), plug("Keys", sounds=False)
    async with (
        served(relay=True) as server,
        connected(server) as port,
        bridge(
            server,
            inputs=[wish],
            outputs=["Synth"],
            api="jack",
            on_change=lambda bridge: changes.append(bridge.devices),
        ) as devices,
    ):
        await until(lambda: len(changes) == 1)
        keys.play(ON)
        assert await heard(port) == [ON]
        keys.unplug()
        assert await heard(port) == [OFF]
        await until(lambda: synth.heard == [ON, OFF])
        await until(lambda: len(changes) == 2)
        assert not [state for state in changes[1] if state.is_input and state.is_up]
        keys = plug("Keys", sounds=False)
        await until(lambda: len(changes) == 3)
        assert state_of(devices, keys.out).is_up
        keys.play(OTHER_ON)
        assert await heard(port) == [OTHER_ON]


async def test_an_output_that_comes_back_is_played_on_again(plug: Plug) -> None:
    synth = plug("Synth", plays=False)
    async with (
        served() as server,
        connected(server) as port,
        bridge(port, outputs=["Synth"], api="jack") as devices,
    ):
        await server.send(decode(b"\xc0\x05"))
        await until(lambda: synth.heard == [b"\xc0\x05"])
        synth.unplug()
        await until(lambda: not state_of(devices, synth.into).is_up)
        await server.send(decode(b"\xc0\x06"))
        synth = plug("Synth", plays=False)
        # It is brought to what was set meanwhile.
        await until(lambda: synth.heard == [b"\xc0\x06"])


async def test_what_is_not_there_is_waited_for(plug: Plug) -> None:
    async with (
        served() as server,
        bridge(server, inputs=["Keys"], outputs=["Keys", "Synth"], api="jack") as devices,
    ):
        assert devices.devices == [
            DeviceState("Keys", True, True, False),
            DeviceState("Synth", False, True, False),
        ]
        keys = plug("Keys")
        await until(lambda: state_of(devices, keys.out)[1:4] == (True, True, True))
        assert [state.name for state in devices.devices] == [keys.out, "Synth"]


async def test_ports_that_appear_are_bridged_by_a_pattern_and_forgotten_when_they_go(plug: Plug) -> None:
    async with served() as server, bridge(server, inputs=["Pad ?? *"], api="jack") as devices:
        assert devices.devices == []
        plug("Other")
        pads = [plug("Pad 01"), plug("Pad 02")]
        await until(lambda: len([state for state in devices.devices if state.is_up]) == 2)
        for pad in pads:
            pad.play(ON)
            assert await heard(server) == [ON]
            pad.unplug()
            assert await heard(server) == [OFF]
        await until(lambda: devices.devices == [])


async def test_a_part_of_several_names_is_an_error_at_first_and_waits_later(plug: Plug) -> None:
    async with served() as server:
        async with bridge(server, inputs=["Keys"], api="jack") as devices:
            # Both come between two looks, or one is taken.
            first, second = plug("Keys A", sounds=False), plug("Keys B", sounds=False)
            await until(lambda: devices.devices[0].trouble or devices.devices[0].is_up)
            if devices.devices[0].trouble:
                second.unplug()
                await until(lambda: devices.devices[0].is_up)
                second = plug("Keys B", sounds=False)
            assert devices.devices[0].name == first.out
        with pytest.raises(DeviceError, match="'Keys' may be any of 'Keys A out:midi', 'Keys B out:midi'"):
            async with bridge(server, inputs=["Keys"], api="jack"):
                pass


async def test_a_port_that_reconnects_keeps_its_devices(plug: Plug) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    async with served() as server:
        port = await connected(server, reconnect=True)
        portno = server.addresses[0][1]
        async with port, bridge(port, inputs=["Keys"], outputs=["Synth"], api="jack"):
            await server.send(decode(ON))
            await until(lambda: synth.heard == [ON])
            await server.close()
            # The server lets go of what it held.
            await until(lambda: synth.heard == [ON, OFF])
            keys.play(b"\xc0\x07")
            async with midinet.PortServer("127.0.0.1", portno) as again:
                assert await heard(again) == [b"\xc0\x07"]
                keys.play(OTHER_ON)
                assert await heard(again) == [OTHER_ON]
                await again.send(decode(OTHER_ON))
                await until(lambda: OTHER_ON in synth.heard)


# Virtual ports.


async def test_a_virtual_port_is_one_device(jack: Jack, plug: Plug) -> None:
    synth = plug("Synth")
    async with (
        served(relay=True) as server,
        connected(server) as port,
        bridge(server, virtual="Stage", inputs=["*"], outputs=["*"], api="jack") as devices,
    ):
        assert state_of(devices, "Stage")[1:4] == (True, True, True)
        [out, into] = jack.own_ports("Stage")
        await jack.connect(out, synth.into)
        await jack.connect(synth.out, into)
        await port.send(decode(ON))
        # Once by the bridge, and once by the virtual port.
        await until(lambda: synth.heard == [ON, ON])
        synth.play(OTHER_ON)
        assert await heard(port, 2) == [OTHER_ON, OTHER_ON]
    assert jack.own_ports("Stage") == []


# The end.


async def test_closing_lets_go_of_every_note_both_ways(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth")
    async with served(relay=True) as server, connected(server) as port:
        async with bridge(server, inputs=["Keys"], outputs=["*"], api="jack") as devices:
            keys.play(ON)
            await port.send(decode(OTHER_ON))
            assert await heard(port) == [ON]
            await until(lambda: set(synth.heard) == {ON, OTHER_ON})
        assert await heard(port) == [OFF]
        await until(lambda: set(synth.heard) == {ON, OTHER_ON, OFF, OTHER_OFF})
        await until(lambda: keys.heard == [OTHER_ON, OTHER_OFF])
        await devices.close()
        assert devices.closed
        assert state_of(devices, synth.into).is_up is False


async def test_a_bridge_that_dies_says_so_and_gives_its_port_back(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("ports")

    plug("Synth", plays=False)
    async with served() as server, connected(server) as port:
        devices = await bridge(port, outputs=["Synth"], api="jack")
        monkeypatch.setattr(Bridge, "_list", staticmethod(fail))
        with pytest.raises(ZeroDivisionError):
            await devices.wait_closed()
        assert devices.closed
        assert [one.is_up for one in devices.devices] == [False]
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        await server.send(decode(OTHER_ON))
        assert await heard(port) == [OTHER_ON]
        await devices.close()


async def test_after_it_a_port_is_read_again_and_may_be_bridged_again(plug: Plug) -> None:
    synth = plug("Synth", plays=False)
    async with served() as server, connected(server) as port:
        for _ in range(2):
            async with bridge(port, outputs=["Synth"], api="jack"):
                with pytest.raises(UsageError, match="is bridged already"):
                    await bridge(port, outputs=["Synth"], api="jack")
                await server.send(decode(ON))
                await until(lambda: ON in synth.heard)
            synth.heard.clear()
        await server.send(decode(OTHER_ON))
        assert await heard(port) == [OTHER_ON]


@thorough("delays", quick=([0.0, 0.02, 0.05],), full=([0.01, 0.03, 0.04, 0.06, 0.07],))
async def test_cancelling_the_opening_leaves_nothing_open(
    jack: Jack, plug: Plug, delays: list[float]
) -> None:
    plug("Synth")
    async with served() as server:
        for delay in delays:
            opening = asyncio.ensure_future(_opened(bridge(server, virtual="Gone", inputs=["*"], api="jack")))
            await asyncio.sleep(delay)
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled():
                await opening.result().close()
        await until(lambda: jack.own_ports("Gone") == [])


async def _opened(bridge: Bridge) -> Bridge:
    return await bridge


async def test_devices_outlive_a_server_that_closes_before(plug: Plug) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    async with (
        served() as server,
        bridge(server, inputs=["Keys"], outputs=["Synth"], api="jack") as devices,
    ):
        await server.send(decode(ON))
        await until(lambda: synth.heard == [ON])
        await server.close()
        await until(lambda: synth.heard == [ON, OFF])
        keys.play(ON)
        await until(lambda: state_of(devices, keys.out).messages_in == 1)


# The blocking twins.


def test_blocking_servers_are_bridged_too(plug: Plug) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    shown: list[object] = []
    with midinet.sync.PortServer("127.0.0.1", 0, yield_ports=True) as server:
        with bridge(
            server, inputs=["Keys"], outputs=["Synth"], api="jack", on_change=shown.append
        ) as devices:
            keys.play(ON)
            port, message = server.receive()
            assert (port.name, encode(message)) == (keys.out, ON)
            server.send(decode(OTHER_ON))
            asyncio.run(until(lambda: synth.heard == [OTHER_ON]))
            assert state_of(devices, keys.out).is_up
            assert shown == [devices]
        asyncio.run(until(lambda: synth.heard == [OTHER_ON, OTHER_OFF]))
        assert devices.closed
        assert port.closed
        assert encode(server.receive()[1]) == OFF


def test_blocking_ports_are_bridged_too(plug: Plug) -> None:
    keys, synth = plug("Keys"), plug("Synth", plays=False)
    with (
        midinet.sync.PortServer("127.0.0.1", 0) as server,
        midinet.sync.connect("127.0.0.1", server.addresses[0][1]) as port,
    ):
        with bridge(port, inputs=["*"], outputs=["*"], api="jack"):
            keys.play(ON)
            assert encode(server.receive()) == ON
            server.send(decode(OTHER_ON))
            asyncio.run(until(lambda: synth.heard == [ON, OTHER_ON] and keys.heard == [OTHER_ON]))
        server.send(Message("stop"))
        # What the server said while the port was bridged is nothing to be read.
        assert port.receive() == Message("stop")


@pytest.mark.skipif(sys.platform != "linux", reason="which threads there are is known from /proc")
def test_a_blocking_bridge_that_nobody_closes_ends_with_the_program(jack: Jack, plug: Plug) -> None:
    synth = plug("Synth", plays=False)
    code = (
        "import midinet.sync, mido\n"
        "from midinet.gateways.hardware import bridge\n"
        "server = midinet.sync.PortServer('127.0.0.1', 0)\n"
        "bridged = bridge(server, outputs=['Synth'], api='jack')\n"
        "server.send(mido.Message('note_on', note=60))\n"
    )
    jack.run_python(code)
    asyncio.run(until(lambda: synth.heard == [bytes((0x90, 60, 64)), bytes((0x80, 60, 64))]))


# A device as a port of its own.


async def test_a_device_can_be_opened_as_a_port(plug: Plug) -> None:
    synth = plug("Synth")
    async with open_port("Synth", input=True, output=True, api="jack") as port:
        await port.send(decode(ON))
        await until(lambda: synth.heard == [ON])
        synth.play(OTHER_ON)
        assert await heard(port) == [OTHER_ON]
    # All that was sent has come, and what sounded is let go.
    await until(lambda: synth.heard == [ON, OFF])


async def test_what_was_sent_to_a_device_comes_before_its_port_is_closed(plug: Plug) -> None:
    synth = plug("Synth", plays=False)
    bends = [bend(number) for number in range(2000)]
    async with open_port("Synth", output=True, api="jack") as port:
        for number, message in enumerate(bends):
            await port.send(decode(message))
            if number % 100 == 99:
                await asyncio.sleep(0.02)
    # And then what lets go of the last.
    await until(lambda: len(synth.heard) > len(bends))
    assert synth.heard == [*bends, bytes((0xE0, 0, 64))]


async def test_a_device_that_is_not_there_cannot_be_opened(plug: Plug) -> None:
    plug("Synth", plays=False)
    with pytest.raises(DeviceError, match=r"^there is no MIDI input 'Synth': there are none$"):
        async with open_port("Synth", input=True, api="jack"):
            pass
    with pytest.raises(ValueError, match="input=True"):
        async with open_port("Synth", api="jack"):
            pass


# Misuse.


async def test_misuse_is_told(jack: Jack) -> None:
    server = served()
    with pytest.raises(TypeError, match="not Parser"):
        bridge(midinet.Parser(), inputs=["*"])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"as in \[\"Synth\"\], not 'Synth'"):
        bridge(server, inputs="Synth")
    with pytest.raises(ValueError, match="nothing to bridge"):
        bridge(server)
    with pytest.raises(UsageError, match="not started"):
        await bridge(server, inputs=["*"], api="jack")
    async with server, connected(server) as port:
        await port.send(decode(ON))
        await server.receive()
        [adopted] = server.ports
        with pytest.raises(UsageError, match="bridge the server"):
            await bridge(adopted, inputs=["*"], api="jack")
        with pytest.raises(DeviceError, match="no MIDI system 'oss'"):
            await bridge(port, inputs=["*"], api="oss")
        opened = bridge(port, inputs=["*"], api="jack")
        async with opened:
            with pytest.raises(UsageError, match="opened before"):
                await opened
    with pytest.raises(midinet.PortClosed):
        await bridge(port, inputs=["*"], api="jack")


# The sound server itself.


# Either way JACK's library takes seconds to see it.
@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.full)])
async def test_a_jack_server_that_goes_and_comes_back_is_found_again(
    jack: Jack, plug: Plug, kill: bool
) -> None:
    changes: list[list[DeviceState]] = []
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    async with (
        served(relay=True) as server,
        connected(server) as port,
        bridge(
            server,
            inputs=["Keys"],
            outputs=["Synth"],
            virtual="Stage",
            api="jack",
            on_change=lambda bridge: changes.append(bridge.devices),
        ) as devices,
    ):
        keys.play(ON)
        assert await heard(port) == [ON]
        jack.stop(kill=kill)
        keys.unplug()
        synth.unplug()
        for number in range(3000):
            # More than rtmidi would take without end.
            server._say(bend(number), 1)
        while (message := await heard(port)) != [OFF]:
            assert message[0][0] == 0xE0
        await until(lambda: not [state for state in devices.devices if state.is_up])
        jack.start()
        keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
        await until(lambda: all(state.is_up for state in devices.devices))
        keys.play(OTHER_ON)
        assert await heard(port) == [OTHER_ON]
        await until(lambda: OTHER_ON in synth.heard)
