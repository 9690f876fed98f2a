"""The errors and warnings of whoever uses the package, and values in their one line."""

import inspect
import reprlib
import warnings
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import Any

# modules whose lines no user wrote: those beside this one; those of a checkpoint's code, of which a pipeline and its
# model have copies; and the files through which transformers and torch call them
_OWN = f"{__name__.rpartition('.')[0]}.", "transformers_modules."
_LIBRARIES = tuple(map(str, (Path("transformers", "pipelines", "base.py"), Path("torch", "utils", "_contextlib.py"))))


class EmbInvError(ValueError):
    """What was given cannot be used: one line says what was wrong, and what would be right."""


def warn(message: str) -> None:
    """Warns at the line of the user that led here, and not at one of this package."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _is_own(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_own(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))  # of code that is made as text it may be None
    return module.startswith(_OWN) or frame.f_code.co_filename.endswith(_LIBRARIES)


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            repr(x)
        except ValueError:  # Python prints no whole number of more than 4,300 digits
            return "a number of thousands of digits"
        return super().repr_int(x, level)


def shown(value: Any) -> str:
    """A value, whatever it is, for the one line of an error, cut short."""
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    return " ".join(short.repr(value).split())


def is_whole(value: Any, least: int, most: int | None = None) -> bool:
    """Whether a value is a whole number, Python's or numpy's, from `least` to `most`."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and value >= least and (most is None or value <= most)
