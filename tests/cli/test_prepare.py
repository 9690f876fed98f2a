"""`embinv prepare`: vectors of another encoder, texts that are left out, and what a kill leaves."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_embinv.cli.main import main
from modeling_embinv.data import prepare as prepare_module
from modeling_embinv.data.pairs import load_pairs
from modeling_embinv.data.prepare import prepare
from modeling_embinv.data.sources import Document

TEXTS = [f"Box {number} holds {number * 7 % 50} red balls." for number in range(60)]
LONG = "The very long description of the box goes on and on until nobody reads it any more, and then it still goes on."


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors_of(kind: str, encoder) -> np.ndarray:
    """(60, 384) unit vectors that stand beside `TEXTS`."""
    own, generator = encoder.encode(TEXTS).numpy(), np.random.default_rng(0)
    noise = unit(generator.standard_normal(own.shape))
    return {
        "random": noise, "noised": unit(own + 0.7 * noise),
        "rotated": own @ np.linalg.qr(generator.standard_normal((384, 384)))[0],
        "of other texts": np.roll(encoder.encode([f"{'A song of the sea' * 2} {i}" for i in range(60)]).numpy(), 1, 0),
        "own": own, "float16": own.astype(np.float16),
    }[kind]  # fmt: skip


def write(path: Path, texts: list[str], vectors: np.ndarray) -> Path:
    pq.write_table(pa.table({"text": texts, "vector": vectors.astype(np.float32).tolist()}), path)
    return path


@pytest.mark.parametrize("kind", ["random", "rotated", "of other texts"])
def test_vectors_of_another_encoder_are_refused(capsys, encoder, tmp_path, kind):
    """They were prepared as MiniLM's, the default, and the inverter that learned them was published as MiniLM's."""
    source = write(tmp_path / "dump.parquet", TEXTS, vectors_of(kind, encoder))
    code, out, err = run(capsys, "--vectors", source, "--out", tmp_path / "pairs")
    line = err.splitlines()[-1]
    assert code == 2 and not out and not (tmp_path / "pairs").exists()
    assert f"{source}: these are vectors of another encoder, or of other texts: the cosine with those that " in line
    assert "all-MiniLM-L6-v2 gives of the same 32 texts is" in line and "--encoder" in line and "embedding_dim" in line
    # and with the encoder's own YAML they are taken
    yaml = tmp_path / "api.yaml"
    yaml.write_text(f"id: some/api\ntokenizer: {encoder.path}\nembedding_dim: 384\n")
    assert run(capsys, "--vectors", source, "--out", tmp_path / "pairs", "--encoder", yaml)[0] == 0


@pytest.mark.parametrize("kind, warns", [("own", False), ("float16", False), ("noised", True)])
def test_vectors_of_the_encoder_are_taken(capsys, encoder, tmp_path, kind, warns):
    """Vectors in half precision must pass without a word, and those that are a little off with one."""
    texts = [*TEXTS[:59], " ".join([LONG] * 20)]  # the encoder would cut this one, and embed something else
    source = write(tmp_path / "dump.parquet", texts, vectors_of(kind, encoder))
    code, _, err = run(capsys, "--vectors", source, "--out", tmp_path / "pairs", "--validation-share", "0.2")
    assert code == 0 and ("a prompt or a title before each text" in err) == warns, err


def test_bad_rows_and_texts_without_tokens_are_not_compared(capsys, encoder, tmp_path):
    """A sample of empty texts has no vectors to compare with, and must not end in a traceback."""
    source = write(tmp_path / "dump.parquet", ["", "", TEXTS[2]], vectors_of("own", encoder)[:3])
    code, _, err = run(capsys, "--vectors", source, "--out", tmp_path / "pairs")
    assert code == 0, err
    code, _, err = run(capsys, "--vectors", write(source, ["", ""], np.eye(2, 384)), "--out", tmp_path / "none")
    assert code == 2 and "all texts are empty" in err


def test_texts_beyond_max_tokens_are_counted(capsys, tmp_path):
    """Three quarters of the texts were left out, and the command said "0 too long"."""
    source, pairs = tmp_path / "texts.txt", tmp_path / "pairs"
    source.write_text("\n".join([*TEXTS[:30], *(f"{LONG} {i}" for i in range(92))]))
    flags = (source, "--out", pairs, "--max-tokens", "20")
    for _ in range(2):  # a finished folder says the same
        code, out, _ = run(capsys, *flags)
        assert code == 0 and f"{pairs}: 30 pairs" in out and "92 too long" in out
    assert json.loads((pairs / "manifest.json").read_text())["documents"] == 30


def test_texts_that_are_all_too_long_are_told(capsys, encoder, tmp_path):
    """The line was a Python dict that named no cause."""
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(f"{LONG} {i}" for i in range(5)))
    code, _, err = run(capsys, source, "--out", tmp_path / "pairs", "--max-tokens", "9")
    assert code == 2 and err.splitlines()[-1].endswith("all 5 texts have more than 9 tokens; raise --max-tokens.")
    vectors = encoder.encode([LONG, f"{LONG} 1"]).numpy()
    dump = write(tmp_path / "dump.parquet", [LONG, f"{LONG} 1"], vectors)
    code, _, err = run(capsys, "--vectors", dump, "--out", tmp_path / "short", "--length", "8")
    assert code == 2 and "all texts have more than 8 tokens" in err and "raise --length" in err and "{" not in err


class Killed:
    """The documents, until a kill comes behind so many of them."""

    def __init__(self, documents: list[Document], count: int) -> None:
        self.documents, self.count = documents, count

    def __iter__(self):
        yield from self.documents[: self.count]
        raise KeyboardInterrupt


def test_a_kill_loses_no_more_than_a_minute(encoder, tmp_path, monkeypatch):
    """Everything before 50,000 pairs was lost, hours of a slow encoder, though the same command was to go on."""
    documents = [Document(text, text) for text in TEXTS]
    arguments = dict(length=16, batch_size=1, validation_share=0.2, show_progress=False)
    whole = prepare(documents, encoder, tmp_path / "whole", **arguments)
    monkeypatch.setattr(prepare_module, "SAVE_SECONDS", 0.0)  # each chunk of 16 texts takes longer than that
    with pytest.raises(KeyboardInterrupt):
        prepare(Killed(documents, 40), encoder, tmp_path / "parts", **arguments)
    assert json.loads((tmp_path / "parts" / "manifest.json").read_text())["documents"] == 32
    before = encoder.calls
    parts = prepare(documents, encoder, tmp_path / "parts", **arguments)
    assert encoder.calls - before == len(TEXTS) - 32
    assert parts["rows"] == whole["rows"] and parts["documents_digest"] == whole["documents_digest"]
    for split in ("train", "validation"):
        assert load_pairs(tmp_path / "parts", split)[:] == load_pairs(tmp_path / "whole", split)[:]
