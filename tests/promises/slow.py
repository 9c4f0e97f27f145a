"""One slow peer is one slow peer: stalled readers, a flood, and a rate that is held.

A stalled reader is a socket of which nothing is read, behind a small receive buffer. What the system and
the outbox take for it is filled at full speed before anything counts.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import servers, streams
from benchmarks.crowd import Crowd, connect, drain, send_some
from benchmarks.load import Load
from benchmarks.table import median, percentile
from tests.promises.ends import is_connected
from tests.promises.finding import Finding

_READERS = 32
_MOST_MORE_MS = 1.0
_MOST_MIB = 128.0
_MOST_BESIDE_FLOOD_MS = 5.0

# Bytes. Linux makes it 2.3 KiB at least.
_RECEIVE_BUFFER = 2048

_WINDOW = 2_000
_BATCH = 16

# Messages a second of the one who plays to the readers, and of each who plays beside a flood.
_PLAYED_RATE = 1_000.0
_POLITE_RATE = 100.0
_POLITE = 6

# What polite peers send: a pressure on a channel that the flood leaves alone, with who and which as its data.
_POLITE_STATUS = 0xAF
_FLOOD_BYTES = 65536

# What a rate is set to, and how much of it has to be there: a rate that is not reached is not held either.
_RATES = (200, 2_000, 20_000)
_LEAST_OF_RATE = 0.9
_MOST_OF_RATE = 1.02

# Seconds until what came at once has come.
_BURST_S = 0.3

_PAGE_BYTES = 4096


def measure(options: argparse.Namespace) -> Iterator[Finding]:
    """Measure what the module says."""
    yield _one_stalled(options)
    yield from _many_stalled(options, sysex=False)
    yield from _many_stalled(options, sysex=True)
    yield from _flood(options)
    for rate in _RATES[-1:] if options.quick else _RATES:
        yield _rate(options, rate)


def _one_stalled(options: argparse.Namespace) -> Finding:
    more = []
    with servers.start("midinet_hub", "relay", options.cores) as server:
        for _ in range(options.rounds):
            alone = _p99_ms(server.portno, _READERS, options)
            with connect(server.portno, receive_buffer=_RECEIVE_BUFFER) as stalled:
                more.append(_p99_ms(server.portno, _READERS - 1, options) - alone)
                if not is_connected(stalled):
                    raise AssertionError("the stalled reader was gone before the end")
    # One round's difference of two 99th percentiles is mostly noise.
    return Finding(
        f"one stalled among {_READERS} readers adds to the others' 99 %", _MOST_MORE_MS, [median(more)]
    )


def _p99_ms(portno: int, readers: int, options: argparse.Namespace) -> float:
    with Load(portno, readers) as load:
        load.saturate(seconds=options.seconds / 2, window=_WINDOW, batch=_BATCH)
        paced = load.pace(count=options.count, rate=_PLAYED_RATE)
    return percentile(paced.latencies, 99) * 1e3


def _many_stalled(options: argparse.Namespace, *, sysex: bool) -> Iterator[Finding]:
    """What stalled readers cost, from before the first is there to the most that it ever was."""
    what = f"{options.stalled} stalled readers cost, {'sysex' if sysex else 'all channels'} at full speed"
    peaks, with_system = [], []
    for _ in range(1 if options.quick else 2):
        with (
            servers.start("midinet_hub", "relay", options.cores, max_clients=options.stalled + 8) as server,
            Crowd(server.portno, 1) as crowd,
            connect(server.portno) as sender,
        ):
            crowd.settle(sender)
            before, system_before = _memory_mib(server.pid), _buffers_mib()
            if before is None or system_before is None:
                yield Finding(what, _MOST_MIB, unit="MiB", why_not="needs /proc")
                return
            with contextlib.ExitStack() as stack:
                stalled = [
                    stack.enter_context(connect(server.portno, receive_buffer=_RECEIVE_BUFFER))
                    for _ in range(options.stalled)
                ]
                peak = _flood_for(options.seconds_stalled, crowd, sender, server.pid, sysex=sysex)
                if not all(map(is_connected, stalled)):
                    raise AssertionError("stalled readers were gone before the end")
                peaks.append(peak - before)
                with_system.append(peak - before + (_buffers_mib() or 0) - system_before)
    yield Finding(what, _MOST_MIB, peaks, unit="MiB")
    yield Finding(f"{what}, with the system's buffers", _MOST_MIB, with_system, unit="MiB")


def _flood_for(seconds: float, crowd: Crowd, sender: socket.socket, pid: int, *, sysex: bool) -> float:
    """Send at full speed, and return the most memory that the server had meanwhile, in MiB."""
    if sysex:
        # Dumps of 4 KiB between the notes.
        notes = b"".join(streams.played_frames(400))
        data = b"".join(notes + bytes((0xF0, 0x7D, *[number] * 4093, 0xF7)) for number in range(64))
    else:
        data = b"".join(streams.played_frames(_FLOOD_BYTES))
    at, peak = 0, 0.0
    end = time.perf_counter() + seconds
    look = 0.0
    while (now := time.perf_counter()) < end:
        at = (at + send_some(sender, data[at : at + _FLOOD_BYTES])) % len(data)
        crowd.read(0.001)
        crowd.forget()
        if now >= look:
            peak = max(peak, _memory_mib(pid) or 0.0)
            look = now + 0.05
    return max(peak, _memory_mib(pid) or 0.0)


def _memory_mib(pid: int) -> float | None:
    """The memory that a process has at present, in MiB, or None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
    except OSError:
        return None


def _buffers_mib() -> float | None:
    """What all TCP connections of this machine have in the system's buffers, in MiB."""
    try:
        lines = Path("/proc/net/sockstat").read_text().splitlines()
    except OSError:
        return None
    fields = next(line.split() for line in lines if line.startswith("TCP:"))
    return int(fields[fields.index("mem") + 1]) * _PAGE_BYTES / 2**20


def _flood(options: argparse.Namespace) -> Iterator[Finding]:
    """Polite peers beside one that is never done sending; all of them are sent everything."""
    p99, lost, speeds = [], [], []
    for _ in range(options.rounds):
        # A new one each time: what is left of a flood would still come after it.
        with (
            servers.start("midinet_hub", "relay", options.cores) as server,
            Crowd(server.portno, _POLITE) as crowd,
            connect(server.portno) as flooder,
        ):
            crowd.settle(flooder)
            latencies, missing, speed = _beside(crowd, flooder, options.seconds * 2)
        p99.append(percentile(latencies, 99) * 1e3)
        lost.append(missing)
        speeds.append(speed)
    yield Finding(
        f"99 % of {_POLITE} peers sending {_POLITE_RATE:g}/s beside a flood", _MOST_BESIDE_FLOOD_MS, p99
    )
    yield Finding("... of which lost", 0, lost, unit="")
    yield Finding("... what the flood came to", None, speeds, unit="/s")


def _beside(crowd: Crowd, flooder: socket.socket, seconds: float) -> tuple[list[float], int, float]:
    """Return the seconds that each polite message took to each other polite peer, how many are missing, and
    how many messages a second of the flood came through."""
    frames = [frame for frame in streams.played_frames(_FLOOD_BYTES) if frame[0] != _POLITE_STATUS]
    flood = b"".join(frames)
    sent_at: dict[tuple[int, int], float] = {}
    numbers = [0] * crowd.count
    latencies: list[float] = []
    tails = [b""] * crowd.count
    at = flooded = due_count = 0
    start = time.perf_counter()
    end = start + seconds
    while (now := time.perf_counter()) < end + 0.3:
        if now < end:
            size = send_some(flooder, flood[at : at + _FLOOD_BYTES])
            at = (at + size) % len(flood)
            flooded += size
            # One after another, so that they do not come together.
            if (now - start) * _POLITE_RATE * crowd.count >= due_count:
                who = due_count % crowd.count
                number = numbers[who] = (numbers[who] + 1) % 128
                sent_at[who, number] = time.perf_counter()
                crowd.socks[who].sendall(bytes((_POLITE_STATUS, who, number)))
                due_count += 1
        elif at % 3:
            # What was begun has to be finished.
            at += send_some(flooder, flood[at : at + 3 - at % 3])
        drain(flooder)
        crowd.read()
        for reader, heard in enumerate(crowd.heard):
            if not heard:
                continue
            data = tails[reader] + heard
            found = data.find(_POLITE_STATUS)
            while 0 <= found <= len(data) - 3:
                latencies.append(crowd.heard_at[reader] - sent_at[data[found + 1], data[found + 2]])
                found = data.find(_POLITE_STATUS, found + 3)
            tails[reader] = bytes(data[found:]) if found >= 0 else b""
        crowd.forget()
    missing = due_count * (crowd.count - 1) - len(latencies)
    return latencies, missing, flooded / 3 / seconds


def _rate(options: argparse.Namespace, rate: int) -> Finding:
    """A sender that would send all the time, and what of it is heard a second."""
    found = []
    flood = b"".join(streams.played_frames(_FLOOD_BYTES))
    for _ in range(1 if options.quick else 2):
        # A server for each: what an earlier sender left in the system's buffers would come too.
        with (
            servers.start("midinet_hub", "relay", options.cores, max_rate=rate) as server,
            Crowd(server.portno, 1) as crowd,
            connect(server.portno) as sender,
        ):
            crowd.settle(sender)
            at = heard = 0
            begun, first, last = time.perf_counter(), 0.0, 0.0
            while not first or time.perf_counter() < first + options.seconds * 2:
                at = (at + send_some(sender, flood[at : at + _FLOOD_BYTES])) % len(flood)
                crowd.read(0.001)
                if crowd.heard[0] and time.perf_counter() > begun + _BURST_S:
                    last = crowd.heard_at[0]
                    heard += len(crowd.heard[0]) // 3 if first else 0
                    first = first or last
                crowd.forget()
            found.append(heard / (last - first) if last > first else 0.0)
    bound = rate * _LEAST_OF_RATE, rate * _MOST_OF_RATE
    return Finding(f"max_rate={rate:,}", bound, found, unit="/s")
