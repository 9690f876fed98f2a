"""How likely a text is, given the vector; and each of its tokens, given others: half of them, or those before it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .causal_embinv import check_causal
from .causal_embinv import check_length
from .conditioning_embinv import condition_of_copies
from .diffusion_embinv import shortest_canvases
from .diffusion_embinv import text_positions
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_ids
from .inputs_embinv import warn_of_rows

# forward passes of `token_log_likelihood`
NUM_PASSES = 2
# texts that the network is given at a time: their conditions take tens of kilobytes a row
ROWS = 4096
# tokens that the causal pass of `log_likelihood` reads at a time: their states take tens of kilobytes each
TOKENS = 2**14


class LikelihoodMixin:
    """Gives a model the likelihood of whole texts."""

    # of the model that this goes into
    __call__: Callable[..., Any]
    config: Any
    device: Any
    generation_config: Any

    @torch.no_grad()
    def log_likelihood(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """Exact log p(x | e) of whole texts in nats, by the chain rule, in one causal pass.

        Args:
            ids: (B, L) int64, texts with the end token behind them and no start token before them: of a tokenizer that
                writes both, `tokenizer(texts, padding=True, return_tensors="pt").input_ids[:, 1:]`. What follows a
                first end token does not count; a text without one fills its row, and no end is predicted.
            embeddings: e (B, D), as in `generate`.

        Returns:
            (B,) float32. The probabilities of all rows of L tokens, the empty text among them, sum to 1.

        Raises:
            EmbInvError: for a model that was not trained from left to right, for texts that are too long for its
                table of positions, and for ids and vectors that do not fit each other or this model.
        """
        check_causal(self.config)
        vectors = check_embeddings(embeddings, self.config.embedding_dim).to(self.device)
        ids = check_ids(ids, len(vectors), self.config.vocab_size).to(self.device)
        warn_of_rows(ids, "ids", self.config, self.generation_config.suppress_tokens)
        if not len(ids):
            return torch.zeros(0, device=ids.device, dtype=torch.float32)
        text = text_positions(ids, self.config.eos_token_id)
        width = int(text.sum(dim=1).max())
        check_length(self, width, num_unread=1)  # nothing is predicted from the last token
        ids, text = ids[:, :width], text[:, :width]
        parts = torch.arange(len(ids)).split(max(1, TOKENS // width))
        return torch.cat([self._causal_log_likelihood(ids[part], text[part], vectors[part]) for part in parts])

    def _causal_log_likelihood(self, ids: Tensor, text: Tensor, vectors: Tensor) -> Tensor:
        """(B,) of texts (B, L) whose tokens are where `text` (B, L) is true, in one pass."""
        positions = text.flatten().nonzero().squeeze(1)
        losses = self(ids, vectors, None, positions=positions, targets=ids.flatten()[positions], causal=True).losses
        return losses.new_zeros(len(ids)).index_add_(0, positions // ids.shape[1], -losses)


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
