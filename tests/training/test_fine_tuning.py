"""Fine-tuning a checkpoint with a surrogate encoder, a word head and calibrated confidence, as the released one is."""

import json
import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel

from modeling_embinv.cli.main import main
from modeling_embinv.loading import load_inverter
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.assemble import train
from modeling_embinv.training.checkpoints import export
from modeling_embinv.training.fine_tuning import grow_prefix
from tests.tiny_models import VOCAB, awaken, tiny_model, unit_vectors
from tests.training.tiny_runs import in_two_processes, log, settings, weights

LINE, WORDS = "dropped", {"bias": 0.1}


@pytest.fixture(scope="module")
def released(pairs, tmp_path_factory) -> Path:
    """An inverter of all-MiniLM-L6-v2 with a surrogate that was trained and a word head, both calibrated."""
    folder = tmp_path_factory.mktemp("released")
    start = train(settings(pairs, folder / "start", max_steps=2, noise_schedule="cosine"))
    third = dict(init_from=str(start), backbone_config=None, surrogate_rank=4, max_steps=2)
    model, tokenizer = load_inverter(train(settings(pairs, folder / "surrogate", **third)))
    model.add_word_head(4)
    torch.nn.init.normal_(model.word_head.bias)
    fitted = {"open_loop": {"bias": -1.7}, "surrogate": {"bias": -0.2}, "words": WORDS}
    model.generation_config.calibration = fitted
    return export(model, tokenizer, folder / "model")


@pytest.fixture(scope="module")
def drafting(pairs, tmp_path_factory) -> Path:
    """An inverter of both orders with a corrector whose own settings are drafts, as the released one's are."""
    folder = tmp_path_factory.mktemp("drafting")
    shares = dict(causal_share=0.4, correction_share=0.4, num_condition_tokens=2)
    model, tokenizer = load_inverter(train(settings(pairs, folder / "start", max_steps=1, **shares)))
    own = dict(strategy="autoregressive", num_draft_beams=2, num_rewrites=1, num_moves=2)
    model.generation_config = model.generation_config.with_changes(**own)
    return export(model, tokenizer, folder / "model")


def tuned(released: Path, prepared: Path, out: Path, **flags):
    usual = {"init_from": str(released), "backbone_config": None, "max_steps": 2, "save_steps": 1}
    return settings(prepared, out, **{**usual, **flags})


def generation_config(folder: Path) -> dict:
    return json.loads((folder / "generation_config.json").read_text())


def is_plain(folder: Path) -> bool:
    """Whether a folder loads as everybody loads it, without surrogate, word head and calibration."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    stored = [name for name in weights(folder) if name.startswith(("surrogate.", "word_head."))]
    assert model.surrogate is None and model.config.surrogate_rank == 0
    assert model.word_head is None and model.config.word_head_size == 0
    assert not stored and "calibration" not in generation_config(folder)
    return True


def lines_that_tell(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if LINE in record.getMessage()]


@pytest.mark.parametrize("flags", [{}, {"freeze_backbone": True}], ids=str)
def test_a_trunk_that_trains_loses_its_surrogate(released, pairs, tmp_path, caplog, flags):
    """The surrogate reads texts with the trunk's layers and token embeddings: it went stale without a word.

    So does the word head, which is made of these embeddings.

    A frozen backbone still trains the token embeddings, which the output layer shares.
    """
    assert is_plain(train(tuned(released, pairs, tmp_path, **flags)))
    (line,) = lines_that_tell(caplog)
    assert "surrogate" in line and "word head" in line and "calibration" in line and "\n" not in line


def test_layers_that_train_leave_the_word_head(released, pairs, tmp_path, caplog):
    """It uses none of the trunk's layers: dropped with the surrogate, it would be trained again for nothing."""
    caplog.set_level(logging.WARNING)
    out = train(tuned(released, pairs, tmp_path, embedding_rate=0.0))
    before, after = weights(released), weights(out)
    assert all(torch.equal(weight, after[name]) for name, weight in before.items() if name.startswith("word_head."))
    assert not any(name.startswith("surrogate.") for name in after)
    (line,) = lines_that_tell(caplog)
    assert "surrogate" in line and "word head" not in line and "calibration" in line
    assert generation_config(out)["calibration"] == {"words": WORDS}


def test_the_last_stages_leave_each_other(released, pairs, tmp_path):
    """The word head's stage must drop its own calibration alone, and start from the head that is there."""
    out = train(tuned(released, pairs, tmp_path / "words", word_head_size=4, learning_rate=0.0, max_steps=1))
    assert all(torch.equal(weight, weights(out)[name]) for name, weight in weights(released).items())
    assert set(generation_config(out)["calibration"]) == {"open_loop", "surrogate"}


def test_a_trunk_that_does_not_train_keeps_it(released, pairs, tmp_path, caplog):
    """Where projector and modulation alone train, what the surrogate shares stays: it must survive bit for bit.

    The calibration does not, and the line that says so must not name the surrogate's stage as a remedy.
    """
    caplog.set_level(logging.WARNING)
    out = train(tuned(released, pairs, tmp_path, freeze_backbone=True, embedding_rate=0.0))
    before, after = weights(released), weights(out)
    kept = [name for name in before if name.startswith(("surrogate.", "trunk.", "word_head."))]
    assert len(kept) > 10 and all(torch.equal(before[name], after[name]) for name in kept)
    assert not torch.equal(before["modulation.weight"], after["modulation.weight"])
    (line,) = lines_that_tell(caplog)
    assert "surrogate encoder" not in line and "word head" not in line and "calibration" in line
    assert line.endswith("Make it anew afterwards (embinv calibrate).")
    assert generation_config(out)["calibration"] == {"words": WORDS}


def test_a_surrogate_whose_positions_moved_goes(released, pairs, tmp_path, caplog):
    """New condition tokens move the trunk's position embeddings, which it reads: its vectors were others, unsaid."""
    caplog.set_level(logging.WARNING)
    still = dict(freeze_backbone=True, embedding_rate=0.0)
    out = train(tuned(released, pairs, tmp_path, num_condition_tokens=2, **still))
    assert not any(name.startswith("surrogate.") for name in weights(out))
    assert any(name.startswith("word_head.") for name in weights(out))  # it reads no positions
    assert "surrogate encoder" in lines_that_tell(caplog)[0]


@pytest.mark.slow
def test_two_processes_fine_tune_it(released, pairs, tmp_path):
    """Weights that take no part in the loss stop every distributed run ("parameters not used in producing loss").

    The launch that the docs printed started one process on a CPU, and no line told.
    """
    done = in_two_processes(tuned(released, pairs, tmp_path / "out"), tmp_path / "run.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 updates of 8 texts by 2 processes") == 1
    assert done.stderr.count(LINE) == 1  # not once a process
    assert is_plain(tmp_path / "out" / "last")


def test_validation_fills_in_masks_whatever_the_checkpoint_does(drafting, pairs, tmp_path, monkeypatch):
    """The released checkpoint's own strategy wrote all drafts twice, and no score was of filling in masks."""
    kinds, generate = [], EmbInvForMaskedDiffusion.generate

    def noted(self, *arguments, **given):
        kinds.append(given.get("strategy") or self.generation_config.strategy)
        return generate(self, *arguments, **given)

    monkeypatch.setattr(EmbInvForMaskedDiffusion, "generate", noted)
    out = train(tuned(drafting, pairs, tmp_path, max_steps=1))
    assert kinds == ["confidence", "autoregressive"]
    assert generation_config(out)["strategy"] == "autoregressive"  # it stays the checkpoint's


def other_encoder(released: Path, folder: Path, width: int) -> dict:
    """Prepared pairs and YAML of an encoder that only its vectors are known of."""
    vectors = torch.nn.functional.normalize(torch.randn(80, width, generator=generator_for(0)), dim=1)
    table = pa.table({"text": [f"A text of number {i}." for i in range(80)], "embedding": vectors.tolist()})
    pq.write_table(table, folder / "api.parquet")
    yaml = folder / "api.yaml"
    yaml.write_text(f"id: some/api\ntokenizer: {released}\nembedding_dim: {width}\n")
    command = ["prepare", "--vectors", str(folder / "api.parquet"), "--encoder", str(yaml), "--out", str(folder / "p")]
    assert main([*command, "--length", "16", "--validation_share", "0.2"]) == 0
    return {"pairs": str(folder / "p"), "encoder": str(yaml)}


@pytest.mark.parametrize("width", [384, 24])
def test_another_encoder_gets_no_surrogate_of_the_old_one(released, pairs, tmp_path, caplog, width):
    """Of another width, the checkpoint was written and could not be loaded.

    Of the same width, the search was led by another encoder's vectors, even where the trunk stays as it is.
    """
    flags = other_encoder(released, tmp_path, width)
    out = train(tuned(released, pairs, tmp_path / "out", freeze_backbone=True, embedding_rate=0.0, **flags))
    assert is_plain(out) and len(lines_that_tell(caplog)) == 1
    assert AutoModel.from_pretrained(out, trust_remote_code=True).config.embedding_dim == width


@pytest.mark.parametrize("width", [384, 24])
def test_the_surrogates_own_stage_is_for_the_inverters_encoder(released, pairs, tmp_path, width):
    """It trains no inverter: with another encoder's pairs, one that never saw its vectors would carry its name."""
    third = dict(surrogate_rank=4, learning_rate=0.0, max_steps=1, canvas_lengths=None)
    with pytest.raises(ValueError, match=f"leaves the inverter as it is.*these have {width} by some/api"):
        train(tuned(released, pairs, tmp_path / "no", **third, **other_encoder(released, tmp_path, width)))


def test_one_encoder_by_two_names(released, pairs, tmp_path, caplog):
    """all-MiniLM-L6-v2 with and without its organisation counted as two: pairs were refused, the surrogate lost."""
    yaml = tmp_path / "short.yaml"
    yaml.write_text("id: all-MiniLM-L6-v2\n")
    third = dict(surrogate_rank=4, learning_rate=0.0, max_steps=1)
    out = train(tuned(released, pairs, tmp_path / "out", encoder=str(yaml), **third))
    assert torch.equal(weights(out)["surrogate.up.0"], weights(released)["surrogate.up.0"])
    (line,) = lines_that_tell(caplog)  # the surrogate trains, so what was fitted to searches by it goes
    assert "surrogate encoder" not in line
    assert generation_config(out)["calibration"] == {"open_loop": {"bias": -1.7}, "words": WORDS}
    assert AutoModel.from_pretrained(out, trust_remote_code=True).config.encoder_id.startswith("sentence-tr")
    other = tmp_path / "pairs"
    shutil.copytree(pairs, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"encoder_revision": "main"}))
    with pytest.raises(ValueError, match="was prepared with encoder_revision main, this run wants None"):
        train(tuned(released, other, tmp_path / "no", encoder=str(yaml)))


@pytest.mark.parametrize("other", [{"end_token_id": 103}, {"embedding_dim": 768}, {"vocabulary": "9-a"}], ids=str)
def test_pairs_of_another_tokenizer_or_width_are_refused(released, pairs, tmp_path, other):
    """Ids of another vocabulary trained without a word, and vectors of another width ended in PyTorch's error."""
    folder = shutil.copytree(pairs, tmp_path / "pairs")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | other))
    ((name, value),) = other.items()
    with pytest.raises(ValueError, match=f"was prepared with {name} {value}, this run wants {manifest[name]}"):
        train(tuned(released, folder, tmp_path / "no"))


def test_settings_are_not_changed_by_a_run(released, pairs, tmp_path):
    """A run that writes the checkpoint's noise into the caller's settings gives it to the caller's next run, too."""
    config = tuned(released, pairs, tmp_path, max_steps=1)
    before = dict(vars(config))
    model, _ = load_inverter(train(config))
    assert vars(config) == before and config.noise_schedule == "log_linear"
    assert model.config.noise_schedule == "cosine"


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert"])
def test_more_condition_tokens_leave_the_text_where_it_was(name, before):
    """Tokens that move to other position embeddings with the new prefix are strangers to every layer."""
    model = awaken(tiny_model(name, num_condition_tokens=before))
    ids, vectors = torch.randint(4, VOCAB, (3, 6), generator=torch.Generator().manual_seed(0)), unit_vectors(3)
    embeds = model.get_input_embeddings()(ids)
    positions = getattr(model.trunk.embeddings, "position_embeddings", None)
    kept = None if positions is None else model.trunk.embeddings(embeds, torch.arange(6) + before)
    prefix = model.condition(vectors).prefix
    grow_prefix(model, 4)
    assert model.config.num_condition_tokens == 4
    if positions is not None:
        assert torch.equal(model.trunk.embeddings(embeds, torch.arange(6) + 4), kept)
    grown = model.condition(vectors).prefix
    assert grown.shape[1] == 4
    if before:
        assert torch.allclose(grown[:, -before:], prefix, atol=1e-6)
    assert model(ids, vectors, torch.ones(3)).logits.isfinite().all()
    grow_prefix(model, 2)  # never fewer than it has
    assert model.config.num_condition_tokens == 4


def test_a_checkpoint_gains_condition_tokens_and_the_second_order(released, pairs, tmp_path):
    """The released checkpoint has one condition token and one order; the long run starts from it."""
    out = train(
        settings(
            pairs, tmp_path, init_from=str(released), backbone_config=None, num_condition_tokens=3, causal_share=0.5,
            max_steps=2,
        )
    )  # fmt: skip
    model, _ = load_inverter(out)
    assert model.config.num_condition_tokens == 3 and model.config.causal_share == 0.5
    assert model.condition_tokens.weight.shape[0] == 3 * model.config.hidden_size


def test_a_model_of_both_orders_keeps_them(drafting, pairs, tmp_path):
    """Without shares of its own, a fine-tune of the released checkpoint failed at its first validation.

    It learned masks alone, and then was asked for a draft.
    """
    out = train(tuned(drafting, pairs, tmp_path / "out", max_steps=8, draft_share=0.5, loss_weight="none"))
    model, _ = load_inverter(out)
    assert (model.config.causal_share, model.config.correction_share) == (0.4, 0.4)
    assert generation_config(out) == generation_config(drafting)
    names = ("train/loss", "train/loss_causal", "train/loss_correction")
    assert all(any(name in line for line in log(tmp_path / "out")) for name in names)
    one = dict(learning_rate=0.0, max_steps=1, surrogate_rank=4)
    part, _ = load_inverter(train(tuned(drafting, pairs, tmp_path / "part", **one)))
    assert (part.config.causal_share, part.config.correction_share) == (0.4, 0.4)
    assert "train/loss" in log(tmp_path / "part")[0]


def test_a_model_that_forgets_an_order_writes_without_it(drafting, pairs, tmp_path, caplog):
    """Settings of the checkpoint that need what this training drops made every later call an error."""
    caplog.set_level(logging.WARNING)
    masked = train(tuned(drafting, pairs, tmp_path / "masked", causal_share=0.0))
    assert not {"strategy", "num_draft_beams", "num_rewrites", "num_moves"} & set(generation_config(masked))
    assert load_inverter(masked)[0].generate(unit_vectors(2, 384)).sequences.shape == (2, 16)
    (line,) = [line for line in lines_that_tell(caplog) if "strategy" in line]
    assert "num_rewrites" in line and "\n" not in line
    causal = train(tuned(drafting, pairs, tmp_path / "causal", causal_share=0.4))
    changed = {name for name in generation_config(drafting) if name not in generation_config(causal)}
    assert changed == {"num_rewrites"}


def test_an_encoder_of_vectors_alone_leaves_no_corrector(drafting, pairs, tmp_path):
    """A corrector that came with the checkpoint, and cannot train on, must not stop the run."""
    out = train(tuned(drafting, pairs, tmp_path / "out", **other_encoder(drafting, tmp_path, 24)))
    model, _ = load_inverter(out)
    assert (model.config.causal_share, model.config.correction_share) == (0.4, 0) and model.correction_tokens is None


def test_shares_of_the_checkpoint_are_checked_as_given_ones_are(released, drafting, pairs, tmp_path):
    """Drafts of a checkpoint without a causal order are noise, whether the user or the checkpoint says so."""
    with pytest.raises(ValueError, match="set causal_share above 0 and below 1"):
        train(tuned(released, pairs, tmp_path / "a", draft_share=0.2))
    with pytest.raises(ValueError, match="with correction_share, set causal_share above 0"):
        train(tuned(released, pairs, tmp_path / "b", correction_share=0.2))
    kept = train(tuned(drafting, pairs, tmp_path / "c", correction_share=0.0, max_steps=1))
    assert load_inverter(kept)[0].config.causal_share == 0.4


PARTS = [{"surrogate_rank": 4}, {"surrogate_rank": 32}, {"word_head_size": 4}]


@pytest.mark.parametrize("flags", [{"freeze_backbone": True}, *PARTS], ids=str)
def test_muon_needs_no_matrices(drafting, pairs, tmp_path, flags):
    """Where no layer of the trunk trains, Muon has nothing to do, and PyTorch refused its empty list."""
    before, after = weights(drafting), weights(train(tuned(drafting, pairs, tmp_path, optimizer="muon", **flags)))
    layers = [name for name in before if name.startswith("trunk.") and "embeddings" not in name]
    assert layers and all(torch.equal(before[name], after[name]) for name in layers)
    assert any(name not in before or not torch.equal(weight, before[name]) for name, weight in after.items())


@pytest.mark.parametrize("flags", PARTS, ids=str)
def test_parts_train_without_checkpointed_layers(drafting, pairs, tmp_path, flags):
    """A surrogate reads with weights that change within the pass, so recomputed layers had other shapes."""
    plain = weights(train(tuned(drafting, pairs, tmp_path / "plain", **flags)))
    saving = weights(train(tuned(drafting, pairs, tmp_path / "saving", gradient_checkpointing=True, **flags)))
    assert all(torch.equal(weight, saving[name]) for name, weight in plain.items())


@pytest.mark.parametrize("flags", PARTS, ids=str)
def test_parts_need_no_warm_up(released, pairs, tmp_path, flags):
    """It trains the inverter, which such a stage has frozen: an error of PyTorch after the encoder was loaded."""
    with pytest.raises(ValueError, match="bag_of_words_steps.* warms up the inverter") as error:
        tuned(released, pairs, tmp_path, bag_of_words_steps=2, **flags)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flags", PARTS, ids=str)
def test_a_part_leaves_the_canvas(released, pairs, tmp_path, flags):
    """A surrogate that learned short texts was exported with an inverter that wrote no longer ones any more."""
    short = dict(max_sequence_length=12, canvas_lengths=None, max_steps=1)
    model, _ = load_inverter(train(tuned(released, pairs, tmp_path, **short, **flags)))
    assert model.config.max_sequence_length == 16


@pytest.mark.parametrize(
    "flags, kept",
    [
        ({}, [8, 16]),
        ({"max_sequence_length": 12}, [8, 12]),
        ({"canvas_lengths": [12, 16]}, [12, 16]),
    ],
    ids=str,
)
def test_fine_tuning_keeps_the_canvases(released, pairs, tmp_path, flags, kept):
    """A fine-tuned model had the longest canvas alone, and was slower with short texts than the one it came from."""
    usual = dict(canvas_lengths=None, max_steps=1)
    model, _ = load_inverter(train(tuned(released, pairs, tmp_path, **usual | flags)))
    assert model.config.canvas_lengths == kept


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"num_condition_tokens": 30}, "16 and 30 positions before the text .* the trunk's 40"),
        ({"max_sequence_length": 41}, "41 and 0 positions before the text .* the trunk's 40"),
        ({"max_sequence_length": 40, "surrogate_rank": 4}, "40 and 1 positions before the text .* the trunk's 40"),
    ],
    ids=str,
)
def test_a_trunk_has_no_more_positions(released, pairs, tmp_path, flags, message):
    """A new model of such sizes was refused in one line; a trained one was PyTorch's IndexError."""
    yaml = tmp_path / "long.yaml"
    yaml.write_text("id: sentence-transformers/all-MiniLM-L6-v2\nmax_length: 64\n")
    with pytest.raises(ValueError, match=message) as error:
        train(tuned(released, pairs, tmp_path / "out", encoder=str(yaml), canvas_lengths=None, **flags))
    assert "\n" not in str(error.value)


def test_what_a_checkpoint_has_is_not_ignored_in_silence(released, pairs, tmp_path, caplog):
    """A depth or a noise that a user asked for and did not get looks like one that makes no difference."""
    caplog.set_level(logging.WARNING)
    train(tuned(released, pairs, tmp_path, noise_schedule="linear", num_hidden_layers=2, max_steps=1))
    lines = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    assert len(lines) == 2 and "num_hidden_layers stays 1" in lines[0] and "noise_schedule stays cosine" in lines[1]
    caplog.clear()
    train(tuned(released, pairs, tmp_path / "same", noise_schedule="cosine", num_hidden_layers=1, max_steps=1))
    assert not any("is ignored" in record.getMessage() for record in caplog.records)
