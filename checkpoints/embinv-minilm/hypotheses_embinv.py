"""What a search holds: the vectors that texts are searched for, the texts, and what it reports after a round."""

from dataclasses import dataclass
from dataclasses import fields
from itertools import repeat

import torch
from torch import Tensor


@dataclass
class Targets:
    """The vectors e (B, D) that texts are searched for, each with a generator of its own.

    So no text depends on the others of its batch, and equal vectors get different noise. index: (B,) their rows among
    the vectors of the whole search, for `SearchRound`; by default these are all of them.
    """

    vectors: Tensor
    generators: list[torch.Generator]
    index: Tensor | None = None

    def __post_init__(self) -> None:
        if self.index is None:
            self.index = torch.arange(len(self.vectors))

    @classmethod
    def of(cls, vectors: Tensor, generator: torch.Generator | None) -> "Targets":
        """Generators whose seeds are drawn from `generator`, one number a row."""
        device = "cpu" if generator is None else generator.device
        seeds = [int(torch.randint(2**31, (1,), generator=generator, device=device)) for _ in vectors]
        return cls(vectors, [torch.Generator().manual_seed(seed) for seed in seeds])

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, index: Tensor) -> "Targets":
        """Those of the rows `index`."""
        assert self.index is not None  # `__post_init__` fills it in
        generators = [self.generators[row] for row in index.tolist()]
        return Targets(self.vectors[index], generators, self.index[index.cpu()])

    def copies(self, count: int, vectors: Tensor | None = None) -> "Targets":
        """Each `count` times, or `vectors` (B · count, D) in their place."""
        vectors = self.vectors.repeat_interleave(count, dim=0) if vectors is None else vectors
        return Targets(vectors, [generator for one in self.generators for generator in repeat(one, count)])

    def draws(self, count: int, width: int) -> Tensor:
        """(B · count, width) uniform in [0, 1), `count` rows from each generator."""
        rows = [torch.rand(count, width, generator=generator, dtype=torch.float32) for generator in self.generators]
        return torch.cat(rows).to(self.vectors.device)


@dataclass
class Hypotheses:
    """K texts for each of B vectors, the best first.

    ids: (B, K, L). vectors: (B, K, D), 0 without a judge. cosine: (B, K) of them with e. log_p: (B, K, L) of each
    token of the text given e and about half of the others, 0 behind its end. score: (B, K) cosine + λ · mean log p.
    """

    ids: Tensor
    vectors: Tensor
    cosine: Tensor
    log_p: Tensor
    score: Tensor

    @classmethod
    def of(cls, ids: Tensor, vectors: Tensor, cosine: Tensor) -> "Hypotheses":
        """Texts whose likelihood is not computed yet."""
        return cls(ids, vectors, cosine, torch.zeros(ids.shape, device=ids.device, dtype=torch.float32), cosine)

    @classmethod
    def joined(cls, parts: list["Hypotheses"], dim: int) -> "Hypotheses":
        """Those of several vectors (dim 0), or more texts for the same vectors (dim 1)."""
        return cls(*(torch.cat([getattr(part, name) for part in parts], dim=dim) for name in NAMES))

    def rows(self, index: Tensor) -> "Hypotheses":
        """Those of the vectors `index`."""
        return Hypotheses(*(getattr(self, name)[index] for name in NAMES))

    def put(self, index: Tensor, other: "Hypotheses") -> None:
        """Replace those of the vectors `index`."""
        for name in NAMES:
            getattr(self, name)[index] = getattr(other, name)

    def best(self, count: int) -> "Hypotheses":
        """The `count` best different ones; where there are fewer, the last ones repeat."""
        order = self.score.masked_fill(repeated(self.ids), -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank = torch.arange(count, device=order.device).clamp_max(order.shape[1] - 1)
        return Hypotheses(*(pick(getattr(self, name), order[:, rank]) for name in NAMES))

    def worst(self) -> Tensor:
        """(B,) the lowest score, −∞ where one of the texts is a copy."""
        return self.score.masked_fill(repeated(self.ids), -torch.inf).amin(dim=1)


NAMES = tuple(field.name for field in fields(Hypotheses))


def pick(values: Tensor, order: Tensor) -> Tensor:
    """values (B, K, …) at order (B, k) → (B, k, …)."""
    return values[torch.arange(len(values), device=values.device)[:, None], order]


def repeated(ids: Tensor) -> Tensor:
    """(B, K) bool: rows of ids (B, K, L) that stand further left, too."""
    if ids.shape[-1] > 1:  # a number for each text
        _, number = ids.flatten(0, 1).unique(dim=0, return_inverse=True)
        ids = number.view(*ids.shape[:2], 1)
    ordered, order = ids[..., 0].sort(dim=1, stable=True)  # of equal ones, the leftmost comes first
    again = torch.nn.functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return torch.zeros_like(again).scatter(1, order, again)


@dataclass(frozen=True)
class SearchRound:
    """What a search has after each round, as `on_round` of `generate` receives it; round 0 are its first candidates.

    number, total: rounds so far, and at most: a search ends early where all vectors are reached or no text improves.
    rows: (A,) int64, which of the embeddings: all, or as many as memory holds, or those that no search has reached.
    sequences: (A, L) int64, the best text of each in this search, its end token when it has one, then padding.
    cosine: (A,) of its vector with e, by the judge of the round.
    judge: "surrogate" or "encoder"; None where candidates are ranked by likelihood alone, and the cosine is 0.
    """

    number: int
    total: int
    rows: Tensor
    sequences: Tensor
    cosine: Tensor
    judge: str | None
