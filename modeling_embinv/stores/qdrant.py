"""Vectors in Qdrant: a server, `qdrant:http://localhost:6333`, or a local folder of its Python client.

A server's key is taken from the environment, `QDRANT_API_KEY`.

The local client keeps each point as a pickle, and locks the folder. So its database is read without it.
"""

import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..data.files import one_line
from ..errors_embinv import EmbInvError
from .columns import Table
from .locations import Location, choose_collection, library, using_store
from .objects import rows_table
from .sqlite_files import StoredDatabase

FILES = ("meta.json", "collection")
_PAGE = 256


def open_qdrant(location: Location) -> Table:
    """A collection: ids, `vector` or `vector.NAME`, and what the payload holds as `payload.NAME`.

    Raises:
        EmbInvError: no server and no folder of Qdrant's, no such collection, a local folder without trust, or the
            client is not installed.
    """
    library(location, "qdrant_client", "qdrant")
    return _of_server(location) if "://" in location.path else _of_folder(location)


def _of_server(location: Location) -> Table:
    qdrant = library(location, "qdrant_client", "qdrant")
    with using_store(location):
        key = os.environ.get("QDRANT_API_KEY")
        client = qdrant.QdrantClient(url=location.path, api_key=key, check_compatibility=False)
        names = sorted(found.name for found in client.get_collections().collections)
    name = choose_collection(location, names)

    def rows() -> Iterator[dict[str, Any]]:
        offset = None
        while True:
            with using_store(location):
                points, offset = client.scroll(name, limit=_PAGE, offset=offset, with_payload=True, with_vectors=True)
            yield from map(_row, points)
            if offset is None:
                return

    def count(_: str = "") -> int:
        with using_store(location):
            return int(client.count(name, exact=True).count)

    return rows_table(rows)._replace(count=count, collection=name, version=count)


def _of_folder(location: Location) -> Table:
    folder = location.file
    try:
        names = sorted(json.loads((folder / FILES[0]).read_text(encoding="utf-8"))["collections"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EmbInvError(f"{location.shown}: no local folder of Qdrant's client: {one_line(error)}") from error
    name = choose_collection(location, names)
    if not location.trust:
        raise EmbInvError(
            f"{location.shown}: Qdrant's local folder holds pickled Python objects, which can run code when they are "
            "loaded; if you trust whoever wrote it, add --trust-source"
        )
    path = folder / FILES[1] / name / "storage.sqlite"
    if not path.is_file():
        raise EmbInvError(f"{location.shown}: damaged: no {path.relative_to(folder)}")
    stored = StoredDatabase(location, path)

    def rows() -> Iterator[dict[str, Any]]:
        with using_store(location), closing(stored.connect()) as database:
            for (data,) in database.execute("SELECT point FROM points ORDER BY rowid"):
                yield _row(_Unpickler(io.BytesIO(data)).load())

    def count(_: str) -> int:
        with using_store(location), closing(stored.connect()) as database:
            return int(database.execute("SELECT count(*) FROM points").fetchone()[0])

    return rows_table(rows)._replace(count=count, collection=name, version=stored.version)


class _Unpickler(pickle.Unpickler):
    """Loads Qdrant's own points, and nothing else that a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.startswith("qdrant_client.http.models") and "." not in name) or (module, name) == ("uuid", "UUID"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a point")


def _row(point: Any) -> dict[str, Any]:
    """A point as JSON has it."""
    vector = point.vector
    if isinstance(vector, dict):  # sparse vectors left out
        vector = {name: value for name, value in vector.items() if isinstance(value, list)}
        vector = vector[""] if set(vector) == {""} else vector  # the client's name of one without a name
    return {"id": point.id, "vector": vector, "payload": point.payload or {}}


def is_folder(path: Path) -> bool:
    """Whether a folder looks like one of the local client."""
    return all((path / name).exists() for name in FILES)
