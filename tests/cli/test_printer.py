"""The printer: lines that are dropped and counted, lines that wait, and nobody there to read."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace

import pytest

from midinet.cli import printer as printer_module
from midinet.cli.printer import OutputGone, Printer


class Output:
    """A pipe in the place of standard output. Nothing is taken from it until `read`."""

    encoding = "ascii"

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def fileno(self):
        return self.writer

    async def read(self, end):
        """Everything up to an end that is expected, with the loop going on."""
        data = b""
        while not data.endswith(end):
            data += await asyncio.to_thread(os.read, self.reader, 65536)
        return data

    def close_reader(self):
        os.close(self.reader)
        self.reader = None

    def close(self):
        for end in (self.reader, self.writer):
            if end is not None:
                os.close(end)


@pytest.fixture
async def output(monkeypatch):
    output = Output()
    # Not sys.stdout itself, which pytest changes too.
    monkeypatch.setattr(printer_module, "sys", SimpleNamespace(stdout=output))
    yield output
    await asyncio.get_running_loop().shutdown_default_executor()
    # The thread is told to end and not waited for, since it may be stuck in a write.
    threads = [thread for thread in threading.enumerate() if thread.name == "midinet printer"]
    for thread in threads:
        thread.join(10)
    output.close()


# More than a pipe holds.
LONG = "x" * 1_000_000


async def test_lines_come_out_in_order(output):
    async with Printer() as printer:
        printer.offer("one", 1)
        await printer.put("two")
        printer.offer("three")
        await printer.flush()
        assert await output.read(b"three\n") == b"one 1\ntwo\nthree\n"


async def test_what_has_no_room_is_dropped_and_counted_and_what_matters_more_has_room(output):
    async with Printer(max_lines=2, missed_line="{} missed") as printer:
        printer.offer(LONG)
        while printer._lines:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # Until the thread has taken it, and is stuck with it.
        for number in range(5):
            printer.offer(number)
        printer.offer("dear", spare=1)
        printer.offer("dear too", spare=1)
        text = await output.read(b"missed\n")
        assert text.removeprefix(LONG.encode()) == b"\n0\n1\ndear\n4 missed\n"


async def test_putting_waits_for_room_and_the_loop_goes_on(output):
    async with Printer(max_lines=1) as printer:
        await printer.put(LONG)
        await printer.put("1")
        waiting = asyncio.create_task(printer.put("2"))
        cancelled = asyncio.create_task(printer.put("3"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        cancelled.cancel()
        assert (await output.read(b"\n2\n")).removeprefix(LONG.encode()) == b"\n1\n2\n"
        await waiting
        await printer.flush()


async def test_flushing_waits_only_so_long(output):
    async with Printer() as printer:
        printer.offer(LONG)
        while not printer._is_writing:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await printer.flush(0.05)
        assert printer._is_writing
        flushing = asyncio.create_task(printer.flush())
        await output.read(b"\n")
        await flushing


async def test_a_reader_who_leaves_is_noticed_at_the_next_line(output):
    async with Printer() as printer:
        output.close_reader()
        printer.offer("in vain")
        await printer.flush()
        with pytest.raises(OutputGone) as caught:
            await printer.put("in vain, too")
        assert isinstance(caught.value.cause, BrokenPipeError)


async def test_a_reader_who_leaves_is_noticed_at_once_when_watched(output):
    async with Printer() as printer:
        printer.watch_reader()
        output.close_reader()
        with pytest.raises(OutputGone):
            await asyncio.wait_for(printer.gone, 10)


async def test_a_reader_who_leaves_ends_the_waiting(output):
    async with Printer(max_lines=1) as printer:
        await printer.put(LONG)
        await printer.put("1")
        waiting = asyncio.create_task(printer.put("2"))
        await asyncio.sleep(0)
        output.close_reader()
        with pytest.raises(OutputGone):
            await asyncio.wait_for(waiting, 10)


async def test_what_the_output_cannot_spell_does_not_stop_it(output):
    async with Printer() as printer:
        printer.offer("Dvořák")
        assert await output.read(b"\n") == b"Dvo\\u0159\\xe1k\n"


async def test_a_descriptor_that_does_not_wait_is_waited_for(output):
    os.set_blocking(output.writer, False)
    async with Printer() as printer:
        printer.offer(LONG)
        assert len(await output.read(b"\n")) == len(LONG) + 1
