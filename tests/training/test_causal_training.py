"""Training from left to right: its batches, its share of the updates, and that it learns."""

import json

import pytest
import torch

from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.noise import causal_batch, kind_of_update
from modeling_embinv.data.tokens import Vocabulary
from modeling_embinv.diffusion_embinv import NoiseSchedule
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import new_inverter
from modeling_embinv.training.validation import ValidationSet, causal_score, generation_scores
from tests.tiny_models import END, unit_vectors
from tests.training.tiny_runs import SENTENCES, TINY_TRUNK, log, settings, small_tokenizer, weights

L = 12


def test_causal_batches_carry_no_tail():
    """Ends behind the first one are two thirds of the work, and would tell how long the canvas is."""
    ids = torch.full((3, L), END)
    ids[0, :4], ids[1, :1], ids[2, :6] = 9, 8, 7
    batch = causal_batch(ids, unit_vectors(3), END, generator_for(0), condition_dropout=0.5)
    assert batch.input_ids.shape == (3, 7) and torch.equal(batch.input_ids, ids[:, :7])
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 7, 8, 14, 15, 16, 17, 18, 19, 20]
    assert batch.targets.tolist() == [9, 9, 9, 9, END, 8, END, 7, 7, 7, 7, 7, 7, END]
    full = causal_batch(torch.full((2, L), 9), unit_vectors(2), END, generator_for(0))  # no end: it fills its canvas
    assert len(full.positions) == 2 * L and full.condition_mask.all()


NAMES = ("input_ids", "text", "embedding", "condition_mask")


def test_parts_by_length_hold_every_row_once():
    """A row that is lost, cut, or parted from its vector by the sorting is learned wrong, and no loss shows it."""
    ids = torch.full((7, L), END)
    for row, length in enumerate((5, 1, 11, 3, 12, 1, 7)):
        ids[row, :length] = 20 + row
    batch = causal_batch(ids, unit_vectors(7), END, generator_for(0), condition_dropout=0.5)
    parts = batch.by_length(3)
    assert [part.input_ids.shape for part in parts] == [(3, 4), (3, 12), (1, 12)]
    for part in parts:
        for row, text, vector, kept in zip(*(getattr(part, name) for name in NAMES), strict=True):
            index = int(row[0]) - 20
            original = batch.input_ids[index][batch.text[index]]
            assert torch.equal(row[text], original)
            assert torch.equal(vector, batch.embedding[index]) and kept == batch.condition_mask[index]
    rows = sorted(int(row[0]) - 20 for part in parts for row in part.input_ids)
    assert rows == list(range(7))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_causal_updates(share):
    """A share of 0 must never draw one, 1 always, and the draw must not be the one that picks the canvas."""
    drawn = [kind_of_update(share, 0.0, 3, update) == "causal" for update in range(2000)]
    assert abs(sum(drawn) / 2000 - share) < 0.03
    assert drawn == [kind_of_update(share, 0.0, 3, update) == "causal" for update in range(2000)]


def test_both_orders_train_resume_and_are_logged_apart(pairs, tmp_path):
    """One mean of two losses hides which one diverges; a resumed run must draw the same orders again."""
    both = dict(causal_share=0.5, num_condition_tokens=2, max_steps=8)
    whole = train(settings(pairs, tmp_path / "whole", **both))
    train(settings(pairs, tmp_path / "parts", **{**both, "max_steps": 3}))
    parts = train(settings(pairs, tmp_path / "parts", **both))
    assert all(torch.equal(weight, weights(parts)[name]) for name, weight in weights(whole).items())
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    orders = [("train/loss" in line, "train/loss_causal" in line) for line in lines if "train/grad_norm" in line]
    assert orders == [
        (not causal, causal) for causal in (kind_of_update(0.5, 0.0, 1, update) == "causal" for update in range(8))
    ]
    assert len(set(orders)) == 2
    assert lines[-1]["validation/loss"] > 0 and lines[-1]["validation/loss_causal"] > 0
    model, _ = load_inverter(whole)
    assert model.config.causal_share == 0.5
    assert model.generate(unit_vectors(2, 384), strategy="autoregressive").sequences.shape == (2, 16)
    more = dict(init_from=str(whole), backbone_config=None, causal_share=0.0, max_steps=1)
    masked = train(settings(pairs, tmp_path / "masked", **more))
    assert load_inverter(masked)[0].config.causal_share == 0  # it forgets what it no longer learns
    assert all("train/loss_causal" not in line for line in log(tmp_path / "masked"))


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.6, 0.4), (0.41, 0.59)], ids=str)
def test_left_to_right_alone_is_judged_by_its_own_loss(pairs, tmp_path, shares):
    """`best` by the loss of an order that is not learned would keep the first weights.

    Corrections are of the same order; in floating point 1 − 0.41 − 0.59 is not 0.
    """
    causal, correction = shares
    learned = dict(causal_share=causal, correction_share=correction, num_condition_tokens=1)
    train(settings(pairs, tmp_path, max_steps=2, **learned))
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert line["validation/loss"] == line["validation/loss_causal"]
    assert line["validation/cosine"] == line["validation/draft_cosine"]
    assert ("validation/corrected_cosine" in line) == (correction > 0)
    for masked in ({"draft_share": 0.2}, {"complementary_masks": True}):
        with pytest.raises(ValueError, match="below 1 together") as error:
            settings(pairs, tmp_path, **learned, **masked)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="causal_share needs num_condition_tokens"):
        settings(pairs, tmp_path, causal_share=0.5)
    with pytest.raises(ValueError, match="leaves the inverter as it is"):
        settings(pairs, tmp_path, causal_share=0.5, num_condition_tokens=1, surrogate_rank=4)


def test_a_handful_of_sentences_is_over_fitted(encoder):
    """Condition, causal attention, loss and decoding together: if any is broken, eight sentences cannot be learned."""
    tokenizer = small_tokenizer(encoder)
    torch.manual_seed(0)
    trunk = {**TINY_TRUNK, "hidden_size": 64, "intermediate_size": 128}
    sizes = dict(embedding_dim=384, max_sequence_length=12, num_condition_tokens=2, causal_share=1.0)
    model = new_inverter(tokenizer, trunk, **sizes)
    canvas = encode_canvas(Vocabulary(tokenizer), SENTENCES, 12)
    embedding = encoder.encode(canvas.texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        batch = causal_batch(canvas.input_ids, embedding, model.config.eos_token_id, generator_for(step))
        loss = model(
            batch.input_ids, embedding, None, positions=batch.positions, targets=batch.targets, causal=True
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held = ValidationSet(canvas.input_ids, embedding, len(SENTENCES), NoiseSchedule())
    scores, texts = generation_scores(model.eval(), tokenizer, encoder, held, strategy="autoregressive")
    assert scores["exact"] == 100, texts
    likelihood = model.log_likelihood(canvas.input_ids, embedding)
    assert causal_score(model, held) < 0.2 and (likelihood > -3).all()
    # the likelihood knows which text belongs to which vector
    assert (model.log_likelihood(canvas.input_ids, embedding.roll(1, dims=0)) < likelihood - 1).all()
