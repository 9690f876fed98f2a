"""Vectors in JSON lines and JSON files: rows, columns, and the answers of embeddings APIs and vector stores."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..data.files import JSON_BYTES, JSON_MEMORY, LONGEST, OPENERS, json_rows, one_line, parse_json, reading
from ..errors_embinv import EmbInvError
from .columns import VECTOR_NAMES, Table
from .values import Unreadable, is_vector

PEEK = 100
_DEPTH = 4
_CHUNK = 1 << 20


def open_json_lines(path: Path) -> Table:
    """A row a line: an object, or a bare list of numbers."""
    return rows_table(lambda: (row for _, row in json_rows(path)))


def open_json(path: Path) -> Table:
    """A list, which is read item by item; an object, which is read whole; or JSON lines under another name."""
    begin = _begin(path, _CHUNK)
    if begin.startswith("["):
        if begin[1:].lstrip()[:1] in "-0123456789":
            if _is_json_lines(_begin(path, LONGEST)):
                return open_json_lines(path)
            vector = _parse(path, _whole(path, LONGEST))
            return rows_table(lambda: iter([vector]))
        return rows_table(lambda: _items(path))
    if _is_json_lines(_begin(path, LONGEST)):
        return open_json_lines(path)
    content = _parse(path, _whole(path, JSON_BYTES))
    if not isinstance(content, dict):
        raise EmbInvError(f"{path}: holds {type(content).__name__}, no list and no object with vectors")
    rows = _list_of_rows(content)
    if rows is None and (table := _columns_table(path, content)).vector_columns:
        return table
    rows = rows or _mapped_rows(content) or [content]
    return rows_table(lambda: iter(rows))


def paths_of(row: dict[str, Any], above: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
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


def _list_of_rows(content: dict[str, Any]) -> list[Any] | None:
    """The rows of an API's answer: the first list of objects that have vectors."""
    lists = (value for _, value in _containers(content) if isinstance(value, list) and value)
    return next((rows for rows in lists if isinstance(rows[0], dict) and _has_vector(rows[0])), None)


def _mapped_rows(content: dict[str, Any]) -> list[Any] | None:
    """The rows of an object whose keys are ids: of objects with vectors, nearest first, or of bare vectors."""
    mappings = [content, *(value for _, value in _containers(content) if isinstance(value, dict))]
    for depth in range(1, _DEPTH):
        for mapping in mappings:
            rows = list(mapping.values())
            if not all(isinstance(row, dict) for row in rows):
                continue
            # most of them: some rows may lack theirs, and a count beside the rows is a list of numbers, too
            if 2 * sum(_has_vector(row, depth) for row in rows) > len(rows):
                return [{"id": key} | row for key, row in mapping.items()]
    for mapping in mappings:
        rows = list(mapping.values())
        are_vectors = rows and all(isinstance(row, list) and is_vector(row) for row in rows)
        are_columns = any(key.lower() in VECTOR_NAMES for key in mapping)
        if are_vectors and not are_columns and len(set(map(len, rows))) == 1:
            return [{"id": key, "embedding": row} for key, row in mapping.items()]
    return None


def _has_vector(row: dict[str, Any], depth: int = _DEPTH) -> bool:
    return any(
        is_vector(value) or (isinstance(value, str) and name.split(".")[-1].lower() in VECTOR_NAMES)
        for name, value in paths_of(row, depth=depth)
    )


def _containers(content: dict[str, Any], depth: int = 3) -> Iterator[tuple[str, Any]]:
    """The lists and objects within an object, those above before those below."""
    inner = [(name, value) for name, value in content.items() if isinstance(value, dict | list)]
    yield from inner
    if depth > 1:
        for _, value in inner:
            if isinstance(value, dict):
                yield from _containers(value, depth - 1)


def _columns_table(path: Path, content: dict[str, Any]) -> Table:
    """Columns beside each other, as Chroma's `collection.get` gives them and pandas' `to_json`."""
    columns = {}
    for name, value in _containers(content):
        if isinstance(value, dict) and value and all(key.isdigit() for key in value):
            value = list(value.values())
        if isinstance(value, list):
            columns[name] = value
    vectors = [
        name
        for name, values in columns.items()
        if any(is_vector(value) and isinstance(value, list) for value in values[:PEEK])
        or (name.lower() in VECTOR_NAMES and any(isinstance(value, str) for value in values[:PEEK]))
    ]

    def read(names: list[str], size: int) -> Iterator[dict[str, Any]]:
        rows = len(columns[names[0]])
        for name in names:
            if len(columns[name]) != rows:
                raise EmbInvError(f"{path}: {len(columns[name])} {one_line(name)} for {rows} vectors")
        for start in range(0, rows, size):
            yield {name: columns[name][start : start + size] for name in names}

    return Table(list(columns), vectors, read, lambda name: len(columns[name]))


# Reading


def _open(path: Path) -> IO[str]:
    opener: Any = OPENERS.get(path.suffix, open)
    return opener(path, "rt", encoding="utf-8-sig")


def _begin(path: Path, size: int) -> str:
    """The first characters of a file, at most `size`, from its first that is not blank."""
    with reading(path), _open(path) as file:
        text = file.read(size).lstrip()
    if not text:
        raise EmbInvError(f"{path}: holds no vectors")
    return text


def _is_json_lines(begin: str) -> bool:
    """Whether the first line is an object or a list of its own and another follows."""
    line, _, rest = begin.partition("\n")
    try:
        return bool(rest.strip()) and isinstance(parse_json(line), dict | list)
    except ValueError:
        return False


def _whole(path: Path, limit: int) -> str:
    with reading(path), _open(path) as file:
        text = file.read(limit + 1)
    # Every comma parts two values and every brace opens one; these are CPython's sizes of them.
    memory = 32 * text.count(",") + 72 * (text.count("[") + text.count("{")) + 32 * text.count('"')
    if len(text) > limit or memory > JSON_MEMORY:
        raise EmbInvError(
            f"{path}: more than {limit // 1_000_000} MB of JSON in one object, or too many values; "
            "write a list of rows, or JSON lines, which are read in flat memory"
        )
    return text


def _parse(path: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise EmbInvError(f"{path}: is not JSON (truncated?): {error}") from error


def _items(path: Path) -> Iterator[Any]:
    """The items of a JSON list, decoded one by one; each has at most `LONGEST` characters."""
    decoder = json.JSONDecoder()
    with reading(path), _open(path) as file:
        text, position = file.read(_CHUNK).lstrip()[1:], 0
        while True:
            text, position = _skip_blank(file, text, position)
            if text[position : position + 1] == "]":
                if (text[position + 1 :] + file.read(_CHUNK)).strip():
                    raise EmbInvError(f"{path}: is not JSON: something follows the list's end")
                return
            while True:
                try:
                    item, end = decoder.raw_decode(text, position)
                    break
                except RecursionError as error:
                    raise EmbInvError(f"{path}: nested too deeply") from error
                except ValueError as error:
                    more = file.read(max(_CHUNK, len(text)))
                    text, position = text[position:] + more, 0
                    if not more or len(text) > LONGEST + 2 * _CHUNK:
                        raise EmbInvError(f"{path}: is not JSON (truncated?): {one_line(error)}") from error
            yield item
            text, position = _skip_blank(file, text, end)
            if text[position : position + 1] == ",":
                position += 1
            elif text[position : position + 1] != "]":
                raise EmbInvError(f"{path}: is not JSON (truncated?): no comma and no end behind an item")


def _skip_blank(file: IO[str], text: str, position: int) -> tuple[str, int]:
    """The text from `position` on without blanks before it, and 0; reads on where it is all blank."""
    blank = 0
    while not (rest := text[position : position + 64].lstrip()):
        position += 64
        if position >= len(text):
            blank += len(text)
            text, position = file.read(_CHUNK), 0
            if not text or blank > LONGEST:
                return "", 0
    return text, position + len(text[position : position + 64]) - len(rest)
