"""The second order: the same weights from left to right, for drafts, corrections and likelihoods."""

from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from .errors_embinv import EmbInvError


# from left to right, one text for each vector, whatever a checkpoint's own settings are
PLAINLY = {"strategy": "autoregressive", "guidance_scale": 1.0, "num_draft_beams": 1}


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


def check_length(model: Any, length: int, num_unread: int = 0) -> None:
    """Raises EmbInvError for texts of more tokens than the trunk's table of positions holds behind the condition's.

    num_unread: tokens of each text that are no input, and take no position.
    """
    room = model.trunk.num_positions
    most = None if room is None else room - model.config.num_condition_tokens + num_unread
    if most is not None and length > most:
        raise EmbInvError(f"texts of {length} tokens are too long: this model reads {most} at most.")


def check_corrector(config: Any) -> None:
    """Raises EmbInvError for a model that never learned to correct."""
    if not config.correction_share:
        raise EmbInvError(
            "this checkpoint has no corrector (correction_share is 0 in its config): leave num_rewrites at 0, or "
            "train with correction_share above 0."
        )


@contextmanager
def _cached(layers: Iterable[Any]) -> Iterator[None]:
    """Layers that use a cache inside the `with` block: the library's checkpointing, in training, would drop it."""
    checkpointed = [layer for layer in layers if layer.gradient_checkpointing]
    for layer in checkpointed:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for layer in checkpointed:
            layer.gradient_checkpointing = True


class CausalMixin:
    """Gives a model the states of texts, and the step that decoding from left to right takes."""

    # of the model that this goes into
    config: Any
    head: Any
    modulation: Any
    timestep_features: Any
    trunk: Any

    def causal_condition(self, condition: Any) -> Any:
        """A condition for `next_states`: with the share of t, which is 0 from left to right."""
        timestep = torch.zeros(1, device=condition.modulation.device)  # the same for all rows
        share = self.modulation.of_timestep(self.timestep_features(timestep))
        return replace(condition, modulation=condition.modulation + share)

    def causal_states(self, ids: Tensor, condition: Any) -> Tensor:
        """The head's output (B, L, H) of texts (B, L): from row i, `decoder` predicts token i.

        condition: what `causal_condition` returned.
        """
        prefix = condition.prefix.shape[1]
        embeds = torch.cat([condition.prefix, self.trunk.token_embeddings(ids[:, :-1])], dim=1)
        order = condition.order(self.config.num_condition_tokens, ids.shape[1] - 1)
        hidden = self.trunk(embeds, condition.modulation[:, :-1], causal=True, **order)
        states: Tensor = self.head(hidden[:, prefix - 1 :], condition.modulation[:, -1])
        return states

    def next_states(self, ids: Tensor | None, condition: Any, cache: Cache) -> Tensor:
        """The head's output (B, H) from which `decoder` predicts the next token.

        Args:
            ids: (B, n) int64, the tokens that follow those of the cache; None at the start, where the condition
                tokens are read.
            condition: what `causal_condition` returned, the same at every step.
            cache: keys and values of all that was read before; is given those of `ids`.
        """
        embeds = condition.prefix if ids is None else self.trunk.token_embeddings(ids)
        first = None if ids is None else cache.get_seq_length() - condition.prefix.shape[1]
        order = condition.order(self.config.num_condition_tokens, 0 if ids is None else ids.shape[1], first)
        modulation = condition.modulation
        with _cached(self.trunk.layers):
            hidden = self.trunk(embeds, modulation[:, :-1], causal=True, cache=cache, **order)
        return self.head(hidden[:, -1:], modulation[:, -1])[:, 0]
