"""Folders of the Vector Dataset Format."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

from .sources import IDS, ROWS, TEXTS, VECTORS, check_all, read_all


@pytest.fixture
def store(tmp_path):
    """Two namespaces of one index; the first has eleven files."""
    folder = tmp_path / "vdf"
    rows = pa.table({"id": IDS, "text": TEXTS, "values": list(VECTORS)})
    parts = [{"namespace": name, "data_path": f"docs_{name}", "vector_columns": ["values"]} for name in ("a", "b")]
    for part in parts:
        (folder / part["data_path"]).mkdir(parents=True)
    for number in range(11):
        pq.write_table(rows.slice(30 * number, 30), folder / "docs_a" / f"{number + 1}.parquet")
    pq.write_table(rows.slice(0, 3), folder / "docs_b" / "1.parquet")
    (folder / "VDF_META.json").write_text(json.dumps({"version": "0.1", "indexes": {"docs": parts}}))
    return folder


def test_what_went_in_comes_out(store):
    """10.parquet comes before 2.parquet in the order of the alphabet."""
    check_all(f"vdf:{store}", store, collection="docs/a")
    assert open_vectors(store, collection="docs/a").count() == ROWS  # recognised
    assert read_all(f"vdf:{store}?collection=docs/b").ids == IDS[:3]


def test_the_results_may_lie_in_the_folder(store):
    """Parts of the results that appear beside the vectors were a change of the store, at the end of all the work."""
    batches = open_vectors(store, collection="docs/a").batches(100_000)
    next(batches)
    (store / "texts.jsonl").touch()
    assert not list(batches)
    batches = open_vectors(store, collection="docs/a").batches(100_000)
    next(batches)
    os.utime(store / "docs_a" / "3.parquet", ns=(1, 1))
    with pytest.raises(EmbInvError, match="changed while it was read"):
        list(batches)


def test_several_entries_of_one_index(store):
    """Of two entries with one name only the last was read, and the other one's rows were missing without a word."""
    meta = json.loads((store / "VDF_META.json").read_text())
    for part in meta["indexes"]["docs"]:
        del part["namespace"]
    (store / "VDF_META.json").write_text(json.dumps(meta))
    assert read_all(store).ids == IDS + IDS[:3] and open_vectors(store).count() == ROWS + 3


def test_an_index_that_holds_its_namespaces(store):
    """The files of a namespace below its index's folder counted for both."""
    rows = pa.table({"id": ["own"], "text": [""], "values": [VECTORS[0]]})
    (store / "docs_a").rename(store / "docs_b" / "a")
    pq.write_table(rows, store / "docs_b" / "1.parquet")
    parts = [{"namespace": "a", "data_path": "docs_b/a"}, {"data_path": "docs_b"}]
    (store / "VDF_META.json").write_text(json.dumps({"indexes": {"docs": parts}}))
    assert read_all(store, collection="docs").ids == ["own"]
    assert read_all(store, collection="docs/a").ids == IDS


def test_an_entry_that_stands_twice(store):
    """A description that names a folder twice made two rows of each."""
    part = {"data_path": "docs_b"}
    (store / "VDF_META.json").write_text(json.dumps({"indexes": {"docs": [part, part]}}))
    assert read_all(store).ids == IDS[:3]


def test_mistakes_are_one_line(store):
    """A description that names what is not there, or what is not its own."""
    with pytest.raises(EmbInvError, match="several collections; name one with --collection: docs/a, docs/b"):
        open_vectors(store)
    pq.write_table(pa.table({"id": ["x"], "values": [[1.0]]}), store / "docs_b" / "2.parquet")
    with pytest.raises(EmbInvError, match="2.parquet: has other columns than 1.parquet"):
        open_vectors(store, collection="docs/b")
    for meta in (
        "{",
        "[]",
        '{"indexes": {"docs": [{"namespace": ""}]}}',
        '{"indexes": {"d": [{"data_path": "../.."}]}}',
    ):
        (store / "VDF_META.json").write_text(meta)
        with pytest.raises(EmbInvError, match="no folder of the Vector Dataset Format") as error:
            open_vectors(store)
        assert str(error.value).isprintable()
    (store / "VDF_META.json").write_text('{"indexes": {}}')
    with pytest.raises(EmbInvError, match="holds no collection of vectors"):
        open_vectors(store)


def test_the_files_of_a_source_are_known(store, tmp_path):
    """`--out` could name a file of the store's own vectors; results of an earlier run beside them are no such file."""
    own = store / "docs_b" / "1.parquet"
    (tmp_path / "link.parquet").symlink_to(own)
    for source in (open_vectors(store, collection="docs/a"), open_vectors(f"vdf:{store}", collection="docs/a")):
        assert source.holds(own) and source.holds(tmp_path / "link.parquet")
        assert not source.holds(store / "new.parquet") and not source.holds(tmp_path / "link.jsonl")
    (store / "texts.jsonl").write_text("")
    assert not source.holds(store / "texts.jsonl")
    assert open_vectors(own).holds(tmp_path / "link.parquet")
