"""A virtual instrument of JACK's, and the bridges that it hears another through, each in its own process.

The roles:

    recorder    has two inputs: "near", connected to the player's output, and "far", which others play on. At
                its end it prints when it heard which number by each: seconds of the monotonic clock, as JSON
    hub         midinet's hub, with the player bridged to it
    far         a client of that, `portno` in its options, with the recorder's "far" bridged to it
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from typing import Any

import rtmidi

import midinet
from midinet.gateways.hardware import bridge

from . import process

PLAYER, FAR = "player:out", "recorder-01:far"


def record(ended: threading.Event) -> None:
    heard: dict[str, dict[int, float]] = {"near": {}, "far": {}}

    def take(event: tuple[list[int], float], numbers: dict[int, float]) -> None:
        at = time.monotonic()
        status, *data = event[0]
        if status == 0xE0:
            numbers[data[0] | data[1] << 7] = at

    inputs = []
    for name, numbers in heard.items():
        into: Any = rtmidi.MidiIn(rtmidi.API_UNIX_JACK, name="recorder")
        into.set_callback(take, numbers)
        if name == "near":
            into.open_port(into.get_ports().index(PLAYER), name=name)
        else:
            into.open_virtual_port(name)
        inputs.append(into)
    process.ready(0)
    ended.wait()
    print(json.dumps(heard), flush=True)


async def serve() -> None:
    async with (
        midinet.PortServer("127.0.0.1", 0, relay=True) as server,
        bridge(server, inputs=[PLAYER], api="jack") as bridged,
    ):
        assert bridged.devices[0].is_up
        process.ready(server.addresses[0][1])
        await server.wait_closed()


async def join(portno: int) -> None:
    async with (
        midinet.connect("127.0.0.1", portno) as port,
        bridge(port, outputs=[FAR], api="jack") as bridged,
    ):
        assert bridged.devices[0].is_up
        process.ready(portno)
        await port.wait_closed()


ended = threading.Event()
role, options = process.begin_with_options("recorder", "hub", "far", at_end=ended.set)
if role == "recorder":
    record(ended)
else:
    threading.Thread(target=lambda: ended.wait() and os._exit(0), daemon=True).start()
    asyncio.run(serve() if role == "hub" else join(**options))
