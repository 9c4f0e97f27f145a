from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys
from collections.abc import Callable

import pytest

import midinet
from midinet import DeviceError
from midinet.gateways import devices
from midinet.gateways.hardware import HardwarePort, find_port, list_ports
from tests.harness.jack import Instrument, Jack, bend, load_rtmidi
from tests.harness.sizes import thorough
from tests.harness.waiting import until

Plug = Callable[..., Instrument]


def test_the_ports_of_this_machine_are_listed_but_for_midinets_own(jack: Jack, plug: Plug) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth")
    own = jack.rtmidi.MidiOut(jack.rtmidi.API_UNIX_JACK, name="midinet")
    own.open_virtual_port("Stage")
    assert list_ports("jack") == [
        HardwarePort(keys.out, is_input=True, is_output=False),
        HardwarePort(synth.out, is_input=True, is_output=False),
        HardwarePort(synth.into, is_input=False, is_output=True),
    ]
    own.delete()


@pytest.mark.parametrize("api", ["jack", "UNIX_JACK", "Jack", "unix_jack", None])
def test_a_system_goes_by_a_short_name_or_rtmidis(jack: Jack, plug: Plug, api: str | None) -> None:
    keys = plug("Keys")
    assert find_port("Keys", output=False, api=api) == keys.out
    assert find_port("keys", output=True, api=api) == keys.into


@pytest.mark.skipif(sys.platform == "win32", reason="no JACK for these tests")
async def test_jack_does_not_wait_for_an_interpreter_that_is_held(plug: Plug) -> None:
    keys, bends = plug("Keys", sounds=False), [bend(number) for number in range(1000)]
    system = devices.open_system("jack")
    came = bytearray()
    opened = system.open_input(
        asyncio.get_running_loop(), keys.out, lambda: None, virtual=False, clock=True, active_sensing=True
    )
    keys.play_bends(len(bends))
    await until(lambda: came.extend(opened.take()) or came)
    # What opens a client of JACK holds it for as long as JACK waits. A second is nearly 200 cycles.
    before = system._probe.cycle
    ctypes.PyDLL(None).usleep(999_999)
    cycles = (system._probe.cycle - before) / 256
    await until(lambda: came.extend(opened.take()) or len(came) >= 3 * len(bends))
    opened.close()
    system.close()
    assert bytes(came) == b"".join(bends)
    assert cycles > 10


@thorough("rounds", quick=5, full=100)
async def test_nothing_is_lost_that_is_played_as_soon_as_a_port_is_open(plug: Plug, rounds: int) -> None:
    keys, synth = plug("Keys", sounds=False), plug("Synth", plays=False)
    system, loop, note = devices.open_system("jack"), asyncio.get_running_loop(), b"\x90\x3c\x40"
    for _ in range(rounds):
        output = system.open_output(loop, synth.into, lambda: None, virtual=False)
        output.write(note)
        await until(lambda: synth.heard == [note])
        output.close()
        synth.heard.clear()
        source = system.open_input(
            loop, keys.out, lambda: None, virtual=False, clock=True, active_sensing=True
        )
        keys.play(note)
        await until(source.take)
        source.close()
    system.close()


def test_a_port_that_is_not_there_is_one_line_with_those_that_are(plug: Plug) -> None:
    plug("Keys", sounds=False), plug("Synth", sounds=False)
    with pytest.raises(DeviceError) as caught:
        find_port("Organ", output=False, api="jack")
    assert str(caught.value) == (
        "there is no MIDI input 'Organ': there are 'Keys out:midi', 'Synth out:midi'"
    )
    with pytest.raises(DeviceError, match=r"^there is no MIDI output 'Organ': there are none$"):
        find_port("Organ", output=True, api="jack")
    with pytest.raises(DeviceError, match="'out' may be any of"):
        find_port("out", output=False, api="jack")


def test_a_system_that_does_not_exist_is_one_line() -> None:
    load_rtmidi()
    with pytest.raises(DeviceError, match=r"^there is no MIDI system 'oss': alsa, jack, coremidi or winmm$"):
        list_ports("oss")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is compiled in")
def test_a_system_that_is_not_compiled_in_is_one_line() -> None:
    load_rtmidi()
    with pytest.raises(
        DeviceError, match=r"^winmm is not compiled into this python-rtmidi, which has .*jack"
    ):
        list_ports("winmm")


@pytest.mark.skipif(sys.platform != "linux", reason="ALSA is Linux's")
def test_alsa_without_a_sequencer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    load_rtmidi()
    monkeypatch.setattr(devices, "_SEQUENCER", "/dev/snd/not-there")
    with pytest.raises(DeviceError, match=r"^alsa does not run here: /dev/snd/not-there is missing"):
        list_ports("alsa")


@pytest.mark.skipif(sys.platform != "linux", reason="what says nothing is JACK's library as it is on Linux")
def test_jack_without_a_server_is_one_line_and_its_library_says_nothing() -> None:
    load_rtmidi()
    code = (
        "from midinet.gateways.hardware import list_ports\n"
        "try: list_ports('jack')\n"
        "except OSError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"JACK_DEFAULT_SERVER": "nobody", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
    )
    assert result.stdout == "no JACK server runs here: start jackd, or choose another system\n"
    assert result.stderr == ""


def test_without_rtmidi_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtmidi", None)
    with pytest.raises(midinet.MissingExtra, match=r"pip install 'midinet\[rtmidi\]'"):
        list_ports()
