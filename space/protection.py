"""Vectors as a cautious database would store them, and what that costs the search that they were made for."""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from inverter import Inverter
from torch import Tensor
from torch.nn.functional import normalize

# held-out sentences that the search must tell a visitor's lines from; their source is in the file's first line
BACKGROUND = Path(__file__).with_name("background.txt")
NEAREST = 10


@dataclass(frozen=True)
class Protection:
    """How vectors are stored.

    Attributes:
        noise: λ, standard deviation of Gaussian noise on every number (vec2text's λ; a unit vector of 384 has ±0.05).
        is_int8: rounded to 255 steps between plus and minus the largest number of each vector.
        dims: how many of the first numbers are kept; the others are stored as 0. None keeps all.
    """

    noise: float = 0.0
    is_int8: bool = False
    dims: int | None = None

    def cut(self, vectors: Tensor) -> Tensor:
        """(N, D) with the first `dims` numbers alone, at unit length again; whoever queries does this as well."""
        if self.dims is None:
            return vectors
        kept = torch.zeros_like(vectors)
        kept[:, : self.dims] = vectors[:, : self.dims]
        return normalize(kept, dim=-1)

    def stored(self, vectors: Tensor, seed: int = 0) -> Tensor:
        """The vectors (N, D) as they are stored, at unit length."""
        kept = self.cut(vectors)
        draws = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
        noised = kept + self.noise * draws * (kept != 0)  # what is cut off is not stored, and gets no noise
        if self.is_int8:
            step = noised.abs().amax(dim=1, keepdim=True) / 127
            noised = (noised / step).round() * step
        return normalize(noised, dim=-1)


@functools.cache
def background(inverter: Inverter) -> Tensor:
    """(N, D) vectors of the held-out sentences; computed once."""
    return inverter.embed(background_texts())


def background_texts() -> list[str]:
    """The held-out sentences."""
    return [line for line in BACKGROUND.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def recall(lines: Tensor, others: Tensor, protection: Protection) -> float:
    """recall@10 of the protected store: lines (N, D) and others (M, D) are stored, each line is a query.

    The share of the ten vectors nearest to a line, itself apart, that are still among its ten nearest once all are
    stored with protection. The query is not noised: it is made anew, and never stored.
    """
    true = torch.cat([lines, others])
    wanted = _nearest(lines, true)
    found = _nearest(protection.cut(lines), protection.stored(true, seed=1))
    same = (wanted[:, :, None] == found[:, None]).any(dim=2)
    return float(same.float().mean())


def _nearest(queries: Tensor, store: Tensor) -> Tensor:
    """(N, 10) indices of the vectors nearest to each query, which is the store's row of the same number."""
    cosine = queries @ store.T
    cosine.fill_diagonal_(-torch.inf)
    return cosine.topk(NEAREST, dim=1).indices
