"""`midinet demo`: a hub, a player, a listener and one of mido's own ports, in one process.

mido's port blocks and polls, so it has a thread. All of them read one clock, so the time from sending a
message to hearing it can be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import mido.sockets
import typer
from mido import Message

from ..net.client import connect
from ..net.port import SocketPort
from ..net.server import PortServer
from ..net.tasks import BackgroundTask
from .common import Complaint, run, talk
from .play import perform
from .schedule import piece_of
from .tune import TITLE, ode_to_joy

# mido knows IPv4 alone.
_HOST = "127.0.0.1"

# Seconds. On one machine nothing takes a thousandth of that; past it, what is missing is lost.
_PATIENCE_S = 3.0

# Seconds. As often as mido's own ports look when they wait.
_MIDO_POLL_S = 0.001


class Heard:
    """What somebody heard, and when, by `time.perf_counter`.

    Args:
        who: a name for the table.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.messages: list[Message] = []
        self.times: list[float] = []

    def add(self, message: Message) -> None:
        """Take notice of a message at this moment."""
        self.times.append(time.perf_counter())
        self.messages.append(message)

    def latencies(self, sent: Heard) -> list[float]:
        """Return the seconds each message took. It means nothing unless the same messages were heard."""
        return [then - before for before, then in zip(sent.times, self.times, strict=False)]


def demo_command() -> None:
    """Try it with nothing else at hand: play a tune through a hub.

    Starts a hub on a free port, connects a player, a listener and a mido SocketPort, and shows what each of
    them heard, how much of it arrived and how soon. There is no sound.

    \b
    Example:
      midinet demo
    """
    raise typer.Exit(run(demo()))


async def demo() -> int:
    """Play the tune across, show what was heard, and return the exit status."""
    from .progress import ProgressBar
    from .table import show_heard

    schedule = piece_of(ode_to_joy()).frames
    length_s = schedule[-1][0]
    sent, listener, mido_port = Heard("sent"), Heard("listener"), Heard("mido SocketPort")
    async with PortServer(_HOST, 0, relay=True) as server:
        portno = server.addresses[0][1]
        print(f"A hub on {server.name}; a player, a listener and a mido SocketPort.")
        print(f"{TITLE} goes across, {length_s:.1f} s of it, without a sound.", flush=True)
        async with connect(_HOST, portno) as hears, connect(_HOST, portno) as plays:
            with _listening(hears, listener), _mido_listening(portno, mido_port):
                if not await _until(lambda: len(server.ports) == 3):
                    raise Complaint("the clients do not reach the hub", 1)
                with ProgressBar(TITLE, length_s):
                    await talk(plays, perform(plays, schedule, sent.add))
                await _until(lambda: all(len(one.times) >= len(sent.times) for one in (listener, mido_port)))
    show_heard(sent, [listener, mido_port])
    return conclude(sent, [listener, mido_port])


def conclude(sent: Heard, hearers: list[Heard]) -> int:
    """Say in words what arrived and what to do next, and return the exit status."""
    status = 0
    for heard in hearers:
        if heard.messages != sent.messages:
            status = 1
            print(f"{heard.who} did not hear what was sent: {_difference(sent, heard)}.")
    if status == 0:
        print(f"All {len(sent.messages)} messages arrived, the same and in order.")
        print("Next: `midinet serve`, and in another terminal `midinet monitor localhost:8080`.")
    return status


def _difference(sent: Heard, heard: Heard) -> str:
    texts = [Counter(map(str, one.messages)) for one in (sent, heard)]
    missing, more = texts[0] - texts[1], texts[1] - texts[0]
    if not missing and not more:
        return "the order is another"
    words = [
        f"{count.total()} {word}, the first {next(iter(count))!r}"
        for word, count in (("missing", missing), ("too many", more))
        if count
    ]
    return "; ".join(words)


async def _until(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, within reason. Returns whether it does."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  one of the two is a thread
        await asyncio.sleep(0.01)
    return condition()


@contextlib.contextmanager
def _listening(port: SocketPort, heard: Heard) -> Iterator[None]:
    async def listen() -> None:
        async for message in port:
            heard.add(message)

    listen_task = BackgroundTask(listen(), name="midinet demo listener")
    try:
        yield
    finally:
        listen_task.cancel()


@contextlib.contextmanager
def _mido_listening(portno: int, heard: Heard) -> Iterator[None]:
    over = threading.Event()

    def listen() -> None:
        # Whatever goes wrong here shows in the table, as messages that were not heard.
        with contextlib.suppress(OSError), mido.sockets.connect(_HOST, portno) as port:
            while not over.wait(_MIDO_POLL_S):
                for message in port.iter_pending():
                    heard.add(message)

    thread = threading.Thread(target=listen, name="midinet demo mido", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_PATIENCE_S)
