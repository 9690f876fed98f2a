"""The second stage's part: what a hypothesis and its own vector tell the denoiser."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Hypothesis:
    """Texts that the denoiser is to improve.

    ids: (B, L), ends behind the text. embedding: ê (B, D), their vectors. mask: (B,) bool, false for rows that have no
    hypothesis; None for all.
    """

    ids: Tensor
    embedding: Tensor
    mask: Tensor | None = None

    def rows(self, index: Tensor) -> "Hypothesis":
        """Those of the rows `index`."""
        return Hypothesis(self.ids[index], self.embedding[index], None if self.mask is None else self.mask[index])


class Correction(nn.Module):
    """What a hypothesis adds: to the condition from ê and e − ê, and to each position from its token there.

    The condition's part starts at zero, the tokens' at half of their embedding: a share that a trunk can read from the
    first step on, where a matrix that starts at zero would take thousands of steps to let a token through.
    """

    def __init__(self, config):
        super().__init__()
        self.scale = math.sqrt(config.embedding_dim)
        self.dense_in = nn.Linear(2 * config.embedding_dim, config.hidden_size)
        self.dense_out = nn.Linear(config.hidden_size, config.hidden_size)
        self.tokens = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, embedding: Tensor, hypothesis: Hypothesis, token_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """e (B, D), its tokens' embeddings (B, L, H) → what is added to the condition (B, H) and to the positions."""
        dtype = self.dense_in.weight.dtype
        own = hypothesis.embedding.to(dtype)
        hidden = self.dense_in(torch.cat([own, embedding.to(dtype) - own], dim=1) * self.scale)
        condition, tokens = self.dense_out(nn.functional.gelu(hidden)), self.tokens(token_embeddings)
        if hypothesis.mask is None:
            return condition, tokens
        return condition * hypothesis.mask[:, None], tokens * hypothesis.mask[:, None, None]
