"""Batches for training: a pure function of (seed, index), so that a resumed run repeats an uninterrupted one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..diffusion_embinv import NoiseSchedule, after_first, mask_tokens, sample_timesteps, text_positions
from ..errors_embinv import EmbInvError
from ..runtime import generator_for
from ..texts_embinv import decode_rows
from .encoders import SentenceEncoder
from .pairs import load_pairs
from .spans import SpanSampler


@dataclass
class NoisedBatch:
    """What a training step needs; M is the number of masked positions.

    input_ids: x0 (B, L). noised_ids: xt (B, L). embedding: e (B, D). timestep: t (B,). masked: (B, L) bool.
    condition_mask: (B,) bool. positions, targets: (M,) int64, the flat masked positions that are scored and x0 there.
    position_weights: (M,) float, what each stands for; they sum to the number of masked positions on average.
    factor: of the batch's loss, see `Run.drawn`.
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
    factor: of the batch's loss, see `Run.drawn`.
    """

    input_ids: Tensor
    embedding: Tensor
    condition_mask: Tensor
    positions: Tensor
    targets: Tensor
    factor: Tensor | float = 1.0


def causal_batch(
    input_ids: Tensor, embedding: Tensor, end_token_id: int, generator: torch.Generator, condition_dropout: float = 0.0
) -> CausalBatch:
    """Originals (B, L) and embeddings (B, D) without the tail of ends, and dropped conditions."""
    text = text_positions(input_ids, end_token_id)
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


def noise_batch(
    input_ids: Tensor,
    embedding: Tensor,
    schedule: NoiseSchedule,
    mask_token_id: int,
    generator: torch.Generator,
    full_mask_share: float = 0.0,
    condition_dropout: float = 0.0,
    end_token_id: int | None = None,
    tail_share: float = 1.0,
) -> NoisedBatch:
    """Draw timesteps, masks and dropped conditions for a batch of originals (B, L) and embeddings (B, D).

    A `tail_share` below 1 scores only that share of the masked positions behind the end token, each with a weight of
    1 / tail_share: the expected loss is the same, the output layer, half of all work, does less.
    """
    batch_size = len(input_ids)
    timestep = sample_timesteps(batch_size, generator)
    fully_masked = torch.rand(batch_size, generator=generator) < full_mask_share
    timestep = torch.where(fully_masked, 1.0, timestep)
    noised_ids, masked = mask_tokens(
        input_ids, timestep, schedule, mask_token_id, generator, fully_masked=fully_masked
    )
    scored, weights = masked, torch.ones(input_ids.shape)
    if tail_share < 1:
        tail = after_first(input_ids == end_token_id)
        scored = masked & (~tail | (torch.rand(input_ids.shape, generator=generator) < tail_share))
        weights = torch.where(tail, 1 / tail_share, weights)
    positions = scored.flatten().nonzero().squeeze(1)
    return NoisedBatch(
        input_ids=input_ids,
        noised_ids=noised_ids,
        embedding=embedding,
        timestep=timestep,
        masked=masked,
        condition_mask=torch.rand(batch_size, generator=generator) >= condition_dropout,
        positions=positions,
        targets=input_ids.flatten()[positions],
        position_weights=weights.flatten()[positions],
    )


class PairBatches:
    """Prepared pairs in an order drawn anew for each epoch.

    Args:
        pairs: data set with columns input_ids (L) and embedding (D).
        end_token_id: what fills a canvas behind its text.
        seed: of the order.
    """

    def __init__(self, pairs, end_token_id: int, seed: int):
        self.pairs = pairs.with_format("numpy")
        self.seed = seed
        ids = self.pairs[:]["input_ids"]
        ends = ids == end_token_id
        # tokens with the end; a text that fills its canvas needs none
        self.needed = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, ids.shape[1])
        self.length = ids.shape[1]
        self._pools: dict[int, np.ndarray] = {}
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """Originals (B, canvas) int64 and embeddings (B, D) float32 of batch `index`.

        Raises:
            EmbInvError: when fewer texts than a batch fit the canvas.
        """
        canvas = canvas or self.length
        pool = self._pools.setdefault(canvas, np.flatnonzero(self.needed <= canvas))
        if len(pool) < batch_size:
            raise EmbInvError(
                f"{len(pool)} texts fit a canvas of {canvas} tokens, fewer than a batch of {batch_size}: "
                "prepare more text or lower batch_size."
            )
        epoch, place = divmod(index, len(pool) // batch_size)
        if self._order is None or self._order[0] != (canvas, epoch):
            self._order = (canvas, epoch), np.random.default_rng((self.seed, canvas, epoch)).permutation(pool)
        drawn = self._order[1][place * batch_size : (place + 1) * batch_size]
        # read in the order of the file, given in the order drawn: a row's place must say nothing of its text
        sorted_rows, where = np.unique(drawn, return_inverse=True)
        rows = self.pairs[sorted_rows]
        ids = torch.from_numpy(np.asarray(rows["input_ids"])[where, :canvas].astype(np.int64))
        return ids, torch.from_numpy(np.asarray(rows["embedding"])[where].astype(np.float32))


def held_out_pairs(
    folder: str | Path, end_token_id: int, length: int, count: int | None = None, split: str = "validation"
) -> tuple[Tensor, Tensor]:
    """The same `count` pairs of a split that fit the canvas at every call, all if there are fewer: (N, L), (N, D).

    L is `length`; pairs that were prepared for a shorter canvas are filled up with the end token.
    """
    pairs = PairBatches(load_pairs(folder, split), end_token_id, seed=0)
    available = int((pairs.needed <= length).sum())
    if not available:
        raise EmbInvError(f"{folder}: no text of the {split} split fits {length} tokens.")
    ids, embeddings = pairs.batch(0, min(count or available, available), length)
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=end_token_id), embeddings


class SpanBatches:
    """Random spans of a tokenised corpus, embedded as training goes, so that a small corpus never repeats a pair."""

    def __init__(self, sampler: SpanSampler, encoder: SentenceEncoder, end_token_id: int):
        self.sampler, self.encoder, self.end_token_id = sampler, encoder, end_token_id

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """As `PairBatches.batch`."""
        ids = self.sampler.batch(index, batch_size, canvas)
        return ids, embed_rows(self.encoder, ids, self.end_token_id)


def embed_rows(encoder: SentenceEncoder, ids: Tensor, end_token_id: int) -> Tensor:
    """Canvas rows (B, L) → their vectors (B, D), from the ids where the encoder takes them, else from the texts."""
    if encoder.takes_ids:
        return encoder.encode_ids(ids, end_token_id)
    return encoder.encode(decode_rows(encoder.tokenizer, ids, end_token_id), batch_size=len(ids))
