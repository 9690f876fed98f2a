"""SQLite databases: sqlite-vec's tables, blobs and texts."""

import io
import json
import pickle
import shutil
import sqlite3
from contextlib import closing

import apsw
import numpy as np
import pytest
import sqlite_vec

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.locations import SeveralCollectionsError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, TEXTS, VECTORS, check_all, fingerprint, read_all


def opened(path):
    """A connection that knows sqlite-vec's tables; Python's own sqlite3 may load no extensions."""
    database = apsw.Connection(str(path))
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    return database


@pytest.fixture(scope="module")
def vec(tmp_path_factory):
    """Tables of sqlite-vec: with text ids and texts, of int8 and of bits, and an empty one."""
    path = tmp_path_factory.mktemp("sqlite") / "vec.db"
    with closing(opened(path)) as database, database:
        database.execute(f"CREATE VIRTUAL TABLE docs USING vec0(id TEXT PRIMARY KEY, v float[{DIM}], +text TEXT)")
        rows = zip(IDS, map(sqlite_vec.serialize_float32, VECTORS.tolist()), TEXTS, strict=True)
        database.executemany("INSERT INTO docs(id, v, text) VALUES (?, ?, ?)", rows)
        database.execute(f"CREATE VIRTUAL TABLE small USING vec0(v int8[{DIM}], signs bit[{DIM}])")
        for row in range(5):
            numbers = (VECTORS[row] * 100).astype(np.int8)
            signs = np.packbits(VECTORS[row] > 0)
            insert = "INSERT INTO small(rowid, v, signs) VALUES (?, vec_int8(?), vec_bit(?))"
            database.execute(insert, (10 + row, numbers.tobytes(), signs.tobytes()))
        database.execute(f"CREATE VIRTUAL TABLE empty USING vec0(v float[{DIM}])")
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Ordinary tables: blobs, JSON texts, and one without vectors."""
    path = tmp_path_factory.mktemp("sqlite") / "plain.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE notes (number INTEGER, title TEXT, image BLOB)")
        database.execute("INSERT INTO notes VALUES (1, 'a', x'00FF00FF00FF00FF00FF00FF00FF00FF')")
        database.execute("CREATE TABLE docs (id TEXT, text TEXT, code BLOB)")
        rows = zip(IDS, TEXTS, (vector.tobytes() for vector in VECTORS), strict=True)
        database.executemany("INSERT INTO docs VALUES (?, ?, ?)", rows)
    return path


def test_tables_of_sqlite_vec(vec):
    """Vectors come from the virtual table, not from the tables in which sqlite-vec keeps them."""
    check_all(f"sqlite-vec:{vec}?table=docs", vec.parent)
    check_all(vec, vec.parent, collection="docs")  # recognised


def test_int8_and_bits(vec):
    """Bytes of int8 that are taken for float32 are a quarter as many numbers, all absurd."""
    found = read_all(f"sqlite-vec:{vec}?table=small", column="v")
    assert np.array_equal(found.vectors, (VECTORS[:5] * 100).astype(np.int8)) and found.ids == [
        "10",
        "11",
        "12",
        "13",
        "14",
    ]
    with pytest.raises(EmbInvError, match="row 0 holds bits, not numbers"):
        read_all(f"sqlite-vec:{vec}?table=small", column="signs")


def test_ordinary_tables(plain):
    """A picture in a blob is no vector; the table of the vectors is found by itself."""
    check_all(f"sqlite:{plain}", plain.parent)


def test_json_texts_nulls_and_views(tmp_path):
    """Bad rows are skipped and named by their numbers, as in files."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE docs (text TEXT, embedding TEXT, kept INTEGER)")
        values = [json.dumps(vector.tolist()) for vector in VECTORS[:6]]
        values[1], values[3], values[4] = None, "[1, 2]", json.dumps([0] * DIM)
        database.executemany(
            "INSERT INTO docs VALUES ('t', ?, ?)", [(value, row != 2) for row, value in enumerate(values)]
        )
        database.execute("CREATE VIEW kept AS SELECT rowid AS id, text, embedding FROM docs WHERE kept")
    source = open_vectors(f"sqlite:{path}?table=docs")
    (batch,) = source.batches()
    assert np.allclose(batch.vectors, VECTORS[[0, 2, 5]]) and batch.ids == ["1", "3", "6"]
    assert source.skipped.examples == [(1, "is null"), (3, "holds 2 numbers, not 16"), (4, "is all zeros")]
    assert read_all(f"sqlite:{path}?table=kept").ids == ["1", "6"]
    with pytest.raises(EmbInvError, match="row 1 is null"):
        read_all(f"sqlite:{path}?table=docs", strict=True)


def test_a_log_that_a_writer_left_is_read_and_left_alone(tmp_path):
    """Rows in the log would be missing; reading it beside the database writes a third file there."""
    path = tmp_path / "live.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE docs (id TEXT, embedding BLOB)")
        database.execute("INSERT INTO docs VALUES ('a', ?)", (VECTORS[0].tobytes(),))
        database.commit()
        (tmp_path / "killed").mkdir()
        for file in tmp_path.glob("live.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, tmp_path / "killed")
    before = fingerprint(tmp_path / "killed")
    assert set(before) == {"live.db", "live.db-wal"}
    batches = open_vectors(tmp_path / "killed" / "live.db").batches()
    assert next(batches).ids == ["a"]
    assert fingerprint(tmp_path / "killed") == before
    (tmp_path / "killed" / "live.db").unlink()
    assert not list(batches)  # a copy is read, whatever becomes of the database


def test_a_log_beside_the_target_of_a_link(tmp_path):
    """A link to the newest database: the log lies beside its target, and old rows were read without a word."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "current.db"
    path.symlink_to(tmp_path / "real" / "app.db")
    with closing(sqlite3.connect(tmp_path / "real" / "app.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE docs (id TEXT, embedding BLOB)")
        database.execute("INSERT INTO docs VALUES ('old', ?)", (VECTORS[0].tobytes(),))
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("UPDATE docs SET id = 'new'")
        database.commit()
        before = fingerprint(tmp_path)
        assert read_all(path).ids == ["new"]
        assert fingerprint(tmp_path) == before


def test_a_database_that_is_written_meanwhile(plain, tmp_path):
    """Without locks, a reader would mix two states of the table, and nobody would know."""
    path = shutil.copy(plain, tmp_path / "a.sqlite")
    batches = open_vectors(path).batches(100)
    next(batches)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE docs SET id = id || 'x'")
    with pytest.raises(EmbInvError, match="a.sqlite: (changed while it was read|cannot be read)"):
        list(batches)


@pytest.mark.parametrize(
    "url, message",
    [
        ("", "several tables; name one with --table: docs, small"),
        ("?table=dox", "no table 'dox'; present: docs, small"),
        ("?table=docs&column=w", "no column 'w'; present: id, v, text"),
        ("?table=empty", "holds no vectors"),
    ],
)
def test_mistakes_are_one_line(vec, url, message):
    """A mistyped name shows the names that there are."""
    with pytest.raises(EmbInvError) as error:
        read_all(f"sqlite-vec:{vec}{url}")
    assert message in str(error.value) and str(error.value).isprintable()


def test_damage_is_one_line(plain, tmp_path):
    """A database that is cut, one of noise, and one without tables."""
    data = plain.read_bytes()
    for name, content in {
        "cut": data[: len(data) // 2],
        "noise": b"noise" * 99,
        "torn": data[:4096] + b"x" * 4096,
    }.items():
        (tmp_path / f"{name}.sqlite").write_bytes(content)
        with pytest.raises(EmbInvError) as error:
            read_all(tmp_path / f"{name}.sqlite", collection="docs")
        assert f"{name}.sqlite" in str(error.value) and str(error.value).isprintable()
    with closing(sqlite3.connect(tmp_path / "empty.db")) as database, database:
        database.execute("CREATE TABLE a (b TEXT)")
    with pytest.raises(EmbInvError, match="holds no table of vectors"):
        open_vectors(tmp_path / "empty.db")


def test_a_folder_is_no_database(tmp_path):
    """A folder behind `sqlite:` ended in a raw IsADirectoryError."""
    with pytest.raises(EmbInvError, match=f"^sqlite:{tmp_path}: no SQLite database$"):
        open_vectors(f"sqlite:{tmp_path}")


def test_a_table_named_like_one_of_a_virtual_table(vec, tmp_path):
    """A full-text index `notes` hid the user's own table `notes_embeddings`, and so did a table of sqlite-vec."""
    path = shutil.copy(vec, tmp_path / "vec.db")
    with closing(opened(path)) as database, database:
        database.execute("CREATE VIRTUAL TABLE notes USING fts5(body)")
        for name in ("notes_embeddings", "notes_chunks", "docs_vectors"):
            database.execute(f"CREATE TABLE {name} (id TEXT, embedding BLOB)")
            database.execute(f"INSERT INTO {name} VALUES ('a', ?)", (VECTORS[0].tobytes(),))
    with pytest.raises(EmbInvError, match=": docs, small, empty, notes_embeddings, notes_chunks, docs_vectors$"):
        open_vectors(f"sqlite-vec:{path}")
    assert read_all(f"sqlite-vec:{path}?table=notes_embeddings").ids == ["a"]


def test_bad_views_are_left_out(plain, tmp_path):
    """A view of a table that is gone made all other tables unreadable, also where they were named."""
    path = shutil.copy(plain, tmp_path / "a.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        database.create_function("own", 1, lambda value: value)
        database.execute("CREATE TABLE gone (embedding BLOB)")
        database.execute("CREATE VIEW old AS SELECT embedding FROM gone")
        database.execute("CREATE VIEW mine AS SELECT own(code) AS embedding FROM docs")
        database.execute("DROP TABLE gone")
    for collection in (None, "docs"):
        assert read_all(path, collection=collection).ids == IDS
    for name, reason in (("old", "no such table: main.gone"), ("mine", "no such function: own")):
        with pytest.raises(EmbInvError, match=f"a.sqlite: cannot be read: .*{reason}"):
            open_vectors(path, collection=name)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE docs")
    with pytest.raises(EmbInvError, match="cannot be read: no such table"):
        open_vectors(path)


def test_views_of_tables_with_vectors_have_no_rows_of_their_own(plain, tmp_path):
    """An audit of all tables counted a table's rows once more for each of its views."""
    path = shutil.copy(plain, tmp_path / "a.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE words (numbers TEXT)")
        database.execute("INSERT INTO words VALUES (?)", ("0.5 " * DIM,))
        database.execute("CREATE VIEW half AS SELECT * FROM docs LIMIT 150")
        database.execute('CREATE VIEW quarter AS SELECT a.* FROM words JOIN main."half" a LIMIT 75')
        database.execute("CREATE VIEW listed AS SELECT '[' || replace(trim(numbers), ' ', ',') || ']' AS v FROM words")
        database.execute("CREATE TABLE notes_of_docs (id TEXT REFERENCES docs(id), embedding BLOB)")
        database.execute("INSERT INTO notes_of_docs SELECT id, code FROM docs")
    with pytest.raises(SeveralCollectionsError, match=": docs, half, quarter, listed, notes_of_docs$") as error:
        open_vectors(path)
    assert error.value.names == ["docs", "listed", "notes_of_docs"] and error.value.views == ["half", "quarter"]
    assert len(read_all(path, collection="half").ids) == 150


@pytest.mark.parametrize("kind, exact", [("<f4", 0), ("<f8", 0), ("<f2", 1e-3)])
@pytest.mark.parametrize("column", ["embedding", "code"])
def test_blobs_of_any_floats(tmp_path, kind, exact, column):
    """`np.array(list).tobytes()` is float64: it was read as twice as many numbers, and float16 as half as many."""
    vectors = VECTORS.copy()
    vectors[:, 3] = 2.5e-33  # as all-MiniLM-L6-v2 has it
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE docs (id INTEGER, {column} BLOB)")
        numbers = [None, np.full(DIM, np.nan, kind), *vectors.astype(np.float64).astype(kind)]
        rows = [(row, vector if vector is None else vector.tobytes()) for row, vector in enumerate(numbers)]
        database.executemany("INSERT INTO docs VALUES (?, ?)", rows)
    for size in (1, 64):
        found = read_all(path, size, collection="docs", column=column)
        assert np.allclose(found.vectors, vectors, atol=exact, rtol=0) and found.rows.tolist()[0] == 2
    assert open_vectors(path).column == column
    source = open_vectors(path, collection="docs", column=column)
    assert next(source.batches(4)).vectors.shape == (2, DIM)
    assert source.skipped.examples == [(0, "is null"), (1, "holds NaN or infinity")]


@pytest.mark.parametrize("empty", [None, ""])
def test_vectors_behind_many_rows_without_one(tmp_path, empty):
    """Twenty rows that had no vector yet hid the table: of two, the other one was inverted without a word."""
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE old (id TEXT, embedding BLOB)")
        database.execute("INSERT INTO old VALUES ('old', ?)", (VECTORS[0].tobytes(),))
        database.execute("CREATE TABLE docs (id TEXT, code BLOB)")
        rows = [(name, empty if row < 30 else VECTORS[row].tobytes()) for row, name in enumerate(IDS)]
        database.executemany("INSERT INTO docs VALUES (?, ?)", rows)
    with pytest.raises(SeveralCollectionsError, match="name one with --table: old, docs$"):
        open_vectors(path)
    found = read_all(path, collection="docs")
    assert np.array_equal(found.vectors, VECTORS[30:]) and found.ids == IDS[30:]


@pytest.mark.parametrize("size", [16, 32])
def test_digests_are_no_vectors_of_float16(tmp_path, size):
    """Keys of 16 random bytes pass for eight numbers of float16 now and then, and hid the table of the vectors."""
    path, random = tmp_path / "a.sqlite", np.random.default_rng(0)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE docs (id INTEGER, digest BLOB)")
        database.executemany("INSERT INTO docs VALUES (?, ?)", [(row, random.bytes(size)) for row in range(99)])
    with pytest.raises(EmbInvError, match="holds no table of vectors"):
        open_vectors(path)


def saved_by_numpy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("column", ["embedding", "code"])
def test_blobs_of_numpys_own_format(tmp_path, column):
    """The header of `np.save` was read as numbers, too: vectors of 48 absurd ones."""
    path = tmp_path / "a.sqlite"
    blobs = [saved_by_numpy(vector) for vector in (*VECTORS[:5], VECTORS[5][None], VECTORS[6].astype(np.float64))]
    bad = [
        blobs[0][:-8],
        saved_by_numpy(VECTORS[:2]),
        saved_by_numpy(np.array([None])),
        saved_by_numpy(np.array(["a"])),
    ]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE docs (id INTEGER, {column} BLOB)")
        database.executemany("INSERT INTO docs VALUES (?, ?)", enumerate(blobs + bad))
    source = open_vectors(path)
    (batch,) = source.batches()
    assert np.array_equal(batch.vectors, VECTORS[:7])
    assert [reason for _, reason in source.skipped.examples] == [
        "holds a damaged array of numpy's", f"holds an array of shape (2, {DIM}), not one vector",
        "holds a pickle, which is not loaded", "holds an array of <U1, not of numbers",
    ]  # fmt: skip


def test_pickles_are_no_numbers(tmp_path):
    """A pickled list came out as a vector of noise, and raw numbers that begin as a pickle does are no pickle."""
    path, vector = tmp_path / "a.sqlite", VECTORS[1].copy()
    vector[0] = np.frombuffer(b"\x80\x04\x80\x3d", "<f4")[0]
    vector[-1] = np.frombuffer(b"\x00\x00\x00\x2e", "<f4")[0]
    blobs = [pickle.dumps(VECTORS[0].tolist(), protocol) for protocol in range(2, 6)]
    blobs += [VECTORS[0].tobytes(), vector.tobytes()]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE docs (id INTEGER, embedding BLOB)")
        database.executemany("INSERT INTO docs VALUES (?, ?)", enumerate(blobs))
    source = open_vectors(path)
    (batch,) = source.batches()
    assert np.array_equal(batch.vectors, [VECTORS[0], vector])
    assert source.skipped.examples == [(row, "holds a pickle, which is not loaded") for row in range(4)]
