"""Edits of the search, and that it keeps what it found."""

import types
from unittest.mock import patch

import pytest
import torch

from modeling_embinv import generation_embinv, likelihood_embinv, search_embinv
from modeling_embinv.diffusion_embinv import after_first
from modeling_embinv.edits_embinv import NUM_DRAWS, random_edits
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.generation_config_embinv import EmbInvGenerationConfig
from modeling_embinv.generation_embinv import Denoiser
from modeling_embinv.judge_embinv import Judge
from modeling_embinv.likelihood_embinv import token_log_likelihood
from modeling_embinv.sampler_embinv import Sampler
from modeling_embinv.search_embinv import ClosedLoop, Targets, repeated
from modeling_embinv.settings_embinv import SETTINGS, SearchSettings
from tests.tiny_models import (
    END,
    MASK,
    PAD,
    VOCAB,
    awaken,
    bag_of_tokens,
    texts,
    tiny_model,
    unit_vectors,
    with_surrogate,
)

OPEN = torch.full((2, 12), MASK)
STRATEGIES = list(SETTINGS["strategy"].choices)


def test_edits_leave_a_text():
    """An end token in the middle, or a text that is nothing but its end, would be cut to nothing."""
    ids = texts(2000)
    edited, barred = edit(ids, torch.zeros(ids.shape), seed=1)
    before, after = (ids != END).sum(dim=1), (edited != END).sum(dim=1)
    assert (edited[:, 1:][edited[:, :-1] == END] == END).all()  # behind an end stands the end
    assert (after >= 1).all() and ((after - before).abs() <= 1).all()
    assert {-1, 0, 1} <= set((after - before).tolist())
    moved = (edited != ids).any(dim=1) & (edited != MASK).all(dim=1) & (after == before)
    assert moved.sum() > 100  # swaps keep every token
    assert torch.equal(edited[moved].sort(dim=1).values, ids[moved].sort(dim=1).values)
    # every masked text must change: one of its words is barred, and it is the one that stood there
    masked = (edited == MASK).any(dim=1)
    assert ((barred >= 0).sum(dim=1) == masked).all() and (edited[barred >= 0] == MASK).all()
    assert torch.equal(barred[barred >= 0], ids[barred >= 0])


def test_a_word_reaches_the_other_end_in_one_edit():
    """Past four neighbours at most: a phrase at the wrong end of a text is many edits away, each a worse text."""
    ids = torch.arange(4, 16).repeat(20_000, 1)
    edited, _ = edit(ids, torch.zeros(ids.shape), seed=0)
    found = set(map(tuple, edited.tolist()))
    assert {(*range(5, 16), 4), (15, *range(4, 15)), (*range(8, 16), 4, 5, 6, 7)} <= found


def test_barred_tokens_are_never_written():
    """An edit that writes what stood there costs an encoder call and tries nothing."""
    model, vectors = awaken(tiny_model()), unit_vectors(4)
    open_ids = torch.full((4, 12), MASK)
    plain = Sampler(model, vectors, EmbInvGenerationConfig(max_length=12), None, None, open_ids).run().ids
    barred = torch.where(torch.arange(12) % 2 == 0, plain, -1)
    again = Sampler(model, vectors, EmbInvGenerationConfig(max_length=12), None, None, open_ids, barred).run()
    assert (again.ids[:, ::2] != plain[:, ::2]).all()


def test_known_tokens_of_a_draft_stay():
    """Who knows a word of the text must get it back in its place."""
    model, vectors = awaken(tiny_model()), unit_vectors(3)
    draft = torch.full((3, 12), MASK)
    draft[:, 1] = torch.tensor([7, 8, 9])
    output = model.generate(vectors, draft_ids=draft, num_steps=4)
    kept = output.sequences[:, 1]
    assert kept.tolist() == [7, 8, 9]
    assert (output.sequences != MASK).all()
    with pytest.raises(ValueError, match="draft_ids must have shape"):
        model.generate(vectors, draft_ids=draft[:, :5])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("open_places", [(3,), (0, 2, 5)])
def test_all_that_is_known_stays_whatever_the_strategy(strategy, open_places):
    """Strategies that mask doubtful tokens again masked the given ones, and wrote others in their place."""
    model = awaken(tiny_model(num_condition_tokens=2, causal_share=0.5))
    draft = torch.randint(4, VOCAB, (6, 12), generator=torch.Generator().manual_seed(0))
    draft[:, 8:] = END
    draft[:, list(open_places)] = MASK
    output = model.generate(unit_vectors(6), draft_ids=draft, strategy=strategy, num_steps=4)
    known = (draft != MASK) & (draft != END)
    assert torch.equal(output.sequences[known], draft[known]) and (output.confidence[known] == 1).all()
    assert ((output.sequences == END).sum(dim=1) == 1).all() and (output.sequences[:, 8] == END).all()


def test_what_stands_behind_the_end_of_a_draft_is_no_word():
    """Texts that `generate` had returned, padding behind their end, came back different as drafts of its own."""
    model, vectors = awaken(tiny_model()), unit_vectors(2)
    draft = torch.randint(4, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
    draft[:, 6:], draft[:, 1] = END, MASK
    for behind in (PAD, MASK, 9):
        other = draft.clone()
        other[:, 7:] = behind
        for more in ({}, {"num_candidates": 4, "feedback": bag_of_tokens([])}):
            expected, found = (model.generate(vectors, draft_ids=ids, **more) for ids in (draft, other))
            assert torch.equal(expected.sequences, found.sequences)
            assert torch.equal(expected.confidence, found.confidence)


@pytest.mark.parametrize("strategy", ["confidence", "sequential", "euler", "two_stage", "autoregressive"])
def test_no_end_is_written_before_a_known_token(strategy):
    """A text that ends before a word that was given loses that word."""
    model = awaken(tiny_model(num_condition_tokens=2, causal_share=0.5))
    model.decoder.bias.data[END] = 50.0  # would end at once
    draft = torch.full((3, 12), MASK)
    draft[:, 4] = torch.tensor([7, 8, 9])
    written = model.generate(unit_vectors(3), draft_ids=draft, num_steps=4, strategy=strategy).sequences
    assert written[:, 4].tolist() == [7, 8, 9] and (written[:, :4] != END).all()
    assert (written[:, 5] == END).all()  # and it does end where it may


def test_doubtful_words_are_edited_first():
    """Edits that ignore what the model doubts would spend encoder calls on words that are right."""
    ids = texts(4000)
    ids = ids[(ids != END).sum(dim=1) > 6]
    log_p = torch.full(ids.shape, -0.1)
    log_p[:, 2] = -8.0
    edited, _ = edit(ids, log_p, seed=1)
    masked = edited == MASK
    assert masked[:, 2].sum() > 3 * masked[:, 4].sum()


def test_likelihood_is_of_half_masked_texts():
    """A token that sees itself is always likely; what stands behind the end counts for nothing."""
    model, vectors, ids = awaken(tiny_model()), unit_vectors(6), texts(6)
    log_p = token_log_likelihood(model, ids, vectors)
    behind = (ids == END).long().cumsum(dim=1) > 1
    assert (log_p[behind] == 0).all() and (log_p[~behind] < 0).all()
    other = ids.clone()
    other[:, 0] = torch.where(ids[:, 0] == 5, 6, 5)
    changed = token_log_likelihood(model, other, vectors)
    alone = ~behind[:, 2]  # a token of its own parity does not see the one that changed
    assert torch.allclose(changed[alone, 2], log_p[alone, 2], atol=1e-5)


def test_likelihood_on_the_shortest_canvas():
    """The timestep tells the share that is masked of the canvas that is read, not of the one that was cut."""
    model, vectors, ids = awaken(tiny_model(canvas_lengths=[6, 12])), unit_vectors(8), texts(8)
    log_p = token_log_likelihood(model, ids, vectors)
    short = (ids != END).sum(dim=1) < 6
    assert 0 < short.sum() < 8
    model.config.canvas_lengths = None
    assert torch.allclose(log_p[~short], token_log_likelihood(model, ids[~short], vectors[~short]), atol=1e-5)
    narrow = token_log_likelihood(model, ids[short, :6], vectors[short])
    assert torch.allclose(log_p[short, :6], narrow, atol=1e-5) and (log_p[short, 6:] == 0).all()
    assert not torch.allclose(narrow, token_log_likelihood(model, ids, vectors)[short, :6], atol=1e-3)


def seeded(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def edit(ids: torch.Tensor, log_p: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.rand(len(ids), NUM_DRAWS + ids.shape[1], generator=torch.Generator().manual_seed(seed))
    return random_edits(ids, log_p, MASK, END, draws)


def closed_loop(model, judge, write=None, scout=None, **settings) -> ClosedLoop:
    """A search whose texts, where `write` is given, come from the test."""
    denoiser = Denoiser(model, EmbInvGenerationConfig())
    if write is not None:
        denoiser.write = write
    return ClosedLoop(denoiser, SearchSettings(**{"num_hops": 1, **settings}), judge, scout)


def test_rounds_never_lose_and_calls_are_counted():
    """A beam that forgets its best text, or a cost report that leaves encoder calls out."""
    model, vectors, calls = awaken(tiny_model()), unit_vectors(4), []
    found = []
    for rounds in (0, 3, 12):
        calls.clear()
        output = model.generate(
            vectors, feedback=bag_of_tokens(calls), num_candidates=4, num_corrections=rounds, num_beams=2,
            num_proposals=4, likelihood_weight=0.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert sum(calls) == output.num_feedback_calls <= 4 * (4 + rounds * 8)
        found.append(output.cosine)
        kept = output.sequences.masked_fill(after_first(output.sequences == END), END)
        own = torch.nn.functional.cosine_similarity(bag_of_tokens([])(kept), vectors)
        assert torch.allclose(own, output.cosine, atol=1e-5)  # the cosine is of the text that is returned
    assert (found[1] >= found[0] - 1e-6).all() and (found[2] >= found[1] - 1e-6).all()
    assert found[2].mean() > found[0].mean() + 0.05


@pytest.mark.parametrize("strategy", ["confidence", "euler"])
def test_a_search_does_not_depend_on_its_batch(strategy):
    """Noise drawn for a whole batch gives a vector other texts beside others, and equal vectors the same ones."""
    model, vectors = awaken(tiny_model(surrogate_rank=2)), unit_vectors(3)[[0, 1, 2, 0]]
    settings = dict(
        feedback=bag_of_tokens([]), num_candidates=2, num_corrections=2, num_beams=2, num_proposals=4,
        num_checked=2, num_searches=2, strategy=strategy,
    )  # fmt: skip

    def found(size: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        parts = [model.generate(part, generator=generator, **settings) for part in vectors.split(size)]
        return torch.cat([part.sequences for part in parts])

    whole = found(4, seed=0)
    assert torch.equal(whole, found(3, seed=0)) and torch.equal(whole, found(1, seed=0))
    assert not torch.equal(whole, found(4, seed=1)) and not torch.equal(whole[0], whole[3])


def test_many_candidates_are_written_in_parts(monkeypatch):
    """10,000 candidates of 64 vectors at once need 25 GB for what the vectors tell the network."""
    model, vectors = awaken(tiny_model()), unit_vectors(3)
    settings = dict(feedback=bag_of_tokens([]), num_candidates=5, num_corrections=2, num_proposals=4)
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    seen = []
    model.trunk.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    monkeypatch.setattr(likelihood_embinv, "ROWS", 4)
    monkeypatch.setattr(generation_embinv, "ROWS", 4)
    parts = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    assert torch.equal(parts.sequences, whole.sequences) and max(seen) == 4
    assert parts.num_forward_passes >= whole.num_forward_passes
    monkeypatch.setattr(search_embinv, "TEXTS", 1)  # a search for each vector
    alone = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    assert torch.equal(alone.sequences, whole.sequences) and torch.allclose(alone.cosine, whole.cosine)
    assert alone.num_feedback_calls == whole.num_feedback_calls


@pytest.mark.parametrize("candidates", [1, 2, 3])
def test_fewer_candidates_than_beams(candidates):
    """`num_corrections` alone, with the one candidate of the default, must search as wide as with many."""
    model, vectors = awaken(tiny_model()), unit_vectors(2)
    output = model.generate(
        vectors, feedback=bag_of_tokens([]), num_candidates=candidates, num_corrections=2, num_beams=4, num_proposals=2
    )
    assert 2 * candidates < output.num_feedback_calls <= 2 * (candidates + 2 * 8) and (output.cosine > -1).all()


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_equal_drafts_share_a_row_of_the_pass(scale):
    """Edits of a search often mask the same words: each of them went through the whole network alone."""
    model, vectors = awaken(tiny_model()), unit_vectors(2).repeat_interleave(3, dim=0)
    drafts = texts(6)
    drafts[:, 1] = MASK
    drafts[1], drafts[4] = drafts[0], drafts[0]  # the second vector's draft of the same words is another row
    config = model.generation_config.with_changes(
        strategy="confidence", num_steps=1, guidance_scale=scale, max_length=12, temperature=1.0
    )
    with patch.object(model, "forward", wraps=model.forward) as passes:
        together = Sampler(model, vectors, config, seeded(6), draft_ids=drafts).run()
    rows = [len(call.args[0]) for call in passes.call_args_list]
    assert rows == [5 * (1 if scale == 1.0 else 2)]
    for row in range(6):
        one = slice(row, row + 1)
        alone = Sampler(model, vectors[one], config, seeded(6)[one], draft_ids=drafts[one]).run()
        assert torch.equal(alone.ids, together.ids[one])
        assert torch.allclose(alone.confidence, together.confidence[one], atol=1e-5)
    assert not torch.equal(together.ids[0], together.ids[1])  # each has its own noise


def test_vectors_that_no_text_has_reached_are_searched_again():
    """A vector that is done pays for the others; a later search that finds less takes the place of an earlier one."""
    encode, truth = bag_of_tokens([]), texts(3)
    vectors, started, random = encode(truth), [], torch.Generator().manual_seed(0)

    def write(targets, changes, drafts=None, barred=None):
        rows = targets.vectors
        if drafts is not None:
            return torch.where(drafts == MASK, torch.randint(4, VOCAB, drafts.shape, generator=random), drafts)
        if changes["temperature"] == 0:
            started.append(rows)
        reached = (rows == vectors[0]).all(dim=1)
        return torch.where(reached[:, None], truth[0], texts(20)[-len(rows) :])

    found = []
    for searches in (1, 4):
        random.manual_seed(0), started.clear()
        model, edits = awaken(tiny_model()), torch.Generator().manual_seed(0)
        judge = Judge(encode, 0.0, stop_cosine=0.999)
        counts = dict(num_candidates=3, num_corrections=2, num_beams=2, num_proposals=6, num_searches=searches)
        found.append(closed_loop(model, judge, write, **counts).run(Targets(vectors, [edits] * 3)))
    assert [len(rows) for rows in started] == [3, 2, 2, 2] and torch.equal(started[1], vectors[1:])
    assert torch.equal(found[1].ids[0, 0], truth[0])
    gained = found[1].cosine - found[0].cosine
    assert (gained >= -1e-6).all() and (gained[1:] > 1e-3).any()
    assert torch.allclose(encode(found[1].ids[:, 0]) @ vectors.T, found[1].vectors[:, 0] @ vectors.T, atol=1e-5)


@pytest.mark.parametrize("has_judge", [True, False])
def test_a_first_text_that_is_found_gets_no_samples(has_judge):
    """Of short texts the first is right in a quarter of cases: samples beside it took half of their search's time.

    Samples left out for a vector that was not reached, or handed to another one, would be texts lost.
    """
    encode, truth, sampled = bag_of_tokens([]), texts(3), []
    vectors, others = encode(truth), texts(12)[4:]

    def write(targets, changes):
        rows = targets.vectors
        if changes["temperature"] == 0:
            return torch.where((rows == vectors[1]).all(dim=1)[:, None], truth[1], others[: len(rows)])
        sampled.append(rows)
        return (rows @ vectors.T).argmax(dim=1)[:, None].expand(-1, 12)

    judge = Judge(encode, 0.0, stop_cosine=0.999) if has_judge else None
    loop = closed_loop(awaken(tiny_model()), judge, write, num_candidates=4)
    found = loop.candidates(Targets(vectors, seeded(3)), judge)
    rows = [0, 2] if has_judge else [0, 1, 2]
    assert torch.equal(torch.cat(sampled), vectors[rows].repeat_interleave(3, dim=0))
    assert torch.equal(found[rows, 1:], torch.tensor(rows)[:, None, None].expand(-1, 3, 12))
    assert torch.equal(found[:, 0], torch.stack([others[0], truth[1], others[2]]))
    assert not has_judge or torch.equal(found[1], truth[1].expand(4, -1))


def test_edits_are_filled_in_for_what_is_missing():
    """For e itself, an edit repeats what its text says already; the hypothesis' own vector must be of its own row."""
    model, vectors, aims = awaken(tiny_model()), unit_vectors(3), []

    def write(targets, changes, drafts, barred):
        aims.append(targets.vectors)
        return drafts.masked_fill(drafts == MASK, 5)

    judge = Judge(bag_of_tokens([]), 0.03)
    loop = closed_loop(model, judge, write, num_beams=2, num_proposals=4, overshoot=1.5)
    state = loop.weigh(judge, texts(12).view(3, 4, -1), vectors).best(2)
    active = torch.tensor([0, 2])
    loop.propose(state.rows(active), Targets(vectors, seeded(3)).rows(active))
    rows = aims[0].view(2, 2, 4, -1)
    for place, vector in enumerate(active):
        for beam in range(2):
            wanted = torch.nn.functional.normalize(2.5 * vectors[vector] - 1.5 * state.vectors[vector, beam], dim=0)
            assert torch.allclose(rows[place, beam], wanted.expand(4, -1), atol=1e-5)


def test_edits_of_the_surrogate_are_chained():
    """A search without the encoder stayed at a text that no single edit improves: each round began at its best.

    The texts of a chain that end nearer must be kept, and those that it passed through must not.
    """
    model, (target,) = awaken(tiny_model()), torch.eye(1, 16)
    # what the judge says of a text whose first token is this: the way from 4 to 7 leads through worse ones
    cosines = {4: 0.8, 5: 0.1, 6: 0.2, 7: 0.9}

    def embed(ids):
        cosine = torch.tensor([cosines[int(row[0])] for row in ids])
        return torch.stack([cosine, (1 - cosine**2).sqrt()], dim=1) @ torch.eye(2, 16)

    class OneStepOn(ClosedLoop):
        def propose(self, state, targets, has_redrafts):
            drafted.append(has_redrafts)
            assert (state.log_p <= 0).all() and (state.log_p.sum(dim=-1) < 0).all(), "edits go by likelihood"
            ids = state.ids.clone()
            ids[..., 0] = (ids[..., 0] + 1).clamp_max(7)
            return ids

    start = torch.tensor([[4, 5, 6] + [END] * 9])[None]
    for hops, best in ((2, 4), (3, 7), (4, 7)):
        drafted = []
        judge = Judge(embed, 0.0, "surrogate", stop_cosine=0.99)
        settings = SearchSettings(num_corrections=1, num_beams=1, num_proposals=1, num_redrafts=0, num_hops=hops)
        loop = OneStepOn(Denoiser(model, EmbInvGenerationConfig()), settings, judge)
        targets = Targets(target[None], seeded(1))
        found = loop.rounds(targets, loop.beam(targets, start, judge), judge, 1)
        assert found.ids[0, 0, 0] == best and found.cosine[0, 0] == pytest.approx(cosines[best], abs=1e-6)
        assert drafted == [True] + [False] * (hops - 1)


def test_a_chain_of_redrafts_alone():
    """Settings that are allowed, all proposals written anew, ended with a traceback in the second hop."""
    model, vectors = awaken(tiny_model(surrogate_rank=2, causal_share=0.5, num_condition_tokens=2)), unit_vectors(2)
    settings = dict(num_corrections=1, num_beams=1, num_proposals=3, num_redrafts=3, num_hops=2, stop_cosine=1.0)
    output = model.generate(vectors, feedback="surrogate", **settings)
    assert output.num_surrogate_calls > 2 * (1 + 1)


def test_who_chains_edits_by_default():
    """A search by the surrogate took three times as long as before, or one with the encoder lost its hops."""
    usual, chosen = SearchSettings(), SearchSettings(num_hops=2)
    assert (usual.hops_of("encoder"), usual.hops_of("surrogate")) == (3, 1)
    assert chosen.hops_of("encoder") == chosen.hops_of("surrogate") == 2


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_scout_picks_what_the_encoder_is_asked(hops):
    """Known or repeated texts cost calls for nothing; a scout's error about a parent must not count for its edits.

    Nor for their edits; and what the best of them bring must not be lost beside the first ones.
    """
    model, vectors, ids = awaken(tiny_model()), unit_vectors(2), texts(4).view(2, 2, -1)
    encode, written = bag_of_tokens([]), []

    def write(targets, changes, drafts, barred):
        written.append(torch.where(drafts == MASK, torch.arange(len(drafts))[:, None] % 9 + 4, drafts))
        return written[-1]

    off = 2 * unit_vectors(1, seed=9) - vectors.sum(dim=0)  # the scout errs by so much, of every text
    judge, scout = Judge(encode, 0.0), Judge(lambda ids: encode(ids) + off, 0.0)
    counts = dict(num_beams=2, num_proposals=20, num_checked=3, num_hops=hops, overshoot=0.0)
    loop = closed_loop(model, judge, write, scout, **counts)
    state = loop.weigh(judge, ids, vectors).best(2)
    picked = loop.chained(scout, state, Targets(vectors, seeded(2)), hops).best(2 * 3).ids
    assert picked.shape == (2, 2 * 3, 12) and 0 < scout.num_calls <= hops * 2 * (2 + 40) and judge.num_calls <= 4
    assert len(written) == hops
    written = torch.cat([edits.view(2, 40, -1) for edits in written], dim=1)
    for vector, known, edits, chosen in zip(vectors, state.ids, written, picked, strict=True):
        new = {tuple(row) for row in edits.tolist()} - {tuple(row) for row in known.tolist()}
        chosen = {tuple(row) for row in chosen.tolist()}
        nearest, found = (encode(torch.tensor(list(rows))) @ vector for rows in (new, chosen))
        assert len(chosen) == 6 and chosen <= new
        torch.testing.assert_close(found.sort(descending=True).values, nearest.topk(6).values)


def test_of_equal_texts_the_first_stays():
    """A best text taken for a copy of a later one leaves the beam; a table of all pairs of 10,000 texts is 100 MB."""
    ids = torch.randint(2, (50, 9, 2), generator=torch.Generator().manual_seed(0))
    for rows, found in zip(ids.tolist(), repeated(ids).tolist(), strict=True):
        assert found == [row in rows[:index] for index, row in enumerate(rows)]


def test_hopeless_texts_are_not_weighed():
    """Two passes for a text whose cosine alone is below the beam's; or a better text thrown away with them."""
    model, vectors, ids = awaken(tiny_model()), unit_vectors(2), texts(20).view(2, 10, -1)
    judge = Judge(bag_of_tokens([]), 0.03)
    loop = closed_loop(model, judge, num_beams=5)
    every = loop.weigh(judge, ids, vectors)
    floor = every.score.median(dim=1).values
    some = loop.weigh(judge, ids, vectors, floor)
    above = every.score > floor[:, None]
    assert torch.allclose(some.score[above], every.score[above]) and (some.score[~above] <= every.score[~above]).all()
    hopeless = every.cosine <= floor[:, None]
    assert hopeless.any() and (some.score[hopeless] == -torch.inf).all() and (some.log_p[hopeless] == 0).all()
    assert every.worst().tolist() == every.score.min(dim=1).values.tolist()
    every.ids[0, 3] = every.ids[0, 0]  # a place that a copy holds is free for any text
    assert every.worst()[0] == -torch.inf


@pytest.mark.parametrize("weight, weighed", [(0.0, 3), (0.03, 6)])
def test_only_what_can_reach_the_beam_is_weighed(weight, weighed):
    """Where cosine alone ranks, the likelihoods of texts behind the beam's are two passes for nothing."""
    model, vectors, ids = awaken(tiny_model()), unit_vectors(2), texts(20).view(2, 10, -1)
    judge = Judge(bag_of_tokens([]), weight)
    loop = closed_loop(model, judge, num_beams=3)
    found = loop.weigh(judge, ids, vectors)
    cosine = torch.nn.functional.cosine_similarity(judge.vectors(ids)[0], vectors[:, None], dim=-1)
    assert torch.allclose(found.cosine, cosine.topk(weighed, dim=1).values) and (found.log_p < 0).any(dim=2).all()


def test_more_candidates_without_feedback_are_likelier():
    """Ranking by nothing would return any of them."""
    model, vectors = awaken(tiny_model()), unit_vectors(8)
    scores = []
    for count in (1, 16):
        output = model.generate(vectors, num_candidates=count, generator=torch.Generator().manual_seed(0))
        ids = output.sequences.masked_fill(after_first(output.sequences == END), END)
        log_p = token_log_likelihood(model, ids, vectors)
        scores.append(log_p.sum(dim=1) / (log_p != 0).sum(dim=1))
        assert output.num_feedback_calls == 0 and output.cosine is None
    assert (scores[1] >= scores[0] - 1e-5).all() and scores[1].mean() > scores[0].mean()


def test_feedback_gets_texts_with_a_tokenizer(encoder):
    """Ids handed to an encoder of texts, or texts with their padding."""
    tokenizer = encoder.tokenizer
    trunk = dict(model_type="bert", vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                 intermediate_size=16)  # fmt: skip
    model = tiny_model(vocab_size=30522, mask_token_id=103, eos_token_id=102, embedding_dim=384, backbone_config=trunk)
    seen = []

    def encode(texts):
        seen.extend(texts)
        return encoder.encode(texts)

    vectors = unit_vectors(2, dim=384)
    output = model.generate(vectors, feedback=encode, tokenizer=tokenizer, num_candidates=3, num_corrections=1)
    assert len(seen) == output.num_feedback_calls and all(isinstance(text, str) for text in seen)
    assert not any("[SEP]" in text or "[PAD]" in text for text in seen)


def test_the_loop_refuses_what_it_cannot_do():
    """Corrections without feedback would return the first text and call it corrected."""
    model, vectors = tiny_model(), unit_vectors(1)
    with pytest.raises(ValueError, match="num_corrections needs feedback"):
        model.generate(vectors, num_corrections=2)
    with pytest.raises(ValueError, match="keep no history"):
        model.generate(vectors, num_candidates=2, return_history=True)
    for feedback, on_round in ((None, None), (bag_of_tokens([]), print)):
        with pytest.raises(ValueError, match="candidates for draft_ids need feedback and have no rounds"):
            model.generate(vectors, num_candidates=2, draft_ids=OPEN[:1], feedback=feedback, on_round=on_round)
    with pytest.raises(ValueError, match="text 0 is nothing but gaps; generate recovers it, without draft_ids"):
        model.generate(vectors, num_candidates=2, draft_ids=torch.full((1, 12), MASK), feedback=bag_of_tokens([]))
    for name, value in (("num_candidates", 0), ("num_corrections", -1), ("candidate_temperature", 0.0)):
        with pytest.raises(ValueError, match=name):
            model.generate(vectors, **{name: value})


def test_a_search_fills_a_draft():
    """What is known of a text was no part of a search: candidates were refused, and one pass had to do."""
    model, calls = awaken(tiny_model()), []
    text = torch.tensor([[7, 12, 30, 9, 21, 44, 8, 5, 6, END, END, END], [8, 9, 10, *[11] * 9]])
    draft = text.clone()
    draft[0, 2] = draft[0, 6] = draft[1, 0] = MASK
    vectors = bag_of_tokens([])(text)
    output = model.generate(vectors, draft_ids=draft, feedback=bag_of_tokens(calls), num_candidates=4)
    kept = output.sequences.masked_fill(after_first(output.sequences == END), END)
    known = draft != MASK
    assert torch.equal(kept[known], text[known]) and not (kept == MASK).any()
    assert torch.allclose(output.cosine, torch.nn.functional.cosine_similarity(bag_of_tokens([])(kept), vectors))
    assert output.cosine.min() > 0.999 and output.num_feedback_calls == sum(calls)
    assert (output.confidence[0, :10][known[0, :10]] == 1).all() and (output.confidence[~known] <= 1).all()
    assert output.confidence.shape == text.shape and (output.confidence[0, 10:] == 0).all()
    alone = model.fill(vectors[:1], [draft[0, :9].tolist()], feedback=bag_of_tokens([])).texts[0]
    assert kept[0, :9].tolist() == list(alone.ids)


def test_a_search_of_drafts_knows_the_calls_settings():
    """Tokens that must not be written were, and a row without a gap ended the whole batch."""
    model, vectors = awaken(tiny_model()), unit_vectors(2)
    draft = torch.tensor([[5, MASK, 7, *[END] * 9], [5, 6, 7, *[END] * 9]])
    settings = {"draft_ids": draft, "feedback": bag_of_tokens([]), "num_candidates": 4}
    output = model.generate(vectors, **settings)
    assert output.sequences[1, :4].tolist() == [5, 6, 7, END] and (output.confidence[1, :4] == 1).all()
    whole = bag_of_tokens([])(draft[1:])
    assert torch.allclose(output.cosine[1:], torch.nn.functional.cosine_similarity(whole, vectors[1:]))
    blank = draft.flip(0)
    blank[1, :3] = MASK
    with pytest.raises(ValueError, match="text 1 is nothing but gaps"):
        model.generate(vectors, **{**settings, "draft_ids": blank})
    word = int(output.sequences[0, 1])
    assert int(model.generate(vectors, suppress_tokens=[word], **settings).sequences[0, 1]) != word
    with pytest.warns(UserWarning, match="length") as warned:
        model.generate(2 * vectors, **settings)
    assert len(warned) == 1


@pytest.mark.parametrize(
    "settings", [dict(), dict(num_candidates=3), dict(num_corrections=1), dict(strategy="euler", draft_ids=OPEN)]
)
def test_feedback_gives_a_cosine_whatever_is_asked(settings):
    """Feedback without candidates was ignored, a typing error in it too: no cosine, and no word about it."""
    model, vectors, calls = awaken(tiny_model()), unit_vectors(2), []
    output = model.generate(vectors, feedback=bag_of_tokens(calls), **settings)
    kept = output.sequences.masked_fill(after_first(output.sequences == END), END)
    own = torch.nn.functional.cosine_similarity(bag_of_tokens([])(kept), vectors)
    assert torch.allclose(own, output.cosine, atol=1e-5) and sum(calls) == output.num_feedback_calls > 0
    assert output.num_surrogate_calls == 0
    assert model.generate(vectors[:0], feedback=bag_of_tokens([])).cosine.shape == (0,)


@pytest.mark.parametrize("search", [dict(), dict(num_candidates=2, num_corrections=1)])
@pytest.mark.parametrize(
    "feedback, message",
    [
        ("orcale", 'feedback must be "surrogate", a function .* or None, got .orcale'),
        (7, 'feedback must be "surrogate"'),
        (unit_vectors(2), 'feedback must be "surrogate"'),
        ("surrogate", "no surrogate encoder"),
        (types.SimpleNamespace(encode=print), "give its method encode as feedback"),
        (lambda ids: unit_vectors(len(ids), 5), r"feedback must give vectors of shape \(\d, 16\), got \(\d, 5\)"),
        (lambda ids: unit_vectors(len(ids) + 1), r"feedback must give vectors of shape"),
        (lambda ids: unit_vectors(1)[0], "feedback must give vectors of shape"),
        (lambda ids: unit_vectors(len(ids)) * float("nan"), "feedback gave NaN or infinite numbers"),
        (lambda ids: None, "vectors of feedback must be floating-point numbers"),
        (lambda ids: ["a"] * len(ids), "vectors of feedback must be floating-point numbers"),
        (lambda ids: torch.ones(len(ids), 16).long(), "vectors of feedback must be floating-point numbers"),
    ],
)
def test_bad_feedback_raises(feedback, message, search):
    """A cosine with a vector of NaN ranks by chance; of another width it ended deep inside torch."""
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(unit_vectors(2), feedback=feedback, **search)


def test_feedback_of_every_kind_and_length():
    """Vectors of length 3 were aimed at as if they were of length 1; numpy's and lists had no `to`."""
    model, vectors, table = awaken(tiny_model()), unit_vectors(3), unit_vectors(VOCAB, seed=5)
    settings = dict(num_candidates=3, num_corrections=3, num_proposals=4)

    def encode(ids):  # in its order, so that no two texts are equally near but for rounding
        weights = (ids != END) / torch.arange(1, 1 + ids.shape[1])
        return torch.nn.functional.normalize((table[ids] * weights[..., None]).sum(dim=1), dim=-1)

    def found(feedback):
        output = model.generate(vectors, feedback=feedback, generator=torch.Generator().manual_seed(0), **settings)
        return output.sequences, output.cosine

    expected, cosine = found(encode)
    for kind in (
        lambda ids: 3 * encode(ids), lambda ids: encode(ids).numpy(), lambda ids: encode(ids).tolist(),
        lambda ids: 1e-30 * encode(ids).double(), lambda ids: list(encode(ids)),
        lambda ids: encode(ids).clone().requires_grad_(),
    ):  # fmt: skip
        sequences, own = found(kind)
        assert torch.equal(sequences, expected) and torch.allclose(own, cosine, atol=1e-5)
    silent = model.generate(vectors, feedback=lambda ids: torch.zeros(len(ids), 16))
    assert (silent.cosine == 0).all()  # an encoder may have nothing to say of a text


@pytest.mark.parametrize("feedback", ["surrogate", bag_of_tokens([]), None])
def test_a_tokenizer_must_decode(feedback):
    """A tokenizer's name in place of the tokenizer failed after the candidates were written, or was not looked at."""
    model, message = with_surrogate(), "tokenizer must be this model's tokenizer, got 'bert"
    with pytest.raises(EmbInvError, match=message):
        model.generate(unit_vectors(1), feedback=feedback, tokenizer="bert")
    if feedback is not None:
        with pytest.raises(EmbInvError, match=message):
            model.fill(unit_vectors(1), [[5, MASK]], feedback=feedback, tokenizer="bert")


@pytest.mark.parametrize("search", [dict(), dict(num_candidates=2)])
def test_what_is_called_each_round_must_be_a_function(search):
    """It failed once the candidates were written; without a search nobody looked at it."""
    with pytest.raises(EmbInvError, match="on_round must be a function of a round, got 'print'"):
        tiny_model().generate(unit_vectors(1), on_round="print", **search)
