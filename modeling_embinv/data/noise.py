"""How training corrupts a batch: timesteps, masks, dropped conditions, and which updates learn from left to right."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion_embinv import NoiseSchedule, after_first, mask_tokens, sample_timesteps, text_positions
from ..runtime import generator_for


@dataclass(frozen=True)
class Noise:
    """What is done to a batch of originals.

    Args:
        schedule: α(t).
        mask, end: ids of [MASK] and of the end token.
        full_mask_share: share of rows that are masked throughout.
        condition_dropout: share of rows under the null condition.
        tail_share: share of the masked positions behind the end token that is scored, each with a weight of
            1 / tail_share: the expected loss is the same, the output layer, half of all work, does less.
    """

    schedule: NoiseSchedule
    mask: int
    end: int
    full_mask_share: float = 0.0
    condition_dropout: float = 0.0
    tail_share: float = 1.0


@dataclass
class NoisedBatch:
    """What a training step needs; M is the number of masked positions.

    input_ids: x0 (B, L). noised_ids: xt (B, L). embedding: e (B, D). timestep: t (B,). masked: (B, L) bool.
    condition_mask: (B,) bool. positions, targets: (M,) int64, the flat masked positions that are scored and x0 there.
    position_weights: (M,) float, what each stands for; they sum to the number of masked positions on average.
    factor: of the batch's loss, see `Run.micro_losses`.
    """

    input_ids: Tensor
    noised_ids: Tensor
    embedding: Tensor
    timestep: Tensor
    masked: Tensor
    condition_mask: Tensor
    positions: Tensor
    targets: Tensor
    position_weights: Tensor
    factor: Tensor | float = 1.0


@dataclass
class CausalBatch:
    """What a training step from left to right needs; M is the number of tokens, ends included.

    input_ids: x0 (B, L), cut behind the longest text and its end. embedding: e (B, D). condition_mask: (B,) bool.
    positions, targets: (M,) int64, the flat positions of texts and their end tokens, and x0 there.
    factor: of the batch's loss, see `Run.micro_losses`.
    """

    input_ids: Tensor
    embedding: Tensor
    condition_mask: Tensor
    positions: Tensor
    targets: Tensor
    factor: Tensor | float = 1.0


def causal_batch(
    input_ids: Tensor, embedding: Tensor, end: int, generator: torch.Generator, condition_dropout: float = 0.0
) -> CausalBatch:
    """Originals (B, L) and embeddings (B, D) without the tail of ends, and dropped conditions."""
    text = text_positions(input_ids, end)
    width = int(text.sum(dim=1).max())
    input_ids, positions = input_ids[:, :width], text[:, :width].flatten().nonzero().squeeze(1)
    return CausalBatch(
        input_ids=input_ids,
        embedding=embedding,
        condition_mask=torch.rand(len(input_ids), generator=generator) >= condition_dropout,
        positions=positions,
        targets=input_ids.flatten()[positions],
    )


def is_causal_update(share: float, seed: int, update: int) -> bool:
    """Whether an update learns from left to right; every process and micro-batch of it does the same."""
    return bool(torch.rand((), generator=generator_for(seed, update, 2)) < share)


def canvas_length(lengths: list[int], seed: int, update: int) -> int:
    """Canvas length of an update: each length gets an equal share of the tokens, whatever the texts.

    A canvas of C tokens holds any text that fits it. The longest canvas sees texts of all lengths in their true
    proportion, so how long a text is must be read from the embedding.
    """
    weights = torch.tensor([1 / length for length in lengths])
    return lengths[int(torch.multinomial(weights, 1, generator=generator_for(seed, update, 1)))]


def noise_batch(input_ids: Tensor, embedding: Tensor, noise: Noise, generator: torch.Generator) -> NoisedBatch:
    """Draw timesteps, masks and dropped conditions for a batch of originals (B, L) and embeddings (B, D)."""
    batch_size = len(input_ids)
    timestep = sample_timesteps(batch_size, generator)
    fully_masked = torch.rand(batch_size, generator=generator) < noise.full_mask_share
    timestep = torch.where(fully_masked, 1.0, timestep)
    noised_ids, masked = mask_tokens(
        input_ids, timestep, noise.schedule, noise.mask, generator, fully_masked=fully_masked
    )
    scored, weights = masked, torch.ones(input_ids.shape)
    if noise.tail_share < 1:
        tail = after_first(input_ids == noise.end)
        scored = masked & (~tail | (torch.rand(input_ids.shape, generator=generator) < noise.tail_share))
        weights = torch.where(tail, 1 / noise.tail_share, weights)
    positions = scored.flatten().nonzero().squeeze(1)
    return NoisedBatch(
        input_ids=input_ids,
        noised_ids=noised_ids,
        embedding=embedding,
        timestep=timestep,
        masked=masked,
        condition_mask=torch.rand(batch_size, generator=generator) >= noise.condition_dropout,
        positions=positions,
        targets=input_ids.flatten()[positions],
        position_weights=weights.flatten()[positions],
    )
