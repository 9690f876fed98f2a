"""Vectors in FAISS indexes: flat, HNSW, IVF, scalar and product quantisers, and those in wrappers with ids."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import numpy as np

from ..errors_embinv import EmbInvError
from .columns import Table
from .locations import Location, library, using_store
from .packed import as_float32

SUFFIXES = (".faiss", ".index")
# (first, how many) → vectors (n, D), in the order of the index's ids
Rebuild = Callable[[int, int], np.ndarray]
# transformed vectors (n, d_out) → (n, d_in)
Undo = Callable[[np.ndarray], np.ndarray]


def open_faiss(location: Location) -> Table:
    """An index, mapped into memory where its kind allows that. What a quantiser has lost stays lost.

    Raises:
        EmbInvError: damaged, an index that keeps no vectors, or FAISS is not installed.
    """
    faiss = library(location, "faiss", "faiss")
    path = location.file
    with using_store(location):
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        total = int(index.ntotal)
        rebuild, ids = _parts(faiss, index)
    if total:
        try:
            # one by one: an exception within the library's threads would end the process
            rebuild(0, 1)
        except RuntimeError as error:
            kind = type(faiss.downcast_index(index)).__name__
            raise EmbInvError(f"{location.shown}: a FAISS index of kind {kind} gives no vectors back") from error

    # `held`: `rebuild` looks into an index that it does not own
    def read(columns: list[str], size: int, held: Any = index) -> Iterator[dict[str, Any]]:
        for start in range(0, total, size):
            rows = min(size, total - start)
            with using_store(location):
                vectors = as_float32(rebuild(start, rows))
            yield {"vector": vectors, "id": ids[start : start + rows].tolist()}

    return Table(["id", "vector"], ["vector"], read, lambda _: total)


def _parts(faiss: Any, index: Any) -> tuple[Rebuild, np.ndarray]:
    """How the vectors of an index are had back, and their ids; they are in this order."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        rebuild, _ = _parts(faiss, index.index)
        return rebuild, faiss.vector_to_array(index.id_map)
    if isinstance(index, faiss.IndexRefine):  # the second index holds the same vectors, less lossy
        return _parts(faiss, index.refine_index)
    if isinstance(index, faiss.IndexPreTransform):
        rebuild, ids = _parts(faiss, index.index)
        undo = _undo(faiss, index)
        return lambda first, rows: undo(rebuild(first, rows)), ids
    if isinstance(index, faiss.IndexIVFFastScan):  # asked for a vector, it ends the process
        return _refuse, np.arange(index.ntotal)
    if isinstance(index, faiss.IndexIVF):
        return _of_lists(faiss, index)
    numbers = np.arange(index.ntotal)
    return (
        lambda first, rows: index.reconstruct(first)[None] if rows == 1 else index.reconstruct_n(first, rows)
    ), numbers


def _refuse(first: int, rows: int) -> np.ndarray:
    raise RuntimeError("keeps no vectors that could be had back")


def _undo(faiss: Any, index: Any) -> Undo:
    """What gives vectors as they were before the transforms of an index."""
    chain = [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]
    undos = [_undo_one(faiss, transform) for transform in reversed(chain)]
    return lambda vectors: reduce(lambda found, undo: undo(as_float32(found)), undos, vectors)


def _undo_one(faiss: Any, transform: Any) -> Undo:
    usual: Undo = transform.reverse_transform
    if not isinstance(transform, faiss.LinearTransform) or not transform.is_trained:
        return usual
    matrix = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in).astype(np.float64)
    if np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-3):
        return usual
    # FAISS would take the transpose, which does not undo a whitening
    inverse, bias = np.linalg.pinv(matrix), faiss.vector_to_array(transform.b) if transform.have_bias else 0
    return lambda vectors: (vectors - bias) @ inverse.T


def _of_lists(faiss: Any, index: Any) -> tuple[Rebuild, np.ndarray]:
    """Of inverted lists; by their ids, 20 bytes a vector."""
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    ids = np.empty(sum(sizes), np.int64)
    where = np.empty((len(ids), 2), np.int64)
    start = 0
    for number, size in enumerate(sizes):
        if size:
            part = slice(start, start + size)
            ids[part] = faiss.rev_swig_ptr(lists.get_ids(number), size)
            where[part, 0], where[part, 1] = number, np.arange(size)
            start += size
    order = np.argsort(ids, kind="stable")
    ids, where = ids[order], where[order]

    def rebuild(first: int, rows: int) -> np.ndarray:
        vectors = np.empty((rows, index.d), np.float32)
        for row, (number, offset) in enumerate(where[first : first + rows].tolist()):
            index.reconstruct_from_offset(number, offset, faiss.swig_ptr(vectors[row]))
        return vectors

    return rebuild, ids
