"""The rows of a whole store that are nearest to some vectors: the store is read once, in flat memory."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..stores.rows import VectorBatch
from ..vectors_embinv import unit_rows

# vectors that are compared with a batch at a time
BLOCK = 1024
# (the collection or None, some rows of it)
Batches = Iterable[tuple[str | None, VectorBatch]]


class NearestRows:
    """The nearest row of each of some vectors, of batches that come one after another.

    Args:
        vectors: (m, D), of unit length.
        texts: m texts of the store that these vectors are made of, see `others`; none = they are not from the store.

    Attributes:
        cosine: (m,) with the nearest row so far.
        others: (m,) with the nearest row of another text than the vector's own; -1 where there is none.
        rows: m (collection, number, id) of the nearest row; of number -1 before the first batch.
        total: rows so far.
    """

    def __init__(self, vectors: np.ndarray, texts: Sequence[str] = ()) -> None:
        self._vectors = np.asarray(vectors, dtype=np.float32)
        self.cosine = np.full(len(self._vectors), -1.0, np.float32)
        self.others = self.cosine.copy()
        self.rows: list[tuple[str | None, int, str | None]] = [(None, -1, None)] * len(self._vectors)
        self.total = 0
        self._of_text: dict[str, list[int]] = {}
        for index, text in enumerate(texts):
            self._of_text.setdefault(text, []).append(index)

    def add(self, collection: str | None, batch: VectorBatch) -> None:
        """Compares the vectors with these rows, too."""
        self.total += len(batch.rows)
        unit = unit_rows(batch.vectors)[0].astype(np.float32)
        own = [(index, row) for row, text in enumerate(batch.texts or []) for index in self._of_text.get(text, ())]
        for start in range(0, len(self._vectors), BLOCK):
            cosine = self._vectors[start : start + BLOCK] @ unit.T
            self._keep(start, cosine, collection, batch)
            for index, row in own:
                if start <= index < start + BLOCK:
                    cosine[index - start, row] = -1
            block = self.others[start : start + BLOCK]
            np.maximum(block, cosine.max(axis=1), out=block)

    def _keep(self, start: int, cosine: np.ndarray, collection: str | None, batch: VectorBatch) -> None:
        """Keeps the rows that are nearer than those so far; `cosine` (b, n) is of the vectors from `start` on."""
        nearest = cosine.argmax(axis=1)
        found = cosine[np.arange(len(nearest)), nearest]
        for index in np.flatnonzero(found > self.cosine[start : start + BLOCK]).tolist():
            row = int(nearest[index])
            name = None if batch.ids is None else batch.ids[row]
            self.rows[start + index] = (collection, int(batch.rows[row]), name)
            self.cosine[start + index] = found[index]
