"""The rows of a store that an audit looks at: drawn at random by a seed, in flat memory."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..stores.selection import RowSample
from ..stores.vectors import VectorSource

BATCH = 4096


class Sample(NamedTuple):
    """Some rows of a store.

    Attributes:
        vectors: (n, D) float32, as the store holds them.
        rows: (n,) int64, their numbers in the store, ascending.
        ids: n ids; None where the store has none.
        texts: n texts; None where the store has none.
        total: rows of the store that hold a vector.
        digest: of all vectors and ids of the store.
    """

    vectors: np.ndarray
    rows: np.ndarray
    ids: list[str | None] | None
    texts: list[str] | None
    total: int
    digest: str

    def take(self, indices: np.ndarray) -> "Sample":
        """The rows at these indices (m,) of the sample."""
        return self._replace(
            vectors=self.vectors[indices],
            rows=self.rows[indices],
            ids=None if self.ids is None else [self.ids[index] for index in indices],
            texts=None if self.texts is None else [self.texts[index] for index in indices],
        )

    def save(self, path: Path) -> None:
        """Writes columns `vector`, `id` and `text` as parquet, where there are such."""
        columns: dict[str, pa.Array] = {"vector": pa.array(list(self.vectors), pa.list_(pa.float32()))}
        for name, values in (("id", self.ids), ("text", self.texts)):
            if values is not None:
                columns[name] = pa.array(values, pa.string())
        pq.write_table(pa.table(columns), path)


def draw(source: VectorSource, limit: int, seed: int) -> Sample:
    """Draws `limit` rows of a store, each with the same chance; all rows of a smaller one.

    Args:
        source: the opened store, see `open_vectors`; it is read once, from its first row to its last.
        limit: n, rows of the sample at most.
        seed: of the draw.

    Raises:
        EmbInvError: a damaged store, or one without a usable vector.
    """
    drawn, digest, total = RowSample(limit, seed), hashlib.blake2b(digest_size=16), 0
    for batch in source.batches(BATCH):
        total += len(batch.rows)
        digest.update(np.ascontiguousarray(batch.vectors, "<f4").tobytes() + repr(batch.ids).encode())
        drawn.add(batch)
    return Sample(*drawn.rows, total, digest.hexdigest())


def subset(count: int, limit: int, seed: int) -> np.ndarray:
    """(min(count, limit),) indices below `count`, ascending, drawn by a seed."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])
