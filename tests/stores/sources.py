"""Rows that the tests write into stores, and what must come back."""

import hashlib
from pathlib import Path

import numpy as np

from modeling_embinv.stores.rows import VectorBatch
from modeling_embinv.stores.vectors import open_vectors

ROWS, DIM = 300, 16
VECTORS = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
# not in the order of the alphabet
IDS = [f"doc-{(7 * row) % ROWS}" for row in range(ROWS)]
TEXTS = [f"text {row}, 'quoted' ü" for row in range(ROWS)]


def fingerprint(path: Path) -> dict[str, str]:
    """Name → digest of every file below a folder."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def read_all(source, size: int = 64, **options) -> VectorBatch:
    """All good rows of a source, read in pages; options as of `open_vectors`."""
    batches = list(open_vectors(source, **options).batches(size))
    vectors, rows = (np.concatenate([batch[index] for batch in batches]) for index in (0, 1))
    ids, texts = ([value for batch in batches for value in batch[index] or []] for index in (2, 3))
    return VectorBatch(vectors, rows, ids, texts)


def check_all(source, path: Path, **options) -> None:
    """What went in comes out, in order and in float32, and the source stays as it was to the byte."""
    before = fingerprint(path)
    found = read_all(source, text_column=True, **options)
    assert found.vectors.dtype == np.float32 and np.array_equal(found.vectors, VECTORS)
    assert found.ids == IDS and found.texts == TEXTS and found.rows.tolist() == list(range(ROWS))
    assert fingerprint(path) == before
