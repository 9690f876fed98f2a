"""Changes of stored vectors that are called defences: noise, quantisation, fewer dimensions, a secret rotation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError

NOISE = (0.01, 0.02, 0.03, 0.05)
# numbers of a vector that product quantisation turns into one byte
NUMBERS_A_BYTE = (4, 8)
# values of a byte, and the vectors that each needs at least to be learned
_CODES, _VECTORS_A_CODE = 256, 10
Protect = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FAMILIES = ("noise", "int8", "binary", "pq", "dimensions", "rotation", "combinations")


@dataclass(frozen=True)
class Defence:
    """A change of the stored vectors.

    Attributes:
        name: as the report calls it.
        family: the word of `--defences`.
        protect: unit vectors (N, D), a generator of noise → (N, D) as an attacker would read them.
        query: what is done to a query before it is searched for: (q, D) → (q, D).
    """

    name: str
    family: str
    protect: Protect
    query: Callable[[np.ndarray], np.ndarray] = lambda queries: queries


class Defences(NamedTuple):
    """What is tried, the gentle ones of a family first; and name → why it is not."""

    tried: list[Defence]
    left_out: dict[str, str]


BARE = Defence("none", "none", lambda vectors, _: vectors)


def parse_families(given: str) -> tuple[str, ...]:
    """The words of `--defences`, with commas between them; "all" = all.

    Raises:
        EmbInvError: an unknown word.
    """
    names = tuple(dict.fromkeys(part.strip() for part in given.split(",")))
    if unknown := [name for name in names if name not in (*FAMILIES, "all")]:
        raise EmbInvError(f"--defences {unknown[0][:40]!r} is unknown; give all, or some of {', '.join(FAMILIES)}.")
    return FAMILIES if "all" in names else names


def defences(families: Sequence[str], stored: np.ndarray, seed: int) -> Defences:
    """The defences of these families for a store.

    Args:
        families: of `FAMILIES`.
        stored: (N, D) unit vectors of the store, from which product quantisation learns its codes.
        seed: of the rotation.
    """
    width, left_out = stored.shape[1], {}
    turn = rotation(width, seed)
    both = noise(0.02)
    found = [
        *(Defence(f"noise {scale:g}", "noise", noise(scale)) for scale in NOISE),
        Defence("int8", "int8", int8),
        Defence("binary", "binary", binary),
        *(Defence(f"first {kept} numbers", "dimensions", first_dimensions(kept)) for kept in (width // 2, width // 4)),
        Defence("secret rotation", "rotation", lambda vectors, _: vectors @ turn, lambda queries: queries @ turn),
        Defence(
            "noise 0.02 + int8", "combinations", lambda vectors, generator: int8(both(vectors, generator), generator)
        ),
        Defence(
            "rotation + noise 0.02", "combinations", lambda vectors, generator: both(vectors @ turn, generator),
            lambda queries: queries @ turn,
        ),
    ]  # fmt: skip
    if "pq" in families:
        try:
            found += _quantisers(stored)
        except EmbInvError as error:
            left_out["product quantisation"] = str(error)
    order = sorted((one for one in found if one.family in families), key=lambda one: FAMILIES.index(one.family))
    return Defences(order, left_out)


def noise(scale: float) -> Protect:
    """Gaussian noise of this standard deviation on every number."""
    return lambda vectors, generator: vectors + scale * generator.standard_normal(vectors.shape)


def int8(vectors: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """255 steps between plus and minus the largest number of each vector."""
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    return np.rint(vectors / step) * step


def binary(vectors: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The signs."""
    return np.where(vectors < 0, -1.0, 1.0)


def first_dimensions(kept: int) -> Protect:
    """The first numbers; an attacker who expects more takes 0 for the others."""
    return lambda vectors, _: vectors * (np.arange(vectors.shape[1]) < kept)


def rotation(width: int, seed: int) -> np.ndarray:
    """(D, D) a random orthogonal matrix."""
    matrix, upper = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    return np.asarray(matrix * np.sign(np.diag(upper)))


def product_quantisation(stored: np.ndarray, size: int) -> Protect:
    """Vectors as `size` bytes each give them back, whose codes are learned from a store's vectors (N, D)."""
    import faiss

    quantiser: Any = faiss.ProductQuantizer(stored.shape[1], size, 8)  # its types are those of C++
    quantiser.cp.min_points_per_centroid = 1  # the library warns of fewer than 39, the report of fewer than 10
    quantiser.train(np.ascontiguousarray(stored, np.float32))

    def protect(vectors: np.ndarray, _: np.random.Generator) -> np.ndarray:
        codes = quantiser.compute_codes(np.ascontiguousarray(vectors, np.float32))
        return np.asarray(quantiser.decode(codes), np.float64)

    return protect


def _quantisers(stored: np.ndarray) -> Iterator[Defence]:
    """Product quantisation in both sizes.

    Raises:
        EmbInvError: it cannot be tried, and why.
    """
    count, width = stored.shape
    try:
        import faiss  # noqa: F401 – looked for before anything is learned
    except ImportError as error:
        raise EmbInvError("needs FAISS: pip install 'embinv[faiss]'") from error
    if count < _CODES * _VECTORS_A_CODE:
        raise EmbInvError(
            f"learns its codes from {_CODES * _VECTORS_A_CODE:,} vectors or more, the store has {count:,}"
        )
    if width % max(NUMBERS_A_BYTE):
        raise EmbInvError(f"cuts vectors into pieces of {max(NUMBERS_A_BYTE)} numbers, and they have {width}")
    for numbers in NUMBERS_A_BYTE:
        size = width // numbers
        yield Defence(f"product, {size} bytes", "pq", product_quantisation(stored, size))
