"""The mathematics of masked diffusion, against closed forms, enumeration and autograd."""

import itertools
import math

import pytest
import torch

from modeling_embinv.diffusion_embinv import (
    NoiseSchedule,
    mask_tokens,
    sample_timesteps,
    sample_tokens,
    shortest_canvases,
)
from modeling_embinv.training.losses import loss_weights

SCHEDULES = [NoiseSchedule("log_linear", 5.0), NoiseSchedule("linear"), NoiseSchedule("cosine")]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("t", [0.05, 0.3, 0.8, 1.0])
def test_masking_marginal_is_one_minus_alpha(schedule, t):
    """The paper's own code clamped its mask ratio at 0.1, whatever t was: its marginal was wrong everywhere."""
    ids = torch.full((400, 250), 7)
    noised, masked = mask_tokens(ids, torch.full((400,), t), schedule, 3, torch.Generator().manual_seed(0))
    expected = 1 - float(schedule.alpha(torch.tensor(t)))
    assert float(masked.float().mean()) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / ids.numel()))
    assert torch.equal(noised == 3, masked) and (noised[~masked] == 7).all()


def test_marginal_holds_at_each_row_and_position():
    """A mask drawn once for all rows, or with the timestep of a neighbour, has the right mean but not per row."""
    timestep = torch.tensor([0.1, 0.9])
    schedule = NoiseSchedule("linear")
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack(
        [mask_tokens(torch.ones(2, 5, dtype=torch.long), timestep, schedule, 3, generator)[1] for _ in range(4000)]
    )
    assert torch.allclose(draws.float().mean(dim=0), timestep[:, None].expand(2, 5), atol=0.04)
    assert abs(float(torch.corrcoef(draws[:, 0].float().T)[0, 1])) < 0.06  # positions are independent


def test_padding_is_never_masked_and_full_rows_are_full():
    """Masked padding would be scored; rows that miss a mask would never show the sampler's first state."""
    attention_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    _, masked = mask_tokens(
        torch.full((2, 5), 7), torch.tensor([0.01, 0.01]), NoiseSchedule(), 3, torch.Generator().manual_seed(0),
        attention_mask, fully_masked=torch.tensor([True, True]),
    )  # fmt: skip
    assert torch.equal(masked, attention_mask.bool())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_alpha_prime_is_the_derivative(schedule):
    """A wrong sign or factor in α′ silently rescales the ELBO weight."""
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    assert torch.allclose(schedule.alpha_prime(t.detach()), gradient)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_timestep_inverts_alpha(schedule):
    """The sampler tells the model t from the masked share: off by the schedule, it asks about another noise level."""
    t = torch.linspace(0.01, 0.99, 50)
    assert torch.allclose(schedule.timestep(1 - schedule.alpha(t)), t, atol=1e-4)
    assert schedule.timestep(torch.tensor(1.0)) == 1 and schedule.timestep(torch.tensor(0.0)) == 0


def test_boundaries_of_alpha():
    """α(0) must be 1; log-linear ends at e^−λ, not at 0, which is why fully masked rows are trained too."""
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    assert all(float(schedule.alpha(zero)) == pytest.approx(1, abs=1e-6) for schedule in SCHEDULES)
    assert float(SCHEDULES[0].alpha(one)) == pytest.approx(math.exp(-5))
    assert float(SCHEDULES[1].alpha(one)) == 0 and float(SCHEDULES[2].alpha(one)) == 0


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_timesteps_are_stratified_and_uniform(device):
    """Independent draws leave gaps; strata that reach 0 divide by it; in row order, they give each row its own t."""

    def draw(count: int, seed: int):
        return sample_timesteps(count, torch.Generator(device).manual_seed(seed), eps=1e-3).cpu()

    t = draw(1000, 0)
    assert t.min() >= 1e-3 and t.max() <= 1
    strata = ((t - 1e-3) / (1 - 1e-3) * 1000).floor().long().clamp_max(999)
    assert torch.equal(strata.sort().values, torch.arange(1000))
    rows = torch.stack([draw(4, seed) for seed in range(2000)])
    assert torch.allclose(rows.mean(dim=0), torch.full((4,), 0.5), atol=0.02)
    ids = torch.full((4, 6), 7)
    noised, masked = mask_tokens(ids, t[:4], SCHEDULES[0], 3, torch.Generator(device).manual_seed(0))
    assert torch.equal(noised == 3, masked)


@pytest.mark.parametrize("kind", ["inverse_t", "elbo"])
def test_weighted_loss_equals_the_exact_expectation(kind):
    """Eq. 4 for a three-token text, over all 8 mask patterns: a mean where the sum belongs fails here."""
    schedule, t = NoiseSchedule("log_linear", 2.0), torch.tensor([0.4])
    patterns = list(itertools.product([0, 1], repeat=3))
    table = torch.rand(8, 3, generator=torch.Generator().manual_seed(3))
    nll = dict(zip(patterns, table, strict=True))
    keep = float(schedule.alpha(t))
    weight = 1 / 0.4 if kind == "inverse_t" else float(-schedule.alpha_prime(t) / (1 - schedule.alpha(t)))
    exact = sum(
        math.prod((1 - keep) if m else keep for m in pattern)
        * weight
        * float((nll[pattern] * torch.tensor(pattern)).sum())
        for pattern in nll
    )
    generator, rows = torch.Generator().manual_seed(0), 60_000
    timestep = t.expand(rows)
    _, masked = mask_tokens(torch.full((rows, 3), 7), timestep, schedule, 3, generator)
    row_weights = loss_weights(kind, timestep, masked, schedule)
    losses = table[(masked * torch.tensor([4, 2, 1])).sum(dim=1)]
    estimate = float((row_weights[:, None] * losses * masked).sum())
    assert estimate == pytest.approx(exact, rel=0.02)


def test_weight_none_is_the_mean_over_masked_positions():
    """Averaging per row first would count a row with one mask as much as a row with thirty."""
    masked = torch.tensor([[True, True, True], [True, False, False]])
    weights = loss_weights("none", torch.tensor([0.9, 0.1]), masked, NoiseSchedule())
    assert torch.equal(weights, torch.tensor([0.25, 0.25]))


def test_canvases_hold_the_text():
    """A word or a [MASK] that is cut off would never be written."""
    end, mask = 2, 3
    rows = [[5, 2, 2, 2, 2, 2], [5, 5, 2, 2, 2, 2], [5, 5, 5, 2, 2, 2], [5] * 6, [5, 2, 2, 2, mask, 2], [mask] * 6]
    found = {length: index.tolist() for length, index in shortest_canvases(torch.tensor(rows), end, [4, 3, 6, 9])}
    assert found == {3: [0, 1], 4: [2], 6: [3, 4, 5]}
    assert [(length, len(index)) for length, index in shortest_canvases(torch.tensor(rows), end, ())] == [(6, 6)]


def test_bad_names_raise():
    """A typing error in a schedule or weight must not fall back to a default."""
    with pytest.raises(ValueError, match="noise schedule must be"):
        NoiseSchedule("loglinear")
    with pytest.raises(ValueError, match="loss_weight must be"):
        loss_weights("1/t", torch.ones(1), torch.ones(1, 1, dtype=torch.bool), NoiseSchedule())
    with pytest.raises(ValueError, match="no ELBO weight"):
        loss_weights("elbo", torch.ones(1), torch.ones(1, 1).bool(), NoiseSchedule("fixed", mask_ratio=0.4))


@pytest.mark.parametrize("vocabulary", [5, 256, 257, 1000])
def test_drawn_tokens_have_their_probabilities(vocabulary):
    """A block that is left out, counted twice, or of which the wrong end is taken."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, vocabulary, generator=generator)
    logits[1, :2], logits[2, 2:] = -torch.inf, -torch.inf
    draws = (torch.arange(100_000) + 0.5) / 100_000
    for row in logits:
        tokens = torch.cat([sample_tokens(row.expand(1000, -1), part) for part in draws.split(1000)])
        assert (tokens.diff() >= 0).all()  # they follow the distribution function
        share = torch.bincount(tokens, minlength=vocabulary) / len(draws)
        assert torch.allclose(share, row.softmax(dim=0), atol=3e-5)


def test_no_draw_falls_on_a_token_of_probability_zero():
    """Rounded sums fall short of 1: the last draws would get the last token, which may be barred."""
    logits = torch.full((4, 700), -torch.inf)
    logits[:, 300:600] = torch.randn(300, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([0.0, 1e-9, 1 - 2**-24, 1.0])
    tokens = sample_tokens(logits, draws)
    assert ((tokens >= 300) & (tokens < 600)).all() and tokens[0] == 300 and tokens[3] == 599
