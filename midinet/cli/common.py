"""What the verbs share: addresses, running until a signal comes, and faults in one line.

Exit statuses: 0 it did what was asked; 1 it began, and then the other side went away; 2 it could not begin;
130 Ctrl-C, 143 SIGTERM, except that SIGTERM is how a verb that runs until it is stopped ends in order.

The first signal ends a verb in order, which takes seconds at most. A second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from ..address import parse_address
from ..errors import ConnectionLost, MidinetError, PortClosed
from ..net.port import SocketPort

Result = TypeVar("Result")

# Seconds. What is left to end by then is a name look-up that does not answer, in a thread that Python would
# wait half a minute for.
_PATIENCE_S = 1.0

# Seconds. One press of Ctrl-C reaches a program twice if what started it passes signals on: that is no second
# one, which would cost a take that is being saved.
_SAME_PRESS_S = 0.25

# Shows the cursor (DECTCEM), which a progress bar hides.
_SHOW_CURSOR = b"\x1b[?25h"

# What gives terminals back as they were, by descriptor: of who has changed one for longer than a moment.
lent_terminals: dict[int, bytes] = {}


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


def printable(text: str) -> str:
    """Return a text of others' making with question marks in place of what would command a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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

    A second signal ends the process at once, with 128 and its number as the status.

    Args:
        work: the verb. What it returns is the exit status, None for 0.
        until_stopped: the verb has no end of its own, so SIGTERM ends it with status 0.
        loop_factory: makes the event loop; None is asyncio's own.
    """
    received: list[int] = []
    received_at = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal received_at
        if not received:
            received.append(number)
            received_at = time.monotonic()
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        elif time.monotonic() - received_at >= _SAME_PRESS_S:
            _end_at_once(128 + number)

    with _asyncio_in_one_line(), asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        task: asyncio.Task[int | None] = loop.create_task(work, name="midinet verb")
        with _signals_to(stop, loop):
            status = _outcome(lambda: runner.run(_await(task)), received)
            if status == 0 and received:
                status = 0 if until_stopped and received[0] == signal.SIGTERM else 128 + received[0]
            cutoff = threading.Timer(_PATIENCE_S, os._exit, (status,))
            cutoff.daemon = True
            cutoff.start()
            runner.close()
    cutoff.cancel()
    cutoff.join()
    return status


class _AsyncioLog(logging.Handler):
    """Have what asyncio logs be one line of midinet's log, where it tells of an error, and else nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text = record.getMessage().partition("\n")[0]
            logging.getLogger("midinet").error("%s: %s: %s", text, type(error).__name__, error)


@contextmanager
def _asyncio_in_one_line() -> Iterator[None]:
    handler = _AsyncioLog()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("asyncio").removeHandler(handler)


def _end_at_once(status: int) -> NoReturn:
    """End the process, whatever it is at, and leave the terminal as it was."""
    if os.environ.get("TERM") not in (None, "dumb", "unknown"):
        for descriptor, data in ({2: _SHOW_CURSOR} | lent_terminals).items():
            try:
                # A terminal that is stopped takes nothing, and is not waited for.
                if os.isatty(descriptor) and select.select([], [descriptor], [], 0)[1]:
                    os.write(descriptor, data)
            except (OSError, ValueError):
                pass
    os._exit(status)


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
def _signals_to(handler: Callable[[int, object], None], loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and a terminal that is closed call a handler.

    SIGINT is taken even where a shell script's `&` had it ignored: whoever sends it then means it. SIGHUP is
    not where `nohup` had it ignored.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        try:
            # This has the signal wake the loop. A handler of Python's own alone would be called when the loop
            # wakes up next, which one that arrives just before it begins to wait would not make it do.
            loop.add_signal_handler(number, lambda: None)
        except NotImplementedError:
            pass  # Windows.
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
