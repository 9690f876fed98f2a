"""Vectors as a cautious store would keep them, and what that costs its search: by the defences of `embinv audit`."""

import functools
from dataclasses import dataclass

import numpy as np
from inverter import Inverter

from modeling_embinv.audit import protections
from modeling_embinv.audit.public import public_sentences
from modeling_embinv.audit.retrieval import nearest, originals, utility
from modeling_embinv.vectors_embinv import unit_rows


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

    def cut(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) with the first `dims` numbers alone, at unit length again; whoever queries does this as well."""
        if self.dims is None:
            return vectors
        return unit_rows(protections.first_dimensions(self.dims)(vectors, _generator(0)))[0]

    def stored(self, vectors: np.ndarray, seed: int = 0) -> np.ndarray:
        """The vectors (N, D) as they are stored, at unit length."""
        generator = _generator(seed)
        kept = self.cut(protections.noise(self.noise)(self.cut(vectors), generator))  # what is cut off gets no noise
        return unit_rows(protections.int8(kept, generator) if self.is_int8 else kept)[0]


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@functools.cache
def public_vectors(inverter: Inverter) -> np.ndarray:
    """(N, D) vectors of the public sentences that the search must tell a visitor's lines from; computed once."""
    vectors: np.ndarray = inverter.embed(list(public_sentences())).numpy()
    return vectors


def recall(lines: np.ndarray, others: np.ndarray, protection: Protection) -> float:
    """recall@10 of the protected store: lines (N, D) and others (M, D) are stored, each line is a query, copies once.

    The share of the ten vectors nearest to a line, itself apart, that are still among its ten nearest once all are
    stored with protection. The query is not noised: it is made anew, and never stored.
    """
    true = np.concatenate([lines, others])
    kept = originals(true)
    lines, true = lines[kept[kept < len(lines)]], true[kept]
    own = np.arange(len(lines))
    found = nearest(protection.cut(lines), protection.stored(true, seed=1), own)
    return utility(nearest(lines, true, own), found).recall
