"""Random histories: what somebody plays, sets and resets, in few places so that they meet often."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain

from hypothesis import strategies as st

Frames = list[bytes]

CHANNELS = (0, 9)
NOTES = (60, 61)
VALUES = (0, 1, 64, 127)
# Some of each kind: bank, modulation, volume, expression, pedals, sound, general purpose, effects, undefined.
CONTROLLERS = (0, 1, 2, 7, 8, 11, 32, 33, 34, 39, 40, 43, 64, 65, 66, 67, 68, 69, 71, 81, 91, 110, 122)
# Those that have a second byte.
WIDE = (0, 1, 2, 7, 8, 11)
# Those of which RP-015 does not say whether Reset All Controllers resets them.
UNLISTED = frozenset({2, 34, 8, 40, 68, 69, 81, 110})
# A tuning, the bend range, null; and numbers that an instrument's maker gives a meaning to.
NUMBERS = ((0, 0), (0, 1), (0, 2), (1, 0), (127, 127))

NRPN, RPN = (99, 98), (101, 100)
DATA_MSB, DATA_LSB, INCREMENT, DECREMENT = 6, 38, 96, 97
RESET_ALL_CONTROLLERS, ALL_NOTES_OFF, OMNI_ON = 121, 123, 125

channels = st.sampled_from(CHANNELS)
values = st.sampled_from(VALUES)


def control(channel: int, number: int, value: int) -> bytes:
    return bytes((0xB0 | channel, number, value))


def note_on(note: int, *, channel: int = 0, velocity: int = 100) -> bytes:
    return bytes((0x90 | channel, note, velocity))


def note_off(note: int, *, channel: int = 0) -> bytes:
    return bytes((0x80 | channel, note, 64))


def _one(frame: st.SearchStrategy[bytes]) -> st.SearchStrategy[Frames]:
    return frame.map(lambda frame: [frame])


def notes() -> st.SearchStrategy[Frames]:
    """A note-on or a note-off, in either spelling."""
    kinds = st.sampled_from((0x80, 0x90, 0x90))
    return _one(
        st.builds(
            lambda kind, channel, note, value: bytes((kind | channel, note, value)),
            kinds,
            channels,
            st.sampled_from(NOTES),
            st.sampled_from((0, 100)),
        )
    )


def settings(*, in_pairs: bool = False, without: Collection[int] = frozenset()) -> st.SearchStrategy[Frames]:
    """A program, bend, pressure, controller or parameter.

    Args:
        in_pairs: what has two bytes is always set with both.
        without: controllers to leave out.
    """
    pressure = st.builds(
        lambda channel, note, value: bytes((0xA0 | channel, note, value)),
        channels,
        st.sampled_from(NOTES),
        values,
    )
    program = st.builds(lambda channel, value: bytes((0xC0 | channel, value)), channels, values)
    channel_pressure = st.builds(lambda channel, value: bytes((0xD0 | channel, value)), channels, values)
    bend = st.builds(
        lambda channel, lsb, msb: bytes((0xE0 | channel, lsb, msb)), channels, st.sampled_from((0, 5)), values
    )
    number = st.builds(
        lambda channel, kind, number, turned: [
            control(channel, kind[half], number[half]) for half in ((1, 0) if turned else (0, 1))
        ],
        channels,
        st.sampled_from((NRPN, RPN)),
        st.sampled_from(NUMBERS),
        st.booleans(),
    )
    half_number = st.builds(
        control, channels, st.sampled_from((*NRPN, *RPN)), st.sampled_from((0, 1, 2, 127))
    )
    step = st.builds(control, channels, st.sampled_from((INCREMENT, DECREMENT)), values)
    wide = st.builds(
        lambda channel, number, msb, lsb: [control(channel, number, msb), control(channel, number + 32, lsb)],
        channels,
        st.sampled_from([number for number in (*WIDE, DATA_MSB) if number not in without]),
        values,
        values,
    )
    bytes_of_pairs = {*WIDE, *(number + 32 for number in WIDE)} if in_pairs else set()
    narrow = [number for number in CONTROLLERS if number not in bytes_of_pairs | {*without}]
    controllers = st.builds(control, channels, st.sampled_from(narrow), values)
    kinds = [
        *map(_one, (pressure, program, channel_pressure, bend, half_number, step, controllers)),
        number,
        wide,
    ]
    if not in_pairs:
        kinds.append(_one(st.builds(control, channels, st.sampled_from((DATA_MSB, DATA_LSB)), values)))
    return st.one_of(kinds)


def modes(*numbers: int) -> st.SearchStrategy[Frames]:
    """A channel mode message, of these."""
    return _one(st.builds(control, channels, st.sampled_from(numbers), st.just(0)))


def transport() -> st.SearchStrategy[Frames]:
    """Song position, Start, Continue, Stop, and many clocks."""
    position = st.builds(lambda beat: bytes((0xF2, beat, 0)), st.sampled_from((0, 1, 5)))
    real_time = st.sampled_from((b"\xf8", b"\xf8", b"\xf8", b"\xfa", b"\xfb", b"\xfc"))
    return _one(st.one_of(position, real_time))


def system_reset() -> st.SearchStrategy[Frames]:
    return st.just([b"\xff"])


class Sense:
    """Leaves out of a history what has no meaning that all receivers share: half of a parameter number whose
    other half was never sent, and a step from a value that was never set."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._kinds: dict[int, tuple[int, int]] = {}
        self._known: set[tuple[int, ...]] = set()

    def of(self, items: Iterable[Frames]) -> Frames:
        """The frames that have one, of what goes on where it stopped before."""
        return list(chain.from_iterable([item for item in items if self._takes(item)]))

    def _takes(self, item: Frames) -> bool:
        if item[0] == b"\xff":
            self._forget()
        if item[0][0] & 0xF0 != 0xB0:
            return True
        channel = item[0][0] & 15
        numbers = dict.fromkeys([frame[1] for frame in item])
        if numbers.keys() & {*NRPN, *RPN}:
            kind = RPN if numbers.keys() & {*RPN} else NRPN
            known = {number for number in kind if (channel, number) in self._numbers}
            if not known | numbers.keys() >= {*kind}:
                return False
            self._kinds[channel] = kind
            self._numbers |= {(channel, frame[1]): frame[2] for frame in item}
        elif numbers.keys() & {DATA_MSB, INCREMENT, DECREMENT} and channel in self._kinds:
            kind = self._kinds[channel]
            parameter = (channel, *kind, *(self._numbers[channel, number] for number in kind))
            if DATA_MSB in numbers:
                self._known.add(parameter)
            return parameter in self._known
        elif RESET_ALL_CONTROLLERS in numbers:
            self._numbers |= {place: 127 for place in self._numbers if place[0] == channel}
        return True


def history(
    *items: st.SearchStrategy[Frames], min_size: int = 0, max_size: int = 30
) -> st.SearchStrategy[list[Frames]]:
    """What is played of these. Each entry belongs together."""
    return st.lists(st.one_of(*items), min_size=min_size, max_size=max_size)
