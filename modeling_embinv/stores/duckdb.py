"""Vectors in DuckDB databases."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

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
        query = "SELECT table_schema, table_name FROM information_schema.tables ORDER BY ALL"
        found = {name if schema == "main" else f"{schema}.{name}": (schema, name)
                 for schema, name in database.execute(query).fetchall()}  # fmt: skip
        schemas = {name: _reader(database, parts, None, 1).schema for name, parts in found.items()}
    with_vectors = [name for name in found if vector_columns(schemas[name])]
    is_named = location.collection in found
    name = choose_collection(location, list(found) if is_named else with_vectors or list(found), "table")
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


def _reader(database: Any, table: tuple[str, str], columns: list[str] | None, size: int) -> Any:
    chosen = "*" if columns is None else ", ".join(map(_quoted, columns))
    return database.sql(f"SELECT {chosen} FROM {_quoted(*table)}").to_arrow_reader(size)


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def is_file(path: Path) -> bool:
    """Whether a file begins as those of DuckDB do."""
    with path.open("rb") as file:
        return file.read(_CHECKSUM + len(_MAGIC))[_CHECKSUM:] == _MAGIC
