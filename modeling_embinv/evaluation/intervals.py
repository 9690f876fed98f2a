"""95 % intervals of shares over rows, which weigh whole rows: the words of one come back together."""

import numpy as np
from numpy.typing import NDArray

# share of the draws beyond each end of an interval
TAIL = 0.025
# draws of the rows' weights, and the rows whose weights are held at once
DRAWS, CHUNK = 4000, 1000

Floats = NDArray[np.floating]


def share_interval(parts: Floats, wholes: Floats, seed: int = 0) -> tuple[float, float]:
    """Both ends of the interval of Σ parts / Σ wholes over rows, parts and wholes (N,), each part at most its whole.

    The bound of Learned-Miller and Thomas for means of bounded values (arXiv 1905.06208): rows have random weights,
    among them one row more of which nothing came back (lower end) or everything (upper end). Of rows that are right or
    wrong as a whole it is the exact interval of Clopper and Pearson. A bootstrap in its place is too narrow for few
    rows and near 0 and 1. It holds for wholes of about one size; of very unequal ones, and few rows, it covers the
    true share in 74 to 87 of 100 samples.
    """
    found, counts = parts[wholes > 0], wholes[wholes > 0]
    rows, value = len(found), found.sum() / counts.sum()
    if rows == 1 and 0 < value < 1:
        return 0.0, 1.0  # one row says nothing of how rows differ
    if (found * counts[0] == found[0] * counts).all():  # the bound in closed form
        bound = TAIL ** (1 / rows)
        return float(bound * value), float(1 - bound * (1 - value))
    if (counts == counts[0]).all() and ((found == 0) | (found == counts)).all():
        return _exact_interval(int((found > 0).sum()), rows)
    generator = np.random.default_rng(seed)
    more = generator.standard_exponential(DRAWS) * counts.mean()
    own, total = np.zeros(DRAWS), more.copy()
    # rows that are alike share the sum of their weights
    (found, counts), repeats = np.unique(np.stack([found, counts]), axis=1, return_counts=True)
    for first in range(0, len(repeats), CHUNK):
        chunk = slice(first, first + CHUNK)
        weights = generator.standard_gamma(repeats[chunk], (DRAWS, len(repeats[chunk])))
        own += weights @ found[chunk]
        total += weights @ counts[chunk]
    return float(np.quantile(own / total, TAIL)), float(np.quantile((own + more) / total, 1 - TAIL))


def _exact_interval(hits: int, rows: int) -> tuple[float, float]:
    """Both ends of the interval of Clopper and Pearson (1934) of a share that is neither 0 nor 1."""
    from scipy.special import betaincinv  # here, as the import takes a while

    return float(betaincinv(hits, rows - hits + 1, TAIL)), float(betaincinv(hits + 1, rows - hits, 1 - TAIL))
