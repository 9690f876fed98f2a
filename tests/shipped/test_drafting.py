"""Beam search from left to right, and drafts as the first stage of two_stage."""

import itertools

import pytest
import torch

from modeling_embinv import generation_embinv
from modeling_embinv.diffusion_embinv import Canvas
from modeling_embinv.generation_config_embinv import EmbInvGenerationConfig
from modeling_embinv.generation_embinv import Denoiser
from modeling_embinv.sampler_embinv import Sampler
from tests.tiny_models import (
    END,
    MASK,
    PAD,
    awaken,
    bag_of_tokens,
    causal_model,
    texts,
    tiny_config,
    tiny_model,
    unit_vectors,
)

L = 12
BEAMS = dict(strategy="autoregressive", num_draft_beams=4)


def ending_model(family: str = "bert", **overrides):
    """A model whose texts end at various lengths."""
    model = causal_model(family, **overrides)
    model.decoder.bias.data[END] = 3.0
    return model


def small_vocabulary(size: int = 8, **overrides):
    """A model of so few tokens that all texts can be tried; its weights are large enough to make them differ."""
    backbone = dict(tiny_config().backbone_config.to_dict(), vocab_size=size)
    model = awaken(tiny_model(
        backbone_config=backbone, vocab_size=size, num_condition_tokens=2, causal_share=0.5, **overrides,
    ))  # fmt: skip
    model.get_input_embeddings().weight.data.mul_(20)
    model.decoder.bias.data[END] = 1.0
    return model


def with_ends(sequences: torch.Tensor) -> torch.Tensor:
    """(…, L) with end tokens in place of the padding."""
    return sequences.masked_fill(sequences == PAD, END)


def scores(model, ids: torch.Tensor, vectors: torch.Tensor, banned=(MASK,), scale: float = 1.0) -> torch.Tensor:
    """Mean log p of texts with ends (B, L), their end included, by one whole pass; `banned` are never written."""
    with torch.no_grad():
        logits = model(ids, vectors, None, causal=True).logits.log_softmax(-1)
        if scale != 1:
            null = torch.zeros(len(ids), dtype=torch.bool)
            blind = model(ids, vectors, None, condition_mask=null, causal=True).logits.log_softmax(-1)
            logits = blind + scale * (logits - blind)
    logits[..., list(banned)], logits[:, 0, END] = -torch.inf, -torch.inf
    text = ~(((ids == END).cumsum(dim=1) - (ids == END).long()) > 0)
    log_p = logits.log_softmax(-1).gather(2, ids[..., None]).squeeze(2)
    return log_p.masked_fill(~text, 0).sum(dim=1) / text.sum(dim=1)


def test_one_beam_is_greedy(family):
    """The default must cost and write what it did before."""
    model, vectors = ending_model(family), unit_vectors(9)
    greedy = model.generate(vectors, strategy="autoregressive")
    one = model.generate(vectors, strategy="autoregressive", num_draft_beams=1)
    assert torch.equal(greedy.sequences, one.sequences) and torch.equal(greedy.confidence, one.confidence)
    assert greedy.num_forward_passes == one.num_forward_passes


@pytest.mark.parametrize("scale", [1.0, 1.7])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_wide_beam_finds_what_trying_all_texts_finds(length, scale):
    """A score not divided, an end not counted, a finished text lost, the cache of another row, or too early a stop."""
    model, vectors = small_vocabulary(), unit_vectors(6)
    tokens = [token for token in range(8) if token not in (END, MASK)]
    texts = torch.tensor([
        [*text, *[END] * (length - len(text))]
        for size in range(1, length + 1) for text in itertools.product(tokens, repeat=size)
    ])  # fmt: skip
    output = model.generate(
        vectors, strategy="autoregressive", num_draft_beams=64, max_length=length, guidance_scale=scale
    )
    for row, e in enumerate(vectors):
        found = scores(model, texts, e.expand(len(texts), -1), scale=scale)
        best = int(found.argmax())
        assert found.topk(min(2, len(found))).values.diff().abs().max() > 1e-5
        # PAD, id 0, is a token of this small vocabulary
        ids = output.sequences[row] if END not in texts[best] else output.sequences[row].clone()
        ended = ((texts[best] == END).cumsum(0) - (texts[best] == END).long()) > 0
        assert torch.equal(ids.masked_fill(ended, END), texts[best])


def test_beams_are_no_worse_than_the_greedy_text(family):
    """Beams that are confused with each other score as they should not by a pass of their own."""
    model, vectors = ending_model(family), unit_vectors(12)

    def score_of(count: int) -> torch.Tensor:
        output = model.generate(vectors, strategy="autoregressive", num_draft_beams=count, suppress_tokens=[PAD])
        return scores(model, with_ends(output.sequences), vectors, (MASK, PAD))

    greedy, wide = score_of(1), score_of(60)
    assert (wide >= greedy - 1e-5).all() and (wide > greedy + 1e-3).any()


def test_confidence_is_the_probability_of_each_token(family):
    """Probabilities of a hypothesis that was dropped would stay under the tokens of another."""
    model, vectors = ending_model(family), unit_vectors(5)
    output = model.generate(vectors, **BEAMS, suppress_tokens=[PAD, 7])
    ids = with_ends(output.sequences)
    assert not torch.isin(output.sequences[output.confidence > 0], torch.tensor([MASK, PAD, 7])).any()
    with torch.no_grad():
        logits = model(ids, vectors, None, causal=True).logits
    logits[..., [MASK, PAD, 7]], logits[:, 0, END] = -torch.inf, -torch.inf
    expected = logits.softmax(-1).gather(2, ids[..., None]).squeeze(2)
    filled = output.confidence > 0
    assert torch.equal(filled, output.sequences != PAD)
    assert torch.allclose(output.confidence[filled], expected[filled], atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_no_row_depends_on_the_others(family, scale, monkeypatch):
    """A row that leaves takes its part of the cache along; one more or less moves every other text."""
    from modeling_embinv import drafting_embinv

    model, vectors = ending_model(family), unit_vectors(9)
    whole = model.generate(vectors, **BEAMS, guidance_scale=scale)
    assert len(set((whole.sequences != PAD).sum(dim=1).tolist())) > 1
    for row, vector in enumerate(vectors):
        alone = model.generate(vector, **BEAMS, guidance_scale=scale)
        assert torch.equal(alone.sequences[0], whole.sequences[row])
        assert torch.allclose(alone.confidence[0], whole.confidence[row], atol=1e-5)
    monkeypatch.setattr(drafting_embinv, "LOGITS_ROWS", 8)  # two texts at a time
    assert torch.equal(model.generate(vectors, **BEAMS, guidance_scale=scale).sequences, whole.sequences)


def test_known_tokens_stay_and_count():
    """A beam that does not weigh the given word takes words that do not lead to it."""
    model, vectors = small_vocabulary(), unit_vectors(6)
    tokens = [token for token in range(8) if token not in (END, MASK)]
    draft = torch.tensor([MASK, 5, MASK, END]).repeat(6, 1)
    output = model.generate(
        vectors, strategy="autoregressive", num_draft_beams=64, max_length=4, draft_ids=draft, suppress_tokens=[5]
    )
    assert (output.sequences[:, 1] == 5).all() and (output.confidence[:, 1] == 1).all()
    texts = torch.tensor([[one, 5, two, END] for one in tokens if one != 5 for two in [*tokens, END] if two != 5])
    for row, e in enumerate(vectors):
        with torch.no_grad():
            logits = model(texts, e.expand(len(texts), -1), None, causal=True).logits
        plain = logits.log_softmax(-1).gather(2, texts[..., None]).squeeze(2)
        logits[..., [MASK, 5]], logits[:, 0, END] = -torch.inf, -torch.inf
        free = logits.log_softmax(-1).gather(2, texts[..., None]).squeeze(2)
        ended = texts[:, 2] == END
        total = free[:, 0] + plain[:, 1] + free[:, 2] + plain[:, 3].masked_fill(ended, 0)
        best = texts[int((total / (4 - ended.long())).argmax())]
        assert torch.equal(output.sequences[row].masked_fill(output.confidence[row] == 0, END), best)


def test_beams_cost_nothing_where_nothing_is_masked():
    """A draft without a [MASK] took a pass for each token, all in vain; the greedy text takes none."""
    model, vectors, ids = ending_model(), unit_vectors(3), texts(3)
    output = model.generate(vectors, **BEAMS, draft_ids=ids)
    assert output.num_forward_passes == 0 and torch.equal(with_ends(output.sequences), ids)
    assert ((output.confidence == 1) | (output.confidence == 0)).all()
    ids[1, 0] = MASK
    output = model.generate(vectors, **BEAMS, draft_ids=ids)
    alone = model.generate(vectors[1], **BEAMS, draft_ids=ids[1:2])
    assert torch.equal(output.sequences[1], alone.sequences[0]) and output.num_forward_passes > 0
    assert torch.equal(with_ends(output.sequences)[[0, 2]], ids[[0, 2]])


def test_beams_are_shown_counted_and_in_int8():
    """History, passes and the layers in int8 are those of the greedy drafts, too."""
    model, vectors = ending_model(), unit_vectors(3)
    output = model.generate(vectors, **BEAMS, return_history=True, max_length=6)
    assert output.num_forward_passes == len(output.history) <= 6
    assert torch.equal(output.history[-1].masked_fill(output.sequences == PAD, PAD), output.sequences)
    for count, draft in enumerate(output.history, start=1):  # the leading hypothesis, or the finished text
        assert ((draft != MASK).sum(dim=1) >= count).all()
    assert model.generate(torch.empty(0, 16), **BEAMS).sequences.shape == (0, L)
    many = model.generate(vectors, strategy="autoregressive", num_draft_beams=1000, max_length=1)
    assert many.sequences.shape == (3, 1)
    rounded = model.to_int8().generate(vectors, **BEAMS, max_length=6)
    assert not (rounded.sequences == MASK).any() and (rounded.confidence[:, 0] > 0).all()


def test_a_search_begins_with_the_best_beam():
    """The first candidate is the text of temperature 0; samples have no beams."""
    model, vectors = ending_model(), unit_vectors(4)
    for e in vectors:
        wanted = model.generate(e, **BEAMS)
        text = with_ends(wanted.sequences)

        def likes_it(ids, e=e, wanted=text):
            return torch.where((ids == wanted).all(dim=1, keepdim=True), e, -e)

        found = model.generate(
            e, **BEAMS, num_candidates=3, feedback=likes_it, generator=torch.Generator().manual_seed(0)
        )
        assert torch.equal(found.sequences, wanted.sequences) and found.cosine > 0.99


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(strategy="confidence"), "num_draft_beams is of strategy autoregressive.*confidence here has no beam"),
        (dict(strategy="two_stage"), "two_stage here has no beam"),
        (dict(strategy="autoregressive", temperature=0.7), "set temperature to 0, got 0.7"),
        (dict(strategy="autoregressive", num_draft_beams=0), "num_draft_beams must be a whole number from 1 to"),
        (
            dict(strategy="autoregressive", draft="euler"),
            "draft must be one of sequential, autoregressive, got",
        ),
    ],
)
def test_impossible_beams_are_one_line(settings, message):
    """Beams that nothing uses look like a search that gained nothing."""
    with pytest.raises(ValueError, match=message) as error:
        causal_model().generate(unit_vectors(2), **{"num_draft_beams": 4, **settings})
    assert "\n" not in str(error.value)


def test_a_checkpoints_own_beams_leave_other_strategies_alone():
    """A folder that drafts by beams must still sample, fill gaps and search."""
    model, vectors = causal_model(), unit_vectors(2)
    plain = model.generate(vectors)
    model.generation_config.strategy, model.generation_config.num_draft_beams = "autoregressive", 3
    assert torch.equal(model.generate(vectors, strategy="confidence").sequences, plain.sequences)
    sampled = model.generate(vectors, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert sampled.sequences.shape == (2, L)


def test_two_stage_drafts_by_the_causal_order():
    """The first stage is the autoregressive text itself, the second reopens what that was least sure of."""
    model, vectors = ending_model(canvas_lengths=[6, L]), unit_vectors(5)
    generator = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    for more in ({}, {"num_draft_beams": 3}):
        draft = model.generate(vectors, strategy="autoregressive", **more)
        call = dict(strategy="two_stage", draft="autoregressive", **more)
        kept = model.generate(vectors, **call, restart_ratio=0.0)
        assert torch.equal(kept.sequences, draft.sequences) and torch.equal(kept.confidence, draft.confidence)
        steps = dict(restart_ratio=0.4, num_steps=3, return_history=True)
        refined = model.generate(vectors, **call, **steps, generator=generator())
        first = refined.history[draft.num_forward_passes - 1]
        assert torch.equal(first.masked_fill(draft.sequences == PAD, PAD), draft.sequences)
        assert draft.num_forward_passes < refined.num_forward_passes <= draft.num_forward_passes + 3
        second, sure = (
            refined.history[draft.num_forward_passes],
            draft.confidence.masked_fill(draft.sequences == PAD, 2),
        )
        changed = (second != first) & (draft.sequences != PAD)
        least = sure.argsort(dim=1).argsort(dim=1) < torch.ceil(
            0.4 * (draft.sequences != PAD).sum(dim=1, keepdim=True)
        )
        assert not (changed & ~least).any()
        again = model.generate(vectors, **call, **steps, generator=generator())
        assert torch.equal(refined.sequences, again.sequences) and not (refined.sequences == MASK).any()
        parts, same = [], generator()
        for part in vectors.split(2):
            parts.append(model.generate(part, **call, **steps, generator=same).sequences)
        assert torch.equal(torch.cat(parts), refined.sequences)


def test_two_stage_needs_what_its_draft_needs():
    """A masked model's drafts by the causal order are noise; its usual two_stage stays as it was."""
    masked = awaken(tiny_model())
    before = masked.generate(unit_vectors(2), strategy="two_stage", generator=torch.Generator().manual_seed(0))
    same = masked.generate(
        unit_vectors(2), strategy="two_stage", draft="sequential", generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(before.sequences, same.sequences)
    with pytest.raises(ValueError, match="num_condition_tokens of at least 1"):
        masked.generate(unit_vectors(2), strategy="two_stage", draft="autoregressive")
    with pytest.raises(ValueError, match="not trained from left to right"):
        tiny_model(num_condition_tokens=2).generate(unit_vectors(2), strategy="two_stage", draft="autoregressive")


def test_a_search_starts_from_drafts_of_both_orders():
    """Drafts that are left out, that come on top of what was asked for, or that depend on the rest of the batch."""
    model, vectors, calls = ending_model(), unit_vectors(5), []

    def search(count: int | None, rows=vectors, **more):
        calls.clear()
        search = {"num_candidates": 16, "num_drafts": count, **more}
        generator = torch.Generator().manual_seed(0)
        output = model.generate(rows, feedback=bag_of_tokens(calls), search=search, generator=generator)
        return output, sum(calls)

    (few, fewest), (both, many), (drafts, most), (usual, as_many) = (
        search(0, num_candidates=4),
        search(12),
        search(15),
        search(None),
    )
    assert 30 < many - fewest <= 5 * 12 and many < most <= 5 * 16 and most == as_many  # equal texts are judged once
    assert torch.equal(usual.sequences, drafts.sequences) and torch.equal(search(99)[0].sequences, drafts.sequences)
    assert (both.cosine >= few.cosine - 1e-6).all() and (both.cosine > few.cosine + 1e-3).any()
    assert torch.equal(search(12, vectors[:1])[0].sequences[0], both.sequences[0])
    assert search(3, num_candidates=1)[1] == search(None, num_candidates=1)[1] <= 5


@pytest.mark.parametrize("strategy", ["autoregressive", "confidence", "euler"])
def test_the_orders_of_a_search_do_not_depend_on_the_strategy(strategy, monkeypatch):
    """By a checkpoint whose strategy is autoregressive, all candidates would be of one order, and alike."""
    model, write, written = ending_model(), Denoiser.write, []

    def recorded(self, targets, changes, *rest, **more):
        written.append((len(targets), self.config.with_changes(**changes)))
        return write(self, targets, changes, *rest, **more)

    monkeypatch.setattr(Denoiser, "write", recorded)

    def orders(count: int | None) -> list[tuple[int, str, float]]:
        written.clear()
        search = {"num_candidates": 12, "num_drafts": count}
        model.generate(unit_vectors(2), feedback=bag_of_tokens([]), search=search, strategy=strategy)
        return [(rows, config.strategy, config.temperature) for rows, config in written]

    masked = "euler" if strategy == "euler" else "confidence"
    assert orders(9) == [(2, strategy, 0.0), (4, masked, 0.7), (18, "autoregressive", 0.7)]
    assert orders(0) == [(2, strategy, 0.0), (22, masked, 0.7)]
    assert orders(None) == [(2, strategy, 0.0), (22, "autoregressive", 0.7)]


def test_many_drafts_are_written_in_parts(monkeypatch):
    """The cache of 4,096 drafts takes 3 GB, and twice that while it grows: a calibration was killed for 8 GB."""
    model, vectors, seen = ending_model(), unit_vectors(3), []
    settings = dict(feedback=bag_of_tokens([]), num_candidates=8, num_drafts=6)
    whole = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    step = model.next_states
    monkeypatch.setattr(
        model, "next_states", lambda ids, *rest: (seen.append(len(rest[0].prefix)), step(ids, *rest))[1]
    )
    monkeypatch.setattr(generation_embinv, "CACHED_ROWS_CPU", 4)
    parts = model.generate(vectors, generator=torch.Generator().manual_seed(0), **settings)
    assert torch.equal(parts.sequences, whole.sequences) and max(seen) == 4
    monkeypatch.setattr(generation_embinv, "CACHED_ROWS_CPU", 8)
    seen.clear()
    model.generate(vectors, **settings, strategy="two_stage", draft="autoregressive")
    assert max(seen) == 8


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_samples_of_a_vector_share_what_they_begin_with(family, scale, monkeypatch):
    """A pass for each copy of the same beginning is half of a search's work on samples of short texts.

    A sample that goes on behind another one's words, or under another vector, is a text that nobody sampled.
    """
    model, vectors = ending_model(family), unit_vectors(3).repeat_interleave(8, dim=0)
    config = EmbInvGenerationConfig(strategy="autoregressive", temperature=0.5, guidance_scale=scale, max_length=L)
    drafts = torch.full((len(vectors), L), MASK)
    drafts[1, 0], drafts[2, 1] = 7, 9  # copies of a vector part where one has a given word

    def written(rows: list[int]) -> Canvas:
        generators = [torch.Generator().manual_seed(row) for row in rows]
        return Sampler(model, vectors[rows], config, generators, draft_ids=drafts[rows]).run()

    alone = [written([row]) for row in range(len(vectors))]
    passed, step = [], model.next_states
    monkeypatch.setattr(
        model, "next_states", lambda ids, *rest: (passed.append(len(rest[0].prefix)), step(ids, *rest))[1]
    )
    together = written(list(range(len(vectors))))
    for row, one in enumerate(alone):
        assert torch.equal(one.ids[0], together.ids[row])
        assert torch.allclose(one.confidence[0], together.confidence[row], atol=1e-5)
    branches = 1 if scale == 1 else 2
    assert together.ids[1, 0] == 7 and together.ids[2, 1] == 9 and passed[0] == 3 * branches
    begun = {(row // 8, int(together.ids[row, 0])) for row in range(len(vectors))}
    assert 3 < len(begun) < len(vectors) and passed[1] <= len(begun) * branches
    assert len(together.ids.unique(dim=0)) > len(begun), "texts that begin alike must differ later"


def test_a_checkpoint_without_the_causal_order_has_no_drafts():
    """Its causal pass never learned anything; asked for drafts, it must say so before it works."""
    model, vectors, encode = awaken(tiny_model()), unit_vectors(2), bag_of_tokens([])
    for count in (None, 0):
        model.generate(vectors, feedback=encode, search={"num_candidates": 2, "num_drafts": count})
    with pytest.raises(ValueError, match="not trained from left to right|num_condition_tokens"):
        model.generate(vectors, feedback=encode, search={"num_candidates": 2, "num_drafts": 1})


def test_given_tokens_take_no_logits(monkeypatch):
    """The output layer is a third of a draft's work: of a text that is known up to a place, it is asked behind it."""
    model, vectors = ending_model(), unit_vectors(6)
    whole = with_ends(model.generate(vectors, strategy="autoregressive", suppress_tokens=[END]).sequences)
    known = whole.clone()
    known[:3, L // 2 :], known[3:, 2:] = MASK, MASK
    asked, plain = [], model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda states: (asked.append(states.numel()), plain(states))[1])
    again = model.generate(vectors, strategy="autoregressive", suppress_tokens=[END], draft_ids=known)
    assert torch.equal(with_ends(again.sequences), whole)
    assert sum(asked) == int((known == MASK).sum()) * model.config.hidden_size
