"""What the corrector learns from: the model's own drafts, its own corrections of them, and their vectors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..conditioning_embinv import Hypothesis
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..sampler_embinv import Sampler
from .flops import training_flops

# hypotheses are sampled, as in a search; of so many batches they are corrections of a draft, of the others drafts
TEMPERATURE, SECOND_SHARE = 0.7, 0.5


@torch.no_grad()
def write_hypotheses(
    model: EmbInvForMaskedDiffusion,
    embed: Callable[[Tensor], Tensor],
    embedding: Tensor,
    length: int,
    generator: torch.Generator,
) -> Hypothesis:
    """Hypotheses for embeddings (B, D), on a canvas of `length` tokens, and their vectors by `embed`, the encoder.

    embed: ids (B, L) with ends behind the texts, on the model's device → (B, D).
    """
    was_training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # transformers left it without types
    is_second = float(torch.rand((), generator=generator)) < SECOND_SHARE
    embedding = embedding.to(model.device)
    ids = sampled_drafts(model, embedding, length, TEMPERATURE, generator)
    if is_second:
        ids = model.correct(embedding, ids, embed(ids), TEMPERATURE, generator)
    model.train(was_training)
    return Hypothesis(ids, embed(ids).to(model.device))


def sampled_drafts(
    model: EmbInvForMaskedDiffusion,
    embedding: Tensor,
    length: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(B, length) texts from left to right with ends behind them; of temperature 0, the likeliest tokens."""
    base: Any = model.generation_config  # transformers declares its own class
    config = base.with_changes(
        strategy="autoregressive", temperature=temperature, max_length=length, guidance_scale=1.0, num_draft_beams=1
    )
    return Sampler(model, embedding, config, [generator] * len(embedding)).run().ids


def writing_operations(model: EmbInvForMaskedDiffusion, texts: int, length: int) -> float:
    """Operations of a draft of each of `texts`: a third of a training step's, as nothing flows back."""
    return training_flops(model, texts, length, texts * length) / 3
