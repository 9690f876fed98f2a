"""Rows of numbers as vectors, in numpy alone: which have a direction, and how long they are.

Files are checked by this before torch is imported, which takes seconds.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# by which a length may differ from 1; float16 rounds by a tenth of it
LENGTH_TOLERANCE = 1e-2


def bad_rows(rows: NDArray[np.floating[Any]]) -> dict[int, str]:
    """Index → what is wrong, of those rows (N, D) that have no direction."""
    reasons = dict.fromkeys(np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist(), "holds NaN or infinity")
    return reasons | dict.fromkeys(np.flatnonzero(~rows.any(axis=1)).tolist(), "is all zeros")


def unit_rows(rows: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Finite rows (N, D) → (N, D) of length 1, zeros where a row is zero, and their lengths (N,)."""
    rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)  # squares of very small and very large numbers leave float64
    scaled = rows / np.where(largest == 0, 1, largest)
    norms = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    with np.errstate(over="ignore"):
        lengths = (largest * norms)[:, 0]
    return (scaled / np.maximum(norms, 1)).astype(np.float32), lengths


def has_unit_length(lengths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) bool: which lengths (N,) are 1, but for the rounding of float16."""
    return np.abs(lengths - 1) <= LENGTH_TOLERANCE


def are_whole(rows: NDArray[np.floating[Any]]) -> bool:
    """Whether every number is a whole one, as int8 and binary quantisation leave them."""
    return bool((rows == np.rint(rows)).all())
