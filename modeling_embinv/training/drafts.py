"""Own-draft correction: the model sees tokens that it would have written itself, so that it learns its errors."""

import torch
from torch import Tensor, nn

from ..data.noise import NoisedBatch
from ..diffusion_embinv import sample_tokens, text_positions
from ..modeling_embinv import EmbInvForMaskedDiffusion
from .flops import training_flops


@torch.no_grad()
def write_drafts(model: nn.Module, bare_model: EmbInvForMaskedDiffusion, batch: NoisedBatch) -> None:
    """Sample tokens at the drafted positions of a batch, given e and x0 to their left, and write them into xt.

    One causal pass of the drafted rows. A sample may be the original: the model must learn which ones are wrong. An
    end is sampled at the end alone, as no token stands behind one.

    Args:
        model: as the accelerator has wrapped it. bare_model: the same without its wrapper.
    """
    drafted, config, device = batch.drafted, bare_model.config, bare_model.device
    if drafted is None or not len(drafted.rows):
        return
    length, width = batch.input_ids.shape[1], _width(bare_model, batch, drafted.rows)
    index = torch.searchsorted(drafted.rows, drafted.positions // length)  # of each position's row among them
    logits = model(
        batch.input_ids[drafted.rows, :width].to(device),
        batch.embedding[drafted.rows].to(device),
        None,
        condition_mask=batch.condition_mask[drafted.rows].to(device),
        positions=(index * width + drafted.positions % length).to(device),
        causal=True,
    ).logits.float()
    originals = batch.input_ids.flatten()[drafted.positions].to(device)
    logits[:, config.mask_token_id] = -torch.inf
    logits[originals != config.eos_token_id, config.eos_token_id] = -torch.inf
    tokens = sample_tokens(logits, drafted.draws.to(device)).to(batch.noised_ids.device)
    batch.noised_ids.flatten()[drafted.positions] = tokens


def draft_operations(model: EmbInvForMaskedDiffusion, batch: NoisedBatch) -> float:
    """Operations of the pass that writes a batch's drafts: a third of a training step's, as nothing flows back."""
    drafted = batch.drafted
    if drafted is None or not len(drafted.rows):
        return 0.0
    width = _width(model, batch, drafted.rows)
    return training_flops(model, len(drafted.rows), width - 1, len(drafted.positions)) / 3


def _width(model: EmbInvForMaskedDiffusion, batch: NoisedBatch, rows: Tensor) -> int:
    """Tokens of the longest text of some rows, its end included: no position behind it is drafted."""
    return int(text_positions(batch.input_ids[rows], model.config.eos_token_id).sum(dim=1).max())
