"""Vectors in a folder of Chroma's `PersistentClient`.

Chroma's client writes to a folder that it opens: it migrates the tables, and takes locks. So it opens a copy.
"""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors_embinv import EmbInvError
from .columns import Table
from .copies import PrivateFolder, copy_of
from .locations import Location, choose_collection, library, using_store

FILE = "chroma.sqlite3"
_PEEK = 100


def open_chroma(location: Location) -> Table:
    """A collection: ids, vectors, documents, and metadata under `metadata.NAME`.

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
        names = sorted(collection.name for collection in client.list_collections())
    name = choose_collection(location, names)
    with using_store(location):
        collection = client.get_collection(name, embedding_function=None)
        first = collection.get(limit=_PEEK, include=["metadatas"])["metadatas"] or []
    fields = dict.fromkeys(f"metadata.{field}" for row in first for field in row or {})

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

    return Table(["id", "embedding", "document", *fields], ["embedding"], read, count, name, lambda: None)


def _folder(location: Location) -> Path:
    path = location.file
    path = path.parent if path.name == FILE else path
    if not (path / FILE).is_file():
        raise EmbInvError(f"{location.shown}: no folder of Chroma's: it has no {FILE}")
    return path


def _values(page: dict[str, Any], column: str, parts: dict[str, str]) -> Any:
    if column == "id":
        return page["ids"]
    if column in parts:
        return page[parts[column]]
    return [(row or {}).get(column.removeprefix("metadata.")) for row in page["metadatas"]]
