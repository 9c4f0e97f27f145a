"""The MIDI ports of this machine, and bridges between them and servers or ports of midinet.

    async with connect("stage.local", 8080, reconnect=True) as port:
        async with bridge(port, inputs=["*"], outputs=["Synth"]):
            await port.wait_closed()

Needs the extra `rtmidi`. Rules:

- What came from a device does not go back to that device: its input and its output are one member of the hub.
  They belong together when their names are the same, or differ in nothing but the direction.
- What is not there is waited for, and found again by its name when it comes back. rtmidi does not tell when
  that happens, so the ports are listed four times a second.
- The notes of a device that is gone are let go, towards everybody.
- midinet's own ports are not listed and not bridged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, overload

from ..errors import CloseReason, DeviceError, UsageError
from ..net.affinity import check_loop
from ..net.pair import open_pair
from ..net.port import SocketPort
from ..net.server import PortServer
from ..net.tasks import BackgroundTask
from ..sync.portal import get_portal
from ..sync.ports import PortServer as BlockingServer
from ..sync.ports import SocketPort as BlockingPort
from .devices import Input, Output, System, Worker, open_system
from .members import AtPort, AtServer, Device, DeviceState, Place
from .wishes import Wish, choose_there, find_all, find_device, is_there

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "BlockingBridge",
    "Bridge",
    "DeviceState",
    "HardwarePort",
    "bridge",
    "find_port",
    "list_ports",
    "open_port",
]

logger = logging.getLogger("midinet.devices")

# Seconds between two listings. A device that is plugged in has not been ready for longer than that.
_LOOK_S = 0.25

# Seconds until it is tried again to open what could not be opened, or a system that has stopped.
_RETRY_S = 1.0


class HardwarePort(NamedTuple):
    """A MIDI port of this machine."""

    name: str
    is_input: bool
    """One can hear it."""
    is_output: bool
    """One can play on it."""


def list_ports(api: str | None = None) -> list[HardwarePort]:
    """Return the MIDI ports of this machine, one for each name, but for midinet's own.

    It asks drivers, which may take a moment: in a coroutine, call it by `asyncio.to_thread`.

    Args:
        api: "alsa", "jack", "coremidi" or "winmm", or rtmidi's name for one, in any case. None is what rtmidi
            prefers of what runs here.

    Raises:
        DeviceError: there is no such MIDI system, or it does not run here.
        MissingExtra: python-rtmidi is not installed.
    """
    inputs, outputs, _ = _ports(api)
    return [
        HardwarePort(name, name in inputs, name in outputs) for name in dict.fromkeys([*inputs, *outputs])
    ]


def find_port(name: str, *, output: bool, api: str | None = None) -> str:
    """Return the whole name of the one MIDI port of this machine that a name means. It may take a moment.

    Args:
        name: the whole name, or a part that only one has; where no case fits, in any case.
        output: look for one to play on, not for one to hear.
        api: see `list_ports`.

    Raises:
        DeviceError: there is none, or there are several; or there is no such MIDI system.
        MissingExtra: python-rtmidi is not installed.
    """
    inputs, outputs, system = _ports(api)
    return choose_there(name, outputs if output else inputs, system, output=output)


def _ports(api: str | None) -> tuple[list[str], list[str], str]:
    system = open_system(api)
    try:
        return system.inputs(), system.outputs(), system.name
    finally:
        system.close()


@dataclass(slots=True)
class _Settings:
    """What a bridge is to be."""

    wishes: list[Wish]
    virtual: str | None
    api: str | None
    clock: bool
    active_sensing: bool
    on_change: Callable[[Any], object] | None
    # All of it has to be there from the beginning.
    is_required: bool = False


class Bridge:
    """Devices of this machine, as members of a server or a port. `bridge` makes one.

    `async with bridge(...)` opens it and closes it. `await bridge(...)` opens one without a block.
    """

    def __init__(self, place: Place, settings: _Settings) -> None:
        self._place = place
        self._settings = settings
        # Whom `on_change` is called with: the blocking twin, where there is one.
        self._shown: Any = self
        self._system: System | None = None
        self._retry_at = 0.0
        self._devices: list[Device] = []
        self._ports: tuple[list[str], list[str]] | None = None
        self._task: BackgroundTask | None = None
        self._failure: Exception | None = None
        # What the blocking twin does when it has ended.
        self._on_end: Callable[[], object] = lambda: None
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()

    async def _open(self) -> Self:
        if self._task is not None:
            raise UsageError("this bridge was opened before: make another")
        self._place.check()
        self._loop = asyncio.get_running_loop()
        self._task = BackgroundTask(
            self._run(), name="midinet bridge", failed=self._fail, ended=lambda _: self._on_end()
        )
        try:
            await self._opened.wait()
        except BaseException:
            await self.close()
            raise
        if self._failure is not None:
            await self._task.wait()
            raise self._failure
        return self

    def _fail(self, error: Exception) -> None:
        self._failure = error
        # Also where it was cancelled before its first step.
        self._closing.set()
        self._opened.set()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return self if self._task is not None else await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every note, both ways, send the devices what is left, for the `close_timeout` of the port
        or server at most, and close them.

        Calling it again is harmless. Cancelling stops the waiting, not the closing.

        Raises:
            UsageError: it is called from another thread or event loop than opened it.
        """
        if self._task is not None:
            check_loop(self, self._loop)
        self._begin_close()
        if self._task is not None:
            await self._task.wait()

    def _begin_close(self) -> None:
        self._closing.set()

    async def wait_closed(self) -> None:
        """Wait until the bridge has been closed. Cancelling is safe.

        Raises:
            Exception: the error that ended it, where there was one.
        """
        if self._task is not None:
            check_loop(self, self._loop)
            await self._task.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def closed(self) -> bool:
        """Whether the bridge has been closed."""
        return self._closing.is_set()

    @property
    def devices(self) -> list[DeviceState]:
        """The devices that are bridged, and those that are waited for, as they stand."""
        awaited: dict[str, DeviceState] = {}
        for wish in self._settings.wishes:
            if wish.device is None and not wish.is_pattern:
                other = awaited.get(wish.text)
                awaited[wish.text] = DeviceState(
                    wish.text,
                    not wish.is_output or (other is not None and other.is_input),
                    wish.is_output or (other is not None and other.is_output),
                    False,
                    trouble=wish.trouble,
                )
        return [device.state for device in self._devices] + list(awaited.values())

    def __repr__(self) -> str:
        up = [state.name for state in self.devices if state.is_up]
        return f"<{'closed' if self.closed else 'open'} Bridge of {', '.join(up) or 'nothing'}>"

    # What it does while it is open: all of it in one task, which nobody cancels.

    async def _run(self) -> None:
        worker = self._worker = Worker()
        try:
            self._system = await worker.run(open_system, self._settings.api)
            # Should it stop, it is this one that is waited for.
            self._settings.api = self._system.name
            self._place.begin()
            try:
                await self._look(is_first=True)
                self._opened.set()
                while not self._closing.is_set():
                    await self._pause()
                    await self._look()
            finally:
                try:
                    await self._close_devices()
                finally:
                    self._place.end()
        except Exception as error:
            if self._opened.is_set():
                raise
            self._failure = error
        finally:
            try:
                if self._system is not None:
                    await worker.run(self._system.close)
            finally:
                worker.stop()
                self._closing.set()
                self._opened.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _look(self, *, is_first: bool = False) -> None:
        """See which ports there are, and bridge what is wanted of them."""
        if self._closing.is_set() or not await self._has_system():
            return
        assert self._system is not None
        try:
            ports = await self._worker.run(self._list, self._system)
        except DeviceError as error:
            logger.debug("%s", error)
            return
        if ports is None:
            await self._lose_system()
            return
        now = self._loop.time()
        if ports == self._ports and not any(0 < device.retry_at <= now for device in self._devices):
            return
        self._ports = ports
        wishes, system = self._settings.wishes, self._system.name
        must = is_first and self._settings.is_required
        found = find_all(wishes, ports, system, must=must, is_first=is_first)
        for device in self._devices:
            ways = {(device.input_name, False), (device.output_name, True)}
            if device.trouble and ways.isdisjoint(found):
                device.trouble, device.retry_at = "", 0.0
        changed = await self._part([device for device in self._devices if not is_there(device, found)])
        if self._settings.virtual is not None:
            device = self._virtual_device(self._settings.virtual)
            for is_output in (True, False):
                changed |= await self._open_way(device, device.name, is_output, must=is_first)
        for (name, is_output), wish in found.items():
            known = find_device((name, is_output), wish, wishes, self._devices, system)
            device = known or self._make_device(name)
            if not wish.is_pattern:
                wish.device = device
            changed |= await self._open_way(device, name, is_output, must=must)
        if changed:
            self._tell_change()

    @staticmethod
    def _list(system: System) -> tuple[list[str], list[str]] | None:
        return (system.inputs(), system.outputs()) if system.runs else None

    async def _has_system(self) -> bool:
        if self._system is None and self._loop.time() >= self._retry_at:
            try:
                self._system = await self._worker.run(open_system, self._settings.api)
            except DeviceError as error:
                self._retry_at = self._loop.time() + _RETRY_S
                logger.debug("%s", error)
        return self._system is not None

    async def _lose_system(self) -> None:
        assert self._system is not None
        logger.warning("%s has stopped", self._system.name)
        system, self._system, self._ports = self._system, None, None
        await self._part([device for device in self._devices if device.is_up])
        await self._worker.run(system.close)
        self._retry_at = self._loop.time() + _RETRY_S
        self._tell_change()

    def _tell_change(self) -> None:
        if self._settings.on_change is not None:
            self._loop.call_soon(self._settings.on_change, self._shown)

    # Devices come and go.

    def _make_device(self, name: str, *, is_virtual: bool = False) -> Device:
        device = Device(name, self._place, self._loop, is_virtual=is_virtual, **self._filters)
        self._devices.append(device)
        return device

    @property
    def _filters(self) -> dict[str, bool]:
        return {"clock": self._settings.clock, "active_sensing": self._settings.active_sensing}

    def _virtual_device(self, name: str) -> Device:
        for device in self._devices:
            if device.is_virtual:
                return device
        return self._make_device(name, is_virtual=True)

    async def _open_way(self, device: Device, name: str, is_output: bool, *, must: bool) -> bool:
        """Open a port that is there, unless it is open. Returns whether that was done.

        Args:
            must: raise where it cannot be done, in place of trying again later.
        """
        is_open = (device.output if is_output else device.input) is not None
        if is_open or self._loop.time() < device.retry_at:
            return False
        assert self._system is not None
        open_it: Callable[..., Input | Output]
        open_it = self._system.open_output if is_output else self._system.open_input
        try:
            opened: Input | Output = await self._worker.run(
                open_it,
                self._loop,
                name,
                device.go_on if is_output else device.hear,
                virtual=device.is_virtual,
                **({} if is_output else self._filters),
            )
        except DeviceError as error:
            if must:
                raise
            if device.trouble != str(error):
                logger.warning("%s", error)
            device.missed(name, is_output, str(error), self._loop.time() + _RETRY_S)
            return False
        device.add(name, opened)
        logger.info("%s %s is bridged", "output" if is_output else "input", name)
        return True

    async def _part(self, devices: Sequence[Device], *, hears: bool = False) -> bool:
        """Let go of devices, and close them. Returns whether there were any."""
        for device in devices:
            device.leave(hears=hears)
        if hears:
            await self._wait_until_sent(devices)
        for device in devices:
            for close in device.part():
                await self._worker.run(close)
            logger.info("%s is gone", device.name)
        # What only a pattern meant is of no interest when it is gone.
        wished = [wish.device for wish in self._settings.wishes]
        self._devices = [
            device
            for device in self._devices
            if device.is_up or device.is_virtual or device.trouble or device in wished
        ]
        return bool(devices)

    async def _wait_until_sent(self, devices: Sequence[Device]) -> None:
        try:
            async with asyncio.timeout(self._place.options.close_timeout):
                for device in devices:
                    await device.wait_sent()
        except TimeoutError:
            pass

    async def _close_devices(self) -> None:
        devices = list(self._devices)
        await self._part([device for device in devices if device.is_up], hears=True)
        for device in devices:
            device.port._reason, device.port._is_over = CloseReason.LOCAL, True


class BlockingBridge:
    """The blocking twin of a bridge: open from the time that it is made.

    Raises, when it is made:
        DeviceError, MissingExtra, UsageError: see `bridge`.
    """

    def __init__(self, place: Place, settings: _Settings) -> None:
        self._portal = get_portal()
        self._portal.run(self._make(place, settings))

    async def _make(self, place: Place, settings: _Settings) -> None:
        self._bridge = Bridge(place, settings)
        self._bridge._shown = self
        await self._bridge
        self._portal.opened[self._bridge] = self._bridge._begin_close
        self._bridge._on_end = lambda: self._portal.opened.pop(self._bridge, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every note, send the devices what is left, and close them; see `Bridge.close`."""
        self._portal.run(self._bridge.close())

    @property
    def closed(self) -> bool:
        """Whether the bridge has been closed."""
        return self._bridge.closed

    @property
    def devices(self) -> list[DeviceState]:
        """The devices that are bridged, and those that are waited for, as they stand."""
        return self._bridge.devices

    def __repr__(self) -> str:
        return repr(self._bridge)


class _Options(TypedDict, total=False):
    inputs: Collection[str]
    outputs: Collection[str]
    virtual: str | None
    api: str | None
    clock: bool
    active_sensing: bool
    thru: bool
    on_change: Callable[[Any], object] | None


@overload
def bridge(port: PortServer | SocketPort, **options: Unpack[_Options]) -> Bridge: ...
@overload
def bridge(port: BlockingServer | BlockingPort, **options: Unpack[_Options]) -> BlockingBridge: ...
def bridge(
    port: PortServer | SocketPort | BlockingServer | BlockingPort,
    *,
    inputs: Collection[str] = (),
    outputs: Collection[str] = (),
    virtual: str | None = None,
    api: str | None = None,
    clock: bool = True,
    active_sensing: bool = False,
    thru: bool = True,
    on_change: Callable[[Any], object] | None = None,
) -> Bridge | BlockingBridge:
    """Bridge devices of this machine to a server or a port.

        async with bridge(port, inputs=["Keystation"], outputs=["Synth"]): ...
        with bridge(port, inputs=["Keystation"], outputs=["Synth"]): ...      for the ports of midinet.sync

    At a port, what the devices play is sent to the peer, and what it sends they play; while it is bridged,
    the port has nothing to read. At a server, each device is like a client. What is not there is waited for.

    Args:
        port: a PortServer that is started or a SocketPort that is connected, of `midinet` or `midinet.sync`.
        inputs: what to hear. Each is the whole name of a port; or a part that only one has; or a pattern
            with * or ?, which means every port that matches, also those that come later.
        outputs: what to play on, in the same way.
        virtual: make an input and an output of this name, which other programs can connect to; None makes
            none. WinMM has no such thing.
        api: see `list_ports`.
        clock: pass timing clock and time code, both ways.
        active_sensing: pass active sensing, both ways. It says that one cable is still there, which here
            others see to.
        thru: what one device plays, the others play too. At a server that is for its `relay` to say, as it is
            for all its clients.
        on_change: called with the bridge whenever a device came or went: on the event loop, for the ports of
            midinet.sync on midinet's own thread. It has to return at once.

    Returns:
        A Bridge, to be opened by `async with` or `await`; for the ports of midinet.sync a BlockingBridge,
        which is open.

    Raises, when it is opened:
        DeviceError: a name means several ports; or the MIDI system does not run here, or cannot do that.
        MissingExtra: python-rtmidi is not installed.
        UsageError: the server is not started, or the port is bridged already or belongs to a server.
        PortClosed, ConnectionLost: it is closed.

    Raises, when it is made:
        TypeError: it is no port, or names are no collection of strings.
        ValueError: there is nothing to bridge, or `thru` is False at a server.

    Cancelling is safe: what was opened is closed.
    """
    for names in (inputs, outputs):
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f'inputs and outputs are collections of names, as in ["Synth"], not {names!r}')
    if not (inputs or outputs or virtual):
        raise ValueError("there is nothing to bridge: give inputs, outputs or virtual")
    settings = _Settings(
        wishes=[
            *[Wish(name, False) for name in dict.fromkeys(inputs)],
            *[Wish(name, True) for name in dict.fromkeys(outputs)],
        ],
        virtual=virtual or None,
        api=api,
        clock=clock,
        active_sensing=active_sensing,
        on_change=on_change,
    )
    if not thru and isinstance(port, PortServer | BlockingServer):
        raise ValueError("at a server, `relay` says whether devices hear each other: leave out thru=False")
    match port:
        case PortServer():
            return Bridge(AtServer(port), settings)
        case SocketPort():
            return Bridge(AtPort(port, thru=thru), settings)
        case BlockingServer():
            return BlockingBridge(AtServer(port._server), settings)
        case BlockingPort():
            return BlockingBridge(AtPort(port._port, thru=thru), settings)
    raise TypeError(f"a PortServer or a SocketPort is bridged, not {type(port).__name__}")


@asynccontextmanager
async def open_port(
    name: str,
    *,
    input: bool = False,
    output: bool = False,
    api: str | None = None,
    clock: bool = True,
    active_sensing: bool = False,
    on_change: Callable[[Bridge], object] | None = None,
    **options: Any,
) -> AsyncIterator[SocketPort]:
    """Open a device of this machine as a port: what it plays is read there, and what is sent it plays.

        async with open_port("Synth", output=True) as port:
            await port.send(message)

    Args:
        name: the whole name of the device, or a part that only one has.
        input: hear it.
        output: play on it.
        api: see `list_ports`.
        clock: pass timing clock and time code, both ways.
        active_sensing: pass active sensing, both ways.
        on_change: called with a Bridge of this one device when it is unplugged, and when it is back.
        options: the settings of a connection, one by one, as `LinkOptions` lists them.

    Raises:
        DeviceError: it is not there or cannot be opened.
        MissingExtra: python-rtmidi is not installed.
        ValueError: neither input nor output is wanted, or a limit is out of range.
    """
    if not (input or output):
        raise ValueError("a device is opened with input=True, output=True or both")
    settings = _Settings(
        wishes=[Wish(name, way) for way in (False, True) if (output if way else input)],
        virtual=None,
        api=api,
        clock=clock,
        active_sensing=active_sensing,
        on_change=on_change,
        is_required=True,
    )
    port, far = open_pair(**options)
    here = Bridge(AtPort(far, thru=False), settings)
    try:
        await here
        yield port
    finally:
        # What was sent is on its way: the other end has it when this one is closed.
        await port.close()
        await here.close()
        await far.close()
