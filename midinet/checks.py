"""Checks of what a caller gives as an option, made when the object is made that it is for.

TypeError is for what is no such thing, as None where None means nothing, and ValueError for what is out of
range or has no effect.
"""

from __future__ import annotations

from math import inf
from numbers import Integral, Real

# No count may be set higher. It is beyond any use, and below what the system and `re` can count to.
MAX_COUNT = 1 << 30


def check_count(name: str, value: object, least: int = 1, *, or_none: bool = False) -> None:
    """Raise unless an option is a whole number in its range.

    Args:
        name: of the option.
        value: that it was given.
        least: the least that it can be.
        or_none: None has a meaning.
    """
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number{', or None' if or_none else ''}, not {value!r}")
    if not least <= int(value) <= MAX_COUNT:
        raise ValueError(f"{name} must be between {least} and {MAX_COUNT:,}")


def check_number(
    name: str, value: object, *, above: float = -inf, least: float = -inf, or_none: bool = False
) -> None:
    """Raise unless an option is a number in its range.

    Args:
        name: of the option.
        value: that it was given.
        above: what it must be above.
        least: the least that it can be.
        or_none: None has a meaning.
    """
    end = ", or None" if or_none else ""
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number{end}, not {value!r}")
    number = float(value)
    # Not a number is none of these.
    if not number > above:
        raise ValueError(f"{name} must be above {above:g}{end}")
    if not number >= least:
        raise ValueError(
            f"{name} must not be negative" if least == 0 else f"{name} must be at least {least:g}{end}"
        )


def check_flag(name: str, value: object) -> None:
    """Raise TypeError where an option that is either on or off is given as nothing, or as text."""
    if value is None or isinstance(value, str):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_effect(name: str, is_given: bool, needs: str, has_it: bool) -> None:
    """Raise ValueError where an option is given that has no effect without another one.

    Args:
        name: of the option.
        is_given: whether it is given.
        needs: what it takes, as a caller writes it.
        has_it: whether that is so.
    """
    if is_given and not has_it:
        raise ValueError(f"{name} has no effect without {needs}")
