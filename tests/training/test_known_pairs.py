"""The short fine-tuning of an attacker who knows pairs."""

import numpy as np
import pytest
import torch

import modeling_embinv.training.known_pairs as known_pairs
from modeling_embinv.data.sources import split_of
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.loading import load_inverter
from modeling_embinv.training.backbone import prepare_tokenizer
from modeling_embinv.training.checkpoints import export
from modeling_embinv.training.loop import Run
from modeling_embinv.vectors_embinv import unit_rows
from tests.hub.tiny_folder import new_tiny_inverter
from tests.training.tiny_runs import weights

TEXTS = [
    f"A {noun} {verb}." for noun in ("dog", "king", "bird", "child") for verb in ("sings", "waits", "runs", "eats")
]


def released(encoder, folder, **surrogate):
    """A folder of a checkpoint with a surrogate."""
    torch.manual_seed(0)
    sizes = {"embedding_dim": 384, "encoder_id": "sentence-transformers/all-MiniLM-L6-v2", "canvas_lengths": [6, 12]}
    inverter = new_tiny_inverter(encoder.tokenizer, **surrogate, **sizes)
    return export(inverter, prepare_tokenizer(encoder.tokenizer), folder / "model")


@pytest.fixture(scope="module")
def model(encoder, tmp_path_factory):
    return released(encoder, tmp_path_factory.mktemp("tiny"), surrogate_rank=2)


def tune(model, encoder, folder, steps=4):
    vectors = unit_rows(np.random.default_rng(0).standard_normal((len(TEXTS), 384)))[0]
    config = load_inverter(str(model))[0].config
    return known_pairs.fine_tune(str(model), config, encoder, TEXTS, vectors, folder, steps)


def test_few_pairs_are_enough_to_hold_some_out(model, encoder, tmp_path):
    """A fifth of twenty pairs may be none, and an audit of hours ended there."""
    texts = [text for number in range(60) if split_of(text := f"A dog waits {number} hours.", 0.2, 0.0) == "train"][
        :20
    ]
    vectors = unit_rows(np.random.default_rng(0).standard_normal((len(texts), 384)))[0]
    config = load_inverter(str(model))[0].config
    best = known_pairs.fine_tune(str(model), config, encoder, texts, vectors, tmp_path, steps=1)
    assert (best / "model.safetensors").is_file()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_pairs_that_cannot_be_split_are_told(model, encoder, tmp_path, split):
    """All but one are too long for the inverter: the line spoke of a split of a folder that the user never made."""
    (short, *_) = [text for number in range(60) if split_of(text := f"It is {number}.", 0.4, 0.0) == split]
    texts = [short, *(f"{short} and {'again ' * (20 + number)}" for number in range(19))]
    vectors = unit_rows(np.random.default_rng(0).standard_normal((len(texts), 384)))[0]
    config = load_inverter(str(model))[0].config
    with pytest.raises(EmbInvError, match="1 of these 20 texts .* too few to train on some and hold others out"):
        known_pairs.fine_tune(str(model), config, encoder, texts, vectors, tmp_path, steps=1)


def test_a_killed_training_goes_on_and_leaves_the_surrogate_its_trunk(model, encoder, tmp_path, monkeypatch):
    """Resuming must give what an uninterrupted run gives; a surrogate beside another trunk judges at random."""
    monkeypatch.setattr(known_pairs, "SAVE_STEPS", 1)
    whole = weights(tune(model, encoder, tmp_path / "whole"))
    before = weights(model)
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], whole[name])}
    assert changed == {"projector", "modulation", "head", "decoder"} and set(before) == set(whole)

    update, steps = Run.update, []

    def killed(self, step, causal=False):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return update(self, step, causal)

    monkeypatch.setattr(Run, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(model, encoder, tmp_path / "killed")
    resumed = weights(tune(model, encoder, tmp_path / "killed"))
    assert steps == [0, 1, 2, 2, 3]  # the third update was lost, the first two were not
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    tune(model, encoder, tmp_path / "killed")
    assert len(steps) == 5  # finished work is not done again


def test_the_trunk_trains_under_a_surrogate_that_can_follow(encoder, tmp_path):
    """The attacker's trunk stayed as it was for the surrogate's sake, and re-training gained nothing over the map."""
    model = released(encoder, tmp_path, surrogate_rank=999)
    before, after = weights(model), weights(best := tune(model, encoder, tmp_path / "run"))
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert any(name.startswith("trunk.encoder.") for name in moved)
    assert not any("word_embeddings" in name for name in moved)
    texts = torch.tensor([[4937, 2003, 102, 102], [2158, 102, 102, 102]])
    (old, _), (new, _) = load_inverter(str(model)), load_inverter(str(best))
    assert (old.embed(texts) * new.embed(texts)).sum(dim=1).min() > 0.9999
