"""600 sentences of Mozilla Common Voice (CC0), which nobody's store is about: floors, and false alarms."""

from functools import cache
from pathlib import Path

import numpy as np

from ..vectors_embinv import unit_rows

_FILE = Path(__file__).with_name("public_sentences.txt")


@cache
def public_sentences() -> tuple[str, ...]:
    """The sentences."""
    return tuple(_FILE.read_text(encoding="utf-8").splitlines())


def nearest_texts(known: np.ndarray, vectors: np.ndarray) -> list[str]:
    """The public sentence whose vector is nearest to each of the vectors (n, D).

    Args:
        known: (600, D), the vectors of `public_sentences`.
        vectors: (n, D), of any length.
    """
    sentences = public_sentences()
    return [sentences[index] for index in (unit_rows(vectors)[0] @ known.T).argmax(axis=1)]
