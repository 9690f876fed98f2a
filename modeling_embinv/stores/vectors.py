"""Vectors that were computed elsewhere, from files and stores as people have them, in flat memory.

    source = open_vectors("dump.csv", dim=384)
    source = open_vectors("chroma:./store", collection="support", text_column=True)
    for batch in source.batches(1024):
        batch.vectors, batch.ids, batch.rows
    print(source.column, source.skipped)

Formats: npy, npz, safetensors, parquet, Arrow (streams and Feather), folders that `datasets` saved, JSON lines, csv,
tsv, and JSON: lists of vectors or of rows, and the answers of embeddings APIs and of vector stores. Text may be packed
(`.gz`, `.xz`). A JSON object is read whole, at most `files.JSON_BYTES`; everything else in flat memory.

Stores, by the scheme of a URL: see `readers`. Nothing is written to a source.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import PARQUET_ROWS, check_text, is_same_file, one_line, short_names
from ..data.sources import Document
from ..data.vector_checks import width_message
from ..errors_embinv import EmbInvError, is_whole, shown
from .columns import PEEK, Columns, Table, choose_columns
from .copies import changed_message, file_version
from .locations import Location, locate
from .readers import open_table
from .rows import Skipped, VectorBatch
from .selection import Selection
from .values import Parsed, parse_values

logger = logging.getLogger(__name__)

# below it, a float is one whole number and no other
_EXACT = 2**53
# as pandas writes whole numbers beside a missing one
_FLOAT = re.compile(r"-?(0|[1-9]\d*)\.0")


class VectorSource:
    """An opened file or collection of vectors; see `open_vectors`.

    Attributes:
        path: what was opened, for messages; without a password.
        identity: the same for every run over this source, wherever it starts.
        collection: the store's collection or table that is read; None for a file, and where there are none.
        column: where the vectors are; "" where the file is nothing but vectors.
        id_column, text_column: where ids and texts are, or None.
        width: D, numbers of a vector.
        is_strict: whether a row without a usable vector is an error.
        selection: which of the rows `batches` gives.
        skipped: the rows that `batches` has left out, since it was called last.
    """

    def __init__(self, location: Location, table: Table, columns: Columns, strict: bool) -> None:
        self.path, self._table, self._columns, self.is_strict = location.shown, table, columns, strict
        self.identity = location.identity + (f"#{table.collection}" if table.collection is not None else "")
        self._place = Path(location.path)
        self._version = table.version or (lambda: file_version(self._place))
        self.collection = table.collection
        self.column = _span(columns.vectors)
        self.id_column, self.text_column = columns.id, columns.text
        self.selection, self.skipped = Selection(), Skipped()
        self._kind: str | None = None  # of the numbers in bytes, decided once for all rows
        self._widths, self._peeked, self._has_float_ids = self._peek()
        self.width = max(self._widths, key=lambda width: self._widths[width], default=1)

    def expect_width(self, dim: int, encoder: str | None = None) -> None:
        """Reads vectors of `dim` numbers, of whatever width most rows are.

        Args:
            dim: D, numbers of a vector.
            encoder: whose vectors are expected, for the message.

        Raises:
            EmbInvError: none of the first rows has this width.
        """
        if self._widths and dim not in self._widths:
            whose = "its first rows hold " if self._peeked >= PEEK else ""  # later ones may have the width
            raise EmbInvError(f"{self.path}: {whose}{width_message(self.width, dim, encoder)}")
        self.width = dim

    def holds(self, path: Path) -> bool:
        """Whether a file is the source itself, or one that lies in its folder and may hold its vectors."""
        if not self._place.is_dir():
            return is_same_file(path, self._place)
        path = path.resolve()
        # no store keeps vectors in JSON lines: results may be written anew beside them
        return path.exists() and path.suffix.lower() != ".jsonl" and path.is_relative_to(self._place.resolve())

    def select(self, limit: int | None = None, sample: int | None = None, seed: int = 0) -> None:
        """From now on `batches` gives some of the rows alone, which keep their numbers.

        Args:
            limit: the first rows with a usable vector, at most so many.
            sample: so many of them, drawn without replacement, in the order of the file; they are held in memory.
            seed: of the sample.

        Raises:
            EmbInvError: for numbers below 1 and other types, and for both at once.
        """
        for name, most in (("limit", limit), ("sample", sample)):
            if most is not None and not is_whole(most, 1):
                raise EmbInvError(f"{name} must be a whole number of at least 1, or None, got {shown(most)}.")
        if limit is not None and sample is not None:
            raise EmbInvError("limit is of the first rows, sample of any: give one of the two.")
        self.selection = Selection(limit, sample, seed)

    def describe(self) -> str:
        """What is read, in a line."""
        parts = {"vectors": self.column, "ids": self.id_column, "texts": self.text_column}
        chosen = [f"{what} in column {short_names([name])!r}" for what, name in parts.items() if name]
        whole = [] if self._table.collection is None else [f"collection {short_names([self._table.collection])!r}"]
        width = f"vectors of {self.width} numbers" if self._widths else "its first rows hold no vector"
        return "; ".join([*whole, width, *chosen])

    def count(self) -> int:
        """Rows that are read, at most: those without a usable vector are included."""
        return self.selection.count(self._table.count(self._columns.vectors[0]))

    def batches(self, batch_size: int = 1024) -> Iterator[VectorBatch]:
        """Batch k holds the good vectors of rows k · batch_size to (k + 1) · batch_size; it is empty if all are bad.

        Of a sample, batch k holds its rows k · batch_size to (k + 1) · batch_size.

        Raises:
            EmbInvError: a damaged source, no good vector in all of it, (strict) a bad row or, behind the last batch, a
                source that has changed meanwhile.
        """
        if batch_size < 1:
            raise EmbInvError(f"batch_size must be at least 1, got {batch_size}")
        self.skipped = Skipped()
        selected = self.selection.of(self.all_batches(batch_size), batch_size)
        return selected if self.selection.limit is None else self._unchanged(selected)  # it ends before all batches do

    def _unchanged(self, batches: Iterator[VectorBatch]) -> Iterator[VectorBatch]:
        """The batches; an error behind the last one where the source has changed since the first was read."""
        version = self._version()
        yield from batches
        if self._version() != version:
            raise EmbInvError(changed_message(self.path))

    def all_batches(self, batch_size: int) -> Iterator[VectorBatch]:
        """As `batches`, of all rows, whichever are selected."""
        total = 0
        for batch in self._unchanged(_windows(self._pieces(batch_size), batch_size)):
            total += len(batch.rows)
            yield batch
        if not total:
            raise EmbInvError(f"{self.path}: {self.skipped if self.skipped.count else 'holds no vectors'}")

    def _pieces(self, size: int) -> Iterator[tuple[int, VectorBatch]]:
        """(rows read so far, the good ones of the last rows); the reader's own batches have any size."""
        first, limit = 0, self.selection.limit
        for count, parsed, ids, texts in self._read(size):
            vectors, indices, reasons = parsed.select(self.width)
            if limit is not None:  # nobody asked for the bad rows behind it
                reasons, limit = _before_limit(reasons, indices, limit), max(0, limit - len(indices))
            for index in sorted(reasons):
                if self.is_strict:
                    raise EmbInvError(f"{self.path}: row {first + index} {reasons[index]}")
                self.skipped.add(first + index, reasons[index])
            yield (
                first + count,
                VectorBatch(
                    vectors,
                    first + indices,
                    None if ids is None else [self._id(ids[index]) for index in indices],
                    None if texts is None else [self._text(texts[index]) for index in indices],
                ),
            )
            first += count

    def _read(self, size: int) -> Iterator[tuple[int, Parsed, list[Any] | None, list[Any] | None]]:
        """(number of rows, their vectors, ids, texts)."""
        names, id_column, text_column = self._columns
        wanted = list(dict.fromkeys([*names, *(name for name in (id_column, text_column) if name is not None)]))
        for batch in self._table.read(wanted, size):
            values = batch[names[0]]
            if len(names) > 1:
                values = list(zip(*(_listed(batch[name]) for name in names), strict=True))
            try:
                parsed = parse_values(values, self._kind)
                ids, texts = (None if name is None else _listed(batch[name]) for name in (id_column, text_column))
            except (ValueError, UnicodeDecodeError) as error:
                raise EmbInvError(f"{self.path}: {one_line(error, 400)}") from error
            self._kind = parsed.kind or self._kind
            yield len(values), parsed, ids, texts

    def _peek(self) -> tuple[dict[int, int], int, bool]:
        """Of the first rows: width → how many have it; how many there are; whether csv keeps their ids as floats."""
        found: dict[int, int] = {}
        rows, names = 0, list[Any]()
        for count, parsed, ids, _ in self._read(PEEK):
            for width in parsed.lengths[parsed.lengths > 0].tolist():
                found[width] = found.get(width, 0) + 1
            rows += count
            names += [name for name in ids or [] if isinstance(name, str)]
            if found and rows >= PEEK:
                break
        return found, rows, self._table.is_untyped and bool(names) and all(map(_FLOAT.fullmatch, names))

    def _id(self, value: Any) -> str | None:
        is_float = self._has_float_ids and isinstance(value, str) and _FLOAT.fullmatch(value)
        return _id(float(value) if is_float else value)

    def _text(self, text: Any) -> str:
        return check_text(self.path, self.text_column or "", text)


def open_vectors(
    path: str | Path | Location,
    column: str | None = None,
    id_column: str | None = None,
    text_column: str | bool = False,
    dim: int | None = None,
    strict: bool = False,
    encoder: str | None = None,
    collection: str | None = None,
    trust: bool = False,
) -> VectorSource:
    """Opens a file or a store of vectors, in any format of this module, and decides on its columns.

    Args:
        path: a file, a folder that `datasets` saved, or a store's URL, see `readers`; its options
            (`?collection=…&column=…`) count where the arguments here are not given. A `Path` is never taken as a URL.
        column: where the vectors are: a name, or a dotted path (`vector.default`) within JSON objects and structs.
            None = the usual names (embedding, embeddings, vector, vectors, values, emb), else the only column of
            vectors, among those of `dim` numbers; `VectorSource.column` says which, and so does a logged line.
        id_column: where their ids are. None = what the format calls id, where there is one. All ids become text.
        text_column: where their texts are; True = a usual name (text, content, document, …), False = not wanted.
        dim: D, the width expected; None = that of most of the first rows.
        strict: whether a row that is null, NaN, infinite, zero or of another width is an error; else it is skipped.
        encoder: whose vectors are expected, for messages.
        collection: which collection or table of a store; None = the only one.
        trust: whether pickles in a store may be loaded, which can run code; those of files never are.

    Raises:
        EmbInvError: no such file, store, collection or column, damaged, pickled, or vectors of another width than
            `dim`.
    """
    location = locate(path, collection, trust)
    table = open_table(location)
    if location.collection not in (None, table.collection):
        kind = "has no collections or tables" if table.collection is None else "is one table alone"
        raise EmbInvError(f"{location.shown} {kind}: leave {short_names([location.collection])!r} out")
    given = location.options
    if text_column is True:
        text_column = given.get("text_column", True)
    columns = choose_columns(
        location.shown, table, column or given.get("column"), id_column or given.get("id_column"), text_column, dim
    )
    source = VectorSource(location, table, columns, strict)
    if dim is not None:
        source.expect_width(dim, encoder)
    logger.info("%s: %s", source.path, source.describe())
    return source


def vector_documents(source: VectorSource) -> Iterator[Document]:
    """Texts with their vectors, in flat memory, for training on embeddings that were computed elsewhere."""
    for batch in source.batches(PARQUET_ROWS):
        for text, vector in zip(batch.texts or [], batch.vectors, strict=True):
            yield Document(text, text, vector)


def _before_limit(reasons: dict[int, str], good: np.ndarray, limit: int) -> dict[int, str]:
    """The bad rows among those that are read until there are `limit` good ones."""
    if limit > len(good):
        return reasons
    last = good[limit - 1] if limit else -1
    return {index: reason for index, reason in reasons.items() if index < last}


def _windows(pieces: Iterable[tuple[int, VectorBatch]], size: int) -> Iterator[VectorBatch]:
    """The pieces cut and joined anew, at every multiple of `size` of the file's rows."""
    pending, first, stop = [], 0, 0
    for stop, piece in pieces:
        pending.append(piece)
        while stop >= first + size:
            joined, first = VectorBatch.joined(pending), first + size
            cut = int(np.searchsorted(joined.rows, first))
            yield joined.take(slice(0, cut))
            pending = [joined.take(slice(cut, None))]
    if stop > first:
        yield VectorBatch.joined(pending)


def _listed(values: Any) -> list[Any]:
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)


def _id(value: Any) -> str | None:
    if isinstance(value, float | np.floating):  # as whole numbers are kept beside a missing one, which is NaN
        number = float(value)
        if np.isnan(number):
            return None
        if number.is_integer() and abs(number) < _EXACT:
            value = int(number)
    if value is None:
        return None
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{short_names(names[:1])} … {short_names(names[-1:])}"
