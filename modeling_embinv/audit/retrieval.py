"""How well a store still searches: rankings of defended vectors beside those of the undefended ones."""

from typing import NamedTuple

import numpy as np

TOP = 10


class Utility(NamedTuple):
    """Means over queries, 1 for the undefended store.

    Attributes:
        recall: share of the ten nearest vectors that are still among the ten nearest.
        ndcg: nDCG@10, where the nearest vector is worth ten, the next nine, and so on.
    """

    recall: float
    ndcg: float


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
    """Compares rankings.

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
