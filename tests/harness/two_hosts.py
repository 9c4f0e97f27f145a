"""Two hosts on one machine with a bad cable between them, for what no proxy can do: a host that vanishes.

Each host is a network namespace without a name, held by a descriptor, with one TUN device in it
(network_namespaces(7); the kernel's tuntap documentation). This process carries the packets from one device
to the other, late, or not at all. As nothing has a name, runs beside each other do not meet, and the system
takes everything down even when this process is killed.

It takes Linux, /dev/net/tun and root: `@requires_two_hosts` tries it and skips the test with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

# Any network will do: nothing else is in the namespaces.
ADDRESSES = ("10.77.0.1", "10.77.0.2")
NETMASK = "255.255.255.0"
DEVICE = b"cable0"

# From linux/sched.h, linux/if_tun.h, linux/sockios.h and linux/if.h.
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 0x1

# More than a TUN device's packets, of 1500 bytes.
MAX_PACKET = 2048

# What a program that is run in a namespace starts as: it goes in and becomes the program.
ENTER = f"""
import ctypes, os, sys
namespace = int(sys.argv[1])
if ctypes.CDLL(None, use_errno=True).setns(namespace, {CLONE_NEWNET}):
    sys.exit(os.strerror(ctypes.get_errno()))
os.close(namespace)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass
class Cable:
    """What the cable does to packets; may be changed at any time.

    Attributes:
        delay_s, jitter_s: how long a packet takes, and up to how much more, in seconds. Jitter may overtake.
        loss: the share of packets that is lost, from 0.0 to 1.0.
        up: whether it carries anything; with False both hosts are still up, and hear nothing of each other.
        passed, dropped: packets, so far.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    up: bool = True
    passed: int = 0
    dropped: int = 0


class TwoHosts:
    """What `two_hosts()` gives. Hosts are 0 and 1.

    Attributes:
        cable: the Cable.
        addresses: the two hosts' IPv4 addresses.
    """

    def __init__(self, hosts: list[tuple[int, int]], seed: int) -> None:
        self.cable = Cable()
        self.addresses = ADDRESSES
        self._namespaces = [namespace for namespace, _ in hosts]
        self._devices = [device for _, device in hosts]
        self._random = random.Random(seed)
        self._on_the_way: set[asyncio.TimerHandle] = set()
        self._processes: list[asyncio.subprocess.Process] = []
        self._watchers: set[threading.Thread] = set()

    async def run_in(self, host: int, *argv: str, **options: Any) -> asyncio.subprocess.Process:
        """Start a program on a host; `options` are those of `asyncio.create_subprocess_exec`.

        It is killed at the end of the block, if it still runs.
        """
        namespace = self._namespaces[host]
        before = set(threading.enumerate())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", ENTER, str(namespace), *argv),
            pass_fds=(namespace,),
            **options,
        )
        self._processes.append(process)
        # Before Python 3.12 a thread waits for each process; it outlives the process by a moment.
        self._watchers |= {
            thread for thread in set(threading.enumerate()) - before if thread.name.startswith("waitpid-")
        }
        return process

    def socket_in(
        self, host: int, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """A socket on a host, in this process; it stays on that host. Whoever asked closes it."""
        namespace = self._namespaces[host]

        def make() -> socket.socket:
            _call("setns", namespace, CLONE_NEWNET)
            return socket.socket(family, kind)

        return _in_a_thread(make)

    def _connect(self) -> None:
        for device, other in zip(self._devices, reversed(self._devices), strict=True):
            asyncio.get_running_loop().add_reader(device, self._carry, device, other)

    def _disconnect(self) -> None:
        for device in self._devices:
            asyncio.get_running_loop().remove_reader(device)
        for timer in self._on_the_way:
            timer.cancel()

    def _carry(self, device: int, other: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = os.read(device, MAX_PACKET)
            except BlockingIOError:
                return
            if not self.cable.up or self._random.random() < self.cable.loss:
                self.cable.dropped += 1
                continue
            wait_s = self.cable.delay_s + self._random.uniform(0, self.cable.jitter_s)
            if wait_s:
                # The timer takes itself off the list, so it has to know itself.
                arrival: list[asyncio.TimerHandle] = []
                arrival.append(loop.call_later(wait_s, self._arrive_late, other, packet, arrival))
                self._on_the_way.add(arrival[0])
            else:
                self._arrive(other, packet)

    def _arrive_late(self, device: int, packet: bytes, arrival: list[asyncio.TimerHandle]) -> None:
        self._on_the_way.discard(arrival[0])
        if self.cable.up:
            self._arrive(device, packet)
        else:
            self.cable.dropped += 1

    def _arrive(self, device: int, packet: bytes) -> None:
        try:
            os.write(device, packet)
        except OSError:
            self.cable.dropped += 1
        else:
            self.cable.passed += 1

    async def _stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                # Not wait(): a full pipe would keep it waiting.
                await process.communicate()
        for watcher in self._watchers:
            watcher.join()


@contextlib.asynccontextmanager
async def two_hosts(*, seed: int = 0) -> AsyncIterator[TwoHosts]:
    """Two hosts and a cable, for the time of the block.

    The packets are carried by the running event loop: what blocks it, cuts the cable for so long.

    Args:
        seed: decides which packets are lost or late.

    Raises:
        OSError: this machine cannot do it; `requires_two_hosts` has the reason.
    """
    with _hosts() as made:
        hosts = TwoHosts(made, seed)
        hosts._connect()
        try:
            yield hosts
        finally:
            try:
                await hosts._stop()
            finally:
                hosts._disconnect()


@contextlib.contextmanager
def _hosts() -> Iterator[list[tuple[int, int]]]:
    """The descriptors (namespace, TUN device) of the two hosts."""
    with contextlib.ExitStack() as stack:
        made = []
        for address in ADDRESSES:
            host = _in_a_thread(lambda address=address: _make_host(address))
            for descriptor in host:
                stack.callback(os.close, descriptor)
            made.append(host)
        yield made


def _make_host(address: str) -> tuple[int, int]:
    """Make a namespace for the calling thread, and bring it up."""
    import fcntl

    _call("unshare", CLONE_NEWNET)
    with contextlib.ExitStack() as on_failure:
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        on_failure.callback(os.close, namespace)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        on_failure.callback(os.close, device)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, NETMASK)):
                # A struct ifreq with a struct sockaddr_in in it.
                fields = (DEVICE, socket.AF_INET, 0, socket.inet_aton(value))
                fcntl.ioctl(control, request, struct.pack("16sHH4s16x", *fields))
            for device_name in (b"lo", DEVICE):
                asked = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH22x", device_name, 0))
                flags = struct.unpack("16sH22x", asked)[1]
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", device_name, flags | IFF_UP))
        on_failure.pop_all()
    return namespace, device


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _in_a_thread(function: Callable[[], Result]) -> Result:
    """Call it in a thread of its own, whose namespace may change and ends with it."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="two hosts")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _reason_against() -> str | None:
    """Why this machine cannot have two hosts, found by trying; None if it can."""
    if sys.platform != "linux":
        return "two hosts take Linux's network namespaces"
    if not os.path.exists("/dev/net/tun"):
        return "two hosts take /dev/net/tun, which is not here"
    try:
        with _hosts():
            return None
    except PermissionError as error:
        return f"two hosts take root: {error}"
    except OSError as error:
        return f"two hosts do not work here: {error}"


# None where they work.
reason_against = _reason_against()
requires_two_hosts = pytest.mark.skipif(reason_against is not None, reason=reason_against or "two hosts work")
