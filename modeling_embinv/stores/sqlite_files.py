"""Vectors in SQLite databases: tables of sqlite-vec, and ordinary ones with blobs of floats or JSON texts."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from .columns import VECTOR_NAMES, Table
from .copies import PrivateFolder, copy_of, file_version
from .locations import Location, choose_collection, library, using_store
from .packed import hold_vectors
from .values import Unreadable, is_vector

_MAGIC = b"SQLite format 3\0"
_PEEK = 20
_MODULE = re.compile(r"CREATE\s+VIRTUAL\s+TABLE\s.*?\bUSING\s+[\"\[`]?(\w+)", re.IGNORECASE | re.DOTALL)
# how the names of the tables end in which a module keeps what its virtual tables hold
_INNER = {
    "fts3": "content|segments|segdir|docsize|stat",
    "fts4": "content|segments|segdir|docsize|stat",
    "fts5": "data|idx|content|docsize|config",
    "rtree": "node|parent|rowid",
    "vec0": r"chunks|rowids|info|auxiliary|(vector_chunks|metadatachunks|metadatatext)\d+",
}
# a column of vectors in the definition of a vec0 table, and how its numbers are stored
_VEC0 = re.compile(r"[(,]\s*[\"\[`]?(\w+)[\"\]`]?\s+(float|f32|int8|i8|bit)\s*\[\d+\]", re.IGNORECASE)


class _Found(NamedTuple):
    """A table or view: its columns, those that hold vectors, and how vec0 stores their numbers."""

    columns: list[str]
    vectors: list[str]
    kinds: dict[str, str]


def open_sqlite(location: Location) -> Table:
    """A table or view of vectors; ids are its `id`, or else its `rowid`.

    Raises:
        EmbInvError: no SQLite database, a damaged one, no such table, or sqlite-vec is needed and not installed.
    """
    stored = StoredDatabase(location, location.file)
    with using_store(location), closing(stored.connect()) as database:
        tables = _tables(database)
    if "vec0" in map(_module, tables.values()):
        stored.load_vec0(location)
    with using_store(location), closing(stored.connect()) as database:
        found = _look_at_all(database, tables, location.collection)
    with_vectors = [name for name in found if found[name].vectors]
    present, views = list(found) if location.collection in found else with_vectors, _views(tables, with_vectors)
    name = choose_collection(location, present, "table", views)
    columns, vectors, kinds = found[name]

    def read(wanted: list[str], size: int) -> Iterator[dict[str, Any]]:
        with using_store(location), closing(stored.connect()) as database:
            cursor = database.execute(f"SELECT {_listed(wanted)} FROM {_quoted(name)}")
            while rows := list(islice(cursor, size)):
                yield {
                    column: [_value(row[index], kinds.get(column)) for row in rows]
                    for index, column in enumerate(wanted)
                }

    def count(_: str) -> int:
        with using_store(location), closing(stored.connect()) as database:
            return int(database.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchone()[0])

    return Table(columns, vectors, read, count, name, stored.version)


class StoredDatabase:
    """A SQLite database, of which nothing is changed: without locks or, where a writer has left a log, as a copy.

    Args:
        location: for messages.
        path: of the database's file.

    Raises:
        EmbInvError: it is none, or finds no room for a copy.
    """

    def __init__(self, location: Location, path: Path) -> None:
        path = path.resolve()  # a log lies beside the target of a link
        if not path.is_file() or not _is_database(path):
            raise EmbInvError(f"{location.shown}: no SQLite database")
        logs = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
        logs = [log for log in logs if log.is_file() and log.stat().st_size]
        # reading a log writes a file beside the database, or rolls back what it holds
        self.copy: PrivateFolder | None = copy_of(location.shown, [path, *logs], path.parent) if logs else None
        self.path = self.copy.path / path.name if self.copy else path
        self._apsw: Any = None
        self._vec0 = ""

    def version(self) -> Any:
        """Of the file; a copy has always the same."""
        return None if self.copy else file_version(self.path)

    def load_vec0(self, location: Location) -> None:
        """From now on, connections know sqlite-vec's tables.

        Raises:
            EmbInvError: sqlite-vec, or APSW, is not installed: Python's own sqlite3 often loads no extensions.
        """
        self._vec0 = library(location, "sqlite_vec", "sqlite-vec").loadable_path()
        self._apsw = library(location, "apsw", "sqlite-vec")

    def connect(self) -> Any:
        """A connection that writes nothing, of sqlite3 or of APSW."""
        uri = f"{self.path.resolve().as_uri()}?{'mode=rw' if self.copy else 'mode=ro&immutable=1'}"
        if self._apsw is None:
            database = sqlite3.connect(uri, uri=True)
            database.text_factory = lambda data: data.decode("utf-8", "replace")
            return database
        access = self._apsw.SQLITE_OPEN_READWRITE if self.copy else self._apsw.SQLITE_OPEN_READONLY
        vectors = self._apsw.Connection(uri, flags=self._apsw.SQLITE_OPEN_URI | access)
        vectors.enable_load_extension(True)
        vectors.load_extension(self._vec0)
        vectors.enable_load_extension(False)
        return vectors


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _tables(database: Any) -> dict[str, str]:
    """Name → definition of the tables and views; not those in which virtual tables keep what they hold."""
    query = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql IS NOT NULL ORDER BY rowid"
    found: dict[str, str] = dict(database.execute(query).fetchall())
    modules = {name: module for name, sql in found.items() if (module := _module(sql))}
    inner = {
        name
        for name in found
        for above, module in modules.items()
        if re.fullmatch(f"{re.escape(above)}_({_INNER.get(module, '.*')})", name)
    }
    return {name: sql for name, sql in found.items() if name not in inner and modules.get(name) in (None, "vec0")}


def _is_view(definition: str) -> bool:
    return definition.upper().startswith("CREATE VIEW")


def _views(tables: dict[str, str], names: list[str]) -> set[str]:
    """Those of the names that are views of others of them."""

    def shows_another(name: str) -> bool:
        others = "|".join(re.escape(other) for other in names if other != name)
        reads = rf"\b(?:FROM|JOIN)\b[\s(]*(?:[\"\[`]?main[\"\]`]?\s*\.\s*)?[\"\[`]?(?:{others})(?!\w)"
        return _is_view(tables[name]) and re.search(reads, tables[name], re.IGNORECASE) is not None

    return {name for name in names if shows_another(name)}


def _module(definition: str) -> str | None:
    """The module of a virtual table; None for others."""
    using = _MODULE.match(definition)
    return None if using is None else using[1].lower()


def _look_at_all(database: Any, tables: dict[str, str], wanted: str | None) -> dict[str, _Found]:
    """What is in the table that is wanted, or else in all; of several, a view that does not work is left out."""
    found, failure = {}, None
    for name, definition in {wanted: tables[wanted]}.items() if wanted in tables else tables.items():
        try:
            found[name] = _look(database, name, definition)
        except Exception as error:  # each library has errors of its own
            if not _is_view(definition):
                raise
            failure = error
    if failure is not None and not any(one.vectors for one in found.values()):
        raise failure
    return found


def _look(database: Any, name: str, definition: str) -> _Found:
    columns = [row[1] for row in database.execute(f"PRAGMA table_xinfo({_quoted(name)})") if row[6] != 1]
    if not {"rowid", "id"} & set(columns) and _has_rowid(database, name):
        columns = ["rowid", *columns]
    typed = _VEC0.findall(definition) if _module(definition) == "vec0" else []
    defined = {column.lower(): kind.lower() for column, kind in typed}
    kinds = {column: defined[column.lower()] for column in columns if column.lower() in defined}
    is_virtual = _module(definition) is not None  # whose types say all
    vectors = [
        column
        for column in columns
        if column in kinds or (not is_virtual and _holds_vectors(column, _first(database, name, column)))
    ]
    return _Found(columns, vectors, kinds)


def _first(database: Any, name: str, column: str) -> list[Any]:
    """The first values of a column; rows that have none are passed over, however many there are."""
    present = f"{_quoted(column)} IS NOT NULL AND {_quoted(column)} <> ''"
    query = f"SELECT {_quoted(column)} FROM {_quoted(name)} WHERE {present} LIMIT {_PEEK}"
    return [value for (value,) in database.execute(query)]


def _has_rowid(database: Any, name: str) -> bool:
    try:
        return database.execute(f"SELECT rowid FROM {_quoted(name)} LIMIT 1").fetchone() != (None,)
    except Exception:  # a view, or a table WITHOUT ROWID; each library has errors of its own
        return False


def _holds_vectors(column: str, values: list[Any]) -> bool:
    blobs = [value for value in values if isinstance(value, bytes)]
    if blobs and column.lower() in VECTOR_NAMES:
        return True
    return any(isinstance(value, str) and is_vector(value) for value in values) or hold_vectors(blobs)


def _value(value: Any, kind: str | None) -> Any:
    if kind in ("int8", "i8") and isinstance(value, bytes):
        return np.frombuffer(value, np.int8)
    return Unreadable("holds bits, not numbers") if kind == "bit" else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _listed(columns: list[str]) -> str:
    return ", ".join(map(_quoted, columns))
