"""JSON as pandas' `to_json` and OpenAI's API write it."""

import json

import numpy as np
import pandas as pd
import pytest

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.vectors import open_vectors

from .sources import DIM, IDS, TEXTS, VECTORS, read_all

ROWS = 30
FRAME = pd.DataFrame(VECTORS[:ROWS])
WIDE = FRAME.add_prefix("dim_")
ORIENTS = ["columns", "index", "split", "records", "values", "table"]


def written(folder, content):
    path = folder / "v.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("orient", ORIENTS)
def test_a_matrix_of_pandas(tmp_path, orient):
    """One row, or the numbers of the rows as a vector, was inverted without a word."""
    found = read_all(written(tmp_path, FRAME.to_json(orient=orient)), dim=DIM)
    assert np.allclose(found.vectors, VECTORS[:ROWS]) and found.ids in ([], [str(row) for row in range(ROWS)])


@pytest.mark.parametrize("orient", ORIENTS[:-2])
def test_a_frame_with_ids_and_texts(tmp_path, orient):
    """The run of one row's numbers was taken for the columns of the vectors."""
    frame = WIDE.assign(id=IDS[:ROWS], text=TEXTS[:ROWS])
    found = read_all(written(tmp_path, frame.to_json(orient=orient)), text_column=True)
    assert np.allclose(found.vectors, VECTORS[:ROWS])
    assert found.ids == IDS[:ROWS] and found.texts == TEXTS[:ROWS]


@pytest.mark.parametrize("orient", ORIENTS[:3])
def test_ids_in_the_index_of_a_frame(tmp_path, orient):
    """Ids that end in numbers look like names of columns; and those of the other reading lay beside the vectors."""
    frame = FRAME.set_axis(IDS[:ROWS], axis="index")
    found = read_all(written(tmp_path, frame.to_json(orient=orient)), dim=DIM)
    assert np.allclose(found.vectors, VECTORS[:ROWS]) and found.ids == IDS[:ROWS]


def test_a_square_matrix_is_no_guess(tmp_path):
    """As many rows as numbers: rows and columns cannot be told apart, and one of them was read without a word."""
    path = written(tmp_path, FRAME.head(DIM).to_json())
    with pytest.raises(EmbInvError, match="hold vectors: orient=index, orient=columns; name one with --column"):
        open_vectors(path, dim=DIM)
    assert np.allclose(read_all(path, column="orient=columns").vectors, VECTORS[:DIM])
    assert np.allclose(read_all(path, column="orient=index").vectors, VECTORS[:DIM].T)


def test_two_runs_of_numbered_columns_are_no_guess(tmp_path):
    """The first of two runs of the same length was read without a word."""
    pd.concat([FRAME.add_prefix("title_"), FRAME.add_prefix("body_")], axis=1).to_csv(tmp_path / "v.csv", index=False)
    with pytest.raises(EmbInvError, match="several runs of numbered columns: title_0 … title_15, body_0 … body_15; w"):
        open_vectors(tmp_path / "v.csv")


@pytest.mark.parametrize("orient", ["columns", "index", "split"])
def test_two_runs_in_a_frame_are_no_guess(tmp_path, orient):
    """Of two vectors of each row, the first was read without a word."""
    both = pd.concat([FRAME.add_prefix("title_"), FRAME.add_prefix("body_")], axis=1)
    with pytest.raises(EmbInvError, match="v.json: several runs of .*: title_0 … title_15, body_0 … body"):
        open_vectors(written(tmp_path, both.to_json(orient=orient)), dim=DIM)


def test_a_frame_whose_index_is_not_unique(tmp_path):
    """Frames that were joined have each number of a row twice: the later rows replaced the earlier ones."""
    joined = pd.concat([WIDE.head(3), WIDE.tail(3)]).set_axis([0, 1, 2] * 2, axis="index")
    found = read_all(written(tmp_path, joined.to_json(orient="split")))
    assert np.allclose(found.vectors, VECTORS[[0, 1, 2, 27, 28, 29]]) and found.ids == ["0", "1", "2"] * 2


def answer(first, stop):
    """OpenAI's API for texts `first` to `stop`."""
    vectors = VECTORS[first:stop].tolist()
    data = [{"object": "embedding", "index": row, "embedding": vector} for row, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": "m", "usage": {"total_tokens": 9}}


def test_an_answer_on_each_line(tmp_path):
    """Lines with OpenAI's answers held no column of vectors; the numbers within an answer are no ids of the file's."""
    lines = [answer(0, 3), answer(3, 4), answer(4, 9)]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in (tmp_path / "v.jsonl", written(tmp_path, lines)):
        found = read_all(path)
        assert np.allclose(found.vectors, VECTORS[:9]) and not found.ids


def test_the_output_of_a_batch(tmp_path):
    """OpenAI's batches are in any order: without `custom_id` nobody knows whose vector is whose."""
    bodies = [answer(2, 3), answer(0, 2), {"error": {"message": "no"}}]
    lines = [
        {"id": f"batch_{row}", "custom_id": f"text-{row}", "response": {"status_code": 200, "body": body}}
        for row, body in enumerate(bodies)
    ]
    lines.append({"id": "batch_3", "custom_id": "text-3", "response": None, "error": {"code": "expired"}})
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_vectors(tmp_path / "v.jsonl")
    (batch,) = source.batches()
    assert np.allclose(batch.vectors, VECTORS[[2, 0, 1]]) and batch.ids == ["text-0", "text-1/0", "text-1/1"]
    assert source.skipped.examples == [(3, "is null"), (4, "is null")]


@pytest.mark.parametrize("kind", ["$oid", "$numberLong", "$uuid"])
@pytest.mark.parametrize("is_lines", [True, False])
def test_ids_as_mongoexport_writes_them(tmp_path, kind, is_lines):
    """Object ids were null without a word, and `--id-column _id` was refused: nobody knew whose text was whose."""
    rows = [
        {"_id": {kind: name}, "body": {"$text": "t"}, "embedding": row.tolist()}
        for name, row in zip(IDS[:9], VECTORS, strict=False)
    ]
    path = written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows) if is_lines else rows)
    for named in ({}, {"id_column": "_id"}, {"id_column": f"_id.{kind}"}):
        source = open_vectors(path, **named)
        assert source.id_column == f"_id.{kind}" and next(source.batches()).ids == IDS[:9]
    with pytest.raises(EmbInvError, match=r"no column 'id'; present: _id.\$"):
        open_vectors(path, id_column="id")


def test_an_object_of_several_values_is_no_id(tmp_path):
    """A part of an id, such as the base64 of bytes beside their kind, is the same for no reason in two rows."""
    rows = [
        {"_id": {"$binary": {"base64": "AA==", "subType": "04"}}, "embedding": row.tolist()} for row in VECTORS[:9]
    ]
    path = written(tmp_path, rows)
    assert open_vectors(path).id_column is None
    with pytest.raises(EmbInvError, match="no column '_id'"):
        open_vectors(path, id_column="_id")
