"""What the corrector learns from: the model's own drafts, its own corrections of them, and their vectors."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..conditioning_embinv import Hypothesis
from ..correction_embinv import write_plainly
from ..modeling_embinv import EmbInvForMaskedDiffusion
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
    ids = write_plainly(model, embedding, length, TEMPERATURE, generator)
    if is_second:
        ids = model.correct(embedding, ids, embed(ids), TEMPERATURE, generator)
    model.train(was_training)
    return Hypothesis(ids, embed(ids).to(model.device))


def writing_operations(model: EmbInvForMaskedDiffusion, texts: int, length: int) -> float:
    """Operations of a draft of each of `texts`: a third of a training step's, as nothing flows back."""
    return training_flops(model, texts, length, texts * length) / 3


def added_positions(model: EmbInvForMaskedDiffusion, hypothesis: Hypothesis | None) -> int:
    """Positions that a hypothesis adds to the prefix of a draft."""
    return 0 if hypothesis is None else hypothesis.ids.shape[1] + 2 * model.config.num_condition_tokens
