"""Lines, JSON rows and parquet batches of files, with damage named in one line.

The bounds on what a file from a stranger may cost stand here: a few kilobytes of gzip can hold gigabytes.
"""

import codecs
import errno
import gzip
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors_embinv import EmbInvError

OPENERS: dict[str, Callable[..., TextIO]] = {".gz": gzip.open, ".xz": lzma.open}
PACKABLE = (".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
PARQUET_ROWS = 4096
# Characters of the longest line, csv cell or JSON value, and of a run of blank lines; and the lines of such a run.
LONGEST, BLANK_LINES = 16_000_000, 100_000
# Numbers of the widest vector.
WIDEST = 65_536
# Numbers that are read at a time (64 MB in float32), however many rows a batch may have.
NUMBERS_AT_A_TIME = 16_000_000
# Bytes of a JSON object, which is read whole, and of its values in memory. A JSON list and JSON lines have no bound.
JSON_BYTES, JSON_MEMORY = 128_000_000, 800_000_000

# what is said of a disk or a quota that is full, and of a file that is as large as the system lets it be
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGE = (
    EOFError, OSError, RecursionError, UnicodeDecodeError, lzma.LZMAError, pa.ArrowException, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class FullDiskError(OSError):
    """The disk takes no more of a file, which the message names."""


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, even if a folder on the way, as in `new/../a`, is yet to come."""
    one, other = one.resolve(), other.resolve()
    return one.exists() and other.exists() and one.samefile(other)


def file_kind(path: Path) -> str:
    """The suffix in lower case, without compression: `.txt` for `a.txt.xz`. Only text files may be compressed."""
    plain = Path(path.stem).suffix.lower()
    return plain if path.suffix.lower() in OPENERS and plain in PACKABLE else path.suffix.lower()


def opener_of(path: Path) -> Callable[..., Any]:
    """What opens a file by its suffix, compressed or not."""
    return OPENERS.get(path.suffix.lower(), open)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what libraries raise for a damaged file into a ValueError of one line that names it."""
    try:
        yield
    except MemoryError as error:
        raise EmbInvError(f"{path}: needs more memory than there is; split the file") from error
    except _DAMAGE as error:
        kind = file_kind(path)
        what = f"{kind} file: {one_line(error)}"
        if isinstance(error, UnicodeDecodeError) and kind in PACKABLE:
            what = f"text in UTF-8; {_to_utf8(error.object)}"
        raise EmbInvError(f"{path}: corrupt, truncated or no {what}") from error


def _to_utf8(begin: bytes) -> str:
    """How to make UTF-8 of a text file that begins so."""
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 becomes UTF-8 by `iconv -f UTF-16 -t UTF-8`"
    return "what a spreadsheet on Windows wrote becomes UTF-8 by `iconv -f WINDOWS-1252 -t UTF-8`"


def one_line(error: object, limit: int = 200) -> str:
    """A message without line breaks and control characters, cut to `limit` characters."""
    text = " ".join("".join(character if character.isprintable() else " " for character in str(error)).split())
    text = text or type(error).__name__
    text = f"unknown {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def short_names(names: Sequence[str]) -> str:
    """Names from a file, for a message: printable, each cut to 40 characters, at most 20 of them."""
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in (one_line(name) for name in names[:20])]
    return ", ".join(shown + [f"and {len(names) - 20} more"] * (len(names) > 20)) or "none"


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends.

    Raises:
        EmbInvError: damaged or no UTF-8, a line of more than `LONGEST` characters, or a run of blank lines with as
            many or of more than `BLANK_LINES`.
    """
    blank, run = 0, 0
    with reading(path), opener_of(path)(path, "rt", encoding="utf-8-sig", newline="") as file:
        while line := file.readline(LONGEST + 1):
            blank, run = (blank + len(line), run + 1) if line.isspace() else (0, 0)
            if run > BLANK_LINES or max(len(line), blank) > LONGEST:
                what = f"blank lines, or more than {BLANK_LINES:,} of them" if blank else "one line"
                raise EmbInvError(f"{path}: holds more than {LONGEST:,} characters in {what}; that is the most it may")
            yield line


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of the lines that are not blank; errors as in `text_lines`."""
    for number, line in enumerate(text_lines(path), 1):
        if line := line.strip():
            yield number, line


def parse_json(text: str, **options: Any) -> Any:
    """`json.loads`, which for text from outside raises nothing but a ValueError of one line."""
    try:
        return json.loads(text, **options)
    except RecursionError as error:
        raise EmbInvError("nested too deeply") from error
    except ValueError as error:
        raise EmbInvError(one_line(error)) from error


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of every line of a JSON-lines file."""
    for number, line in read_lines(path):
        try:
            yield number, parse_json(line)
        except ValueError as error:
            raise EmbInvError(f"{path}: line {number} is not JSON (truncated?): {error}") from error


def json_values(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    """The named values of every line of a JSON-lines file."""
    for number, row in json_rows(path):
        if not isinstance(row, dict):
            raise EmbInvError(f"{path}: line {number} is not a JSON object")
        for column in columns:
            check_column(path, column, list(row))
        yield [row[column] for column in columns]


def check_column(where: str | Path, column: str, present: Sequence[str]) -> None:
    """Raises a ValueError unless exactly one of the `present` columns has that name."""
    if column not in present:
        raise EmbInvError(f"{where}: no column {short_names([column])!r}; present: {short_names(present)}")
    if present.count(column) > 1:
        raise EmbInvError(f"{where}: holds {present.count(column)} columns {short_names([column])!r}; rename one")


def check_text(where: str | Path, column: str, text: object) -> str:
    """The text, "" for null; half surrogate pairs, which JSON can hold and tokenizers refuse, become "?"."""
    if text is not None and not isinstance(text, str):
        raise EmbInvError(f"{where}: column {short_names([column])!r} holds {type(text).__name__}, not text")
    return (text or "").encode("utf-8", "replace").decode("utf-8")


def parquet_texts(path: Path, column: str) -> Iterator[object]:
    """The values of one column of a parquet file, in flat memory."""
    with reading(path), pq.ParquetFile(path, memory_map=True) as file:
        check_column(path, column, file.schema_arrow.names)
        for batch in file.iter_batches(PARQUET_ROWS, columns=[column]):
            yield from batch[column].to_pylist()


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Names the file that is written inside, where the disk takes no more of it.

    Raises:
        FullDiskError: the disk or a quota is full, or the file would be larger than the system allows.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise FullDiskError(f"{path} cannot be written: {os.strerror(error.errno)}") from error


def write_text(path: str | Path, text: str) -> None:
    """As `write_texts`, a single file."""
    write_texts({path: text})


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A path for the new content of a file, which takes the file's place at the end: no half is ever seen.

    Raises:
        FullDiskError: see `writing`; as after any other error, the file is as it was.
    """
    path = Path(path)
    new = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # another process may write it, too
    try:
        with writing(path):
            yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_texts(texts: Mapping[str | Path, str]) -> None:
    """Writes files, in UTF-8, each as by `replaced`.

    Args:
        texts: by path. No file is replaced before all are written.

    Raises:
        FullDiskError: see `writing`; all files are as they were.
    """
    with ExitStack() as stack:
        for path, text in texts.items():
            stack.enter_context(replaced(path)).write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """As `write_texts`, a single file of `json_text`."""
    write_text(path, json_text(content))


def json_text(content: Mapping[str, Any]) -> str:
    """JSON as people read it, with the end of its last line; NaN and infinity are errors."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
