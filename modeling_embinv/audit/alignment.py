"""What known pairs teach: the linear map from vectors as a store holds them to those that the encoder made."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..vectors_embinv import unit_rows

# parts of the pairs, each of which is left out in turn
FOLDS = 5
# penalties of the ridge regression, as shares of the mean eigenvalue
PENALTIES = (0.01, 0.1, 1.0, 10.0)
# by which a map must raise the cosine to be worth it
MARGIN = 0.003
_UNCHANGED = ("none", None)
Map = Callable[[np.ndarray], np.ndarray]


class Alignment(NamedTuple):
    """How an attacker with known pairs changes vectors before they are inverted.

    Attributes:
        kind: "none" where the vectors are best left as they are, else "rotation", "linear", or "rotation and linear".
        apply: (n, D) vectors of the store → (n, D) unit vectors, near to the encoder's.
        pairs: m, how many were known.
        cosine: mean, with the encoder's vectors, of pairs that the map was not fitted to.
    """

    kind: str
    apply: Map
    pairs: int
    cosine: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"known": self.pairs, "map": self.kind, "cosine": self.cosine}


def align(held: np.ndarray, true: np.ndarray, seed: int = 0) -> Alignment:
    """Chooses a map by pairs that are left out in turn: a rotation or none, and ridge regression of what is missing.

    Ridge regression of the difference shrinks the map towards no change, which a few pairs need.

    Args:
        held: (m, D) as the store holds them, of any length.
        true: (m, D) the encoder's vectors of the same texts, m of at least `FOLDS`, no two of them alike.
        seed: of the parts.
    """
    held, true = unit_rows(held)[0].astype(np.float64), unit_rows(true)[0].astype(np.float64)
    cosines: dict[tuple[str, float | None], list[float]] = {}
    for part in np.array_split(np.random.default_rng(seed).permutation(len(held)), FOLDS):
        kept = np.setdiff1d(np.arange(len(held)), part)
        for name, one in _maps(held[kept], true[kept]):
            cosines.setdefault(name, []).extend((one(held[part]) * true[part]).sum(axis=1))
    means = {name: float(np.mean(values)) for name, values in cosines.items()}
    chosen = max(means, key=lambda name: means[name] + (MARGIN if name == _UNCHANGED else 0))
    base, penalty = chosen
    words = [*([base] if base != "none" else []), *(["linear"] if penalty is not None else [])]
    return Alignment(" and ".join(words) or "none", dict(_maps(held, true))[chosen], len(held), means[chosen])


def procrustes(held: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(D, D) the orthogonal matrix that turns vectors (m, D) best into the true ones (m, D)."""
    from scipy.linalg import orthogonal_procrustes

    return np.asarray(orthogonal_procrustes(held, true)[0])


def _maps(held: np.ndarray, true: np.ndarray) -> Iterator[tuple[tuple[str, float | None], Map]]:
    """((rotation or none, penalty or None without a regression), the map that the pairs (m, D) teach)."""
    from scipy.linalg import solve

    for name, turn in (("none", np.eye(held.shape[1])), ("rotation", procrustes(held, true))):
        yield (name, None), partial(_apply, turn, 0.0)
        turned = held @ turn
        mean = turned.mean(axis=0)
        centred, missing = turned - mean, true - turned
        target, few = missing - missing.mean(axis=0), len(held) < held.shape[1]  # of few pairs the smaller equations
        moments, known = (centred @ centred.T, target) if few else (centred.T @ centred, centred.T @ target)
        for penalty in PENALTIES:
            ridge = penalty * np.trace(moments) / len(moments)
            change = solve(moments + ridge * np.eye(len(moments)), known, assume_a="pos")
            change = centred.T @ change if few else change
            yield (name, penalty), partial(_apply, turn + turn @ change, missing.mean(axis=0) - mean @ change)


def _apply(matrix: np.ndarray, shift: np.ndarray | float, vectors: np.ndarray) -> np.ndarray:
    return unit_rows(unit_rows(vectors)[0] @ matrix + shift)[0]
