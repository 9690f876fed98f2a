"""Texts in every file format, good and damaged."""

import gzip
import json
import lzma
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_embinv.data.files import LONGEST
from modeling_embinv.data.sources import HubPart, parse_hub_spec, read_hub, read_texts

TEXTS = ["Snow fell on the harbour.", "Zwölf Boxkämpfer jagen Viktor.", "雨が降っています。", "The bill came to 4.50."]


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
    message = r"line \d+ is not JSON \(truncated\?\)" if name == "a.jsonl" else "corrupt, truncated or no"
    with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
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
    "spec, parts",
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


# What only somebody with bad intent, or bad luck, writes


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("unit, what", [(b" ", "blank lines"), (b"\n", "blank lines"), (b"x", "one line")])
def test_a_bomb_is_bounded(tmp_path, name, unit, what):
    """Catches 100 kB of gzip that fill the memory with one line, or keep the reader busy with blank ones for ever."""
    (tmp_path / name).write_bytes(gzip.compress(unit * (LONGEST + 10_000), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name}: holds more than 16,000,000 characters in {what}"):
        texts_of(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 200_000_000
    tracemalloc.stop()


def test_json_nested_deeply(tmp_path):
    """Catches a RecursionError, or a number of 5,000 digits, that ends in a traceback."""
    for text in ('{"text": ' + "[" * 100_000, '{"text": ' + "1" * 5000 + "}"):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(ValueError, match="a.jsonl: line 1 is not JSON") as caught:
            texts_of(tmp_path / "a.jsonl")
        assert len(str(caught.value)) < 400


def test_parquet_that_arrow_reads_and_python_does_not(tmp_path):
    """Catches a KeyError for two columns of one name, and a UnicodeDecodeError for text in another encoding."""
    texts = pa.array(["one", "two"])
    pq.write_table(pa.Table.from_arrays([texts, texts], names=["text", "text"]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="holds 2 columns 'text'"):
        texts_of(tmp_path / "twice.parquet")
    latin = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": latin}), tmp_path / "latin.parquet")
    with pytest.raises(ValueError, match="latin.parquet: corrupt, truncated or no .parquet file: .*utf-8"):
        texts_of(tmp_path / "latin.parquet")


def test_odd_column_names_are_shortened(tmp_path):
    """Catches a message of many lines, or of thousands of characters, that a file's column names fill."""
    names = ["a\nb\x1b[2J", "x" * 5000, *map(str, range(500))]
    pq.write_table(pa.table({name: ["t"] for name in names}), tmp_path / "odd.parquet")
    with pytest.raises(ValueError, match="no column 'text'; present: a b .*, x+…, 0, .*and 482 more") as caught:
        texts_of(tmp_path / "odd.parquet")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
