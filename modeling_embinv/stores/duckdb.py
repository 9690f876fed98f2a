"""Vectors in DuckDB databases."""

from collections.abc import Container, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from .columns import Table
from .locations import Location, choose_collection, library, using_store
from .tables import column_names, pick, top_column, vector_columns

# of the beginning of its files: a checksum, then this
_CHECKSUM, _MAGIC = 8, b"DUCK"


def open_duckdb(location: Location) -> Table:
    """A table or view. While it is read, no other process can write to the database.

    Raises:
        EmbInvError: no DuckDB database, a damaged one, one that is being written, no such table, or DuckDB is not
            installed.
    """
    duckdb = library(location, "duckdb", "duckdb")
    path = str(location.file)

    def connect() -> Any:
        # a view of a stranger may read any file of this machine
        return duckdb.connect(path, read_only=True, config={"enable_external_access": "false"})

    with using_store(location), closing(connect()) as database:
        query = "SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY ALL"
        listed = database.execute(query).fetchall()
        found = {name if schema == "main" else f"{schema}.{name}": (schema, name) for schema, name, _ in listed}
        views = {name for name, (*_, kind) in zip(found, listed, strict=True) if kind == "VIEW"}
        if location.collection in found:
            found = {location.collection: found[location.collection]}
        schemas = _schemas(duckdb, database, found, views)
    with_vectors = [name for name in schemas if vector_columns(schemas[name])]
    is_named = location.collection in schemas
    name = choose_collection(location, list(schemas) if is_named else with_vectors or list(schemas), "table", views)
    schema = schemas[name]

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with using_store(location), closing(connect()) as database:
            tops = list(dict.fromkeys(top_column(schema, column) for column in columns))
            for batch in _reader(database, found[name], tops, size):
                yield pick(batch, columns)

    def count(_: str) -> int:
        with using_store(location), closing(connect()) as database:
            return int(database.execute(f"SELECT count(*) FROM {_quoted(*found[name])}").fetchone()[0])

    return Table(column_names(schema), vector_columns(schema), read, count, name)


def _schemas(
    duckdb: Any, database: Any, found: dict[str, tuple[str, str]], views: Container[str]
) -> dict[str, pa.Schema]:
    """What tables and views hold; of several, a view that cannot be read is left out: its table is gone, or a file."""
    schemas, error = {}, None
    for name, table in found.items():
        try:
            schemas[name] = _reader(database, table, None, 1).schema
        except duckdb.Error as raised:
            if name not in views:
                raise
            error = raised
    if error is not None and not any(map(vector_columns, schemas.values())):
        raise error
    return schemas


def _reader(database: Any, table: tuple[str, str], columns: list[str] | None, size: int) -> Any:
    chosen = "*" if columns is None else ", ".join(map(_quoted, columns))
    return database.sql(f"SELECT {chosen} FROM {_quoted(*table)}").to_arrow_reader(size)


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def is_file(path: Path) -> bool:
    """Whether a file begins as those of DuckDB do."""
    with path.open("rb") as file:
        return file.read(_CHECKSUM + len(_MAGIC))[_CHECKSUM:] == _MAGIC
