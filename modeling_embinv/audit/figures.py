"""Figures with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import share_interval


@dataclass(frozen=True)
class Figure:
    """A share or a mean, and its 95 % interval over rows, see `share_interval`.

    Attributes:
        value: 0 to 1 for a share.
        low, high: of the interval.
        hits, count: the share is hits / count; a mean's count is its number of rows.
        floors: the same figure of guesses that do not invert the row's vector, by their names.
    """

    value: float
    low: float
    high: float
    hits: float
    count: int
    floors: dict[str, float] = field(default_factory=dict)

    @property
    def above_floor(self) -> bool:
        """Whether the whole interval lies above every floor."""
        return self.low > max(self.floors.values(), default=0.0)


def share(
    hits: Sequence[float] | NDArray[np.floating], totals: Sequence[int] | NDArray[np.integer] | None = None,
    floors: Mapping[str, Sequence[float]] | None = None, seed: int = 0,
) -> Figure | None:  # fmt: skip
    """Σ hits / Σ totals over rows, whose interval draws whole rows; None where there is nothing to count.

    Args:
        hits: (n,) of each row.
        totals: (n,) of each row; None = 1 each, for a mean.
        floors: name → (n,) hits of a guess on the same totals.
        seed: of the resamples.
    """
    found = np.asarray(hits, dtype=float)
    counts = np.ones(len(found)) if totals is None else np.asarray(totals, dtype=float)
    if not counts.sum():
        return None
    low, high = share_interval(found, counts, seed)
    beside = {name: float(np.sum(values) / counts.sum()) for name, values in (floors or {}).items()}
    value = float(found.sum() / counts.sum())
    return Figure(value, low, high, float(found.sum()), int(counts.sum()), beside)
