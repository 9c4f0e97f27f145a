"""A device as a member of a hub: one instrument of this machine, its input and its output.

An instrument has one outbox, and that is its origin too, so nothing that it played comes back to it. There
are two places for it to be:

- At a server it is like a client that was adopted. What it plays goes to the server's hub, if that relays,
  and to whoever reads the server.
- At a port, what it plays goes to the port's own hub, whose performance a reconnect is brought up to date
  with: it has what the devices played and nothing else. What the peer says, and what the other devices play,
  they hear from a second hub.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple, Protocol

from mido import Message

from ..errors import CloseReason, UsageError
from ..hub.outbox import Outbox
from ..net.affinity import check_loop
from ..net.options import LinkOptions
from ..net.port import PortState, SocketPort, open_hub
from ..net.server import PortServer
from ..net.stats import PortStats
from ..wire.codec import PANIC_FRAMES, RESET_FRAMES, encode
from ..wire.parser import Parser
from .devices import Input, Output

logger = logging.getLogger("midinet.devices")

# In whole messages these are what they look like: timing clock and time code, which rtmidi counts together,
# and active sensing.
_CLOCK = rb"\xf8|\xf1[\x00-\x7f]"
_ACTIVE_SENSING = rb"\xfe"


class DeviceState(NamedTuple):
    """What there is to say about a device that is bridged, or waited for."""

    name: str
    """What it is called, or as what it is waited for."""
    is_input: bool
    """It is wanted as an input: what it plays is heard."""
    is_output: bool
    """It is wanted as an output: it is played on."""
    is_up: bool
    """It is there and open, with at least one of the two."""
    messages_in: int = 0
    """Messages that it played."""
    messages_out: int = 0
    """Messages that were handed to its driver."""
    messages_dropped: int = 0
    """Messages, of both ways, that were lost: it, or who reads what it plays, was too slow, or its driver
    did not take them. What gave way to the performance, and was caught up with, is among them."""
    trouble: str = ""
    """Why it cannot be opened although it is there, in one line."""


class Place(Protocol):
    """Where devices are members."""

    options: LinkOptions

    def check(self) -> None:
        """Raise what says why devices cannot be here."""
        ...

    def begin(self) -> None: ...
    def end(self) -> None: ...

    def join(self, outbox: Outbox) -> None:
        """Have an output hear what is said."""
        ...

    def hear(self, device: Device, data: bytes, messages: int) -> bool:
        """Take what a device played. Returns False when it has to wait until its port's `_resume`."""
        ...

    def tell(self, device: Device, data: bytes, messages: int) -> None:
        """Say something to a device alone."""
        ...

    def release(self, device: Device) -> None:
        """Let go of what a device held."""
        ...

    def leave(self, device: Device, *, hears: bool) -> None:
        """Let go of what a device held, and with `hears` of what it was told."""
        ...


class AtServer:
    """Devices at a server."""

    def __init__(self, server: PortServer) -> None:
        self._server = server
        self.options = server._options

    def check(self) -> None:
        self._server._check_open()

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass

    def join(self, outbox: Outbox) -> None:
        snapshot = self._server.snapshot
        self._server._hub.join(
            outbox, snapshot=bool(snapshot), struck_since=-inf if snapshot == "notes" else inf
        )

    def hear(self, device: Device, data: bytes, messages: int) -> bool:
        server = self._server
        if server.closed:
            return True
        if server.relay:
            server._hub.publish(data, messages, origin=device.outbox)
        return not server._is_read or server._inbox.put(device.port, data)

    def tell(self, device: Device, data: bytes, messages: int) -> None:
        self._server._hub.publish(data, messages, only=device.outbox)

    def release(self, device: Device) -> None:
        if self.options.release_notes:
            self._server._hub.release(device.outbox)
            self._release_to_reader(device)

    def leave(self, device: Device, *, hears: bool) -> None:
        # One that never joined is no member, and does not leave.
        self.release(device)
        self._server._hub.leave(device.outbox, hears=hears)

    def _release_to_reader(self, device: Device) -> None:
        if self._server._is_read and not self._server.closed:
            self._server._inbox.release(device.port)


class AtPort:
    """Devices at a port.

    Args:
        thru: what one of them plays, the others hear.
    """

    def __init__(self, port: SocketPort, *, thru: bool) -> None:
        self._port = port
        self._thru = thru
        self.options = port._link._options

    def check(self) -> None:
        check_loop(self._port, self._port._loop)
        self._port._check_open()
        if self._port._is_adopted:
            raise UsageError("the messages of this client come through its server: bridge the server")
        if self._port._relays_to is not None:
            raise UsageError(f"the port to {self._port.name} is bridged already")

    def begin(self) -> None:
        assert self._port._hub is not None
        self._said = self._port._hub
        self._heard = open_hub(asyncio.get_running_loop(), release_notes=self.options.release_notes)
        self._port._relay_to(self._heard)

    def end(self) -> None:
        self._port._relay_no_more()

    def join(self, outbox: Outbox) -> None:
        self._heard.join(outbox, snapshot=True)

    def hear(self, device: Device, data: bytes, messages: int) -> bool:
        self._said.publish(data, messages, origin=device.outbox)
        if self._thru:
            self._heard.publish(data, messages, origin=device.outbox)
        return True

    def tell(self, device: Device, data: bytes, messages: int) -> None:
        self._heard.publish(data, messages, only=device.outbox)

    def release(self, device: Device) -> None:
        if self.options.release_notes:
            self._said.release(device.outbox)
            self._heard.release(device.outbox)

    def leave(self, device: Device, *, hears: bool) -> None:
        self.release(device)
        self._heard.leave(device.outbox, hears=hears)


class DevicePort:
    """A device, as a server with `yield_ports` gives it beside each of its messages.

    Attributes:
        name: of the device.
        peer: ("", 0), since it is at no address.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.peer = ("", 0)
        # What the blocking twin of a client's port looks at.
        self._own_inbox = self._outlet = None
        self._is_over = False
        self._reason: CloseReason | None = None

    @property
    def name(self) -> str:
        return self._device.name

    @property
    def closed(self) -> bool:
        """Whether the bridge has been closed."""
        return self._reason is not None

    @property
    def state(self) -> PortState:
        """CONNECTED while the device is there, RECONNECTING while it is not, CLOSED when the bridge is."""
        if self.closed:
            return PortState.CLOSED
        return PortState.CONNECTED if self._device.is_up else PortState.RECONNECTING

    @property
    def stats(self) -> PortStats:
        """The counts of the device as they stand."""
        state = self._device.state
        return PortStats(
            messages_received=state.messages_in,
            messages_sent=state.messages_out,
            messages_dropped=state.messages_dropped,
        )

    async def send(self, message: Message) -> None:
        """Send a message to the device. It is lost while the device is not there.

        Raises:
            TypeError: it is no mido.Message.
            UsageError: it is called from another thread or event loop.
        """
        check_loop(self, self._device._loop)
        self._say(encode(message), 1)

    def reset(self) -> None:
        """Send All Notes Off and Reset All Controllers on all channels."""
        check_loop(self, self._device._loop)
        self._say(b"".join(RESET_FRAMES), len(RESET_FRAMES))

    def panic(self) -> None:
        """Send All Sound Off on all channels."""
        check_loop(self, self._device._loop)
        self._say(b"".join(PANIC_FRAMES), len(PANIC_FRAMES))

    def __repr__(self) -> str:
        return f"<{'closed' if self.closed else 'open'} DevicePort {self.name}>"

    def _say(self, data: bytes, messages: int) -> None:
        self._device.tell(data, messages)

    def _resume(self) -> None:
        self._device.resume()

    def _gone(self) -> Exception:
        return UsageError(f"the bridge of {self.name} is closed")


class Device:
    """One instrument that is bridged. It may be away and come back.

    Args:
        name: what to call it.
        place: where it is a member.
        loop: the running loop.
        clock: pass timing clock and time code.
        active_sensing: pass active sensing.
        is_virtual: its ports are made here, and are there as long as they are open.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: bool,
        active_sensing: bool,
        is_virtual: bool = False,
    ) -> None:
        self.name = name
        self.is_virtual = is_virtual
        self.port = DevicePort(self)
        self._place = place
        self._loop = loop
        kept_back = [*([] if clock else [_CLOCK]), *([] if active_sensing else [_ACTIVE_SENSING])]
        self._kept_back = re.compile(b"|".join(kept_back)) if kept_back else None
        # What its two ports are called, or were when they were there last.
        self.input_name = self.output_name = ""
        self.input: Input | None = None
        self.output: Output | None = None
        self.trouble = ""
        self._went_on = asyncio.Event()
        # When to try again to open it, by the loop's clock.
        self.retry_at = 0.0
        # Counts of what has been closed.
        self._in = self._out = self._dropped = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        # A device that cannot keep up is no reason to part with it, whatever becomes of slow peers.
        limits = replace(self._place.options.outbox, slow="thin")
        self.outbox = Outbox(self._write, self._never, limits=limits)
        self.outbox.grew_slow = self._tell_slow
        self._parser = Parser(max_sysex=self._place.options.max_sysex)
        self._waits = self._has_left = False
        self._lost = 0

    @property
    def is_up(self) -> bool:
        """Whether it is there and open, with at least one of its ports."""
        return self.input is not None or self.output is not None

    @property
    def state(self) -> DeviceState:
        """How it is, and its counts as they stand."""
        played, sent, dropped = self._counts()
        return DeviceState(
            self.name,
            bool(self.input_name),
            bool(self.output_name),
            self.is_up,
            played,
            sent,
            dropped,
            self.trouble,
        )

    def way_name(self, is_output: bool) -> str:
        """What its output or its input is called, or was last; "" if it never had one."""
        return self.output_name if is_output else self.input_name

    def missed(self, name: str, is_output: bool, trouble: str, retry_at: float) -> None:
        """Take note that a port that is there cannot be opened."""
        if is_output:
            self.output_name = name
        else:
            self.input_name = name
        self.trouble, self.retry_at = trouble, retry_at

    def _counts(self) -> tuple[int, int, int]:
        read, written = self._parser.stats, self.outbox.stats
        drops = read.undefined + read.unfinished + read.sysex_aborted + read.sysex_too_long
        dropped = self._dropped + drops + written.dropped + written.thinned + written.late_notes
        sent = self._out
        if self.input is not None:
            dropped += self.input.lost
        if self.output is not None:
            sent += self.output.sent
            dropped += self.output.failed + self.output.late_notes
        return self._in + read.messages, sent, dropped

    def add(self, name: str, opened: Input | Output) -> None:
        """Begin to hear it, or to play on it."""
        self.trouble, self.retry_at = "", 0.0
        if isinstance(opened, Output):
            self.output_name, self.output = name, opened
            self._place.join(self.outbox)
        else:
            self.input_name, self.input = name, opened
            # It may have begun to play.
            self.hear()

    # What it plays.

    def hear(self) -> None:
        """Take what it has played."""
        if self._waits or self._has_left or self.input is None:
            return
        data, messages = self._parser.joined(self.input.take())
        if messages:
            self._waits = not self._place.hear(self, data, messages)
        if self._lost != self.input.lost:
            self._lost = self.input.lost
            logger.warning("%s played more than could be taken", self.name)
            # Note-offs may have been among it.
            self._place.release(self)

    def resume(self) -> None:
        """Go on, after what it had played before was read."""
        self._waits = False
        self._loop.call_soon(self.hear)

    # What is played on it.

    def tell(self, data: bytes, messages: int) -> None:
        """Send whole messages to it, if it is there."""
        if self.output is not None:
            self._place.tell(self, data, messages)

    def _write(self, data: bytes) -> None:
        if self._kept_back is not None:
            data = self._kept_back.sub(b"", data)
        if self.output is not None and data:
            self.output.write(data)
            if self.output.is_full:
                self.outbox.stall()

    def go_on(self) -> None:
        """Hand over what waits, as far as there is room again."""
        while self.outbox.stalled and self.output is not None and not self.output.is_full:
            if not self.outbox.drain(self._loop.time()) and not self.output.is_full:
                self.outbox.flow()
        self._went_on.set()

    async def wait_sent(self) -> None:
        """Wait until it has been sent everything that it was told. Cancelling is safe."""
        while self.output is not None and not (self.output.is_idle and not self.outbox.stalled):
            self._went_on.clear()
            await self._went_on.wait()

    def _tell_slow(self) -> None:
        logger.info("%s is too slow: its backlog gave way", self.name)

    def _never(self) -> None:
        """What would overflow gives way before."""

    # The end.

    def leave(self, *, hears: bool = False) -> None:
        """Be heard no more, let go of what it held, and with `hears` of what sounds on it."""
        self._place.leave(self, hears=hears)
        self._has_left = True

    def part(self) -> list[Callable[[], object]]:
        """Be gone. Returns what closes its ports, to be called off the loop, in this order."""
        self._parser.end()
        self.outbox.close()
        self._in, self._out, self._dropped = self._counts()
        closing: list[Any] = [port for port in (self.input, self.output) if port is not None]
        self.input = self.output = None
        self.outbox.let_go()
        self._begin_anew()
        return [port.close for port in closing]
