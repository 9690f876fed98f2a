"""Relatives of the encoder, which its fingerprint does not tell apart; with the released checkpoint."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modeling_embinv.audit.attack import Attacker, Tier
from modeling_embinv.audit.control import control_sample, foreign
from modeling_embinv.audit.fingerprint import origin
from modeling_embinv.audit.public import public_sentences
from modeling_embinv.audit.tiers import run_tier
from modeling_embinv.cli.options import CHECKPOINT
from modeling_embinv.loading import load_inverter
from tests.audit.conftest import sample_of

pytestmark = pytest.mark.usefixtures("remembering")
SHORT = {
    "num_candidates": 2, "num_corrections": 1, "num_beams": 1, "num_proposals": 4, "num_hops": 1, "num_checked": 4
}  # fmt: skip
VECTORS = Tier("vectors", "a copy of the vectors", "surrogate", SHORT)


@pytest.fixture(scope="module")
def attacker(encoder, tmp_path_factory):
    model, tokenizer = load_inverter(CHECKPOINT)
    model.eval().to_int8()
    return Attacker(model, tokenizer, tmp_path_factory.mktemp("work"), encoder.encode, show_progress=False)


@pytest.fixture(scope="module")
def pooled_by_maximum(encoder):
    """Real vectors of the same network, with another pooling."""
    model = encoder._model
    tokens = model.tokenizer(list(public_sentences()[:120]), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model[0].auto_model(**tokens).last_hidden_state
    return states.masked_fill(tokens["attention_mask"][..., None] == 0, -torch.inf).amax(dim=1).numpy()


def test_vectors_pooled_in_another_way_are_noticed(attacker, pooled_by_maximum):
    """An audit called them the encoder's, and a store that nobody can read critical, by texts that it planted."""
    assert origin("m", attacker.model.config, pooled_by_maximum).looks_like is None  # if this fails, all the better
    sample = sample_of(["x"] * 4)._replace(vectors=pooled_by_maximum[:4], texts=None)
    found = foreign(attacker, [run_tier(attacker, sample, VECTORS, None, "stranger")])
    assert found is not None and "another version of this encoder" in found


def test_own_vectors_are_not_called_foreign(attacker):
    """A check that is too strict would leave out every estimate."""
    sample = control_sample(attacker).take(np.arange(4))
    assert foreign(attacker, [run_tier(attacker, sample, VECTORS, None, "own")]) is None


def test_a_weak_checkpoint_says_nothing_of_the_vectors(encoder, model, pooled_by_maximum, tmp_path):
    """What stays far from the encoder's own vectors as well is the checkpoint's fault."""
    weak, tokenizer = load_inverter(model)
    attacker = Attacker(weak.eval(), tokenizer, tmp_path, encoder.encode, show_progress=False)
    tier = replace(VECTORS, feedback="encoder")
    sample = sample_of(["x"] * 4)._replace(vectors=pooled_by_maximum[:4], texts=None)
    result = run_tier(attacker, sample, tier, None)
    assert max(result.recovered.cosine) < 0.5  # else there is nothing to decide
    assert foreign(attacker, [result]) is None and (tmp_path / "control-vectors.jsonl").exists()
