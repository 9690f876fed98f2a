"""Vectors that a visitor pastes or uploads, in every kind of file that `embinv invert` reads; databases apart."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pasted import pasted_rows
from torch import Tensor

from modeling_embinv.data.files import one_line
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.readers import KINDS, STORE_FILES
from modeling_embinv.stores.vectors import open_vectors
from modeling_embinv.vectors_embinv import bad_rows

__all__ = ["KINDS", "Given", "parse_file", "parse_pasted"]
MAX_BYTES = 20_000_000
MAX_CHARACTERS = 1_000_000
PASTED = "the pasted vectors"


@dataclass
class Given:
    """Vectors as they came.

    Attributes:
        source: in words for a visitor.
        rows: the numbers of the good ones. ids: theirs, where the source has some.
        vectors: (N, D), of any length.
        bad: what is wrong, of rows that hold no vector.
        taken: rows that were read, the bad ones included, of `total` in the source.
    """

    source: str
    rows: list[int]
    ids: list[str | None]
    vectors: Tensor
    bad: list[str]
    taken: int
    total: int


def parse_pasted(text: str, dim: int, most: int, encoder: str = "this encoder") -> Given:
    """The first `most` vectors of a text: what a .json or .jsonl file may hold, or see `pasted`.

    Raises:
        EmbInvError: in words for a visitor.
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise EmbInvError("Paste a vector, or upload a file.")
    if len(text) > MAX_CHARACTERS:
        raise EmbInvError(f"This has more than {MAX_CHARACTERS:,} characters; upload it as a file.")
    rows = pasted_rows(text, dim)
    if not _holds_objects(rows):
        return _checked(rows, dim, most, encoder)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pasted.json")
        file.write_text(text, encoding="utf-8")
        return _read(file, PASTED, dim, most, encoder)


def _holds_objects(rows: Any) -> bool:
    """Whether these are no numbers and lists alone, but what a reader of files makes vectors of."""
    return isinstance(rows, dict) or (isinstance(rows, list) and any(isinstance(row, dict) for row in rows))


def parse_file(path: str, name: str, dim: int, most: int, encoder: str = "this encoder") -> Given:
    """The first `most` rows of a file.

    Args:
        name: that the visitor gave it.

    Raises:
        EmbInvError: in words for a visitor.
    """
    file = Path(path)
    if not file.is_file():  # a folder may be a stranger's database
        raise EmbInvError(f"{name} is not on the server, or no longer: upload it.")
    if file.stat().st_size > MAX_BYTES:
        raise EmbInvError(f"{name} has more than {MAX_BYTES // 1_000_000} MB; cut it to the vectors you want to read.")
    if file.suffix.lower() in STORE_FILES:  # a stranger's database may hold queries that never end
        raise EmbInvError(f"{name} cannot be read as a store here; export its vectors as {', '.join(KINDS)}.")
    return _read(file, name, dim, most, encoder)


def _read(file: Path, name: str, dim: int, most: int, encoder: str) -> Given:
    """As `parse_file`, of a file that may be opened."""
    try:
        source = open_vectors(file, dim=dim, encoder=encoder)
        batch, total = next(source.batches(most)), source.count()
        if not len(batch.rows):
            raise EmbInvError(_first_are_bad(most, total) + str(source.skipped))
        bad = [f"row {row} {reason}" for row, reason in source.skipped.examples if row < most]
        taken = min(most, total)
        more = taken - len(batch.rows) - len(bad)
        bad += [f"{more} more rows hold no vector"] * (more > 0)
        ids = list(batch.ids or [None] * len(batch.rows))
        return Given(name, batch.rows.tolist(), ids, torch.tensor(batch.vectors), bad, taken, total)
    except (ValueError, OSError) as error:
        reason = one_line(str(error).replace(str(file), name).removeprefix(f"{name}: "), 400)
        if "pickle" in reason:  # the reader says how to convert it, for which it would have to be opened
            reason = "it holds pickled objects, which may run code; save the vectors as plain numbers"
        if "unknown kind of file" in reason:  # the reader lists stores, too, of which none is opened here
            reason = f"this kind of file is not known; give {', '.join(KINDS)}"
        # the page has no place for the name of a column
        told = "; keep one of them" if "several columns" in reason else ""
        reason = reason.replace("; name one with --column", told)
        reason = reason.replace("no column of vectors", "no column of vectors, which are lists of plain numbers")
        raise EmbInvError(f"{name} cannot be read as {file.suffix[1:] or 'a file of vectors'}: {reason}") from None


def _checked(rows: Any, dim: int, most: int, encoder: str) -> Given:
    """Pasted rows, or an error that says what is wrong with them."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise EmbInvError("The vector: every row must hold the same number of plain numbers.") from None
    if not array.size:
        raise EmbInvError("There are no numbers in it: give one vector, or rows of vectors.")
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise EmbInvError("The vector: one vector, or rows of vectors, are wanted.")
    if array.shape[1] != dim:
        raise EmbInvError(f"The vector has {array.shape[1]} numbers; this model reads vectors of {dim}, by {encoder}.")
    total, array = len(array), array[:most]
    taken = len(array)
    bad = bad_rows(array)
    good = [row for row in range(len(array)) if row not in bad]
    named = [f"row {row} {bad[row]}" for row in sorted(bad)]
    if not good:
        what = f"The vector {bad[0]}" if total == 1 else f"There is no usable vector: {'; '.join(named[:5])}"
        raise EmbInvError(f"{_first_are_bad(most, total)}{what}.")
    return Given(PASTED, good, [None] * len(good), torch.from_numpy(array[good]), named, taken, total)


def _first_are_bad(most: int, total: int) -> str:
    """That the rows with errors are not all rows."""
    return f"Only the first {most:,} of {total:,} rows are read here. " * (total > most)
