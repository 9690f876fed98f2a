"""The rows of a file or a store that hold a vector, and those that do not."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# skipped rows that are kept, and that are listed in one line
_KEPT, _LISTED = 20, 5


class VectorBatch(NamedTuple):
    """The good vectors of consecutive rows.

    Attributes:
        vectors: (n, D) float32, as they are in the file.
        rows: (n,) int64, their numbers in the file, from 0.
        ids: n ids, text or None; None where the file has none.
        texts: n texts; None where they were not asked for.
    """

    vectors: np.ndarray
    rows: np.ndarray
    ids: list[str | None] | None
    texts: list[str] | None

    def take(self, index: NDArray[np.int64] | slice) -> "VectorBatch":
        """The vectors at `index`."""
        ids, texts = (None if one is None else np.array(one, object)[index].tolist() for one in (self.ids, self.texts))
        return VectorBatch(self.vectors[index], self.rows[index], ids, texts)

    @classmethod
    def joined(cls, batches: Sequence["VectorBatch"]) -> "VectorBatch":
        """All vectors of batches of one source, one batch after another."""
        if len(batches) == 1:
            return batches[0]
        vectors, rows = (np.concatenate([batch[index] for batch in batches]) for index in (0, 1))
        has_ids, has_texts = batches[0].ids is not None, batches[0].texts is not None
        ids = [name for batch in batches for name in batch.ids or []] if has_ids else None
        texts = [text for batch in batches for text in batch.texts or []] if has_texts else None
        return cls(vectors, rows, ids, texts)


class Skipped:
    """The rows of a file that hold no vector.

    Attributes:
        count: how many.
        examples: the first few as (row, reason).
    """

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[tuple[int, str]] = []

    def add(self, row: int, reason: str) -> None:
        """Count a row, and keep why it is none if it is one of the first."""
        self.count += 1
        if len(self.examples) < _KEPT:
            self.examples.append((row, reason))

    def __str__(self) -> str:
        listed = "; ".join(f"row {row} {reason}" for row, reason in self.examples[:_LISTED])
        more = f"; and {self.count - _LISTED:,} more" if self.count > _LISTED else ""
        return f"{self.count:,} {'row' if self.count == 1 else 'rows'} without a usable vector: {listed}{more}"
