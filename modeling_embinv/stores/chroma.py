"""Vectors in a folder of Chroma's `PersistentClient`.

Chroma's client writes to a folder that it opens: it migrates the tables, and takes locks. So it opens a copy.
"""

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors_embinv import EmbInvError
from .columns import Table
from .copies import PrivateFolder, copy_of
from .locations import Location, choose_collection, library, using_store

FILE = "chroma.sqlite3"
_PEEK = 100
_COLLECTIONS = """
    SELECT d.tenant_id, d.name, c.name FROM collections c JOIN databases d ON d.id = c.database_id"""
# a document is a field of this name
_DOCUMENT = "chroma:document"
_FIELDS = """
    SELECT DISTINCT m.key FROM segments s JOIN embeddings e ON e.segment_id = s.id
    JOIN embedding_metadata m ON m.id = e.id WHERE s.collection = ? ORDER BY m.key"""


def open_chroma(location: Location) -> Table:
    """A collection: ids, vectors, documents where it has any, and metadata under `metadata.NAME`.

    Outside the default database a collection is `DATABASE/NAME`, outside the default tenant `TENANT/DATABASE/NAME`.

    Chroma reads a collection's index into memory; the vectors are then paged.

    Raises:
        EmbInvError: no folder of Chroma's, no such collection, or Chroma is not installed.
    """
    chromadb = library(location, "chromadb", "chroma")
    store = _folder(location)
    copy = copy_of(location.shown, [store], store)
    with using_store(location):
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(str(copy.path), settings=settings)
        weakref.finalize(copy, client.close)
        found = {
            _shown(place, (chromadb.DEFAULT_TENANT, chromadb.DEFAULT_DATABASE)): place
            for place in _query(copy, _COLLECTIONS)
        }
    name = choose_collection(location, sorted(found))
    with using_store(location):
        *place, inner = found[name]
        client.set_tenant(*place)
        collection = client.get_collection(inner, embedding_function=None)
        names = _columns(copy, collection)

    # `held`: the copy goes with the last that reads it
    def read(columns: list[str], size: int, held: PrivateFolder = copy) -> Iterator[dict[str, Any]]:
        parts = {"embedding": "embeddings", "document": "documents"}
        include = {parts.get(column, "metadatas") for column in columns if column != "id"}
        for start in range(0, collection.count(), size):
            with using_store(location):
                page = collection.get(limit=size, offset=start, include=sorted(include))
            yield {column: _values(page, column, parts) for column in columns}

    def count(_: str) -> int:
        with using_store(location):
            return int(collection.count())

    return Table(names, ["embedding"], read, count, name, lambda: None)


def _folder(location: Location) -> Path:
    path = location.file
    path = path.parent if path.name == FILE else path
    if not (path / FILE).is_file():
        raise EmbInvError(f"{location.shown}: no folder of Chroma's: it has no {FILE}")
    return path


def _columns(copy: PrivateFolder, collection: Any) -> list[str]:
    """All that any row has; the fields of the first rows come first, in their order."""
    # before it gives rows, Chroma brings its tables up to date
    first = collection.get(limit=_PEEK, include=["metadatas"])["metadatas"] or []
    keys = [key for (key,) in _query(copy, _FIELDS, str(collection.id))]
    fields = [*(key for row in first for key in row or {}), *(key for key in keys if not key.startswith("chroma:"))]
    documents = ["document"] if _DOCUMENT in keys else []
    return ["id", "embedding", *documents, *(f"metadata.{field}" for field in dict.fromkeys(fields))]


def _query(copy: PrivateFolder, query: str, *values: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(copy.path / FILE)) as database:
        return database.execute(query, values).fetchall()


def _shown(place: tuple[str, ...], default: tuple[str, str]) -> str:
    """A collection's name, with its database and its tenant before it where they are not the default ones."""
    tenant, database, name = place
    if (tenant, database) == default:
        return name
    return f"{database}/{name}" if tenant == default[0] else "/".join(place)


def _values(page: dict[str, Any], column: str, parts: dict[str, str]) -> Any:
    if column == "id":
        return page["ids"]
    if column in parts:
        return page[parts[column]]
    return [(row or {}).get(column.removeprefix("metadata.")) for row in page["metadatas"]]
