"""The word head's stage: what it trains and what it leaves, its texts, and where it goes on after a kill."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_embinv.data import batches
from modeling_embinv.data.batches import ChunkBatches, SpanBatches
from modeling_embinv.data.chunks import ChunkSampler
from modeling_embinv.data.parts import PartFolder
from modeling_embinv.data.sources import Document
from modeling_embinv.data.spans import TokenizedCorpus
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.training import words
from modeling_embinv.training.assemble import train
from modeling_embinv.training.pace import Pace
from modeling_embinv.training.run_data import build_data
from modeling_embinv.training.run_model import build_model
from modeling_embinv.training.words import start_from_counts
from modeling_embinv.vocabulary_embinv import WordVocabulary
from tests.hub.tiny_folder import new_tiny_inverter
from tests.training.tiny_runs import SENTENCES, in_two_forks, log, settings, weights


@pytest.fixture(autouse=True)
def few_are_counted(monkeypatch):
    """Counting the words of sixteen thousand texts takes longer than a tiny run."""
    monkeypatch.setattr(words, "COUNTED_BATCHES", 16)


@pytest.fixture(scope="module")
def start(pairs, tmp_path_factory):
    """A tiny inverter that has been trained for one update."""
    return train(settings(pairs, tmp_path_factory.mktemp("start"), max_steps=1))


def of_words(start, **flags) -> dict:
    usual = dict(init_from=str(start), backbone_config=None, word_head_size=8, canvas_lengths=None, eval_steps=2)
    return {**usual, **flags}


@pytest.fixture
def chunks(tmp_path, encoder):
    """Settings of a stage on texts; the encoder's YAML is its own, since the stage lets it read whole texts."""
    lines = [f"{sentence} Then {index} more people came." for index in range(40) for sentence in SENTENCES]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    yaml = tmp_path / "whole.yaml"
    yaml.write_text("id: sentence-transformers/all-MiniLM-L6-v2\nmax_length: 31\n")
    return dict(
        pairs=None,
        texts=[str(tmp_path / "texts.txt")],
        encoder=str(yaml),
        max_sequence_length=16,
        batch_size=4,
        word_texts=16,
    )


@pytest.mark.slow
def test_it_resumes_and_trains_the_head_alone(start, pairs, chunks, tmp_path, monkeypatch):
    """The stage must not touch what those before have learned, and go on where it was killed, bit for bit."""
    monkeypatch.setattr(ChunkBatches, "PIECE", 8)
    stage = of_words(start, **chunks)
    whole = weights(train(settings(pairs, tmp_path / "whole", **stage)))
    train(settings(pairs, tmp_path / "parts", max_steps=3, **stage))
    parts = weights(train(settings(pairs, tmp_path / "parts", **stage)))
    for name, weight in weights(start).items():
        assert torch.equal(weight, whole[name]), name
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())
    assert {name.partition(".")[0] for name in set(whole) - set(weights(start))} == {"word_head"}
    # nor its settings: the canvas, and what `generate` goes by
    before, after = (json.loads((path / "config.json").read_text()) for path in (start, tmp_path / "whole" / "last"))
    for settings_of in (before, after):
        settings_of.pop("backbone_config")["dtype"] = None  # written by the first loading
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == {"word_head_size", "checksums"}
    scores = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    scores = [line for line in scores if "validation/average_precision" in line]
    assert len(scores) == 3 and all(0 < line["validation/average_precision"] < 1 for line in scores)
    assert scores[-1]["validation/loss"] < scores[0]["validation/loss"]


@pytest.mark.slow
def test_two_processes_end_where_one_does(start, pairs, tmp_path):
    """The head runs beside the forward pass that the library watches: its gradients must be averaged all the same."""
    config = settings(
        pairs, tmp_path / "one", gradient_accumulation_steps=2, max_steps=4, **of_words(start, eval_steps=100)
    )
    one = weights(train(config))
    in_two_forks(replace(config, output_dir=str(tmp_path / "two"), gradient_accumulation_steps=1))
    two = weights(tmp_path / "two" / "last")
    for name, weight in one.items():
        assert torch.allclose(weight.float(), two[name].float(), atol=2e-3), name
    losses = [[line["train/loss"] for line in log(tmp_path / folder)] for folder in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_another_number_of_texts_has_vectors_of_its_own(start, pairs, chunks, tmp_path):
    """Few texts are one piece of that many, and the kept vectors of a smaller piece did not fill a larger one."""
    for count in (8, 16, 8):
        train(settings(pairs, tmp_path / "out", resume=False, **of_words(start, **chunks, max_steps=1) | {
            "word_texts": count
        }))  # fmt: skip
    kept = sorted(len(np.load(path)) for path in (tmp_path / "out").glob("vectors-*/*.npy"))
    assert kept == [8, 16]


def test_it_validates_on_pairs_of_all_lengths(start, pairs, encoder, tmp_path):
    """Pairs longer than the inverter's canvas were learned, but no validation saw them."""
    config = settings(pairs, tmp_path, max_sequence_length=8, validation_size=64, **of_words(start))
    model, tokenizer = build_model(config, encoder)
    _, held_out = build_data(config.with_shares_of(model.config), encoder, model)
    ends = (held_out.input_ids == tokenizer.sep_token_id).int()
    assert held_out.input_ids.shape[1] == 16 and (ends.argmax(dim=1) + 1).max() > 8


def test_another_inverter_in_the_same_folder_is_refused(start, pairs, tmp_path):
    """The checkpoint's old inverter took the place of the new `init_from`, without a word."""
    out = tmp_path / "out"
    before = weights(train(settings(pairs, out, max_steps=1, **of_words(start))))
    other = train(settings(pairs, tmp_path / "other", max_steps=1, seed=2))
    with pytest.raises(ValueError, match="step-000000001 has other frozen weights.* another output_dir"):
        train(settings(pairs, out, max_steps=2, **of_words(other)))
    assert all(torch.equal(weight, before[name]) for name, weight in weights(out / "last").items())


def test_it_needs_a_trained_inverter(pairs, tmp_path):
    """From an untrained trunk it would write a checkpoint that cannot invert, and look like one that can."""
    for flags in ({}, {"init_from": "x", "backbone_config": None, "surrogate_rank": 4}):
        with pytest.raises(ValueError, match="word head's stage leaves everything else as it is"):
            settings(pairs, tmp_path, word_head_size=8, **flags)


def corpus_of(encoder, texts) -> TokenizedCorpus:
    return TokenizedCorpus.build(
        [Document(text, text) for text in texts], encoder.vocabulary, validation_share=0, show_progress=False
    )


def test_chunks_are_consecutive_and_whole(encoder):
    """Lines out of order, words cut in two, or lengths that are mostly long ones."""
    corpus = corpus_of(encoder, [f"Sentence {index} speaks of embeddings and {index + 1}." for index in range(1000)])
    sampler = ChunkSampler(corpus, 8, 100, seed=3)
    rows = torch.cat([sampler.batch(index, 100) for index in range(10)])
    assert rows.shape == (1000, 100)
    stream, vocabulary = corpus.ids, encoder.vocabulary
    text = " ".join(map(str, stream.tolist()))
    starts = set(corpus.offsets.tolist())
    lengths = (rows != vocabulary.end).sum(dim=1)
    for row, length in zip(rows[:50], lengths, strict=False):
        ids = row[:length].tolist()
        assert f" {' '.join(map(str, ids))} " in f" {text} "
        assert (row[length:] == vocabulary.end).all()
        # it begins with a line, and what follows begins a word
        where = next(first for first in starts if stream[first : first + len(ids)].tolist() == ids)
        behind = where + len(ids)
        assert behind == len(stream) or vocabulary.word_starts[stream[behind]]
    assert int(lengths.max()) <= 100 and 5 <= int(lengths.min()) < 10
    # log-uniform: as many texts of 8 to 28 tokens as of 28 to 100
    assert 0.4 < float((lengths < 28).float().mean()) < 0.6
    assert torch.equal(sampler.batch(4, 100), rows[400:500]) and int(sampler.batch(0, 50, 20).shape[1]) == 20


def test_a_pool_is_embedded_once(encoder, monkeypatch, tmp_path):
    """Vectors of other rows, epochs in one order, or texts embedded anew in each epoch or after a kill."""
    monkeypatch.setattr(ChunkBatches, "PIECE", 16)
    corpus = corpus_of(encoder, [f"Line {index} is about {word}." for index in range(99) for word in ("cats", "rain")])
    sampler, calls = ChunkSampler(corpus, 4, 20, seed=0), encoder.calls
    batches = ChunkBatches(sampler, encoder, 35, tmp_path)
    rows = [batches.batch(index, 8) for index in range(8)]  # two epochs of 32 texts
    assert encoder.calls == calls + 32 and batches.size == 32
    epochs = torch.stack([ids for ids, _ in rows]).view(2, 32, 20)
    assert torch.equal(epochs[0], torch.cat([sampler.batch(0, 16), sampler.batch(1, 16)]))
    first, second = ([tuple(row.tolist()) for row in epoch] for epoch in epochs)
    assert sorted(first) == sorted(second) and first != second
    again = ChunkBatches(sampler, encoder, 35, tmp_path)
    ids, vectors = again.batch(5, 8)
    assert encoder.calls == calls + 32
    assert torch.equal(ids, rows[5][0]) and torch.equal(vectors, rows[5][1])
    assert {path.name for path in tmp_path.iterdir()} == {"000000.npy", "000001.npy"}
    for ids, vectors in rows[::3]:
        torch.testing.assert_close(vectors, encoder.encode_ids(ids), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="pool of 32 texts has no batch of 33"):
        batches.batch(0, 33)


def test_the_time_that_embedding_will_take_is_told(encoder, monkeypatch, tmp_path):
    """Four epochs of five embed nothing; pieces that are kept, or that a short run never comes to, cost nothing."""
    monkeypatch.setattr(ChunkBatches, "PIECE", 8)
    clock, embed = SimpleNamespace(now=0.0), batches.embed_rows

    def slow(*arguments):
        clock.now += 50
        return embed(*arguments)

    monkeypatch.setattr(batches, "embed_rows", slow)
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    sampler = ChunkSampler(corpus_of(encoder, [f"Line {index} is about rain." for index in range(9)]), 4, 20, seed=0)
    pool = ChunkBatches(sampler, encoder, 40, tmp_path)
    assert pool.embedding_time(40) == (0, None)  # nothing is known yet
    pool.batch(0, 4)
    assert pool.embedding_time(40) == pool.embedding_time(400) == (50, 200)
    assert pool.embedding_time(20) == (50, 100)
    pool.batch(2, 4)
    assert pool.embedding_time(40) == (100, 150)
    again = ChunkBatches(sampler, encoder, 40, tmp_path)
    again.batch(0, 4)
    assert again.embedding_time(16) == (0, 0) and again.embedding_time(40) == (0, None)


def test_a_run_leaves_embedding_out_of_its_rate(start, pairs, chunks, tmp_path, monkeypatch):
    """The parts were there and nobody put them together: the time left was of updates that all embed."""
    monkeypatch.setattr(ChunkBatches, "PIECE", 8)
    notes = []
    monkeypatch.setattr(Pace, "note", lambda self, *given: notes.append(given))
    train(settings(pairs, tmp_path, **of_words(start, **chunks, max_steps=5)))
    done, spent, ahead = zip(*notes, strict=True)
    assert done == (1, 2, 3, 4, 5)
    assert 0 < spent[0] == spent[1] < spent[2] == spent[4]
    assert ahead[0] == ahead[1] == spent[0] and ahead[2:] == (0, 0, 0)


@pytest.mark.parametrize("kept", [b"", b"\x93NUMPY", None], ids=["empty", "cut", "shape"])
def test_kept_vectors_that_are_damaged_are_named(tmp_path, encoder, kept):
    """Vectors that a full disk left cut ended every later run of the stage in a line that names no file."""
    corpus = corpus_of(encoder, [f"Line {index} is about rain." for index in range(9)])
    batches = ChunkBatches(ChunkSampler(corpus, 4, 20, seed=0), encoder, 8, tmp_path)
    path = tmp_path / "000000.npy"
    np.save(path, np.zeros((8, 3), np.float32))
    if kept is not None:
        path.write_bytes(kept)
    with pytest.raises(EmbInvError, match=rf"{path.name} is damaged \(.+\): delete it and run again"):
        batches.batch(0, 8)
    path.unlink()
    assert batches.batch(0, 8)[1].norm(dim=1).min() > 0.9


def test_processes_may_write_the_same_piece(monkeypatch, tmp_path):
    """The processes of a run embed one piece at the same time; under one name, one took the other's file away."""
    parts = PartFolder(tmp_path)
    with parts.written("000000.npy", is_shared=True) as own:
        own.write_text("vectors")
        monkeypatch.setattr("os.getpid", lambda: -1)
        with parts.written("000000.npy", is_shared=True) as other:
            other.write_text("vectors")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("000000.npy", "vectors")]


def test_the_head_starts_from_counts(encoder, pairs):
    """From zero, thirty thousand logits first learn that nearly every word is absent; a trained bias must stay."""
    model = new_tiny_inverter(encoder.tokenizer, word_head_size=8)
    vocabulary = WordVocabulary.of(encoder.tokenizer)
    corpus = corpus_of(encoder, ["the cat sat there all day and", "the dog ran here all night and"])
    batches = SpanBatches(ChunkSampler(corpus, 7, 7, seed=0), encoder)
    calls = encoder.calls
    start_from_counts(model, batches, 8, vocabulary)
    assert encoder.calls == calls
    ids = encoder.tokenizer.convert_tokens_to_ids
    share = model.word_head.bias.detach().sigmoid()
    assert float(share[ids("the")]) > 0.99 and float(share[ids("cat")]) == pytest.approx(0.5, abs=0.1)
    assert float(share[ids("zebra")]) < 0.01
    before = model.word_head.bias.clone()
    start_from_counts(model, SpanBatches(ChunkSampler(corpus, 3, 3, seed=0), encoder), 8, vocabulary)
    assert torch.equal(model.word_head.bias, before)
