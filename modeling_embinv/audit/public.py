"""600 sentences of Mozilla Common Voice (CC0), which nobody's store is about: floors, and false alarms."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..vectors_embinv import unit_rows

_FILE = Path(__file__).with_name("public_sentences.txt")


@cache
def public_sentences() -> tuple[str, ...]:
    """The sentences."""
    return tuple(_FILE.read_text(encoding="utf-8").splitlines())


def nearest_texts(texts: Sequence[str], known: np.ndarray, vectors: np.ndarray) -> list[str]:
    """The text whose vector is nearest to each of the vectors (n, D).

    Args:
        texts: m texts. known: (m, D), their unit vectors.
        vectors: (n, D), of any length.
    """
    return [texts[index] for index in (unit_rows(vectors)[0] @ known.T).argmax(axis=1)]
