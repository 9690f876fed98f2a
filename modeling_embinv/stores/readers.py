"""Which reader opens what: stores by the scheme of their URL, files by what they begin with, else by their suffix."""

from collections.abc import Callable
from pathlib import Path

from ..data.files import file_kind
from ..errors_embinv import EmbInvError
from . import chroma, duckdb, faiss_files, lancedb, postgres, qdrant, sqlite_files, vdf
from .arrays import open_npy, open_npz, open_safetensors, pickle_message
from .columns import Table
from .copies import open_named
from .csv_files import open_csv
from .json_files import open_json, open_json_lines
from .locations import REMOTE, Location
from .remote import open_remote
from .tables import open_arrow, open_folder, open_parquet

_FILES = {
    ".npy": open_npy, ".npz": open_npz, ".safetensors": open_safetensors, ".parquet": open_parquet,
    ".arrow": open_arrow, ".feather": open_arrow, ".csv": open_csv, ".tsv": open_csv, ".json": open_json,
    ".jsonl": open_json_lines, ".ndjson": open_json_lines,
}  # fmt: skip
KINDS = tuple(_FILES)
_MAGIC = {b"\x93NUMPY": ".npy", b"PK\x03\x04": ".npz", b"PAR1": ".parquet", b"ARROW1": ".arrow"}
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".bin")
_STORES: dict[str, Callable[[Location], Table]] = {
    "chroma": chroma.open_chroma, "lancedb": lancedb.open_lancedb, "qdrant": qdrant.open_qdrant,
    "faiss": faiss_files.open_faiss, "sqlite": sqlite_files.open_sqlite, "sqlite-vec": sqlite_files.open_sqlite,
    "duckdb": duckdb.open_duckdb, "postgresql": postgres.open_postgres, "postgres": postgres.open_postgres,
    "vdf": vdf.open_vdf,
}  # fmt: skip
# stores that are one file. A `.db` may be SQLite's or DuckDB's: its first bytes say so
STORE_FILES = {
    ".faiss": "faiss", ".index": "faiss", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite",
    ".duckdb": "duckdb",
}  # fmt: skip


def open_table(location: Location) -> Table:
    """Opens a file, a folder or a collection of a store.

    Raises:
        EmbInvError: nothing is there, it is damaged, pickled or of an unknown kind, or its library is not installed.
    """
    scheme = location.scheme or _recognised(location)
    if not scheme:
        path = Path(location.path)
        return open_file(path) if location.shown == location.path else open_named(location.shown, path, open_file)
    if scheme in REMOTE:
        return open_remote(location, open_file)
    if scheme not in _STORES:
        known = ", ".join(f"{name}:" for name in (*_STORES, *REMOTE))
        raise EmbInvError(f"{location.shown}: no such file, and no kind of store; known: {known}")
    return _STORES[scheme](location)


def open_file(path: Path) -> Table:
    """Opens a file of vectors, or a folder that `datasets` saved.

    Raises:
        EmbInvError: as `open_table`.
    """
    if path.is_dir():
        return open_folder(path)
    if not path.is_file():
        raise EmbInvError(f"{path}: no such file")
    with path.open("rb") as file:
        begin = file.read(8)
    kind = next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)
    is_pickle = begin[:1] == b"\x80" and 2 <= begin[1:2][0] <= 5 if len(begin) > 1 else False
    if path.suffix.lower() in _PICKLES or is_pickle:
        raise EmbInvError(pickle_message(path))
    kind = kind or file_kind(path)
    if kind not in _FILES:
        stores = ", ".join(f"{name}:" for name in _STORES)
        raise EmbInvError(
            f"{path}: unknown kind of file; known: {', '.join(KINDS)}, text files also as .gz or .xz, folders saved "
            f"by datasets, and stores: {stores}"
        )
    return _FILES[kind](path)


def _recognised(location: Location) -> str:
    """The store that a path is one of, by its files or its suffix; "" if it is none."""
    path = Path(location.path)
    if path.is_dir():
        if (path / chroma.FILE).is_file():
            return "chroma"
        if (path / vdf.FILE).is_file():
            return "vdf"
        if qdrant.is_folder(path):
            return "qdrant"
        return "lancedb" if path.suffix == lancedb.SUFFIX or lancedb.table_names(path) else ""
    if path.name == chroma.FILE:
        return "chroma"
    store = STORE_FILES.get(path.suffix.lower(), "") if path.is_file() else ""
    return "duckdb" if store == "sqlite" and duckdb.is_file(path) else store
