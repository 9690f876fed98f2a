"""Tables whose rows are objects, as JSON has them, or bare lists of numbers."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from .columns import PEEK, VECTOR_NAMES, Table
from .values import Unreadable, is_vector

# objects within objects that are looked into
DEPTH = 4


def paths_of(row: dict[str, Any], above: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything in an object that is no object itself."""
    for name, value in row.items():
        if isinstance(value, dict) and depth > 1:
            yield from paths_of(value, f"{above}{name}.", depth - 1)
        else:
            yield above + name, value


def rows_table(rows: Callable[[], Iterator[Any]]) -> Table:
    """A table of objects or of bare lists, which `rows` gives from the first on whenever it is called."""
    first = list(islice(rows(), PEEK))
    objects = [row for row in first if isinstance(row, dict)]
    if not objects:
        names, vectors = [""], [""]
    else:
        found = [dict(paths_of(row)) for row in objects]
        names = list(dict.fromkeys(name for row in found for name in row))
        vectors = [name for name in names if _holds_vectors(name, [row.get(name) for row in found])]

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        source = rows()
        while batch := list(islice(source, size)):
            yield {column: [_value(row, column) for row in batch] for column in columns}

    return Table(names, vectors, read, lambda _: sum(1 for _ in rows()))


def _holds_vectors(name: str, values: list[Any]) -> bool:
    """Whether a column holds vectors; text counts only under a usual name, as base64 has no mark of its own."""
    usual = not {name.lower(), name.lower().split(".")[-1], name.lower().split(".")[0]}.isdisjoint(VECTOR_NAMES)
    present = [value for value in values if value is not None]
    if any(is_vector(value) and (usual or not isinstance(value, str)) for value in present):
        return True
    return usual and all(isinstance(value, str | list) for value in present)


def _value(row: Any, column: str) -> Any:
    if column == "":
        return row if isinstance(row, list) else Unreadable(f"is {_name(row)}, not a list of numbers")
    if not isinstance(row, dict):
        return Unreadable(f"is {_name(row)}, not a JSON object")
    if column in row:
        return row[column]
    for name, value in row.items():
        if column.startswith(f"{name}.") and isinstance(value, dict):
            return _value(value, column[len(name) + 1 :])
    return None


def _name(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), "a number")
