"""What the corrector learns from on a GPU: thousands of hypotheses at once, of every quality that a search meets.

Rows of a pool are drafts, drafts that were corrected once or twice, and originals with a few wrong tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache

from modeling_embinv.conditioning_embinv import Hypothesis
from modeling_embinv.diffusion_embinv import text_positions
from modeling_embinv.modeling_embinv import EmbInvForMaskedDiffusion

# shares of a pool: drafts, corrected once, corrected twice; the rest are changed originals
DRAFTS, ONCE, TWICE = 0.35, 0.25, 0.15
TEMPERATURE = 0.7
# rows of originals whose logits exist at a time
ROWS = 1024


@contextmanager
def uncompiled(model: EmbInvForMaskedDiffusion) -> Iterator[None]:
    """Layers run as they are written: a cache grows by a token a pass, and each length would be compiled anew."""
    kept = [layer._compiled_call_impl for layer in model.trunk.layers]
    for layer in model.trunk.layers:
        layer._compiled_call_impl = None
    try:
        yield
    finally:
        for layer, compiled in zip(model.trunk.layers, kept, strict=True):
            layer._compiled_call_impl = compiled


@torch.no_grad()
def write(
    model: EmbInvForMaskedDiffusion,
    embedding: Tensor,
    length: int,
    temperature: float = 0.0,
    hypothesis: Hypothesis | None = None,
) -> Tensor:
    """(B, length) texts from left to right with ends behind them, as `write_plainly`; no row leaves before the end."""
    config, cache = model.config, DynamicCache()
    condition = model.causal_condition(model.condition(embedding, None, hypothesis))
    ids = torch.full((len(embedding), length), config.eos_token_id, device=embedding.device)
    is_done, token = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device), None
    for position in range(length):
        logits = model.decoder(model.next_states(token, condition, cache))
        logits[:, config.mask_token_id] = -torch.inf
        if position == 0:
            logits[:, config.eos_token_id] = -torch.inf  # no text is empty
        token = choose(logits, temperature).masked_fill(is_done, config.eos_token_id)
        ids[:, position] = token
        is_done |= token == config.eos_token_id
        token = token[:, None]
    return ids


def choose(logits: Tensor, temperature: float) -> Tensor:
    """(B,) the likeliest tokens by logits (B, V), or samples."""
    if not temperature:
        return logits.argmax(dim=-1)
    p = (logits.float() / temperature).softmax(dim=-1)
    return p.div_(torch.empty_like(p).exponential_()).argmax(dim=-1)


@torch.no_grad()
def write_pool(
    model: EmbInvForMaskedDiffusion, embed: Callable[[Tensor], Tensor], ids: Tensor, embedding: Tensor
) -> Hypothesis:
    """A hypothesis for each text (B, L) and vector (B, D), and its vector by the encoder, `embed`."""
    count, length = ids.shape
    drafts, once, twice = (round(share * count) for share in (DRAFTS, ONCE, TWICE))
    written = drafts + once + twice
    model.eval()
    with uncompiled(model):
        texts = write(model, embedding[:written], length, TEMPERATURE)
        for first in (drafts, drafts + once):
            part = slice(first, written)
            hypothesis = Hypothesis(texts[part], embed(texts[part]))
            texts[part] = write(model, embedding[part], length, TEMPERATURE, hypothesis)
        texts = torch.cat([texts, changed(model, ids[written:], embedding[written:])])
    model.train()
    return Hypothesis(texts, embed(texts))


@torch.no_grad()
def changed(model: EmbInvForMaskedDiffusion, ids: Tensor, embedding: Tensor) -> Tensor:
    """Originals (B, L) with a few errors: tokens that the model would have written, others moved or left out."""
    text = text_positions(ids, model.config.eos_token_id) & (ids != model.config.eos_token_id)
    draw = torch.rand(len(ids), 1, device=ids.device)
    replaced = torch.where(draw < 0.75, _with_samples(model, ids, embedding, text), ids)
    return torch.where(draw > 0.5, _in_other_order(replaced, text, model.config.eos_token_id), replaced)


def _with_samples(model: EmbInvForMaskedDiffusion, ids: Tensor, embedding: Tensor, text: Tensor) -> Tensor:
    """Up to four tokens in ten are samples, given the vector and the original tokens to their left."""
    config, ids = model.config, ids.clone()
    rate = 0.4 * torch.rand(len(ids), 1, device=ids.device)
    where = text & (torch.rand(ids.shape, device=ids.device) < rate)
    for rows in torch.arange(len(ids), device=ids.device).split(ROWS):
        positions = where[rows].flatten().nonzero().squeeze(1)
        logits = model(ids[rows], embedding[rows], None, positions=positions, causal=True).logits
        logits[:, [config.mask_token_id, config.eos_token_id]] = -torch.inf
        part = ids[rows]
        part[where[rows]] = choose(logits, 1.0)
        ids[rows] = part
    return ids


def _in_other_order(ids: Tensor, text: Tensor, end: int) -> Tensor:
    """One token in seven moves by a few places, and one in ten is left out."""
    draws, far = torch.rand(2, *ids.shape, device=ids.device), torch.randn(ids.shape, device=ids.device)
    place = torch.arange(ids.shape[1], device=ids.device) + 3 * far * (draws[0] < 1 / 7)
    is_out = text & (draws[1] < 0.1) & (text.sum(dim=1, keepdim=True) > 3)
    ids = ids.masked_fill(is_out, end)
    order = torch.where(text & ~is_out, place, 1000.0).argsort(dim=1, stable=True)
    return ids.gather(1, order)
