"""What all stores share: their URLs, their libraries, and sources that change."""

import os
import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores import copies
from modeling_embinv.stores.locations import locate
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, ROWS, VECTORS, read_all


def write_sqlite(path, vectors=VECTORS):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE docs (id TEXT, embedding BLOB)")
        rows = zip(IDS, (vector.tobytes() for vector in vectors), strict=False)
        database.executemany("INSERT INTO docs VALUES (?, ?)", rows)
    return path


@pytest.mark.parametrize(
    "url, scheme, path, options",
    [
        ("chroma:./store", "chroma", "store", {}),
        ("chroma:///data/store?collection=a+b", "chroma", "/data/store", {"collection": "a b"}),
        ("CHROMA:store?x", "chroma", "store?x", {}),
        ("vectors.npy", "", "vectors.npy", {}),
        (r"C:\data\v.npy", "", r"C:\data\v.npy", {}),
        ("sqlite-vec:a.db?table=t&column=v", "sqlite-vec", "a.db", {"table": "t", "column": "v"}),
        ("qdrant:http://host:6333?collection=c", "qdrant", "http://host:6333", {"collection": "c"}),
        ("postgresql+psycopg://h/d?table=t&sslmode=require", "postgresql", "postgresql://h/d?sslmode=require",
         {"table": "t"}),
        ("postgres://h/d?host=/run/pg&table=t", "postgres", "postgres://h/d?host=%2Frun%2Fpg", {"table": "t"}),
        ("hf://datasets/a/b/c.parquet", "hf", "hf://datasets/a/b/c.parquet", {}),
    ],
)  # fmt: skip
def test_urls(url, scheme, path, options):
    """A drive letter that is taken for a scheme, an option of ours that the database is sent, one of its own lost."""
    found = locate(url)
    assert (found.scheme, found.path, found.options) == (scheme, path, options)
    assert found.collection == (options.get("collection") or options.get("table"))


def test_a_path_is_no_url(tmp_path, monkeypatch):
    """An upload named `postgresql:...` must not make the Space connect; a file with a colon is a file."""
    monkeypatch.chdir(tmp_path)
    assert locate(Path("chroma:store")).scheme == ""
    np.save(tmp_path / "run:3.npy", VECTORS[:2])
    assert read_all("run:3.npy").vectors.shape == (2, DIM)


@pytest.mark.parametrize("mark", [" ", ",", ", "])
@pytest.mark.parametrize("length", [2, 384])
def test_numbers_without_brackets_are_no_file(mark, length):
    """A vector that was typed without its brackets was a file name that is too long for the system."""
    with pytest.raises(
        EmbInvError, match=r"^0.1,? ?0.1.*: no such file; a vector is given as JSON, \[0.1, -0.2, …\]$"
    ) as error:
        locate(mark.join(["0.1"] * length))
    assert len(str(error.value)) < 150
    with pytest.raises(EmbInvError, match="^aaaa.*: no such file$"):
        locate("a" * 5000)


def test_passwords_are_not_shown():
    """Messages, logs and `run.json` name the source."""
    for url in (
        "postgresql://me:secret@h/d?table=t",
        "postgresql://h/d?user=me&password=secret&table=t",
        "postgresql:host=h password=secret dbname=d",
        "qdrant:https://me:secret@h:6333",
    ):
        found = locate(url)
        assert "secret" in found.path and "secret" not in found.shown + found.identity


def test_an_identity_is_the_same_from_any_folder(tmp_path, monkeypatch):
    """A job that is resumed from another folder would begin anew, or take the parts of another store."""
    path = write_sqlite(tmp_path / "a.db")
    monkeypatch.chdir(tmp_path)
    identity = open_vectors("sqlite:a.db").identity
    assert identity == open_vectors(f"sqlite://{path}?table=docs").identity == f"sqlite:{path}#docs"
    assert open_vectors("a.db", collection="docs").identity == f"{path}#docs"


def test_an_unknown_kind_names_the_known_ones():
    """A mistyped scheme was an unknown kind of file."""
    with pytest.raises(
        EmbInvError, match="^milvus:./x: no such file, and no kind of store; known: chroma:, lancedb:, "
    ):
        open_vectors("milvus:./x")


@pytest.mark.parametrize(
    "scheme, module, extra",
    [
        ("chroma", "chromadb", "chroma"), ("lancedb", "lancedb", "lancedb"), ("qdrant", "qdrant_client", "qdrant"),
        ("faiss", "faiss", "faiss"), ("duckdb", "duckdb", "duckdb"), ("postgresql", "psycopg", "pgvector"),
        ("sqlite-vec", "sqlite_vec", "sqlite-vec"), ("sqlite-vec", "apsw", "sqlite-vec"),
    ],
)  # fmt: skip
def test_a_missing_library_is_one_line(tmp_path, monkeypatch, scheme, module, extra):
    """A ModuleNotFoundError says neither which store needs the library nor which extra has it."""
    path = write_sqlite(tmp_path / "a.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema = ON")  # as sqlite-vec would have made it
        sql = f"CREATE VIRTUAL TABLE v USING vec0(v float[{DIM}])"
        database.execute("INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, ?)", (sql,))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EmbInvError) as error:
        open_vectors(f"{scheme}:{path}" if scheme != "postgresql" else "postgresql://h/d")
    name = locate(f"{scheme}:{path}" if scheme != "postgresql" else "postgresql://h/d").shown
    assert str(error.value) == f"{name}: needs {module}, not installed: pip install 'embinv[{extra}]'"


def test_a_file_that_is_written_meanwhile(tmp_path):
    """Rows before and behind the change would be of two sources, and nobody would know."""
    path = tmp_path / "v.npy"
    np.save(path, VECTORS)
    batches = open_vectors(path).batches(100)
    next(batches)
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime(path, ns=(1, 1))
    with pytest.raises(EmbInvError, match="v.npy: changed while it was read; stop what writes to it"):
        list(batches)


@pytest.mark.parametrize("limit", [150, ROWS])
def test_a_file_that_is_written_while_some_of_it_is_read(tmp_path, limit):
    """With a limit, rows of two states of a source were given out without a word."""
    np.save(tmp_path / "v.npy", VECTORS)
    source = open_vectors(tmp_path / "v.npy")
    source.select(limit=limit)
    assert sum(len(batch.rows) for batch in source.batches(100)) == limit
    with pytest.raises(EmbInvError, match="v.npy: changed while it was read"):
        for _ in source.batches(100):
            os.utime(tmp_path / "v.npy", ns=(1, 1))


def test_a_folder_that_is_written_meanwhile(tmp_path, monkeypatch):
    """Results that are written beside the vectors are no change; a file of the vectors that is written anew is one."""
    Dataset.from_dict({"embedding": VECTORS.tolist()}).save_to_disk(str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path / "saved")
    for changed, is_own in (("texts.jsonl.parts", False), ("state.json", True)):
        batches = open_vectors(".").batches(1000)
        next(batches)
        Path(changed).touch()
        os.utime(changed, ns=(1, 1))
        if is_own:
            with pytest.raises(EmbInvError, match="changed while it was read"):
                list(batches)
        else:
            assert not list(batches)


def test_a_copy_needs_room(tmp_path, monkeypatch):
    """A disk that fills up in the middle of a copy stops whatever else writes to it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "chroma.sqlite3").write_bytes(b"x" * 2_000)
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(EmbInvError, match="is read from a copy of .* TMPDIR names another folder"):
        open_vectors(f"chroma:{tmp_path / 'store'}")


def test_a_large_table_is_paged(tmp_path):
    """A reader that fetches the whole table first needs 8 MB here, and 40 GB in use."""
    vectors = np.random.default_rng(0).normal(size=(8_000, 256)).astype(np.float32)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, embedding BLOB)")
        database.executemany("INSERT INTO docs(embedding) VALUES (?)", ((vector.tobytes(),) for vector in vectors))
    tracemalloc.start()
    seen = sum(len(batch.rows) for batch in open_vectors(tmp_path / "a.db").batches(200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == len(vectors) and peak < 3_000_000


def test_a_name_that_is_no_utf_8_is_a_file_s_name(tmp_path):
    """A file of such a name, as old systems have them, was a traceback."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/v\xff.npy")
    np.save(path, np.eye(2, 4, dtype=np.float32))
    assert open_vectors(path, dim=4).count() == 2
