"""How well a store still searches: its own ranking beside the undefended one, and a labelled set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..vectors_embinv import unit_rows
from .protections import Defence
from .severity import SAME_TEXT

TOP = 10
# vectors compared at a time
BLOCK = 500
_FILE = Path(__file__).with_name("retrieval_set.txt")


class Utility(NamedTuple):
    """Means over queries.

    Attributes:
        recall: share of the vectors that should be among the ten nearest which are.
        ndcg: nDCG@10.
    """

    recall: float
    ndcg: float


@cache
def labelled_texts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """300 sentences, and for each the rest of its passage."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    queries, passages = zip(*(line.split("\t") for line in lines if not line.startswith("#")), strict=True)
    return queries, passages


@dataclass(frozen=True)
class LabelledSet:
    """Queries of which each has one passage that it is about.

    Attributes:
        queries, passages: (300, D) unit vectors, in the same order.
    """

    queries: np.ndarray
    passages: np.ndarray

    def utility(self, defence: Defence, generator: np.random.Generator) -> Utility:
        """How often the passage is among the ten nearest to its query, and how high; passages are defended."""
        stored = unit_rows(defence.protect(self.passages, generator))[0]
        cosine = unit_rows(defence.query(self.queries))[0] @ stored.T
        rank = (cosine > np.diag(cosine)[:, None]).sum(axis=1)  # passages that are nearer
        is_found = rank < TOP
        return Utility(float(is_found.mean()), float((is_found / np.log2(rank + 2)).mean()))


def originals(vectors: np.ndarray) -> np.ndarray:
    """(n,) indices of the unit vectors (N, D) that are no copy of an earlier one: whichever is found is right."""
    kept: list[int] = []
    for start in range(0, len(vectors), BLOCK):
        cosine = vectors[start : start + BLOCK] @ vectors[: start + BLOCK].T
        is_copy = (np.tril(cosine, start - 1) >= SAME_TEXT).any(axis=1)
        kept += (start + np.flatnonzero(~is_copy)).tolist()
    return np.array(kept, int)


def nearest(queries: np.ndarray, stored: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(q, TOP) indices of the stored vectors nearest to each query, by cosine, without the query's own.

    Args:
        queries: (q, D). stored: (N, D), both of length 1.
        own: (q,) index of each query in the store.
    """
    cosine = queries @ stored.T
    cosine[np.arange(len(queries)), own] = -np.inf
    return np.argsort(-cosine, axis=1, kind="stable")[:, :TOP]


def utility(true: np.ndarray, found: np.ndarray) -> Utility:
    """Compares rankings; in nDCG the nearest vector is worth ten, the next nine, and so on.

    Args:
        true: (q, k) indices, the nearest first, of the undefended store.
        found: (q, k) of the defended one.
    """
    size = true.shape[1]
    same = found[:, :, None] == true[:, None, :]  # (q, k, k)
    worth = same @ np.arange(size, 0, -1)  # (q, k), 0 for a vector that is none of the true ones
    discount = 1 / np.log2(np.arange(2, size + 2))
    best = (np.arange(size, 0, -1) * discount).sum()
    return Utility(float(same.any(axis=2).mean()), float((worth @ discount).mean() / best))


def at_recall(recall: float, points: Sequence[tuple[float, float]]) -> float | None:
    """A value at this recall, on the line through the points (recall, value); None beyond them."""
    ordered = sorted(points)
    if not ordered or not ordered[0][0] <= recall <= ordered[-1][0]:
        return None
    recalls, values = np.array(ordered).T
    return float(np.interp(recall, recalls, values))
