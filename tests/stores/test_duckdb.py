"""DuckDB's databases, written by DuckDB."""

import subprocess
import sys
from contextlib import closing

import duckdb
import pyarrow as pa
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.locations import SeveralCollectionsError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, TEXTS, VECTORS, check_all, fingerprint, read_all


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Arrays, lists, views, another schema, and a table without vectors."""
    path = tmp_path_factory.mktemp("duckdb") / "store.duckdb"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), DIM)
    rows = pa.table({"id": IDS, "text": TEXTS, "v": vectors})
    with closing(duckdb.connect(str(path))) as database:
        database.register("rows", rows)
        database.execute(f"CREATE TABLE docs (id VARCHAR, text VARCHAR, v FLOAT[{DIM}])")
        database.execute("INSERT INTO docs SELECT * FROM rows")
        database.execute("CREATE TABLE people (name VARCHAR)")
        database.execute("CREATE SCHEMA other")
        database.execute("CREATE TABLE other.lists (id INTEGER, v DOUBLE[])")
        database.execute(
            "INSERT INTO other.lists VALUES (1, [1, 2]), (2, NULL), (3, [3, 'nan'::DOUBLE]), (4, [0, 0]), (5, [5, 6])"
        )
        database.execute("CREATE TABLE other.none AS SELECT * FROM docs LIMIT 0")
    return path


def test_what_went_in_comes_out(store):
    """Threads that read parts of a table would mix up its rows."""
    check_all(f"duckdb:{store}?table=docs", store.parent)
    check_all(store, store.parent, collection="docs")  # recognised


def test_bad_rows_are_skipped_and_listed(store):
    """A list may be null, or hold what is no number."""
    source = open_vectors(f"duckdb:{store}?table=other.lists")
    (batch,) = source.batches()
    assert batch.ids == ["1", "5"] and batch.vectors.tolist() == [[1, 2], [5, 6]]
    assert [row for row, _ in source.skipped.examples] == [1, 2, 3]


@pytest.mark.parametrize(
    "url, message",
    [
        ("", "several tables; name one with --table: docs, other.lists, other.none"),
        ("?table=dox", "no table 'dox'; present: docs, other.lists, other.none"),
        ("?table=people", "no column of vectors; present: name"),
        ("?table=docs&column=w", "no column 'w'; present: id, text, v"),
        ("?table=other.none", "holds no vectors"),
    ],
)
def test_mistakes_are_one_line(store, url, message):
    """A mistyped name shows the names that there are."""
    with pytest.raises(EmbInvError) as error:
        read_all(f"duckdb:{store}{url}")
    assert message in str(error.value) and str(error.value).isprintable()


def test_a_locked_database(tmp_path):
    """Another process writes to it: one line, and nothing is waited for."""
    path = tmp_path / "a.duckdb"
    writer = (
        "import duckdb, sys; database = duckdb.connect(sys.argv[1]); "
        "database.execute('CREATE TABLE docs AS SELECT 1 AS id, [1.0, 2.0] AS v'); print('ready', flush=True); input()"
    )
    options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", writer, str(path)], **options) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(EmbInvError, match="a.duckdb: cannot be read: .*lock"):
            open_vectors(path)
        process.kill()
    before = fingerprint(tmp_path)
    assert "a.duckdb.wal" in before  # the writer was killed before it wrote its log into the database
    assert read_all(path).ids == ["1"] and fingerprint(tmp_path) == before


def test_a_view_reads_no_other_file(tmp_path):
    """A database from a stranger may hold a view that reads this machine's files."""
    secret = tmp_path / "secret.csv"
    secret.write_text('id,v\n1,"[1.0, 2.0]"\n')
    with closing(duckdb.connect(str(tmp_path / "a.duckdb"))) as database:
        database.execute(f"CREATE VIEW docs AS SELECT id, v::FLOAT[2] AS v FROM read_csv('{secret}')")
    with pytest.raises(EmbInvError, match="cannot be read: Permission Error"):
        open_vectors(tmp_path / "a.duckdb")


def test_a_view_that_cannot_be_read_is_left_out(tmp_path):
    """A view of a file, which may not be read, made all tables of a database unreadable, the named one too."""
    path = tmp_path / "a.duckdb"
    (tmp_path / "raw.csv").write_text("id,v\n1,2\n")
    with closing(duckdb.connect(str(path))) as database:
        database.execute("CREATE TABLE docs AS SELECT 1 AS id, [1.0, 2.0] AS v")
        database.execute(f"CREATE VIEW raw AS SELECT * FROM read_csv('{tmp_path / 'raw.csv'}')")
        database.execute("CREATE TABLE gone AS SELECT 1 AS id")
        database.execute("CREATE VIEW orphan AS SELECT * FROM gone")
        database.execute("DROP TABLE gone")
    assert read_all(path).ids == read_all(path, collection="docs").ids == ["1"]
    with pytest.raises(EmbInvError, match="cannot be read: Permission Error"):
        read_all(path, collection="raw")
    with pytest.raises(EmbInvError, match="cannot be read: Catalog Error: .*gone"):
        read_all(path, collection="orphan")
    with pytest.raises(EmbInvError, match="no table 'dox'; present: docs$"):
        read_all(path, collection="dox")


def test_an_audit_leaves_out_views_where_tables_hold_vectors(tmp_path):
    """The rows of a table and of a view of it are the same rows, and counted twice."""
    path = tmp_path / "a.duckdb"
    with closing(duckdb.connect(str(path))) as database:
        database.execute("CREATE TABLE docs AS SELECT 1 AS id, [1.0, 2.0] AS v")
        database.execute("CREATE VIEW recent AS SELECT * FROM docs")
    with pytest.raises(SeveralCollectionsError, match="several tables; name one with --table: docs, recent") as error:
        open_vectors(path)
    assert error.value.names == ["docs"] and error.value.views == ["recent"]
    assert read_all(path, collection="recent").ids == ["1"]
    with closing(duckdb.connect(str(path))) as database:
        database.execute("ALTER TABLE docs RENAME v TO w; ALTER TABLE docs ALTER w TYPE VARCHAR")
        database.execute("CREATE OR REPLACE VIEW recent AS SELECT id, w::DOUBLE[] AS v FROM docs")
        database.execute("CREATE VIEW first AS SELECT * FROM recent")
    with pytest.raises(SeveralCollectionsError) as error:  # no table to take them from
        open_vectors(path)
    assert error.value.names == ["first", "recent"] and not error.value.views


def test_damage_is_one_line(store, tmp_path):
    """A database that is cut, and one of noise."""
    for name, content in {"cut": store.read_bytes()[:5000], "noise": b"noise" * 999}.items():
        (tmp_path / f"{name}.duckdb").write_bytes(content)
        with pytest.raises(EmbInvError) as error:
            read_all(tmp_path / f"{name}.duckdb", collection="docs")
        assert f"{name}.duckdb: cannot be read" in str(error.value) and str(error.value).isprintable()
    with closing(duckdb.connect(str(tmp_path / "empty.duckdb"))):
        pass
    with pytest.raises(EmbInvError, match="holds no table of vectors"):
        open_vectors(tmp_path / "empty.duckdb")
