"""What an update learns from: its micro-batches, and the loss of each of the three tasks."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data.batches import Batches, embed_rows
from ..data.encoders import Encoder
from ..data.noise import CausalBatch, Noise, NoisedBatch, UpdateKind, causal_batch, noise_batch
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import generator_for
from .config import TrainingConfig
from .corrections import write_hypotheses, writing_operations
from .drafts import draft_operations, write_drafts
from .losses import LENGTH_PARTS, causal_loss, causal_operations, loss_weights, masked_loss, masked_operations


class BatchLosses:
    """Gives a run the losses of its micro-batches; each batch is a function of (seed, index)."""

    # of the run that this goes into
    config: TrainingConfig
    accelerator: Accelerator
    model: nn.Module
    bare_model: EmbInvForMaskedDiffusion
    encoder: Encoder
    batches: Batches
    noise: Noise
    flops: float

    def micro_losses(self, indexes: list[int], canvas: int, kind: UpdateKind) -> list[Callable[[], Tensor]]:
        """The losses of an update's micro-batches, the batches `indexes` of all processes, each computed when called.

        The weight "none" takes the mean over a micro-batch's masked positions, a causal batch that over its tokens.
        Each gets a factor that makes the mean of these means, over micro-batches and processes, the mean over all
        such positions of the update.
        """
        if kind != "masked":
            plain = [self.causal_batch(index, canvas, kind) for index in indexes]
            self.weight_by(plain, [int(batch.text.sum()) for batch in plain])
            if kind == "causal":
                return [partial(self.causal_loss, batch) for batch in plain]
            return [
                partial(self.correction_loss, batch, index, canvas)
                for batch, index in zip(plain, indexes, strict=True)
            ]
        noised = [self.noised_batch(index, canvas) for index in indexes]
        if self.config.loss_weight == "none":
            self.weight_by(noised, [int(batch.masked.sum()) for batch in noised])
        return [partial(self.loss, batch) for batch in noised]

    def weight_by(self, batches: Sequence[NoisedBatch | CausalBatch], counts: list[int]) -> None:
        """Give each micro-batch its share in the positions of the update as a factor, 1 on average."""
        shares = torch.tensor(counts, dtype=torch.float32, device=self.accelerator.device)
        mean = self.accelerator.reduce(shares.mean(), reduction="mean").clamp_min(1)
        for batch, share in zip(batches, shares, strict=True):
            batch.factor = share / mean

    def originals(self, index: int, texts: int, canvas: int) -> tuple[Tensor, Tensor]:
        """Texts and vectors of batch `index`; those that are embedded now, in the precision of the run."""
        with self.accelerator.autocast():
            return self.batches.batch(index, texts, canvas)

    def noised_batch(self, index: int, canvas: int) -> NoisedBatch:
        """Batch `index` of all processes with its noise, both functions of (seed, index)."""
        texts = self.noise.texts_of(self.config.batch_size)
        input_ids, embedding = self.originals(index, texts, canvas)
        return noise_batch(input_ids, embedding, self.noise, generator_for(self.config.seed, index))

    def loss(self, batch: NoisedBatch) -> Tensor:
        """The loss of the masked order, after some of the visible tokens became the model's own."""
        write_drafts(self.model, self.bare_model, batch)
        self.flops += draft_operations(self.bare_model, batch)
        self.flops += masked_operations(self.bare_model, batch)
        weights = loss_weights(self.config.loss_weight, batch.timestep, batch.masked, self.noise.schedule)
        return masked_loss(self.model, batch, weights, self.accelerator.device)

    def causal_batch(self, index: int, canvas: int, kind: UpdateKind) -> CausalBatch:
        """Batch `index` of all processes for learning from left to right; to correct, every text has its vector."""
        ids, embedding = self.originals(index, self.config.batch_size, canvas)
        dropout = self.noise.condition_dropout if kind == "causal" else 0.0
        return causal_batch(ids, embedding, self.noise.end, generator_for(self.config.seed, index), dropout)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, D) the encoder's vectors of texts (B, L), on their device."""
        return embed_rows(self.encoder, ids.cpu()).to(ids.device)

    def correction_loss(self, batch: CausalBatch, index: int, canvas: int) -> Tensor:
        """Mean −log p of the texts, each beside a hypothesis that the model writes now."""
        generator = generator_for(self.config.seed, index, 3)
        with self.accelerator.autocast():
            batch.hypothesis = write_hypotheses(self.bare_model, self.embed, batch.embedding, canvas, generator)
        self.flops += writing_operations(self.bare_model, len(batch.input_ids), canvas)
        return self.causal_loss(batch)

    def causal_loss(self, batch: CausalBatch) -> Tensor:
        """The loss of the causal order, with the hypotheses that the batch has."""
        parts = batch.by_length(LENGTH_PARTS)
        self.flops += causal_operations(self.bare_model, parts)
        return causal_loss(self.model, parts, self.accelerator.device)
