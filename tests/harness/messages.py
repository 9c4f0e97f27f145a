"""mido Messages in few words, and of every type: the edges of each, and a hypothesis strategy for all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from mido import Message
from mido.messages.specs import SPEC_BY_TYPE


def note(number: int, time: float = 0, **values: Any) -> Message:
    """Return a note-on. The time is in the unit of whatever it is for: ticks in a file."""
    return Message("note_on", note=number, time=time, **values)


def off(number: int, time: float = 0, **values: Any) -> Message:
    """Return a note-off."""
    return Message("note_off", note=number, time=time, **values)


def control(number: int, value: int, time: float = 0, **values: Any) -> Message:
    """Return a control change."""
    return Message("control_change", control=number, value=value, time=time, **values)


def program_change(number: int, time: float = 0, **values: Any) -> Message:
    """Return a program change."""
    return Message("program_change", program=number, time=time, **values)


_LARGEST = {"channel": 15, "frame_type": 7, "frame_value": 15, "pos": 16383}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "data": st.lists(st.integers(0, 127), max_size=40),
    "pitch": st.integers(-8192, 8191),
}


def _strategy(name: str) -> st.SearchStrategy[Any]:
    return _VALUES[name] if name in _VALUES else st.integers(0, _LARGEST.get(name, 127))


def _edges(name: str) -> list[Any]:
    if name == "data":
        return [(), (0,), (127,) * 300]
    if name == "pitch":
        return [-8192, -1, 0, 8191]
    return [0, 1, _LARGEST.get(name, 127)]


def any_message(*, with_channel: bool = False) -> st.SearchStrategy[Message]:
    """Any message that mido can make, with time 0; if wanted, one that has a channel."""
    return st.one_of(
        [
            st.builds(Message, st.just(kind), **{name: _strategy(name) for name in spec["value_names"]})
            for kind, spec in SPEC_BY_TYPE.items()
            if not with_channel or "channel" in spec["value_names"]
        ]
    )


def edge_messages() -> list[Message]:
    """Every type of message, with each of its values at its edges."""
    messages = []
    for kind, spec in SPEC_BY_TYPE.items():
        messages.append(Message(kind))
        for name in spec["value_names"]:
            messages += [Message(kind, **{name: value}) for value in _edges(name)]
    return messages
