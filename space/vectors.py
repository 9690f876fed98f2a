"""Vectors that a visitor pastes or uploads: JSON, npy, csv or parquet. Bad ones give one readable line."""

import io
import json
from pathlib import Path

import numpy as np
import torch

MAX_BYTES = 20_000_000
KINDS = (".json", ".jsonl", ".npy", ".csv", ".parquet")


def parse_pasted(text: str, dim: int) -> torch.Tensor:
    """(N, D) of a JSON list of numbers, or a list of such lists; commas or spaces alone will do, too.

    Raises:
        ValueError: in words for a visitor.
    """
    text = text.strip()
    if not text:
        raise ValueError("Paste a vector, or upload a file.")
    try:
        return check(json.loads(text), dim)
    except json.JSONDecodeError:
        pass
    try:
        return check([float(part) for part in text.strip("[]").replace(",", " ").split()], dim)
    except ValueError as error:
        if "could not convert" in str(error):
            raise ValueError(
                "This is no vector: numbers separated by commas are wanted, as in [0.01, -0.2, …]."
            ) from None
        raise


def parse_file(path: str, dim: int) -> torch.Tensor:
    """(N, D) of an uploaded file.

    Raises:
        ValueError: in words for a visitor.
    """
    file = Path(path)
    if file.suffix.lower() not in KINDS:
        raise ValueError(f"{file.name}: a file of the kinds {', '.join(KINDS)} is wanted.")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{file.name} has more than {MAX_BYTES // 1_000_000} MB; cut it to the vectors you want to read."
        )
    try:
        rows = _READERS[file.suffix.lower()](file)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{file.name} cannot be read as {file.suffix[1:]}: {reason}") from None
    return check(rows, dim, file.name)


def check(rows, dim: int, name: str = "The vector") -> torch.Tensor:
    """Rows as (N, D) float32, or a ValueError that says what is wrong with them."""
    try:
        array = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError):
        raise ValueError(f"{name}: every row must hold the same number of plain numbers.") from None
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: one vector, or rows of vectors, are wanted; this has the shape {array.shape}.")
    if array.shape[1] != dim:
        raise ValueError(f"{name} has {array.shape[1]} numbers; this model reads vectors of {dim}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite numbers.")
    if not np.abs(array).sum(axis=1).all():
        raise ValueError(f"{name} is all zeros, which points nowhere.")
    return torch.nn.functional.normalize(torch.from_numpy(array.copy()), dim=-1)


def _parquet(file: Path):
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    lists = [name for name in table.column_names if "list" in str(table.schema.field(name).type)]
    if not lists:
        raise ValueError("it has no column of lists of numbers")
    return table["embedding" if "embedding" in lists else lists[0]].to_pylist()


def _json_lines(file: Path):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [row["embedding"] if isinstance(row, dict) else row for row in rows]


_READERS = {
    ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
    ".jsonl": _json_lines,
    ".npy": lambda file: np.load(io.BytesIO(file.read_bytes()), allow_pickle=False),
    ".csv": lambda file: np.loadtxt(file, delimiter=",", ndmin=2),
    ".parquet": _parquet,
}
