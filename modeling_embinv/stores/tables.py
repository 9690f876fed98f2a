"""Vectors in parquet and Arrow files, and in folders that `datasets` saved, in flat memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..data.files import WIDEST, one_line, reading
from ..errors_embinv import EmbInvError
from .columns import VECTOR_NAMES, Table
from .copies import file_versions
from .values import holds_number_lists

# what Arrow has for texts and bytes
_TEXTS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
    pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
)  # fmt: skip
# What a writer puts behind the last batch of a stream.
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def open_parquet(path: Path) -> Table:
    """A parquet file; batches end with row groups."""
    with reading(path), pq.ParquetFile(path, memory_map=True) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        names = column_names(schema)
        _check_parquet(path, file)

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with reading(path), pq.ParquetFile(path, memory_map=True) as file:
            tops = list(dict.fromkeys(top_column(schema, column) for column in columns))
            for batch in file.iter_batches(size, columns=tops):
                yield pick(batch, columns)

    return Table(names, vector_columns(schema), read, lambda _: rows)


def open_arrow(path: Path) -> Table:
    """An Arrow file in either layout: a stream (what `datasets` writes) or a file with a footer (Feather)."""
    check_arrow_end(path)
    with _arrow(path) as (schema, _):
        names = column_names(schema)

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with _arrow(path) as (_, batches):
            for batch in batches:
                batch.validate()
                for start in range(0, len(batch), size):
                    yield pick(batch.slice(start, size), columns)

    def count(_: str) -> int:
        with _arrow(path) as (_, batches):
            return sum(len(batch) for batch in batches)

    return Table(names, vector_columns(schema), read, count)


def open_folder(path: Path) -> Table:
    """A folder that `Dataset.save_to_disk` wrote, or `DatasetDict.save_to_disk` of a single split."""
    from datasets import Dataset, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:  # whatever the library stumbles over in a damaged folder
        raise EmbInvError(f"{path}: no folder that datasets saved, or an empty one: {one_line(error)}") from error
    if not isinstance(saved, Dataset):
        if len(saved) > 1:
            raise EmbInvError(f"{path}: holds several splits; give one of its folders: {', '.join(saved)}")
        return open_folder(path / next(iter(saved)))
    files = [Path(file["filename"]) for file in saved.cache_files]
    for file in files:
        check_arrow_end(file)
    schema = saved.data.schema

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with reading(path):
            for table in saved.with_format("arrow").iter(size):
                yield pick(table, columns)

    # not of the whole folder, which may be the current one, where the results go
    version = partial(file_versions, [path / "state.json", *files])
    return Table(column_names(schema), vector_columns(schema), read, lambda _: len(saved), version=version)


def check_arrow_end(path: Path) -> None:
    """Raises a ValueError for an Arrow stream without its end mark: cut between two batches, it looks whole."""
    with reading(path), path.open("rb") as file:
        is_stream = file.read(6) != b"ARROW1"  # a file with a footer cannot be opened without it
        file.seek(max(0, path.stat().st_size - len(_END_OF_STREAM)))
        if is_stream and file.read() != _END_OF_STREAM:
            raise EmbInvError(f"{path}: corrupt, truncated or no .arrow file: the mark at its end is missing")


@contextmanager
def _arrow(path: Path) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    """The schema and the batches of an Arrow file, mapped into memory."""
    with reading(path), pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            yield file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            yield stream.schema, _whole_stream(stream, source)


def _whole_stream(stream: pa.RecordBatchReader, source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    yield from stream
    if source.tell() != source.size():
        raise pa.ArrowInvalid("the stream ends before the file does")


def _check_parquet(path: Path, file: pq.ParquetFile) -> None:
    """Refuses columns of which a row holds more numbers than a vector can: their encoding may take no space."""
    for group in range(file.metadata.num_row_groups):
        part = file.metadata.row_group(group)
        for index in range(part.num_columns):
            if part.column(index).num_values > WIDEST * max(part.num_rows, 1):
                raise EmbInvError(f"{path}: a column holds more than {WIDEST:,} values a row, the most that is read")


def column_names(schema: pa.Schema) -> list[str]:
    """The names of all columns, those within structs as dotted paths; the structs themselves are left out."""
    return [name for field in schema for name, _ in _leaves(field, "")]


def _leaves(field: pa.Field, above: str) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_struct(field.type):
        for inner in field.type:
            yield from _leaves(inner, f"{above}{field.name}.")
    else:
        yield above + field.name, field.type


def vector_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold lists of numbers, or texts or bytes under a usual name."""
    return [
        name
        for field in schema
        for name, kind in _leaves(field, "")
        if holds_number_lists(kind) or (name.lower().split(".")[-1] in VECTOR_NAMES and _holds_texts(kind))
    ]


def _holds_texts(kind: pa.DataType) -> bool:
    """Whether a column's values are texts or bytes, in whatever way Arrow keeps them."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_text(kind) for is_text in _TEXTS)


def top_column(schema: pa.Schema, column: str) -> str:
    """The column of the file that holds a dotted path; its own name may hold dots, too."""
    top = next(name for name in schema.names if column == name or column.startswith(f"{name}."))
    if schema.names.count(top) > 1:
        raise pa.ArrowInvalid(f"several columns are named {top!r}")
    return top


def pick(batch: pa.RecordBatch | pa.Table, columns: list[str]) -> dict[str, Any]:
    """The Arrow arrays of columns, also of those within structs."""
    picked = {}
    for column in columns:
        top = top_column(batch.schema, column)
        array = batch[top]
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        inner = column[len(top) + 1 :]
        while inner:
            name = next(f.name for f in array.type if inner == f.name or inner.startswith(f"{f.name}."))
            array, inner = pc.struct_field(array, name), inner[len(name) + 1 :]
        picked[column] = array
    return picked
