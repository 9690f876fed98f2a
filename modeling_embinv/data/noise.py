"""How training corrupts a batch: timesteps, masks, dropped conditions, and what each update learns."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..conditioning_embinv import Hypothesis
from ..diffusion_embinv import NoiseSchedule, after_first, mask_tokens, sample_timesteps, text_positions
from ..runtime import generator_for

# to fill in masks, to write from left to right, or to write anew beside a hypothesis
UpdateKind = Literal["masked", "causal", "correction"]


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
        draft_share: share of rows some of whose visible tokens are drafted: the causal order samples others in their
            place, and they are scored, too (cf. arXiv 2602.11590).
        complementary: whether each text has two rows, one with a mask and one with its complement, so that every
            position is scored in one of them (arXiv 2511.18159).
    """

    schedule: NoiseSchedule
    mask: int
    end: int
    full_mask_share: float = 0.0
    condition_dropout: float = 0.0
    tail_share: float = 1.0
    draft_share: float = 0.0
    complementary: bool = False

    def texts_of(self, rows: int) -> int:
        """Originals that a batch of so many rows is made of."""
        return rows // 2 if self.complementary else rows


@dataclass
class DraftedPositions:
    """Where the causal order writes in place of x0; R rows, D positions.

    rows: (R,) int64, of the batch. positions: (D,) int64, flat in the batch. draws: (D,) uniform in [0, 1).
    """

    rows: Tensor
    positions: Tensor
    draws: Tensor


@dataclass
class NoisedBatch:
    """What a training step needs; M is the number of scored positions.

    input_ids: x0 (B, L). noised_ids: xt (B, L). embedding: e (B, D). timestep: t (B,).
    masked: (B, L) bool, the positions that the loss is a mean over: those of a [MASK], and drafted ones.
    condition_mask: (B,) bool. positions, targets: (M,) int64, the flat positions that are scored and x0 there.
    position_weights: (M,) float, what each stands for; they sum to the number of `masked` positions on average.
    drafted: where drafts are to be written, if anywhere. factor: of the batch's loss, see `BatchLosses.micro_losses`.
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
    drafted: DraftedPositions | None = None
    factor: Tensor | float = 1.0


@dataclass
class CausalBatch:
    """What a training step from left to right needs; M is the number of tokens, ends included.

    input_ids: x0 (B, L), cut behind the longest text and its end. embedding: e (B, D). condition_mask: (B,) bool.
    text: (B, L) bool, the tokens of texts and their ends. factor: of the batch's loss, see `BatchLosses.micro_losses`.
    hypothesis: what the texts correct, if anything.
    """

    input_ids: Tensor
    embedding: Tensor
    condition_mask: Tensor
    text: Tensor
    factor: Tensor | float = 1.0
    hypothesis: Hypothesis | None = None

    @property
    def positions(self) -> Tensor:
        """(M,) int64, the flat positions of texts and their ends."""
        return self.text.flatten().nonzero().squeeze(1)

    @property
    def targets(self) -> Tensor:
        """(M,) int64, x0 at `positions`."""
        return self.input_ids[self.text]

    def by_length(self, count: int) -> list["CausalBatch"]:
        """The rows in up to `count` parts of similar length, each cut behind its longest text.

        A row without a tail says nothing of its canvas, so it need not be wider than its text.
        """
        order = self.text.sum(dim=1).argsort(stable=True)
        return [self._rows(rows) for rows in order.chunk(count)]

    def _rows(self, index: Tensor) -> "CausalBatch":
        width = int(self.text[index].sum(dim=1).max())
        rows = self.input_ids[index, :width], self.embedding[index], self.condition_mask[index]
        hypothesis = None if self.hypothesis is None else self.hypothesis.rows(index)
        return CausalBatch(*rows, self.text[index, :width], self.factor, hypothesis)


def causal_batch(
    input_ids: Tensor, embedding: Tensor, end: int, generator: torch.Generator, condition_dropout: float = 0.0
) -> CausalBatch:
    """Originals (B, L) and embeddings (B, D) without the tail of ends, and dropped conditions."""
    text = text_positions(input_ids, end)
    width = int(text.sum(dim=1).max())
    condition_mask = torch.rand(len(input_ids), generator=generator) >= condition_dropout
    return CausalBatch(input_ids[:, :width], embedding, condition_mask, text[:, :width])


def kind_of_update(causal_share: float, correction_share: float, seed: int, update: int) -> UpdateKind:
    """What an update learns; every process and micro-batch of it does the same."""
    draw = float(torch.rand((), generator=generator_for(seed, update, 2)))
    if draw < causal_share:
        return "causal"
    return "correction" if draw < causal_share + correction_share else "masked"


def canvas_length(lengths: list[int], seed: int, update: int) -> int:
    """Canvas length of an update: each length gets an equal share of the tokens, whatever the texts.

    A canvas of C tokens holds any text that fits it. The longest canvas sees texts of all lengths in their true
    proportion, so how long a text is must be read from the embedding.
    """
    weights = torch.tensor([1 / length for length in lengths])
    return lengths[int(torch.multinomial(weights, 1, generator=generator_for(seed, update, 1)))]


def noise_batch(input_ids: Tensor, embedding: Tensor, noise: Noise, generator: torch.Generator) -> NoisedBatch:
    """Draw timesteps, masks, drafted positions and dropped conditions for originals (B, L) and embeddings (B, D).

    Where masks are complementary, the batch has 2B rows: row B + i is row i with the complement of its mask.
    """
    timestep = sample_timesteps(len(input_ids), generator)
    if noise.complementary:
        masked = mask_tokens(input_ids, timestep, noise.schedule, noise.mask, generator)[1]
        masked = torch.cat([masked, ~masked])
        timestep = torch.cat([timestep, noise.schedule.timestep(noise.schedule.alpha(timestep))])
        input_ids, embedding = input_ids.repeat(2, 1), embedding.repeat(2, 1)
    fully_masked = torch.rand(len(input_ids), generator=generator) < noise.full_mask_share
    timestep = torch.where(fully_masked, 1.0, timestep)
    if noise.complementary:
        masked |= fully_masked[:, None]
    else:
        masked = mask_tokens(input_ids, timestep, noise.schedule, noise.mask, generator, fully_masked=fully_masked)[1]
    scored, weights = masked, torch.ones(input_ids.shape)
    if noise.tail_share < 1:
        tail = after_first(input_ids == noise.end)
        scored = masked & (~tail | (torch.rand(input_ids.shape, generator=generator) < noise.tail_share))
        weights = torch.where(tail, 1 / noise.tail_share, weights)
    condition_mask = torch.rand(len(input_ids), generator=generator) >= noise.condition_dropout
    noised_ids, drafted = input_ids.masked_fill(masked, noise.mask), None
    if noise.draft_share:
        visible = text_positions(input_ids, noise.end) & ~masked
        drafted, where = drafted_positions(visible, noise.draft_share, generator)
        masked, scored = masked | where, scored | where
    positions = scored.flatten().nonzero().squeeze(1)
    return NoisedBatch(
        input_ids=input_ids,
        noised_ids=noised_ids,
        embedding=embedding,
        timestep=timestep,
        masked=masked,
        condition_mask=condition_mask,
        positions=positions,
        targets=input_ids.flatten()[positions],
        position_weights=weights.flatten()[positions],
        drafted=drafted,
    )


def drafted_positions(visible: Tensor, share: float, generator: torch.Generator) -> tuple[DraftedPositions, Tensor]:
    """Some of the `visible` (B, L) positions of `share` of the rows, as indexes with draws and as (B, L) bool.

    Each row has a rate of its own, uniform in [0, 1], as drafts are of every quality. The number of rows is the same
    in all batches, so that a compiled network meets one shape.
    """
    count = len(visible)
    rows = torch.randperm(count, generator=generator)[: round(share * count)].sort().values
    rate = torch.rand(len(rows), 1, generator=generator)
    where = torch.zeros_like(visible)
    where[rows] = visible[rows] & (torch.rand(len(rows), visible.shape[1], generator=generator) < rate)
    draws = torch.rand(visible.shape, generator=generator)
    return DraftedPositions(rows, where.flatten().nonzero().squeeze(1), draws[where]), where
