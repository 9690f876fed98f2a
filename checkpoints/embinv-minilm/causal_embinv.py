"""The second order: the same weights from left to right, for drafts and for the exact likelihood of a text."""

from collections.abc import Callable
from typing import Any
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache
from transformers import DynamicCache

from .errors_embinv import EmbInvError
from .diffusion_embinv import Canvas
from .diffusion_embinv import text_positions

# texts whose logits exist at a time
LOGITS_ROWS = 256


def check_prefix(config: Any) -> None:
    """Raises EmbInvError for a model that has nothing to predict the first token from."""
    if not config.num_condition_tokens:
        raise EmbInvError(
            "left to right needs num_condition_tokens of at least 1: the first token is predicted from the last "
            "condition token, and this model has none."
        )


def check_causal(config: Any) -> None:
    """Raises EmbInvError for a model that never learned to predict from left to right."""
    check_prefix(config)
    if not config.causal_share:
        raise EmbInvError(
            "this checkpoint was not trained from left to right (causal_share is 0 in its config): "
            "choose another strategy, or train with causal_share above 0."
        )


class CausalMixin:
    """Gives a model its likelihood, and the step that decoding from left to right takes."""

    # of the model that this goes into
    __call__: Callable[..., Any]
    config: Any
    decoder: Any
    head: Any
    modulation: Any
    timestep_features: Any
    trunk: Any

    @torch.no_grad()
    def log_likelihood(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """Exact log p(x | e) of whole texts in nats, by the chain rule, in one causal pass.

        Args:
            ids: (B, L) int64, texts with the end token behind them. What follows a first end token does not count; a
                text without one fills its row, and no end is predicted.
            embeddings: e (B, D), unit norm.

        Returns:
            (B,) float32. The probabilities of all rows of L tokens, the empty text among them, sum to 1.

        Raises:
            EmbInvError: for a model that was not trained from left to right.
        """
        check_causal(self.config)
        if not len(ids):
            return torch.zeros(0, device=ids.device)
        text = text_positions(ids, self.config.eos_token_id)
        width = int(text.sum(dim=1).max())
        ids, text = ids[:, :width], text[:, :width]
        positions = text.flatten().nonzero().squeeze(1)
        losses = self(ids, embeddings, None, positions=positions, targets=ids.flatten()[positions], causal=True).losses
        return losses.new_zeros(len(ids)).index_add_(0, positions // ids.shape[1], -losses)

    def next_states(self, ids: Tensor | None, condition: Any, past_key_values: Cache) -> Tensor:
        """The head's output (B, H) from which `decoder` predicts the next token.

        Args:
            ids: (B, n) int64, the tokens that follow those of the cache; None at the start, where the condition
                tokens are read.
            condition: what `condition(embedding, …)` returned, the same at every step.
            past_key_values: keys and values of all that was read before; is given those of `ids`.
        """
        embeds = condition.prefix if ids is None else self.trunk.token_embeddings(ids)
        timestep = torch.zeros(len(embeds), device=embeds.device)
        modulation = condition.modulation + self.modulation.of_timestep(self.timestep_features(timestep))
        hidden = self.trunk(embeds, modulation[:, :-1], causal=True, past_key_values=past_key_values)
        return self.head(hidden[:, -1:], modulation[:, -1])[:, 0]


class CausalSampler(Protocol):
    """What `write_left_to_right` needs of a `Sampler`, which imports this file."""

    model: Any
    config: Any
    condition: Any
    canvas: Canvas
    barred_ids: Tensor | None
    draws: Tensor | None
    num_forward_passes: int

    def _choose(
        self, logits: Tensor, starts: Tensor, barred: Tensor | None, draws: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...

    def _record(self) -> None: ...


def write_left_to_right(sampler: CausalSampler) -> None:
    """Fill the canvas of a `Sampler` from left to right, one token of every unfinished text a pass.

    1. The condition tokens are read; their last state predicts the first token.
    2. A token is chosen where the canvas is masked, else the known one stays: it is seen from the next pass on.
    3. The tokens of this position alone go through the network: a cache holds keys and values of all before.
    4. Texts with an end token leave, and their rows of the cache.

    Raises:
        EmbInvError: for a model that was not trained from left to right.
    """
    model = sampler.model
    check_causal(model.config)
    count, length = sampler.canvas.ids.shape
    branches = torch.arange(len(sampler.condition.modulation) // max(count, 1), device=sampler.canvas.ids.device)
    cache, active, condition = DynamicCache(), torch.arange(count, device=branches.device), sampler.condition
    for position in range(length):
        going = sampler.canvas.masked[active].any(dim=1)
        if not going.any():
            break
        if not going.all():  # guidance has a second row of each text, behind all first ones
            cache.batch_select_indices(going.repeat(len(branches)).nonzero().squeeze(1))
            active = active[going]
            condition = sampler.condition.rows((active + count * branches[:, None]).flatten())
        before = None
        if position:
            before = sampler.canvas.ids[active, position - 1 : position].repeat(len(branches), 1)
        states = model.next_states(before, condition, cache).unflatten(0, (len(branches), -1))
        sampler.num_forward_passes += 1
        _commit(sampler, states, active, position)


def _commit(sampler: CausalSampler, states: Tensor, active: Tensor, position: int) -> None:
    """Choose the token at `position` of the rows `active` (A,) from the head's output (1 or 2, A, H)."""
    parts = [
        _choose(sampler, states[:, part], active[part], position)
        for part in torch.arange(len(active), device=active.device).split(LOGITS_ROWS)
    ]
    tokens, confidence = (torch.cat(values)[:, None] for values in zip(*parts, strict=True))
    canvas = sampler.canvas.rows(active)
    here = torch.arange(canvas.ids.shape[1], device=active.device) == position
    canvas = canvas.commit(tokens, confidence, here.expand_as(canvas.ids))
    sampler.canvas.ids[active], sampler.canvas.confidence[active] = canvas.ids, canvas.confidence
    sampler._record()


def _choose(sampler: CausalSampler, states: Tensor, rows: Tensor, position: int) -> tuple[Tensor, Tensor]:
    """Tokens and their probabilities, (A,) each, of some rows."""
    logits = sampler.model.decoder(states)  # (1 or 2, A, V)
    if len(logits) == 2:
        conditional, null = logits.float().log_softmax(dim=-1)
        logits = (null + sampler.config.guidance_scale * (conditional - null))[None]
    starts = torch.full_like(rows, position == 0, dtype=torch.bool)
    barred = None if sampler.barred_ids is None else sampler.barred_ids[rows, position]
    draws = None if sampler.draws is None else sampler.draws[rows, 0, 0, position]
    return sampler._choose(logits[0], starts, barred, draws)
