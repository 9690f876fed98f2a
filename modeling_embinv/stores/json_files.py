"""Vectors in JSON lines and JSON files: rows, columns, and the answers of embeddings APIs and vector stores."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..data.files import (
    JSON_BYTES,
    JSON_MEMORY,
    LONGEST,
    json_rows,
    one_line,
    opener_of,
    parse_json,
    reading,
    short_names,
)
from ..errors_embinv import EmbInvError
from .answers import answer_rows
from .columns import ID_NAMES, PEEK, VECTOR_NAMES, Table
from .frames import frame_table
from .objects import DEPTH, paths_of, rows_table
from .values import is_vector

_CHUNK = 1 << 20
# numbers of a vector at least: long ones are looked for first, as a box or a shape is a list of numbers, too
_LENGTHS = (8, 1)
# of the objects that something is in, the outermost first, and its own
Names = tuple[str, ...]


def open_json_lines(path: Path) -> Table:
    """A row a line: an object, or a bare list of numbers; or an answer of OpenAI's API, of any number of rows."""
    return rows_table(lambda: answer_rows(row for _, row in json_rows(path)))


def open_json(path: Path) -> Table:
    """A list, which is read item by item; an object, which is read whole; or JSON lines under another name."""
    begin = _begin(path, _CHUNK)
    if begin.startswith("["):
        if begin[1:].lstrip()[:1] in "-0123456789":
            if _is_json_lines(_begin(path, LONGEST)):
                return open_json_lines(path)
            vector = _parse(path, _whole(path, LONGEST))
            return rows_table(lambda: iter([vector]))
        return rows_table(lambda: answer_rows(_items(path)))
    if _is_json_lines(_begin(path, LONGEST)):
        return open_json_lines(path)
    content = _parse(path, _whole(path, JSON_BYTES))
    if not isinstance(content, dict):
        raise EmbInvError(f"{path}: holds {type(content).__name__}, no list and no object with vectors")
    if (table := frame_table(path, content)) is not None:
        return table
    rows = _list_of_rows(path, content)
    if rows is None and (table := _columns_table(path, content)).vector_columns:
        return table
    rows = rows or _mapped_rows(path, content) or [content]
    return rows_table(lambda: iter(rows))


def _list_of_rows(path: Path, content: dict[str, Any]) -> list[Any] | None:
    """The rows of an API's answer: the list of objects that have vectors."""
    lists = {name: value for name, value in _containers(content).items() if isinstance(value, list) and value}
    for fewest in _LENGTHS:
        found = [name for name, rows in lists.items() if isinstance(rows[0], dict) and _has_vector(rows[0], fewest)]
        if found:
            return lists[_outermost(path, "lists", found)]
    return None


def _mapped_rows(path: Path, content: dict[str, Any]) -> list[Any] | None:
    """The rows of an object whose keys are ids: of objects with vectors, nearest first, or of bare vectors."""
    inner = {name: value for name, value in _containers(content).items() if isinstance(value, dict)}
    mappings: dict[Names, dict[str, Any]] = {(): content} | inner
    for fewest in _LENGTHS:
        for depth in range(1, DEPTH):
            found = [name for name, mapping in mappings.items() if _maps_to_rows(mapping, fewest, depth)]
            if found:
                return [{"id": key} | row for key, row in mappings[_outermost(path, "objects", found)].items()]
    for fewest in _LENGTHS:
        found = [name for name, mapping in mappings.items() if _maps_to_vectors(mapping, fewest)]
        if found:
            chosen = mappings[_outermost(path, "objects", found)]
            return [{"id": key, "embedding": row} for key, row in chosen.items()]
    return None


def _maps_to_rows(mapping: dict[str, Any], fewest: int, depth: int) -> bool:
    """Whether all are objects and most have vectors: some rows may lack theirs, and a count beside them is a list."""
    rows = list(mapping.values())
    if not all(isinstance(row, dict) for row in rows):
        return False
    return 2 * sum(_has_vector(row, fewest, depth) for row in rows) > len(rows)


def _maps_to_vectors(mapping: dict[str, Any], fewest: int) -> bool:
    rows = list(mapping.values())
    are_vectors = bool(rows) and all(isinstance(row, list) and is_vector(row) for row in rows)
    are_columns = any(key.lower() in VECTOR_NAMES for key in mapping)
    return are_vectors and not are_columns and len(set(map(len, rows))) == 1 and len(rows[0]) >= fewest


def _outermost(path: Path, what: str, names: list[Names]) -> Names:
    """The one that the others are in.

    Raises:
        EmbInvError: there are others beside it, which would be left out.
    """
    first = min(names, key=len)
    beside = [name for name in names if name[: len(first)] != first]
    if beside:
        shown = short_names([".".join(name) for name in names])
        raise EmbInvError(f"{path}: several {what} hold vectors: {shown}; write each to a file of its own")
    return first


def _has_vector(row: dict[str, Any], fewest: int, depth: int = DEPTH) -> bool:
    return any(
        (is_vector(value) and _is_long(name, value, fewest))
        or (isinstance(value, str) and name.split(".")[-1].lower() in VECTOR_NAMES)
        for name, value in paths_of(row, depth=depth)
    )


def _is_long(name: str, vector: Sequence[Any], fewest: int) -> bool:
    return len(vector) >= fewest or name.split(".")[-1].lower() in VECTOR_NAMES


def _containers(content: dict[str, Any], depth: int = 3) -> dict[Names, list[Any] | dict[str, Any]]:
    """Names from the outermost on → the lists and objects within an object, those above before those below."""
    found: dict[Names, Any] = {(name,): value for name, value in content.items() if isinstance(value, dict | list)}
    if depth > 1:
        for above, value in list(found.items()):
            if isinstance(value, dict):
                found |= {above + names: inner for names, inner in _containers(value, depth - 1).items()}
    return found


def _columns_table(path: Path, content: dict[str, Any]) -> Table:
    """Columns beside each other, as Chroma's `collection.get` gives them and pandas' `to_json`.

    Ids and texts are those beside the vectors, or those of the objects that these are in.
    """
    found = {names: value for names, value in _containers(content).items() if _is_column(value)}
    for fewest in _LENGTHS:
        if holders := [names[:-1] for names, column in found.items() if _are_vectors(names[-1], column, fewest)]:
            break
    holder = _outermost(path, "objects", list(dict.fromkeys(holders))) if holders else ()
    columns, vectors = {}, []
    for names, column in found.items():
        is_vector_column = names[: len(holder)] == holder and _are_vectors(names[-1], column, 1)
        if is_vector_column or names[:-1] == holder[: len(names) - 1]:
            columns[".".join(names)] = column
            vectors += [".".join(names)] * is_vector_column
    if not any(name.split(".")[-1].lower() in ID_NAMES for name in columns):
        keys = {key: key for name in vectors if isinstance(by_key := columns[name], dict) for key in by_key}
        columns |= {"id": keys} if keys else {}

    def read(names: list[str], size: int) -> Iterator[dict[str, Any]]:
        main = columns[names[0]]
        keys, rows = list(main) if isinstance(main, dict) else None, len(main)
        values = {name: _values(columns[name], keys) for name in names}
        for name in names:
            if len(values[name]) != rows:
                raise EmbInvError(f"{path}: {len(values[name])} {one_line(name)} for {rows} vectors")
        for start in range(0, rows, size):
            yield {name: values[name][start : start + size] for name in names}

    return Table(list(columns), vectors, read, lambda name: len(columns[name]))


def _is_column(value: list[Any] | dict[str, Any]) -> bool:
    """Whether it is a list, or an object whose keys are the numbers of rows."""
    return isinstance(value, list) or (bool(value) and all(key.isdigit() for key in value))


def _are_vectors(name: str, column: list[Any] | dict[str, Any], fewest: int) -> bool:
    first = _values(column)[:PEEK]
    return any(isinstance(value, list) and is_vector(value) and _is_long(name, value, fewest) for value in first) or (
        name.lower() in VECTOR_NAMES and any(isinstance(value, str) for value in first)
    )


def _values(column: list[Any] | dict[str, Any], keys: list[str] | None = None) -> list[Any]:
    """The values of a column, in the order of the keys if it has such; None where one is missing."""
    if isinstance(column, list):
        return column
    return list(column.values()) if keys is None else [column.get(key) for key in keys]


# Reading


def _open(path: Path) -> IO[str]:
    file: IO[str] = opener_of(path)(path, "rt", encoding="utf-8-sig")
    return file


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
