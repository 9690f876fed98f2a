"""Optimizers and the learning rate."""

import math

import torch

from ..modeling_embinv import EmbInvForMaskedDiffusion
from .config import TrainingConfig


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Linear warm-up to 1, then a cosine down to 0 at max_steps, or constant with a line down to 0 at the end."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_scheduler == "constant":
        return min(1.0, max(config.max_steps - step, 0) / config.decay_steps) if config.decay_steps else 1.0
    done = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def new_optimizers(model: EmbInvForMaskedDiffusion, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW over the trainable weights; norms and biases do not decay, token embeddings have a rate of their own.

    With Muon (arXiv 2502.16982) the matrices of the trunk's layers have an optimizer of their own, whose steps are as
    long as AdamW's, so that one learning rate serves both.
    """
    embeddings = model.get_input_embeddings().weight
    weights = [weight for weight in model.parameters() if weight.requires_grad and weight is not embeddings]
    muon = []
    if config.optimizer == "muon":
        matrices = [weight for weight in model.trunk.layers.parameters() if weight.requires_grad and weight.ndim == 2]
        known = {id(weight) for weight in matrices}
        weights = [weight for weight in weights if id(weight) not in known]
        settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        muon = [torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **settings)]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if embeddings.requires_grad:
        rate = config.learning_rate * config.embedding_rate
        groups.append({"params": [embeddings], "lr": rate, "weight_decay": config.weight_decay})
    return [torch.optim.AdamW(groups, lr=config.learning_rate, fused=True), *muon]
