"""Some of the rows of a file of vectors: the first ones, or a sample."""

from collections.abc import Iterator

import numpy as np

from ..stores.vectors import Skipped, VectorBatch, VectorSource


class SelectedVectors(VectorSource):
    """An opened file of which some rows are read; they keep their numbers.

    Args:
        source: the whole file.
        limit: the first rows with a usable vector, at most so many.
        sample: so many of them, drawn without replacement, in the file's order; they are held in memory.
        seed: of the sample.
    """

    def __init__(
        self, source: VectorSource, limit: int | None = None, sample: int | None = None, seed: int = 0
    ) -> None:
        vars(self).update(vars(source))
        self._limit, self._sample, self._seed = limit, sample, seed

    @property
    def selection(self) -> str:
        """Which rows are read, in words."""
        if self._sample is not None:
            return f"a sample of {self._sample:,} by seed {self._seed}"
        return "all" if self._limit is None else f"the first {self._limit:,}"

    def count(self) -> int:
        """Rows that are read, at most."""
        known = [super().count(), *(most for most in (self._limit, self._sample) if most is not None)]
        return min(known)

    def batches(self, batch_size: int = 1024) -> Iterator[VectorBatch]:
        """As `VectorSource.batches`; of a sample, batch k holds its rows k · batch_size to (k + 1) · batch_size."""
        whole = super().batches(batch_size)
        if self._sample is not None:
            return self._sampled(whole, batch_size, self._sample)
        return whole if self._limit is None else self._first(whole, self._limit)

    def _first(self, batches: Iterator[VectorBatch], limit: int) -> Iterator[VectorBatch]:
        for batch in batches:
            if len(batch.rows) >= limit:
                self._skipped_before(int(batch.rows[limit - 1]))
                yield batch.take(np.arange(limit))
                return
            limit -= len(batch.rows)
            yield batch

    def _skipped_before(self, last: int) -> None:
        """Forgets the bad rows behind row `last`, which nobody asked for."""
        before = [example for example in self.skipped.examples if example[0] < last]
        if len(before) < len(self.skipped.examples):  # all of them are listed as far as here
            self.skipped = Skipped()
            for example in before:
                self.skipped.add(*example)

    def _sampled(self, batches: Iterator[VectorBatch], size: int, count: int) -> Iterator[VectorBatch]:
        """The rows of the `count` smallest of random numbers that all good rows draw."""
        random, kept, keys = np.random.default_rng(self._seed), None, np.empty(0)
        for batch in batches:
            drawn = np.concatenate([keys, random.random(len(batch.rows))])
            joined = batch if kept is None else VectorBatch.joined([kept, batch])
            chosen = np.sort(np.argsort(drawn, kind="stable")[:count])
            kept, keys = joined.take(chosen), drawn[chosen]
        for start in range(0, len(keys), size):
            assert kept is not None  # there are keys
            yield kept.take(np.arange(start, min(start + size, len(keys))))
