"""Texts and vectors in every file format, good and damaged."""

import gzip
import json
import lzma
import tracemalloc
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value

from modeling_embinv.sources import HubPart, parse_hub_spec, read_hub, read_texts
from modeling_embinv.vectors import check_vectors, count_vectors, iter_vectors, read_vector_documents, read_vectors

TEXTS = ["Snow fell on the harbour.", "Zwölf Boxkämpfer jagen Viktor.", "雨が降っています。", "The bill came to 4.50."]
VECTORS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
NAMES = [f"vector {i}" for i in range(len(VECTORS))]


def as_lines(texts):
    return ("\n".join(texts) + "\n\n").encode()


def as_jsonl(texts):
    return "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()


def write_texts(path, texts=TEXTS):
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, lambda data: data)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path, row_group_size=2)
    else:
        path.write_bytes(pack((as_jsonl if ".jsonl" in path.name else as_lines)(texts)))
    return path


def texts_of(*args, **kwargs):
    return [document.text for document in read_texts(*args, **kwargs)]


# Texts

TEXT_FILES = ["a.txt", "a.txt.gz", "a.txt.xz", "a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.parquet"]


@pytest.mark.parametrize("name", TEXT_FILES)
def test_every_text_format(tmp_path, name):
    """Catches a format that loses non-ASCII text, keeps blank lines or changes the order."""
    documents = list(read_texts(write_texts(tmp_path / name)))
    assert [document.text for document in documents] == TEXTS
    assert [document.key for document in documents] == TEXTS
    assert all(document.vector is None for document in documents)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.jsonl", "a.jsonl.xz", "a.parquet"])
def test_truncated_file(tmp_path, name):
    """Catches a half-downloaded file that is read as a shorter corpus, or ends in a page of traceback."""
    path = write_texts(tmp_path / name, [f"{text} {i}" for i in range(200) for text in TEXTS])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(ValueError, match=f"{name}: (corrupt, truncated|line .* .truncated)") as caught:
        texts_of(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.jsonl", "a.parquet"])
def test_corrupt_file(tmp_path, name):
    """Catches bytes that are no such file, for every way in which a reader can notice."""
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe not what the name says \x80")
    with pytest.raises(ValueError, match=f"{name}: corrupt, truncated or no"):
        texts_of(path)


@pytest.mark.parametrize("name", TEXT_FILES)
def test_empty_file(tmp_path, name):
    """Catches an empty file that silently makes the corpus smaller."""
    with pytest.raises(ValueError, match=f"{name}: holds no text"):
        texts_of(write_texts(tmp_path / name, []))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_missing_column_lists_the_present_ones(tmp_path, name):
    """Catches a bare KeyError that leaves the user guessing the column's name."""
    path = write_texts(tmp_path / name)
    assert texts_of(path, column="text") == TEXTS
    with pytest.raises(ValueError, match="no column 'body'; present: id, text"):
        texts_of(path, column="body")
    with pytest.raises(ValueError, match="'id' holds int, not text"):
        texts_of(path, column="id")


def test_null_and_half_surrogates(tmp_path):
    """Catches a crash on null texts, and on the unpaired surrogates that web crawls hold and tokenizers refuse."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": null}\n{"text": "cut \\ud83d here"}\n{"text": "  "}\n')
    assert texts_of(path) == ["cut ? here"]


def test_directory_and_languages(tmp_path):
    """Catches held-out text read as training text: a language is the folder of that name directly below."""
    for name in ("en/b.txt", "en/a.txt.xz", "de/c.jsonl", "heldout/en/d.txt", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_texts(tmp_path / name, [name])
    assert texts_of(tmp_path) == ["de/c.jsonl", "en/a.txt.xz", "en/b.txt", "heldout/en/d.txt"]
    assert texts_of([tmp_path], languages=["en"]) == ["en/a.txt.xz", "en/b.txt"]
    assert texts_of([tmp_path / "en", tmp_path / "de/c.jsonl"]) == ["en/a.txt.xz", "en/b.txt", "de/c.jsonl"]
    with pytest.raises(ValueError, match="no folder 'fr'; present: de, en, heldout"):
        texts_of(tmp_path, languages=["fr"])


def test_wrong_paths_fail_before_reading(tmp_path):
    """Catches a misspelt second path that is noticed only after hours on the first."""
    good = write_texts(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    for wrong, message in (
        ("none.txt", "no such file"),
        ("empty", "holds no .txt"),
        ("a.pdf", "unknown kind of file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_texts([good, tmp_path / wrong])


def test_texts_are_read_lazily(tmp_path):
    """Catches a reader that loads the whole file before it yields the first document."""
    path = write_texts(tmp_path / "a.txt", ["a line of text that repeats"] * 200_000)
    tracemalloc.start()
    assert next(iter(read_texts(path))).text.startswith("a line")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("allenai/c4", [HubPart("allenai/c4")]),
        ("allenai/c4:en", [HubPart("allenai/c4", "en")]),
        ("allenai/c4:en:200000", [HubPart("allenai/c4", "en", 200000)]),
        ("folder::50", [HubPart("folder", None, 50)]),
        ("allenai/c4:en=10,de=5", [HubPart("allenai/c4", "en", 10), HubPart("allenai/c4", "de", 5)]),
    ],
)
def test_hub_spec(spec, parts):
    """Catches a count taken for a configuration, and languages of one spec mixed up."""
    assert parse_hub_spec(spec) == parts


@pytest.mark.parametrize("spec", ["", ":en", "a:en:x", "a:en:0", "a:en=", "a:en=1,de", "a:en,de", "a:en:1:2", "a:"])
def test_bad_hub_spec(spec):
    """Catches a malformed spec that streams a whole data set instead."""
    with pytest.raises(ValueError):
        parse_hub_spec(spec)


def test_hub_reader_on_a_local_folder(tmp_path, monkeypatch):
    """Catches a `count` that is ignored, and library errors that name neither data set nor remedy."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_texts(tmp_path / "train.jsonl")
    assert [document.text for document in read_hub(str(tmp_path))] == TEXTS
    assert [document.text for document in read_hub(str(tmp_path), count=2)] == TEXTS[:2]
    for kwargs, message in (
        ({"column": "body"}, "no column 'body'; present: id, text"),
        ({"split": "test"}, "test"),
        ({"config": "fr"}, "fr"),
    ):
        with pytest.raises(ValueError, match=message):
            list(read_hub(str(tmp_path), **kwargs))
    with pytest.raises(ValueError, match="nobody/none: cannot be read"):
        list(read_hub("nobody/none"))


# Vectors

FLOAT16 = Features({"embedding": List(Value("float16"), length=5), "text": Value("string")})
VECTOR_FILES = ["v.npy", "v.parquet", "v.arrow", "feather.arrow", "v.jsonl", "v.jsonl.xz", "saved"]


def write_vectors(path, vectors=VECTORS):
    rows = {"embedding": [row.tolist() for row in vectors], "text": NAMES[: len(vectors)]}
    if path.suffix == ".npy":
        np.save(path, vectors)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(rows), path, row_group_size=3)
    elif path.name == "feather.arrow":
        with pa.ipc.new_file(path, pa.table(rows).schema) as writer:
            writer.write_table(pa.table(rows), max_chunksize=3)
    elif path.suffix == ".arrow":
        table = Dataset.from_dict(rows, FLOAT16).data.table
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    elif path.name == "saved":
        Dataset.from_dict(rows, FLOAT16).save_to_disk(str(path))
    else:
        lines = "".join(json.dumps({"embedding": e, "text": t}) + "\n" for e, t in zip(*rows.values(), strict=True))
        path.write_bytes(lzma.compress(lines.encode()) if path.suffix == ".xz" else lines.encode())
    return path


@pytest.mark.parametrize("name", VECTOR_FILES)
def test_every_vector_format(tmp_path, name):
    """Catches rows lost or shifted at the border of a batch or row group, and texts beside the wrong vectors."""
    path = write_vectors(tmp_path / name)
    text_column = None if name == "v.npy" else "text"
    vectors, texts = read_vectors(path, text_column=text_column)
    assert vectors.dtype == np.float32 and np.allclose(vectors, VECTORS, atol=2e-3)
    assert texts == (NAMES if text_column else None)
    batches = list(iter_vectors(path, batch_size=2))
    assert max(map(len, batches)) == 2 and np.array_equal(np.concatenate(batches), vectors)
    assert count_vectors(path) == len(VECTORS)
    if text_column:
        documents = list(read_vector_documents(path))
        assert [document.text for document in documents] == NAMES
        assert np.array_equal(np.stack([document.vector for document in documents]), vectors)


@pytest.mark.parametrize("name", VECTOR_FILES[1:])
def test_missing_vector_column(tmp_path, name):
    """Catches an error that does not say which columns there are."""
    path = write_vectors(tmp_path / name)
    with pytest.raises(ValueError, match="no column 'vector'; present: embedding, text"):
        list(iter_vectors(path, column="vector"))
    with pytest.raises(ValueError, match="not lists of numbers|holds string"):
        list(iter_vectors(path, column="text"))


@pytest.mark.parametrize("name", VECTOR_FILES)
def test_file_without_vectors(tmp_path, name):
    """Catches an empty file that crashes later, in a concatenation of nothing."""
    with pytest.raises(ValueError, match="holds no vectors|or an empty one"):
        read_vectors(write_vectors(tmp_path / name, VECTORS[:0]))


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.arrow", "v.jsonl", "v.jsonl.xz"])
def test_truncated_vectors(tmp_path, name):
    """Catches a half-copied file that gives fewer vectors, or garbage, without a word."""
    path = write_vectors(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{name}: (corrupt, truncated|line .* .truncated)"):
        read_vectors(path)


def test_pickled_npy_is_refused(tmp_path):
    """Catches a file from a stranger that runs code when it is opened."""
    path = tmp_path / "v.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled Python objects"):
        read_vectors(path)


def test_shapeless_files(tmp_path):
    """Catches vectors of unequal width that are cut or padded, and a single vector read as N numbers."""
    np.save(tmp_path / "one.npy", VECTORS[0])
    with pytest.raises(ValueError, match=r"shape \(5,\); expected numbers of shape \(N, D\)"):
        read_vectors(tmp_path / "one.npy")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match="row 2 holds 1 numbers, row 0 holds 2"):
        read_vectors(tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match="row 2 holds 1 numbers, the rows before it hold 2"):
        list(iter_vectors(tmp_path / "ragged.parquet", batch_size=2))
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], None]}), tmp_path / "null.parquet")
    with pytest.raises(ValueError, match="row 1 holds no vector"):
        read_vectors(tmp_path / "null.parquet")
    (tmp_path / "mixed.jsonl").write_text('{"embedding": [1.0]}\n{"embedding": "x"}\n')
    with pytest.raises(ValueError, match="do not hold one kind of value"):
        read_vectors(tmp_path / "mixed.jsonl")


def test_places_without_vectors(tmp_path):
    """Catches library errors for a wrong path, for several splits at once, and for texts asked of a bare matrix."""
    DatasetDict({"train": Dataset.from_dict({"embedding": [[1.0]]})}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "folder").mkdir()
    write_vectors(tmp_path / "v.npy")
    for name, message in (
        ("splits", "several splits; give one of its folders: train"),
        ("folder", "no folder that datasets saved"),
        ("none.npy", "no such file"),
        ("none.txt", "no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_vectors(tmp_path / name)
    with pytest.raises(ValueError, match="holds no texts"):
        read_vectors(tmp_path / "v.npy", text_column="text")


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_large_file_is_streamed(tmp_path, name):
    """Catches a batch reader that first loads the whole file (20 MB here, 40 GB in use)."""
    vectors = np.ones((20_000, 256), np.float32)
    if name == "v.npy":
        np.save(tmp_path / name, vectors)
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 256)
        pq.write_table(pa.table({"embedding": lists}), tmp_path / name, row_group_size=1000)
    allocated = pa.total_allocated_bytes()
    tracemalloc.start()
    rows, peak = 0, 0
    for batch in iter_vectors(tmp_path / name, batch_size=500):
        rows += len(batch)
        peak = max(peak, pa.total_allocated_bytes() - allocated)
    assert rows == 20_000
    assert tracemalloc.get_traced_memory()[1] + peak < 8_000_000
    tracemalloc.stop()


def test_check_vectors_accepts_unit_rows():
    """Catches a warning for vectors that are of unit norm but for the rounding of float16."""
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked = check_vectors(unit.astype(np.float16), 5)
    assert checked.dtype == np.float32 and np.allclose(np.linalg.norm(checked, axis=1), 1, atol=1e-6)
    assert np.allclose(checked, unit, atol=1e-3)


def test_check_vectors_scales_and_warns_once():
    """Catches raw vectors fed to a model that was trained on unit ones, and one warning for each of many batches."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for first_row in range(0, 300, 100):
            checked = check_vectors(VECTORS * 1e-25, 5, first_row)
    assert len(caught) == 1 and "unit norm" in str(caught[0].message)
    assert np.allclose(np.linalg.norm(checked, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "row 103 holds NaN or infinity"), (-np.inf, "row 103 holds NaN"), (0, "row 103 is all zeros")],
)
def test_check_vectors_names_the_row(value, message):
    """Catches one bad row that turns a whole batch into NaN, or is named by its place in the batch only."""
    vectors = VECTORS.copy()
    vectors[3] = value
    with pytest.raises(ValueError, match=message):
        check_vectors(vectors, 5, first_row=100)


def test_check_vectors_width():
    """Catches another encoder's vectors that fail deep inside the model."""
    with pytest.raises(ValueError, match=r"\(7, 5\).*expected \(N, 384\)"):
        check_vectors(VECTORS, 384)
