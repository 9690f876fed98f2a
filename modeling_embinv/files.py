"""Lines, JSON rows and parquet batches of files, with damage named in one line."""

import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OPENERS = {".gz": gzip.open, ".xz": lzma.open}
PARQUET_ROWS = 4096


def file_kind(path: Path) -> str:
    """The suffix without compression: `.txt` for `a.txt.xz`. Only text files may be compressed from outside."""
    plain = Path(path.stem).suffix
    return plain if path.suffix in OPENERS and plain in (".txt", ".jsonl") else path.suffix


@contextmanager
def reading(path: Path):
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: corrupt, truncated or no {file_kind(path)} file: {reason}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank."""
    with reading(path), OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line := line.strip():
                yield number, line


def json_values(path: Path, columns: Sequence[str]) -> Iterator[list]:
    """The named values of every line of a JSON-lines file."""
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON (truncated?): {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object")
        for column in columns:
            check_column(path, column, list(row))
        yield [row[column] for column in columns]


def check_column(where: str | Path, column: str, present: Sequence[str]) -> None:
    if column not in present:
        raise ValueError(f"{where}: no column {column!r}; present: {', '.join(present) or 'none'}")


def check_text(where: str | Path, column: str, text: object) -> str:
    """The text, "" for null; half surrogate pairs, which JSON can hold and tokenizers refuse, become "?"."""
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{where}: column {column!r} holds {type(text).__name__}, not text")
    return (text or "").encode("utf-8", "replace").decode("utf-8")


def parquet_batches(path: Path, columns: list[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    with reading(path), pq.ParquetFile(path) as file:
        for column in columns:
            check_column(path, column, file.schema_arrow.names)
        yield from file.iter_batches(batch_size=batch_size, columns=columns)


def write_text(path: str | Path, text: str) -> None:
    """The whole file or, after a kill or a full disk in the middle, the one that was there before."""
    temporary = Path(path).with_name(f"{Path(path).name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict) -> None:
    """As `write_text`."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
