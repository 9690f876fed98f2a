"""Embedding many texts, with a bar."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..progress.bar import RowBar

# so many texts take seconds
MANY = 100
# texts between two moves of the bar: the encoder sorts these by length, and of fewer it is slower
STEP = 512


def embedded(encode: Callable[..., Any], texts: Sequence[str], show: bool = True) -> np.ndarray:
    """(N, D) float32 the vectors of N texts.

    Args:
        encode: n texts → (n, D).
        texts: N texts.
        show: whether to show a bar where there are many.
    """
    parts = []
    with RowBar(len(texts), show and len(texts) >= MANY, leave=False, name="embedding", row="text") as bar:
        for start in range(0, max(len(texts), 1), STEP):
            part = list(texts[start : start + STEP])
            parts.append(np.asarray(encode(part), dtype=np.float32))
            bar.reach(bar.reached + len(part))
    return np.concatenate(parts)
