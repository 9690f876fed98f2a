"""Decoding: every strategy against an oracle, exact budgets, repeatability, and settings that fail loudly."""

import json
import math
import random
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TextDiffusionStreamer

from modeling_embinv import EmbInvForMaskedDiffusion, EmbInvGenerationConfig, EmbInvOutput
from modeling_embinv.conditioning_embinv import Condition
from modeling_embinv.diffusion_embinv import Canvas, confidence_step, euler_step, remask_step, sequential_step
from modeling_embinv.inputs_embinv import check_embeddings
from modeling_embinv.settings_embinv import SETTINGS
from tests.tiny_models import (
    END,
    MASK,
    PAD,
    VOCAB,
    awaken,
    texts,
    tiny_config,
    tiny_model,
    unit_vectors,
    with_surrogate,
)

ROOT = Path(__file__).parents[2]
L = 12
STRATEGIES = [name for name in SETTINGS["strategy"].choices if name != "autoregressive"]  # of masked models


class Oracle(EmbInvForMaskedDiffusion):
    """Knows the text of each one-hot embedding; surer of some positions than of others, never of a wrong token.

    It records the rows, positions and masked shares that it was asked about.
    """

    def tell(self, texts: torch.Tensor):
        self.texts, self.asked = texts, []
        generator = torch.Generator().manual_seed(5)
        self.sharpness = 30 + 20 * torch.rand(texts.shape, generator=generator)
        return self

    def condition(self, embedding, *_, **__):
        return Condition(embedding, None)  # the vectors themselves, to know the rows by

    def forward(self, noised_ids, _, timestep, positions=None, condition=None):
        rows = condition.modulation.argmax(dim=1)
        known = self.texts[rows][:, : noised_ids.shape[1]]
        visible = noised_ids != MASK
        assert (noised_ids[visible] == known[visible]).all(), "an oracle never wrote a wrong token"
        self.asked.append((rows.tolist(), positions.tolist(), timestep.tolist()))
        logits = torch.zeros(*noised_ids.shape, VOCAB)
        logits.scatter_(2, known[..., None], self.sharpness[rows][:, : noised_ids.shape[1], None])
        return EmbInvOutput(logits=logits.flatten(0, 1)[positions])


def oracle_texts(lengths=(1, 5, 11, 12, 7, 3)) -> torch.Tensor:
    texts = torch.full((len(lengths), L), END)
    generator = torch.Generator().manual_seed(2)
    for row, length in enumerate(lengths):
        texts[row, :length] = torch.randint(4, VOCAB, (length,), generator=generator)
    return texts


def oracle() -> tuple[Oracle, torch.Tensor, torch.Tensor]:
    texts = oracle_texts()
    model = Oracle(tiny_config()).eval().tell(texts)
    after_end = ((texts == END).cumsum(dim=1) - (texts == END).long()) > 0
    return model, torch.eye(16)[: len(texts)], texts.masked_fill(after_end, PAD)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 7, 8, 11, 12, 20])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_recovers_an_oracle_text(strategy, num_steps):
    """Peers leave [MASK] in the output when the steps do not divide the length; lost or moved tokens fail here too."""
    model, embeddings, expected = oracle()
    output = model.generate(
        embeddings, strategy=strategy, num_steps=num_steps, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(output.sequences, expected)
    budget = {"sequential": L, "two_stage": L + num_steps}.get(strategy, num_steps)
    assert output.num_forward_passes <= budget
    assert output.num_forward_passes == len(model.asked)
    assert (output.confidence[expected == PAD] == 0).all() and (output.confidence[expected != PAD] > 0.5).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("length", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("num_steps", [1, 3, 8, 30])
def test_budget_is_exact_and_every_position_filled(strategy, length, num_steps):
    """A weak model is unsure everywhere: no pair of length and steps may exceed its passes or leave a hole."""
    model = awaken(tiny_model())
    output = model.generate(
        unit_vectors(4), strategy=strategy, num_steps=num_steps, max_length=length,
        generator=torch.Generator().manual_seed(0), remask_ratio=0.3,
    )  # fmt: skip
    budget = {"sequential": length, "two_stage": length + num_steps}.get(strategy, num_steps)
    assert output.num_forward_passes <= budget
    assert output.sequences.shape == (4, length)
    assert not (output.sequences == MASK).any()
    filled = (output.sequences != PAD).cumprod(dim=1).bool()
    assert filled[:, 0].all() and (output.confidence[filled] > 0).all()


def test_finished_rows_cost_nothing_more():
    """Rows that are done must leave the batch: the one-token text needs fewer passes than the longest."""
    model, embeddings, _ = oracle()
    model.generate(embeddings, strategy="sequential")
    rows_per_pass = [len(rows) for rows, _, _ in model.asked]
    # a text of n tokens and its end takes n + 1 passes, the text that fills the canvas takes 12
    assert rows_per_pass == [sum(min(n + 1, L) > i for n in (1, 5, 11, 12, 7, 3)) for i in range(L)]
    assert all(len(positions) == len(rows) for rows, positions, _ in model.asked)  # one logit row a text


def test_short_texts_do_not_spend_steps_on_the_empty_canvas():
    """Ranking 9 end tokens against 3 words would leave all words to the last pass."""
    model, embeddings, _ = oracle()
    output = model.generate(embeddings[5:6], num_steps=4, return_history=True)
    masked_words = [int((draft[0, :3] == MASK).sum()) for draft in output.history]
    assert masked_words[0] >= 1 and masked_words[-2] <= 1


def test_a_known_end_shrinks_the_canvas():
    """Ends behind the first cost as much as words; a cut that looked at the batch would change a text with it."""
    model, vectors, seen = awaken(tiny_model(canvas_lengths=[4, 8, L])), unit_vectors(4), []
    model.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    draft = torch.full((4, L), MASK)
    for row, end in enumerate((3, 7, 5)):  # the fourth text has no end yet
        draft[row, end:] = END
    settings = dict(num_steps=2, guidance_scale=1.5, suppress_tokens=[END])
    output = model.generate(vectors, draft_ids=draft, **settings)
    assert seen[:3] == [(2, 4), (4, 8), (2, L)]  # guidance doubles the rows
    for row, length in enumerate((4, 8, 8, L)):
        alone = model.generate(vectors[row], draft_ids=draft[[row], :length], max_length=length, **settings)
        assert torch.equal(output.sequences[row, :length], alone.sequences[0])
        assert torch.allclose(output.confidence[row, :length], alone.confidence[0], atol=1e-5)
        assert (output.sequences[row, length:] == PAD).all()
    seen.clear()
    model.config.canvas_lengths = None  # a model that knows one canvas stays on it
    model.generate(vectors, draft_ids=draft, **settings)
    assert {length for _, length in seen} == {L}


def test_timestep_follows_the_masked_share():
    """Asking about t = 1 at every step, or about (n − i)/n under a log-linear schedule, is another noise level."""
    model, embeddings, _ = oracle()
    model.generate(embeddings[3:4], strategy="sequential")
    shares = torch.tensor([1 - i / L for i in range(L)])
    told = torch.tensor([timestep[0] for _, _, timestep in model.asked])
    assert torch.allclose(told, model.noise_schedule.timestep(shares), atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_and_batches_are_independent(strategy):
    """Noise drawn for a whole batch at once changes a text with its neighbours."""
    model = awaken(tiny_model())
    model.decoder.bias.data[END] = 0.4
    vectors = unit_vectors(7)
    settings = dict(strategy=strategy, num_steps=4, temperature=1.0)
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(3), **settings).sequences
    assert len({int(length) for length in (whole != PAD).sum(dim=1)}) > 1  # some rows are done before others
    generator = torch.Generator().manual_seed(3)
    parts = torch.cat([model.generate(part, generator=generator, **settings).sequences for part in vectors.split(3)])
    assert torch.equal(whole, parts)
    again = model.generate(vectors, generator=torch.Generator().manual_seed(4), **settings).sequences
    assert strategy in ("sequential", "confidence") or not torch.equal(whole, again)


@pytest.mark.parametrize("settings", [{}, {"strategy": "euler"}, {"temperature": 0.7, "guidance_scale": 1.5}])
def test_large_batches_write_in_parts(settings, monkeypatch):
    """64 vectors with 32 candidates each asked for 4 GB of logits at once, and four copies of them: out of memory."""
    model, vectors, seen = awaken(tiny_model()), unit_vectors(7), []
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    monkeypatch.setattr("modeling_embinv.sampler_embinv.MAX_LOGITS", 3 * L * VOCAB)
    monkeypatch.setattr("modeling_embinv.sampler_embinv.CHOICE_LOGITS", 5 * VOCAB)
    model.register_forward_hook(lambda module, args, output: seen.append(len(output.logits)))
    parts = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    assert torch.equal(parts.sequences, whole.sequences) and parts.num_forward_passes == whole.num_forward_passes
    branches = 2 if "guidance_scale" in settings else 1
    assert max(seen) == 3 * L * branches and len(seen) > whole.num_forward_passes


def test_sampling_follows_the_distribution():
    """Inverse-CDF sampling with a shifted index, or at the wrong temperature, has other frequencies."""
    model = tiny_model()
    logits = torch.full((VOCAB,), -9.0)
    logits[[10, 20]] = torch.tensor([1.0, 0.0])
    model.forward = lambda noised_ids, *_, positions, **__: EmbInvOutput(logits=logits.repeat(len(positions), 1))
    output = model.generate(
        unit_vectors(3000), strategy="euler", num_steps=1, max_length=1, temperature=2.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    expected = torch.softmax(torch.tensor([0.5, 0.0]), dim=0)[0]
    share = (output.sequences == 10).sum() / torch.isin(output.sequences, torch.tensor([10, 20])).sum()
    assert float(share) == pytest.approx(float(expected), abs=0.03)


def test_guidance_combines_the_branches():
    """Guidance with swapped branches, or a null branch that sees e, sharpens the wrong way."""
    model = awaken(tiny_model())
    vectors = unit_vectors(2)
    canvas = torch.full((2, L), MASK)
    with torch.no_grad():
        conditional = model(canvas, vectors, torch.ones(2)).logits.log_softmax(-1)
        null = model(canvas, vectors, torch.ones(2), condition_mask=torch.zeros(2).bool()).logits.log_softmax(-1)
    guided = null + 3 * (conditional - null)
    guided[..., MASK] = -torch.inf
    guided[:, 0, END] = -torch.inf
    output = model.generate(vectors, num_steps=1, guidance_scale=3.0)
    best = guided.argmax(dim=-1)
    filled = output.sequences != PAD
    assert torch.equal(output.sequences[filled], best[filled])
    assert output.num_forward_passes == 1
    blind = model.generate(unit_vectors(2, seed=9), guidance_scale=0.0).sequences
    assert torch.equal(blind, model.generate(vectors, guidance_scale=0.0).sequences)


def test_suppressed_tokens_are_never_written():
    """[MASK] in the output, or [PAD] in the middle of a text, cuts what a user reads."""
    model = awaken(tiny_model())
    for token in (MASK, 7, 8):
        model.decoder.bias.data[token] = 50.0
    output = model.generate(unit_vectors(3), suppress_tokens=[7])
    assert (output.sequences[:, 0] == 8).all() and not torch.isin(output.sequences, torch.tensor([MASK, 7])).any()


def test_no_text_is_empty():
    """No encoder was ever given an empty text, so none may come back."""
    model = tiny_model()
    model.decoder.bias.data[END] = 50.0
    for strategy in STRATEGIES:
        output = model.generate(unit_vectors(2), strategy=strategy)
        assert (output.sequences[:, 0] != END).all() and (output.sequences[:, 1] == END).all()


# one step each, by hand


def canvas(ids) -> Canvas:
    ids = torch.tensor(ids)
    return Canvas(ids, (ids != MASK) * 0.5, MASK, END)


def test_sequential_step_takes_the_leftmost():
    """Eq. 11 is left to right, whatever the confidence."""
    step = sequential_step(canvas([[9, MASK, MASK]]), torch.tensor([[5, 6, 7]]), torch.tensor([[0.1, 0.1, 0.9]]))
    assert step.ids.tolist() == [[9, 6, MASK]]


def test_confidence_step_takes_the_surest():
    """Eqs. 14–15: the top k, never a position that is already written."""
    before = canvas([[9, MASK, MASK, MASK, MASK]])
    step = confidence_step(before, torch.tensor([[5, 6, 7, 8, 10]]), torch.tensor([[0.99, 0.2, 0.9, 0.3, 0.8]]), 2)
    assert step.ids.tolist() == [[9, MASK, 7, MASK, 10]]
    assert step.confidence[0].tolist() == pytest.approx([0.5, 0, 0.9, 0, 0.8])


def test_confidence_step_writes_no_word_twice_at_once():
    """Positions that are filled in one pass do not know of each other: "she bought bought a car car in paris"."""
    before = canvas([[MASK, MASK, MASK, 5, MASK, MASK, MASK, MASK]])
    tokens = torch.tensor([[6, 6, 7, 5, 5, 7, 8, 6]])
    confidence = torch.tensor([[0.8, 0.9, 0.3, 0.0, 0.95, 0.2, 0.1, 0.7]])
    step = confidence_step(before, tokens, confidence, 2)
    # the right 6 is surer than the left one, the far 6 is another word; the 5 beside a committed 5 waits
    assert step.ids.tolist() == [[MASK, 6, 7, 5, MASK, MASK, 8, 6]]
    last = confidence_step(before, tokens, confidence, 1)
    assert last.ids.tolist() == tokens.tolist()


def test_confidence_step_takes_the_tail_for_free():
    """Positions behind the predicted end cost no budget, but doubtful ones wait."""
    tokens = torch.tensor([[5, 6, 7, END, END, END]])
    before = canvas([[MASK] * 6])
    step = confidence_step(before, tokens, torch.tensor([[0.9, 0.3, 0.4, 0.2, 0.7, 0.95]]), 4)
    assert step.ids.tolist() == [[5, MASK, MASK, MASK, MASK, END]]
    last = confidence_step(before, tokens, torch.tensor([[0.9, 0.3, 0.4, 0.2, 0.7, 0.95]]), 1)
    assert last.ids.tolist() == tokens.tolist()


def test_what_follows_an_end_is_the_end():
    """Text behind the end token would be paid for and never read."""
    step = canvas([[MASK, 9, 9, MASK]]).commit(
        torch.tensor([[END] * 4]), torch.full((1, 4), 0.7), torch.tensor([[True, False, False, False]])
    )
    assert step.ids.tolist() == [[END] * 4]
    reopened = step.remask(torch.tensor([[True, False, False, False]]))
    assert reopened.ids.tolist() == [[MASK] * 4]


def test_euler_step_probability():
    """Each masked position is committed with (α(s) − α(t)) / (1 − α(t)); the last step commits all."""
    before = Canvas.fully_masked(2000, 10, MASK, END)
    tokens, sure = torch.full((2000, 10), 5), torch.ones(2000, 10)
    draws = torch.rand(2000, 10, generator=torch.Generator().manual_seed(0))
    step = euler_step(before, tokens, sure, torch.full((2000,), 0.2), torch.full((2000,), 0.6), draws)
    assert float((~step.masked).float().mean()) == pytest.approx(0.5, abs=0.015)
    assert not euler_step(before, tokens, sure, torch.full((2000,), 0.6), torch.ones(2000), draws).masked.any()


@pytest.mark.parametrize("ratio, reopened", [(0.05, 1), (0.2, 1), (0.21, 2), (1.0, 5)])
def test_remask_step_reopens_the_least_sure(ratio, reopened):
    """Eq. 13: τ of 32 is 1.6 positions; rounding it to none would silently be plain euler."""
    before = Canvas(torch.tensor([[5, 6, 7, 8, END, END]]), torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7, 0.7]]), MASK, END)
    step = remask_step(before, ratio)
    order = [1, 3, 2, 4, 0]
    assert all(step.masked[0, place] for place in order[:reopened])
    assert not any(step.masked[0, place] for place in order[reopened:])
    assert bool(step.masked[0, 5]) == bool(step.masked[0, 4])  # the tail goes with the end token


def test_two_stage_starts_from_its_hypothesis():
    """A second stage from a fully masked canvas would throw the first one away."""
    model = awaken(tiny_model())
    hypothesis = model.generate(unit_vectors(2), strategy="sequential").sequences
    assert torch.equal(model.generate(unit_vectors(2), strategy="two_stage", restart_ratio=0.0).sequences, hypothesis)
    output = model.generate(
        unit_vectors(2), strategy="two_stage", restart_ratio=0.3, return_history=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    kept = (output.sequences == hypothesis).float().mean()
    assert 0.3 < float(kept) < 1.0


# settings and streams


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(strategy="greedy"), "strategy must be one of sequential, euler"),
        (dict(num_step=4), "unknown generation argument num_step"),
        (dict(num_steps=0), "num_steps must be a whole number from 1 to 1,000, got 0"),
        (dict(num_steps=2.5), "num_steps must be a whole number"),
        (dict(num_steps=True), "num_steps must be a whole number"),
        (dict(num_candidates=10**18), "num_candidates must be a whole number from 1 to 10,000"),
        (dict(max_length=13), "max_length 13 is more than this model's 12"),
        (dict(remask_ratio=1.5), "remask_ratio must be a number from 0 to 1, got 1.5"),
        (dict(remask_ratio="0.1"), "remask_ratio must be a number from 0 to 1, got '0.1'"),
        (dict(temperature=-1.0), "temperature must be a number from 0 to 100, or None"),
        (dict(overshoot="a"), "overshoot must be a number"),
        (dict(guidance_scale=float("nan")), "guidance_scale must be a number"),
        (dict(likelihood_weight=float("inf")), "likelihood_weight must be a number"),
        (dict(return_history=1), "return_history must be True or False, got 1"),
        (dict(strategy=["euler"]), "strategy must be one of"),
        (dict(suppress_tokens=[VOCAB]), "suppress_tokens must be ids below this model's vocabulary of 60, got 60"),
        (dict(suppress_tokens=[-1]), "suppress_tokens must be a list of token ids"),
        (dict(suppress_tokens=["the"]), "suppress_tokens must be a list of token ids"),
        (dict(suppress_tokens=7), "suppress_tokens must be a list of token ids"),
        (dict(suppress_tokens=list(range(1, VOCAB))), "suppress_tokens leaves fewer than two tokens"),
        (dict(generation_config={"num_steps": 3}), "generation_config must be an EmbInvGenerationConfig"),
        (dict(generation_config=EmbInvGenerationConfig), "generation_config must be an EmbInvGenerationConfig"),
        (dict(generator=7), "generator must be a torch.Generator"),
        (dict(streamer=print), "streamer must have the methods put and end"),
        (dict(num_beams=4), "num_beams .* num_corrections"),
        (dict(num_searches=3), "num_searches is of a search: give num_candidates above 1, or num_corrections"),
        (dict(num_proposals=9), "num_proposals is of a search"),
        (dict(num_checked=3), "num_checked is of a search"),
        (dict(num_redrafts=0), "num_redrafts is of a search"),
        (dict(stop_cosine=0.5), "stop_cosine is of a search"),
        (dict(num_hops=1, word_bonus=1.0), "word_bonus, num_hops are of a search"),
        (dict(search={}, num_checked=3), "num_checked is of a search"),
        (dict(num_searches=3, draft_ids=torch.full((1, 12), MASK)), "num_searches is of a search"),
        (dict(max_new_tokens=5), "max_new_tokens: use max_length"),
        (dict(do_sample=True), "do_sample: use temperature"),
        (dict(num_return_sequences=3), "num_return_sequences: .*repeat a vector"),
        (dict(input_ids=[[1, 2]]), "input_ids: give vectors as embeddings"),
        (dict(top_k=5), "top_k: use temperature"),
        (dict(seed=1), r"seed: use generator=torch.Generator\(\).manual_seed\(seed\)"),
    ],
)
def test_bad_settings_raise(settings, message):
    """A typing error must not run with defaults."""
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(unit_vectors(1), **settings)


def test_steps_that_do_nothing_are_said():
    """`num_steps=1` and `num_steps=32` gave the same text in 16 passes: the checkpoint writes from left to right."""
    model = tiny_model(causal_share=0.5, num_condition_tokens=2)
    model.generation_config.strategy = "autoregressive"
    with pytest.warns(UserWarning, match="num_steps does nothing here: .* strategy is autoregressive"):
        model.generate(unit_vectors(1), num_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.generate(unit_vectors(1), num_steps=3, strategy="confidence").num_forward_passes == 3
        model.generate(unit_vectors(1), strategy="autoregressive", num_steps=3)  # of a sweep over strategies
        model.generate(unit_vectors(1), num_candidates=3, num_drafts=0, num_steps=3)  # two are in the masked order


@pytest.mark.parametrize(
    "vectors, message",
    [
        (torch.ones(2, 15), r"shape \(batch, 16\), got \(2, 15\)"),
        (torch.ones(1, 2, 16), "must have shape"),
        (torch.tensor([[1.0] * 16, [float("nan")] * 16]), "embedding 1 holds NaN"),
        (torch.tensor([[float("inf")] * 16]), "embedding 0 holds NaN or infinity"),
        (torch.zeros(1, 16), "embedding 0 is all zeros"),
        (None, "embeddings are missing"),
        (torch.ones(1, 16).long(), "must be floating-point numbers, got torch.int64"),
        (np.ones((1, 16), dtype=np.uint8), "must be floating-point numbers, got uint8"),
        (torch.ones(1, 16, dtype=torch.complex64), "must be floating-point numbers, got torch.complex64"),
        (torch.ones(1, 16, device="meta"), "rows of numbers"),
        ([["a"] * 16], "must be floating-point numbers"),
        ([[1.0, 2.0], [1.0]], "rows of numbers, all of one length"),
        ([[None] * 16], "must be floating-point numbers"),
        ("a vector", "must be floating-point numbers"),
        ({"embedding": [1.0] * 16}, "got a table: give its column of vectors"),
        (object(), "must be floating-point numbers"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "rows of numbers, all of one length"),
    ],
)
def test_bad_vectors_raise(vectors, message):
    """NaN in gives fluent nonsense out; token ids or packed bits taken for vectors do as well."""
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(vectors)


def test_hidden_numbers_of_masked_arrays_are_not_read():
    """The mask of numpy's arrays was ignored: what somebody had hidden, or left out, was inverted like the rest."""
    model, vectors = tiny_model(), unit_vectors(2).numpy()
    whole = np.ma.masked_array(vectors)
    hidden = np.ma.masked_array(vectors, mask=[[False] * 16, [True] + [False] * 15])
    column = np.empty(2, dtype=object)
    column[:] = list(hidden)
    for masked in (hidden, list(hidden), column, hidden.astype(np.float16)):
        with pytest.raises(ValueError, match="embedding 1 holds NaN"):
            model.generate(masked)
    assert torch.equal(model.generate(whole).sequences, model.generate(vectors).sequences)
    with pytest.raises(ValueError, match="must be floating-point numbers, got int64"):
        model.generate(np.ma.masked_array(np.ones((1, 16), dtype=np.int64), mask=np.ones((1, 16))))
    ids = np.ma.masked_array(draft([5, 6]).numpy(), mask=[[True] + [False] * (L - 1)])
    with pytest.raises(ValueError, match="draft_ids must be whole numbers, none of them masked"):
        model.generate(vectors[:1], draft_ids=ids)


def test_vectors_of_unit_length_are_taken_without_a_word():
    """Catches a warning for vectors that are of length 1 but for the rounding of float16."""
    vectors = unit_vectors(7).half()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked = check_embeddings(vectors, 16)
    assert checked.dtype == torch.float32 and torch.allclose(checked.norm(dim=1), torch.ones(7), atol=1e-6)
    assert torch.allclose(checked, unit_vectors(7), atol=1e-3)


def test_the_warning_of_other_lengths_comes_once():
    """Catches raw vectors fed to a model that was trained on unit ones, and one warning for each of many batches."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for first in range(0, 300, 100):
            checked = check_embeddings(unit_vectors(7).double() * (first + 1) * 1e-25, 16, first)
    assert len(caught) == 1 and "not of length 1" in str(caught[0].message)
    assert torch.allclose(checked.norm(dim=1), torch.ones(7), atol=1e-6)


@pytest.mark.parametrize(
    "value, message",
    [
        (math.nan, "embedding 103 holds NaN or infinity"),
        (-math.inf, "embedding 103 holds NaN"),
        (0.0, "embedding 103 is all zeros"),
    ],
)
def test_a_bad_row_is_named_by_its_number_in_the_source(value, message):
    """Catches one bad row that turns a whole batch into NaN, or is named by its index in the batch."""
    vectors = unit_vectors(7)
    vectors[3] = value
    with pytest.raises(ValueError, match=message):
        check_embeddings(vectors, 16, first=100)


@pytest.mark.parametrize("scale", [1e-320, 1e-25, 1e30, 1e300])
def test_lengths_are_taken_in_double_precision(scale):
    """In float32 the squares of small entries are 0 and of large ones infinite: "all zeros", or a vector of zeros."""
    model, vectors = awaken(tiny_model()), unit_vectors(2).double()
    with pytest.warns(UserWarning, match="normalising"):
        found = check_embeddings(vectors * scale, 16)
    if scale > 1e-300:  # numbers below have few digits left
        assert torch.allclose(found, vectors.float(), atol=1e-6)
        assert torch.equal(model.generate(found).sequences, model.generate(vectors).sequences)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "settings",
    [
        dict(max_length=1),
        dict(max_length=1, num_candidates=2),
        dict(max_length=1, num_candidates=2, num_corrections=2, feedback="surrogate", num_proposals=4),
        dict(draft_ids=torch.full((2, L), 7)),
        dict(guidance_scale=2.0, max_length=1, num_candidates=3),
    ],
)
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_where_nothing_is_masked(settings, strategy, rows):
    """Half of a text of one token has no masked position, a full draft has none, no vector has no row: IndexError."""
    model = awaken(tiny_model(surrogate_rank=2))
    settings = {**settings, "strategy": strategy}
    if "draft_ids" in settings:
        settings["draft_ids"] = settings["draft_ids"][:rows]
    output = model.generate(unit_vectors(2)[:rows], **settings)
    assert output.sequences.shape == output.confidence.shape == (rows, settings.get("max_length", L))
    assert (output.sequences[:, 0] != END).all() and not (output.sequences == MASK).any()
    assert (output.cosine is not None) == ("feedback" in settings)


def draft(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([row + [MASK] * (L - len(row)) for row in rows])


@pytest.mark.parametrize(
    "draft_ids, message",
    [
        (draft([5], [6]), r"draft_ids must have shape \(1, 12\), got \(2, 12\)"),
        (draft([5]).float(), "draft_ids must be whole numbers, got torch.float32"),
        (draft([VOCAB]), "draft_ids must be ids below this model's vocabulary of 60, got 60"),
        (draft([-1]), "draft_ids must be ids below .* got -1"),
        (draft([END, 5]), "draft 0 begins with its end token"),
        ([["the"] * L], "draft_ids must be rows of token ids"),
        ("the [MASK]", "draft_ids must be rows of token ids"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "draft_ids must be rows of token ids"),
    ],
)
def test_bad_drafts_raise(draft_ids, message):
    """An id outside the vocabulary ended in an IndexError of the embedding; a float draft was compared with ids."""
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(unit_vectors(1), draft_ids=draft_ids)


def test_drafts_of_other_integers_and_lists():
    """Tokenizers give lists and int32; a draft must not depend on which."""
    model, ids = awaken(tiny_model()), draft([5, 6])
    expected = model.generate(unit_vectors(1), draft_ids=ids).sequences
    for same in (ids.int(), ids.tolist(), ids.numpy().astype(np.int16)):
        assert torch.equal(model.generate(unit_vectors(1), draft_ids=same).sequences, expected)


def test_tiny_temperatures_take_the_likeliest_token():
    """Logits divided by 1e-300 are infinite and their softmax NaN: the last token of the vocabulary everywhere."""
    model = awaken(tiny_model())
    cold = model.generate(unit_vectors(3), temperature=1e-300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cold.sequences, model.generate(unit_vectors(3), temperature=0).sequences)


def test_numbers_of_numpy_are_settings():
    """A sweep over np.arange must neither fail nor leave numbers that JSON cannot write."""
    config = EmbInvGenerationConfig(num_steps=np.int64(3), temperature=np.float32(0.5), suppress_tokens=np.arange(2))
    assert json.loads(json.dumps(config.settings())) == config.settings()
    assert type(config.num_steps) is int and type(config.temperature) is float and config.suppress_tokens == [0, 1]


def test_searches_that_cannot_be_held_are_refused():
    """Each count is within its bounds, their product is 10^9 texts: killed for memory after a while."""
    model = tiny_model(surrogate_rank=2)
    settings = dict(num_corrections=1, feedback="surrogate", num_beams=1000, num_proposals=10_000, num_hops=100)
    with pytest.raises(ValueError, match="num_hops must be at most 131,072 texts"):
        model.generate(unit_vectors(2), **settings)


def test_a_streamer_takes_one_vector():
    """The library's streamer fails in mid-run on two rows, or prints one of them."""
    streamer = types.SimpleNamespace(put=lambda ids: None, end=lambda: None)
    for rows in (0, 2):
        with pytest.raises(ValueError, match="streamer shows one text"):
            tiny_model().generate(unit_vectors(rows), streamer=streamer)


def test_examples_load_the_tokenizer_without_a_question():
    """AutoTokenizer reads config.json as well: a reader's fresh process asks whether to run custom code, and waits."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("modeling_embinv/*.py")]
    asking = 'AutoTokenizer.from_pretrained("embinv/'
    assert [page.name for page in pages if asking in page.read_text(encoding="utf-8")] == [] and len(pages) > 60


def test_repr_names_what_differs():
    """`{}` tells nothing, and 22 lines tell too much."""
    assert repr(EmbInvGenerationConfig()) == "EmbInvGenerationConfig()"
    config = EmbInvGenerationConfig(strategy="euler", num_steps=3, suppress_tokens=[1])
    assert repr(config) == "EmbInvGenerationConfig(strategy='euler', num_steps=3, suppress_tokens=[1])"
    assert eval(repr(config)).settings() == config.settings()


ODD = (
    None, True, -1, 0, 1, 2, 3, 10**18, -(10**18), 10**400, 0.0, 0.5, 1.5, -0.5, 1e-300, 1e300, float("nan"),
    float("inf"), "", "1", "euler", b"1", [], [0], [3, 7], [1.5], ["a"], (), {}, {"a": 1}, set(), object(), print,
    torch.tensor(3),
    torch.ones(2, 2), np.float64(0.5), np.int8(4), np.bool_(True), np.array([1, 2]), 1j, range(3), torch.float32,
    "surrogate",
)  # fmt: skip


def odd_arguments(random: random.Random) -> tuple:
    """Vectors and keyword arguments, most of them as they should be."""
    one = [unit_vectors(1), unit_vectors(2), unit_vectors(0), unit_vectors(1)[0], unit_vectors(2).half(), *ODD]
    vectors = random.choice(one) if random.random() < 0.3 else unit_vectors(random.randint(0, 2))
    fine = dict(
        num_candidates=2, num_corrections=1, num_proposals=3, feedback="surrogate", max_length=3, strategy="euler",
        num_steps=2, temperature=0.5, suppress_tokens=[7], guidance_scale=2.0, strange=1,
    )  # fmt: skip
    settings = {name: fine[name] for name in random.sample(list(fine)[:-1], random.randint(0, 4))}
    if "num_corrections" in settings:
        settings["feedback"] = "surrogate"
    others = (
        "draft_ids", "generator", "streamer", "feedback", "tokenizer", "generation_config", "search", "inputs",
        "top_p",
    )  # fmt: skip
    for name in random.sample((*EmbInvGenerationConfig.names(), *others), random.randint(0, 2)):
        settings[name] = random.choice(ODD)
    return vectors, settings


@pytest.mark.filterwarnings("ignore:embeddings are not")
def test_odd_arguments_get_one_line_or_an_output():
    """Of thousands of odd calls, some ended in a TypeError of a comparison, some in torch, some in no memory."""
    model, refusals, outputs = awaken(tiny_model(surrogate_rank=2)), [], 0
    for seed in range(600):
        vectors, settings = odd_arguments(random.Random(seed))
        try:
            output = model.generate(vectors, **settings)
        except ValueError as error:
            refusals.append((str(error), vectors, settings))
        else:
            assert not (output.sequences == MASK).any() and output.confidence.isfinite().all()
            outputs += 1
    assert min(len(refusals), outputs) > 100
    assert [refusal for refusal in refusals if not 0 < len(refusal[0]) < 1000 or "\n" in refusal[0]] == []


def test_other_lengths_are_normalised_with_a_warning():
    """An un-normalised vector is far from everything seen in training."""
    model = awaken(tiny_model())
    with pytest.warns(UserWarning, match="normalising"):
        scaled = model.generate(unit_vectors(2) * 7).sequences
    assert torch.equal(scaled, model.generate(unit_vectors(2)).sequences)


def test_takes_arrays_lists_one_vector_and_none():
    """People have numpy arrays, JSON lists, a single vector, or an empty result set."""
    model, vector = tiny_model(), unit_vectors(1)
    expected = model.generate(vector).sequences
    half = vector.bfloat16()
    column = np.empty(1, dtype=object)  # a column of a table
    column[0] = vector[0].tolist()
    same = (
        vector.numpy(),
        vector.tolist(),
        vector[0],
        [vector[0]],
        column,
        vector.to_sparse(),
        vector.numpy()[:, ::1],
    )
    assert all(torch.equal(model.generate(v).sequences, expected) for v in same)
    assert torch.equal(model.generate(half).sequences, model.generate(half.float()).sequences)
    assert model.generate([]).sequences.shape == (0, L)
    for strategy in STRATEGIES:
        assert model.generate(torch.empty(0, 16), strategy=strategy).sequences.shape == (0, L)


def test_settings_come_from_the_config_and_calls_do_not_change_it():
    """A call's override must not stick to the model."""
    model = tiny_model()
    model.generation_config = EmbInvGenerationConfig(strategy="sequential")
    with pytest.warns(UserWarning, match="strategy is sequential, with one pass for each token"):
        assert model.generate(unit_vectors(1), num_steps=2).num_forward_passes > 2
    assert model.generate(unit_vectors(1), strategy="confidence", num_steps=2).num_forward_passes == 2
    assert model.generation_config.strategy == "sequential" and model.generation_config.max_length is None


def test_only_changed_settings_are_saved(tmp_path):
    """A checkpoint that wrote down all defaults of its day searched as narrowly for ever."""
    model, fitted = tiny_model(), {"open_loop": {"bias": -1.5}}
    model.generation_config = EmbInvGenerationConfig(calibration=fitted, num_proposals=3, suppress_tokens=[1, 2])
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert saved.pop("transformers_version")
    assert saved == {"calibration": fitted, "num_proposals": 3, "suppress_tokens": [1, 2]}
    loaded = EmbInvGenerationConfig.from_pretrained(tmp_path)
    assert loaded.settings() == model.generation_config.settings()


def test_history_shows_each_pass():
    """History that aliases the live canvas would show the last state everywhere."""
    model = awaken(tiny_model())
    output = model.generate(unit_vectors(2), num_steps=4, return_history=True)
    masked = [int((draft == MASK).sum()) for draft in output.history]
    assert len(masked) == output.num_forward_passes == len(output.history_confidence)
    assert masked == sorted(masked, reverse=True) and masked[0] > masked[-1] == 0
    assert model.generate(unit_vectors(2)).history is None


def test_streams_into_the_library_streamer(encoder, capsys):
    """TextDiffusionStreamer takes drafts through put_draft and the text through put and end."""
    model = Oracle(tiny_config(vocab_size=30522, mask_token_id=103, eos_token_id=102, backbone_config=dict(
        model_type="bert", vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16))).eval()  # fmt: skip
    tokenizer = encoder.tokenizer
    ids = tokenizer("the dog sleeps", add_special_tokens=False)["input_ids"]
    text = torch.tensor([ids + [102] * (L - len(ids))])

    def forward(noised_ids, embedding, timestep, positions, **_):
        logits = torch.nn.functional.one_hot(text, 30522).float() * 40
        return EmbInvOutput(logits=logits.flatten(0, 1)[positions])

    model.forward = forward
    streamer = TextDiffusionStreamer(tokenizer, skip_special_tokens=True)
    model.generate(unit_vectors(1), streamer=streamer)
    assert "the dog sleeps" in capsys.readouterr().out


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def other_default(request):
    """Another precision of new tensors than float32, which a test may set."""
    yield lambda: torch.set_default_dtype(request.param)
    torch.set_default_dtype(torch.float32)


def test_the_default_precision_is_the_callers_own(other_default):
    """A caller's torch.set_default_dtype made canvases and noise of another precision than the logits, and failed."""
    orders = dict(num_condition_tokens=2, causal_share=0.5, correction_share=0.25)
    model, ids, draft = with_surrogate(**orders), texts(2), [[5, MASK, 7]] * 2
    search = dict(num_corrections=2, num_proposals=8, num_moves=2, num_redrafts=2, num_rewrites=2)
    settings = [dict(strategy=name, temperature=1.0) for name in SETTINGS["strategy"].choices]
    settings += [dict(strategy="autoregressive", num_draft_beams=2), dict(num_candidates=4)]
    settings += [dict(num_candidates=4, feedback="surrogate", **search)]

    def found() -> list:
        seeds = [torch.Generator().manual_seed(3) for _ in settings]
        written = [model.generate(vectors, generator=seed, **one) for seed, one in zip(seeds, settings, strict=True)]
        filled = model.fill(vectors, draft)
        return [
            *(tensor for output in written for tensor in (output.sequences, output.confidence)),
            model.correct(vectors, ids, vectors),
            model.log_likelihood(ids, vectors),
            torch.tensor([text.gaps[0].ids for text in filled.texts]),
        ]

    vectors = unit_vectors(2)
    expected = found()
    other_default()
    for one, other in zip(found(), expected, strict=True):
        assert one.dtype == other.dtype and torch.allclose(one, other, atol=1e-5)
