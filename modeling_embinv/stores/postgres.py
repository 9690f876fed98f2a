"""Vectors in PostgreSQL: pgvector's `vector` and `halfvec`, and arrays of numbers."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .columns import Table
from .locations import Location, choose_collection, library, using_store

# numbers as they are sent in binary
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}
_ARRAYS = ("real[]", "double precision[]", "numeric[]")
_TIMEOUT = 10
_COLUMNS = """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, NULL)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
        AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_table_privilege(c.oid, 'select')
    ORDER BY 1, 2, a.attnum"""
_KEY = """
    SELECT a.attname FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
    WHERE i.indisprimary AND n.nspname = %s AND c.relname = %s ORDER BY array_position(i.indkey::int2[], a.attnum)"""


def open_postgres(location: Location) -> Table:
    """A table or view, read in one snapshot, in the order of its primary key if it has one.

    Raises:
        EmbInvError: a server that is down or refuses, no such table, or psycopg is not installed.
    """
    psycopg = library(location, "psycopg", "pgvector")
    sql = library(location, "psycopg.sql", "pgvector")
    with using_store(location), _connected(psycopg, location) as database:
        tables: dict[tuple[str, str], dict[str, str]] = {}
        for schema, table, column, kind in database.execute(_COLUMNS).fetchall():
            tables.setdefault((schema, table), {})[column] = kind
    names = {table if schema == "public" else f"{schema}.{table}": (schema, table) for schema, table in tables}
    with_vectors = [name for name, table in names.items() if any(map(_is_vector, tables[table].values()))]
    name = choose_collection(location, list(names) if location.collection in names else with_vectors, "table")
    kinds, table = tables[names[name]], sql.Identifier(*names[name])
    with using_store(location), _connected(psycopg, location) as database:
        key = [sql.Identifier(column) for (column,) in database.execute(_KEY, names[name]).fetchall()]

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        order = sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(key)) if key else sql.SQL("")
        query = sql.SQL("SELECT {} FROM {}{}").format(listed, table, order)
        with using_store(location), _connected(psycopg, location) as database, database.cursor("embinv") as cursor:
            cursor.execute(query, binary=True)
            while rows := cursor.fetchmany(size):
                yield {
                    column: [_value(row[index], kinds[column]) for row in rows] for index, column in enumerate(columns)
                }

    def count(_: str) -> int:
        with using_store(location), _connected(psycopg, location) as database:
            return int(database.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()[0])

    vectors = [column for column, kind in kinds.items() if _is_vector(kind)]
    return Table(list(kinds), vectors, read, count, name, lambda: None)


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


def _is_vector(kind: str) -> bool:
    return _plain(kind) in _NUMBERS or kind in _ARRAYS


def _value(value: Any, kind: str) -> Any:
    """A vector as numbers: they follow their count and two bytes that are reserved. Other values as they are."""
    if value is None or _plain(kind) not in _NUMBERS:
        return (
            [float(number) if number is not None else None for number in value] if value and kind in _ARRAYS else value
        )
    (width,) = struct.unpack_from(">H", value)
    return np.frombuffer(value, _NUMBERS[_plain(kind)], width, 4)
