"""Optimizers and the learning rate."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..modeling_embinv import EmbInvForMaskedDiffusion


@dataclass(frozen=True)
class Rates:
    """How fast which weights learn, and when.

    Args:
        optimizer: of the trunk's matrices; all other weights have AdamW.
        learning_rate: peak rate.
        embedding_rate: rate of the token embeddings as a share of `learning_rate`.
        weight_decay: of matrices; norms and biases have none.
        scheduler: what follows the warm-up, a cosine or a constant rate.
        max_steps, warmup_steps: updates in all, and of the linear warm-up.
        decay_steps: last updates, over which a constant rate falls to 0 in a line.
    """

    optimizer: Literal["adamw", "muon"]
    learning_rate: float
    embedding_rate: float
    weight_decay: float
    scheduler: Literal["cosine", "constant"]
    max_steps: int
    warmup_steps: int
    decay_steps: int

    def factor(self, step: int) -> float:
        """Linear warm-up to 1, then a cosine down to 0 at max_steps, or constant with a line down to 0 at the end."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.scheduler == "constant":
            return min(1.0, max(self.max_steps - step, 0) / self.decay_steps) if self.decay_steps else 1.0
        done = (step - self.warmup_steps) / max(self.max_steps - self.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def new_optimizers(model: EmbInvForMaskedDiffusion, rates: Rates) -> list[torch.optim.Optimizer]:
    """AdamW over the trainable weights; norms and biases do not decay, token embeddings have a rate of their own.

    With Muon (arXiv 2502.16982) the matrices of the trunk's layers have an optimizer of their own, if any train. Its
    steps are as long as AdamW's, so that one learning rate serves both.
    """
    rate, decay = rates.learning_rate, rates.weight_decay
    embeddings = model.get_input_embeddings().weight
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight is not embeddings]
    muon: list[torch.optim.Optimizer] = []
    if rates.optimizer == "muon":
        matrices = [weight for weight in model.trunk.layers.parameters() if weight.requires_grad and weight.ndim == 2]
        known = {id(weight) for weight in matrices}
        weights = [weight for weight in weights if id(weight) not in known]
        if matrices:  # a frozen trunk has none
            muon = [torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if embeddings.requires_grad:
        groups.append({"params": [embeddings], "lr": rate * rates.embedding_rate, "weight_decay": decay})
    return [torch.optim.AdamW(groups, lr=rate, fused=True), *muon]
