"""A store of several collections: how rows are drawn from them, and which of them a checkpoint can be tried on."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from modeling_embinv.audit.page import page
from modeling_embinv.audit.sample import Sample, allotted, join
from modeling_embinv.audit.store import Part, join_parts, match
from modeling_embinv.cli.main import main
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.configuration_embinv import EmbInvConfig
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.stores.rows import Skipped
from tests.audit.conftest import TEXTS, report_of, tier_result


@pytest.mark.parametrize(
    "totals, limit, sizes",
    [
        ([700, 200, 100], 10, [7, 2, 1]), ([998, 1, 1], 10, [8, 1, 1]), ([5, 5, 5], 10, [4, 3, 3]),
        ([3, 2], 99, [3, 2]), ([50, 30, 20], 2, [1, 1, 0]), ([1, 1000], 500, [1, 499]),
    ],
)  # fmt: skip
def test_each_collection_has_its_share(totals, limit, sizes):
    """A small collection that is never looked at, one that gives more rows than it has, or a sample too small."""
    found = allotted(totals, limit)
    assert sorted(found) == sorted(sizes) and sum(found) == min(limit, sum(totals))
    assert all(size <= total for size, total in zip(found, totals, strict=True))


def sample(rows: int, total: int, texts: bool = True, start: int = 0) -> Sample:
    names = [f"{start + row}" for row in range(rows)]
    unit = np.eye(384, dtype=np.float32)[:rows] + start
    return Sample(
        unit, np.arange(rows), names, [f"text {name}" for name in names] if texts else None, total, f"d{start}"
    )


def test_rows_keep_their_collection():
    """Rows of two collections have the same numbers: words and texts that belong to the other's row."""
    joined = join({"a": sample(4, 40), "b": sample(4, 120, start=100)}, 4, 0)
    assert joined.collections == ["a", "b", "b", "b"] and joined.total == 160
    assert len(set(joined.row_keys())) == 4
    for row, (name, number) in enumerate(joined.row_keys()):
        own = str(number + (100 if name == "b" else 0))
        assert (
            joined.ids[row] == own
            and joined.texts[row] == f"text {own}"
            and joined.vectors[row].min() == int(own) // 100 * 100
        )
    part = joined.take(np.array([2]))
    assert part.row_keys() == joined.row_keys()[2:3]
    other = join({"a": sample(4, 40), "b": sample(4, 120, start=101)}, 4, 0)
    assert other.digest != joined.digest
    with pytest.raises(EmbInvError, match="only some collections hold texts: a"):
        join({"a": sample(4, 4), "b": sample(4, 4, texts=False)}, 4, 0)


def part(name: str, one: Sample) -> Part:
    return Part(name, "store", name, "embedding", "id", None, Skipped(), [one])


def test_collections_that_do_not_fit_are_left_out_and_named(encoder):
    """Another encoder's collection made all of the store look foreign, or was inverted as nonsense."""
    config = EmbInvConfig.from_pretrained(CHECKPOINT)
    own = encoder.encode([f"{text} {number}" for text in TEXTS for number in range(5)]).numpy()
    turned = own @ np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0]
    parts = [
        part(name, Sample(rows.astype(np.float32), np.arange(40), None, None, 40, name))
        for name, rows in (("right", own), ("turned", turned), ("narrow", own[:, :100]))
    ]
    found = match({"m": config}, parts, force=False)
    assert [one.name for one in found.parts] == ["right"] and found.origin.looks_like is None
    assert [note.split(" is left out")[0] for note in found.notes if "left out" in note] == [
        "the collection turned", "the collection narrow",
    ]  # fmt: skip
    forced = match({"m": config}, parts, force=True)
    assert [one.name for one in forced.parts] == ["right", "turned"]
    assert join_parts(forced.parts, [10], 0)[0].collections == ["right"] * 5 + ["turned"] * 5
    with pytest.raises(EmbInvError, match="rotated"):
        match({"m": config}, parts[1:], force=False)


def test_a_chroma_folder_of_several_collections(capsys, model, vectors, tmp_path):
    """A store of two collections had to be audited twice, and an empty one ended it."""
    chromadb = pytest.importorskip("chromadb")
    quiet = chromadb.config.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(tmp_path / "store"), settings=quiet)
    for name, rows in (("support", slice(0, 6)), ("sales", slice(6, 8)), ("empty", slice(0, 0))):
        collection = client.create_collection(name, embedding_function=None)
        if len(TEXTS[rows]):
            ids = [f"{name}-{row}" for row in range(len(TEXTS[rows]))]
            collection.add(ids=ids, embeddings=vectors[rows].tolist(), documents=TEXTS[rows])
    arguments = ["--model", str(model), "--no-encoder", "--limit", "4", "--out", str(tmp_path / "r")]
    assert main(["audit", f"chroma:{tmp_path / 'store'}", *arguments]) == 0
    assert "4 rows of 2 collections" in capsys.readouterr().out
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    drawn = {one["name"]: (one["rows"], one["drawn"]) for one in report["source"]["collections"]}
    assert drawn == {"sales": (2, 1), "support": (6, 3)} and report["sample"]["of"] == 8
    assert report["tiers"][0]["collections"].keys() == drawn.keys()
    rows = [json.loads(line) for line in (tmp_path / "r" / "hits.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["id"] == f"{row['collection']}-{row['row']}" for row in rows) and len(rows) == 4
    assert "By collection" in (tmp_path / "r" / "index.html").read_text(encoding="utf-8")


def test_the_share_of_each_collection_is_of_its_own_rows():
    """A mean over the store hides the collection that leaks."""
    result = tier_result(["red house", "blue car", "green tree"], ["red house", "blue", "nothing"])
    named = result.sample._replace(collections=["a", "b", "b"])
    report = report_of(type(result)(**{**vars(result), "sample": named}))
    found = report.by_collection(report.tiers[0])
    assert {name: (one.hits, one.count) for name, one in found.items()} == {"a": (2, 2), "b": (1, 4)}
    assert "By collection" not in page(report_of(result))


def test_a_collection_without_a_usable_vector_is_left_out(capsys, model, vectors, tmp_path):
    """One table whose vectors were not there yet ended the audit of all others."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as database:
        for name, rows in (("good", vectors), ("pending\x1b[2J", 0 * vectors)):
            database.execute(f'create table "{name}" (id text, text text, embedding blob)')
            values = [(str(row), text, rows[row].astype("<f4").tobytes()) for row, text in enumerate(TEXTS)]
            database.executemany(f'insert into "{name}" values (?, ?, ?)', values)
        database.commit()
    arguments = ["--model", str(model), "--tiers", "vectors", "--limit", "2", "--out", str(tmp_path / "r")]
    assert main(["audit", str(path), *arguments]) == 0
    printed, err = capsys.readouterr()
    assert "is left out: 8 rows" in printed and "\x1b" not in printed + err
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["source"]["rows"] == len(TEXTS) and any("pending" in note for note in report["warnings"])
    assert main(["audit", str(path), *arguments, "--collection", "pending\x1b[2J"]) == 2
    assert main(["audit", str(path), *arguments, "--strict"]) == 2


def test_a_view_of_a_table_is_left_out(capsys, model, vectors, tmp_path):
    """The rows of a table were counted, and their words listed, once more for a view of it."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table docs (id text, embedding blob)")
        rows = [(str(row), vector.astype("<f4").tobytes()) for row, vector in enumerate(vectors)]
        database.executemany("insert into docs values (?, ?)", rows)
        database.execute("create view some as select * from docs where id < '3'")
    arguments = ["--model", str(model), "--tiers", "vectors", "--limit", "2", "--out"]
    assert main(["audit", str(path), *arguments, str(tmp_path / "r")]) == 0
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["source"]["rows"] == len(rows) and report["source"]["collection"] == "docs"
    assert any("the same rows again: some (--table takes one)" in note for note in report["warnings"])
    assert main(["audit", str(path), *arguments, str(tmp_path / "s"), "--table", "some"]) == 0
    assert "collection some: 3 vectors" in capsys.readouterr().out
