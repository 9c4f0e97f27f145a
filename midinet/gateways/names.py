"""What the ports of a machine are called, and which of them somebody means.

Systems name ports so that each name is there once, and the numbers that they add for that may be others when
a device comes back: "Synth:Synth MIDI 1 24:0" with ALSA (client and port), "Synth 1" with WinMM (an index).
The two directions of one instrument have one name, or two that say which is which, as JACK's clients have it:
"system:midi_capture_1" and "system:midi_playback_1".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..errors import DeviceError

_NUMBERS = {"alsa": re.compile(r" \d+:\d+$"), "winmm": re.compile(r" \d+$")}

_DIRECTION = re.compile(
    r"(?<![a-z])(?:midi[_ ]?)?(?:in|out|input|output|capture|playback|source|destination)(?![a-z])"
)

_WILD = re.compile(r"[*?]")

# What ALSA gives back whatever is sent to it. A pattern that means every port does not mean this.
_THROUGH = "Midi Through"

# Names in an error: more than anybody has instruments, and little enough to read.
_MAX_LISTED = 8


def is_pattern(wish: str) -> bool:
    """Whether a name means every port that matches."""
    return _WILD.search(wish) is not None


def lasting(name: str, system: str) -> str:
    """What stays of a port's name when its device is unplugged and comes back."""
    numbers = _NUMBERS.get(system)
    return name if numbers is None else numbers.sub("", name)


def instrument(name: str, system: str) -> str:
    """What an instrument's two directions have in common."""
    return _DIRECTION.sub("", lasting(name, system).casefold())


def match(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that a pattern means, whatever their case."""
    # Ports have brackets in their names.
    folded = pattern.casefold().replace("[", "[[]")
    return [name for name in names if fnmatchcase(name.casefold(), folded) and not name.startswith(_THROUGH)]


def choose(wish: str, names: Sequence[str], system: str) -> str | None:
    """Return the one name that is meant, or None if there is none like it.

    Args:
        wish: the whole name, with or without its numbers, or a part that only one has.

    Raises:
        DeviceError: several are meant.
    """
    if wish in names:
        return wish
    folded = wish.casefold()
    for found in (
        [name for name in names if lasting(name, system) == wish],
        [name for name in names if wish in name],
        [name for name in names if folded in name.casefold()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise DeviceError(f"{wish!r} may be any of {listed(found)}")
    return None


def listed(names: Sequence[str]) -> str:
    """Return names as a text, a few of them if they are many."""
    texts = [repr(name) for name in names[:_MAX_LISTED]]
    if len(names) > _MAX_LISTED:
        texts.append(f"{len(names) - _MAX_LISTED} more")
    return ", ".join(texts)
