"""Some of the rows of a file of vectors: the first ones, or a sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import VectorBatch


class RowSample:
    """Rows drawn without replacement from batches that come one after another, in flat memory.

    Each row draws a random key; the rows with the smallest keys are the sample. So each has the same chance, and the
    size of the batches changes nothing.

    Args:
        size: rows, at most.
        seed: of the keys.
        texts_first: whether rows without a text are drawn only where those with one do not suffice.
    """

    def __init__(self, size: int, seed: int, texts_first: bool = False) -> None:
        self._size, self._random, self._texts_first = size, np.random.default_rng(seed), texts_first
        self._kept: VectorBatch | None = None
        self._keys = np.empty(0)

    def add(self, batch: VectorBatch) -> None:
        """Draws from these rows, too."""
        joined = batch if self._kept is None else VectorBatch.joined([self._kept, batch])
        drawn = self._random.random(len(batch.rows))
        if self._texts_first and batch.texts is not None:
            drawn += [not text.strip() for text in batch.texts]
        keys = np.concatenate([self._keys, drawn])
        chosen = _smallest(keys, self._size)
        self._kept, self._keys = joined.take(chosen), keys[chosen]

    def rows(self, size: int | None = None) -> VectorBatch:
        """The sample of what was added, in its order; or a smaller one, of `size` rows of it."""
        assert self._kept is not None, "no batch was added"
        return self._kept.take(_smallest(self._keys, self._size if size is None else size))


def _smallest(keys: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """The indices of the `size` smallest keys, ascending."""
    return np.sort(np.argsort(keys, kind="stable")[:size])


@dataclass(frozen=True)
class Selection:
    """Which rows of a source are read.

    Attributes:
        limit: the first rows with a usable vector, at most so many; None = all.
        sample: so many of them, drawn by `seed`; None = all.
    """

    limit: int | None = None
    sample: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        if self.sample is not None:
            return f"a sample of {self.sample:,} by seed {self.seed}"
        return "all" if self.limit is None else f"the first {self.limit:,}"

    def count(self, total: int) -> int:
        """Rows that are read of a source with so many, at most."""
        return min([total, *(most for most in (self.limit, self.sample) if most is not None)])

    def of(self, batches: Iterator[VectorBatch], size: int) -> Iterator[VectorBatch]:
        """The selected rows, those of a sample `size` at a time."""
        if self.sample is not None:
            return _sampled(batches, size, RowSample(self.sample, self.seed))
        return batches if self.limit is None else _first(batches, self.limit)


def _first(batches: Iterator[VectorBatch], limit: int) -> Iterator[VectorBatch]:
    for batch in batches:
        if len(batch.rows) >= limit:
            yield batch.take(np.arange(limit))
            return
        limit -= len(batch.rows)
        yield batch


def _sampled(batches: Iterator[VectorBatch], size: int, sample: RowSample) -> Iterator[VectorBatch]:
    for batch in batches:
        sample.add(batch)
    rows = sample.rows()
    for start in range(0, len(rows.rows), size):
        yield rows.take(np.arange(start, min(start + size, len(rows.rows))))
