"""LanceDB's folders, written by LanceDB."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, ROWS, TEXTS, VECTORS, check_all, read_all


def connect(path):
    """A database of LanceDB, which takes two seconds to import: each process collects this file, and one needs it."""
    import lancedb

    return lancedb.connect(str(path))


def table(rows=slice(0, ROWS), kind=None):
    kind = kind or pa.float32()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[rows].ravel()).cast(kind), DIM)
    return pa.table({"id": IDS[rows], "text": TEXTS[rows], "vector": vectors})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A table of several versions, one of float16, and an empty one."""
    path = tmp_path_factory.mktemp("lance") / "db"
    database = connect(path)
    docs = database.create_table("docs", pa.concat_tables([table(slice(0, 150)), table(slice(0, 1))]))
    docs.delete("text = 'nothing'")
    docs.delete(f"id = '{IDS[0]}'")
    docs.add(table(slice(150, ROWS)))
    database.create_table("half", table(kind=pa.float16()))
    database.create_table("empty", table(slice(0, 0)))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("lance") / "db"
    docs = connect(path).create_table("docs", table(slice(0, 100)))
    docs.add(table(slice(100, ROWS)))
    return path


def test_what_went_in_comes_out(whole):
    """Fragments that are read side by side would come in another order."""
    check_all(f"lancedb:{whole}", whole)
    check_all(whole, whole)  # recognised
    check_all(f"lancedb:{whole}/docs.lance", whole)


def test_deleted_rows_stay_deleted(store):
    """A deleted row still lies in the data files."""
    found = read_all(f"lancedb:{store}?table=docs")
    assert found.ids == IDS[1:] and np.array_equal(found.vectors, VECTORS[1:])


def test_float16(store):
    """Half precision must come out as float32."""
    found = read_all(f"lancedb:{store}", collection="half")
    assert found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors, VECTORS.astype(np.float16).astype(np.float32))


def test_a_version_is_read_to_its_end(tmp_path):
    """Rows that come in while the table is read would belong to no version of it."""
    docs = connect(tmp_path / "db").create_table("docs", table(slice(0, 100)))
    source = open_vectors(tmp_path / "db")
    batches = source.batches(10)
    next(batches)
    docs.add(table(slice(100, ROWS)))
    assert sum(len(batch.rows) for batch in batches) == 90 and source.count() == 100


@pytest.mark.parametrize(
    "url, message",
    [
        ("", "several tables; name one with --table: docs, empty, half"),
        ("?table=dox", "no table 'dox'; present: docs, empty, half"),
        ("?table=docs&column=vec", "no column 'vec'; present: id, text, vector"),
        ("?table=empty", "holds no vectors"),
        ("/nothing", "no such file or folder"),
        ("?tabel=docs", "no such file or folder; the options behind ? are collection, table, column"),
        ("/docs.lance?table=half", "is one table alone: leave 'half' out"),  # was ignored
    ],
)
def test_mistakes_are_one_line(store, url, message):
    """A traceback of Lance's Rust code helps nobody who mistyped a name."""
    with pytest.raises(EmbInvError) as error:
        read_all(f"lancedb:{store}{url}")
    assert message in str(error.value) and str(error.value).isprintable()


def test_damage_is_one_line(whole, tmp_path):
    """A data file that is cut, a manifest that is gone, and a folder without tables."""
    for name in ("data", "manifest"):
        shutil.copytree(whole, tmp_path / name)
    for file in (tmp_path / "data" / "docs.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    for file in (tmp_path / "manifest" / "docs.lance" / "_versions").iterdir():
        file.unlink()
    for name in ("data", "manifest"):
        with pytest.raises(EmbInvError) as error:
            read_all(f"lancedb:{tmp_path / name}")
        assert str(tmp_path / name) in str(error.value) and str(error.value).isprintable()
    with pytest.raises(EmbInvError, match="holds no table of vectors"):
        open_vectors(f"lancedb:{tmp_path}")
