"""Vectors in csv and tsv files: as the text of one column, or a column for each number."""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..data.files import LONGEST, one_line, text_lines
from ..errors_embinv import EmbInvError
from .columns import VECTOR_NAMES, Table
from .values import Unreadable, is_number, is_vector

_QUOTED = re.compile(r'"[^"]*"')
_IN_BRACKETS = re.compile(r"\[[^\]]*\]|\{[^}]*\}")
# numbers as spreadsheets write them in much of Europe; a row with so many of them holds a vector
_DECIMAL_COMMA, _MANY = re.compile(r"-?\d+,\d+(?:[eE][+-]?\d+)?"), 8
PEEK = 100


def open_csv(path: Path) -> Table:
    """A csv file with a header or, if its first row already holds a vector, without one."""
    first = list(islice(_rows(path), PEEK + 1))
    if not first:
        raise EmbInvError(f"{path}: holds no vectors")
    names, has_header = _columns(first[0])
    rows = first[1:] if has_header else first
    if found := next(filter(None, map(_decimal_commas, first[:2])), ""):
        raise EmbInvError(
            f"{path}: has decimal commas, as in {found}; write its numbers with points, in pandas by "
            f"read_csv({path.name!r}, sep=None, engine='python', decimal=',').to_csv(…)"
        )
    vectors = [
        name
        for index, name in enumerate(names)
        if any(len(row) > index and is_vector(row[index]) for row in rows)
        or (name.lower() in VECTOR_NAMES and not any(is_number(row[index]) for row in rows if len(row) > index))
    ]
    if not has_header and not vectors and all(map(is_number, first[0])):
        return _matrix(path, len(names))

    ends_in_vector = bool(names) and names[-1] in vectors

    def body() -> Iterator[list[str]]:
        return islice(_rows(path, ends_in_vector), int(has_header), None)

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        rows, indices = body(), {name: names.index(name) for name in columns}
        while batch := list(islice(rows, size)):
            cells = [_cells(row, len(names)) for row in batch]
            yield {name: [row[index] for row in cells] for name, index in indices.items()}

    return Table(names, vectors, read, lambda _: sum(1 for _ in body()), is_untyped=True)


def _decimal_commas(row: list[str]) -> str:
    """The first number with a decimal comma, if many cells are such or one holds nothing else; else ""."""
    cells = [cell.strip() for cell in row]
    lists = [cell.strip("[](){}").replace(";", " ").split() for cell in cells]
    for words in [[cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)], *lists]:
        are_thousands = all(len(word.partition(",")[2]) == 3 for word in words)  # 1,234
        if len(words) >= _MANY and not are_thousands and all(map(_DECIMAL_COMMA.fullmatch, words)):
            return words[0]
    return ""


def _matrix(path: Path, width: int) -> Table:
    """A csv file of plain numbers."""

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        rows = _rows(path)
        while batch := list(islice(rows, size)):
            yield {"": [tuple(row) for row in batch]}

    return Table([""], [""], read, lambda _: sum(1 for _ in _rows(path)))


def _columns(first: list[str]) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first row is a header."""
    numbers = list(map(str, range(len(first))))
    if first == numbers and len(first) > 1:  # pandas' header over a matrix
        return first, True
    if all(map(is_number, first)) or any(map(_is_vector_cell, first)):
        return numbers, False
    return first, True


def _is_vector_cell(cell: str) -> bool:
    words = cell.split()
    return is_vector(cell) or (len(words) > 1 and all(map(is_number, words)))


def _cells(row: list[str], width: int) -> list[Any]:
    """The cells of a row, None where one is empty; all unreadable if there are more or fewer than columns."""
    if len(row) != width:
        return [Unreadable(f"has {len(row)} cells for {width} columns")] * width
    return [None if cell in ("", r"\N", "NULL") else cell for cell in row]


def _rows(path: Path, ends_in_vector: bool = False) -> Iterator[list[str]]:
    """The rows that are not blank.

    ends_in_vector: whether the last column holds vectors, and a cell without its closing bracket is a cut one.
    """
    lines = text_lines(path)
    first = next(lines, "")
    delimiter = _delimiter(first)
    csv.field_size_limit(LONGEST)
    ends = [first]
    reader = csv.reader(_rejoined(first, lines, ends), delimiter=delimiter, strict=True, skipinitialspace=True)
    width = None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise EmbInvError(f"{path}: line {reader.line_num} is not csv (truncated?): {one_line(error)}") from error
        if row is None:
            return
        if row:
            width = width or len(row)
            is_open = ends_in_vector and is_vector(row[-1]) and row[-1][:1] in "[{" and row[-1][-1] not in "]}"
            is_cut = len(row) < width or is_open
            if is_cut and not ends[0].endswith(("\n", "\r")):
                raise EmbInvError(f"{path}: truncated: its last row ends too early")
            yield row


def _rejoined(first: str, rest: Iterator[str], last: list[str]) -> Iterator[str]:
    """All lines; `last` holds the one that came last."""
    yield first
    for last[0] in rest:
        yield last[0]


def _delimiter(line: str) -> str:
    """Tab if the first line holds one outside quotes; else comma or semicolon, the commonest outside brackets, too.

    Between numbers with decimal commas it is the semicolon.
    """
    plain = _QUOTED.sub("", line)
    if "\t" in plain:
        return "\t"
    if _decimal_commas(plain.split(";")):
        return ";"
    outside = _IN_BRACKETS.sub("", plain)
    return max(",;", key=outside.count)
