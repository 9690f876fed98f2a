"""Vectors in PostgreSQL: pgvector's `vector` and `halfvec`, and arrays of numbers."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ..data.files import short_names
from ..errors_embinv import EmbInvError
from .columns import Table
from .locations import Location, choose_collection, library, using_store

# numbers as they are sent in binary
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}
_ARRAYS = ("real[]", "double precision[]", "numeric[]")
_BITS = ("bit", "bit varying")
_TIMEOUT = 10
# a domain is sent as the type that it is over; rows of a partition, and of what inherits a column, are its parent's
_COLUMNS = """
    WITH RECURSIVE base(oid, type) AS (
        SELECT oid, oid FROM pg_type
        UNION ALL SELECT base.oid, d.typbasetype FROM base JOIN pg_type d ON d.oid = base.type WHERE d.typtype = 'd')
    SELECT n.nspname, c.relname, a.attname, format_type(t.oid, NULL), t.oid, c.relkind IN ('v', 'm'),
        a.attinhcount > 0 AND EXISTS (
            SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND has_table_privilege(i.inhparent, 'select'))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN base ON base.oid = a.atttypid JOIN pg_type t ON t.oid = base.type AND t.typtype <> 'd'
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
        AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_table_privilege(c.oid, 'select')
    ORDER BY 1, 2, a.attnum"""
_KEY = """
    SELECT a.attname FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s ORDER BY array_position(i.indkey::int2[], a.attnum)"""


class _Column(NamedTuple):
    """A column: its type, which is no domain, and whether its rows are shown or inherited elsewhere."""

    kind: str
    oid: int
    is_view: bool
    is_inherited: bool

    @property
    def is_vector(self) -> bool:
        return _plain(self.kind) in _NUMBERS or self.kind in _ARRAYS


def open_postgres(location: Location) -> Table:
    """A table or view, read in one snapshot, in the order of its primary key if it has one.

    Raises:
        EmbInvError: a server that is down or refuses, no such table, or psycopg is not installed.
    """
    psycopg = library(location, "psycopg", "pgvector")
    sql = library(location, "psycopg.sql", "pgvector")
    with using_store(location), _connected(psycopg, location) as database:
        tables = _tables(database)
    names = {table if schema == "public" else f"{schema}.{table}": (schema, table) for schema, table in tables}
    own = {name: [one for one in tables[table].values() if one.is_vector and not one.is_inherited]
           for name, table in names.items()}  # fmt: skip
    with_vectors = [name for name in names if own[name]]
    views = {name for name in with_vectors if own[name][0].is_view}
    name = choose_collection(location, list(names) if location.collection in names else with_vectors, "table", views)
    found, table = tables[names[name]], sql.Identifier(*names[name])
    with using_store(location), _connected(psycopg, location) as database:
        key = [sql.Identifier(*names[name], column) for (column,) in database.execute(_KEY, names[name]).fetchall()]

    def form(column: str) -> str:
        """As text where the client knows no other form: the bytes that it gets of such a type mean nothing to it."""
        is_known = found[column].is_vector or psycopg.adapters.get_loader(found[column].oid, psycopg.pq.Format.BINARY)
        return "{}" if is_known else "{}::text"

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        if bits := [column for column in columns if found[column].kind in _BITS]:
            raise EmbInvError(f"{location.shown}: column {short_names(bits)!r} holds bits, not numbers")
        listed = sql.SQL(", ").join(sql.SQL(form(column)).format(sql.Identifier(column)) for column in columns)
        order = sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(key)) if key else sql.SQL("")
        query = sql.SQL("SELECT {} FROM {}{}").format(listed, table, order)
        with using_store(location), _connected(psycopg, location) as database, database.cursor("embinv") as cursor:
            cursor.execute(query, binary=True)
            while rows := cursor.fetchmany(size):
                yield {
                    column: [_value(row[index], found[column].kind) for row in rows]
                    for index, column in enumerate(columns)
                }

    def count(_: str) -> int:
        with using_store(location), _connected(psycopg, location) as database:
            return int(database.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()[0])

    vectors = [column for column, about in found.items() if about.is_vector]
    return Table(list(found), vectors, read, count, name, lambda: None)


def _tables(database: Any) -> dict[tuple[str, str], dict[str, _Column]]:
    """(schema, name) of the tables and views → their columns."""
    found: dict[tuple[str, str], dict[str, _Column]] = {}
    for schema, table, column, *about in database.execute(_COLUMNS).fetchall():
        found.setdefault((schema, table), {})[column] = _Column(*about)
    return found


@contextmanager
def _connected(psycopg: Any, location: Location) -> Iterator[Any]:
    """A connection that only reads, and sees one state of the database."""
    timeout = {} if "connect_timeout" in urlsplit(location.path).query else {"connect_timeout": _TIMEOUT}
    with psycopg.connect(location.path, **timeout) as database:
        database.read_only = True
        database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        # else a scan may begin in the middle of the table, where another one is
        database.execute("SET LOCAL synchronize_seqscans = off")
        yield database


def _plain(kind: str) -> str:
    """The name of a type without its schema."""
    return kind.rpartition(".")[2].strip('"')


def _value(value: Any, kind: str) -> Any:
    """A vector as numbers: they follow their count and two bytes that are reserved. Other values as they are."""
    if value is None or _plain(kind) not in _NUMBERS:
        return list(map(_number, value)) if value and kind in _ARRAYS else value
    (width,) = struct.unpack_from(">H", value)
    return np.frombuffer(value, _NUMBERS[_plain(kind)], width, 4)


def _number(value: Any) -> Any:
    """A number of an array as a float; null, and the rows of an array of two dimensions, as they are."""
    return value if value is None or isinstance(value, list) else float(value)
