"""The rows of a store that an audit looks at: drawn at random by a seed, in flat memory."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.files import short_names, writing
from ..errors_embinv import EmbInvError
from ..stores.rows import VectorBatch
from ..stores.selection import RowSample
from ..stores.vectors import VectorSource

logger = logging.getLogger(__name__)
BATCH = 4096


class Sample(NamedTuple):
    """Some rows of a store.

    Attributes:
        vectors: (n, D) float32, as the store holds them.
        rows: (n,) int64, their numbers in the store, ascending.
        ids: n ids; None where the store has none.
        texts: n texts, "" for a row without one; None where the store has none.
        total: rows of the store that hold a vector.
        digest: of all vectors and ids of the store.
        collections: n names, of the collection that each row is of; None where the store is one.
        num_texts: rows of the store that hold a vector and a text; None where nobody has counted.
    """

    vectors: np.ndarray
    rows: np.ndarray
    ids: list[str | None] | None
    texts: list[str] | None
    total: int
    digest: str
    collections: list[str] | None = None
    num_texts: int | None = None

    @property
    def texts_digest(self) -> str | None:
        """Of the texts of these rows; None where the store has none."""
        return None if self.texts is None else hashlib.blake2b(repr(self.texts).encode(), digest_size=8).hexdigest()

    def row_keys(self) -> list[tuple[str | None, int]]:
        """(collection, number in it) of each row, which no other row of the store has."""
        names: Sequence[str | None] = self.collections or [None] * len(self.rows)
        return list(zip(names, self.rows.tolist(), strict=True))

    def take(self, indices: np.ndarray) -> "Sample":
        """The rows at these indices (m,) of the sample."""
        return self._replace(
            vectors=self.vectors[indices],
            rows=self.rows[indices],
            ids=None if self.ids is None else [self.ids[index] for index in indices],
            texts=None if self.texts is None else [self.texts[index] for index in indices],
            collections=None if self.collections is None else [self.collections[index] for index in indices],
        )

    def save(self, path: Path) -> None:
        """Writes columns `vector`, `id` and `text` as parquet, where there are such."""
        columns: dict[str, pa.Array] = {"vector": pa.array(list(self.vectors), pa.list_(pa.float32()))}
        for name, values in (("id", self.ids), ("text", self.texts)):
            if values is not None:
                columns[name] = pa.array(values, pa.string())
        with writing(path):
            pq.write_table(pa.table(columns), path)


def draw(source: VectorSource, limit: int, seed: int) -> Sample:
    """Draws `limit` rows of a store; see `draw_each`."""
    return draw_each(source, [limit], seed)[0]


def draw_each(source: VectorSource, limits: Sequence[int], seed: int) -> list[Sample]:
    """Draws a sample for each limit; the larger ones hold the smaller ones.

    Each row has the same chance, but for those without a text in a store of texts: they are drawn last, for what is
    recovered of them cannot be scored.

    Args:
        source: the opened store, see `open_vectors`; it is read once, from its first row to its last.
        limits: n, rows of each sample at most; of a smaller store all rows.
        seed: of the draw.

    Raises:
        EmbInvError: a damaged store, or one without a usable vector.
    """
    drawn, digest = RowSample(max(limits), seed, texts_first=True), hashlib.blake2b(digest_size=16)
    total = num_texts = 0
    for batch in source.batches(BATCH):
        total += len(batch.rows)
        num_texts += sum(bool(text.strip()) for text in batch.texts or [])
        digest.update(digested(batch))
        drawn.add(batch)
    samples = [_sample(drawn.rows(limit), total, digest.hexdigest(), num_texts) for limit in limits]
    if source.text_column is not None and all(one.texts is None for one in samples):
        logger.info("%s: the texts in column %r are all empty", source.path, short_names([source.text_column]))
    return samples


def digested(batch: VectorBatch) -> bytes:
    """What the digest of a store is of: the vectors and ids of its rows."""
    return np.ascontiguousarray(batch.vectors, "<f4").tobytes() + repr(batch.ids).encode()


def _sample(rows: VectorBatch, total: int, digest: str, num_texts: int) -> Sample:
    """A sample of rows; texts that are all empty are none."""
    texts = rows.texts if num_texts else None
    return Sample(rows.vectors, rows.rows, rows.ids, texts, total, digest, num_texts=num_texts)


def join(samples: Mapping[str, Sample], limit: int, seed: int) -> Sample:
    """One sample of several collections, stratified: each has the share of the rows that it has of the store.

    Args:
        samples: of each collection, by its name, with `limit` rows or all of it.
        limit: n, rows together at most.
        seed: of what is left out.

    Raises:
        EmbInvError: some collections hold texts and others none.
    """
    with_texts = {name for name, one in samples.items() if one.texts is not None}
    if with_texts and len(with_texts) < len(samples):
        raise EmbInvError(
            f"only some collections hold texts: {short_names(sorted(with_texts))}; audit them apart (--collection)."
        )
    totals = [one.total for one in samples.values()]
    parts = [
        one.take(some_rows(one, size, seed))
        for one, size in zip(samples.values(), allotted(totals, limit), strict=True)
    ]
    has_ids = any(one.ids is not None for one in parts)
    return Sample(
        np.concatenate([one.vectors for one in parts]),
        np.concatenate([one.rows for one in parts]),
        [name for one in parts for name in one.ids or [None] * len(one.rows)] if has_ids else None,
        [text for one in parts for text in one.texts or []] if with_texts else None,
        sum(totals),
        hashlib.blake2b("".join(one.digest for one in parts).encode(), digest_size=16).hexdigest(),
        [name for name, one in zip(samples, parts, strict=True) for _ in one.rows],
        sum(one.num_texts or 0 for one in parts),
    )


def allotted(totals: Sequence[int], limit: int) -> list[int]:
    """How many of `limit` rows each collection of `totals` rows gives: its share of them, and at least one.

    Shares are rounded down, and the largest remainders get what is left. Of fewer rows than collections some get none.
    """
    whole = min(limit, sum(totals))
    least = 1 if whole >= len(totals) else 0
    exact = [whole * total / sum(totals) for total in totals]
    sizes = [max(int(share), least) for share in exact]
    while sum(sizes) != whole:
        step = 1 if sum(sizes) < whole else -1
        able = [index for index, size in enumerate(sizes) if least <= size + step <= totals[index]]
        sizes[max(able, key=lambda index: step * (exact[index] - sizes[index]))] += step
    return sizes


def some_rows(sample: Sample, size: int, seed: int) -> np.ndarray:
    """(min(n, size),) indices of a sample, ascending; rows without a text are taken last."""
    is_empty = None if sample.texts is None else np.array([not text.strip() for text in sample.texts])
    return subset(len(sample.rows), size, seed, is_empty)


def subset(count: int, limit: int, seed: int, is_last: np.ndarray | None = None) -> np.ndarray:
    """(min(count, limit),) indices below `count`, ascending, drawn by a seed; where `is_last` (count,) holds, last."""
    order = np.random.default_rng(seed).permutation(count)
    if is_last is not None:
        order = order[np.argsort(is_last[order], kind="stable")]
    return np.sort(order[:limit])
