"""The corrector: a text is written anew beside a hypothesis and the vector that it got."""

import pytest
import torch
from transformers import AutoModel

from modeling_embinv.conditioning_embinv import Hypothesis
from modeling_embinv.correction_embinv import write_plainly
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.generation_embinv import Denoiser
from modeling_embinv.hypotheses_embinv import Hypotheses, Targets
from modeling_embinv.judge_embinv import Judge
from modeling_embinv.search_embinv import ClosedLoop
from tests.tiny_models import END, MASK, VOCAB, awaken, bag_of_tokens, texts, tiny_model, unit_vectors

L = 12
IDS = torch.randint(4, VOCAB, (3, L), generator=torch.Generator().manual_seed(1))


def corrector(family: str = "bert", **overrides):
    sizes = {"num_condition_tokens": 2, "causal_share": 0.5, "correction_share": 0.25, **overrides}
    model = awaken(tiny_model(family, **sizes))
    model.get_input_embeddings().weight.data.mul_(10)  # surer of its tokens, so that texts differ
    return model


def hypothesis(rows: int = 3, seed: int = 3) -> Hypothesis:
    return Hypothesis(texts(rows, 8), unit_vectors(rows, seed=seed))


def logits(model, ids=IDS, given=None, **kwargs):
    with torch.no_grad():
        given = hypothesis(len(ids)) if given is None else given
        return model(ids, unit_vectors(len(ids)), None, causal=True, hypothesis=given, **kwargs).logits


def test_a_token_sees_the_left_and_the_whole_hypothesis(family):
    """A token that sees what follows learns to copy; a hypothesis seen from the left alone hides its end."""
    model = corrector(family)
    before, given = logits(model), hypothesis()
    for position in (0, 5, 10):
        changed = IDS.clone()
        changed[:, position:] = (changed[:, position:] + 1) % VOCAB
        after = logits(model, changed)
        assert torch.allclose(after[:, : position + 1], before[:, : position + 1], atol=1e-6)
        assert ((after - before)[:, position + 1].abs().amax(dim=1) > 1e-3).all()
    for position in (0, 7):  # an end among the tokens counts, too: it says how long the hypothesis is
        changed = given.ids.clone()
        changed[:, position] = (changed[:, position] + 1) % VOCAB
        after = logits(model, given=Hypothesis(changed, given.vectors))
        assert ((after - before).abs().amax(dim=2) > 1e-5).all()
    after = logits(model, given=Hypothesis(given.ids, unit_vectors(3, seed=9)))
    assert ((after - before).abs().amax(dim=2) > 1e-4).all()


def test_the_first_token_of_a_hypothesis_sees_its_last(family):
    """Under a causal mask the state of a hypothesis' first token would not know what follows it."""
    model, given = corrector(family), hypothesis()
    states = []

    def keep(_, __, output):
        states.append((output[0] if isinstance(output, tuple) else output)[:, 0])

    hook = model.trunk.layers[0].register_forward_hook(keep)
    logits(model, given=given)
    changed = given.ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCAB
    logits(model, given=Hypothesis(changed, given.vectors))
    hook.remove()
    assert ((states[0] - states[1]).abs().amax(dim=1) > 1e-5).all()


def test_eager_equals_sdpa(family):
    """One kernel may drop a mask that is neither causal nor full."""
    model = corrector(family)
    fused = logits(model)
    model.set_attn_implementation("eager")
    assert torch.allclose(fused, logits(model), atol=1e-5)


def test_cache_equals_no_cache(family):
    """Positions of the text that count on from the prefix, or from 0, change every token but the first."""
    model, given, e = corrector(family), hypothesis(), unit_vectors(3)
    found = model.correct(e, given.ids, given.vectors)
    expected = torch.full((3, 8), END)
    for position in range(8):
        padded = torch.nn.functional.pad(expected, (0, 1), value=END)
        with torch.no_grad():
            next_logits = model(padded, e, None, causal=True, hypothesis=given).logits[:, position]
        next_logits[:, MASK] = -torch.inf
        if not position:
            next_logits[:, END] = -torch.inf  # no text is empty
        going = ~(expected[:, :position] == END).any(dim=1)
        expected[going, position] = next_logits.argmax(dim=1)[going]
    assert torch.equal(found, expected)


def test_a_corrector_changes_neither_of_the_two_orders(family):
    """Its segments must not leak into drafts and masked passes, whose weights it shares."""
    model, t = corrector(family), torch.tensor([0.1, 0.5, 0.9])
    plain = awaken(tiny_model(family, num_condition_tokens=2, causal_share=0.5))
    state = {name: weight for name, weight in model.state_dict().items() if not name.startswith("correction_tokens")}
    plain.load_state_dict(state)
    with torch.no_grad():
        for one in (model, model.train()):
            assert torch.equal(one(IDS, unit_vectors(3), t).logits, plain(IDS, unit_vectors(3), t).logits)
            ours, theirs = (m(IDS, unit_vectors(3), None, causal=True).logits for m in (one, plain))
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["masked", "causal", "correction"])
def test_every_weight_of_the_corrector_has_a_gradient_in_each_kind_of_update(family, kind):
    """Several processes wait for ever for the gradient of a weight that one kind of update does not use."""
    model = corrector(family).train()
    order = {"masked": {}, "causal": {"causal": True}}.get(kind, {"causal": True, "hypothesis": hypothesis()})
    timestep = None if order else torch.full((3,), 0.5)
    model(IDS, unit_vectors(3), timestep, targets=IDS.flatten(), **order).loss.backward()
    gradient = model.correction_tokens.segments.grad
    assert gradient is not None and bool(gradient.abs().max() > 0) == (kind == "correction")


def test_temperature_draws_and_repeats(family):
    """Equal rows with one generator must differ, and a second call with its seed must not."""
    model, given = corrector(family), hypothesis(1)
    rows = [value.expand(6, -1) for value in (unit_vectors(1), *given)]
    first, second = (model.correct(*rows, 5.0, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and len(first.unique(dim=0)) > 1


def test_a_model_without_corrector_says_so():
    """Untrained segments would write noise, and nobody would know why."""
    model, given = tiny_model(num_condition_tokens=2, causal_share=0.5), hypothesis()
    with pytest.raises(ValueError, match="no corrector"):
        model.correct(unit_vectors(3), *given)
    settings = {"num_corrections": 1, "num_rewrites": 2}
    with pytest.raises(ValueError, match="no corrector"):
        model.generate(unit_vectors(3), feedback=bag_of_tokens([]), search=settings)


def test_what_fits_no_correction_is_one_line():
    """Vectors of another length, NaN and other counts of rows were computed with, or ended in torch's own errors."""
    model, e, (ids, own) = corrector(), unit_vectors(3), hypothesis()
    own_nan = own.clone()
    own_nan[1, 2] = torch.nan
    for given, message in [
        ((e[:, :5], ids, own), "embeddings must have shape"),
        ((e, ids[:2], own), "hypothesis_ids must be .* a row for each of 3 vectors"),
        ((e, ids.float(), own), "hypothesis_ids must be whole numbers"),
        ((e, ids + VOCAB, own), f"hypothesis_ids must be ids below this model's vocabulary of {VOCAB}"),
        ((e, ids, own[:2]), "each vector needs its hypothesis: got 3 and 2"),
        ((e, ids, own[:, :5]), "hypothesis vectors must have shape"),
        ((e, ids, own_nan), "hypothesis vector 1 "),
        ((e, ids, own, 0.0, 3), "generator must be a torch.Generator"),
        ((e, ids, own, -1.0), "temperature must be"),
    ]:
        with pytest.raises(EmbInvError, match=message):
            model.correct(*given)
    with pytest.warns(UserWarning, match="hypothesis vectors are not of length 1"):
        assert torch.equal(model.correct(e, ids, own * 2), model.correct(e, ids, own))
    assert torch.equal(model.correct(e.tolist(), ids.tolist(), own.numpy()), model.correct(e, ids, own))
    assert model.correct(e[:0], ids[:0], own[:0]).shape == (0, 8)


def test_the_search_judges_what_the_corrector_writes(family):
    """Rewrites that are dropped, or put among another vector's edits, would cost time and change nothing."""
    model, calls = corrector(family), []
    settings = {"num_candidates": 2, "num_corrections": 2, "num_beams": 2, "num_checked": 1, "num_proposals": 1}
    encode = bag_of_tokens(calls)

    def search(**more):
        calls.clear()
        generator = torch.Generator().manual_seed(0)
        output = model.generate(unit_vectors(4), feedback=encode, search={**settings, **more}, generator=generator)
        return output, sum(calls)

    (_, before), (found, after) = search(), search(num_rewrites=6)
    assert after > before
    again, _ = search(num_rewrites=6)
    assert torch.equal(found.sequences, again.sequences)
    alone = model.generate(
        unit_vectors(4)[:1], feedback=encode, search={**settings, "num_rewrites": 6},
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(alone.sequences[0], found.sequences[0])


def test_rewrites_stand_behind_the_edits_of_their_own_text():
    """The scout's error on a text is subtracted from the vectors of all that was made of it, found by its position.

    With all rewrites behind all edits, the second text's edits would get the first one's error.
    """
    model, e = corrector(surrogate_rank=4), unit_vectors(2)
    changes = {
        "num_proposals": 6, "num_redrafts": 0, "num_rewrites": 3, "num_beams": 2, "num_checked": 2,
        "num_corrections": 1,
    }  # fmt: skip
    config = model.generation_config.with_changes(**changes, max_length=L)
    scout = Judge(model.embedder(), 0.0, "surrogate")
    loop = ClosedLoop(Denoiser(model, config), config.search, Judge(bag_of_tokens([]), 0.0), scout)
    low, high = torch.full((L,), 5), torch.full((L,), 30)
    ids = torch.stack([low, high]).expand(2, -1, -1).clone()
    vectors = torch.stack([unit_vectors(2, seed=4), unit_vectors(2, seed=5)])
    state = Hypotheses.of(ids, vectors, torch.zeros(2, 2))
    found = loop.scouted(scout, state, Targets.of(e, torch.Generator().manual_seed(0)))
    groups = found.ids.view(2, 2, 9, L)
    own = torch.stack([groups[:, 0] == 5, groups[:, 1] == 30], dim=1).float().mean(dim=3)  # (2, 2, 9)
    assert (own[:, :, :6].mean(dim=2) > 0.4).all() and (own[:, :, 6:].mean(dim=2) < 0.4).all()
    errors = scout.vectors(ids)[0] - vectors  # (2, 2, D)
    corrected = scout.vectors(found.ids)[0].view(2, 2, 9, -1) - errors[:, :, None]
    expected = torch.nn.functional.normalize(corrected, dim=-1).flatten(1, 2)
    assert torch.allclose(found.vectors, expected, atol=1e-6)


def test_it_travels_with_the_checkpoint(tmp_path):
    """The segments are weights of the checkpoint; its own code must know them."""
    model, given = corrector(), hypothesis()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert torch.equal(loaded.correct(unit_vectors(3), *given), model.correct(unit_vectors(3), *given))


def test_a_prefix_that_several_texts_share_is_read_once(family, monkeypatch):
    """Four corrections of each hypothesis would read its prefix four times; mixed up, they would be of others."""
    model, given = corrector(family), hypothesis(rows=3)
    vectors = unit_vectors(3)
    rows = torch.tensor([0, 0, 1, 2, 2, 2])
    alone = [
        write_plainly(model, vectors[[row]], 12, hypothesis=given.rows(torch.tensor([row]))) for row in rows.tolist()
    ]
    read, original = [], model.next_states

    def next_states(ids, condition, cache):
        if ids is None:
            read.append(len(condition.prefix))
        return original(ids, condition, cache)

    monkeypatch.setattr(model, "next_states", next_states)
    together = write_plainly(model, vectors[rows], 12, hypothesis=given.rows(rows))
    assert read == [3] and torch.equal(together, torch.cat(alone))


def test_a_hypothesis_longer_than_the_table_of_positions_is_told():
    """Its correction ended in an IndexError of the table; the longest one that fits is corrected."""
    model, e = corrector(), unit_vectors(2)
    assert model.correct(e, torch.full((2, 38), 5), e).shape == (2, 38)  # of 40 positions two are the condition's
    for length in (39, 60):
        with pytest.raises(EmbInvError, match=f"texts of {length} tokens are too long: this model reads 38"):
            model.correct(e, torch.full((2, length), 5), e)
