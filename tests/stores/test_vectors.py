"""Vectors in every file format: good, damaged, and as people have them."""

import base64
import gzip
import json
import lzma
import random
import tracemalloc
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, List, Value
from safetensors.numpy import save_file

from modeling_embinv.data.vector_checks import sample_warnings, width_message
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.rows import VectorBatch
from modeling_embinv.stores.vectors import open_vectors, vector_documents

DIM = 24
VECTORS = np.random.default_rng(0).normal(size=(7, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TEXTS = [f'vector {i},\n"quoted" ü' for i in range(len(VECTORS))]
IDS = [f"doc-{i}" for i in range(len(VECTORS))]
ROWS = [{"id": i, "embedding": v.tolist(), "text": t} for i, v, t in zip(IDS, VECTORS, TEXTS, strict=True)]
FLOAT16 = Features({"id": Value("string"), "embedding": List(Value("float16"), length=DIM), "text": Value("string")})


def rows_of(vectors=VECTORS):
    return [row | {"embedding": vector.tolist()} for row, vector in zip(ROWS, vectors, strict=False)]


def csv_text(cell, header="id,text,embedding", vectors=VECTORS):
    quote = lambda text: '"' + text.replace('"', '""') + '"'  # noqa: E731
    lines = [f"{i},{quote(t)},{quote(cell(v))}" for i, t, v in zip(IDS, TEXTS, vectors, strict=False)]
    return "\n".join([header, *lines]) + "\n"


def postgres(vector):
    return "[" + ",".join(f"{number:.9g}" for number in vector) + "]"


def base64_of(vector):
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def read_vectors(path, **options) -> VectorBatch:
    """All good vectors of a file; options as of `open_vectors`."""
    (batch,) = open_vectors(path, **options).batches(10_000)
    return batch


def write_table(path, vectors=VECTORS):
    """One file of each table format."""
    rows = rows_of(vectors)
    table = pa.Table.from_pylist(rows, schema=None if rows else pa.Table.from_pylist(ROWS).schema)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    elif path.suffix == ".feather":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    elif path.suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    elif path.name == "saved":
        columns = {name: [row[name] for row in rows] for name in FLOAT16}
        Dataset.from_dict(columns, features=FLOAT16).save_to_disk(str(path))
    elif path.suffix == ".csv":
        path.write_text(csv_text(lambda vector: json.dumps(vector.tolist()), vectors=vectors), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, lambda data: data)
        path.write_bytes(pack(lines))
    return path


def test_compressed_text_by_any_spelling(tmp_path):
    """Catches a compressed file that is refused for its capital letters, or without the kinds that are read."""
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    for name, pack in (("v.jsonl.GZ", gzip.compress), ("V.JSONL.XZ", lzma.compress), ("v.json.Gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(data))
        assert read_vectors(tmp_path / name).ids == IDS
    for name in ("v.jsonl.zst", "v.jsonl.bz2", "v.npy.gz"):
        (tmp_path / name).write_bytes(b"packed")
        with pytest.raises(EmbInvError, match="unknown kind of file; .* text files also as .gz or .xz"):
            open_vectors(tmp_path / name)


TABLES = ["v.parquet", "v.feather", "v.arrow", "saved", "v.csv", "v.json", "v.jsonl", "v.jsonl.gz", "v.jsonl.xz"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_gives_the_same_rows(tmp_path, name):
    """Catches rows lost or shifted at the border of a batch or row group, and texts or ids beside other vectors."""
    source = open_vectors(write_table(tmp_path / name), text_column="text")
    for size in (1, 2, 3, 100):
        batches = list(source.batches(size))
        assert [row for batch in batches for row in batch.rows] == list(range(7)) and source.count() == 7
        assert [len(batch.rows) for batch in batches] == [min(size, 7 - first) for first in range(0, 7, size)]
        assert np.allclose(np.concatenate([batch.vectors for batch in batches]), VECTORS, atol=1e-3)
        assert [name for batch in batches for name in batch.ids] == IDS
        assert [text for batch in batches for text in batch.texts] == TEXTS
    assert (source.column, source.id_column, source.width) == ("embedding", "id", DIM)
    documents = list(vector_documents(source))
    assert [document.text for document in documents] == TEXTS and documents[0].vector.dtype == np.float32


# As people have them: name → (content, ids, how exact)


def as_is(path, content):
    path.write_text(content, encoding="utf-8") if isinstance(content, str) else path.write_bytes(content)


def npy(array):
    return lambda path: np.save(path, array)


def npz_under_another_name(path):
    with path.open("wb") as file:  # given a name, numpy would append its own ending
        np.savez(file, VECTORS)


def text(content):
    return lambda path: as_is(path, content)


def dumped(content):
    return text(json.dumps(content))


def lines(rows):
    return text("".join(json.dumps(row) + "\n" for row in rows))


PAIRS = list(zip(IDS, VECTORS, strict=True))
LISTS, NUMBERS = VECTORS.tolist(), [str(i) for i in range(7)]
API = {"object": "list", "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(LISTS)]}
PACKED = API | {"data": [row | {"embedding": base64_of(VECTORS[row["index"]])} for row in API["data"]]}
CHROMA = {"ids": IDS, "embeddings": LISTS, "documents": TEXTS, "metadatas": [{"k": 1}] * 7}
POINTS = {"result": {"points": [{"id": i, "vector": v, "payload": {"text": "t"}} for i, v in enumerate(LISTS)]}}
FOUND = {
    "f16.npy": (npy(VECTORS.astype(np.float16)), None),
    "big_endian.npy": (npy(VECTORS.astype(">f4")), None),
    "f64_fortran.npy": (npy(np.asfortranarray(VECTORS, dtype=np.float64)), None),
    "npz_named.npy": (npz_under_another_name, None),
    "vecs.npz": (lambda path: np.savez(path, embeddings=VECTORS, ids=np.array(IDS)), IDS),
    "packed_fortran.npz": (lambda path: np.savez_compressed(path, x=np.asfortranarray(VECTORS)), None),
    "vecs.safetensors": (lambda path: save_file({"vectors": VECTORS, "ids": np.arange(7)}, path), NUMBERS),
    "pandas.csv": (text(csv_text(lambda v: str(v.tolist()))), IDS),
    "numpy.csv": (text(csv_text(str)), IDS),
    "numpy_repr.csv": (text(csv_text(repr)), IDS),
    "numpy_scalars.csv": (text(csv_text(lambda v: str(list(v)))), IDS),
    "pgvector.csv": (text(csv_text(postgres, "id,content,embedding")), IDS),
    "real_array.csv": (text(csv_text(lambda v: postgres(v).replace("[", "{").replace("]", "}"))), IDS),
    "copy_to.tsv": (text("".join(f"{i}\tone, two\t{postgres(v)}\n" for i, v in PAIRS)), None),
    "semicolons.csv": (text("id;emb\n" + "".join(f"{i};{postgres(v)}\n" for i, v in PAIRS)), IDS),
    "bom_crlf.csv": (text("\ufeff" + csv_text(postgres).replace("\n", "\r\n")), IDS),
    "matrix.csv": (lambda path: np.savetxt(path, VECTORS, delimiter=","), None),
    "matrix_of_pandas.csv": (
        text(",".join(map(str, range(DIM))) + "\n" + "".join(postgres(v)[1:-1] + "\n" for v in VECTORS)), None,
    ),
    "wide.csv": (
        text("id," + ",".join(f"dim_{i}" for i in range(DIM)) + "\n"
             + "".join(f"{i},{postgres(v)[1:-1]}\n" for i, v in PAIRS)), IDS,
    ),
    "packed.csv.gz": (text(gzip.compress(csv_text(postgres).encode())), IDS),
    "openai.json": (dumped(API), NUMBERS),
    "openai_b64.json": (dumped(PACKED), NUMBERS),
    "chroma_get.json": (dumped(CHROMA), IDS),
    "qdrant.json": (dumped(POINTS), NUMBERS),
    "pinecone_fetch.json": (dumped({"vectors": {i: {"values": v} for i, v in zip(IDS, LISTS, strict=True)}}), IDS),
    "pinecone_fetch_usage.json": (
        dumped({"usage": {"units": [1]}, "vectors": {i: {"values": v} for i, v in zip(IDS, LISTS, strict=True)}}),
        IDS,
    ),
    "by_id.json": (dumped(dict(zip(IDS, LISTS, strict=True))), IDS),
    "cohere.json": (dumped({"embeddings": {"float": LISTS}, "texts": TEXTS}), None),
    "of_pandas.json": (
        dumped({"id": dict(zip(NUMBERS, IDS, strict=True)), "vector": dict(zip(NUMBERS, LISTS, strict=True))}), IDS,
    ),
    "list_of_lists.json": (dumped(LISTS), None),
    "indented.json": (text(json.dumps(ROWS, indent=2)), IDS),
    "lines.json": (lines(ROWS), IDS),
    "pinecone.jsonl": (lines({"id": i, "values": v} for i, v in zip(IDS, LISTS, strict=True)), IDS),
    "nested.jsonl": (lines({"_id": i, "vector": {"default": v}} for i, v in zip(IDS, LISTS, strict=True)), IDS),
    "bare.jsonl": (lines(LISTS), None),
    "bare_lines.json": (lines(LISTS), None),
    "base64.jsonl": (lines({"id": i, "emb": base64_of(v)} for i, v in PAIRS), IDS),
    "struct.parquet": (
        lambda path: pq.write_table(pa.table({"id": IDS, "vector": [{"default": v, "n": 1} for v in LISTS]}), path),
        IDS,
    ),
    "as_text.parquet": (
        lambda path: pq.write_table(pa.table({"uuid": IDS, "Embedding": [postgres(v) for v in VECTORS]}), path), IDS,
    ),
    "only_list.parquet": (lambda path: pq.write_table(pa.table({"id": IDS, "minilm": LISTS}), path), IDS),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FOUND))
def test_files_as_people_have_them(tmp_path, name):
    """Catches a container, layout or notation that is refused, transposed or read as other numbers."""
    write, ids = FOUND[name]
    write(tmp_path / name)
    source = open_vectors(tmp_path / name, dim=DIM)
    vectors = np.concatenate([batch.vectors for batch in source.batches(3)])
    assert vectors.dtype == np.float32 and vectors.dtype.isnative
    assert np.allclose(vectors, VECTORS, atol=1e-3 if "f16" in name else 2e-8)
    assert source.count() == 7 and not source.skipped.count
    assert [i for batch in source.batches(3) for i in batch.ids or [None]] == (ids or [None] * 3)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".json"])
def test_one_vector_alone(tmp_path, suffix):
    """Catches a single vector that is taken for N vectors of one number."""
    path = tmp_path / f"one{suffix}"
    {
        ".npy": npy(VECTORS[0]),
        ".npz": lambda path: np.savez(path, emb=VECTORS[0]),
        ".safetensors": lambda path: save_file({"emb": VECTORS[0]}, path),
        ".json": dumped(LISTS[0]),
    }[suffix](path)
    assert np.array_equal(read_vectors(path, dim=DIM).vectors, VECTORS[:1])
    assert open_vectors(path).count() == 1


def test_bfloat16_and_half_precision_tensors(tmp_path):
    """Catches a dtype that numpy does not have, in which models save their vectors."""
    from safetensors.torch import save_file as save_tensors

    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        save_tensors({"x": torch.from_numpy(VECTORS).to(dtype)}, tmp_path / "v.safetensors")
        assert np.allclose(read_vectors(tmp_path / "v.safetensors").vectors, VECTORS, atol=4e-3)


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("name", ["v.parquet", "v.jsonl"])
def test_bytes_and_base64_of_any_floats(tmp_path, kind, name):
    """Catches float64 and float16 being read as float32, and float32 with few digits being taken for another kind."""
    exact = VECTORS.astype(np.float16) if kind == "<f2" else np.rint(VECTORS * 8) / 8 if kind == "<f4" else VECTORS
    packed = [vector.astype(kind).tobytes() for vector in exact]
    if name == "v.parquet":
        pq.write_table(pa.table({"id": IDS, "embedding": packed}), tmp_path / name)
    else:
        lines({"id": i, "embedding": base64.b64encode(data).decode()} for i, data in zip(IDS, packed, strict=True))(
            tmp_path / name
        )
    source = open_vectors(tmp_path / name, column="embedding")
    for size in (1, 100):
        assert np.array_equal(np.concatenate([batch.vectors for batch in source.batches(size)]), exact)
    assert source.width == DIM


RAW = [vector.tobytes() for vector in VECTORS]
PRINTED = [postgres(vector) for vector in VECTORS]
ARROW_COLUMNS = {
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(PRINTED)),  # as DuckDB's COPY writes it
    "dictionary": pa.array(PRINTED).dictionary_encode(),
    "string_view": pa.array(PRINTED, pa.string_view()),
    "binary": pa.array(RAW),
    "large_binary": pa.array(RAW, pa.large_binary()),
    "binary_view": pa.array(RAW, pa.binary_view()),
    "fixed_size_binary": pa.array(RAW, pa.binary(4 * DIM)),
    "list_view": pa.array(LISTS, pa.list_view(pa.float32())),
    "large_list_view": pa.array(LISTS, pa.large_list_view(pa.float64())),
}


@pytest.mark.parametrize(
    "kind, suffix",
    [
        (kind, suffix)
        for kind in ARROW_COLUMNS
        for suffix in (".parquet", ".arrow")
        if suffix == ".arrow" or "list_view" not in kind  # parquet has none
    ],
)
def test_every_arrow_type_of_texts_bytes_and_lists(tmp_path, kind, suffix):
    """Catches vectors under a usual name that are no vectors as their texts are JSON, or their bytes a view."""
    column = ARROW_COLUMNS[kind]
    table = pa.table({"id": IDS, "embedding": pa.chunked_array([column[:4], column[4:]])})
    if suffix == ".parquet":
        pq.write_table(table, tmp_path / "v.parquet")
    else:
        with pa.ipc.new_file(tmp_path / "v.arrow", table.schema) as writer:
            writer.write_table(table)
    source = open_vectors(tmp_path / f"v{suffix}")
    vectors = np.concatenate([batch.vectors for batch in source.batches(3)])
    assert source.column == "embedding" and np.allclose(vectors, VECTORS, atol=1e-8)


def test_a_list_view_with_nulls(tmp_path):
    """Catches the numbers of one row in another: the lists of a view lie in any order."""
    table = pa.table({"emb": pa.array([LISTS[0], None, [], LISTS[1]], pa.list_view(pa.float32()))})
    with pa.ipc.new_file(tmp_path / "v.arrow", table.schema) as writer:
        writer.write_table(table.take([3, 1, 0, 2]))
    source = open_vectors(tmp_path / "v.arrow")
    (batch,) = source.batches()
    assert np.allclose(batch.vectors, VECTORS[[1, 0]]) and batch.rows.tolist() == [0, 2]


# Columns


def test_the_choice_of_a_column_is_said(tmp_path, caplog):
    """Catches the wrong one of two columns being inverted without a word."""
    pq.write_table(pa.table({"values": LISTS, "vector": LISTS[::-1], "key": IDS}), tmp_path / "two.parquet")
    with caplog.at_level("INFO", "modeling_embinv"):
        source = open_vectors(tmp_path / "two.parquet", id_column="key")
    assert source.column == "vector" and np.array_equal(next(source.batches()).vectors, VECTORS[::-1])
    assert "vectors in column 'vector'; ids in column 'key'" in caplog.text
    assert np.array_equal(read_vectors(tmp_path / "two.parquet", column="values").vectors, VECTORS)


def test_of_several_columns_the_one_of_the_expected_width_is_read(tmp_path):
    """Catches a question which column is meant where only one has the encoder's width, and a refusal by its name."""
    wide, dim = [[0.5] * 9] * 7, len(LISTS[0])
    pq.write_table(pa.table({"title_vec": wide, "body_vec": LISTS}), tmp_path / "two.parquet")
    assert open_vectors(tmp_path / "two.parquet", dim=dim).column == "body_vec"
    with pytest.raises(ValueError, match="several columns hold vectors: title_vec, body_vec; name one with --column$"):
        open_vectors(tmp_path / "two.parquet", dim=dim + 1)
    pq.write_table(pa.table({"embedding": wide, "mini": LISTS}), tmp_path / "usual.parquet")
    assert open_vectors(tmp_path / "usual.parquet", dim=dim).column == "mini"
    lines({"vector": {"title": v, "body": w}} for v, w in zip(LISTS, wide, strict=True))(tmp_path / "v.jsonl")
    assert open_vectors(tmp_path / "v.jsonl", column="vector", dim=9).column == "vector.body"


def test_columns_that_could_be_meant(tmp_path):
    """Catches a guess between two columns, and an error that does not say which ones there are."""
    path = tmp_path / "v.jsonl"
    lines({"vector": {"title": v, "body": v}, "metadata": {"x": {"text": "t"}}} for v in LISTS)(path)
    with pytest.raises(ValueError, match=r"several columns hold vectors: vector.title, vector.body; name one"):
        open_vectors(path)
    with pytest.raises(ValueError, match=r"several columns hold vectors"):
        open_vectors(path, column="vector")
    with pytest.raises(ValueError, match="no column 'body'; present: vector.title, vector.body, metadata.x.text"):
        open_vectors(path, column="body")
    assert read_vectors(path, column="vector.body", text_column="metadata.x.text").texts == ["t"] * 7
    assert read_vectors(path, column="vector.body", text_column=True).texts == ["t"] * 7
    (tmp_path / "none.csv").write_text("some,words\n1,2\n")
    with pytest.raises(ValueError, match="no column of vectors; present: some, words"):
        open_vectors(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="holds no texts; columns: index"):
        dumped({"data": [{"index": 0, "embedding": LISTS[0]}]})(tmp_path / "v.json")
        open_vectors(tmp_path / "v.json", text_column=True)


def test_ids_of_bytes_in_arrays(tmp_path):
    """Catches ids of numpy's type S that come back as their hexadecimal digits."""
    ids, texts = np.char.encode(IDS, "utf-8"), np.char.encode(TEXTS, "utf-8")
    np.savez(tmp_path / "v.npz", embeddings=VECTORS, ids=ids, text=texts)
    found = read_vectors(tmp_path / "v.npz", text_column=True)
    assert found.ids == IDS and found.texts == TEXTS


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_numbers_that_are_kept_as_floats(tmp_path, dtype):
    """Beside a missing id, pandas keeps whole numbers as floats: id 1 came back as 1.0, and a missing one as nan."""
    numbers = np.array([0, 1, -2, np.nan, 2.5, np.inf, 2048], dtype)
    np.savez(tmp_path / "v.npz", embeddings=VECTORS, ids=numbers)
    pq.write_table(pa.table({"id": numbers, "embedding": LISTS}), tmp_path / "v.parquet")
    for name in ("v.npz", "v.parquet"):
        assert read_vectors(tmp_path / name).ids == ["0", "1", "-2", None, "2.5", "inf", "2048"]


@pytest.mark.parametrize(
    "written, read",
    [
        (["1.0", "", "0.0", "-2.0"], ["1", None, "0", "-2"]),
        (["1.0", "", "9007199254740992.0"], ["1", None, "9007199254740992.0"]),  # which of two numbers it was?
        (["1.0", "1.1", "2.0"], ["1.0", "1.1", "2.0"]),  # versions
        (["1.0", "02.0"], ["1.0", "02.0"]),
        (["", ""], [None, None]),
    ],
)
@pytest.mark.parametrize("mark", [",", "\t"])
def test_whole_numbers_that_csv_keeps_as_floats(tmp_path, written, read, mark):
    """What pandas writes beside a missing id kept its point: id 1 of the store was looked for as 1.0."""
    rows = [f'{name}{mark}"{row}"\n' for name, row in zip(written, LISTS, strict=False)]
    (tmp_path / "v.csv").write_text(f"id{mark}embedding\n{''.join(rows)}")
    assert read_vectors(tmp_path / "v.csv").ids == read


def test_numbers_in_texts_are_as_they_stand(tmp_path):
    """An id that is a text in its file, as in JSON, is that text; and so is a text of csv."""
    lines({"id": "1.0", "embedding": row} for row in LISTS)(tmp_path / "v.jsonl")
    assert set(read_vectors(tmp_path / "v.jsonl").ids) == {"1.0"}
    (tmp_path / "v.csv").write_text(f'id,text,embedding\n1.0,3.0,"{LISTS[0]}"\n,4.0,"{LISTS[1]}"\n')
    found = read_vectors(tmp_path / "v.csv", text_column=True)
    assert found.ids == ["1", None] and found.texts == ["3.0", "4.0"]


def test_floats_that_stand_for_several_whole_numbers(tmp_path):
    """From 2^53 a float no longer says which id it was: digits that look exact would name another row."""
    numbers = np.array([2**53 - 1, 2**53, 2**53 + 1, 0, 0, 0, 0], np.float64)
    np.savez(tmp_path / "v.npz", embeddings=VECTORS, ids=numbers)
    assert read_vectors(tmp_path / "v.npz").ids[:3] == ["9007199254740991", *["9007199254740992.0"] * 2]


@pytest.mark.parametrize("name", ["v.npz", "v.safetensors"])
def test_arrays_of_another_shape_are_no_ids(tmp_path, name):
    """Catches a number that is called index, or a matrix called uuid, which ended a run that asked for neither."""
    save = np.savez if name == "v.npz" else lambda path, **arrays: save_file(arrays, path)
    odd = {"index": np.array(3), "ids": np.arange(8), "uuid": np.ones((7, 16), np.uint8), "_id": np.arange(7)[:, None]}
    save(tmp_path / name, emb_of_mini=VECTORS, **odd)
    source = open_vectors(tmp_path / name, column="emb_of_mini")
    assert source.id_column == "_id" and next(source.batches()).ids == NUMBERS
    save(tmp_path / name, x=VECTORS, id=np.arange(7)[:, None], text=np.arange(3))
    source = open_vectors(tmp_path / name)
    assert source.column == "x" and next(source.batches()).ids == NUMBERS
    with pytest.raises(EmbInvError, match="holds no texts"):
        open_vectors(tmp_path / name, text_column=True)
    with pytest.raises(EmbInvError, match=r"'text' is of shape \(3,\), for 7 vectors"):
        read_vectors(tmp_path / name, id_column="text")


@pytest.mark.parametrize("mark, other", [(";", ","), (",", ";")])
def test_the_mark_between_cells_is_the_commonest(tmp_path, mark, other):
    """Catches a comma in the name of a column that is taken for the mark between the cells."""
    body = "".join(f'{i}{mark}t{mark}"{v}"\n' for i, v in zip(IDS, LISTS, strict=True))
    text(f"id{mark}text{other} german{mark}embedding\n{body}")(tmp_path / "v.csv")
    found = read_vectors(tmp_path / "v.csv", text_column=f"text{other} german")
    assert found.ids == IDS and np.allclose(found.vectors, VECTORS) and found.texts == ["t"] * 7
    text(body)(tmp_path / "bare.csv")
    assert np.allclose(read_vectors(tmp_path / "bare.csv").vectors, VECTORS)
    text(body.replace('"', "") if mark == ";" else body)(tmp_path / "bare.csv")
    assert np.allclose(read_vectors(tmp_path / "bare.csv").vectors, VECTORS)


def nested(*names, **columns):
    """Objects of these names, each with the same columns and an id."""
    return {name: {"ids": [f"{name}{row}" for row in range(7)]} | columns for name in names}


def test_columns_of_one_object_are_not_mixed_with_those_of_another(tmp_path):
    """Catches the second of two objects overwriting the columns of the first, and ids beside other vectors."""
    queries = {"queries": {"ids": IDS, "embeddings": LISTS[::-1]}, "docs": {"embeddings": LISTS, "texts": TEXTS}}
    for content, names in (
        (nested("train", "test", embeddings=LISTS, texts=TEXTS), "train, test"),
        (queries, "queries, docs"),
    ):
        dumped(content)(tmp_path / "v.json")
        with pytest.raises(EmbInvError, match=f"v.json: several objects hold vectors: {names}; write each to a file"):
            open_vectors(tmp_path / "v.json")
    boxes = {"boxes": [[0, 0, 1, 1]] * 9, "ids": IDS[::-1], "texts": TEXTS}
    dumped({"meta": boxes, "result": {"ids": IDS, "embeddings": LISTS}, "text": TEXTS})(tmp_path / "v.json")
    source = open_vectors(tmp_path / "v.json", text_column=True)
    (batch,) = source.batches()
    assert (source.column, source.id_column, source.text_column) == ("result.embeddings", "result.ids", "text")
    assert batch.ids == IDS and batch.texts == TEXTS and np.allclose(batch.vectors, VECTORS)


@pytest.mark.parametrize("is_mapping", [False, True])
def test_several_lists_of_rows(tmp_path, is_mapping):
    """Catches the first of two lists of rows, or objects of rows by their ids, being read as if it were all."""
    rows = {row["id"]: {"embedding": row["embedding"]} for row in ROWS} if is_mapping else ROWS
    usage = {"usage": {"units": {"shape": [7]}}} | ({} if is_mapping else {"units": [{"shape": [7, 3]}]})
    dumped(usage | {"train": rows})(tmp_path / "v.json")
    assert read_vectors(tmp_path / "v.json").ids == IDS
    dumped(usage | {"train": rows, "more": {"test": rows}})(tmp_path / "v.json")
    with pytest.raises(EmbInvError, match="several .* hold vectors: train, more.test; write each to a file of"):
        open_vectors(tmp_path / "v.json")


def test_columns_by_row_number_are_paired_by_it(tmp_path):
    """Catches texts beside other vectors where pandas' columns have their rows in another order, or lack some."""
    vectors = {str(row): LISTS[row] for row in (3, 1, 2)}
    dumped({"embedding": vectors, "text": {"1": "one", "9": "nine", "3": "three"}})(tmp_path / "v.json")
    found = read_vectors(tmp_path / "v.json", text_column=True)
    assert found.ids == ["3", "1", "2"] and found.texts == ["three", "one", ""]
    assert np.allclose(found.vectors, VECTORS[[3, 1, 2]])
    dumped({"embedding": vectors, "uuid": {"1": "one", "2": "two", "3": "three"}})(tmp_path / "v.json")
    assert read_vectors(tmp_path / "v.json").ids == ["three", "one", "two"]


@pytest.mark.parametrize("name", TABLES)
def test_a_column_of_text_is_no_vector(tmp_path, name):
    """Catches a text column that is read as numbers, and a missing one whose error does not list the present ones."""
    path = write_table(tmp_path / name)
    with pytest.raises(ValueError, match="no column 'vector'; present: id, (embedding, text|text, embedding)"):
        open_vectors(path, column="vector")
    with pytest.raises(
        ValueError, match="7 rows without a usable vector: row 0 holds text that is no list of numbers"
    ):
        read_vectors(path, column="text")


# Bad rows


def with_bad_rows(kind):
    bad = [[float("nan")] + [1.0] * (DIM - 1), [0.0] * DIM, [float("inf")] * DIM, [1.0] * (DIM - 1)]
    return [*LISTS[:2], *bad, *LISTS[2:]]


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet", ".csv"])
def test_bad_rows_are_skipped_counted_and_listed(tmp_path, suffix):
    """Catches a bad row that stops the work, goes unseen, shifts the row numbers, or turns a whole batch into NaN."""
    rows = with_bad_rows(suffix)
    if suffix == ".npy":
        rows = [row for row in rows if len(row) == DIM]
        np.save(tmp_path / "v.npy", np.array(rows, np.float32))
    elif suffix == ".jsonl":
        rows = [*rows, None]
        lines({"embedding": row} if row else {"other": 1} for row in rows)(tmp_path / "v.jsonl")
    elif suffix == ".parquet":
        rows = [*rows, None]
        pq.write_table(pa.table({"embedding": rows}), tmp_path / "v.parquet", row_group_size=3)
    else:
        text("id,embedding\n" + "".join(f'a,"{row}"\n' for row in rows) + "cut,1,2\nempty,\n")(tmp_path / "v.csv")
        rows += [None, None]
    source = open_vectors(tmp_path / f"v{suffix}", dim=DIM)
    good = [index for index, row in enumerate(rows) if row in LISTS]
    for size in (1, 4, 100):
        batches = list(source.batches(size))
        assert [row for batch in batches for row in batch.rows] == good
        assert np.array_equal(np.concatenate([batch.vectors for batch in batches]), VECTORS)
        assert all(k * size <= row < (k + 1) * size for k, batch in enumerate(batches) for row in batch.rows)
        assert source.skipped.count == source.count() - 7 == len(rows) - 7
    reasons = dict(source.skipped.examples)
    assert reasons[2] == "holds NaN or infinity" and reasons[3] == "is all zeros" and "infinity" in reasons[4]
    if suffix != ".npy":
        assert reasons[5] == f"holds {DIM - 1} numbers, not {DIM}"
    assert "row 2 holds NaN or infinity; row 3 is all zeros" in str(source.skipped)
    with pytest.raises(ValueError, match=r"row 2 holds NaN or infinity$"):
        read_vectors(tmp_path / f"v{suffix}", dim=DIM, strict=True)


@pytest.mark.parametrize(
    "rows, message",
    [
        ({"limit": -1}, "limit must be a whole number of at least 1, or None, got -1"),
        ({"limit": 0}, "limit must be .* got 0"),
        ({"sample": -1}, "sample must be a whole number of at least 1"),
        ({"sample": 2.5}, "sample must be .* got 2.5"),
        ({"limit": 1, "sample": 2}, "give one of the two"),
    ],
)
def test_an_impossible_selection_is_one_line(tmp_path, rows, message):
    """A sample of -1 rows ended in numpy's error, a limit of -1 left a row out, and of both one was ignored."""
    np.save(tmp_path / "v.npy", VECTORS)
    with pytest.raises(EmbInvError, match=message):
        open_vectors(tmp_path / "v.npy").select(**rows)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
@pytest.mark.parametrize("name", ["column", "id_column"])
def test_a_column_of_a_file_without_names_is_refused(tmp_path, suffix, name):
    """`--column` was ignored, and `--id-column` said that a column `str` was present."""
    path = tmp_path / f"v{suffix}"
    np.save(path, VECTORS) if suffix == ".npy" else np.savetxt(path, VECTORS, delimiter=",")
    with pytest.raises(EmbInvError, match="no column 'nope': its columns have no names"):
        open_vectors(path, **{name: "nope"})


def test_a_width_that_no_row_has_is_not_said(tmp_path):
    """An empty file was said to hold "vectors of 384 numbers", the checkpoint's."""
    (tmp_path / "v.jsonl").write_text("")
    assert open_vectors(tmp_path / "v.jsonl", dim=DIM).describe() == "its first rows hold no vector"
    assert open_vectors(write_table(tmp_path / "w.csv"), dim=DIM).describe().startswith(f"vectors of {DIM} numbers")


@pytest.mark.parametrize("source", [None, 3, b"v.npy", "", " "])
def test_what_names_no_source_is_one_line(source):
    """An empty variable of a script was taken for the folder in which it ran, and None ended in a TypeError."""
    with pytest.raises(EmbInvError, match="vectors must be a file, a folder or a store's URL, got"):
        open_vectors(source)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_collection_of_a_file_is_refused(tmp_path, suffix):
    """`--collection` of a file that has none was ignored: somebody meant a store, and got other vectors."""
    write_table(tmp_path / f"v{suffix}")
    with pytest.raises(EmbInvError, match="has no collections or tables: leave 'support' out"):
        open_vectors(tmp_path / f"v{suffix}", collection="support")


def test_bad_rows_behind_the_limit_do_not_count(tmp_path):
    """With more bad rows than are listed, those behind the limit were counted, too; and `strict` failed on one."""
    rows = np.concatenate([np.zeros((30, DIM)), VECTORS, np.zeros((50, DIM)), VECTORS, np.zeros((9, DIM))])
    np.save(tmp_path / "v.npy", rows)
    for limit, bad in ((5, 30), (7, 30), (8, 80), (14, 80), (15, 89)):
        for size in (1, 4, 33, 1024):
            source = open_vectors(tmp_path / "v.npy")
            source.select(limit=limit)
            assert sum(len(batch.rows) for batch in source.batches(size)) == min(limit, 14)
            assert source.skipped.count == bad and [row for row, _ in source.skipped.examples] == list(range(20))
    np.save(tmp_path / "v.npy", rows[30:])
    for limit, is_good in ((6, True), (7, True), (8, False)):
        source = open_vectors(tmp_path / "v.npy", strict=True)
        source.select(limit=limit)
        if is_good:
            assert len(next(source.all_batches(100)).rows) == 14
            assert sum(len(batch.rows) for batch in source.batches(100)) == limit
        else:
            with pytest.raises(EmbInvError, match="row 7 is all zeros"):
                list(source.batches(100))


def test_all_rows_bad(tmp_path):
    """Catches an empty result that looks like success, and a list of reasons as long as the file."""
    np.save(tmp_path / "v.npy", np.zeros((5000, DIM)))
    with pytest.raises(ValueError, match="5,000 rows without a usable vector: row 0 is all zeros.*and 4,995 more$"):
        read_vectors(tmp_path / "v.npy")


def test_tiny_vectors_are_no_zeros(tmp_path):
    """Catches norms in float32, where the square of 1e-25 vanishes."""
    np.save(tmp_path / "v.npy", VECTORS * 1e-25)
    assert len(read_vectors(tmp_path / "v.npy").rows) == 7


def test_the_width_of_most_rows_counts_when_none_is_expected(tmp_path):
    """Catches a first row of another width that makes all others bad."""
    lines({"embedding": row} for row in [[1.0, 2.0], *LISTS])(tmp_path / "v.jsonl")
    source = open_vectors(tmp_path / "v.jsonl")
    assert source.width == DIM and [batch.rows.tolist() for batch in source.batches()] == [list(range(1, 8))]


@pytest.mark.parametrize(
    "width, looks",
    [
        (48, "48 = 384 / 8: these look like packed bits"),
        (256, "cut to their first 256 numbers"),
        (768, "another encoder .*bge-base"),
        (400, "another encoder$"),
        (2, "another encoder$"),  # nobody cuts vectors to two numbers
    ],
)
def test_another_width_names_the_encoder_and_what_it_looks_like(tmp_path, width, looks):
    """Catches an error about shapes from within the network, and one that leaves the user guessing."""
    np.save(tmp_path / "v.npy", np.ones((3, width), np.uint8 if width == 48 else np.float32))
    with pytest.raises(ValueError, match=f"vectors of {width} numbers; expected 384, those of some/encoder.*{looks}"):
        open_vectors(tmp_path / "v.npy", dim=384, encoder="some/encoder")
    assert "\n" not in width_message(width, 384)


def test_another_width_of_the_first_rows_is_said_of_them(tmp_path):
    """A file whose later rows fit was refused as if all of its rows were of another width."""
    lines({"embedding": row} for row in [[1.0, 2.0]] * 100 + LISTS)(tmp_path / "v.jsonl")
    with pytest.raises(ValueError, match=rf"v.jsonl: its first rows hold vectors of 2 numbers; expected {DIM}"):
        open_vectors(tmp_path / "v.jsonl", dim=DIM)
    lines({"embedding": row} for row in [[1.0, 2.0]] * 9)(tmp_path / "v.jsonl")
    with pytest.raises(ValueError, match=rf"v.jsonl: vectors of 2 numbers; expected {DIM}"):
        open_vectors(tmp_path / "v.jsonl", dim=DIM)


def test_a_sample_that_no_encoder_gives():
    """Catches differences, signs and unsigned integers that are inverted as if they were embeddings."""
    assert sample_warnings(VECTORS, "some/encoder") == sample_warnings(VECTORS.astype(np.float16), None) == []
    (line,) = sample_warnings(VECTORS[:1] - VECTORS[1:2], "some/encoder")
    assert "not 1 like those of some/encoder" in line and "difference" in line
    assert any("signs" in line for line in sample_warnings(np.sign(VECTORS), None))
    assert any("unsigned" in line for line in sample_warnings(np.rint(VECTORS * 99) + 128, None))
    assert all("length" in line for line in sample_warnings(np.rint(VECTORS * 99), None))  # int8 is as good as floats


# What is refused


@pytest.mark.parametrize("name", [*TABLES, "v.npy", "v.npz", "v.safetensors"])
def test_file_without_vectors(tmp_path, name):
    """Catches an empty file that crashes later, in a concatenation of nothing."""
    path = tmp_path / name
    if name in TABLES:
        write_table(path, VECTORS[:0])
    else:
        {
            "v.npy": npy(VECTORS[:0]),
            "v.npz": lambda path: np.savez(path, x=VECTORS[:0]),
            "v.safetensors": lambda path: save_file({"x": VECTORS[:0]}, path),
        }[name](path)
    message = "holds no vectors"
    if name == "saved":  # datasets 4.2 loads what later ones refuse
        message += "|no folder that datasets saved, or an empty one"
    with pytest.raises(ValueError, match=f"{name}: ({message})"):
        read_vectors(path)


@pytest.mark.parametrize(
    "name, message",
    {
        "v.parquet": "corrupt, truncated or no .parquet file",
        "v.arrow": "corrupt, truncated or no .arrow file",
        "v.feather": "corrupt, truncated or no .feather file",
        "v.csv": r"line 15 is not csv \(truncated\?\)",
        "v.json": r"is not JSON \(truncated\?\)",
        "v.jsonl": r"line 7 is not JSON \(truncated\?\)",
        "v.jsonl.gz": "corrupt, truncated or no .jsonl file",
        "v.npy": "corrupt or truncated: its header says .* 672 bytes, and 632 follow",
        "v.npz": "corrupt, truncated or no .npz file",
        "v.safetensors": "corrupt, truncated or no .safetensors file",
    }.items(),
)
def test_truncated_vectors(tmp_path, name, message):
    """Catches a half-copied file that gives fewer vectors, or garbage, without a word."""
    path = tmp_path / name
    if name in TABLES:
        write_table(path)
    elif name == "v.npy":
        np.save(path, VECTORS)
    elif name == "v.npz":
        np.savez(path, VECTORS)
    else:
        save_file({"x": VECTORS}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
        read_vectors(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_under_the_name_of_npy(tmp_path):
    """A message of numpy's about its magic string, which says nothing to most people."""
    (tmp_path / "v.npy").write_text("id,embedding")
    with pytest.raises(ValueError, match=r"v.npy: is no .npy file: it does not begin as one"):
        read_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("name", ["matrix.csv", "semicolons.csv", "copy_to.tsv"])
def test_a_csv_cut_within_its_last_row(tmp_path, name):
    """Catches a cut that leaves no open quote, so that the last row only looks bad."""
    FOUND[name][0](tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"{name}: truncated: its last row ends too early"):
        read_vectors(tmp_path / name)


@pytest.mark.parametrize("begin", ["[NAME] paid the bill", "[2024] was a good year", "{A} and {B} met", "[1] Smith"])
def test_a_text_in_brackets_is_no_cut_vector(tmp_path, begin):
    """Redacted texts begin with a mark: the last one, without an end of line, was taken for half a vector."""
    texts = [f"{begin} {row}" for row in range(7)]
    rows = [f'{i},"{v}",{t}' for i, v, t in zip(IDS, LISTS, texts, strict=True)]
    for end in ("", "\n"):
        text("\n".join(["id,mini,text", *rows]) + end)(tmp_path / "v.csv")
        source = open_vectors(tmp_path / "v.csv", text_column=True)
        (batch,) = source.batches()
        assert source.column == "mini" and batch.texts == texts and np.allclose(batch.vectors, VECTORS)


@pytest.mark.parametrize("cut", ["before the end mark", "between two batches"])
@pytest.mark.parametrize("where", ["file", "folder"])
def test_an_arrow_stream_cut_between_batches(tmp_path, cut, where):
    """Catches four of five batches that come back as if they were the whole file."""
    path = write_table(tmp_path / ("v.arrow" if where == "file" else "saved"))
    stream = path if where == "file" else path / "data-00000-of-00001.arrow"
    whole = stream.read_bytes()
    stop = len(whole) - 8 if cut == "before the end mark" else whole.rindex(b"\xff\xff\xff\xff", 0, len(whole) - 8)
    stream.write_bytes(whole[:stop])
    with pytest.raises(ValueError, match="the mark at its end is missing"):
        read_vectors(path)
    stream.write_bytes(whole[:stop] + whole[-8:] + whole[stop:])  # an end mark too early
    if where == "file":  # datasets maps what comes before the mark
        with pytest.raises(ValueError, match="the stream ends before the file does"):
            read_vectors(path)


@pytest.mark.parametrize("name", ["v.pt", "v.pth", "v.bin", "v.pkl", "v.pickle", "v.npy", "v.npz", "unknown.dat"])
def test_pickles_are_refused_with_the_line_that_converts_them(tmp_path, name):
    """Catches a file from a stranger that runs code when it is opened, and a line that does not work."""
    import pickle

    path = tmp_path / name
    if path.suffix in (".pt", ".pth", ".bin"):
        torch.save(torch.from_numpy(VECTORS), path)
    elif path.suffix == ".npy":
        np.save(path, np.array([*VECTORS, None], dtype=object)[:-1], allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, embeddings=VECTORS, ids=np.array(IDS, dtype=object))
    else:
        path.write_bytes(pickle.dumps(LISTS))
    with pytest.raises(ValueError, match="holds pickled Python objects, which can run code") as caught:
        open_vectors(path)
    line = str(caught.value).partition("convert it: ")[2]
    before = set(tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the line leaves closing to the end of its process
        exec(line)  # the file is this test's own
    (new,) = set(tmp_path.iterdir()) - before
    assert np.array_equal(read_vectors(new).vectors, VECTORS)


@pytest.mark.parametrize(
    "cell, message",
    [
        (lambda v: np.array2string(v, threshold=5).strip("[]"), "shortened when they were printed"),
        (lambda v: np.array2string(v, precision=2).strip("[]"), "fewer than 4 digits"),
        (lambda v: np.array2string(v, threshold=5), "shortened when they were printed"),
        (lambda v: str(torch.from_numpy(v)), "shortened when they were printed"),
        (lambda v: np.array2string(v, precision=2), "fewer than 4 digits"),
    ],
)
def test_vectors_that_printing_has_shortened(tmp_path, cell, message):
    """Catches three numbers, three dots and three numbers being read as a vector of six."""
    text(csv_text(cell))(tmp_path / "v.csv")
    with pytest.raises(ValueError, match=message):
        open_vectors(tmp_path / "v.csv")


@pytest.mark.parametrize(
    "words",
    [
        "Error: request timed out...",
        "Error: the request timed out. It was tried 3 times.",
        "pending…",
        "[NAME] ... left",
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_message_in_place_of_a_vector(tmp_path, words, suffix):
    """Catches one cell with a service's error, whose dots stopped the whole file."""
    rows = [{"id": i, "embedding": str(v)} for i, v in zip(IDS, LISTS, strict=True)]
    rows[2]["embedding"] = words
    if suffix == ".csv":
        text("id,embedding\n" + "".join(f'{row["id"]},"{row["embedding"]}"\n' for row in rows))(tmp_path / "v.csv")
    else:
        lines(rows)(tmp_path / "v.jsonl")
    source = open_vectors(tmp_path / f"v{suffix}")
    (batch,) = source.batches()
    assert len(batch.rows) == 6 and "holds text that is no list of numbers" in dict(source.skipped.examples)[2]


def header(description):
    body = description.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + VECTORS.tobytes()


@pytest.mark.parametrize(
    "description",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 24)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 24)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 24)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7, 23)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000, 0)}",
        "{'descr': '|V4', 'fortran_order': False, 'shape': (7, 24)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (7, 24",
        "import os",
        "(" * 9000,
        "[" * 200 + "]" * 200,
        "x" * 60_000,
    ],
)
def test_npy_headers_of_another_mind(tmp_path, description):
    """Catches the many errors that numpy raises for odd headers, and shapes that the file cannot hold."""
    (tmp_path / "v.npy").write_bytes(header(description))
    with pytest.raises(ValueError, match="v.npy: .*(corrupt|expected numbers)") as caught:
        read_vectors(tmp_path / "v.npy")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name, message",
    {
        "v.json": "nested too deeply",
        "v.jsonl": "line 1 is not JSON .*: nested too deeply",
        "list.json": "nested too deeply",
        "object.json": "is not JSON .*: nested too deeply",
        "cell.csv": "1 row without a usable vector",
    }.items(),
)
def test_json_nested_deeply(tmp_path, name, message):
    """Catches a RecursionError from any of the JSON readers."""
    deep = "[" * 1_000_000  # from Python 3.14 on, tens of thousands are read
    content = {
        "list.json": f"[[1, 2], {deep}",
        "object.json": f'{{"a": {deep}',
        "cell.csv": f"id,embedding\n1,{deep[:50_000]}\n",
    }
    (tmp_path / name).write_text(content.get(name, deep))
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_vectors(tmp_path / name)


def test_tables_that_python_cannot_name(tmp_path):
    """Catches a KeyError for two columns of one name, and a UnicodeDecodeError for bytes that are no UTF-8."""
    both = [pa.array(LISTS), pa.array(LISTS)]
    pq.write_table(pa.Table.from_arrays(both, names=["embedding", "embedding"]), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match="holds 2 columns 'embedding'; rename one"):
        open_vectors(tmp_path / "v.parquet")
    structs = [pa.array([{"emb": v} for v in LISTS]), pa.array([{"other": 1}] * 7)]
    pq.write_table(pa.Table.from_arrays(structs, names=["a", "a"]), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match="several columns are named 'a'"):
        open_vectors(tmp_path / "v.parquet")
    latin = pa.array([b"caf\xe9"] * 7).view(pa.string())
    for name in ("v.parquet", "v.arrow"):
        table = pa.table({"text": latin, "embedding": LISTS})
        if name == "v.parquet":
            pq.write_table(table, tmp_path / name)
        else:
            with pa.ipc.new_stream(tmp_path / name, table.schema) as writer:
                writer.write_table(table)
        assert len(read_vectors(tmp_path / name).rows) == 7
        with pytest.raises(ValueError, match=f"{name}: .*utf-8"):
            read_vectors(tmp_path / name, text_column="text")


LONG_LINE, BLANKS = "holds more than 16,000,000 characters in one line", "holds more than .* in blank lines"
BOMBS = [
    ("v.jsonl.gz", b"x", LONG_LINE), ("v.jsonl.gz", b" ", BLANKS), ("v.jsonl.gz", b"\n", BLANKS),
    ("v.csv.gz", b"x", LONG_LINE), ("v.csv.gz", b" ", BLANKS), ("v.csv.gz", b"\n", BLANKS),
    ("v.json.gz", b"x", "is not JSON"), ("v.json.gz", b" ", "no vectors"), ("v.json.gz", b"\n", "no vectors"),
]  # fmt: skip


@pytest.mark.parametrize("name, unit, message", BOMBS)
def test_a_bomb_is_bounded(tmp_path, name, unit, message):
    """Catches 100 kB of gzip that fill the memory, or keep the reader busy for ever."""
    (tmp_path / name).write_bytes(gzip.compress(unit * 20_000_000, 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        read_vectors(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 300_000_000
    tracemalloc.stop()


def test_many_small_values_of_json_are_bounded(tmp_path):
    """Catches a JSON object of a few MB whose empty lists take gigabytes of memory."""
    (tmp_path / "v.json").write_text('{"embeddings": [' + "[]," * 12_000_000 + "[]]}")
    tracemalloc.start()
    with pytest.raises(ValueError, match="too many values; write a list of rows, or JSON lines"):
        read_vectors(tmp_path / "v.json")
    assert tracemalloc.get_traced_memory()[1] < 300_000_000
    tracemalloc.stop()


def test_wide_rows_are_bounded(tmp_path):
    """Catches a matrix lying on its side, whose first row is all the memory."""
    np.save(tmp_path / "v.npy", np.zeros((1, 100_000), np.float32))
    with pytest.raises(ValueError, match="rows of 100,000 numbers; from 1 to 65,536 are read"):
        read_vectors(tmp_path / "v.npy")
    lines([{"embedding": [1.0] * 100_000}])(tmp_path / "v.jsonl")
    with pytest.raises(ValueError, match="a row of 100,000 numbers; at most 65,536"):
        read_vectors(tmp_path / "v.jsonl")


def test_places_without_vectors(tmp_path):
    """Catches library errors for a wrong path, several splits at once, and a zip file of other things."""
    split = Dataset.from_dict({"embedding": [[1.0]]})
    DatasetDict({"train": split, "test": split}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "v.pdf").write_bytes(b"%PDF-1.7")
    np.save(tmp_path / "three.npy", np.ones((2, 3, 4)))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    structured = np.zeros(7, [("name", "U3"), ("vec", "f4", DIM)])
    np.save(tmp_path / "structured.npy", structured)
    np.save(tmp_path / "batched.npy", VECTORS[:, None])
    for name, message in (
        ("splits", "several splits; give one of its folders: train, test$"),
        (
            "structured.npy",
            r"structured.npy: holds records of shape \(7,\); .*; numpy.save\(FILE, a\['vec'\]\) saves one$",
        ),
        (
            "batched.npy",
            r"floats of shape \(7, 1, 24\); expected .*; numpy.save\(FILE, a.squeeze\(1\)\) saves them so$",
        ),
        ("folder", "no folder that datasets saved"),
        ("none.npy", "no such file"),
        ("v.pdf", "unknown kind of file; known: .npy, .npz"),
        ("v.npz", "zip file of other things than arrays: readme.txt"),
        ("three.npy", r"holds floats of shape \(2, 3, 4\); expected numbers of shape \(N, D\)"),
        ("words.npy", "holds text of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            read_vectors(tmp_path / name)
    np.save(tmp_path / "v.npy", VECTORS)
    with pytest.raises(ValueError, match="holds no texts"):
        read_vectors(tmp_path / "v.npy", text_column=True)


def test_the_only_split_is_opened(tmp_path):
    """Catches a question which of one split is meant."""
    write_table(tmp_path / "saved")
    DatasetDict({"train": Dataset.load_from_disk(str(tmp_path / "saved"))}).save_to_disk(str(tmp_path / "splits"))
    assert read_vectors(tmp_path / "splits").ids == IDS


@pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.safetensors", "v.parquet", "v.csv", "v.json"])
def test_large_file_is_streamed(tmp_path, name):
    """Catches a batch reader that first loads the whole file (20 MB here, 40 GB in use)."""
    rows = 20_000 if name in ("v.npy", "v.npz", "v.safetensors", "v.parquet") else 4_000
    vectors = np.random.default_rng(0).normal(size=(rows, 256)).astype(np.float32)
    if name == "v.npy":
        np.save(tmp_path / name, vectors)
    elif name == "v.npz":
        np.savez(tmp_path / name, vectors)
    elif name == "v.safetensors":
        save_file({"x": vectors}, tmp_path / name)
    elif name == "v.parquet":
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 256)
        pq.write_table(pa.table({"embedding": lists}), tmp_path / name, row_group_size=1000)
    elif name == "v.csv":
        np.savetxt(tmp_path / name, vectors, delimiter=",")
    else:
        dumped(vectors.tolist())(tmp_path / name)
    allocated = pa.total_allocated_bytes()
    tracemalloc.start()
    seen, peak = 0, 0
    for batch in open_vectors(tmp_path / name).batches(200):
        seen += len(batch.rows)
        peak = max(peak, pa.total_allocated_bytes() - allocated)
    assert seen == rows
    assert tracemalloc.get_traced_memory()[1] + peak < (16_000_000 if rows == 4_000 else 9_000_000)
    tracemalloc.stop()


# Fuzz


def damaged(data, rng):
    """The bytes cut, flipped, doubled, or with what no reader expects among them."""
    place, kind = rng.randrange(len(data)), rng.randrange(5)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + data[place + rng.choice([1, 8, 64]) :]
    if kind == 3:
        return data[: place + 64] + data[place:]
    odd = rng.choice(
        [b"\xff" * 8, b"\0" * 8, b"99999999", b"[[[[[[[[", b'""""', b",,,,", b"nan,1e999", b"\n\n", b'{"a":{']
    )
    return data[:place] + odd + data[place + 8 :]


@pytest.mark.parametrize("name", [*(name for name in TABLES if name != "saved"), *FOUND])
def test_damaged_files_give_vectors_or_one_line(tmp_path, name):
    """Catches a traceback, a message of many lines, and rows that two passes over a damaged file count differently."""
    path, rng = tmp_path / name, random.Random(name)
    write_table(path) if name in TABLES else FOUND[name][0](path)
    whole, refusals = path.read_bytes(), []
    for _ in range(25):
        path.write_bytes(damaged(whole, rng))
        try:
            source = open_vectors(path, dim=DIM)
            batches = list(source.batches(2))
        except EmbInvError as error:
            refusals.append(str(error))
        else:
            good = sum(len(batch.rows) for batch in batches)
            assert good + source.skipped.count == source.count()
            assert all(np.isfinite(batch.vectors).all() for batch in batches)
    assert all(str(path) in line and line.isprintable() and len(line) < 1000 for line in refusals)
