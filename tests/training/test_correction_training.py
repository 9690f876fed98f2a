"""Training the corrector: its share of the updates, its hypotheses, and that it learns."""

import json
from functools import partial

import pytest
import torch

from modeling_embinv.conditioning_embinv import Hypothesis
from modeling_embinv.correction_embinv import write_plainly
from modeling_embinv.data.batches import embed_rows
from modeling_embinv.data.canvas import encode_canvas
from modeling_embinv.data.noise import causal_batch, kind_of_update
from modeling_embinv.loading import load_inverter
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.assemble import train
from modeling_embinv.training.backbone import new_inverter
from modeling_embinv.training.corrections import write_hypotheses
from tests.tiny_models import END, VOCAB, texts, tiny_model, unit_vectors
from tests.training.tiny_runs import SENTENCES, TINY_TRUNK, in_two_forks, settings, weights

STEPS = 200
ALL = dict(causal_share=0.4, correction_share=0.4, num_condition_tokens=2, max_steps=8)


def inverter(encoder, **overrides):
    """A tiny inverter of an encoder, with a corrector."""
    torch.manual_seed(0)
    sizes = dict(embedding_dim=384, max_sequence_length=16, num_condition_tokens=2)
    shares = dict(causal_share=0.5, correction_share=0.25)
    return new_inverter(encoder.tokenizer, TINY_TRUNK, **{**sizes, **shares, **overrides})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_shares_of_the_kinds(share):
    """A run with a corrector must not draw other causal updates than one without: its pilots would not compare."""
    drawn = [kind_of_update(0.4, share, 3, update) for update in range(2000)]
    assert abs(drawn.count("correction") / 2000 - share) < 0.03
    assert [kind == "causal" for kind in drawn] == [
        kind_of_update(0.4, 0.0, 3, update) == "causal" for update in range(2000)
    ]


def test_all_three_kinds_train_resume_and_are_logged_apart(pairs, tmp_path):
    """Hypotheses that depend on more than weights, seed and batch would make a resumed run another one."""
    whole = train(settings(pairs, tmp_path / "whole", **ALL))
    train(settings(pairs, tmp_path / "parts", **{**ALL, "max_steps": 3}))
    parts = train(settings(pairs, tmp_path / "parts", **ALL))
    assert all(torch.equal(weight, weights(parts)[name]) for name, weight in weights(whole).items())
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    names = {"masked": "train/loss", "causal": "train/loss_causal", "correction": "train/loss_correction"}
    logged = [
        next(kind for kind, name in names.items() if name in line) for line in lines if "train/grad_norm" in line
    ]
    assert logged == [kind_of_update(0.4, 0.4, 1, update) for update in range(8)] and len(set(logged)) == 3
    assert {"validation/draft_cosine", "validation/corrected_cosine"} <= set(lines[-1])
    model, _ = load_inverter(whole)
    found = model.correct(unit_vectors(2, 384), texts(2, 16), unit_vectors(2, 384, seed=1))
    assert model.config.correction_share == 0.4 and found.shape == (2, 16)


def test_two_processes_train_the_corrector(pairs, tmp_path):
    """A weight that one kind of update leaves out makes the processes wait for each other."""
    in_two_forks(settings(pairs, tmp_path / "two", **{**ALL, "batch_size": 2}))
    assert load_inverter(tmp_path / "two" / "last")[0].correction_tokens is not None


def test_an_inverter_gains_a_corrector_and_loses_it(pairs, tmp_path):
    """A checkpoint without one has no weights for it; one whose trunk trains on without it would correct worse."""
    plain = train(settings(pairs, tmp_path / "plain", causal_share=0.5, num_condition_tokens=2, max_steps=1))
    more = dict(init_from=str(plain), backbone_config=None)
    gained = train(settings(pairs, tmp_path / "gained", **ALL | more))
    assert load_inverter(gained)[0].config.correction_share == 0.4
    more = dict(init_from=str(gained), backbone_config=None, causal_share=0.5, max_steps=1)
    lost = load_inverter(train(settings(pairs, tmp_path / "lost", **more)))[0]
    assert lost.correction_tokens is None and lost.config.correction_share == 0


def test_hypotheses_are_texts_of_the_model_with_the_encoder_s_vectors(encoder):
    """Vectors of other rows, or of noise behind an end, would teach the corrector that ê says nothing."""
    model = inverter(encoder)
    e = embed_rows(encoder, encode_canvas(encoder.vocabulary, SENTENCES, 16).input_ids)
    model.train()
    kinds = set()
    for seed in range(6):
        found = write_hypotheses(model, partial(embed_rows, encoder), e, 16, generator_for(seed))
        again = write_hypotheses(model, partial(embed_rows, encoder), e, 16, generator_for(seed))
        assert torch.equal(found.ids, again.ids) and model.training
        assert torch.allclose(found.vectors, embed_rows(encoder, found.ids), atol=1e-6)
        generator = generator_for(seed)
        torch.rand((), generator=generator)
        model.eval()
        kinds.add(torch.equal(found.ids, write_plainly(model, e, 16, 0.7, generator)))
        model.train()
    assert kinds == {True, False}  # drafts, and corrections of drafts


def test_it_learns_to_copy_a_hypothesis():
    """Positions of the hypothesis that do not meet those of the text, and copying is beyond a small model.

    Texts are random, so neither their vectors nor their left says anything of a token: only the hypothesis does.
    """
    model = tiny_model(num_condition_tokens=2, causal_share=0.5, correction_share=0.25).train()
    ids = torch.randint(4, VOCAB, (1024, 12), generator=generator_for(0))
    ids[:, 8:] = END
    e = unit_vectors(1024)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(STEPS):
        rows = torch.randint(960, (64,), generator=generator_for(1, step))
        batch = causal_batch(ids[rows], e[rows], END, generator_for(step))
        correction_loss(model, batch, Hypothesis(ids[rows], e[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
    rows = torch.arange(960, 1024)  # never seen
    batch = causal_batch(ids[rows], e[rows], END, generator_for(0))
    with torch.no_grad():
        copied = correction_loss(model.eval(), batch, Hypothesis(ids[rows], e[rows]))
        other = correction_loss(model, batch, Hypothesis(ids[rows.flip(0)], e[rows]))
    assert float(copied) < 1 < 4 < float(other)


def correction_loss(model, batch, hypothesis):
    return model(
        batch.input_ids, batch.embedding, None, positions=batch.positions, targets=batch.targets, causal=True,
        hypothesis=hypothesis,
    ).loss  # fmt: skip


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(correction_share=0.3), "set causal_share above 0"),
        (dict(correction_share=0.6, causal_share=0.6, num_condition_tokens=1), "at most 1 together"),
    ],
)
def test_impossible_shares_are_refused(pairs, tmp_path, changes, message):
    """Without drafts there is nothing to correct; shares above 1 would leave the masked order out in silence."""
    with pytest.raises(ValueError, match=message):
        settings(pairs, tmp_path, **changes)
