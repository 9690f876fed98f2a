"""The second stage: what a hypothesis tells the denoiser, where hypotheses come from, that it learns from them."""

import pytest
import torch

from modeling_embinv.correction_embinv import Hypothesis
from modeling_embinv.hypotheses import sample_hypotheses

from .conftest import END, MASK, VOCAB, awaken, tiny_model, unit_vectors
from .test_closed_loop import bag_of_tokens, texts


class TableEncoder:
    """An encoder of ids: the sum of a vector for each token."""

    takes_ids = True

    def encode_ids(self, ids, end):
        return bag_of_tokens([])(ids)


def logits(model, noised, vectors, hypothesis=None, **more):
    return model(noised, vectors, torch.ones(len(noised)), hypothesis=hypothesis, **more).logits


def test_rows_without_a_hypothesis_are_as_in_the_first_stage():
    """One network does both jobs: a leak of another row's hypothesis, or of an unused one, spoils open-loop texts."""
    torch.manual_seed(0)
    model, vectors, ids = awaken(tiny_model()), unit_vectors(4), texts(4)
    noised = torch.full_like(ids, MASK)
    plain = logits(model, noised, vectors)
    model.add_correction()
    torch.nn.init.normal_(model.correction.dense_out.weight)
    assert torch.equal(logits(model, noised, vectors), plain)
    mask = torch.tensor([True, False, True, False])
    told = logits(model, noised, vectors, Hypothesis(ids, unit_vectors(4, seed=3), mask))
    assert torch.allclose(told[~mask], plain[~mask], atol=1e-6)
    assert ((told[mask] - plain[mask]).abs().amax(dim=(1, 2)) > 1e-2).all()
    assert model.add_correction() is None and torch.equal(logits(model, noised, vectors), plain)  # not begun anew


def test_both_vectors_and_every_token_count():
    """A projection that reads ê alone cannot know which way to move; tokens must arrive at their own position."""
    torch.manual_seed(0)
    model, e, own, ids = awaken(tiny_model(has_correction=True)), unit_vectors(1), unit_vectors(1, seed=3), texts(1)
    torch.nn.init.normal_(model.correction.dense_out.weight)
    noised = torch.full_like(ids, MASK)
    told = logits(model, noised, e, Hypothesis(ids, own))
    assert not torch.allclose(logits(model, noised, e, Hypothesis(ids, unit_vectors(1, seed=4))), told, atol=1e-3)
    added = model.correction(e, Hypothesis(ids, own), model.trunk.token_embeddings(ids))
    other = ids.clone()
    other[0, 3] = (ids[0, 3] + 1) % VOCAB
    changed = model.correction(e, Hypothesis(other, own), model.trunk.token_embeddings(other))
    assert torch.equal(changed[0], added[0])
    assert ((changed[1] - added[1]).abs().sum(dim=2)[0] > 0).nonzero().flatten().tolist() == [3]
    further = model.correction(-e, Hypothesis(ids, own), model.trunk.token_embeddings(ids))
    assert not torch.allclose(further[0], added[0])


def test_hypotheses_are_texts_of_the_model_and_edited_originals():
    """Masks left in a hypothesis, tokens behind its end, or a vector of another text would teach the wrong lesson."""
    model, ids = awaken(tiny_model()), texts(400)
    vectors, encoder = bag_of_tokens([])(ids), TableEncoder()
    draw = lambda: sample_hypotheses(model, encoder, ids, vectors, 0.75, torch.Generator().manual_seed(3))  # noqa: E731
    found = draw()
    assert 0.7 < found.mask.float().mean() < 0.8
    assert (found.ids != MASK).all() and (found.ids[:, 1:][found.ids[:, :-1] == END] == END).all()
    assert torch.allclose(found.embedding[found.mask], encoder.encode_ids(found.ids[found.mask], END), atol=1e-6)
    assert (found.embedding[~found.mask] == 0).all()
    agreement = (found.ids == ids).float().mean(dim=1)[found.mask]
    assert 0.35 < (agreement > 0.15).float().mean() < 0.65  # about half share tokens with their original
    assert (agreement < 1).float().mean() > 0.9
    again = draw()
    assert torch.equal(again.ids, found.ids) and torch.equal(again.mask, found.mask)


def test_the_denoiser_learns_to_use_a_hypothesis():
    """Parts that get no gradient, or a start from which tokens need thousands of steps to come through."""
    model = tiny_model(has_correction=True).train()
    vectors, ids = unit_vectors(64), texts(64)
    noised, hypothesis = torch.full_like(ids, MASK), Hypothesis(ids.roll(1, dims=1), vectors.roll(1, dims=0))
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    targets = ids.flatten()
    for _ in range(60):
        loss = model(noised, vectors, torch.ones(64), targets=targets, hypothesis=hypothesis).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad.abs().sum() > 0 for weight in model.correction.parameters() if len(losses) > 1)
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        blind = float(model(noised, vectors, torch.ones(64), targets=targets).loss)
    assert losses[-1] < 0.5 * losses[0] and blind > losses[-1] + 0.3


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_corrections_take_part_in_the_search(scale):
    """A model that can correct in a loop that only edits; guidance that tells the null branch of the hypothesis."""
    model, vectors, calls = awaken(tiny_model(has_correction=True)), unit_vectors(4), []
    seen, condition = [], model.condition
    model.condition = lambda *args, **kwargs: (
        seen.append(args[2] if len(args) > 2 else kwargs.get("hypothesis")) or (condition(*args, **kwargs))
    )
    output = model.generate(
        vectors, feedback=bag_of_tokens(calls), num_candidates=2, num_corrections=2, num_beams=2, num_proposals=4,
        guidance_scale=scale, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    told = [hypothesis for hypothesis in seen if hypothesis is not None]
    assert told and sum(calls) == output.num_feedback_calls <= 4 * (2 + 2 * 8)
    for hypothesis in told:
        mask = torch.ones(len(hypothesis.ids), dtype=torch.bool) if hypothesis.mask is None else hypothesis.mask
        assert (scale == 1.0) == bool(mask.all())
        own = bag_of_tokens([])(hypothesis.ids)
        assert torch.allclose(own, hypothesis.embedding, atol=1e-5)  # ê is of this text, not of a neighbour


def test_a_corrector_survives_saving(tmp_path):
    """A config that forgets the part would load the first stage only, without a word."""
    model = awaken(tiny_model(has_correction=True))
    torch.nn.init.normal_(model.correction.dense_out.weight)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    ids, vectors = texts(3), unit_vectors(3)
    hypothesis = Hypothesis(ids, unit_vectors(3, seed=2))
    assert torch.allclose(logits(loaded, ids, vectors, hypothesis), logits(model, ids, vectors, hypothesis), atol=1e-5)
