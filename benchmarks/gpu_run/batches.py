"""What the updates of a GPU run are made of: batches of texts with their noise, made ahead by threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from modeling_embinv.data.noise import Noise, NoisedBatch, UpdateKind, canvas_length, kind_of_update, noise_batch
from modeling_embinv.data.spans import SpanSampler
from modeling_embinv.diffusion_embinv import text_positions
from modeling_embinv.runtime import generator_for
from modeling_embinv.training.config import TrainingConfig
from modeling_embinv.training.losses import loss_weights

# batches that are made ahead, and the threads that make them
AHEAD, THREADS = 16, 8
# updates of the corrector that share one pool of hypotheses: writing takes about as long for many as for few
POOL = 4
# what an update needs, by the names of the model's `forward`
Part = dict[str, Any]


class Batches:
    """The batches of a run, by number.

    Args:
        texts: of the training split.
        is_pinned: whether tensors go to memory from where a GPU takes them without anybody waiting.
    """

    def __init__(self, config: TrainingConfig, texts: SpanSampler, noise: Noise, is_pinned: bool) -> None:
        self.config, self.texts, self.noise, self.is_pinned = config, texts, noise, is_pinned

    def from_number(self, first: int) -> Iterator[tuple[UpdateKind, list[Part]]]:
        """Batches from that number on, made ahead by threads; each is a function of (seed, number)."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = deque(pool.submit(self.batch, first + ahead) for ahead in range(AHEAD))
            try:
                for number in range(first + AHEAD, 10**9):
                    yield waiting.popleft().result()
                    waiting.append(pool.submit(self.batch, number))
            finally:
                for future in waiting:
                    future.cancel()

    def batch(self, number: int) -> tuple[UpdateKind, list[Part]]:
        """What is learned, and the texts of an update; of `POOL` updates where the corrector learns."""
        config = self.config
        canvas = canvas_length(config.canvas_lengths or [config.max_sequence_length], config.seed, number)
        corrections = config.correction_share / POOL  # of the batches, not of the updates
        rest = 1 - config.correction_share + corrections
        kind = kind_of_update(config.causal_share / rest, corrections / rest, config.seed, number)
        rows = self.noise.texts_of(config.batch_size) if kind == "masked" else config.batch_size
        count, generator = POOL if kind == "correction" else 1, generator_for(config.seed, number)
        ids = self.texts.batch(number, rows * count, canvas)
        if kind == "masked":
            return kind, [self.masked_part(noise_batch(ids, torch.empty(rows, 0), self.noise, generator))]
        dropout = config.condition_dropout if kind == "causal" else 0.0
        return kind, [self.causal_part(part, dropout, generator) for part in ids.split(rows)]

    def masked_part(self, batch: NoisedBatch) -> Part:
        """The tensors of an update that fills masks."""
        weights = loss_weights(self.config.loss_weight, batch.timestep, batch.masked, self.noise.schedule)
        weights = weights[batch.positions // batch.input_ids.shape[1]] * batch.position_weights
        names = ("input_ids", "noised_ids", "timestep", "condition_mask", "positions", "targets")
        return self.pinned({**{name: getattr(batch, name) for name in names}, "target_weights": weights})

    def causal_part(self, ids: Tensor, dropout: float, generator: torch.Generator) -> Part:
        """The tensors of an update from left to right; not cut, as a compiled layer should meet few widths."""
        text = text_positions(ids, self.noise.end)
        condition_mask = torch.rand(len(ids), generator=generator) >= dropout
        positions = text.flatten().nonzero().squeeze(1)
        return self.pinned(
            {"input_ids": ids, "condition_mask": condition_mask, "positions": positions, "targets": ids[text]}
        )

    def pinned(self, part: Part) -> Part:
        """In memory from where a GPU takes it without anybody waiting."""
        return {name: value.pin_memory() for name, value in part.items()} if self.is_pinned else part


def kind_of(part: Part) -> UpdateKind:
    """What an update learns."""
    if "noised_ids" in part:
        return "masked"
    return "correction" if "hypothesis" in part else "causal"
