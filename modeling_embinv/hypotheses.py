"""Hypotheses for the second stage, sampled from the model itself as training goes."""

import torch
from torch import Tensor

from .batches import embed_rows
from .closed_loop_embinv import random_edits
from .correction_embinv import Hypothesis
from .diffusion_embinv import text_positions
from .encoders import SentenceEncoder
from .modeling_embinv import EmbInvForMaskedDiffusion

# passes of an open-loop hypothesis: what a correction starts from, at half the price
STEPS = 4
# edits of an original that imitate a hypothesis of later rounds
MAX_EDITS = 4


@torch.no_grad()
def sample_hypotheses(
    model: EmbInvForMaskedDiffusion,
    encoder: SentenceEncoder,
    input_ids: Tensor,
    embedding: Tensor,
    share: float,
    generator: torch.Generator,
) -> Hypothesis:
    """Texts for the model to improve, with their vectors.

    Half of them are what it writes for e, greedily or sampled: the first round. The others are the original with one
    to four random edits, filled in by the model: later rounds, where little is wrong.

    Args:
        input_ids: x0 (B, L). embedding: e (B, D). share: of the rows that get a hypothesis.
    """
    draws = torch.rand(len(input_ids), 2, generator=generator)
    chosen, open_loop = draws[:, 0] < share, draws[:, 1] < 0.5
    end = model.config.eos_token_id
    ids = torch.full_like(input_ids, end)
    training, length = model.training, input_ids.shape[1]
    model.eval()
    settings = {"strategy": "confidence", "max_length": length, "generator": generator}
    for temperature, part in ((0.0, draws[:, 1] < 0.25), (0.7, (draws[:, 1] >= 0.25) & open_loop)):
        rows = (chosen & part).nonzero().squeeze(1)
        if len(rows):
            ids[rows] = _written(model, embedding[rows], end, num_steps=STEPS, temperature=temperature, **settings)
    rows = (chosen & ~open_loop).nonzero().squeeze(1)
    if len(rows):
        drafts, mask = input_ids[rows], model.config.mask_token_id
        edits = torch.randint(1, MAX_EDITS + 1, (len(rows), 1), generator=generator)
        for number in range(MAX_EDITS):
            edited, _ = random_edits(drafts, torch.zeros(drafts.shape), mask, end, generator)
            drafts = torch.where(number < edits, edited, drafts)
        ids[rows] = _written(model, embedding[rows], end, num_steps=2, temperature=0.7, draft_ids=drafts, **settings)
    model.train(training)
    own = torch.zeros_like(embedding)
    rows = chosen.nonzero().squeeze(1)
    own[rows] = embed_rows(encoder, ids[rows], end).to(own)
    return Hypothesis(ids, own, chosen)


@torch.no_grad()
def first_hypotheses(
    model: EmbInvForMaskedDiffusion, encoder: SentenceEncoder, embedding: Tensor, length: int
) -> Hypothesis:
    """What the model writes greedily for e (B, D), with its vectors: a first round of corrections starts from them."""
    end = model.config.eos_token_id
    ids = _written(model, embedding, end, num_steps=STEPS, temperature=0.0, strategy="confidence", max_length=length)
    return Hypothesis(ids.to(model.device), embed_rows(encoder, ids, end).to(model.device))


def _written(model, embedding: Tensor, end: int, **settings) -> Tensor:
    """(R, L) on the CPU, ends behind the text."""
    ids = model.generate(embedding, **settings).sequences
    return ids.masked_fill(~text_positions(ids, end), end).cpu()
