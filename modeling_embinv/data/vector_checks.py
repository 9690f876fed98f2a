"""What makes a row no vector of an encoder: the checks of single rows, and what a wrong width looks like."""

import warnings

import numpy as np

from ..errors_embinv import EmbInvError

# Encoders whose vectors are often met, by width.
FAMILIAR = {
    384: "all-MiniLM-L6-v2, bge-small or e5-small",
    512: "CLIP or distiluse",
    768: "all-mpnet-base-v2, bge-base or e5-base",
    1024: "bge-large, e5-large, Cohere or Voyage",
    1536: "OpenAI's text-embedding-3-small or ada-002",
    3072: "OpenAI's text-embedding-3-large",
}


def bad_rows(vectors: np.ndarray) -> dict[int, str]:
    """Index → what is wrong, of those rows of (N, D) numbers that have no direction."""
    finite = np.isfinite(vectors).all(axis=1)
    bad = dict.fromkeys(np.flatnonzero(~finite).tolist(), "holds NaN or infinity")
    return bad | dict.fromkeys(np.flatnonzero(finite & (_norms(vectors) == 0)).tolist(), "is all zeros")


def check_vectors(vectors: np.ndarray, embedding_dim: int, first_row: int = 0) -> np.ndarray:
    """Checks vectors from outside and scales them to length 1.

    Args:
        vectors: (N, D) numbers.
        embedding_dim: D, what the model was trained on.
        first_row: the number of `vectors[0]` in the whole file, for messages.

    Returns:
        (N, D) float32 of length 1. Warns if the lengths were off by more than 0.01 (float16 is not).

    Raises:
        EmbInvError: another width, NaN or infinity, or a row of zeros.
    """
    if vectors.ndim != 2 or vectors.shape[1] != embedding_dim:
        raise EmbInvError(f"vectors of shape {vectors.shape} from row {first_row} on; expected (N, {embedding_dim})")
    vectors = as_float32(vectors)
    if bad := bad_rows(vectors):
        row = min(bad)
        raise EmbInvError(f"row {first_row + row} {bad[row]}; an embedding has finite numbers and a direction")
    if (np.abs(_norms(vectors) - 1) > 1e-2).any():
        # always the same words, so that Python shows them once for many batches
        warnings.warn("vectors are not of unit norm; they are scaled to it", stacklevel=2)
    return of_length_one(vectors)


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """float32 numbers in this machine's byte order; what is too large for them becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float32, each row scaled to length 1."""
    return (vectors / _norms(vectors)[:, None]).astype(np.float32)


def sample_warnings(vectors: np.ndarray, encoder: str | None) -> list[str]:
    """What a sample (N, D) of a file's vectors looks like, where it is not what `encoder` gives: a line each."""
    found, norms = [], _norms(vectors)
    whose = f"those of {encoder}" if encoder else "an encoder's"
    if (np.abs(norms - 1) > 1e-2).any():
        lengths = dict.fromkeys(f"{norm:.3g}" for norm in (norms.min(), norms.max()))
        found.append(
            f"vectors of length {' to '.join(lengths)}, not 1 like {whose}; they are scaled to it "
            "(a difference or a mean of vectors is no vector of a text)"
        )
    values = np.unique(vectors) if (vectors == np.rint(vectors)).all() else None
    if values is not None and len(values) <= 2:
        found.append(f"every number is one of two: these look like signs (binary quantisation), not like {whose}")
    elif values is not None and values[0] >= 0:
        found.append(f"whole numbers from 0 on: these look like unsigned quantised vectors, not like {whose}")
    return found


def width_message(width: int, embedding_dim: int, encoder: str | None = None) -> str:
    """Says that vectors of `width` numbers are not the encoder's, of `embedding_dim`, and what they look like."""
    expected = f"vectors of {width} numbers; expected {embedding_dim}" + (f", those of {encoder}" if encoder else "")
    if width * 8 == embedding_dim:
        return f"{expected}. {width} = {embedding_dim} / 8: these look like packed bits, a sign for each number"
    if width in FAMILIAR:
        return f"{expected}. These look like vectors of another encoder ({FAMILIAR[width]} give {width})"
    if 1 < width < embedding_dim:
        return f"{expected}. These look like vectors cut to their first {width} numbers; whole ones are needed"
    return f"{expected}. These look like vectors of another encoder"


def _norms(vectors: np.ndarray) -> np.ndarray:
    # float64, because the square of a small float32 can vanish and that of a large one overflow.
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
