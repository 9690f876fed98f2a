"""Vectors in folders of the Vector Dataset Format: VDF_META.json and parquet files."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..data.files import one_line
from ..errors_embinv import EmbInvError
from .columns import Table
from .copies import file_versions
from .locations import Location, choose_collection
from .tables import open_parquet

FILE = "VDF_META.json"


def open_vdf(location: Location) -> Table:
    """An index, or one of its namespaces, `INDEX/NAMESPACE`: all its parquet files, by entry and name.

    Raises:
        EmbInvError: no such folder, index or namespace, or files that differ in their columns.
    """
    folder = location.file
    parts = _parts(location, folder)
    name = choose_collection(location, list(parts), "collection")
    files, vectors = parts[name]
    tables = {file: open_parquet(file) for file in files}
    first = next(iter(tables.values()))
    for file, table in tables.items():
        if table.columns != first.columns:
            raise EmbInvError(f"{file}: has other columns than {files[0].name}")

    def read(columns: list[str], size: int) -> Iterator[dict[str, Any]]:
        for table in tables.values():
            yield from table.read(columns, size)

    usual = [column for column in first.vector_columns if column in vectors] or first.vector_columns

    def count(column: str) -> int:
        return sum(table.count(column) for table in tables.values())

    return Table(first.columns, usual, read, count, name, partial(file_versions, [folder / FILE, *files]))


def _parts(location: Location, folder: Path) -> dict[str, tuple[list[Path], list[str]]]:
    """Name of an index or namespace → its files, and its columns of vectors."""
    found: dict[str, tuple[list[Path], list[str]]] = {}
    try:
        indexes = json.loads((folder / FILE).read_text(encoding="utf-8"))["indexes"]
        entries = [(index, part, _inside(folder, part["data_path"])) for index in indexes for part in indexes[index]]
        places = {place for *_, place in entries}
        for index, part, place in entries:
            name = f"{index}/{part['namespace']}" if part.get("namespace") else index
            files, vectors = found.setdefault(name, ([], []))
            files += _files(place, places)
            vectors += part.get("vector_columns") or []
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EmbInvError(f"{location.shown}: no folder of the Vector Dataset Format: {one_line(error)}") from error
    return {name: (list(dict.fromkeys(files)), vectors) for name, (files, vectors) in found.items() if files}


def _files(place: Path, places: set[Path]) -> list[Path]:
    """The parquet files below a place that are not below another one within it."""
    below = [file for file in place.rglob("*.parquet") if next(filter(places.__contains__, file.parents)) == place]
    return sorted(below, key=_numbered)


def _inside(folder: Path, path: str) -> Path:
    """The path below the folder, which is not to be left."""
    inner = (folder / path).resolve()
    if not inner.is_relative_to(folder.resolve()):
        raise EmbInvError(f"{path} is outside the folder")
    return inner


def _numbered(path: Path) -> tuple[str, int, str]:
    """10.parquet behind 9.parquet."""
    return str(path.parent), int(path.stem) if path.stem.isdecimal() else -1, path.name
