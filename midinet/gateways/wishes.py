"""Which ports of this machine a bridge wants, and to which instrument each of them leads."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import DeviceError
from .members import Device
from .names import choose, instrument, is_pattern, lasting, listed, match

logger = logging.getLogger("midinet.devices")

# A port, by its name and whether it is an output.
Way: TypeAlias = tuple[str, bool]


@dataclass(slots=True)
class Wish:
    """A port, or all that match, to be bridged whenever it is there."""

    text: str
    is_output: bool
    # Of one that was found: what stays of its name.
    found: str = ""
    device: Device | None = None
    trouble: str = ""

    @property
    def is_pattern(self) -> bool:
        return is_pattern(self.text)


def choose_there(text: str, names: Sequence[str], system: str, *, output: bool) -> str:
    """Return the one name that is meant.

    Raises:
        DeviceError: there is none, or there are several.
    """
    if (found := choose(text, names, system)) is None:
        kind = "output" if output else "input"
        there = f"there are {listed(names)}" if names else "there are none"
        raise DeviceError(f"there is no MIDI {kind} {text!r}: {there}")
    return found


def find_all(
    wishes: Sequence[Wish], ports: tuple[list[str], list[str]], system: str, *, must: bool, is_first: bool
) -> dict[Way, Wish]:
    """Return the ports that are wanted and there.

    Args:
        ports: the names of the inputs and of the outputs that are there.
        system: what lists them.
        must: each has to be there.
        is_first: a name that may be any of several is an error. Later it is a line in the log.

    Raises:
        DeviceError: see `must` and `is_first`.
    """
    found: dict[Way, Wish] = {}
    # Names first: what is meant by one stays, also where a pattern means it too.
    for wish in sorted(wishes, key=lambda wish: wish.is_pattern):
        names = ports[wish.is_output]
        if wish.is_pattern:
            for name in match(wish.text, names):
                found.setdefault((name, wish.is_output), wish)
            continue
        try:
            one = _find_one(wish, names, system, must=must)
        except DeviceError as error:
            if is_first:
                raise
            if wish.trouble != str(error):
                logger.warning("%s", error)
            wish.trouble = str(error)
            continue
        if one is not None:
            found.setdefault((one, wish.is_output), wish)
    return found


def _find_one(wish: Wish, names: Sequence[str], system: str, *, must: bool) -> str | None:
    again = [name for name in names if wish.found and lasting(name, system) == wish.found]
    if again:
        # Of two alike, the one that it was.
        was = wish.device.way_name(wish.is_output) if wish.device is not None else ""
        return was if was in again else again[0]
    name: str | None
    if must:
        name = choose_there(wish.text, names, system, output=wish.is_output)
    else:
        name = choose(wish.text, names, system)
    wish.trouble = ""
    if name is not None:
        wish.found = lasting(name, system)
    return name


def is_there(device: Device, found: Collection[Way]) -> bool:
    """Whether all that is open of a device is there and wanted."""
    if device.is_virtual:
        return True
    return (device.input is None or (device.input_name, False) in found) and (
        device.output is None or (device.output_name, True) in found
    )


def find_device(
    way: Way, wish: Wish, wishes: Sequence[Wish], devices: Sequence[Device], system: str
) -> Device | None:
    """Return which of these devices a port leads to, None if to another."""
    name, is_output = way
    own = [device for device in devices if not device.is_virtual]
    for device in own:
        if name == device.way_name(is_output):
            return device
    for device in own:
        if (device.output if is_output else device.input) is not None:
            continue
        last = device.way_name(is_output)
        if instrument(name, system) == instrument(last or device.way_name(not is_output), system):
            return device
        # Of two that are wanted by the same word, one plays and the other is played on.
        alike = any(other.device is device and other.text == wish.text for other in wishes)
        if alike and not last and not wish.is_pattern:
            return device
    return None
