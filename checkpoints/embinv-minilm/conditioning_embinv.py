"""How the vector and the timestep reach the trunk: projector, modulations, condition tokens."""

import math
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .linear_embinv import Linear
from .linear_embinv import linear


class ConditionSizes(Protocol):
    """What these layers read of the model's configuration."""

    @property
    def embedding_dim(self) -> int:
        """D, width of the vectors."""

    @property
    def hidden_size(self) -> int:
        """H, width of the trunk."""

    @property
    def timestep_features(self) -> int:
        """F, number of features φ(t)."""

    @property
    def num_condition_tokens(self) -> int:
        """P, prefix positions."""


class ConditionProjector(nn.Module):
    """c = W2·GELU(W1·e + b1) + b2 (Eq. 5), or the learned null condition.

    e has unit norm, so its entries have variance 1/D: the factor √D, which W1 could absorb, gives them variance 1.
    """

    def __init__(self, config: ConditionSizes) -> None:
        super().__init__()
        self.scale = math.sqrt(config.embedding_dim)
        self.dense_in = nn.Linear(config.embedding_dim, config.hidden_size)
        self.dense_out = nn.Linear(config.hidden_size, config.hidden_size)
        self.null_condition = nn.Parameter(torch.zeros(config.hidden_size))

    def initialize(self, std: float) -> None:
        """The null condition at random; both layers keep the variance of e's entries."""
        init.normal_(self.null_condition, std=std)
        for dense in (self.dense_in, self.dense_out):
            init.normal_(dense.weight, std=dense.in_features**-0.5)
            init.zeros_(dense.bias)

    def forward(self, embedding: Tensor, condition_mask: Tensor | None = None) -> Tensor:
        """embedding e (B, D), condition_mask (B,) bool, false for the null condition → c (B, H)."""
        hidden = self.dense_in(embedding.to(self.dense_in.weight.dtype) * self.scale)
        condition = self.dense_out(nn.functional.gelu(hidden))
        if condition_mask is None:
            return condition
        return torch.where(condition_mask[:, None], condition, self.null_condition.to(condition.dtype))


class TimestepFeatures(nn.Module):
    """φ(t): sines and cosines of t at frequencies from 1 to 1,000, geometrically spaced."""

    def __init__(self, config: ConditionSizes) -> None:
        super().__init__()
        self.num_frequencies = config.timestep_features // 2

    def forward(self, timestep: Tensor) -> Tensor:
        """t (B,) → φ(t) (B, F) float32."""
        steps = torch.arange(self.num_frequencies, device=timestep.device, dtype=torch.float32)
        exponents = steps / max(self.num_frequencies - 1, 1)
        angles = timestep.float()[:, None] * 1000.0**exponents
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Modulation(nn.Linear):
    """(Δγ, Δβ) of all norms from [φ(t), c] in one matrix product (Eqs. 6–9), zero at the start for every t and c.

    The features are scaled to unit length, about, so that one step of Adam, which moves every weight by the learning
    rate, moves γ and β by about √(F + H) learning rates, not by F + H: steps of 0.2 in each norm wreck a trunk.
    """

    def __init__(self, config: ConditionSizes, num_norms: int) -> None:
        super().__init__(config.timestep_features + config.hidden_size, num_norms * 2 * config.hidden_size, bias=False)
        self.shape = (num_norms, 2, config.hidden_size)
        self.scale = self.in_features**-0.5

    def initialize(self, std: float) -> None:
        """Zero, so that the network starts as its backbone."""
        init.zeros_(self.weight)

    def of_timestep(self, features: Tensor) -> Tensor:
        """φ(t) (B, F) → its share of (Δγ, Δβ) (B, num_norms, 2, H)."""
        return self._product(features, self.weight[:, : features.shape[1]])

    def of_condition(self, condition: Tensor) -> Tensor:
        """c (B, H) → its share of (Δγ, Δβ) (B, num_norms, 2, H)."""
        return self._product(condition, self.weight[:, -condition.shape[1] :])

    def _product(self, features: Tensor, weight: Tensor) -> Tensor:
        return linear(features.to(weight.dtype) * self.scale, weight).unflatten(1, self.shape)


class Hypothesis(NamedTuple):
    """Texts that are to be corrected: ids (B, L) int64, ends behind each, and their vectors ê (B, D)."""

    ids: Tensor
    vectors: Tensor

    def rows(self, index: Tensor) -> "Hypothesis":
        """Those of the rows `index`."""
        return Hypothesis(self.ids[index], self.vectors[index])


@dataclass
class Condition:
    """What does not change from pass to pass: what e tells the network.

    modulation: (B, num_norms, 2, H). prefix: (B, P, H) or None. positions: of the prefix, (P,) int64, where it holds a
    hypothesis, too, and all of it is seen by all; None where they count from 0.
    """

    modulation: Tensor
    prefix: Tensor | None
    positions: Tensor | None = None

    def rows(self, index: Tensor) -> "Condition":
        """Those of the rows `index`."""
        return Condition(self.modulation[index], None if self.prefix is None else self.prefix[index], self.positions)

    def order(self, num_condition_tokens: int, count: int, first: int | None = None) -> dict[str, Any]:
        """What a causal pass of the trunk is told of positions; nothing where they count from 0.

        Args:
            num_condition_tokens: P, the position of a text's first token.
            count: tokens of the text in the pass.
            first: the first of them; None when the prefix goes before them.
        """
        if self.positions is None:
            return {}
        text = torch.arange(count, device=self.positions.device) + num_condition_tokens + (first or 0)
        positions = torch.cat([self.positions, text]) if first is None else text
        return {"positions": positions, "num_seen": len(self.positions)}


def condition_of_copies(model: Any, embeddings: Tensor) -> Condition:
    """What e (B, D) tells a model, once for neighbouring equal rows: a search writes many texts for a vector."""
    different, number = torch.unique_consecutive(embeddings, return_inverse=True, dim=0)
    condition: Condition = model.condition(different)
    return condition if len(different) == len(number) else condition.rows(number)


class ConditionTokens(Linear):
    """Prefix positions projected from the condition: (B, H) → (B, P, H)."""

    def __init__(self, config: ConditionSizes) -> None:
        super().__init__(config.hidden_size, config.num_condition_tokens * config.hidden_size)
        self.shape = (config.num_condition_tokens, config.hidden_size)

    def forward(self, condition: Tensor) -> Tensor:
        """Condition c (B, H) → the prefix (B, P, H)."""
        return super().forward(condition).unflatten(1, self.shape)
