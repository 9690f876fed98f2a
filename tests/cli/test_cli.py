"""The commands, run as a user runs them, on a tiny checkpoint of the real encoder."""

import argparse
import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing

import chromadb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chromadb.config import Settings
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from rich.console import Console

from modeling_embinv import int8_embinv
from modeling_embinv.cli import calibrate, evaluate
from modeling_embinv.cli.ladder import Ladder, rungs
from modeling_embinv.cli.main import main
from modeling_embinv.cli.options import add_model
from modeling_embinv.evaluation.calibration import CANDIDATES
from modeling_embinv.generation_config_embinv import EmbInvGenerationConfig
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from tests.tiny_models import awaken, tiny_model
from tests.training.tiny_runs import TINY_TRUNK

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, encoder) -> str:
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    torch.manual_seed(0)
    model = new_inverter(tokenizer, TINY_TRUNK, embedding_dim=384, max_sequence_length=10, encoder_id=ENCODER)
    return str(export(awaken(model).eval(), tokenizer, tmp_path_factory.mktemp("cli") / "model"))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def searching(tmp_path_factory, encoder) -> str:
    """As `checkpoint`, with a surrogate."""
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    torch.manual_seed(0)
    model = new_inverter(tokenizer, TINY_TRUNK, embedding_dim=384, max_sequence_length=10, encoder_id=ENCODER)
    model.add_surrogate(2)
    return str(export(awaken(model).eval(), tokenizer, tmp_path_factory.mktemp("cli") / "searching"))


def test_demo_climbs_a_ladder(capsys, searching):
    """A dropped sentence shifts every line after it; a rung that is left out, or a verdict on another text."""
    code, out, err = run(capsys, "demo", "A red kite.", "☃", "Two men talk.", "--model", searching)
    lines = [line.split(maxsplit=1)[0] for line in out.splitlines() if line and not line.startswith(" ")]
    assert code == 0 and lines[:8] == ["original", "draft", "refined", "surrogate"] * 2, err
    assert out.count("content words recovered ") == 2 and "of 2, cosine " in out
    assert "A red kite." in out and "Two men talk." in out
    assert re.search(r"^2 vectors in \d+ s: [\d,]+ forward passes, [\d,]+ surrogate calls\.$", out, flags=re.M), out
    code, out, err = run(capsys, "demo", "A red kite.", "--preset", "quick", "--model", searching)
    assert code == 0 and "surrogate  " not in out and "refined  " in out, err
    loop = ["--feedback", "encoder", "--num_candidates", "2", "--num_corrections", "1", "--num_proposals", "4"]
    code, out, err = run(capsys, "demo", "A red kite.", "--model", searching, *loop)
    rungs = re.findall(r"^(\w+) +-?\d\.\d{3}", out, flags=re.M)
    assert code == 0 and rungs[:4] == ["draft", "refined", "surrogate", "encoder"] and "encoder calls" in out, err


def test_the_rungs_of_a_checkpoint_that_writes_from_left_to_right():
    """One pass of masked writing, which is not what it does; a second line that is the first one again."""
    model = awaken(tiny_model(num_condition_tokens=2, causal_share=0.5))
    model.generation_config.strategy, model.generation_config.num_draft_beams = "autoregressive", 3
    search = {"num_candidates": 2, "num_corrections": 1}
    steps = rungs(model, search, "encoder", None, 0)
    assert [rung.name for rung in steps] == ["draft", "beams", "encoder"]
    written = [model.generation_settings(None, dict(rung.settings)) for rung in steps]
    assert [config.strategy for config in written] == ["autoregressive"] * 3
    assert [(config.num_draft_beams, config.search.is_search) for config in written[:2]] == [(1, False), (3, False)]
    model.generation_config.num_draft_beams = 1
    assert [rung.name for rung in rungs(model, search, "encoder", None, 0)] == ["draft", "encoder"]


def test_a_ladder_on_a_terminal(searching, encoder):
    """Rounds that nobody sees, and texts that a narrow terminal breaks within a word."""
    model, tokenizer = load_inverter(searching)
    model.eval()
    settings = {"num_candidates": 2, "num_corrections": 2, "num_proposals": 4, "num_beams": 2}
    for width in (80, 40):
        file = io.StringIO()
        console = Console(file=file, force_terminal=True, width=width, color_system=None)
        steps = rungs(model, settings, "surrogate", "surrogate", 0)
        original = "A red kite flies over the town, and all the children look at it."
        Ladder(model, tokenizer, encoder, steps, console).climb(original, encoder.encode([original]), "(cut)")
        shown = file.getvalue()
        assert all(f"round {number} of 2" in shown for number in range(3)) and "(cut)" in shown
        kept = re.sub(r"\x1b\[[\d;?]*\w", "", shown).splitlines()
        assert max(map(len, kept)) <= width
        first = kept.index(next(line for line in kept if line.startswith("original")))
        whole = " ".join(line.removeprefix("original").strip() for line in kept[first : first + 4])
        assert original in " ".join(whole.split())


def test_demo_says_what_it_cut(capsys, searching):
    """The whole original above the text of its first tokens: recovered words were counted of what nobody embedded."""
    code, out, err = run(capsys, "demo", "It flies. " * 12, "--preset", "quick", "--model", searching)
    assert code == 0 and "(cut to its first 9 of 36 tokens" in out, err
    assert out.splitlines()[0].split(maxsplit=1)[1] == "It flies. It flies. It flies."


def test_demo_hides_words_and_finds_them(capsys, checkpoint):
    """The words that the demo hides must be gone from the line that shows what is known, and the rest must stay."""
    code, out, _ = run(capsys, "demo", "The keeper fed two hungry elephants.", "--model", checkpoint)
    (known,) = re.findall(r"^redacted +(.*)$", out, flags=re.M)
    (filled,) = re.findall(r"^filled +-?[\d.]+ +(.*)$", out, flags=re.M)
    assert (code == 0 and known == "The ▇▇▇ fed two hungry ▇▇▇.") or known == "The keeper fed two ▇▇▇ ▇▇▇."
    start, *_ = known.split("▇▇▇")
    assert filled.startswith(f"{start}[") and filled.count("[") == 2 and "encoder call" in out


def test_demo_says_what_it_left_out(capsys, checkpoint):
    """Sentences that were dropped without a word, bytes that are no text, and a preset that was not taken."""
    code, out, err = run(capsys, "demo", "☃", "A red kite \udcff.", "--model", checkpoint)
    assert code == 0 and "left out" in err and "'☃' (it does not know ☃)" in err and "Colours:" not in out
    assert "1 vector in" in out
    assert re.match(r"original +A red kite \?\.$", out.splitlines()[0])
    assert "this checkpoint has no surrogate, so the preset is quick" in err
    code, out, err = run(capsys, "demo", "☃", "--model", checkpoint)
    assert code == 2 and out == "" and "there is nothing to invert" in err
    long = "A red kite ☃ flies over the whole of the old town."
    code, out, err = run(capsys, "demo", long, "A red kite.", "--preset", "quick", "--model", checkpoint)
    assert code == 0 and f"'{long[:40]}…' (it does not know ☃)" in err and len(err.splitlines()) == 1, err


def test_invert_a_typed_vector_and_a_file(capsys, checkpoint, tmp_path, encoder):
    """One vector must read the same wherever it comes from."""
    vectors = encoder.encode(["A red kite.", "Two men talk."]).numpy()
    code, typed, _ = run(capsys, "invert", json.dumps(vectors[0].tolist()), "--model", checkpoint)
    assert code == 0
    np.save(tmp_path / "vectors.npy", vectors)
    out = tmp_path / "texts.jsonl"
    code, _, err = run(capsys, "invert", tmp_path / "vectors.npy", "--out", out, "--model", checkpoint)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 0 and [row["row"] for row in rows] == [0, 1] and "wrote 2 texts" in err
    assert rows[0]["text"] in " ".join(typed.split())


def test_bad_rows_and_columns_are_reported(capsys, checkpoint, tmp_path, encoder):
    """Catches rows that vanish without a word, and a column that is chosen without one, from both commands."""
    texts = [f"Box {number} holds {number * 7 % 50} red balls." for number in range(8)]
    vectors = encoder.encode(texts).tolist()
    vectors[2] = None
    path, out = tmp_path / "dump.parquet", tmp_path / "texts.jsonl"
    pq.write_table(pa.table({"uuid": list("abcdefgh"), "content": texts, "vector": vectors}), path)
    said, skipped = "vectors in column 'vector'", "skipped 1 row without a usable vector: row 2 is null"
    code, _, err = run(capsys, "invert", path, "--out", out, "--model", checkpoint)
    assert code == 3 and said in err and skipped in err and "wrote 7 texts" in err
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == list("abdefgh")
    code, printed, err = run(capsys, "prepare", "--vectors", path, "--out", tmp_path / "pairs")
    assert code == 0 and said in err and "texts in column 'content'" in err and skipped in err
    assert sum(json.loads((tmp_path / "pairs" / "manifest.json").read_text())["rows"].values()) == 7, printed
    for command in (
        ["invert", path, "--model", checkpoint],
        ["prepare", "--vectors", path, "--out", tmp_path / "new"],
    ):
        code, _, err = run(capsys, *command, "--strict")
        assert code == 2 and "row 2 is null" in err


@pytest.mark.slow
def test_commands_take_a_store(capsys, checkpoint, tmp_path, encoder):
    """A reader that only Python can reach: each command of vectors must take a store, its ids and its texts."""
    texts = ["The king is dead.", "Two men talk."]
    kept = {"notes": texts, "support": ["The ▇▇▇ is dead.", "Two men ▇▇▇."]}
    client = chromadb.PersistentClient(str(tmp_path / "store"), settings=Settings(anonymized_telemetry=False))
    vectors = encoder.encode(texts).numpy()
    for name, documents in kept.items():
        collection = client.create_collection(name, embedding_function=None)
        collection.add([f"{name}-1", f"{name}-2"], vectors, documents=documents)
    client.close()
    store, chosen = f"chroma:{tmp_path / 'store'}", ["--collection", "support"]
    code, _, err = run(capsys, "invert", store, "--model", checkpoint)
    assert code == 2 and "several collections; name one with --collection: notes, support" in err
    for command in (["invert"], ["fill", "--num-tokens", "1", "--feedback", "encoder"]):
        out = tmp_path / f"{command[0]}.jsonl"
        code, _, err = run(capsys, *command, store, *chosen, "--out", out, "--model", checkpoint)
        assert code == 0 and "collection 'support'; vectors" in err
        assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["support-1", "support-2"]
    code, printed, err = run(capsys, "prepare", "--vectors", f"{store}?collection=notes", "--out", tmp_path / "pairs")
    assert code == 0 and "texts in column 'document'" in err, err
    assert sum(json.loads((tmp_path / "pairs" / "manifest.json").read_text())["rows"].values()) == 2, printed


def test_prepare_takes_the_flags_that_stores_ask_for(capsys, tmp_path, encoder):
    """`embinv prepare` said "name one with --table" and "add --trust-source", and knew neither flag."""
    texts = ["The king is dead.", "Two men talk."]
    vectors = encoder.encode(texts).numpy()
    client = QdrantClient(path=str(tmp_path / "qdrant"))
    client.create_collection("docs", vectors_config=VectorParams(size=384, distance=Distance.DOT))
    points = enumerate(zip(vectors.tolist(), texts, strict=True))
    client.upsert("docs", [PointStruct(id=i, vector=v, payload={"text": text}) for i, (v, text) in points])
    client.close()
    path = tmp_path / "docs.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        for table in ("docs", "old"):
            database.execute(f"CREATE TABLE {table} (text TEXT, embedding BLOB)")
            rows = zip(texts, (vector.tobytes() for vector in vectors), strict=True)
            database.executemany(f"INSERT INTO {table} VALUES (?, ?)", list(rows)[: 2 if table == "docs" else 1])
    pq.write_table(pa.table({"text": texts, "a": vectors.tolist(), "b": vectors.tolist()}), tmp_path / "two.parquet")
    for source, flags, asked in (
        (f"qdrant:{tmp_path / 'qdrant'}", ["--trust-source"], "if you trust whoever wrote it, add --trust-source"),
        (path, ["--table", "docs"], "several tables; name one with --table: docs, old"),
        (tmp_path / "two.parquet", ["--column", "b"], "several columns hold vectors: a, b; name one with --column"),
    ):
        pairs = tmp_path / f"pairs-{flags[0]}"
        code, _, err = run(capsys, "prepare", "--vectors", source, "--out", pairs)
        assert code == 2 and asked in err
        code, _, err = run(capsys, "prepare", "--vectors", source, "--out", pairs, *flags)
        assert code == 0, err
        assert sum(json.loads((pairs / "manifest.json").read_text())["rows"].values()) == 2


def test_prepare_says_how_texts_are_named(capsys, tmp_path):
    """A file whose texts are in a column of another name held none, and how to name it was not said."""
    path = tmp_path / "dump.parquet"
    pq.write_table(pa.table({"body": ["a", "b"], "vector": np.eye(2, 384).tolist()}), path)
    code, _, err = run(capsys, "prepare", "--vectors", path, "--out", tmp_path / "pairs")
    assert code == 2 and "holds no texts; columns: body, vector; name theirs with --text-column" in err, err
    pq.write_table(pa.table({"vector": np.eye(2, 384).tolist()}), path)
    code, _, err = run(capsys, "prepare", "--vectors", path, "--out", tmp_path / "pairs")
    assert code == 2 and "holds no texts; columns: vector" in err and "--text-column" not in err, err


def test_prepare_takes_a_share_and_evaluate_scores_it(capsys, checkpoint, tmp_path):
    """Counts and floors of the whole path: text file → pairs, text file → table and JSON."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"Box {number} holds {number * 7 % 50} red balls." for number in range(60)) + "\n")
    encoder = "minilm"
    code, out, _ = run(capsys, "prepare", texts, "--out", tmp_path / "pairs", "--encoder", encoder, "--share", "0.5")
    rows = json.loads((tmp_path / "pairs" / "manifest.json").read_text())["rows"]
    assert code == 0 and 15 <= sum(rows.values()) <= 45 and "pairs" in out
    results = tmp_path / "scores.json"
    code, out, _ = run(capsys, "evaluate", texts, "--limit", "5", "--out", results, "--model", checkpoint)
    rows = json.loads(results.read_text())["rows"]
    assert code == 0 and "floor: random" in out and "calibration error" in out
    assert [row["name"] for row in rows if row["section"] in ("inversion", "floor")] == [
        "inversion", "floor: vector of another text", "floor: no vector", "floor: random tokens",
    ]  # fmt: skip
    assert all(score["low"] <= score["mean"] <= score["high"] for row in rows for score in row["scores"].values())


def test_evaluate_sweeps_and_knows_the_training_text(capsys, checkpoint, tmp_path):
    """A sweep that ran one combination only, or a floor that looks at something else than the training pairs."""
    texts = tmp_path / "texts.txt"
    texts.write_text("A red kite flies.\nTwo men talk.\nThe sea is blue.\nMy cat sleeps all day.\n")
    pairs, plots, results = tmp_path / "pairs", tmp_path / "plots", tmp_path / "scores.json"
    assert run(capsys, "prepare", texts, "--out", pairs, "--validation_share", "0")[0] == 0
    code, _, err = run(
        capsys, "evaluate", texts, "--model", checkpoint, "--training_pairs", pairs, "--plots", plots,
        "--out", results, "--num_steps", "1", "4", "--guidance_scale", "1", "2",
    )  # fmt: skip
    assert re.search(r"^3/4 num_steps 4, guidance_scale 1.0: token accuracy \d.*BLEU \d.* cosine \S+ \[", err, re.M)
    rows = json.loads(results.read_text())["rows"]
    assert code == 0 and [row["num_forward_passes"] for row in rows if row["section"] == "inversion"] == [1, 1, 4, 4]
    (nearest,) = [row for row in rows if row["name"] == "floor: nearest training text"]
    assert nearest["scores"]["exact"]["mean"] == 100
    assert {path.name for path in plots.iterdir()} >= {"reliability.png", "positions.png", "passes.png"}


def test_evaluate_loses_no_scores_to_a_full_disk(capsys, checkpoint, tmp_path, file_limit):
    """The scores of hours were gone where --out could not be written; a plot that was cut had an older one's place."""
    texts, plots, results = tmp_path / "texts.txt", tmp_path / "plots", tmp_path / "scores.json"
    texts.write_text("A red kite flies.\nTwo men talk.\n")
    arguments = ("evaluate", texts, "--model", checkpoint, "--no-floors", "--out", results, "--plots", plots)
    assert run(capsys, *arguments)[0] == 0
    before = {path: path.read_bytes() for path in (results, *plots.iterdir())}
    for limit, refused, kept in ((100, "scores.json", ""), (10_000, "reliability.png", "The scores are in")):
        file_limit(limit)
        code, printed, err = run(capsys, *arguments)
        file_limit(None)
        assert code == 2 and f"{refused} cannot be written" in err.splitlines()[-1] and kept in err.splitlines()[-1]
        assert printed.count("Expected calibration error") == 1 and "token F1" in printed
        found = {path: path.read_bytes() for path in (results, *plots.iterdir())}
        assert found.keys() == before.keys() and all(found[path] == before[path] for path in plots.iterdir())


def test_evaluate_takes_the_pairs_that_were_asked_for(capsys, checkpoint, tmp_path):
    """Texts that fill their canvas passed for shorter ones; folders and files of one name became one part."""
    words = ["red", "kite", "flies", "over", "the", "old", "town", "and", "the", "sea"]
    results = tmp_path / "scores.json"
    for folder in ("a", "b"):
        lines = [" ".join(words[:count]) for count in range(1, len(words) + 1)]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "texts.txt").write_text("\n".join(lines if folder == "a" else lines[:3]) + "\n")
        source, pairs = tmp_path / folder / "texts.txt", tmp_path / folder / "pairs"
        assert run(capsys, "prepare", source, "--out", pairs, "--length", "10", "--validation-share", "0")[0] == 0
    arguments = ("--model", checkpoint, "--no-floors", "--out", results)
    both = [tmp_path / folder / "pairs" for folder in ("a", "b")]
    for sources, more in (
        ([tmp_path / "a" / "texts.txt", tmp_path / "b" / "texts.txt"], ()), (["--pairs", *both], ("--split", "train")),
    ):  # fmt: skip
        code, _, err = run(capsys, "evaluate", *sources, *more, *arguments, "--max-tokens", "9")
        rows = json.loads(results.read_text())["rows"]
        parts = {row["name"]: row["texts"] for row in rows if row["section"] == "part"}
        assert code == 0 and list(parts.values()) == [9, 3], err
        assert [name.split("/")[0] for name in parts] == ["a", "b"]


@pytest.fixture(scope="module")
def long_pairs(tmp_path_factory):
    """Pairs of 2 to 13 tokens with their ends, 9 of 12 of which fit the checkpoints' canvas of 10, in both splits."""
    folder = tmp_path_factory.mktemp("long")
    words = ["red", "kite", "flies", "over", "the", "old", "town", "and", "the", "blue", "sea", "here"]
    (folder / "texts.txt").write_text("".join(" ".join(words[:count]) + "\n" for count in range(1, 13)))
    found = {}
    for split, share in (("train", "0"), ("validation", "1")):
        found[split] = folder / split
        command = ["prepare", folder / "texts.txt", "--out", found[split], "--length", "16"]
        assert main([str(word) for word in [*command, "--validation-share", share]]) == 0
    return found


def test_evaluate_notes_which_texts_it_scored(capsys, checkpoint, long_pairs, tmp_path):
    """The JSON did not say which split it is of, so a card called scores on training texts held out."""
    (tmp_path / "texts.txt").write_text("A red kite flies.\nTwo men talk.\n")
    pairs = ["--pairs", long_pairs["train"], "--split", "train"]
    for given, split in (([tmp_path / "texts.txt"], "files of texts"), (pairs, "train")):
        command = ["evaluate", *given, "--model", checkpoint, "--no-floors", "--out", tmp_path / "scores.json"]
        code, _, err = run(capsys, *command)
        assert code == 0 and json.loads((tmp_path / "scores.json").read_text())["split"] == split, err


def test_evaluate_says_what_scores_on_the_training_split_are(capsys, checkpoint, long_pairs):
    """Texts that the model has learned were scored like any others, and nothing said so."""
    for split, told in (("train", 1), ("validation", 0)):
        command = ["evaluate", "--pairs", long_pairs[split], "--split", split, "--no-floors", "--limit", "2"]
        code, _, err = run(capsys, *command, "--model", checkpoint)
        assert code == 0 and err.count("--split train: scores on texts that the model may have learned") == told


def test_evaluate_says_which_pairs_are_too_long(capsys, checkpoint, long_pairs):
    """Pairs longer than the canvas were left out without a word: one of fourteen was scored."""
    folder = long_pairs["validation"]
    command = ["evaluate", "--pairs", folder, "--model", checkpoint, "--no-floors"]
    counts = f"embinv: warning: {folder}: 3 of 12 pairs of the validation split are longer than the canvas of 10"
    assert f"{counts} tokens, so they are left out.\n" in run(capsys, *command)[2]
    assert "left out" not in run(capsys, *command, "--max-tokens", "9")[2]  # as was asked for


def test_evaluate_says_which_texts_are_cut_or_left_out(capsys, checkpoint, tmp_path):
    """Passages were scored by their first tokens, and texts that the tokenizer does not know were missing, unsaid."""
    files = {"ja": ["雨が降る", "猫が寝る"], "long": ["red " * 11, "red " * 10, "red " * 30], "one": ["two men talk"]}
    for name, lines in files.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{line.strip()}\n" for line in lines), encoding="utf-8")
    long, ja, one = (tmp_path / f"{name}.txt" for name in ("long", "ja", "one"))
    command = ["evaluate", "--model", checkpoint, "--no-floors"]
    code, _, err = run(capsys, *command, long, ja, one)
    assert code == 0 and [line for line in err.splitlines() if "warning" in line] == [
        f"embinv: warning: {long}: cut 2 of 3 texts to their first 10 tokens, as this model writes no more; "
        "--max-tokens 10 leaves longer texts out.",
        f"embinv: warning: {ja}: left out 2 of 2 texts: the encoder's tokenizer cannot give them back from their "
        "tokens, as where it does not know a character.",
    ]
    assert "warning" not in run(capsys, *command, long, one, "--max-tokens", "10")[2]  # as was asked for
    code, _, err = run(capsys, *command, ja)
    assert code == 2 and "the encoder's tokenizer can give none of these texts back from its tokens" in err


def test_calibrate_says_which_pairs_are_too_long(capsys, checkpoint, long_pairs, tmp_path, monkeypatch):
    """A calibration of short texts alone, where the folder has longer ones, passed for one of all."""
    monkeypatch.setattr(calibrate, "_written_tokens", lambda *_: [])
    model = shutil.copytree(checkpoint, tmp_path / "model")
    code, _, err = run(capsys, "calibrate", long_pairs["validation"], "--model", model)
    assert code == 0 and err.count("3 of 12 pairs of the validation split are longer than the canvas of 10 tok") == 1


def test_calibrate_says_that_few_texts_say_little(capsys, checkpoint, long_pairs, tmp_path, monkeypatch):
    """A calibration on a dozen texts was saved and printed like one on a thousand."""
    monkeypatch.setattr(calibrate, "_written_tokens", lambda *_: [])
    model = shutil.copytree(checkpoint, tmp_path / "model")
    command = ["calibrate", long_pairs["validation"], "--model", model]
    for more, message in (
        ([], "a calibration on 12 texts says little of other texts: prepare more texts, or"),
        (["--limit", "5"], "a calibration on 5 texts says little of other texts: raise --limit."),
    ):
        code, _, err = run(capsys, *command, *more)
        assert code == 0 and err.count(message) == 1
    monkeypatch.setattr(calibrate, "FEW_TEXTS", 12)
    assert "says little" not in run(capsys, *command)[2]


def test_calibrate_finds_a_missing_surrogate_before_it_fits(capsys, checkpoint, long_pairs, tmp_path, monkeypatch):
    """Two kinds of confidence were fitted for minutes, and saved, before the line that there is no surrogate."""
    monkeypatch.setattr(calibrate, "load_model", lambda _: pytest.fail("the weights were loaded"))
    model = shutil.copytree(checkpoint, tmp_path / "model")
    command = ["calibrate", long_pairs["validation"], "--model", model, "--feedback", "surrogate", "encoder"]
    code, _, err = run(capsys, *command)
    assert code == 2 and f"{model} has no surrogate encoder: leave surrogate out of --feedback" in err
    assert err.count("\n") == 1


def test_prepare_says_that_nothing_is_left_to_train_on(capsys, tmp_path):
    """An empty validation split was told, an empty training split was not."""
    (tmp_path / "texts.txt").write_text("A red kite flies.\nTwo men talk.\n")
    command = ["prepare", tmp_path / "texts.txt", "--out", tmp_path / "pairs", "--validation-share", "1"]
    code, _, err = run(capsys, *command)
    assert code == 0 and "warning: no pair is left to train on: lower --validation-share and --test-share." in err


@pytest.mark.parametrize(
    "files, names",
    [
        (["a.txt"], ["a"]), (["v1.0/", "v1.1/"], ["v1.0", "v1.1"]), (["a.txt", "a.jsonl"], ["a.txt", "a.jsonl"]),
        (["en/a.txt", "de/a.txt", "b.txt"], ["en/a", "de/a", "b"]), (["a.b.txt", "a.b/"], ["a.b.txt", "a.b"]),
        (["en/test/d.txt", "de/test/d.txt"], ["en/test/d", "de/test/d"]), (["d.txt", "x/d.txt"], ["data/d", "x/d"]),
        (["x/a.txt", "x/a.jsonl", "y/a.txt"], ["x/a.txt", "a.jsonl", "y/a"]), (["x/../a.txt", "x/"], ["a", "x"]),
        (["a.txt", "a.jsonl", "a.txt.gz"], ["a.txt", "a.jsonl", "a.txt.gz"]),
    ],
)  # fmt: skip
def test_parts_of_an_evaluation_are_told_apart(tmp_path, monkeypatch, files, names):
    """Files of one name became one part, and so did the folders v1.0 and v1.1."""
    folder = tmp_path / "data"
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).mkdir(exist_ok=True) if file.endswith("/") else (folder / file).touch()
    monkeypatch.chdir(folder)
    assert evaluate._part_names(files) == names
    assert evaluate._part_names(["."]) == ["data"]


def test_evaluate_refuses_pairs_of_another_encoder(capsys, checkpoint, encoder, tmp_path):
    """They were scored as if they were the model's, or ended hours of inversions without a score."""
    vectors = np.eye(8, 24, dtype=np.float32)
    pq.write_table(
        pa.table({"text": [f"Box {n}." for n in range(8)], "embedding": list(vectors)}), tmp_path / "d.parquet"
    )
    (tmp_path / "api.yaml").write_text(f"id: some/api\ntokenizer: {encoder.path}\nembedding_dim: 24\n")
    pairs, texts = tmp_path / "pairs", tmp_path / "texts.txt"
    texts.write_text("A red kite flies.\n")
    prepare = ("--vectors", tmp_path / "d.parquet", "--out", pairs, "--encoder", tmp_path / "api.yaml")
    assert run(capsys, "prepare", *prepare, "--validation-share", "0.5")[0] == 0
    for arguments in (
        ("evaluate", "--pairs", pairs),
        ("evaluate", texts, "--training-pairs", pairs),
        ("calibrate", pairs),
    ):
        code, _, err = run(capsys, *arguments, "--model", checkpoint)
        assert code == 2 and "prepared with encoder_id some/api" in err and err.count("\n") == 1


def test_vectors_of_an_encoder_that_cannot_be_loaded(capsys, encoder, tmp_path):
    """Users of an API have vectors and no encoder: preparing, training and scoring must all do without."""
    vectors = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    texts = [f"Box {number} holds {number * 7 % 50} red balls." for number in range(40)]
    table = pa.table({"text": texts, "embedding": list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))})
    pq.write_table(table, tmp_path / "dump.parquet")
    yaml = tmp_path / "api.yaml"
    yaml.write_text(f"# an API\nid: some/api\ntokenizer: {encoder.path}\nembedding_dim: 24\n")
    pairs, model = tmp_path / "pairs", tmp_path / "run" / "last"
    prepare = ["--vectors", tmp_path / "dump.parquet", "--out", pairs, "--encoder", yaml, "--validation_share", "0.2"]
    assert run(capsys, "prepare", *prepare)[0] == 0
    code, _, err = run(
        capsys, "train", "--pairs", pairs, "--encoder", yaml, "--output_dir", tmp_path / "run", "--batch_size", "4",
        "--backbone_config", json.dumps(TINY_TRUNK), "--max_sequence_length", "16", "--max_steps", "2",
    )  # fmt: skip
    assert code == 0, err
    code, out, err = run(capsys, "evaluate", "--pairs", pairs, "--model", model, "--encoder", yaml)
    assert code == 0 and "token F1" in out and "cosine" not in out, err
    code, _, err = run(capsys, "demo", "A text.", "--model", model, "--encoder", yaml)
    assert code == 2 and "some/api cannot be called here" in err


@pytest.mark.slow
def test_calibrate_saves_what_it_fitted(capsys, checkpoint, tmp_path, monkeypatch):
    """A fit that the next load does not use is worth nothing."""
    monkeypatch.setitem(CANDIDATES, "num_candidates", 2)  # 32 take far longer
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"Box {number} holds {number * 7 % 50} red balls." for number in range(60)) + "\n")
    assert run(capsys, "prepare", texts, "--out", tmp_path / "pairs", "--validation_share", "0.5")[0] == 0
    tiny, tokenizer = load_inverter(checkpoint)
    with torch.no_grad():
        tiny.decoder.bias[tokenizer.convert_tokens_to_ids("balls")] = 6  # right once a text, and wrong elsewhere
    tiny.generation_config.calibration = before = {"open_loop": {"bias": -1.7}}
    model = export(tiny, tokenizer, tmp_path / "model")
    code, out, err = run(capsys, "calibrate", tmp_path / "pairs", "--model", model, "--limit", "10")
    fitted = json.loads((model / "generation_config.json").read_text())["calibration"]
    assert code == 0 and fitted["open_loop"] != before["open_loop"], err
    assert all(f"bias {fitted[kind]['bias']}" in out for kind in ("open_loop", "candidates")), err
    assert EmbInvGenerationConfig.from_pretrained(model).calibration == fitted


def test_a_folder_without_a_model_is_named(capsys, tmp_path):
    """The library's own message is a page long and speaks of the Hub."""
    (tmp_path / "empty").mkdir()
    for name, message in (("nothing", ": no such folder"), ("empty", " is not a readable inverter")):
        code, _, err = run(capsys, "demo", "--model", tmp_path / name)
        assert code == 2 and f"{name}{message}" in err and len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_corrections_are_checked_by_the_encoder(capsys, searching, encoder, tmp_path):
    """Flags that reach some commands only: demo, invert and evaluate must all close the loop."""
    loop = ["--num_candidates", "4", "--num_corrections", "1", "--feedback", "encoder"]
    np.save(tmp_path / "v.npy", encoder.encode(["We will meet at the station."]).numpy())
    code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--out", tmp_path / "out.jsonl", *loop)
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert code == 0 and "meet" in row["text"] and 0.5 < row["cosine"] <= 1.001, err
    loop += ["--model", searching]  # far smaller than the released one, which the others need not show
    code, out, err = run(capsys, "demo", "We will meet at the station.", *loop)
    assert code == 0 and "encoder calls" in out, err
    code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--out", tmp_path / "tiny.jsonl", *loop)
    row = json.loads((tmp_path / "tiny.jsonl").read_text())
    code, out, err = run(capsys, "invert", tmp_path / "v.npy", *loop)
    assert code == 0 and f"{row['cosine']:.3f} {row['verdict']}" in out, err
    (tmp_path / "texts.txt").write_text("We will meet at the station.\nThe dog slept.\n")
    code, out, err = run(capsys, "evaluate", tmp_path / "texts.txt", "--no_floors", *loop)
    assert code == 0 and "encoder calls" in out, err
    code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--num_corrections", "1")
    assert code == 2 and "--num-corrections needs --feedback" in err


def test_int8_reaches_the_commands(capsys, checkpoint, tmp_path, encoder, monkeypatch):
    """A flag that is parsed and forgotten changes nothing but the user's hopes."""
    packed, pack = [], int8_embinv.pack
    monkeypatch.setattr(int8_embinv, "pack", lambda model: (packed.append(model), pack(model)))
    np.save(tmp_path / "v.npy", encoder.encode(["A red kite.", "Two men talk."]).numpy())
    (tmp_path / "texts.txt").write_text("Two men talk.\nThe dog slept.\n")
    arguments = ["--model", checkpoint, "--int8"]
    code, out, err = run(capsys, "demo", "A red kite.", *arguments)
    assert code == 0 and "refined" in out, err
    code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--out", tmp_path / "out.jsonl", *arguments)
    assert code == 0 and len((tmp_path / "out.jsonl").read_text().splitlines()) == 2, err
    code, _, err = run(capsys, "evaluate", tmp_path / "texts.txt", "--no_floors", *arguments)
    assert code == 0 and len(packed) == 3, err


def test_invert_has_presets(capsys, checkpoint, searching, tmp_path, encoder):
    """A default that searches nowhere, flags of old commands that begin to, and rows without a verdict."""
    np.save(tmp_path / "v.npy", encoder.encode(["A red kite.", "Two men talk."]).numpy())

    def rows(*arguments, model=searching):
        command = ["invert", tmp_path / "v.npy", "--out", tmp_path / "o.jsonl", "--overwrite", "--model", model]
        code, _, err = run(capsys, *command, *arguments)
        assert code == 0, err
        return [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()], err

    standard, _ = rows()
    texts = [row["text"] for row in standard]
    assert texts == [row["text"] for row in rows("--preset", "standard")[0]]
    assert all(row["verdict"] and row["verdict_in_words"] and row["cosine"] <= 1 for row in standard)
    quick, flags = rows("--preset", "quick")[0], rows("--num-steps", "8")[0]
    assert [row["text"] for row in quick] == [row["text"] for row in flags] != texts
    assert quick[0]["cosine"] is not None and flags[0]["cosine"] == quick[0]["cosine"]
    assert quick[0]["confidence"] == flags[0]["confidence"]
    fallback, err = rows(model=checkpoint)
    assert "no surrogate, so the preset is quick" in err and fallback[0]["cosine"] is None
    for name in ("standard", "thorough"):
        code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--model", checkpoint, "--preset", name)
        assert code == 2 and f"the preset {name} needs a surrogate" in err
    code, _, err = run(capsys, "invert", tmp_path / "v.npy", "--preset", "standard", "--feedback", "none")
    assert code == 2 and "--preset standard needs --feedback surrogate" in err


def test_evaluate_takes_a_preset_when_it_is_named(searching):
    """Old sweeps that begin to search, or a preset whose values are taken for sweeps of their letters."""
    parser = argparse.ArgumentParser()
    add_model(parser, sweep=True)
    model, _ = load_inverter(searching)
    options = parser.parse_args([])
    assert evaluate._several(options, model, {}) == {}
    options = parser.parse_args(["--preset", "standard", "--num_corrections", "1", "2"])
    values = evaluate._several(options, model, {"num_corrections": [1, 2]})
    assert values == {
        "num_candidates": [24], "num_corrections": [1, 2], "num_beams": [1], "num_proposals": [24],
        "num_hops": [2], "feedback": ["surrogate"],
    }  # fmt: skip


def test_an_output_that_exists_is_kept(capsys, checkpoint, tmp_path, encoder):
    """Results of a night that the next command, or the same one again, replaced without a word."""
    np.save(tmp_path / "v.npy", encoder.encode(["A red kite.", "Two men talk."]).numpy())
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"o.{kind}"
        command = ["invert", tmp_path / "v.npy", "--out", out, "--model", checkpoint, "--num-steps", "1"]
        assert run(capsys, *command)[0] == 0
        before = out.read_bytes()
        code, _, err = run(capsys, *command)
        assert code == 2 and "exists already, with 2 texts for 2 vectors: give --overwrite" in err
        assert out.read_bytes() == before
        assert run(capsys, *command, "--overwrite")[0] == 0
    assert "with 2 texts for 1 vector: give" in run(capsys, *command, "--limit", "1")[2]
    np.save(tmp_path / "v.npy", np.concatenate([np.load(tmp_path / "v.npy"), np.zeros((1, 384), np.float32)]))
    assert "with 2 texts for 3 vectors (a row that was left out has no text)" in run(capsys, *command)[2]
    out.write_text("no parquet")
    assert "is no parquet file" in run(capsys, *command)[2] and out.read_text() == "no parquet"


def test_invert_in_a_pipe(checkpoint, fresh, tmp_path, encoder):
    """Vectors of standard input in every kind, JSON lines on standard output, and nothing else there."""
    vectors = encoder.encode(["A red kite.", "Two men talk.", "The sea is blue."]).numpy()
    np.save(tmp_path / "v.npy", vectors)
    pq.write_table(pa.table({"id": ["a", "b", "c"], "emb": vectors.tolist()}), tmp_path / "v.parquet")
    (tmp_path / "v.jsonl").write_text("".join(json.dumps({"embedding": row}) + "\n" for row in vectors.tolist()))
    (tmp_path / "v.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in vectors.tolist()))
    texts = []
    script = (
        "import sys\nfrom modeling_embinv.cli.main import main\n"
        "for name in sys.argv[2:]:\n"
        "    sys.stdin = open(name)\n"
        "    flags = ['--out', '-', '--limit', '2', '--num-steps', '1', '--model', sys.argv[1]]\n"
        "    assert main(['invert', '-', *flags]) == 0"
    )
    names = [str(tmp_path / f"v.{kind}") for kind in ("npy", "parquet", "jsonl", "csv")]
    done = fresh.run(script, checkpoint, *names, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    texts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["row"] for row in texts] == [0, 1] * 4 and len({row["text"] for row in texts[::2]}) == 1
    assert "Loading weights" not in done.stderr and done.stderr.count("2 texts (") == 4


def test_standard_input_in_lines(capsys, checkpoint, tmp_path, encoder, monkeypatch):
    """Bare lists and a byte order mark were refused, and the message named a temporary file."""
    vectors = encoder.encode(["A red kite.", "Two men talk.", "The sea is blue."]).tolist()
    bare = "".join(json.dumps(row) + "\n" for row in vectors)
    named = "".join(json.dumps({"embedding": row}) + "\n" for row in vectors)
    table = "id,emb\n" + "".join(f'{row},"{vector}"\n' for row, vector in enumerate(vectors))
    command = ["invert", "-", "--model", checkpoint, "--num-steps", "1", "--out", "-"]

    def piped(content: str) -> tuple[int, str, str]:
        (tmp_path / "input").write_text(content, encoding="utf-8")
        with (tmp_path / "input").open(encoding="utf-8") as file, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", file)
            return run(capsys, *command)

    for content in (bare, named, table):
        for mark in ("", "\ufeff"):
            code, out, err = piped(mark + content)
            assert code == 0 and len(out.splitlines()) == 3, err
            assert "embinv: standard input: vectors of 384 numbers" in err and "/input" not in err
    late = named * 200  # behind the first rows, which are read when it is opened
    for content, message in (
        (late[:-40], "standard input: line 600 is not JSON (truncated?)"),
        ("[1, 2", "standard input: is not JSON (truncated?)"),
        ("some words", "standard input: no column of vectors; present: some words"),
        (named + '{"embedding": null}\n', "standard input: skipped 1 row"),
    ):
        code, _, err = piped(content)
        assert code in (2, 3) and message in err and "/input" not in err, err


def test_the_first_ones_and_a_sample(capsys, checkpoint, tmp_path, encoder):
    """A flag that is parsed and forgotten reads all of a store."""
    np.save(tmp_path / "v.npy", encoder.encode([f"Box {number}." for number in range(9)]).numpy())
    command = ["invert", tmp_path / "v.npy", "--out", tmp_path / "o.jsonl", "--overwrite", "--model", checkpoint]
    assert run(capsys, *command, "--num-steps", "1", "--limit", "4", "--redact")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3] and not any(row["tokens"] for row in rows)
    assert run(capsys, *command, "--num-steps", "1", "--sample", "3", "--seed", "5")[0] == 0
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3
    code, _, err = run(capsys, *command, "--sample", "3", "--limit", "3")
    assert code == 2 and "--limit or --sample, not both" in err
