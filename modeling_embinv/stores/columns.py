"""An opened file's columns, and which of them hold the vectors, their ids and their texts."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.files import check_column, short_names
from ..errors_embinv import EmbInvError
from .values import parse_values

VECTOR_NAMES = ("embedding", "embeddings", "vector", "vectors", "values", "emb")
ID_NAMES = ("id", "ids", "_id", "uuid", "doc_id", "index", "rowid")
TEXT_NAMES = ("text", "texts", "content", "document", "documents", "sentence", "chunk", "passage")
_NUMBERED = re.compile(r"(.*?)(\d{1,9})", re.DOTALL)
# what MongoDB's extended JSON wraps a value in: {"_id": {"$oid": "65f…"}}
_WRAPPED = re.compile(r"\.\$\w+$")
# rows that decide on the width of a column
PEEK = 100


class NoTextsError(EmbInvError):
    """A file has no column of texts under a usual name.

    Attributes:
        others: its columns that hold neither vectors nor ids: one of them may be the texts'.
    """

    def __init__(self, message: str, others: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.others = others


class Table(NamedTuple):
    """An opened file, or a collection of a store.

    Attributes:
        columns: names of its columns; those within others as dotted paths; [""] if it is nothing but vectors.
        vector_columns: those that hold vectors, by their type or their first rows.
        read: (columns, rows at most) → batches, each a dict from a column to its values.
        count: the column of the vectors → the number of rows.
        collection: which of a store's collections or tables this is; None for a file.
        version: what is another one when the source has changed; None = that of its files. A source that is read from
            a snapshot has always the same one.
        beside: the column of the vectors → those that may be its ids or texts; None = all are.
        is_untyped: whether numbers are kept as text, as in csv.
    """

    columns: list[str]
    vector_columns: list[str]
    read: Callable[[list[str], int], Iterator[dict[str, Any]]]
    count: Callable[[str], int]
    collection: str | None = None
    version: Callable[[], Any] | None = None
    beside: Callable[[str], list[str]] | None = None
    is_untyped: bool = False


class Columns(NamedTuple):
    """Which columns are read: `vectors` is one, or one for each number; `id` and `text` are one or None."""

    vectors: list[str]
    id: str | None
    text: str | None


def choose_columns(
    where: str | Path,
    table: Table,
    column: str | None,
    id_column: str | None,
    text_column: str | bool,
    dim: int | None = None,
) -> Columns:
    """The columns that are named, or else those of the usual names.

    Args:
        where: the file, for messages.
        table: what was opened.
        column, id_column: names, or None = the usual ones; a file may have no ids.
        text_column: a name; True = one of the usual names, which must be there; False = no texts.
        dim: D, the width expected: where several columns hold vectors, those of another width are not meant.

    Raises:
        EmbInvError: no such column, none that holds vectors, or several that could be meant.
    """
    vectors = _vectors(where, _of_width(table, dim, column), column)
    others = table if table.beside is None else table._replace(columns=table.beside(vectors[0]))
    ids = _named(where, table, id_column) if id_column else _usual_other(others, ID_NAMES)
    text = _named(where, table, text_column) if isinstance(text_column, str) else None
    if text_column is True and (text := _usual_other(others, TEXT_NAMES)) is None:
        message = f"{where}: holds no texts; columns: {short_names([name for name in table.columns if name])}"
        rest = [name for name in others.columns if name and name not in (*table.vector_columns, ids)]
        raise NoTextsError(message, rest)
    return Columns(vectors, ids, text)


def _of_width(table: Table, dim: int | None, column: str | None) -> Table:
    """The table with only those columns of vectors that have `dim` numbers, if there are any.

    A column that is named stays, and so do all others unless it holds several.
    """
    candidates = [name for name in table.vector_columns if column is None or name.startswith(f"{column}.")]
    if dim is None or len(candidates) < 2 or column in table.columns:
        return table
    fitting = [name for name in candidates if _fits(table, name, dim)]
    return table._replace(vector_columns=fitting) if fitting else table


def _fits(table: Table, name: str, dim: int) -> bool:
    """Whether one of the first rows has `dim` numbers; a column that cannot be read is told of where it is chosen."""
    widths = _widths(table, name)
    return widths is None or dim in widths


def _widths(table: Table, name: str) -> set[int] | None:
    """How many numbers the vectors of the first rows have; None = they cannot be read."""
    try:
        first: dict[str, Any] = next(iter(table.read([name], PEEK)), {name: []})
        return set(parse_values(first[name]).lengths.tolist()) - {0}
    except (ValueError, UnicodeDecodeError):
        return None


def _vectors(where: str | Path, table: Table, column: str | None) -> list[str]:
    if table.columns == [""]:
        return [""] if column is None else [_named(where, table, column)]
    if column is not None:
        within = [name for name in table.vector_columns if name.startswith(f"{column}.")]
        return [_only(where, within) if within and column not in table.columns else _named(where, table, column)]
    for position in (None, -1, 0):  # the whole path, then its last name, then its first
        for usual in VECTOR_NAMES:
            named = [name for name in table.vector_columns if _part(name, position) == usual]
            if named:
                check_column(where, named[0], table.columns)
                return [_only(where, named)]
    if table.vector_columns:
        return [_only(where, table.vector_columns)]
    if run := numbered_run(where, table.columns):
        return run
    raise EmbInvError(f"{where}: no column of vectors; present: {short_names(table.columns)}; name one with --column")


def _named(where: str | Path, table: Table, name: str) -> str:
    """The column of that name, or the only one that is its value in MongoDB's wrapping."""
    if table.columns == [""]:
        raise EmbInvError(f"{where}: no column {short_names([name])!r}: its columns have no names")
    wrapped = [one for one in table.columns if _WRAPPED.sub("", one) == name]
    if name not in table.columns and len(wrapped) == 1:
        return wrapped[0]
    check_column(where, name, table.columns)
    return name


def _only(where: str | Path, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise EmbInvError(f"{where}: several columns hold vectors: {short_names(names)}; name one with --column")
    return names[0]


def _usual_other(table: Table, names: Sequence[str]) -> str | None:
    """The column of the first of the usual names that does not hold vectors, as Qdrant's vector `text` does."""
    columns = table.columns
    while (name := _usual(columns, names)) in table.vector_columns and _widths(table, str(name)):
        columns = [column for column in columns if column != name]
    return name


def _usual(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column of the first of the usual names: as it stands, or as the last name of a path."""
    for position in (None, -1):
        for usual in names:
            for name in columns:
                if _part(name, position) == usual and columns.count(name) == 1:
                    return name
    return None


def _part(name: str, position: int | None) -> str:
    plain = _WRAPPED.sub("", name).lower()
    return plain if position is None else plain.split(".")[position]


def numbered_run(where: str | Path, columns: Sequence[str]) -> list[str]:
    """The longest run of columns x0, x1, …, one for each number of a vector, as pandas writes it; [] if there is none.

    Raises:
        EmbInvError: several runs are the longest.
    """
    longest = _longest_runs(columns)
    if len(longest) > 1:
        shown = ", ".join(f"{short_names(run[:1])} … {short_names(run[-1:])}" for run in longest[:20])
        raise EmbInvError(f"{where}: several runs of numbered columns: {shown}; write each to a file of its own")
    return longest[0] if longest else []


def _longest_runs(columns: Sequence[str]) -> list[list[str]]:
    runs: list[list[str]] = [[]]
    for name in columns:
        before, now = _NUMBERED.fullmatch(runs[-1][-1]) if runs[-1] else None, _NUMBERED.fullmatch(name)
        follows = before and now and before[1] == now[1] and int(now[2]) == int(before[2]) + 1
        if not follows:
            runs.append([])
        if now:
            runs[-1].append(name)
    longest = max(map(len, runs))
    return [run for run in runs if len(run) == longest > 1 and len(set(run)) == longest]
