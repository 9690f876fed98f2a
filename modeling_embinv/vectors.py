"""Vectors that were computed elsewhere, from npy, parquet, Arrow and JSON lines, in flat memory."""

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .files import PARQUET_ROWS, check_column, check_text, file_kind, json_values, parquet_batches, read_lines, reading
from .sources import Document

VECTOR_KINDS = (".npy", ".parquet", ".arrow", ".jsonl")


def read_vectors(
    path: str | Path, column: str = "embedding", text_column: str | None = None
) -> tuple[np.ndarray, list[str] | None]:
    """All vectors of a file, and their texts if `text_column` names them.

    Args:
        path: `.npy` (N, D), `.parquet`, `.arrow`, `.jsonl` (also `.gz`, `.xz`), or a folder that `datasets` saved.
        column: where a table holds the vectors.
        text_column: where it holds their texts; None = not wanted.

    Returns:
        (N, D) float32 as they are in the file (see `check_vectors`), and N texts or None.

    Raises:
        ValueError: damaged, pickled, empty, or not a table of equally long rows of numbers.
    """
    batches = list(_vector_batches(Path(path), column, text_column, PARQUET_ROWS))
    vectors = np.concatenate([vectors for vectors, _ in batches])
    return vectors, None if text_column is None else [text for _, texts in batches for text in texts]


def iter_vectors(path: str | Path, column: str = "embedding", batch_size: int = 1024) -> Iterator[np.ndarray]:
    """The vectors of a file in batches (`batch_size`, D) float32, in flat memory; formats as in `read_vectors`."""
    return (vectors for vectors, _ in _vector_batches(Path(path), column, None, batch_size))


def read_vector_documents(
    path: str | Path, column: str = "embedding", text_column: str = "text"
) -> Iterator[Document]:
    """Documents with their vectors, read in flat memory, for training on embeddings computed elsewhere."""
    for vectors, texts in _vector_batches(Path(path), column, text_column, PARQUET_ROWS):
        for text, vector in zip(texts, vectors, strict=True):
            yield Document(text, text, vector)


def count_vectors(path: str | Path) -> int:
    """How many vectors a file holds; formats as in `read_vectors`."""
    path = Path(path)
    kind = _vector_kind(path)
    if kind == ".npy":
        return len(_open_npy(path))
    if kind == ".jsonl":
        return sum(1 for _ in read_lines(path))
    if kind == ".parquet":
        with reading(path), pq.ParquetFile(path) as file:
            return file.metadata.num_rows
    if kind == "folder":
        return len(_saved_folder(path))
    return sum(len(batch) for batch in _arrow_batches(path, [], PARQUET_ROWS))


def check_vectors(vectors: np.ndarray, embedding_dim: int, first_row: int = 0) -> np.ndarray:
    """Checks vectors from outside and scales them to unit norm.

    Args:
        vectors: (N, D) numbers.
        embedding_dim: D, what the model was trained on.
        first_row: the number of `vectors[0]` in the whole file, for messages.

    Returns:
        (N, D) float32 of unit norm. Warns if the norms were off by more than 0.01 (float16 is not).

    Raises:
        ValueError: another width, NaN or infinity, or a row of zeros.
    """
    if vectors.ndim != 2 or vectors.shape[1] != embedding_dim:
        raise ValueError(f"vectors of shape {vectors.shape} from row {first_row} on; expected (N, {embedding_dim})")
    vectors = np.asarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {first_row + int(finite.argmin())} holds NaN or infinity; every number must be finite")
    # float64, because the square of a small float32 can vanish.
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not norms.all():
        raise ValueError(f"row {first_row + int(norms.argmin())} is all zeros; an embedding has a direction")
    if (np.abs(norms - 1) > 1e-2).any():
        warnings.warn("vectors are not of unit norm; they are scaled to it", stacklevel=2)
    return (vectors / norms[:, None]).astype(np.float32)


def _vector_kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if file_kind(path) not in VECTOR_KINDS:
        raise ValueError(f"{path}: unknown kind of file; known: {', '.join(VECTOR_KINDS)}, folders saved by datasets")
    return file_kind(path)


def _vector_batches(
    path: Path, column: str, text_column: str | None, batch_size: int
) -> Iterator[tuple[np.ndarray, list[str] | None]]:
    """((n, D) float32, n texts or None) for every batch; every batch is of the first one's width."""
    row, width = 0, None
    if _vector_kind(path) == ".npy":
        batches = _npy_batches(path, text_column, batch_size)
    else:
        batches = _table_batches(path, column, text_column, batch_size)
    for vectors, texts in batches:
        width = vectors.shape[1] if width is None else width
        if vectors.shape[1] != width:
            raise ValueError(f"{path}: row {row} holds {vectors.shape[1]} numbers, the rows before it hold {width}")
        yield vectors, texts
        row += len(vectors)
    if row == 0:
        raise ValueError(f"{path}: holds no vectors")


def _open_npy(path: Path) -> np.ndarray:
    """The (N, D) matrix of a file, memory-mapped."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            reason = "holds pickled Python objects, which can run code when loaded; save a float array with np.save"
        else:
            reason = f"corrupt, truncated or no .npy file: {' '.join(str(error).split())}"
        raise ValueError(f"{path}: {reason}") from error
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {matrix.dtype} of shape {matrix.shape}; expected numbers of shape (N, D)")
    return matrix


def _npy_batches(path: Path, text_column: str | None, batch_size: int) -> Iterator[tuple[np.ndarray, None]]:
    if text_column is not None:
        raise ValueError(f"{path}: a .npy file holds no texts; give a .parquet, .arrow or .jsonl file")
    matrix = _open_npy(path)
    for start in range(0, len(matrix), batch_size):
        yield np.array(matrix[start : start + batch_size], dtype=np.float32), None


def _table_batches(
    path: Path, column: str, text_column: str | None, batch_size: int
) -> Iterator[tuple[np.ndarray, list[str] | None]]:
    columns = [column] if text_column is None else [column, text_column]
    readers = {
        ".parquet": parquet_batches,
        ".arrow": _arrow_batches,
        ".jsonl": _json_batches,
        "folder": _saved_batches,
    }
    row = 0
    for batch in readers[_vector_kind(path)](path, columns, batch_size):
        for name in columns:
            check_column(path, name, batch.schema.names)
        vectors = _matrix(batch[column], f"{path}: column {column!r}", row)
        texts = None
        if text_column is not None:
            texts = [check_text(path, text_column, text) for text in batch[text_column].to_pylist()]
        yield vectors, texts
        row += len(vectors)


def _matrix(column: pa.Array | pa.ChunkedArray, where: str, row: int) -> np.ndarray:
    """An Arrow column of lists of numbers as (n, D) float32; `row` is the number of its first row in the file."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(array.type) or array.null_count:
        raise ValueError(f"{where}: row {row + pc.is_null(array).index(True).as_py()} holds no vector")
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if not (is_list or pa.types.is_fixed_size_list(array.type)) or not (
        pa.types.is_floating(array.type.value_type) or pa.types.is_integer(array.type.value_type)
    ):
        raise ValueError(f"{where} holds {array.type}, not lists of numbers")
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    if (lengths != lengths[0]).any():
        odd = int((lengths != lengths[0]).argmax())
        raise ValueError(f"{where}: row {row + odd} holds {lengths[odd]} numbers, row {row} holds {lengths[0]}")
    values = array.flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(len(array), int(lengths[0]))


def _arrow_batches(path: Path, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """An Arrow file in either layout: a stream (what `datasets` writes) or a file (Feather)."""
    with reading(path), pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        for batch in batches:
            for start in range(0, len(batch), batch_size):
                yield batch.slice(start, batch_size)


def _saved_folder(path: Path):
    from datasets import Dataset, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: no folder that datasets saved, or an empty one: {error}") from error
    if not isinstance(saved, Dataset):
        raise ValueError(f"{path}: holds several splits; give one of its folders: {', '.join(saved)}")
    return saved


def _saved_batches(path: Path, columns: list[str], batch_size: int) -> Iterator[pa.Table]:
    yield from _saved_folder(path).with_format("arrow").iter(batch_size)


def _json_batches(path: Path, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    rows = json_values(path, columns)
    while batch := list(islice(rows, batch_size)):
        try:
            arrays = [pa.array(values) for values in zip(*batch, strict=True)]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"{path}: {', '.join(columns)} do not hold one kind of value: {error}") from error
        yield pa.RecordBatch.from_arrays(arrays, names=columns)
