"""The corrector: a text is written anew, from left to right, beside a hypothesis and the vector that it got.

vec2text's step (arXiv 2310.06816), in the same trunk: what stands to the left of the text is a longer prefix. It
holds the hypothesis, the tokens of its vector ê, those of e − ê, and last those of e, as for a draft. Every position
sees the whole prefix. A token of the hypothesis has the position that it has in a text, so that equal positions find
each other.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .causal_embinv import PLAINLY
from .causal_embinv import check_corrector
from .causal_embinv import check_length
from .conditioning_embinv import Condition
from .conditioning_embinv import Hypothesis
from .errors_embinv import EmbInvError
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_generator
from .inputs_embinv import check_ids
from .inputs_embinv import warn_of_rows
from .sampler_embinv import Sampler


class CorrectionTokens(nn.Module):
    """What marks the parts of a corrector's prefix: a vector for the hypothesis, for ê and for e − ê, (3, H)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.segments = nn.Parameter(torch.zeros(3, hidden_size))

    def initialize(self, std: float) -> None:
        """At random."""
        init.normal_(self.segments, std=std)


def write_plainly(
    model: Any,
    embeddings: Tensor,
    length: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    hypothesis: Hypothesis | None = None,
) -> Tensor:
    """(B, length) texts from left to right with ends behind them: drafts, or corrections of a hypothesis."""
    config = model.generation_config.with_changes(**PLAINLY, temperature=temperature, max_length=length)
    generators = [generator] * len(embeddings)
    return Sampler(model, embeddings, config, generators, hypothesis=hypothesis).run().ids


class CorrectionMixin:
    """Gives a model its corrector."""

    # of the model that this goes into
    config: Any
    condition_tokens: Any
    correction_tokens: Any
    device: Any
    generation_config: Any
    projector: Any
    trunk: Any

    @torch.no_grad()
    def correct(
        self,
        embeddings: Any,
        hypothesis_ids: Any,
        hypothesis_vectors: Any,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Texts written anew, each given a hypothesis and its vector.

        Args:
            embeddings: e (B, D), as in `generate`.
            hypothesis_ids: (B, L) int64, texts with end tokens behind them and no start token before them.
            hypothesis_vectors: ê (B, D), the encoder's vectors of these texts.
            temperature: of the token distribution; 0 takes the most likely token.
            generator: makes sampling repeatable.

        Returns:
            (B, L) int64, texts with end tokens behind them.

        Raises:
            EmbInvError: for a model without a corrector, for texts that are too long for its table of positions, and
                for vectors, ids and a generator that do not fit each other or this model.
        """
        check_corrector(self.config)
        check_generator(generator)
        vectors = check_embeddings(embeddings, self.config.embedding_dim)
        ids = check_ids(hypothesis_ids, len(vectors), self.config.vocab_size, "hypothesis_ids")
        own = check_embeddings(hypothesis_vectors, self.config.embedding_dim, name="hypothesis vector")
        if len(own) != len(vectors):
            raise EmbInvError(
                f"each vector needs its hypothesis: got {len(vectors)} and {len(own)} hypothesis vectors."
            )
        warn_of_rows(ids, "hypothesis_ids", self.config, self.generation_config.suppress_tokens)
        check_length(self, ids.shape[1])
        hypothesis = Hypothesis(ids.to(self.device), own.to(self.device))
        return write_plainly(self, vectors.to(self.device), ids.shape[1], temperature, generator, hypothesis)

    def _correction_condition(self, condition: Condition, embedding: Tensor, hypothesis: Hypothesis) -> Condition:
        """The condition of e with the prefix of a correction."""
        check_corrector(self.config)
        assert condition.prefix is not None  # left to right needs condition tokens
        count, device = condition.prefix.shape[1], embedding.device
        segments = self.correction_tokens.segments
        vectors = torch.stack([hypothesis.vectors, embedding - hypothesis.vectors], dim=1)  # (B, 2, D)
        projected = self.condition_tokens(self.projector(vectors.flatten(0, 1))).unflatten(0, (-1, 2))  # (B, 2, P, H)
        own, missing = (projected + segments[1:, None]).unbind(dim=1)
        tokens = self.trunk.token_embeddings(hypothesis.ids) + segments[0]
        prefix = torch.cat([tokens, own, missing, condition.prefix], dim=1)  # (B, L + 3P, H)
        own_positions = torch.arange(count, device=device)
        text_positions = count + torch.arange(hypothesis.ids.shape[1], device=device)
        return Condition(condition.modulation, prefix, torch.cat([text_positions, own_positions.repeat(3)]))
