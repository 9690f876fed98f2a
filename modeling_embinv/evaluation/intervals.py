"""95 % intervals of shares over rows, which draw whole rows: the words of one come back together."""

import numpy as np
from numpy.typing import NDArray

# resamples, and the share of them beyond each end of an interval
RESAMPLES, TAIL = 1000, 0.025
# rows; resamples of fewer vary too little
FEW = 30

Floats = NDArray[np.floating]


def share_interval(parts: Floats, wholes: Floats, seed: int = 0) -> tuple[float, float]:
    """Both ends of the interval of Σ parts / Σ wholes over rows, parts and wholes (N,), each part at most its whole.

    A bootstrap; of fewer than 30 rows, and of rows that are all alike, the bound of Learned-Miller and Thomas for
    means of bounded values (arXiv 1905.06208): a row more of which nothing came back, or everything, is weighed among
    them. Of n rows of which everything came back, its lower end is that of n coins, 0.025^(1 / n).
    """
    found, counts = parts[wholes > 0], wholes[wholes > 0]
    rows, value = len(found), found.sum() / counts.sum()
    if rows == 1 and 0 < value < 1:
        return 0.0, 1.0  # one row says nothing of how rows differ
    if (found * counts[0] == found[0] * counts).all():  # resamples have no spread
        bound = TAIL ** (1 / rows)
        return float(bound * value), float(1 - bound * (1 - value))
    generator = np.random.default_rng(seed)
    if rows < FEW:
        weights = generator.standard_exponential((10 * RESAMPLES, rows))
        more = generator.standard_exponential(10 * RESAMPLES) * counts.mean()
        total, own = weights @ counts + more, weights @ found
        return float(np.quantile(own / total, TAIL)), float(np.quantile((own + more) / total, 1 - TAIL))
    picks = generator.integers(len(parts), size=(RESAMPLES, len(parts)))
    sizes = wholes[picks].sum(axis=1)
    resampled = parts[picks].sum(axis=1)[sizes > 0] / sizes[sizes > 0]
    low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    return float(low), float(high)
