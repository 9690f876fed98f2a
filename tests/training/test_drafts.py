"""Own-draft correction and complementary masks: the batches, what is sampled, and that runs repeat themselves."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch

from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.noise import Noise, causal_batch, noise_batch
from modeling_embinv.data.tokens import Vocabulary
from modeling_embinv.diffusion_embinv import NoiseSchedule, text_positions
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import new_inverter
from modeling_embinv.training.drafts import write_drafts
from tests.tiny_models import END, MASK, VOCAB, causal_model, texts, unit_vectors
from tests.training.tiny_runs import SENTENCES, TINY_TRUNK, in_two_forks, log, settings, small_tokenizer, weights

L = 12
NOISE = Noise(NoiseSchedule("linear"), MASK, END, full_mask_share=0.1, condition_dropout=0.2, tail_share=0.5)
PLAIN = ("input_ids", "noised_ids", "timestep", "condition_mask", "embedding")


def noised(noise: Noise, rows: int = 40, seed: int = 0):
    ids = texts(rows)
    return noise_batch(ids, torch.arange(rows)[:, None].float(), noise, generator_for(seed))


def test_drafts_change_no_other_noise():
    """Drafts drawn in between would give every run other masks; the share is one of rows, of visible text alone."""
    plain, drafted = noised(NOISE), noised(replace(NOISE, draft_share=0.5))
    for name in PLAIN:
        assert torch.equal(getattr(plain, name), getattr(drafted, name)), name
    where = (drafted.masked & ~plain.masked).flatten()
    positions = drafted.drafted.positions
    assert torch.equal(positions, where.nonzero().squeeze(1)) and len(positions) > 20
    rows = drafted.drafted.rows
    assert len(rows) == 20 and set((positions // L).tolist()) <= set(rows.tolist())
    assert (drafted.noised_ids.flatten()[positions] != MASK).all()
    assert text_positions(drafted.input_ids, END).flatten()[positions].all()
    # scored as masked positions are, each with its original as target and a weight of its own
    assert set(drafted.positions.tolist()) == set(plain.positions.tolist()) | set(positions.tolist())
    assert torch.equal(drafted.targets, drafted.input_ids.flatten()[drafted.positions])
    assert (drafted.position_weights[torch.isin(drafted.positions, positions)] == 1).all()
    assert plain.drafted is None


def test_half_of_the_visible_tokens_are_drafted_on_average():
    """A rate that is the same in all rows, or one of all positions, teaches drafts of one quality."""
    share, rates = [], []
    for seed in range(200):
        batch = noised(replace(NOISE, draft_share=0.5), seed=seed)
        visible = text_positions(batch.input_ids, END) & (batch.noised_ids != MASK)
        where = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
        where[batch.drafted.positions] = True
        rows = batch.drafted.rows
        share.append(float(where.sum()) / float(visible[rows].sum()))
        many = rows[visible[rows].sum(dim=1) >= 6]
        rates += (where.view_as(visible)[many].sum(dim=1) / visible[many].sum(dim=1)).tolist()
    assert sum(share) / len(share) == pytest.approx(0.5, abs=0.03)
    rates = torch.tensor(rates)
    assert (rates < 0.2).float().mean() > 0.1 and (rates > 0.8).float().mean() > 0.1


def test_drafts_follow_the_causal_order(family):
    """Tokens of another row, of the position before, or of the masked order are no drafts of this model."""
    model, count = causal_model(family), 4000
    ids = torch.full((count, L), END)
    ids[:, :5] = torch.tensor([9, 17, 30, 5, 44])
    ids[count // 2 :, 1] = 21  # another text, in the second half of the batch
    e = unit_vectors(2)[torch.arange(count) // (count // 2)]
    noise = Noise(NoiseSchedule("linear"), MASK, END, draft_share=1.0)
    batch = noise_batch(ids, e, noise, generator_for(0))
    before = batch.noised_ids.clone()
    write_drafts(model, model, batch)
    where = torch.zeros(ids.numel(), dtype=torch.bool)
    where[batch.drafted.positions] = True
    where = where.view_as(ids)
    assert torch.equal(batch.noised_ids[~where], before[~where]) and where[:, :6].any() and not where[:, 6:].any()
    with torch.no_grad():
        logits = model(ids[[0, -1]], unit_vectors(2), None, causal=True).logits
    for half, rows in enumerate(torch.arange(count).chunk(2)):
        for place in range(6):
            expected = logits[half, place].clone()
            expected[MASK] = -torch.inf
            if place < 5:
                expected[END] = -torch.inf
            drawn = batch.noised_ids[rows, place][where[rows, place]]
            found = torch.bincount(drawn, minlength=VOCAB) / len(drawn)
            assert len(drawn) > 300 and (found - expected.softmax(0)).abs().max() < 0.09
            assert place == 5 or not (drawn == END).any()


def test_drafts_see_the_condition_that_their_row_has():
    """A row under the null condition would see drafts that only the vector could have made."""
    model = causal_model()
    batches = [noised(replace(NOISE, draft_share=1.0, condition_dropout=share)) for share in (0.0, 1.0)]
    for batch in batches:
        batch.embedding = unit_vectors(1).expand(len(batch.input_ids), -1)
        write_drafts(model, model, batch)
    assert torch.equal(batches[0].drafted.positions, batches[1].drafted.positions)
    assert not torch.equal(batches[0].noised_ids, batches[1].noised_ids)
    changed = copy.deepcopy(batches[1])
    changed.embedding = unit_vectors(1, seed=8).expand(len(changed.input_ids), -1)
    changed.noised_ids = changed.noised_ids.clone()
    write_drafts(model, model, changed)
    assert torch.equal(changed.noised_ids, batches[1].noised_ids)  # without a condition, no vector counts


BOTH = dict(causal_share=0.4, num_condition_tokens=2, draft_share=0.5, loss_weight="none", max_steps=8)


@pytest.mark.slow
def test_runs_with_drafts_resume(pairs, tmp_path):
    """Drafts of other weights, or drawn from the process' own noise, end elsewhere after an interruption."""
    more = {"complementary_masks": True}
    whole = train(settings(pairs, tmp_path / "whole", **BOTH, **more))
    train(settings(pairs, tmp_path / "parts", **{**BOTH, **more, "max_steps": 3}))
    parts = train(settings(pairs, tmp_path / "parts", **BOTH, **more))
    assert all(torch.equal(weight, weights(parts)[name]) for name, weight in weights(whole).items())
    without = train(settings(pairs, tmp_path / "without", **{**BOTH, **more, "draft_share": 0.0}))
    assert not all(torch.equal(weight, weights(without)[name]) for name, weight in weights(whole).items())


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"draft_share": 0.0, "complementary_masks": True}], ids=str)
def test_two_processes_draft_what_one_does(pairs, tmp_path, more):
    """Each process must sample by the same weights and by its own batch's draws."""
    config = settings(pairs, tmp_path / "one", **{**BOTH, **more, "max_steps": 5}, gradient_accumulation_steps=2)
    one = train(config)
    in_two_forks(replace(config, output_dir=str(tmp_path / "two"), gradient_accumulation_steps=1))
    two = weights(tmp_path / "two" / "last")
    for name, weight in weights(one).items():
        assert torch.allclose(weight.float(), two[name].float(), atol=2e-3), name
    losses = [[line.get("train/loss") for line in log(tmp_path / folder)] for folder in ("one", "two")]
    masked = [[loss for loss in part if loss is not None] for part in losses]
    assert len(masked[0]) > 1 and masked[0] == pytest.approx(masked[1], rel=1e-3)


def test_what_does_not_fit_together_is_one_line(pairs, tmp_path):
    """Drafts of a model that has no causal order are noise, and an odd batch has no pairs."""
    for wrong, message in (
        (dict(draft_share=0.2), "set causal_share above 0 and below 1"),
        (dict(draft_share=0.2, causal_share=1.0, num_condition_tokens=1), "set causal_share above 0 and below 1"),
        # at t = 0.01, 1 / t gave each drafted token the weight of a hundred
        (dict(draft_share=0.2, causal_share=0.5, num_condition_tokens=1), "set loss_weight to none"),
        (dict(draft_share=1.2, causal_share=0.5, num_condition_tokens=1), "draft_share must be"),
        (dict(complementary_masks=True, batch_size=5), "needs an even batch_size, got 5"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            settings(pairs, tmp_path, **wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="need linear noise, this is log_linear"):
        train(settings(pairs, tmp_path, complementary_masks=True, loss_weight="inverse_t"))


@pytest.mark.parametrize("name", ["linear", "cosine", "log_linear"])
def test_complements_are_complements(name):
    """A pair that misses a position, or scores it twice, or has another row's vector, is two bad rows."""
    schedule = NoiseSchedule(name)
    noise = Noise(schedule, MASK, END, condition_dropout=0.3, complementary=True)
    assert noise.texts_of(80) == 40
    batch = noised(noise)
    first, second = batch.masked.chunk(2)
    assert batch.input_ids.shape == (80, L) and torch.equal(first, ~second) and first.any() and second.any()
    assert torch.equal(*batch.input_ids.chunk(2)) and torch.equal(*batch.embedding.chunk(2))
    assert not torch.equal(*batch.condition_mask.chunk(2))
    assert torch.equal(batch.masked, batch.noised_ids == MASK)
    assert sorted((batch.positions % (40 * L)).tolist()) == list(range(40 * L))  # every position once
    t, other = batch.timestep.chunk(2)
    reachable = schedule.alpha(t) < 1 - schedule.alpha(torch.ones(1))  # exp(−5) stays visible at t = 1
    assert torch.allclose(1 - schedule.alpha(other[reachable]), schedule.alpha(t[reachable]), atol=1e-4)
    if name == "linear":  # the complements' timesteps are uniform, too: any weight of t stays exact
        assert torch.allclose(other, 1 - t, atol=1e-5)


def test_fully_masked_rows_leave_their_partners_alone():
    """A complement of everything is nothing: the row would be spent on no position."""
    batch = noised(Noise(NoiseSchedule("linear"), MASK, END, full_mask_share=0.3, complementary=True))
    full = batch.timestep == 1
    assert 10 < int(full.sum()) < 40 and batch.masked[full].all()
    first, second = batch.masked.chunk(2)
    single = full[:40] ^ full[40:]
    assert (first | second).all() and single.any()
    assert ((first ^ second)[~(full[:40] | full[40:])]).all()
    assert (batch.masked.sum(dim=1)[~full] < L).any()


@pytest.mark.slow
def test_wrong_tokens_are_learned(encoder):
    """Whether a model that saw its own drafts puts a wrong visible word right: one that never did copies it."""
    tokenizer = small_tokenizer(encoder)
    canvas = encode_canvas(Vocabulary(tokenizer), SENTENCES, 12)
    ids, embedding, right = canvas.input_ids, encoder.encode(canvas.texts), {}
    for share in (0.0, 0.5):
        torch.manual_seed(2)
        trunk = {**TINY_TRUNK, "hidden_size": 64, "intermediate_size": 128}
        sizes = dict(embedding_dim=384, max_sequence_length=12, num_condition_tokens=2, causal_share=0.5)
        model = new_inverter(tokenizer, trunk, **sizes)
        config = model.config
        noise = Noise(NoiseSchedule("linear"), config.mask_token_id, config.eos_token_id, draft_share=share)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        # at a higher rate, or without a decay, the processor's rounding decides
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 400)
        for step in range(400):
            plain = causal_batch(ids, embedding, config.eos_token_id, generator_for(step))
            batch = noise_batch(ids, embedding, noise, generator_for(step))
            write_drafts(model, model, batch)
            loss = sum((
                model(ids[:, : plain.input_ids.shape[1]], embedding, None, positions=plain.positions,
                      targets=plain.targets, causal=True).loss,
                model(batch.noised_ids, embedding, batch.timestep, positions=batch.positions,
                      targets=batch.targets).loss,
            ))  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        found = []
        for position, other in product(range(4), (1, 2, 3)):  # eight texts at one place are too few
            wrong = ids.clone()
            wrong[:, position] = ids[:, position].roll(other)
            with torch.no_grad():
                logits = model.eval()(wrong, embedding, torch.full((len(ids),), 0.1)).logits
            changed = wrong[:, position] != ids[:, position]
            found.append((logits[:, position].argmax(dim=1) == ids[:, position])[changed])
        right[share] = float(torch.cat(found).float().mean())
    assert right[0.5] >= 0.75 and right[0.5] > right[0.0], right
