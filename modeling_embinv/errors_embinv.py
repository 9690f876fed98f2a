"""The error of whoever uses the package, and values in its one line."""

import reprlib
from numbers import Integral
from typing import Any


class EmbInvError(ValueError):
    """What was given cannot be used: one line says what was wrong, and what would be right."""


def shown(value: Any) -> str:
    """A value, whatever it is, for the one line of an error, cut short."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return " ".join(short.repr(value).split())
    except ValueError:  # Python does not print whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number, Python's or numpy's, from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and value >= least and (most is None or value <= most)
