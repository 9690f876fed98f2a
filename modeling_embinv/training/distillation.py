"""The last stage of training: the surrogate encoder learns the (text, vector) pairs that trained the inverter."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..data.batches import Batches, embed_rows
from ..data.noise import UpdateKind
from ..diffusion_embinv import text_positions
from ..evaluation.metrics import rank_correlation
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import generator_for
from .flops import surrogate_flops
from .losses import LENGTH_PARTS
from .part import COUNTED_BATCHES, PartRun

# held-out vectors, and texts that the inverter writes for each: the surrogate must rank these as the encoder does
RANKED_VECTORS, RANKED_TEXTS = 32, 16


class Distillation(PartRun):
    """A run that trains nothing but the surrogate. The inverter's weights stay bit for bit as they are."""

    ranked: tuple[Tensor, Tensor] | None = None

    def micro_losses(self, indexes: list[int], canvas: int, kind: UpdateKind) -> list[Callable[[], Tensor]]:
        """Of texts and vectors of the batches `indexes` of all processes, without noise."""
        batches = [self.originals(index, self.config.batch_size, canvas) for index in indexes]
        return [partial(self.distance, *batch) for batch in batches]

    def distance(self, ids: Tensor, embedding: Tensor) -> Tensor:
        """1 − cos(f̂(x), e), the mean over texts (B, L) and vectors (B, D)."""
        return 1 - (self.embedded(ids) * embedding.to(self.accelerator.device)).sum(dim=1).mean()

    def embedded(self, ids: Tensor) -> Tensor:
        """f̂ of texts (B, L), in the precision of the run; the surrogate's weights are put together in float32."""
        lengths = text_positions(ids, self.noise.end).sum(dim=1)
        embed, order = self.bare_model.embedder(), lengths.argsort(stable=True)
        vectors = []
        with self.accelerator.autocast():
            for part in order.chunk(LENGTH_PARTS):
                # the longest text, and the first token that the surrogate puts before each
                self.flops += surrogate_flops(self.bare_model, len(part), 1 + int(lengths[part].max()))
                vectors.append(embed(ids[part].to(self.accelerator.device)))
        return torch.cat(vectors)[order.argsort()]

    def held_out_scores(self) -> tuple[dict[str, float], list[tuple[str, str]]]:
        """Mean cosine with the encoder's vectors, and mean rank correlation among texts written for one vector."""
        held_out = self.held_out
        cosine = float(agreement(self.bare_model, held_out.input_ids, held_out.embedding).mean())
        scores = {"loss": 1 - cosine, "surrogate_cosine": cosine}
        if self.encoder.can_encode:
            target = held_out.embedding[:RANKED_VECTORS]
            if self.ranked is None:  # the inverter does not change, so neither do its texts
                ids = sampled_texts(self.bare_model, target, RANKED_TEXTS)
                self.ranked = ids, embed_rows(self.encoder, ids.flatten(0, 1)).cpu().unflatten(0, ids.shape[:2])
            # texts that are all alike have no order
            scores["rank_correlation"] = float(ranking(self.bare_model, target, *self.ranked).nanmean())
        return scores, []


@torch.no_grad()
def start_from_table(
    model: EmbInvForMaskedDiffusion, batches: Batches, batch_size: int, weights: dict[str, Tensor], first_token_id: int
) -> None:
    """Let an untrained surrogate of full rank take back what the inverter's training did to the token embeddings.

    weights: the encoder's, by the library's names; one with other tokens, or of another width, changes nothing.
    first_token_id: what the encoder reads before a text.
    """
    surrogate, own = model.surrogate, model.get_input_embeddings().weight
    name = next(name for name, weight in model.trunk.named_parameters() if weight is own)
    if surrogate is None or surrogate.tokens is None or name not in weights or weights[name].shape != own.shape:
        return
    if torch.equal(surrogate.tokens.weight, torch.eye(len(surrogate.start)).to(surrogate.tokens.weight)):
        ids = (batches.ids(index, batch_size).flatten() for index in range(COUNTED_BATCHES))
        counts = sum(torch.bincount(rows, minlength=len(own)) for rows in ids)
        table = weights[name].to(own)
        surrogate.fit_tokens(model.trunk, table, torch.as_tensor(counts))
        surrogate.start.copy_(table[first_token_id])


@torch.no_grad()
def agreement(model: EmbInvForMaskedDiffusion, ids: Tensor, vectors: Tensor) -> Tensor:
    """(N,) cosine of the surrogate's vectors of texts (N, L) with the encoder's (N, D)."""
    parts = zip(ids.split(64), vectors.split(64), strict=True)
    return torch.cat([(model.embed(rows.to(model.device)).cpu() * known).sum(dim=1) for rows, known in parts])


def sampled_texts(model: EmbInvForMaskedDiffusion, target: Tensor, count: int, seed: int = 0) -> Tensor:
    """(N, count, L): texts that the inverter samples for the vectors (N, D)."""
    rows, end = target.repeat_interleave(count, dim=0), model.config.eos_token_id
    ids = model.generate(rows, temperature=0.7, generator=generator_for(seed)).sequences.cpu()
    return ids.masked_fill(~text_positions(ids, end), end).unflatten(0, (-1, count))


@torch.no_grad()
def ranking(model: EmbInvForMaskedDiffusion, target: Tensor, ids: Tensor, vectors: Tensor) -> Tensor:
    """(N,) Spearman's ρ between the surrogate's and the encoder's order of the texts of one target.

    Args:
        target: (N, D). ids: (N, K, L), K texts for each. vectors: (N, K, D), what the encoder makes of them.
    """
    found = torch.stack([model.embed(rows.to(model.device)).cpu() @ e for rows, e in zip(ids, target, strict=True)])
    return rank_correlation(found, torch.einsum("nkd,nd->nk", vectors, target))
