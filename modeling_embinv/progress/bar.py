"""The bar of a long run: it moves with each round of a search, and its rate is that of this run alone.

Where stderr is no terminal, as in the log of a CI job, there are plain lines in its place.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tqdm import tqdm

from ..hypotheses_embinv import SearchRound
from .rates import counted, speed

_FORMAT = "{desc}{percentage:3.0f} %|{bar}| {whole:,} of {of}{round}, {elapsed} < {remaining}{speed}"

# seconds between two lines of a bar that no terminal shows
LINE_SECONDS = 60.0

Row = TypeVar("Row")
if TYPE_CHECKING:  # the class takes no brackets when the program runs
    _Bar = tqdm[NoReturn]
else:
    _Bar = tqdm


class RowBar(_Bar):
    """A bar of rows on stderr, as vectors to invert; where that is no terminal, a line a minute, with the time left.

    Args:
        total: how many there are. show: whether to show it. leave: whether it stays. name: what it begins with.
        row: what it counts, one of them.
    """

    def __init__(self, total: int, show: bool, leave: bool = True, name: str = "", row: str = "vector") -> None:
        self.round, self.reached, self.resumed = ", starting", 0, 0
        self._says, self._began = show and not sys.stderr.isatty(), time.monotonic()
        self._said, self._row, self._of = self._began, row, counted(max(total, 1), row)
        self._name = f"{name}: " if name else ""
        # smoothing=0: the mean since the start, which neither resumed parts nor those of other processes make jump;
        # miniters=0: a round of a single vector moves the bar by a part of one
        super().__init__(
            desc=self._name or None, total=max(total, 1), leave=leave, smoothing=0, miniters=0, bar_format=_FORMAT,
            dynamic_ncols=True, disable=None if show else True,
        )  # fmt: skip

    @property
    def format_dict(self) -> dict[str, Any]:
        """With the fields of the format that are this bar's own."""
        known = dict(super().format_dict)
        done, elapsed = known["n"] - known["initial"], known["elapsed"]
        rate = done / elapsed if elapsed else 0.0
        own = {"round": self.round, "whole": int(known["n"]), "speed": f", {speed(rate, self._row)}" if rate else ""}
        return {**known, **own, "of": self._of, "rate": rate or None}

    def resume(self, count: int) -> None:
        """Say that the first `count` vectors were inverted before; they count for no rate."""
        self.initial, self.resumed = count, count
        self.reach(count)

    def reach(self, count: int) -> None:
        """Say that so many vectors are done, with those that were left out."""
        self.reached, self.round = count, ""
        self._move(count)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows; the bar moves as they come."""
        for row in rows:
            yield row
            self.reach(self.reached + 1)

    def cleared(self, rows: Iterable[Row]) -> Iterator[Row]:
        """As `counted`, for rows that are printed on the same terminal: the bar is not there while a row is."""
        for row in self.counted(rows):
            self.clear()
            yield row

    def show_round(self, one: SearchRound, batch: int) -> None:
        """A round of a search over a batch of so many vectors; candidates alone have none."""
        self.round = f", round {one.number} of {one.total}" if one.total else ""
        self._move(self.reached + batch * one.number / (one.total + 1))

    def _move(self, count: float) -> None:
        self.update(max(0, min(count, self.total or count) - self.n))
        if self._says and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            line = f"embinv: {self._name}{int(count):,} of {self._of}{self.round}{self._left(count)}"
            print(line, file=sys.stderr, flush=True)

    def _left(self, count: float) -> str:
        """How long the rest takes at this run's rate, or ""; a bar that no terminal shows does not know it."""
        done, rest = count - self.resumed, (self.total or count) - count
        if done <= 0 or rest <= 0:
            return ""
        return f", {self.format_interval(rest * (time.monotonic() - self._began) / done)} left"


@contextmanager
def stage(what: str, show: bool = True) -> Iterator[None]:
    """Says on stderr that a part of a long run begins; where that is no terminal, with bars, also how long it took.

    Args:
        what: the part, in a few words. show: whether to say anything.
    """
    started = time.monotonic()
    if show:
        print(f"embinv: {what} …", file=sys.stderr, flush=True)
    yield
    if show and not sys.stderr.isatty():
        print(f"embinv: {what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
