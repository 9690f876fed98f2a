"""The tab "Vectors": every row in a table, bad rows named, a wrong encoder said, and a file to take away."""

import json
import re
from urllib.parse import unquote

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from vector_table import MOST, Row, Table, invert
from vectors import KINDS, Given, parse_file, parse_pasted
from vectors_html import counter_html, vectors_html

from modeling_embinv.errors_embinv import EmbInvError

gradio_client = pytest.importorskip("gradio_client", reason="the Space needs gradio: pip install 'embinv[space]'")
TEXTS = ["The rain fell all night.", "We will meet at the station on Friday evening."]
DIM = 384


def table_of(cosines, bad=(), total=None, mismatch=None) -> Table:
    """A table that has ended with these cosines."""
    count = len(cosines)
    vectors, taken = torch.ones(count, 3), count + len(bad)
    given = Given("a.csv", list(range(count)), ["a"] * count, vectors, list(bad), taken, total or taken)
    rows = [Row(row, "a", f"<b>text {row}", cosine, "gist") for row, cosine in enumerate(cosines)]
    return Table(given, mismatch, rows, 1.25)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Paste a vector"),
        ("hello", "This is not a vector"),
        ("[]", "There are no numbers in it"),
        ("[[]]", "There are no numbers in it"),
        ("[1, 2, 3]", "has 3 numbers; this model reads vectors of 384, by all-MiniLM"),
        (json.dumps([0.0] * DIM), "The vector is all zeros"),
        ("[" + "1e400," * 383 + "1]", "NaN or infinity"),
        ("[" * 5000, "This is not a vector"),
        ("[" + "1" * 5000 + "]", "has 1 numbers"),
        ("[[1, 2], [3]]", "same number of plain numbers"),
        ('{"a": 1}', "plain numbers"),
    ],
)
def test_a_bad_vector_is_one_readable_line(text, message):
    """A stack trace tells a visitor nothing, and an attacker too much."""
    with pytest.raises(EmbInvError, match=message) as caught:
        parse_pasted(text, DIM, 10, "all-MiniLM")
    assert "\n" not in str(caught.value)


def test_bad_rows_in_front_are_not_said_to_be_all(tmp_path):
    """Of 100 rows 40 were read, all zeros, and the line said that no vector was usable."""
    rows = [[0.0] * DIM] * 40 + [[0.05] * DIM] * 60
    (tmp_path / "v.json").write_text(json.dumps(rows))
    for read in (
        lambda: parse_pasted(json.dumps(rows), DIM, 40),
        lambda: parse_file(str(tmp_path / "v.json"), "v.json", DIM, 40),
    ):
        with pytest.raises(EmbInvError, match="Only the first 40 of 100 rows are read here"):
            read()


def test_a_folder_is_not_opened(tmp_path):
    """The API took the folder of an uploaded file as a store: a stranger's database was opened after all."""
    chromadb = pytest.importorskip("chromadb", reason="a store of a folder needs its library")
    store = chromadb.PersistentClient(str(tmp_path)).create_collection("mine")
    store.add(ids=["secret"], embeddings=[[0.05] * DIM])
    for path in (tmp_path, tmp_path / "gone.npy"):
        with pytest.raises(EmbInvError, match="is not on the server, or no longer"):
            parse_file(str(path), "v.npy", DIM, 5)


def test_a_byte_order_mark_is_no_part_of_a_vector():
    """Vectors pasted from a file of Windows were "not a vector"."""
    assert parse_pasted("\ufeff" + json.dumps([0.05] * DIM), DIM, 5).rows == [0]


def test_bad_rows_are_named_and_the_others_are_read(tmp_path):
    """One NaN in row 2 refused the whole file, and did not name the row."""
    rows = np.random.default_rng(0).normal(size=(6, DIM)).astype("f4")
    rows[2], rows[4] = np.nan, 0
    np.save(tmp_path / "v.npy", rows)
    for given in (
        parse_file(str(tmp_path / "v.npy"), "v.npy", DIM, 5),
        parse_pasted(json.dumps(rows.tolist()), DIM, 5),
    ):
        assert given.rows == [0, 1, 3] and given.total == 6
        assert len(given.bad) == 2 and given.bad[0].startswith("row 2 ") and given.bad[1].startswith("row 4 ")
        assert np.allclose(given.vectors.numpy(), rows[[0, 1, 3]])


def test_the_note_counts_the_rows_that_were_taken(tmp_path):
    """Beyond twenty bad rows they are told together, and the page said that 31 of 60 rows are read when 40 were."""
    rows = np.random.default_rng(0).normal(size=(60, DIM)).astype("f4")
    rows[5:35] = np.nan
    np.save(tmp_path / "v.npy", rows)
    given = parse_file(str(tmp_path / "v.npy"), "v.npy", DIM, 40)
    assert len(given.rows) == 10 and given.bad[-1] == "10 more rows hold no vector"
    assert "The first 40 of 60 rows are read here" in Table(given, None).notes[-1]
    few = parse_file(str(tmp_path / "v.npy"), "v.npy", DIM, 10)
    assert len(few.rows) == len(few.bad) == 5 and "The first 10 of 60 rows" in Table(few, None).notes[-1]


@pytest.mark.parametrize("kind", ["objects", "JSON lines", "lines of numbers", "lines of lists", "an answer"])
def test_what_lies_in_a_file_can_be_pasted(kind):
    """The text of the page's own sample was refused, and two lines of numbers were one vector of twice the width."""
    rows = np.random.default_rng(0).normal(size=(2, DIM)).round(3).tolist()
    objects = [{"id": f"note-{number}", "embedding": row} for number, row in enumerate(rows, start=1)]
    text = {
        "objects": json.dumps(objects),
        "JSON lines": "\n".join(map(json.dumps, objects)),
        "lines of numbers": "\n\n".join(", ".join(map(str, row)) for row in rows),
        "lines of lists": "\n".join(map(json.dumps, rows)),
        "an answer": json.dumps({"object": "list", "data": objects}),
    }[kind]
    given = parse_pasted(text, DIM, 10)
    assert given.rows == [0, 1] and given.total == 2 and np.allclose(given.vectors.numpy(), rows)
    assert given.ids == ([None, None] if kind.startswith("lines") else ["note-1", "note-2"])
    assert given.source == "the pasted vectors"
    assert parse_pasted(text, DIM, 1).rows == [0]


def test_a_vector_may_be_broken_into_lines():
    """A vector that numpy prints has some numbers on each line, which are no rows."""
    row = np.random.default_rng(0).normal(size=DIM).round(3)
    given = parse_pasted(np.array2string(row, threshold=DIM), DIM, 10)
    assert given.total == 1 and np.allclose(given.vectors[0].numpy(), row)


@pytest.mark.parametrize("kind", [np.array, np.float32, torch.tensor])
@pytest.mark.parametrize("count", [None, 2])
def test_a_vector_is_pasted_as_torch_and_numpy_print_it(kind, count):
    """What a notebook shows, `tensor([…])`, was "not a vector"."""
    shape = (DIM,) if count is None else (count, DIM)
    rows = np.random.default_rng(0).normal(size=shape).round(3)
    given = parse_pasted(repr(kind(rows)), DIM, 10)
    assert given.total == (count or 1) and np.allclose(given.vectors.numpy(), rows, atol=1e-4)


def test_a_file_is_refused_in_words_of_the_page(tmp_path):
    """The page named stores that it does not read, and asked for --column, which is no control of it."""
    (tmp_path / "v.doc").write_text("1, 2")
    rows = np.ones((2, DIM), "f4")
    np.savez(tmp_path / "v.npz", first=rows, second=rows)
    (tmp_path / "v.csv").write_text("first,second\nsome,words\n")
    for name, told in (
        ("v.doc", f"give {', '.join(KINDS)}"),
        ("v.npz", "several columns hold vectors: first, second; keep one of them"),
        ("v.csv", "no column of vectors, which are lists of plain numbers; present: first, second"),
    ):
        with pytest.raises(EmbInvError, match=re.escape(told) + "$") as caught:
            parse_file(str(tmp_path / name), name, DIM, 10)
        assert "chroma" not in str(caught.value) and "name one" not in str(caught.value)


def test_bad_files_are_one_readable_line(tmp_path):
    """A pickle must not be opened, and nobody told to open it; a damaged or foreign file must say what it is."""
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "store.db").write_bytes(b"SQLite format 3\0")
    (tmp_path / "notes.csv").write_text("some,words\n")
    (tmp_path / "text.npy").write_text("This is a text.")
    (tmp_path / "wrong.json").write_text(json.dumps([[1.0, 2.0]] * 3))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(EmbInvError, match="yours.* cannot be read as") as caught:
            parse_file(str(path), f"yours{path.suffix}", DIM, 10, "all-MiniLM")
        line = str(caught.value)
        assert "allow_pickle" not in line and "\n" not in line and str(tmp_path) not in line


def test_no_database_of_a_stranger_is_opened(tmp_path):
    """A database may hold queries that never end."""
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(EmbInvError, match="export its vectors as .npy"):
        parse_file(str(path), path.name, DIM, 10)


def test_the_table_says_whose_vectors_they_are_not():
    """The vectors of another encoder came back as fluent sentences that nobody wrote, without a word of warning."""
    assert table_of([0.9, 0.8, 0.1]).warning is None
    assert "are not this encoder’s" in table_of([0.9, 0.1, 0.05]).warning
    told = table_of([0.9], mismatch="these look like random numbers.").warning
    assert told == "These look like random numbers."
    html = vectors_html(table_of([0.1]))
    assert "refused" in html and "<b>text" not in html
    notes = counter_html(table_of([0.9], ["row 3 is all zeros"], 800), [])
    assert "Left out: row 3 is all zeros." in notes and "first 2 of 800 rows" in notes


def test_the_file_holds_every_row():
    """Only one row of an upload was read; there was no table, and nothing to take away."""
    html = vectors_html(table_of([0.5] * 30))
    link = html.partition('href="data:application/x-ndjson;charset=utf-8,')[2].partition('"')[0]
    rows = [json.loads(line) for line in unquote(link).splitlines()]
    assert [row["row"] for row in rows] == list(range(30)) and rows[3]["text"] == "<b>text 3"
    assert html.count("<tr>") == 31 and 'download="recovered.jsonl"' in html


@pytest.mark.filterwarnings("ignore:this model inverts vectors of")
def test_vectors_of_another_origin_get_a_warning(app):
    """The difference of two vectors came back as a fluent sentence that nobody wrote, and nothing said so."""
    king, queen = app.inverter.embed(["The king is dead.", "The queen is dead."])
    for vector, told in ((king, False), (king - queen, True)):
        given = parse_pasted(json.dumps(vector.tolist()), DIM, 1)
        *_, table = filter(None, invert(app.inverter, given, "quick", "surrogate"))
        assert bool(table.warning) == told
    assert "these look like sums or differences" in table.warning


def test_files_of_every_kind_give_the_same_texts(url, app, tmp_path):
    """Catches a reader that transposes, takes another row, or needs a column of another name."""
    vectors = app.inverter.embed(TEXTS).numpy()
    np.save(tmp_path / "v.npy", vectors)
    np.savetxt(tmp_path / "v.csv", vectors, delimiter=",")
    header = "id,embedding\n" + "".join(f'{number},"{row.tolist()}"\n' for number, row in enumerate(vectors))
    (tmp_path / "pgvector.csv").write_text(header)
    (tmp_path / "v.json").write_text(json.dumps(vectors.tolist()))
    (tmp_path / "v.jsonl").write_text("\n".join(json.dumps({"id": "x", "vector": row}) for row in vectors.tolist()))
    pq.write_table(pa.table({"tags": [[1.0], [2.0]], "vector": vectors.tolist()}), tmp_path / "v.parquet")
    client = gradio_client.Client(url, verbose=False)
    found = {}
    for path in sorted(tmp_path.iterdir()):
        answer = client.predict("", gradio_client.handle_file(str(path)), "quick", "surrogate", api_name="/vectors")
        assert answer["source"] == path.name and answer["is_done"] and answer["warning"] is None
        found[path.name] = [row["text"] for row in answer["rows"]]
    pasted = client.predict(json.dumps(vectors.tolist()), None, "quick", "surrogate", api_name="/vectors")
    expected = [row["text"] for row in pasted["rows"]]
    assert "rain" in expected[0] and "station" in expected[1]
    assert found == dict.fromkeys(found, expected) and len(found) == 6
    assert {row["verdict"] for row in pasted["rows"]} <= {"gist", "close", "verified"}


def test_the_sample_file_can_be_read(url, app, tmp_path):
    """A newcomer has no vector at hand."""
    (tmp_path / "sample.json").write_bytes(httpx.get(f"{url}sample_vectors.json").content)
    given = parse_file(str(tmp_path / "sample.json"), "sample.json", DIM, MOST["standard"])
    assert given.ids == ["note-1", "note-2", "note-3", "note-4"] and not given.bad


@pytest.mark.slow
def test_a_visitor_uploads_and_errs(app, visit, tmp_path):
    """A wrong file must show its message beside the input; a right one all of its rows, which source it is, a file."""
    page = visit("Vectors", 390, 844)
    done, go = page.locator(".vectors[data-done=true]"), page.get_by_role("button", name="Read them")
    done.wait_for()  # a result stands there when one arrives
    page.get_by_label("quick").locator("visible=true").check()
    pasted = page.get_by_label("Vectors of 384 numbers")
    pasted.fill("[1, 2]")
    go.click()
    page.locator("#vectors-message .refused", has_text="this model reads vectors of 384").wait_for()
    assert page.locator(".vectors").count() == 0
    rows = app.inverter.embed(TEXTS).numpy()
    np.save(tmp_path / "some.npy", np.concatenate([rows, np.full((1, DIM), np.nan, "f4")]))
    page.locator("#vectors-file input[type=file]").set_input_files(tmp_path / "some.npy")
    # its name stands there from the beginning of the upload on, this table at its end
    page.locator("#vectors-file .file-preview", has_text="some").wait_for()
    go.click()
    done.wait_for()
    message = page.locator("#vectors-message .message").inner_text()
    assert "the file is read" in message and "row 2" in message
    assert page.locator(".vectors tbody tr").count() == 2
    with page.expect_download() as download:
        page.get_by_role("link", name="Download 2 rows").click()
    saved = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [row["row"] for row in saved] == [0, 1] and download.value.suggested_filename == "recovered.jsonl"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Use a sample vector").click()
    page.locator("#vectors-file .file-preview").wait_for(state="detached")
    page.wait_for_function("[...document.querySelectorAll('textarea')].some(box => box.value.length > 3000)")
    go.click()
    page.locator(".vectors caption", has_text="Texts of the pasted vectors").wait_for()
    assert "file is read" not in page.locator("#vectors-message").inner_text()
