"""Frames of numbers as pandas' `to_json` writes them: a column for each number of the vectors."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .columns import ID_NAMES, PEEK, Table, numbered_run
from .objects import rows_table

# numbers of a vector at least: long runs are looked for first
_LENGTHS = (8, 1)
Rows = list[dict[str, Any]]


def frame_table(path: Path, content: dict[str, Any]) -> Table | None:
    """The frame that an object is, in any orient that is an object; None if it is none.

    By rows and by columns, an object of objects may be both: then there are two columns of vectors, `orient=index` and
    `orient=columns`, of which the width may tell which one is meant.

    Raises:
        EmbInvError: there are several runs of numbered columns.
    """
    if (rows := _listed_rows(content)) is not None:
        return rows_table(rows.__iter__)
    if not _is_frame(content):
        return None
    by_index, by_columns = _with_ids(content.items()), _with_ids(_transposed(content).items())
    readings = {"orient=index": by_index, "orient=columns": by_columns}
    runs = {name: numbered_run(path, list(rows[0])) if rows else [] for name, rows in readings.items()}
    for fewest in _LENGTHS:
        found = {name: rows for name, rows in readings.items() if _is_wide(rows, runs[name], fewest)}
        if found:
            return _of_two(found, runs) if len(found) > 1 else rows_table(next(iter(found.values())).__iter__)
    return None


def _listed_rows(content: dict[str, Any]) -> Rows | None:
    """The rows of the orients `split` and `table`."""
    data = content.get("data")
    if not isinstance(data, list):
        return None
    if content.keys() == {"schema", "data"} and all(isinstance(row, dict) for row in data):
        return data
    names, index = content.get("columns"), content.get("index")
    if content.keys() != {"columns", "index", "data"} or not isinstance(names, list) or not isinstance(index, list):
        return None
    if len(index) != len(data) or not all(isinstance(row, list) and len(row) == len(names) for row in data):
        return None
    rows = (dict(zip(map(str, names), row, strict=True)) for row in data)
    return _with_ids(zip(map(str, index), rows, strict=True))


def _is_frame(content: dict[str, Any]) -> bool:
    """Whether it is an object of objects, all with the same keys, which hold no lists."""
    rows = list(content.values())
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return False
    return not any(isinstance(value, list | dict) for row in rows for value in row.values())


def _transposed(content: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(content.values()))
    return {key: {name: column[key] for name, column in content.items()} for key in first}


def _with_ids(keyed: Iterable[tuple[str, dict[str, Any]]]) -> Rows:
    """The objects, all with the same keys; with the key of each as its id, unless they have ids of their own."""
    pairs = list(keyed)
    has_ids = any(name.lower() in ID_NAMES for _, row in pairs[:1] for name in row)
    return [row if has_ids else {"id": key} | row for key, row in pairs]


def _is_wide(rows: Rows, run: list[str], fewest: int) -> bool:
    """Whether the rows have a run of numbered columns, and all of it are numbers."""
    are_numbers = all(isinstance(row[name], int | float | None) for row in rows[:PEEK] for name in run)
    return len(run) >= fewest and are_numbers


def _of_two(readings: dict[str, Rows], runs: dict[str, list[str]]) -> Table:
    """A column of vectors for each reading, and beside it `READING.NAME` for each of its other columns."""
    others = {
        reading: [f"{reading}.{name}" for name in rows[0] if name not in runs[reading]]
        for reading, rows in readings.items()
    }

    def value(row: dict[str, Any], column: str) -> Any:
        reading, _, name = column.partition(".")
        return row[name] if name else [row[number] for number in runs[reading]]

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        rows = readings[columns[0].partition(".")[0]]
        for start in range(0, len(rows), size):
            yield {column: [value(row, column) for row in rows[start : start + size]] for column in columns}

    columns = [*readings, *(name for names in others.values() for name in names)]
    return Table(columns, list(readings), read, lambda name: len(readings[name]), beside=others.__getitem__)
