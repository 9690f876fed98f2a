"""Inverting files of vectors: formats, resuming, sharing, bad rows, and what a terminal shows."""

import copy
import errno
import io
import json
import os
import re
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import chromadb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState, debug_launcher
from chromadb.config import Settings
from datasets import Dataset
from rich.console import Console
from rich.text import Text

from modeling_embinv.data.content_words import content_words, masked
from modeling_embinv.data.encoder_config import EncoderConfig
from modeling_embinv.data.encoders import load_encoder
from modeling_embinv.data.parts import locked
from modeling_embinv.data.typed_vector import parse_vector
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.hypotheses_embinv import SearchRound
from modeling_embinv.inversion import jobs
from modeling_embinv.inversion.dumps import invert_file
from modeling_embinv.inversion.judges import judge_identity, unchanged
from modeling_embinv.inversion.parts import ResultParts, count_rows
from modeling_embinv.inversion.rows import Inversion, invert_vectors
from modeling_embinv.inversion.terminal import LEVELS, legend, print_inversions, tinted
from modeling_embinv.loading import load_inverter
from modeling_embinv.progress.bar import RowBar
from modeling_embinv.progress.rates import speed
from modeling_embinv.stores.vectors import open_vectors
from modeling_embinv.training.backbone import new_inverter, prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from modeling_embinv.verdicts_embinv import TEXT_VERDICTS, verdict_of
from tests.tiny_models import awaken, unit_vectors

ROWS, PART = 14, 5
VECTORS = unit_vectors(ROWS, dim=384).numpy()
EULER = {"strategy": "euler", "num_steps": 2, "max_length": 4}


@pytest.fixture(scope="module")
def inverter(encoder, tmp_path_factory):
    """A saved tiny model with a real tokenizer, and loaded again: (model, tokenizer)."""
    torch.manual_seed(0)
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    backbone = dict(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64
    )
    model = awaken(new_inverter(tokenizer, backbone, embedding_dim=384, max_sequence_length=8))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(40)  # tied to the output layer: sure of some tokens
        model.decoder.bias[model.config.eos_token_id] = 15  # some texts are short
    folder = export(model, tokenizer, tmp_path_factory.mktemp("inverter") / "model")
    return load_inverter(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, VECTORS)
    return path


def invert(inverter, source, out, **arguments):
    """`invert_file` with small parts and few steps; `column`, `id_column` and `strict` are of `open_vectors`."""
    arguments = dict(settings=EULER, batch_size=2, part_rows=PART, show_progress=False) | arguments
    opened = {name: arguments.pop(name) for name in ("column", "id_column", "strict") if name in arguments}
    return invert_file(*inverter, open_vectors(source, **opened), out, **arguments)


@pytest.fixture(scope="module")
def expected(inverter, source, tmp_path_factory):
    """The bytes that an uninterrupted run in one process writes."""
    out = tmp_path_factory.mktemp("expected") / "out.jsonl"
    invert(inverter, source, out)
    return out.read_bytes()


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


class Killed(BaseException):
    """Like a kill: nothing catches it."""


def kill_after(monkeypatch, calls, error=None):
    """Lets Path.replace work so often, then fails it: 1 for run.json and 1 for each part."""
    replace, seen = Path.replace, []

    def failing(*paths):
        seen.append(paths)
        if len(seen) > calls:
            raise error or Killed
        replace(*paths)

    monkeypatch.setattr(Path, "replace", failing)


# Formats


def write_source(folder, kind):
    path = folder / f"vectors{kind}"
    table = pa.table({"key": list(range(ROWS)), "vector": VECTORS.tolist(), "other": VECTORS[::-1].tolist()})
    if kind == ".npy":
        np.save(path, VECTORS)
    elif kind == ".parquet":
        pq.write_table(table, path, row_group_size=5)
    elif kind == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=3)
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        Dataset(table).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", [".npy", ".parquet", ".arrow", ".jsonl", "-saved"])
def test_every_format_gives_the_same_texts(inverter, tmp_path, expected, kind):
    """Catches readers' odd batch sizes shifting rows or noise, and a format that loses precision."""
    stats = invert(inverter, write_source(tmp_path, kind), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert (stats["vectors"], stats["resumed"]) == (ROWS, 0) and stats["vectors_per_second"] > 0


def test_a_row_holds_the_text_its_tokens_and_their_confidence(inverter, source, expected, tmp_path):
    """Catches confidences of the end token or of padding beside the text's, and a text that is not its tokens."""
    (tmp_path / "out.jsonl").write_bytes(expected)
    rows = rows_of(tmp_path / "out.jsonl")
    tokenizer = inverter[1]
    assert [row["row"] for row in rows] == list(range(ROWS))
    assert min(len(row["tokens"]) for row in rows) < max(len(row["tokens"]) for row in rows) == 4
    for row in rows:
        assert set(row) == set(Inversion._fields)
        assert row["text"] == tokenizer.convert_tokens_to_string(row["tokens"])
        assert len(row["token_confidence"]) == len(row["tokens"]) > 0
        assert row["confidence"] == pytest.approx(np.mean(row["token_confidence"]), abs=1e-4)
        assert not {"[SEP]", "[PAD]", "[MASK]"} & set(row["tokens"])


def test_parquet_holds_the_same_rows(inverter, source, expected, tmp_path):
    """Catches a parquet merge that loses order, or turns a text that looks like a date into one."""
    invert(inverter, source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    (tmp_path / "out.jsonl").write_bytes(expected)
    for ours, theirs in zip(table.to_pylist(), rows_of(tmp_path / "out.jsonl"), strict=True):
        assert [ours[name] for name in ("row", "text", "tokens")] == [
            theirs[name] for name in ("row", "text", "tokens")
        ]
        assert ours["token_confidence"] == pytest.approx(theirs["token_confidence"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.parquet"]


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_batch_size_changes_no_sampled_text(inverter, source, expected, tmp_path, batch_size):
    """Catches noise that is seeded by batch: an out-of-memory error could then not be answered by a smaller batch."""
    invert(inverter, source, tmp_path / "out.jsonl", batch_size=batch_size)
    (tmp_path / "expected.jsonl").write_bytes(expected)
    ours, theirs = rows_of(tmp_path / "out.jsonl"), rows_of(tmp_path / "expected.jsonl")
    assert [row["text"] for row in ours] == [row["text"] for row in theirs]


def test_a_checkpoints_own_settings_are_not_the_users(inverter, source, tmp_path, monkeypatch):
    """Every `--strategy` and `--temperature` failed on the released checkpoint, for its own `num_draft_beams`."""
    own = dict(strategy="autoregressive", num_draft_beams=4)
    monkeypatch.setattr(inverter[0].config, "causal_share", 0.5)
    monkeypatch.setattr(inverter[0], "generation_config", inverter[0].generation_config.with_changes(**own))
    for settings in (EULER, {"strategy": "confidence", "num_steps": 2, "temperature": 0.5}):
        assert invert(inverter, source, tmp_path / "out.jsonl", settings=settings)["vectors"] == ROWS
    with pytest.raises(EmbInvError, match="num_draft_beams"):
        invert(inverter, source, tmp_path / "out.jsonl", settings=EULER | {"num_draft_beams": 4})


def test_the_seed_and_the_part_matter(inverter, source, expected, tmp_path):
    """Catches a seed that is ignored, and parts that all draw the same noise."""
    np.save(tmp_path / "same.npy", np.repeat(VECTORS[:1], 2 * PART, axis=0))
    invert(inverter, tmp_path / "same.npy", tmp_path / "same.jsonl")
    texts = [row["text"] for row in rows_of(tmp_path / "same.jsonl")]
    assert texts[:PART] != texts[PART:]
    invert(inverter, source, tmp_path / "out.jsonl", seed=1)
    assert (tmp_path / "out.jsonl").read_bytes() != expected


@pytest.mark.parametrize("name", ["out.csv", "out", "out.jsonl.gz"])
def test_another_ending_is_refused(inverter, source, tmp_path, name):
    """Catches an unknown ending that is noticed only when all the work is done."""
    with pytest.raises(ValueError, match=r"^the output must end in .jsonl or .parquet, got .*$"):
        invert(inverter, source, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_ending_in_capital_letters(inverter, source, expected, tmp_path):
    """Catches `--out TEXTS.JSONL` being refused, and parquet under a name in capital letters holding JSON lines."""
    invert(inverter, source, tmp_path / "OUT.JSONL")
    assert (tmp_path / "OUT.JSONL").read_bytes() == expected and count_rows(tmp_path / "OUT.JSONL") == ROWS
    invert(inverter, source, tmp_path / "OUT.Parquet")
    assert len(pq.read_table(tmp_path / "OUT.Parquet")) == count_rows(tmp_path / "OUT.Parquet") == ROWS


def test_the_source_is_never_replaced(inverter, tmp_path):
    """Catches `embinv invert v.parquet --out v.parquet`, which would destroy the vectors."""
    path = write_source(tmp_path, ".parquet")
    for name in (
        f"./{path.name}",
        f"new/../{path.name}",
    ):  # the folder on the way is made later: the vectors were gone
        with pytest.raises(ValueError, match="would replace the vectors"):
            invert(inverter, path, tmp_path / name, column="vector")
        assert len(pq.read_table(path)) == ROWS


def test_no_file_of_a_store_is_replaced(inverter, tmp_path):
    """Catches `embinv invert vdf --out vdf/1.parquet`: only the folder's own name was refused."""
    path = write_source(tmp_path, ".parquet")
    part = {"data_path": ".", "vector_columns": ["vector"]}
    (tmp_path / "VDF_META.json").write_text(json.dumps({"indexes": {"docs": [part]}}))
    with pytest.raises(EmbInvError, match="would replace the vectors"):
        invert(inverter, tmp_path, path)
    assert len(pq.read_table(path)) == ROWS


# Resuming


@pytest.mark.parametrize(
    "calls, kind", [(0, ".jsonl"), (1, ".jsonl"), (2, ".jsonl"), (3, ".jsonl"), (4, ".jsonl"), (4, ".parquet")]
)
def test_a_killed_run_goes_on(inverter, source, expected, tmp_path, monkeypatch, calls, kind):
    """Catches duplicates, gaps and other noise after a kill at any point, and a half-written final file."""
    out = tmp_path / f"out{kind}"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, calls)
        invert(inverter, source, out)
    assert not out.exists()
    stats = invert(inverter, source, out)
    assert stats["resumed"] == min(max(calls - 1, 0) * PART, ROWS)
    if kind == ".jsonl":
        assert out.read_bytes() == expected
    else:
        assert pq.read_table(out)["row"].to_pylist() == list(range(ROWS))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_full_disk_keeps_the_old_output(inverter, source, tmp_path, monkeypatch):
    """Catches an earlier result being emptied before the new one is complete."""
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        kill_after(patch, 4, OSError(errno.ENOSPC, "No space left on device"))
        invert(inverter, source, out)
    assert out.read_text() == "precious\n"


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_a_full_disk_names_the_file(inverter, source, expected, tmp_path, file_limit, kind):
    """The line "[Errno 28] No space left on device" told nobody which disk that was."""
    out = tmp_path / f"out{kind}"
    file_limit(10)
    with pytest.raises(OSError, match=rf"out\{kind}.parts/run.json cannot be written: File too large"):
        invert(inverter, source, out)
    file_limit(len(expected) - 1)  # each part is smaller, and so is the parquet file but for its schema
    if kind == ".parquet":
        file_limit(None)
        invert(inverter, source, tmp_path / "whole.parquet")
        file_limit((tmp_path / "whole.parquet").stat().st_size - 1)
    with pytest.raises(OSError, match=rf"{out} cannot be written: File too large$"):
        invert(inverter, source, out)
    assert not out.exists()
    file_limit(None)
    assert invert(inverter, source, out)["resumed"] == ROWS
    assert kind == ".parquet" or out.read_bytes() == expected


def test_a_second_run_is_refused_while_the_first_writes(inverter, source, expected, tmp_path, monkeypatch):
    """Two runs of one command wrote to the same part, which was damaged: no later run could go on."""
    out, write, refused = tmp_path / "out.jsonl", ResultParts.write, []

    def again(self, name, rows):
        if not refused:
            with pytest.raises(EmbInvError, match=r"out.jsonl.parts: another run is writing there") as error:
                invert(inverter, source, out)
            refused.append(error)
        write(self, name, rows)

    monkeypatch.setattr(ResultParts, "write", again)
    invert(inverter, source, out)
    assert refused and out.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("damage", [b'{"row": 0, "te', b"\xff\x01", b"[1]\n"], ids=["torn", "bytes", "list"])
def test_what_cannot_be_read_of_a_run_is_named(inverter, source, tmp_path, monkeypatch, damage):
    """A damaged part or record was a traceback at every later call, which named no file."""
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        invert(inverter, source, out)
    parts = tmp_path / "out.jsonl.parts"
    part, record = min(parts.glob("0*.jsonl")), parts / "run.json"
    whole = record.read_bytes()
    record.write_bytes(damage)
    with pytest.raises(EmbInvError, match=r"run\.json is damaged .*: delete its folder"):
        invert(inverter, source, out)
    record.write_bytes(whole)
    part.write_bytes(damage)
    with pytest.raises(EmbInvError, match=rf"{part.name} is damaged .*: delete it and run again"):
        invert(inverter, source, out)
    part.unlink()
    invert(inverter, source, out)
    assert len(rows_of(out)) == ROWS


def part_of_killed_run(inverter, source, out, monkeypatch):
    """The first finished part of a run that was killed."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        invert(inverter, source, out)
    return min(out.with_name(f"{out.name}.parts").glob("0*.jsonl"))


def is_named_until_deleted(inverter, source, out, part, words):
    """A run that finds the part damaged says so in one line, and goes on once the part is deleted."""
    with pytest.raises(EmbInvError, match=rf"{part.name} is damaged \({words}\): delete it and run again") as error:
        invert(inverter, source, out)
    assert "\n" not in str(error.value) and not out.exists()
    part.unlink()
    assert invert(inverter, source, out)["vectors"] == ROWS


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "cut, words",
    [
        (lambda part: b"", f"0 rows in place of {PART}"),
        (lambda part: b"".join(part.splitlines(keepends=True)[:-1]), f"{PART - 1} rows in place of {PART}"),
        (lambda part: part.rstrip(b"\n"), "its last line has no end"),
    ],
    ids=["empty", "rows", "line"],
)
def test_a_part_that_was_cut_between_rows_is_named(inverter, source, tmp_path, monkeypatch, suffix, cut, words):
    """What a power cut or a full disk left of a part became the output: rows were missing and none was told."""
    out = tmp_path / f"out{suffix}"
    part = part_of_killed_run(inverter, source, out, monkeypatch)
    part.write_bytes(cut(part.read_bytes()))
    is_named_until_deleted(inverter, source, out, part, words)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda row: list(row), "row 0 is no JSON object"),
        (lambda row: None, "row 0 is no JSON object"),
        (lambda row: {key: row[key] for key in row if key not in ("text", "verdict")}, "row 0 has no text, verdict"),
        (lambda row: row | {"by": 1}, "row 0 has by as well"),
        (lambda row: row | {"text": 5}, ".*int.*"),
        (lambda row: row | {"verdict": ["same"]}, ".*list.*"),
        (lambda row: row | {"confidence": "sure"}, ".*str.*"),
    ],
    ids=["list", "null", "fields", "more", "text", "verdict", "number"],
)
def test_a_part_of_other_rows_is_named(inverter, source, tmp_path, monkeypatch, suffix, change, words):
    """Whole JSON of other rows ended a resumed run in a traceback, or became part of the output."""
    out = tmp_path / f"out{suffix}"
    part = part_of_killed_run(inverter, source, out, monkeypatch)
    first, *rest = rows_of(part)
    part.write_text("".join(json.dumps(row) + "\n" for row in [change(first), *rest]))
    is_named_until_deleted(inverter, source, out, part, words)


def test_the_end_of_a_run_spares_the_next(inverter, source, expected, tmp_path, monkeypatch):
    """A run removed its folder after others might write there: one that began just then lost its parts."""

    @contextmanager
    def then_another(folder):
        with locked(folder):
            yield
        (folder / "of the next").write_text("part")

    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(jobs, "locked", then_another)
    invert(inverter, source, out)
    assert out.read_bytes() == expected
    assert [path.name for path in (tmp_path / "out.jsonl.parts").iterdir()] == ["of the next"]


def test_a_torn_part_is_made_again(inverter, source, expected, tmp_path, monkeypatch):
    """Catches a part whose last line was cut by a kill counting as finished."""
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, source, out)
    (torn,) = (tmp_path / "out.jsonl.parts").glob("*.partial")
    torn.write_bytes(torn.read_bytes()[:-20])
    assert invert(inverter, source, out)["resumed"] == PART
    assert out.read_bytes() == expected


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(seed=5), "seed was 0, now 5"),
        (dict(settings=EULER | {"num_steps": 3}), "num_steps was 2, now 3"),
        (dict(part_rows=6), "part_rows was 5, now 6"),
        (dict(column="other"), "column was vector, now other"),
        (dict(id_column="key"), "id_column was None, now key"),
    ],
)
def test_resuming_with_other_settings_is_an_error(inverter, tmp_path, monkeypatch, changed, message):
    """Catches a file of which one half was made with other settings than the other."""
    source = write_source(tmp_path, ".parquet")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, source, tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match=re.escape(message)):
        invert(inverter, source, tmp_path / "out.jsonl", **changed)


def test_resuming_with_other_weights_or_vectors(inverter, encoder, source, expected, tmp_path, monkeypatch):
    """Catches a checkpoint that was trained on under the same name, and a source that was written anew."""
    path, out = tmp_path / "vectors.npy", tmp_path / "out.jsonl"
    np.save(path, VECTORS[::-1])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, path, out)
    model, tokenizer = inverter
    with torch.no_grad():
        model.decoder.bias += 1
    with pytest.raises(ValueError, match="weights was"):
        invert((model, tokenizer), path, out)
    with torch.no_grad():
        model.decoder.bias -= 1
    np.save(path, VECTORS)
    assert invert(inverter, path, out)["resumed"] == 0
    assert out.read_bytes() == expected


def test_resuming_in_int8_is_an_error(inverter, source, tmp_path, monkeypatch):
    """Catches a file of which one half was rounded: the weights' digest, which both share, does not tell."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, source, tmp_path / "out.jsonl")
    packed = copy.deepcopy(inverter[0]).to_int8(), inverter[1]
    with pytest.raises(ValueError, match="int8 was False, now True"):
        invert(packed, source, tmp_path / "out.jsonl")


def judge_of(seed):
    """A function that gives every text a vector of its own; another seed is another encoder."""

    def embed(texts):
        return np.stack([np.random.default_rng([seed, *text.encode()]).normal(size=384) for text in texts])

    return embed


@pytest.mark.parametrize("kind", ["function", "encoder"])
def test_resuming_with_another_encoder_is_an_error(inverter, encoder, source, tmp_path, monkeypatch, kind):
    """The cosines and verdicts of one half of a file were another encoder's, and nothing said so."""
    if kind == "function":
        first, other, same = judge_of(1), judge_of(2), judge_of(1)
    else:
        first = same = encoder.encode
        other = load_encoder(EncoderConfig(encoder.config.id, prompt="query: ")).encode
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, source, out, feedback=first)
    with pytest.raises(EmbInvError, match="begun with other arguments: feedback was "):
        invert(inverter, source, out, feedback=other)
    assert invert(inverter, source, out, feedback=same)["resumed"] == PART


def test_parts_of_an_older_version_go_on(inverter, source, tmp_path, monkeypatch):
    """An older version noted that an encoder judged, not which one: a night's parts must not be lost to an update."""
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, source, out, feedback=judge_of(1))
    record = tmp_path / "out.jsonl.parts" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"feedback": True}))
    with pytest.raises(EmbInvError, match="feedback was True, now False"):
        invert(inverter, source, out)
    assert invert(inverter, source, out, feedback=judge_of(1))["resumed"] == PART


def test_a_folder_is_one_judge_by_any_path(tmp_path, monkeypatch):
    """A run with `--encoder ./mine` could not go on with the whole path of that folder, nor the other way round."""

    class Encoder:
        def __init__(self, name):
            self.config = EncoderConfig(name)

        def encode(self, texts):
            return np.ones((len(texts), 384))

    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    names = "mine", str(tmp_path / "mine"), "./mine/"
    judges = [judge_identity(Encoder(name).encode, 384) for name in names]
    as_older_versions_noted_it = judges[0] | {"id": "mine"}
    for now in judges:
        assert all(unchanged("feedback", before, now) for before in (*judges, as_older_versions_noted_it))
        assert not unchanged("feedback", judge_identity(Encoder("other").encode, 384), now)


def test_a_gpu_and_a_cpu_are_one_judge():
    """A resume on another device rounds the vectors of the same encoder otherwise, and would be refused."""
    vector, other = unit_vectors(2, dim=384).numpy()
    now = judge_identity(lambda texts: vector[None], 384)
    rounded = judge_identity(lambda texts: vector[None].astype(np.float16).astype(np.float32) + 1e-4, 384)
    assert unchanged("feedback", now, rounded)
    assert not unchanged("feedback", now, judge_identity(lambda texts: other[None], 384))


def test_the_results_may_lie_in_the_folder_of_the_vectors(inverter, expected, tmp_path, monkeypatch):
    """In the folder that `datasets` saved, the run ended with "changed while it was read": its own parts had come."""
    monkeypatch.chdir(write_source(tmp_path, "-saved"))
    assert invert(inverter, ".", "texts.jsonl")["vectors"] == ROWS
    assert Path("texts.jsonl").read_bytes() == expected


def test_a_mistyped_command_leaves_nothing_that_blocks_the_right_one(inverter, source, tmp_path):
    """Catches a parts folder begun by a run that failed at once, which every later run would have to match."""
    with pytest.raises(ValueError, match="no such file"):
        invert(inverter, tmp_path / "missing.npy", tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="unknown generation argument"):
        invert(inverter, source, tmp_path / "out.jsonl", settings={"steps": 2})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no column 'wrong'"):
        invert(inverter, write_source(tmp_path, ".jsonl"), tmp_path / "out.jsonl", column="wrong")
    assert invert(inverter, source, tmp_path / "out.jsonl")["vectors"] == ROWS


# Bad vectors


@pytest.mark.parametrize("bad, message", [(np.nan, "row 11 holds NaN"), (0.0, "row 11 is all zeros")])
def test_strict_names_a_bad_row_and_keeps_earlier_parts(inverter, source, expected, tmp_path, bad, message):
    """Catches a row number counted from its batch, and a night's work lost to one bad row that is then corrected."""
    path, out = tmp_path / "vectors.npy", tmp_path / "out.jsonl"
    vectors = VECTORS.copy()
    vectors[11] = bad
    np.save(path, vectors)
    with pytest.raises(ValueError, match=message):
        invert(inverter, path, out, strict=True)
    assert not out.exists()
    np.save(path, VECTORS)
    assert invert(inverter, path, out)["resumed"] == 2 * PART
    assert out.read_bytes() == expected


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_bad_rows_are_left_out_and_the_others_keep_their_numbers(inverter, expected, tmp_path, monkeypatch, kind):
    """Catches rows that move up behind a bad one, a part of none but bad rows, and a resume that mixes them up."""
    path, out = tmp_path / "vectors.npy", tmp_path / f"out{kind}"
    vectors = VECTORS.copy()
    vectors[[2, 5, 6, 7, 8, 9]] = np.nan  # one row of the first part, and all of the second
    np.save(path, vectors)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, path, out)
    stats = invert(inverter, path, out)
    assert (stats["vectors"], stats["resumed"], stats["skipped"].count) == (8, 4, 6)
    assert stats["skipped"].examples[:2] == [(2, "holds NaN or infinity"), (5, "holds NaN or infinity")]
    rows = rows_of(out) if kind == ".jsonl" else pq.read_table(out).to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 3, 4, 10, 11, 12, 13]
    (tmp_path / "expected.jsonl").write_bytes(expected)
    assert [row["text"] for row in rows[4:]] == [row["text"] for row in rows_of(tmp_path / "expected.jsonl")[10:]]


def test_ids_travel_to_every_output(inverter, tmp_path, capsys):
    """Catches ids that are dropped, shifted by a skipped row, or obeyed by the terminal."""
    names = [f"doc-{row}" for row in range(ROWS - 1)] + ["odd\x1b[2J"]
    vectors = [None if row == 3 else vector for row, vector in enumerate(VECTORS.tolist())]
    pq.write_table(pa.table({"_id": names, "emb": vectors}), tmp_path / "vectors.parquet")
    for kind in (".jsonl", ".parquet"):
        out = tmp_path / f"out{kind}"
        stats = invert(inverter, tmp_path / "vectors.parquet", out)
        assert (stats["column"], stats["id_column"]) == ("emb", "_id")
        rows = rows_of(out) if kind == ".jsonl" else pq.read_table(out).to_pylist()
        assert [row["id"] for row in rows] == [name for name in names if name != "doc-3"]
        assert all(row["cosine"] is row["verdict"] is row["verdict_in_words"] is None for row in rows)
    invert(inverter, tmp_path / "vectors.parquet", None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:2] == ["4", "doc-4"] and lines[-1].split()[:2] == ["13", "odd"]


def test_another_id_makes_another_part(inverter, tmp_path, monkeypatch):
    """Catches ids of an earlier version of the source in the output of a resumed run."""
    path, out = tmp_path / "vectors.parquet", tmp_path / "out.jsonl"
    pq.write_table(pa.table({"id": ["old"] * ROWS, "emb": VECTORS.tolist()}), path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        invert(inverter, path, out)
    pq.write_table(pa.table({"id": ["new"] * ROWS, "emb": VECTORS.tolist()}), path)
    assert invert(inverter, path, out)["resumed"] == 0
    assert {row["id"] for row in rows_of(out)} == {"new"}


def test_another_width_is_one_line(inverter, tmp_path):
    """Catches vectors of another encoder reaching the network, where the error would be about matrix shapes."""
    np.save(tmp_path / "wide.npy", unit_vectors(3, dim=385).numpy())
    with pytest.raises(ValueError, match=r"wide.npy: vectors of 385 numbers; expected 384"):
        invert(inverter, tmp_path / "wide.npy", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["wide.npy"]


@pytest.mark.parametrize("batch_size", [0, 10**18])
def test_a_batch_size_has_bounds(inverter, source, batch_size):
    """Catches a count that runs out of memory, or of 64 bits."""
    with pytest.raises(ValueError, match="batch_size must be from 1 to 65,536"):
        list(invert_vectors(*inverter, VECTORS, batch_size=batch_size))


def test_scaled_vectors_are_normalised_with_one_warning(inverter, expected, tmp_path):
    """Catches a warning for every part of a file of a million vectors."""
    np.save(tmp_path / "vectors.npy", VECTORS * 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        invert(inverter, tmp_path / "vectors.npy", tmp_path / "out.jsonl")
    assert ["of length 4, not 1" in str(warning.message) for warning in caught] == [True]
    assert (tmp_path / "out.jsonl").read_bytes() == expected


# Several processes


def _one_of_two(inverter, source, out):
    os.environ["OMP_NUM_THREADS"] = "1"  # or accelerate chooses, and says so
    torch.set_num_threads(1)
    PartialState._reset_state()
    invert(inverter, source, out)


def test_two_processes_write_what_one_does(inverter, source, expected, tmp_path):
    """Catches rows that are missing, doubled or out of order when processes share a file."""
    debug_launcher(_one_of_two, (inverter, source, tmp_path / "out.jsonl"), num_processes=2)
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


# Typed vectors and the terminal


def test_a_typed_vector():
    """Catches whole numbers being refused, or a vector that is read as float64 rounds."""
    vector = parse_vector("[0.25, -1, 3e-2]", 3)
    assert vector.dtype == np.float64 and vector.tolist() == [[0.25, -1.0, 0.03]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("[0.1, 0.2", "is not JSON"),
        ("[0.1, 0.2, …]", "is cut: give all of its numbers"),
        ("[0.1, ..., 0.2]", "is cut: give all of its numbers"),
        ("0.1", "must be a JSON list of numbers"),
        ('{"embedding": [1]}', "must be a JSON list of numbers"),
        ('[0.1, "a"]', "must be a JSON list of numbers"),
        ("[true, false]", "must be a JSON list of numbers"),
        ("[[0.1, 0.2]]", "must be a JSON list of numbers"),
        ("[0.1, 0.2, 0.3]", "vectors of 3 numbers; expected 2"),
        ("[]", "vectors of 0 numbers; expected 2"),
        ("[" * 1_000_000, "is not JSON like .*nested too deeply"),
        ("[" + "1" * 5000 + "]", "vectors of 1 numbers; expected 2"),
    ],
)
def test_a_mistyped_vector_is_one_line(text, message):
    """Catches a traceback from numpy for a vector that was cut by the shell or nested."""
    with pytest.raises(ValueError, match=message) as caught:
        parse_vector(text, 2)
    assert "\n" not in str(caught.value)


def test_huge_typed_numbers_are_refused_later(inverter):
    """Catches an overflow that turns into a traceback, or into a vector of infinities that is inverted."""
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="embedding 0 holds NaN or infinity"):
        vector = parse_vector(json.dumps([10**400, 1e300] + [0.0] * 382), 384)
        list(invert_vectors(*inverter, vector))


def test_without_an_output_file_the_texts_are_printed(inverter, source, expected, tmp_path, capsys):
    """Catches other texts on the terminal than in the file."""
    stats = invert(inverter, source, None)
    (tmp_path / "expected.jsonl").write_bytes(expected)
    lines = capsys.readouterr().out.splitlines()
    assert stats["vectors"] == len(lines) == ROWS
    for line, row in zip(lines, rows_of(tmp_path / "expected.jsonl"), strict=True):
        assert line.split("%  ")[1] == row["text"] and int(line.split()[0]) == row["row"]


def test_verdicts_of_printed_texts_are_counted(inverter, source, capsys):
    """Beside texts that are printed no last line said that most are unrelated."""
    assert invert(inverter, source, None, feedback=judge_of(1))["verdicts"].total() == ROWS
    assert len(capsys.readouterr().out.splitlines()) == ROWS


def test_a_long_text_stays_one_line(inverter, capsys):
    """Catches texts that are broken at the 80 columns of a pipe, so that `grep` and `wc -l` see other rows."""
    print_inversions(
        [Inversion(0, None, "", 0.5, None, None, None, ["word"] * 60, [0.5] * 60)], inverter[1], Console(width=80)
    )
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_tints_lie_on_their_own_words(inverter):
    """Catches tints that slip when pieces are joined or a space before punctuation goes."""
    tokenizer = inverter[1]
    ids = tokenizer.convert_tokens_to_ids(["una", "##ff", "##ord", "##able", ",", "he", "said", "!"])
    text = tinted(tokenizer, ids, [0.95, 0.95, 0.6, 0.95, 0.1, 0.95, 0.1, 0.95])
    assert text.plain == tokenizer.decode(ids) == "unaffordable, he said!"
    sure, fair, unsure = (style for _, _, style in LEVELS)
    styles = [(text.plain[span.start : span.end], span.style) for span in text.spans]
    assert styles == [
        ("una", sure), ("ff", sure), ("ord", fair), ("able", sure), (",", unsure), ("he", sure), ("said", unsure),
        ("!", sure),
    ]  # fmt: skip


def test_a_recovered_text_cannot_steer_the_terminal(inverter, capsys):
    """Catches escape sequences and rich's own markup in a text being obeyed."""
    tokenizer = inverter[1]

    class Odd(type(tokenizer)):
        def decode(self, ids, **_):
            return "a\x1b[2J [bold]b\n"

    odd = Odd(tokenizer_object=tokenizer.backend_tokenizer)
    print_inversions([Inversion(3, None, "", 0.5, None, None, None, ["a"], [0.5])], odd, Console())
    assert capsys.readouterr().out == "     3   50 %  a [2J [bold]b \n"


def test_tints_are_colours_that_every_terminal_has():
    """Of 256 colours a terminal of eight takes the nearest: the surest words became bright black, the dimmest."""
    words = Text.assemble(*(("word", style) for _, _, style in LEVELS))

    def codes(**settings) -> str:
        console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"}, **settings)
        console.print(words)
        return console.file.getvalue()

    assert [f"\x1b[{code}m" in codes() for code in ("32", "33", "3;31")] == [True] * 3
    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", codes(no_color=True))
    assert all(name in legend().plain for _, name, _ in LEVELS)


# Some of the rows


def selected(path, **rows):
    source = open_vectors(path)
    source.select(**rows)
    return source


def rows_read(source, size):
    parts = list(source.batches(size))
    assert all(len(part.rows) == len(part.vectors) for part in parts)
    return [part.rows.tolist() for part in parts]


def all_rows(source):
    return [row for rows in rows_read(source, 5) for row in rows]


@pytest.fixture
def spoilt(tmp_path):
    """A file of 14 vectors with ids, of which rows 2, 6 and 12 are bad."""
    vectors = [None if row in (2, 6, 12) else vector for row, vector in enumerate(VECTORS.tolist())]
    pq.write_table(pa.table({"id": [f"n{row}" for row in range(ROWS)], "emb": vectors}), tmp_path / "v.parquet")
    return tmp_path / "v.parquet"


@pytest.mark.parametrize(
    "limit, rows, skipped",
    [(1, [[0]], 0), (2, [[0, 1]], 0), (3, [[0, 1, 3]], 1), (6, [[0, 1, 3, 4], [5, 7]], 2), (99, None, 3)],
)
def test_the_first_vectors(spoilt, limit, rows, skipped):
    """A limit that counts bad rows, that reads on, or that reports bad rows which nobody asked for."""
    source = selected(spoilt, limit=limit)
    whole = [[0, 1, 3, 4], [5, 7, 8, 9], [10, 11, 13]]
    assert rows_read(source, 5) == (rows or whole)
    assert source.skipped.count == skipped and source.count() == min(limit, ROWS)


def test_a_sample_is_drawn_from_all_rows_and_keeps_their_numbers(spoilt):
    """A sample of the first rows, one that another batch size changes, or ids that slip."""
    open_sample = lambda count, seed=0: selected(spoilt, sample=count, seed=seed)  # noqa: E731
    (rows,) = rows_read(open_sample(4), 5)
    assert rows == sorted(set(rows)) and len(rows) == 4 and not {2, 6, 12} & set(rows)
    assert rows_read(open_sample(4), 3) == [rows[:3], rows[3:]]
    drawn = {tuple(all_rows(open_sample(4, seed))) for seed in range(60)}
    assert len(drawn) > 30 and {row for rows in drawn for row in rows} == {0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 13}
    source = open_sample(6)
    for part in source.batches(4):
        assert part.ids == [f"n{row}" for row in part.rows]
        assert np.allclose(part.vectors, VECTORS[part.rows])
    assert source.skipped.count == 3 and all_rows(open_sample(99)) == [0, 1, 3, 4, 5, 7, 8, 9, 10, 11, 13]


def test_a_sampled_run_resumes_and_no_other_sample_does(inverter, source, tmp_path, monkeypatch):
    """Half of the rows by one seed and half by another."""
    out = tmp_path / "out.jsonl"

    def run(seed):
        return invert_file(
            *inverter, selected(source, sample=8, seed=seed), out, 2, EULER, part_rows=3, show_progress=False
        )

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 2)
        run(0)
    with pytest.raises(ValueError, match="rows was a sample of 8 by seed 0, now a sample of 8 by seed 1"):
        run(1)
    stats = run(0)
    assert (stats["vectors"], stats["resumed"]) == (8, 3)
    assert [row["row"] for row in rows_of(out)] == all_rows(selected(source, sample=8))


# What is printed, masked and shown while it runs


def test_standard_output_has_the_rows_of_the_file(inverter, source, expected, capsys):
    """Other rows in a pipe than in a file, or words for a reader between them."""
    stats = invert(inverter, source, "-")
    assert capsys.readouterr().out.encode() == expected and stats["vectors"] == ROWS


@contextmanager
def latin_output():
    """Standard output as a Windows console has it, as the bytes that were written."""
    written = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(written, "cp1252")):
        yield written
        sys.stdout.flush()
        sys.stdout.detach()  # it would close the bytes with it


def test_json_lines_are_utf8_on_every_console(inverter, tmp_path):
    """An id that the console cannot write ended in a traceback, and one that it can in lines that are not UTF-8."""
    ids = ["é", "漢", "a", "b"]
    pq.write_table(pa.table({"id": ids, "vector": VECTORS[:4].tolist()}), tmp_path / "v.parquet")
    with latin_output() as written:
        invert(inverter, tmp_path / "v.parquet", "-")
    assert [json.loads(line)["id"] for line in written.getvalue().decode("utf-8").splitlines()] == ids


def test_what_a_console_cannot_print_is_replaced(inverter, tmp_path):
    """One character of one text ended the whole run with a traceback."""
    pq.write_table(pa.table({"id": ["é", "漢"], "vector": VECTORS[:2].tolist()}), tmp_path / "v.parquet")
    with latin_output() as written:
        assert invert(inverter, tmp_path / "v.parquet", None)["vectors"] == 2
    first, second = written.getvalue().decode("cp1252").splitlines()
    assert first.split()[1] == "é" and second.split()[1] == "?"


def test_redacted_rows_tell_no_word(inverter, source, expected, tmp_path, capsys):
    """A text that is masked beside its tokens, which are not; or another row, confidence or order."""
    (tmp_path / "expected.jsonl").write_bytes(expected)
    invert(inverter, source, tmp_path / "out.jsonl", redact=True)
    for row, plain in zip(rows_of(tmp_path / "out.jsonl"), rows_of(tmp_path / "expected.jsonl"), strict=True):
        assert row["text"] == masked(plain["text"]) and row["tokens"] == row["token_confidence"] == []
        assert [row[name] for name in ("row", "confidence")] == [plain[name] for name in ("row", "confidence")]
        assert not set(content_words(plain["text"])) & set(content_words(row["text"]))
    invert(inverter, source, None, redact=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("%  ")[1] for line in lines] == [row["text"] for row in rows_of(tmp_path / "out.jsonl")]


def test_the_bar_moves_with_rounds_and_its_rate_is_this_runs(monkeypatch):
    """Minutes at 0 % in a search, a count that jumps back, and a rate that resumed rows make absurd."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    now = [1000.0]
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = RowBar(100, show=True)
    bar._time, bar.start_t = lambda: now[0], now[0]
    bar.resume(40)
    bar.reach(40)
    now[0] += 10
    assert "40 of 100 vectors" in str(bar) and "vectors/s" not in str(bar)
    seen = []
    for number in range(6):
        bar.show_round(SearchRound(number, 5, torch.arange(12), None, None, "surrogate"), 12)
        seen.append(bar.n)
    assert seen == sorted(seen) and seen[0] == 40 < seen[1] and seen[-1] == 50 and ", round 5 of 5" in str(bar)
    assert "1 vector/s" in str(bar)  # ten of its own in ten seconds
    assert len(list(bar.counted({} for _ in range(12)))) == 12 and bar.n == 52
    bar.reach(10_000)  # bad rows of the whole file beside those of a sample
    assert bar.n == 100 and "100 of 100" in str(bar)
    bar.close()
    assert [speed(rate) for rate in (0.0, 0.07, 0.4, 1.2, 9.0)] == [
        "no new vector", "14 s a vector", "2.5 s a vector", "1 vector/s", "9 vectors/s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cosine, encoder, surrogate",
    [
        (1.0, "verified", "likely"), (0.998, "close", "likely"), (0.905, "close", "close"), (0.89, "gist", "gist"),
        (0.1, "unrelated", "unrelated"), (-1.0, "unrelated", "unrelated"),
    ],
)  # fmt: skip
def test_a_verdict_is_as_sure_as_its_judge(cosine, encoder, surrogate):
    """A surrogate, whose vectors are not the encoder's, that verifies a text."""
    assert (verdict_of(cosine, "encoder"), verdict_of(cosine, "surrogate")) == (encoder, surrogate)
    assert {encoder, surrogate} <= set(TEXT_VERDICTS)


# Stores


def test_a_job_over_a_store_is_resumed(inverter, tmp_path, monkeypatch):
    """The parts of a run belong to a collection: another one of the same folder must not take them."""
    store = tmp_path / "store"
    client = chromadb.PersistentClient(str(store), settings=Settings(anonymized_telemetry=False))
    for name, vectors in (("support", VECTORS), ("other", VECTORS[::-1])):
        collection = client.create_collection(name, embedding_function=None)
        collection.add([f"{name}-{row}" for row in range(ROWS)], vectors)
    client.close()

    def run(collection, out):
        source = open_vectors(f"chroma:{store}", collection=collection)
        return invert_file(*inverter, source, out, settings=EULER, batch_size=2, part_rows=PART, show_progress=False)

    run("support", tmp_path / "whole.jsonl")
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, calls=3)
        run("support", out)
    with pytest.raises(EmbInvError, match="source"):
        run("other", out)
    stats = run("support", out)
    assert stats["resumed"] == 2 * PART and out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert [row["id"] for row in rows_of(out)] == [f"support-{row}" for row in range(ROWS)]
