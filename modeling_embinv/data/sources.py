"""Raw text from files and from the Hub, as documents, lazily.

A document is `(key, text)`, or `(key, text, vector)` if its embedding is known already.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from .files import check_column, check_text, file_kind, json_values, one_line, parquet_texts, read_lines

TEXT_KINDS = (".txt", ".jsonl", ".parquet")


class Document(NamedTuple):
    """One text. `key` decides its split (the readers below use the text itself); `vector` is (D,) or None."""

    key: str
    text: str
    vector: np.ndarray | None = None


class HubPart(NamedTuple):
    """One slice of a Hub data set: its name, its configuration (often a language), how many rows; None = all."""

    name: str
    config: str | None = None
    rows: int | None = None


def read_texts(
    paths: str | Path | Iterable[str | Path], column: str = "text", languages: Sequence[str] | None = None
) -> Iterator[Document]:
    """Documents of local files: `.txt` (one a line) and `.jsonl`, both also as `.gz` and `.xz`, and `.parquet`.

    Args:
        paths: files, or directories of which all supported files are read, in sorted order. Blank texts are skipped.
        column: where JSON lines and parquet hold the text.
        languages: of a directory, only the sub-folders of these names (directly below it).

    Raises:
        EmbInvError: nothing found, an empty or damaged file, a missing column; the message names the file.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    files = [file for path in paths for file in _text_files(Path(path), languages)]
    return (document for file in files for document in _read_file(file, column))


def texts_digest(paths: Iterable[str | Path], column: str) -> str:
    """A short name of what `read_texts` would give, by the files' paths, sizes and times of change.

    Raises:
        EmbInvError: nothing found.
    """
    files = [file for path in paths for file in _text_files(Path(path), None)]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.blake2b(repr((column, stats)).encode(), digest_size=8).hexdigest()


def _text_files(path: Path, languages: Sequence[str] | None) -> list[Path]:
    if path.is_file():
        if file_kind(path) not in TEXT_KINDS:
            raise EmbInvError(f"{path}: unknown kind of file; known: {', '.join(TEXT_KINDS)}, .txt.xz, .jsonl.gz …")
        return [path]
    if not path.is_dir():
        raise EmbInvError(f"{path}: no such file or directory")
    folders = [path] if languages is None else [path / language for language in languages]
    for folder in folders:
        if not folder.is_dir():
            present = sorted(child.name for child in path.iterdir() if child.is_dir())
            raise EmbInvError(f"{path}: no folder {folder.name!r}; present: {', '.join(present) or 'none'}")
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    files = [file for file in files if file_kind(file) in TEXT_KINDS]
    if not files:
        raise EmbInvError(f"{path}: holds no {', '.join(TEXT_KINDS)} file")
    return files


def _read_file(path: Path, column: str) -> Iterator[Document]:
    texts: Iterator[object]
    if file_kind(path) == ".txt":
        texts = (line for _, line in read_lines(path))
    elif file_kind(path) == ".jsonl":
        texts = (value for (value,) in json_values(path, [column]))
    else:
        texts = parquet_texts(path, column)
    empty = True
    for value in texts:
        if text := check_text(path, column, value).strip():
            empty = False
            yield Document(text, text)
    if empty:
        raise EmbInvError(f"{path}: holds no text")


def parse_hub_spec(spec: str) -> list[HubPart]:
    """Reads `name`, `name:config`, `name:config:count` or `name:config=count,config=count`.

    `allenai/c4:en=100000,de=50000` gives `[("allenai/c4", "en", 100000), ("allenai/c4", "de", 50000)]`; an empty
    config (`name::1000`) stands for the data set's default.

    Raises:
        EmbInvError: another form, or a count that is not a positive whole number.
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
    raise EmbInvError(f"{spec!r} is not name, name:config, name:config:count or name:config=count,config=count")


def _count(spec: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise EmbInvError(f"{spec!r}: {text!r} is not a count; write a positive whole number of rows")
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
        EmbInvError: unknown data set, configuration, split or column, or no connection.
    """
    from datasets import load_dataset

    where = name if config is None else f"{name} ({config})"
    try:
        rows = load_dataset(name, config, split=split, streaming=True)
        for row in islice(rows, count):
            check_column(where, column, list(row))
            if text := check_text(where, column, row[column]).strip():
                yield Document(text, text)
    except EmbInvError:
        raise
    except Exception as error:  # unknown configurations, damaged files and no connection are errors of every kind
        raise EmbInvError(f"{where}: cannot be read: {one_line(error, 300)}") from error


SPLITS = ("train", "validation", "test")


def split_of(key: str, validation_share: float, test_share: float = 0.0) -> str:
    """The split of a document: a function of its key alone, so neither order nor other documents matter.

    Raises:
        EmbInvError: for shares of less than nothing, or of more than all documents together.
    """
    if not (validation_share >= 0 and test_share >= 0 and validation_share + test_share <= 1):  # nor NaN
        raise EmbInvError(
            "validation_share and test_share must be at least 0, and at most 1 together, "
            f"got {validation_share} and {test_share}."
        )
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    fraction = int.from_bytes(digest, "big") / 2**64
    if fraction < validation_share:
        return "validation"
    return "test" if fraction < validation_share + test_share else "train"
