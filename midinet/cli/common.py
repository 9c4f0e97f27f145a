"""What the verbs share: addresses, running until a signal comes, and faults in one line.

Exit statuses: 0 it did what was asked; 1 it began, and then the other side went away; 2 it could not begin;
130 Ctrl-C, 143 SIGTERM, except that SIGTERM is how a verb that runs until it is stopped ends in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..address import parse_address
from ..errors import ConnectionLost, MidinetError, PortClosed
from ..net.port import SocketPort

Result = TypeVar("Result")

# Seconds. What is left to end by then is a name look-up that does not answer, in a thread that Python would
# wait half a minute for.
_PATIENCE_S = 1.0


class Complaint(Exception):
    """A fault that the person at the terminal can do something about, as one line and an exit status."""

    def __init__(self, text: str, status: int = 2) -> None:
        super().__init__(text)
        self.status = status


def complain(text: str, status: int = 2) -> int:
    """Write one line to standard error and return the exit status."""
    tell(f"midinet: {' '.join(text.split())}")
    return status


def tell(text: str) -> None:
    """Write a line to standard error, if there is one: standard output is for what can be piped."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # Nobody is left to be told.


def read_address(text: str, *, free_port: bool = False) -> tuple[str, int]:
    """Split "host:port", with a Complaint if it is none.

    Args:
        text: what was written.
        free_port: take port 0, which lets the system choose.
    """
    host, _, portno = text.rpartition(":")
    try:
        if free_port and portno == "0":
            return parse_address(f"{host}:1")[0], 0
        return parse_address(text)
    except ValueError as error:
        raise Complaint(str(error)) from None


async def talk(port: SocketPort, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work`, which sends, while what the peer sends is read and thrown away.

    A client that does not read becomes a slow client, and is thrown out.

    Raises:
        PortClosed, ConnectionLost: the connection ended before the work did.
    """
    ignoring_task = asyncio.create_task(_ignore(port), name="midinet ignore")
    work_task = asyncio.create_task(work, name="midinet work")
    tasks: list[asyncio.Task[Any]] = [ignoring_task, work_task]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await (work_task if work_task.done() else ignoring_task)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ignore(port: SocketPort) -> Any:
    while True:
        await port.receive()


def run(
    work: Coroutine[Any, Any, int | None],
    *,
    until_stopped: bool = False,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run a verb's coroutine, which Ctrl-C and SIGTERM cancel, and return the exit status.

    A second Ctrl-C changes nothing: whatever a verb does when it is cancelled is bounded in time.

    Args:
        work: the verb. What it returns is the exit status, None for 0.
        until_stopped: the verb has no end of its own, so SIGTERM ends it with status 0.
        loop_factory: makes the event loop; None is asyncio's own.
    """
    received: list[int] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        task: asyncio.Task[int | None] = loop.create_task(work, name="midinet verb")

        def stop(number: int, frame: object) -> None:
            if not received:
                received.append(number)
                loop.call_soon_threadsafe(task.cancel)

        with _signals_to(stop):
            status = _outcome(lambda: runner.run(_await(task)), received)
        if status == 0 and received:
            status = 0 if until_stopped and received[0] == signal.SIGTERM else 128 + received[0]
        cutoff = threading.Timer(_PATIENCE_S, os._exit, (status,))
        cutoff.daemon = True
        cutoff.start()
    cutoff.cancel()
    cutoff.join()
    return status


async def _await(task: asyncio.Task[int | None]) -> int | None:
    return await task


def _outcome(finish: Callable[[], int | None], received: list[int]) -> int:
    try:
        return finish() or 0
    except asyncio.CancelledError:
        if not received:
            raise
        return 0
    except Complaint as error:
        return complain(str(error), error.status)
    except BrokenPipeError:
        # Whoever read standard output has left, as `head` does. Python would complain of it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ConnectionLost, PortClosed) as error:
        return complain(str(error), 1)
    except (MidinetError, OSError) as error:
        return complain(getattr(error, "strerror", None) or str(error))


@contextmanager
def _signals_to(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM call a handler.

    SIGINT is taken even where a shell script's `&` had it ignored: whoever sends it then means it.
    """
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
