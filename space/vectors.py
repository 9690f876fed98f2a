"""Vectors that a visitor pastes or uploads, in every format that `embinv invert` reads. Bad ones give one line."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_embinv.data.files import one_line, parse_json
from modeling_embinv.stores.readers import KINDS, STORE_FILES
from modeling_embinv.stores.vectors import open_vectors
from modeling_embinv.vectors_embinv import bad_rows

__all__ = ["KINDS", "parse_file", "parse_pasted"]
MAX_BYTES = 20_000_000
MAX_CHARACTERS = 1_000_000
MAX_ROWS = 100_000  # a packed file may hold far more than its bytes say


def parse_pasted(text: str, dim: int) -> dict[int, torch.Tensor]:
    """Row → vector (D,) as it stands, of a JSON list of numbers or of such lists; commas or spaces alone will do.

    Raises:
        ValueError: in words for a visitor.
    """
    text = text.strip()
    if not text:
        raise ValueError("Paste a vector, or upload a file.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"This has more than {MAX_CHARACTERS:,} characters; upload it as a file.")
    try:
        rows = parse_json(text)
    except ValueError:
        try:
            rows = [float(part) for part in text.strip("[]").replace(",", " ").split()]
        except ValueError:
            raise ValueError(
                "This is no vector: numbers separated by commas are wanted, as in [0.01, -0.2, …]."
            ) from None
    return _check(rows, dim)


def parse_file(path: str, dim: int) -> dict[int, torch.Tensor]:
    """Row of the file → vector (D,) as it stands; rows without a usable vector are left out.

    Raises:
        ValueError: in words for a visitor.
    """
    file = Path(path)
    if file.is_file() and file.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{file.name} has more than {MAX_BYTES // 1_000_000} MB; cut it to the vectors you want to read."
        )
    if file.suffix.lower() in STORE_FILES:  # a stranger's database may hold queries that never end
        raise ValueError(f"{file.name} cannot be read as a store here; export its vectors as {', '.join(KINDS)}.")
    found: dict[int, torch.Tensor] = {}
    try:
        source = open_vectors(file, dim=dim)
        for batch in source.batches():
            found |= zip(batch.rows.tolist(), torch.tensor(batch.vectors), strict=True)
            if len(found) + source.skipped.count > MAX_ROWS:
                raise ValueError(f"it holds more than {MAX_ROWS:,} rows")
    except (ValueError, OSError) as error:
        reason = one_line(str(error).replace(str(file), file.name).removeprefix(f"{file.name}: "), 400)
        raise ValueError(f"{file.name} cannot be read as {file.suffix[1:] or 'a file of vectors'}: {reason}") from None
    return found


def _check(rows: Any, dim: int) -> dict[int, torch.Tensor]:
    """Pasted rows, or a ValueError that says what is wrong with them."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("The vector: every row must hold the same number of plain numbers.") from None
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise ValueError(f"The vector: one vector, or rows of vectors, are wanted; this has the shape {array.shape}.")
    if array.shape[1] != dim:
        raise ValueError(f"The vector has {array.shape[1]} numbers; this model reads vectors of {dim}.")
    if bad := bad_rows(array):
        row = min(bad)
        raise ValueError(f"The vector{f' in row {row}' if len(array) > 1 else ''} {bad[row]}.")
    return dict(enumerate(torch.from_numpy(array)))
