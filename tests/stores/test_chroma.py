"""Chroma's persistent folders, written by Chroma."""

import shutil
import sqlite3

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.columns import NoTextsError
from modeling_embinv.stores.locations import SeveralCollectionsError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, ROWS, TEXTS, VECTORS, check_all, fingerprint, read_all


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A collection of which a part is in the index and a part in the log only, one of cosines, and an empty one."""
    path = tmp_path_factory.mktemp("chroma") / "store"
    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    options = dict(embedding_function=None, configuration={"hnsw": {"sync_threshold": 200, "batch_size": 50}})
    support = client.create_collection("support", **options)
    for start in range(0, ROWS, 100):
        part = slice(start, start + 100)
        numbers = [{"row": row, "lang": "en"} for row in range(start, start + 100)]
        support.add(IDS[part], VECTORS[part], documents=TEXTS[part], metadatas=numbers)
    client.create_collection("other", embedding_function=None).add(["b", "a"], VECTORS[:2])
    client.create_collection("empty", embedding_function=None)
    client.close()
    return path


def test_what_went_in_comes_out(store):
    """Chroma's client migrates and locks the folder that it opens; a page from the wrong row on mixes up ids."""
    check_all(f"chroma:{store}", store, collection="support")
    check_all(f"chroma:{store}?collection=support", store)


def test_a_bare_folder_is_recognised(store):
    """`embinv invert ./store` said that datasets had saved no such folder."""
    assert np.array_equal(read_all(store, collection="support").vectors, VECTORS)
    assert read_all(str(store / "chroma.sqlite3"), collection="other").ids == ["b", "a"]


def test_metadata_can_be_texts(store):
    """Stores whose texts are in the metadata would be said to hold none."""
    found = read_all(f"chroma:{store}", collection="support", text_column="metadata.lang")
    assert found.texts == ["en"] * ROWS
    with pytest.raises(NoTextsError, match="store: holds no texts; columns: id, embedding$"):
        open_vectors(f"chroma:{store}", collection="other", text_column=True)


def test_a_collection_without_documents_says_what_it_has(tmp_path):
    """Documents that nobody had added were said to be the texts, and the field that holds them was not named."""
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    numbers = [{"body": text, "row": row} for row, text in enumerate(TEXTS)]
    client.create_collection("docs", embedding_function=None).add(IDS, VECTORS, metadatas=numbers)
    client.close()
    with pytest.raises(NoTextsError, match="holds no texts") as error:
        open_vectors(tmp_path, text_column=True)
    assert sorted(error.value.others) == ["metadata.body", "metadata.row"]
    assert read_all(tmp_path, text_column="metadata.body").texts == TEXTS


def test_fields_that_only_later_rows_have(tmp_path):
    """Documents and metadata that begin behind the first hundred rows were no columns, not even if they were named."""
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    docs = client.create_collection("docs", embedding_function=None)
    docs.add(IDS[:200], VECTORS[:200], metadatas=[{"row": row} for row in range(200)])
    docs.add(IDS[200:], VECTORS[200:], documents=TEXTS[200:], metadatas=[{"body": text} for text in TEXTS[200:]])
    client.create_collection("other", embedding_function=None).add(["a"], VECTORS[:1], metadatas=[{"title": "x"}])
    client.close()
    for column in (True, "metadata.body"):
        assert read_all(tmp_path, collection="docs", text_column=column).texts == [""] * 200 + TEXTS[200:]
    with pytest.raises(
        EmbInvError, match="no column 'x'; present: id, embedding, document, metadata.row, metadata.body$"
    ):
        open_vectors(tmp_path, collection="docs", column="x")


def test_other_databases_and_tenants(tmp_path):
    """Collections outside the default database did not exist, for an audit of the whole folder either."""
    client = chromadb.PersistentClient(str(tmp_path), settings=Settings(anonymized_telemetry=False))
    admin = chromadb.AdminClient(client.get_settings())
    admin.create_tenant("acme")
    places = [
        (chromadb.DEFAULT_TENANT, chromadb.DEFAULT_DATABASE),
        (chromadb.DEFAULT_TENANT, "work"),
        ("acme", "work"),
    ]
    for number, (tenant, database) in enumerate(places):
        if number:
            admin.create_database(database, tenant)
        client.set_tenant(tenant, database)
        client.create_collection("docs", embedding_function=None).add(IDS[: number + 1], VECTORS[: number + 1])
    client.close()
    for number, name in enumerate(["docs", "work/docs", "acme/work/docs"]):
        found = read_all(f"chroma:{tmp_path}?collection={name}")
        assert found.ids == IDS[: number + 1] and np.array_equal(found.vectors, VECTORS[: number + 1])
    with pytest.raises(SeveralCollectionsError, match="name one with --collection: acme/work/docs, docs, work/docs"):
        open_vectors(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "several collections; name one with --collection: empty, other, support"),
        ({"collection": "suport"}, "no collection 'suport'; present: empty, other, support"),
        ({"collection": "support", "column": "vec"}, "no column 'vec'; present: id, embedding, document"),
        ({"collection": "support", "dim": 384}, "vectors of 16 numbers; expected 384"),
    ],
)
def test_mistakes_are_one_line(store, options, message):
    """A traceback of Chroma's Rust code helps nobody who mistyped a name."""
    with pytest.raises(EmbInvError) as error:
        open_vectors(f"chroma:{store}", **options)
    assert message in str(error.value) and str(error.value).isprintable()


def test_an_empty_collection(store):
    """An audit of nothing would report that nothing leaks."""
    with pytest.raises(EmbInvError, match="store: holds no vectors"):
        read_all(f"chroma:{store}", collection="empty")


def test_damage_is_one_line(store, tmp_path):
    """Chroma panics in Rust, which is no `Exception`."""
    for name in ("cut", "noise", "emptied"):
        shutil.copytree(store, tmp_path / name)
    data = (store / "chroma.sqlite3").read_bytes()
    (tmp_path / "cut" / "chroma.sqlite3").write_bytes(data[:20_000])
    (tmp_path / "noise" / "chroma.sqlite3").write_bytes(bytes(range(256)) * 100)
    with sqlite3.connect(tmp_path / "emptied" / "chroma.sqlite3") as database:
        database.execute("DROP TABLE collections")
    database.close()
    for name in ("cut", "noise", "emptied"):
        with pytest.raises(EmbInvError) as error:
            read_all(f"chroma:{tmp_path / name}", collection="support")
        assert str(tmp_path / name) in str(error.value) and str(error.value).isprintable()
    with pytest.raises(EmbInvError, match="no folder of Chroma's: it has no chroma.sqlite3"):
        open_vectors(f"chroma:{tmp_path}")
    with pytest.raises(EmbInvError, match="none: no such file or folder"):
        open_vectors(f"chroma:{tmp_path / 'none'}")


def test_a_store_in_use_is_read_and_left_alone(store, tmp_path):
    """A client that still runs keeps its log open; reading must neither wait for it nor disturb it."""
    path = tmp_path / "live"
    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    collection = client.create_collection("notes", embedding_function=None)
    collection.add(IDS[:5], VECTORS[:5])
    before = fingerprint(path)
    source = open_vectors(path)
    assert next(source.batches(10)).ids == IDS[:5] and fingerprint(path) == before
    collection.add(IDS[5:9], VECTORS[5:9])  # into the store, not into the copy that is read
    assert source.count() == 5 and open_vectors(path).count() == 9 and source.width == DIM
    client.close()
