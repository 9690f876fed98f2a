"""Reads raw text, and vectors that were computed elsewhere, from files and from the Hub.

A document is `(key, text)`, or `(key, text, vector)` if its embedding is known already. Everything is read lazily.
"""

import gzip
import json
import lzma
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

OPENERS = {".gz": gzip.open, ".xz": lzma.open}
TEXT_KINDS = (".txt", ".jsonl", ".parquet")
VECTOR_KINDS = (".npy", ".parquet", ".arrow", ".jsonl")
PARQUET_ROWS = 4096


class Document(NamedTuple):
    """One text. `key` decides its split (the readers below use the text itself); `vector` is (D,) or None."""

    key: str
    text: str
    vector: np.ndarray | None = None


class HubPart(NamedTuple):
    """One slice of a Hub data set: its name, its configuration (often a language), how many rows; None = all."""

    name: str
    config: str | None = None
    count: int | None = None


def _kind(path: Path) -> str:
    """The suffix without compression: `.txt` for `a.txt.xz`. Only text files may be compressed from outside."""
    plain = Path(path.stem).suffix
    return plain if path.suffix in OPENERS and plain in (".txt", ".jsonl") else path.suffix


@contextmanager
def _reading(path: Path):
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: corrupt, truncated or no {_kind(path)} file: {reason}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank."""
    with _reading(path), OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line := line.strip():
                yield number, line


def _json_values(path: Path, columns: Sequence[str]) -> Iterator[list]:
    """The named values of every line of a JSON-lines file."""
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON (truncated?): {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object")
        for column in columns:
            _check_column(path, column, list(row))
        yield [row[column] for column in columns]


def _check_column(where: str | Path, column: str, present: Sequence[str]) -> None:
    if column not in present:
        raise ValueError(f"{where}: no column {column!r}; present: {', '.join(present) or 'none'}")


def _check_text(where: str | Path, column: str, text: object) -> str:
    """The text, "" for null; half surrogate pairs, which JSON can hold and tokenizers refuse, become "?"."""
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{where}: column {column!r} holds {type(text).__name__}, not text")
    return (text or "").encode("utf-8", "replace").decode("utf-8")


# Texts


def read_texts(
    paths: str | Path | Iterable[str | Path], column: str = "text", languages: Sequence[str] | None = None
) -> Iterator[Document]:
    """Documents of local files: `.txt` (one a line) and `.jsonl`, both also as `.gz` and `.xz`, and `.parquet`.

    Args:
        paths: files, or directories of which all supported files are read, in sorted order. Blank texts are skipped.
        column: where JSON lines and parquet hold the text.
        languages: of a directory, only the sub-folders of these names (directly below it).

    Raises:
        ValueError: nothing found, an empty or damaged file, a missing column; the message names the file.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    files = [file for path in paths for file in _text_files(Path(path), languages)]
    return (document for file in files for document in _read_file(file, column))


def _text_files(path: Path, languages: Sequence[str] | None) -> list[Path]:
    if path.is_file():
        if _kind(path) not in TEXT_KINDS:
            raise ValueError(f"{path}: unknown kind of file; known: {', '.join(TEXT_KINDS)}, .txt.xz, .jsonl.gz …")
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or directory")
    folders = [path] if languages is None else [path / language for language in languages]
    for folder in folders:
        if not folder.is_dir():
            present = sorted(child.name for child in path.iterdir() if child.is_dir())
            raise ValueError(f"{path}: no folder {folder.name!r}; present: {', '.join(present) or 'none'}")
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    files = [file for file in files if _kind(file) in TEXT_KINDS]
    if not files:
        raise ValueError(f"{path}: holds no {', '.join(TEXT_KINDS)} file")
    return files


def _read_file(path: Path, column: str) -> Iterator[Document]:
    if _kind(path) == ".txt":
        texts = (line for _, line in _lines(path))
    elif _kind(path) == ".jsonl":
        texts = (value for (value,) in _json_values(path, [column]))
    else:
        texts = (
            value for batch in _parquet_batches(path, [column], PARQUET_ROWS) for value in batch[column].to_pylist()
        )
    empty = True
    for text in texts:
        if text := _check_text(path, column, text).strip():
            empty = False
            yield Document(text, text)
    if empty:
        raise ValueError(f"{path}: holds no text")


def _parquet_batches(path: Path, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    with _reading(path), pq.ParquetFile(path) as file:
        for column in columns:
            _check_column(path, column, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=batch_size, columns=columns)


def parse_hub_spec(spec: str) -> list[HubPart]:
    """Reads `name`, `name:config`, `name:config:count` or `name:config=count,config=count`.

    `allenai/c4:en=100000,de=50000` gives `[("allenai/c4", "en", 100000), ("allenai/c4", "de", 50000)]`; an empty
    config (`name::1000`) stands for the data set's default.

    Raises:
        ValueError: another form, or a count that is not a positive whole number.
    """
    name, *rest = spec.split(":")
    if name and not rest:
        return [HubPart(name)]
    if name and len(rest) == 2:
        return [HubPart(name, rest[0] or None, _count(spec, rest[1]))]
    if name and len(rest) == 1 and "=" in rest[0]:
        pairs = [part.partition("=") for part in rest[0].split(",")]
        return [HubPart(name, config or None, _count(spec, count)) for config, _, count in pairs]
    if name and len(rest) == 1 and rest[0] and "," not in rest[0]:
        return [HubPart(name, rest[0])]
    raise ValueError(f"{spec!r} is not name, name:config, name:config:count or name:config=count,config=count")


def _count(spec: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{spec!r}: {text!r} is not a count; write a positive whole number of rows")
    return int(text)


def read_hub(
    name: str, config: str | None = None, split: str = "train", column: str = "text", count: int | None = None
) -> Iterator[Document]:
    """Streams the documents of a Hub data set, or of a local folder that `datasets.load_dataset` understands.

    Args:
        name: `owner/name` on the Hub, or a folder.
        config: the data set's configuration (often a language); None = its default.
        split: which of its splits.
        column: the column that holds the text. Blank texts are skipped.
        count: read at most so many rows; None = all.

    Raises:
        ValueError: unknown data set, configuration, split or column, or no connection.
    """
    from datasets import load_dataset

    where = name if config is None else f"{name} ({config})"
    try:
        rows = load_dataset(name, config, split=split, streaming=True)
        for row in islice(rows, count):
            _check_column(where, column, list(row))
            if text := _check_text(where, column, row[column]).strip():
                yield Document(text, text)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{where}: cannot be read: {' '.join(str(error).split())[:300]}") from error


# Vectors


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
        return sum(1 for _ in _lines(path))
    if kind == ".parquet":
        with _reading(path), pq.ParquetFile(path) as file:
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
    if _kind(path) not in VECTOR_KINDS:
        raise ValueError(f"{path}: unknown kind of file; known: {', '.join(VECTOR_KINDS)}, folders saved by datasets")
    return _kind(path)


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
        ".parquet": _parquet_batches,
        ".arrow": _arrow_batches,
        ".jsonl": _json_batches,
        "folder": _saved_batches,
    }
    row = 0
    for batch in readers[_vector_kind(path)](path, columns, batch_size):
        for name in columns:
            _check_column(path, name, batch.schema.names)
        vectors = _matrix(batch[column], f"{path}: column {column!r}", row)
        texts = None
        if text_column is not None:
            texts = [_check_text(path, text_column, text) for text in batch[text_column].to_pylist()]
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
    with _reading(path), pa.memory_map(str(path)) as source:
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
    rows = _json_values(path, columns)
    while batch := list(islice(rows, batch_size)):
        try:
            arrays = [pa.array(values) for values in zip(*batch, strict=True)]
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"{path}: {', '.join(columns)} do not hold one kind of value: {error}") from error
        yield pa.RecordBatch.from_arrays(arrays, names=columns)
