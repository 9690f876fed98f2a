"""Vectors in a folder of LanceDB's: `lancedb:./folder`, or one table, `lancedb:./folder/docs.lance`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .columns import Table
from .locations import Location, choose_collection, library, using_store
from .tables import column_names, pick, top_column, vector_columns

SUFFIX = ".lance"


def open_lancedb(location: Location) -> Table:
    """A table, as it is when it is opened: LanceDB keeps older versions beside newer ones.

    Raises:
        EmbInvError: no folder of LanceDB's, no such table, a damaged one, or LanceDB is not installed.
    """
    lancedb = library(location, "lancedb", "lancedb")
    folder = location.file
    if folder.suffix == SUFFIX:
        folder, location = folder.parent, location._replace(collection=folder.stem)
    # of the listing of the library, which also changed its name, only a page comes at once
    name = choose_collection(location, table_names(folder), "table")
    with using_store(location):
        table = lancedb.connect(str(folder)).open_table(name)
        schema = table.schema

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        with using_store(location):
            tops = list(dict.fromkeys(top_column(schema, column) for column in columns))
            for batch in table.search().select(tops).to_batches(size):
                yield pick(batch, columns)

    def count(_: str) -> int:
        with using_store(location):
            return int(table.count_rows())

    return Table(column_names(schema), vector_columns(schema), read, count, name, lambda: None)


def table_names(folder: Path) -> list[str]:
    """The names of the tables of a folder."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}") if path.is_dir())
