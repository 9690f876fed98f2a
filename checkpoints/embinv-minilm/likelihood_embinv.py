"""How likely each token of a text is, given the vector and other tokens: half of them, or those before a place."""

from typing import Any

import torch
from torch import Tensor

from .conditioning_embinv import condition_of_copies
from .diffusion_embinv import shortest_canvases
from .diffusion_embinv import text_positions

# forward passes of `token_log_likelihood`
NUM_PASSES = 2
# texts that the network is given at a time: their conditions take tens of kilobytes a row
ROWS = 4096


def token_log_likelihood(model: Any, ids: Tensor, embeddings: Tensor) -> Tensor:
    """(R, L) log p(x_i | the positions of other parity, e) over each text of ids (R, L) and its end token, 0 behind.

    Two half-masked passes stand for L leave-one-out ones.
    """
    log_p = torch.zeros(ids.shape, device=ids.device, dtype=torch.float32)
    for length, rows in shortest_canvases(ids, model.config.eos_token_id, model.config.canvas_lengths or ()):
        for part in rows.split(ROWS):
            log_p[part, :length] = _half_masked(model, ids[part, :length], embeddings[part])
    return log_p


def follow_logits(model: Any, ids: Tensor, embeddings: Tensor) -> Tensor:
    """(R, L, L) how well each word of texts (R, L) would stand in the place of each other one, in one causal pass.

    At [r, i, j] is the logit of token j of text r at place i, given e and the tokens before i. Those of one place can
    be compared.
    """
    decoder = model.get_output_embeddings()
    found = []
    for part in torch.arange(len(ids)).split(ROWS):
        condition = model.causal_condition(condition_of_copies(model, embeddings[part]))
        states = model.causal_states(ids[part], condition)
        weight = decoder.weight[ids[part]].to(states.dtype)  # (R, L, H)
        found.append((states @ weight.transpose(1, 2)).float() + decoder.bias[ids[part]][:, None])
    return torch.cat(found)


def _half_masked(model: Any, ids: Tensor, embeddings: Tensor) -> Tensor:
    """The same, all on the canvas that they come on."""
    rows, length = ids.shape
    text = text_positions(ids, model.config.eos_token_id)
    log_p = torch.zeros(rows * length, device=ids.device, dtype=torch.float32)
    condition = condition_of_copies(model, embeddings)
    for parity in range(NUM_PASSES):
        hidden = text & (torch.arange(length, device=ids.device) % NUM_PASSES == parity)
        noised = ids.masked_fill(hidden, model.config.mask_token_id)
        positions = hidden.flatten().nonzero().squeeze(1)
        timestep = model.noise_schedule.timestep(hidden.float().mean(dim=1))
        targets = ids.flatten()[positions]
        output = model(noised, None, timestep, positions=positions, targets=targets, condition=condition)
        log_p[positions] = -output.losses.float()
    return log_p.view(rows, length)
