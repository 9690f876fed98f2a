"""The values of a column as vectors: lists of numbers, their text, base64, bytes, Arrow lists and matrices."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..data.files import WIDEST, parse_json
from ..errors_embinv import EmbInvError
from ..vectors_embinv import bad_rows
from .packed import as_float32, from_base64, kind_of, may_be_base64, of_bytes

_NUMBER_OF_NUMPY = re.compile(r"np\.float\d+\(([^()]*)\)")
# How the text of a vector begins: `[0.1`, `{-1e-3`, `[np.float32(0.1`, `[nan`, `[]`.
_VECTOR_BEGINS = re.compile(
    r"(?:array\(|tensor\(|[\[{\s])+(?:np\.float\d+\()?(?:[-+]?\.?\d|\.\.\.|…|[\]}]|[-+]?(?:nan|inf|null|none)\b)", re.I
)
_ARRAY_OF_NUMPY = re.compile(r"array\((\[.*\])(?:, dtype=\w+)?\)", re.DOTALL)
# Digits behind the point below which a printed vector counts as shortened: numpy prints 8, and 4 for float16.
_FEWEST_DIGITS = 4
# what Arrow has for lists
_LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
    pa.types.is_large_list_view,
)  # fmt: skip


class Unreadable(NamedTuple):
    """Stands where a row has no value, and says why."""

    reason: str


class Parsed(NamedTuple):
    """The numbers of n rows, one after the other.

    Attributes:
        numbers: float32, sum(lengths) of them.
        lengths: (n,) int64, how many each row has; 0 where it has no vector.
        reasons: index of a row → why it has no vector.
        kind: NumPy's name of the numbers in the bytes that they were; None where they were none.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    reasons: dict[int, str]
    kind: str | None = None

    def select(self, width: int) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        """The vectors of that width, (m, width) float32; their indices (m,); and why the other rows are none."""
        fits = self.lengths == width
        vectors = self.numbers if fits.all() else self.numbers[np.repeat(fits, self.lengths)]
        vectors, indices = vectors.reshape(-1, width), np.flatnonzero(fits)
        reasons = {row: f"holds {self.lengths[row]} numbers, not {width}" for row in np.flatnonzero(~fits).tolist()}
        reasons |= self.reasons
        if bad := bad_rows(vectors):
            reasons |= {int(indices[row]): reason for row, reason in bad.items()}
            good = np.setdiff1d(np.arange(len(vectors)), list(bad))
            vectors, indices = vectors[good], indices[good]
        return vectors, indices, reasons


def parse_values(values: np.ndarray | pa.Array | pa.ChunkedArray | Sequence[Any], kind: str | None = None) -> Parsed:
    """The vectors of a column.

    Args:
        values: a matrix (n, D), an Arrow array, or n Python objects: lists or arrays of numbers, texts of them,
            the bytes of float32, float64 or float16 numbers, base64 of such, or None.
        kind: NumPy's name of the numbers in bytes; None = what most of the first ones look like.

    Raises:
        EmbInvError: a vector that its printing has shortened, or one of more than `WIDEST` numbers.
    """
    if isinstance(values, np.ndarray):
        return Parsed(as_float32(values).ravel(), np.full(len(values), values.shape[1]), {})
    if isinstance(values, pa.Array | pa.ChunkedArray):
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        if holds_number_lists(array.type):
            return _parse_arrow(array)
        values = array.to_pylist()
    rows, reasons, kind = [], {}, kind or kind_of(values)
    for index, value in enumerate(values):
        row = _numbers(value, kind or "<f4")
        if isinstance(row, str):
            reasons[index], row = row, np.empty(0, np.float32)
        rows.append(row)
    numbers = np.concatenate(rows) if rows else np.empty(0, np.float32)
    return Parsed(numbers, np.array([len(row) for row in rows], np.int64), reasons, kind)


def holds_number_lists(kind: pa.DataType) -> bool:
    """Whether an Arrow column of this type holds lists of numbers."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return any(is_list(kind) for is_list in _LISTS) and (
        pa.types.is_floating(kind.value_type)
        or pa.types.is_integer(kind.value_type)
        or pa.types.is_decimal(kind.value_type)
    )


def is_vector(value: object) -> bool:
    """Whether a JSON value, or the text of a csv cell, is a list of numbers."""
    if isinstance(value, str):
        text = value.strip()
        is_closed = "]" not in text or text[-1] in "])}"  # unlike "[2024] was a good year"
        return bool(_VECTOR_BEGINS.match(text)) and is_closed and not is_json_object(text)
    return isinstance(value, list) and bool(value) and all(type(number) in (int, float) for number in value[:8])


def is_number(text: str) -> bool:
    """Whether a text is one number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_json_object(text: str) -> bool:
    """Whether a text that begins with a brace is an object; `{0.1,0.2}` is a Postgres array."""
    return text[0] == "{" and ":" in text[:200]


def _parse_arrow(array: pa.Array) -> Parsed:
    array.validate(full=True)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    lengths[nulls] = 0
    if lengths.max(initial=0) > WIDEST:
        raise EmbInvError(f"a row of {lengths.max():,} numbers; at most {WIDEST:,} are read")
    values = array.flatten()
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    numbers = as_float32(values.to_numpy(zero_copy_only=False))
    return Parsed(numbers, lengths, dict.fromkeys(np.flatnonzero(nulls).tolist(), "is null"))


def _numbers(value: object, kind: str) -> np.ndarray | str:
    """The (D,) float32 vector that a value is, or why it is none."""
    if value is None:
        return "is null"
    if isinstance(value, Unreadable):
        return value.reason
    if isinstance(value, str):
        return _of_text(value, kind)
    if isinstance(value, np.ndarray):
        return as_float32(value)
    if isinstance(value, bytes):
        return of_bytes(value, kind)
    if isinstance(value, tuple):  # of columns that hold a number each
        return _of_words(value)
    if not isinstance(value, list):
        return f"holds {type(value).__name__}, not a list of numbers"
    if not value:
        return "is an empty list"
    kinds = set(map(type, value))
    if kinds <= {int, float}:
        return _array(value)
    return "holds a null among its numbers" if kinds <= {int, float, type(None)} else "holds no list of plain numbers"


def _of_text(text: str, kind: str) -> np.ndarray | str:
    text = text.strip()
    if not text:
        return "is empty"
    if _is_shortened(text):
        raise EmbInvError(
            "its vectors were shortened when they were printed ('...' or torch's four digits), and the numbers left "
            "out cannot be had back; write them with np.save, or json.dumps(vector.tolist()) in a cell"
        )
    if array := _ARRAY_OF_NUMPY.fullmatch(text):
        text = array[1]
    if may_be_base64(text):
        data = from_base64(text)
        if data is None or len(data) % int(kind[2:]):
            return "holds text that is no list of numbers, nor base64 of such"
        return of_bytes(data, kind)
    if is_json_object(text):
        return "holds an object or a sparse vector, not a list of numbers"
    inner = _NUMBER_OF_NUMPY.sub(r"\1", text).strip("[]{}()")
    if "," in inner:
        try:
            return _numbers(parse_json(f"[{inner}]"), kind)
        except ValueError:
            return _of_words(inner.split(","))
    words = inner.split()
    row = _of_words(words)
    if isinstance(row, np.ndarray) and len(words) >= 8 and max(map(_digits, words)) < _FEWEST_DIGITS and "." in inner:
        raise EmbInvError(
            f"its vectors were printed with fewer than {_FEWEST_DIGITS} digits behind the point (numpy's precision); "
            "write them with np.save, or json.dumps(vector.tolist()) in a cell"
        )
    return row


def _is_shortened(text: str) -> bool:
    """Whether it is a vector without some of its numbers; other texts may have dots of their own."""
    if text.startswith("tensor("):
        return True
    words = text.replace("...", "…").replace("…", " … ").replace(",", " ").split()
    numbers = [word for word in words if word != "…"]
    is_cut = len(numbers) < len(words)
    return is_cut and (is_vector(text) or (bool(numbers) and isinstance(_of_words(numbers), np.ndarray)))


def _digits(word: str) -> int:
    """Digits behind the point."""
    return len(word.lower().partition("e")[0].partition(".")[2])


def _of_words(words: Sequence[Any]) -> np.ndarray | str:
    if any(word is None or (isinstance(word, str) and not word.strip()) for word in words):
        return "holds an empty number"
    try:
        return _array([float(word) for word in words])
    except (ValueError, TypeError, OverflowError):
        return "holds text that is no list of numbers"


def _array(values: list[Any]) -> np.ndarray | str:
    if len(values) > WIDEST:
        raise EmbInvError(f"a row of {len(values):,} numbers; at most {WIDEST:,} are read")
    try:
        return as_float32(np.array(values, dtype=np.float64))
    except OverflowError:
        return "holds NaN or infinity"
