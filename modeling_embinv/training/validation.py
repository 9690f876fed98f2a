"""Validation on held-out documents: fixed masks for the loss, real generation for what a user would see."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..correction_embinv import write_plainly
from ..data.batches import embed_rows
from ..data.encoders import Encoder
from ..data.noise import Noise, noise_batch
from ..diffusion_embinv import NoiseSchedule, text_positions
from ..evaluation.held_out import HeldOut, Measures, Recovered
from ..generation_config_embinv import EmbInvGenerationConfig
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..runtime import generator_for
from ..texts_embinv import decode_rows
from .config import masked_share

_BATCH = 64


@dataclass
class ValidationSet:
    """Held-out pairs, the same at every validation: ids (N, L), embeddings (N, D), how many of them to generate.

    Both lie on the CPU, as what is recovered does when it is compared with them.

    has_stored_vectors: whether the embeddings are a file's, and not of a machine that rounds in its own way.
    """

    input_ids: Tensor
    embedding: Tensor
    generation_size: int
    schedule: NoiseSchedule
    has_stored_vectors: bool = False

    def digest(self, causal_share: float, correction_share: float) -> str:
        """What tells the losses of these pairs from other ones: texts, vectors, noise, and the order of the loss."""
        is_masked = masked_share(causal_share, correction_share) > 0
        result = hashlib.blake2b(repr((is_masked, self.schedule, self.input_ids.shape)).encode(), digest_size=16)
        result.update(self.input_ids.cpu().numpy().astype("<i8").tobytes())
        if self.has_stored_vectors:
            result.update(self.embedding.cpu().numpy().astype("<f4").tobytes())
        return result.hexdigest()


def all_scores(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Encoder,
    held_out: ValidationSet,
    causal_share: float,
    correction_share: float,
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Scores of what a model has learned, "loss" among them, and pairs (original, recovered).

    The texts are filled in from masks, whichever order the model's own settings write in; drafts are scored beside
    them. Where no update filled in masks, the loss is that of the causal order, and all texts are drafts.

    Args:
        tokenizer, encoder: the inverter's, and what measures the texts that it generates.
        causal_share, correction_share: shares of the updates that learned the causal order, and to correct.
    """
    scores, is_masked = masked_scores(model, held_out), masked_share(causal_share, correction_share) > 0
    if causal_share:
        scores["loss_causal"] = causal_score(model, held_out)
    if not is_masked:  # of the order that was learned
        scores["loss"] = scores["loss_causal"]
    parts = model, tokenizer, encoder, held_out
    generated, samples = generation_scores(*parts, strategy=_masked_strategy(model) if is_masked else "autoregressive")
    drafts = generated
    if causal_share and is_masked:
        drafts, samples = generation_scores(*parts, strategy="autoregressive")
    if causal_share:
        scores |= {f"draft_{name}": value for name, value in drafts.items()}
    if correction_share and held_out.generation_size:
        corrected = correction_scores(*parts)
        scores |= {f"corrected_{name}": value for name, value in corrected.items()}
    return scores | generated, samples


@torch.no_grad()
def masked_scores(model: EmbInvForMaskedDiffusion, held_out: ValidationSet) -> dict[str, float]:
    """Mean −log p per masked token, over all noise levels and fully masked, under masks that never change."""
    scores = {}
    for name, share in (("loss", 0.0), ("loss_fully_masked", 1.0)):
        noise = Noise(held_out.schedule, model.config.mask_token_id, model.config.eos_token_id, share)
        total, count = 0.0, 0
        for start in range(0, len(held_out.input_ids), _BATCH):
            rows = slice(start, start + _BATCH)
            ids, embedding = held_out.input_ids[rows], held_out.embedding[rows]
            batch = noise_batch(ids, embedding, noise, generator_for(2, start))
            losses = model(
                batch.noised_ids.to(model.device),
                batch.embedding.to(model.device),
                batch.timestep.to(model.device),
                positions=batch.positions.to(model.device),
                targets=batch.targets.to(model.device),
            ).losses
            total, count = total + float(losses.sum()), count + len(losses)
        scores[name] = total / max(count, 1)
    return scores


@torch.no_grad()
def causal_score(model: EmbInvForMaskedDiffusion, held_out: ValidationSet) -> float:
    """Mean −log p per token from left to right, end tokens included."""
    ids, end = held_out.input_ids.to(model.device), model.config.eos_token_id
    parts = zip(ids.split(_BATCH), held_out.embedding.to(model.device).split(_BATCH), strict=True)
    return -sum(float(model.log_likelihood(*part).sum()) for part in parts) / int(text_positions(ids, end).sum())


def generation_scores(
    model: EmbInvForMaskedDiffusion,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Encoder,
    held_out: ValidationSet,
    **settings: Any,
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Scores of generated texts in percent (cosine in [−1, 1]), and (original, recovered) pairs; none of no texts."""
    if not held_out.generation_size:
        return {}, []
    target_ids = held_out.input_ids[: held_out.generation_size]
    embeddings = held_out.embedding[: held_out.generation_size]
    original = decode_rows(tokenizer, target_ids, model.config.eos_token_id)
    tried = HeldOut(model, tokenizer, encoder, target_ids, embeddings, original)
    recovered = tried.invert(batch_size=_BATCH, **settings)
    return _named(tried.measure(recovered)), list(zip(original, recovered.texts, strict=True))


@torch.no_grad()
def correction_scores(
    model: EmbInvForMaskedDiffusion, tokenizer: PreTrainedTokenizerBase, encoder: Encoder, held_out: ValidationSet
) -> dict[str, float]:
    """Scores, as of `generation_scores`, of greedy drafts that were corrected once."""
    target_ids = held_out.input_ids[: held_out.generation_size]
    embeddings, ids = held_out.embedding[: held_out.generation_size], []
    for part in embeddings.to(model.device).split(_BATCH):
        drafts = write_plainly(model, part, target_ids.shape[1])
        ids.append(model.correct(part, drafts, embed_rows(encoder, drafts.cpu()).to(model.device)).cpu())
    end, corrected = model.config.eos_token_id, torch.cat(ids)
    original = decode_rows(tokenizer, target_ids, end)
    tried = HeldOut(model, tokenizer, encoder, target_ids, embeddings, original)
    return _named(tried.measure(Recovered(corrected, decode_rows(tokenizer, corrected, end))))


def _masked_strategy(model: EmbInvForMaskedDiffusion) -> str:
    """The model's own strategy, or the default one where its own fills in no masks."""
    own: Any = model.generation_config  # transformers declares its own class, without a strategy
    return str(EmbInvGenerationConfig().strategy if own.strategy == "autoregressive" else own.strategy)


def _named(measures: Measures) -> dict[str, float]:
    return {name.replace(" ", "_").lower(): value for name, value in measures.means().items()}
