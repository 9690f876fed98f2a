"""Vectors in bytes and base64: the plain numbers, or what `np.save` writes."""

import base64
import binascii
import io
import pickletools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.files import WIDEST
from ..errors_embinv import EmbInvError

# How bytes hold numbers, the likeliest first, and what the numbers of vectors are below.
_KINDS = {"<f4": 1e6, "<f8": 1e6, "<f2": 128}
# values that decide on it, and bytes that are enough to tell: two numbers of 32 bits would pass for four of 16
_PEEK, _TELLING = 100, 32
_PICKLE = "holds a pickle, which is not loaded"


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """float32 numbers in this machine's byte order; what is too large for them becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def are_floats(data: bytes, kind: str = "<f4") -> bool:
    """Whether bytes look like the numbers of a vector: a random pattern of bits has absurd exponents.

    Args:
        data: of at least four numbers.
        kind: NumPy's name of the numbers: <f4, <f8 or <f2, little endian.
    """
    size = int(kind[2:])
    if len(data) < 4 * size or len(data) % size:
        return False
    with np.errstate(invalid="ignore"):
        numbers = np.abs(np.frombuffer(data, kind))
        is_tiny = (numbers > 0) & (numbers < 1e-12)
        # a few are: all-MiniLM-L6-v2 leaves one of its 384 numbers near 1e-33
        return bool((numbers < _KINDS[kind]).all() and is_tiny.mean() <= 0.1)


def hold_vectors(values: Sequence[bytes]) -> bool:
    """Whether some of the values of a column look like vectors, whatever its name."""
    if any(_is_saved(data) or are_floats(data) or are_floats(data, "<f8") for data in values):
        return True
    # so few bits tell little of one value: keys of random bytes pass now and then
    halves = [len(data) >= _TELLING and are_floats(data, "<f2") for data in values]
    return 2 * sum(halves) > len(halves)


def kind_of(values: Sequence[Any]) -> str | None:
    """How most of the first values that are bytes, or base64, hold their numbers; None where none is."""
    packed = [data for value in values[:_PEEK] if (data := _packed(value)) and not _names_its_numbers(data)]
    telling = [data for data in packed if len(data) >= _TELLING]
    votes = {kind: sum(are_floats(data, kind) for data in telling) for kind in _KINDS}
    likeliest = max(votes, key=lambda kind: votes[kind])
    return None if not packed else likeliest if 2 * votes[likeliest] > len(packed) else "<f4"


def _packed(value: Any) -> bytes | None:
    if isinstance(value, str):
        text = value.strip()
        return from_base64(text) if may_be_base64(text) else None
    return value if isinstance(value, bytes) else None


def may_be_base64(text: str) -> bool:
    """Whether a text has nothing that base64 cannot have."""
    return text[:1] not in ("", "[", "{", "(") and " " not in text and "," not in text


def from_base64(text: str) -> bytes | None:
    """At least two numbers, as embeddings APIs send them."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if len(data) >= 8 else None


def of_bytes(data: bytes, kind: str) -> np.ndarray | str:
    """The (D,) float32 vector that bytes are, or why they are none.

    Args:
        data: numbers, little endian, as databases without a type of vectors keep them; or an array of `np.save`.
        kind: NumPy's name of the numbers.

    Raises:
        EmbInvError: more than `WIDEST` numbers.
    """
    if _is_saved(data):
        return _of_saved(data)
    if _is_pickle(data):
        return _PICKLE
    size = int(kind[2:])
    if not data or len(data) % size:
        return f"holds {len(data):,} bytes, which are no float{8 * size} numbers"
    _check_width(len(data) // size)
    return as_float32(np.frombuffer(data, dtype=kind))


def _check_width(width: int) -> None:
    if width > WIDEST:
        raise EmbInvError(f"a row of {width:,} numbers; at most {WIDEST:,} are read")


def _names_its_numbers(data: bytes) -> bool:
    return _is_saved(data) or _is_pickle(data)


def _is_saved(data: bytes) -> bool:
    return data.startswith(np.lib.format.MAGIC_PREFIX)


def _of_saved(data: bytes) -> np.ndarray | str:
    """The vector that `np.save` wrote."""
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy evaluates the header's text, and raises what Python does for a bad one
        return _PICKLE if "allow_pickle" in str(error) else "holds a damaged array of numpy's"
    if array.dtype.kind not in "fiu":
        return f"holds an array of {array.dtype}, not of numbers"
    if array.size != max(array.shape, default=0):
        return f"holds an array of shape {array.shape}, not one vector"
    _check_width(array.size)
    return as_float32(array.ravel())


def _is_pickle(data: bytes) -> bool:
    """Whether bytes are a pickle from its beginning to its end: numbers may begin with the same two bytes."""
    if data[:1] != b"\x80" or data[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05") or data[-1:] != b".":
        return False
    try:
        return any(position == len(data) - 1 for *_, position in pickletools.genops(data))
    except Exception:  # whatever it stumbles over in bytes that are none
        return False
