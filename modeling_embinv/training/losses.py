"""The loss of a batch in each of the two orders, and what computing it costs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.noise import CausalBatch, NoisedBatch
from ..diffusion_embinv import NoiseSchedule
from ..modeling_embinv import EmbInvForMaskedDiffusion
from .corrections import added_positions
from .flops import training_flops

# parts of similar length in which a causal batch is computed: its rows need not be as wide as its longest text
LENGTH_PARTS = 4


def loss_weights(kind: str, timestep: Tensor, masked: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Weight (B,) of each row's summed −log p, so that the loss is Σ_b weight_b Σ_i −log p(x0_i).

    `inverse_t`: 1/t, averaged over rows (Eq. 4). `elbo`: −α′(t)/(1 − α(t)), averaged over rows (MDLM, arXiv
    2406.07524, Eq. 10). `none`: the mean over all masked positions of the batch.
    """
    batch_size = timestep.shape[0]
    if kind == "inverse_t":
        return 1 / timestep / batch_size
    if kind == "elbo":
        if schedule.name == "fixed":
            raise ValueError("a fixed mask ratio has no ELBO weight; use loss_weight none or inverse_t.")
        return -schedule.alpha_prime(timestep) / (1 - schedule.alpha(timestep)) / batch_size
    if kind == "none":
        return torch.ones_like(timestep) / masked.sum().clamp_min(1).to(timestep)
    raise ValueError(f"loss_weight must be inverse_t, elbo or none, got {kind!r}.")


def masked_loss(model: nn.Module, batch: NoisedBatch, weights: Tensor, device: torch.device) -> Tensor:
    """Σ over rows of w(t) Σ over scored positions of −log p (Eq. 4), logits at these positions only.

    Args:
        model: an inverter, which may be wrapped for several processes.
        weights: (B,) w(t) of each row.
        device: the model's.
    """
    length = batch.input_ids.shape[1]
    row_weights = weights[batch.positions // length] * batch.position_weights
    return model(
        batch.noised_ids.to(device),
        batch.embedding.to(device),
        batch.timestep.to(device),
        condition_mask=batch.condition_mask.to(device),
        positions=batch.positions.to(device),
        targets=batch.targets.to(device),
        target_weights=row_weights.to(device) * batch.factor,
    ).loss


def masked_operations(model: EmbInvForMaskedDiffusion, batch: NoisedBatch) -> float:
    """Operations of `masked_loss` and its gradients."""
    rows, length = batch.input_ids.shape
    return training_flops(model, rows, length, len(batch.positions))


def causal_loss(model: nn.Module, parts: Sequence[CausalBatch], device: torch.device) -> Tensor:
    """Mean −log p of the texts of all parts and of their ends, from left to right.

    Args:
        model: an inverter, which may be wrapped for several processes.
        parts: a batch, by length.
        device: the model's.
    """
    tokens = sum(int(part.text.sum()) for part in parts)
    loss = torch.zeros((), device=device)
    for part in parts:
        positions = part.positions
        output = model(
            part.input_ids.to(device),
            part.embedding.to(device),
            None,
            condition_mask=part.condition_mask.to(device),
            positions=positions.to(device),
            targets=part.targets.to(device),
            target_weights=torch.full((len(positions),), 1 / tokens, device=device) * part.factor,
            causal=True,
            hypothesis=part.hypothesis,
        )
        loss = loss + output.loss
    return loss


def causal_operations(model: EmbInvForMaskedDiffusion, parts: Sequence[CausalBatch]) -> float:
    """Operations of `causal_loss` and its gradients."""
    total = 0.0
    for part in parts:
        rows, length = part.input_ids.shape
        inputs = added_positions(model, part.hypothesis) + length - 1  # the last token is no input
        total += training_flops(model, rows, inputs, len(part.positions))
    return total
