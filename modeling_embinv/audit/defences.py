"""What a defence costs in search, and what it keeps from the attacker.

The attacker is the released checkpoint with its surrogate, who does not know the defence. One who trains on defended
vectors recovers more; only against the rotation is such an attacker tried here, with pairs that are known.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors_embinv import EmbInvError
from ..vectors_embinv import unit_rows
from .attack import Attacker
from .figures import Figure
from .findings import measure
from .retrieval import TOP, Utility, nearest, utility
from .sample import Sample, subset

# rows that are attacked under each defence, and that utility is measured on
ATTACKED, STORED, QUERIES = 50, 5000, 500
NOISE = (0.01, 0.02, 0.03, 0.05)
# search that keeps this share of the ten nearest is called useful
USEFUL = 0.8
Protect = Callable[[np.ndarray, np.random.Generator], np.ndarray]


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


@dataclass(frozen=True)
class DefenceResult:
    """What a defence costs and buys.

    Attributes:
        name, family: of the defence.
        utility: of search.
        words: share of content words that come back. cosine: mean, of defended with true vectors.
        advice: one sentence.
    """

    name: str
    family: str
    utility: Utility
    words: Figure
    cosine: float
    advice: str


@dataclass(frozen=True)
class DefenceReport:
    """All defences, the undefended store first; and how many known pairs break a rotation."""

    results: list[DefenceResult]
    rows: int
    stored: int
    pairs: list[tuple[int, float]]
    left_out: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        results = [{**asdict(one), "utility": one.utility._asdict()} for one in self.results]
        pairs = [{"pairs": count, "cosine": cosine} for count, cosine in self.pairs]
        return {**asdict(self), "results": results, "pairs": pairs, "attacker": "released checkpoint, not retrained"}


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


def procrustes(protected: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """(D, D) the orthogonal matrix that turns protected vectors (m, D) best into the plain ones (m, D)."""
    from scipy.linalg import orthogonal_procrustes

    return np.asarray(orthogonal_procrustes(protected, plain)[0])


FAMILIES = ("noise", "int8", "binary", "dimensions", "rotation", "combinations")


def parse_families(given: str) -> tuple[str, ...]:
    """The words of `--defences`, with commas between them; "all" = all.

    Raises:
        EmbInvError: an unknown word.
    """
    names = tuple(dict.fromkeys(part.strip() for part in given.split(",")))
    if unknown := [name for name in names if name not in (*FAMILIES, "all")]:
        raise EmbInvError(f"--defences {unknown[0][:40]!r} is unknown; give all, or some of {', '.join(FAMILIES)}.")
    return FAMILIES if "all" in names else names


def defences(families: Sequence[str], width: int, seed: int) -> Iterator[Defence]:
    """The defences of these families for vectors of a width, the gentle ones first."""
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
    return (one for one in found if one.family in families)


def compare(attacker: Attacker, sample: Sample, stored: Sample, families: Sequence[str]) -> DefenceReport:
    """Tries each defence: the leak on the sample, search on the store.

    Args:
        attacker: who inverts the defended vectors, without the encoder.
        sample: rows with texts, of the store or planted.
        stored: rows of the store, for search.
        families: of `FAMILIES`.

    Raises:
        EmbInvError: a store too small for search.
    """
    if len(stored.rows) <= TOP:
        raise EmbInvError(
            f"--defences needs more than {TOP} vectors to search among; the store holds {len(stored.rows)}."
        )
    part = sample.take(subset(len(sample.rows), ATTACKED, attacker.seed))
    trial = _Trial(attacker, part, unit_rows(stored.vectors)[0].astype(np.float64))
    results = [trial.run(Defence("none", "none", lambda vectors, _: vectors), None)]
    for defence in defences(families, part.vectors.shape[1], attacker.seed):
        results.append(trial.run(defence, results[0]))
    pairs: list[tuple[int, float]] = []
    if "rotation" in families:
        pairs = trial.known_pairs()
        if broken := next((count for count, cosine in pairs if cosine >= USEFUL), None):
            results.append(trial.run(trial.turned_back(broken), results[0]))
    left_out = {"product quantisation": "not measured by this version"} if set(families) == set(FAMILIES) else {}
    return DefenceReport(results, len(part.rows), len(stored.rows), pairs, left_out)


@dataclass
class _Trial:
    """Defences on one sample.

    Attributes:
        attacker, part: who attacks which rows.
        stored: (N, D) unit vectors of the store.
    """

    attacker: Attacker
    part: Sample
    stored: np.ndarray

    def __post_init__(self) -> None:
        self.own = subset(len(self.stored), QUERIES, self.attacker.seed)
        self.true = nearest(self.stored[self.own], self.stored, self.own)
        self.turn = rotation(self.stored.shape[1], self.attacker.seed)

    def run(self, defence: Defence, bare: DefenceResult | None) -> DefenceResult:
        """What a defence costs and buys; `bare` is the undefended store."""
        generator = np.random.default_rng(self.attacker.seed)
        plain = unit_rows(self.part.vectors)[0].astype(np.float64)
        leaked = unit_rows(defence.protect(plain, generator))[0]
        name = f"defence-{defence.name.replace(' ', '-')}"
        recovered = self.attacker.invert(self.part._replace(vectors=leaked), name, self.attacker.vectors_tier)
        words = measure(self.part.texts or [], recovered.texts, {}, seed=self.attacker.seed)["words"]
        kept = unit_rows(defence.protect(self.stored, generator))[0]
        search = utility(self.true, nearest(unit_rows(defence.query(self.stored[self.own]))[0], kept, self.own))
        cosine = float((leaked * plain).sum(axis=1).mean())
        return DefenceResult(
            defence.name, defence.family, search, words, cosine, advice(defence.family, search, words, bare)
        )

    def known_pairs(self) -> list[tuple[int, float]]:
        """(number of known pairs, mean cosine of other vectors, turned back by them, with the true ones)."""
        order = np.random.default_rng(self.attacker.seed).permutation(len(self.stored))
        width, found = self.stored.shape[1], []
        for count in (width // 16, width // 8, width // 4, width // 2, width, 2 * width):
            known, others = order[:count], order[count : count + QUERIES]
            if len(known) == count and len(others):
                plain = self.stored[others]
                back = plain @ self.turn @ self._turn_back(known)
                found.append((count, float((back * plain).sum(axis=1).mean())))
        return found

    def turned_back(self, count: int) -> Defence:
        """The rotation against an attacker who knows `count` pairs."""
        known = np.random.default_rng(self.attacker.seed).permutation(len(self.stored))[:count]
        back = self.turn @ self._turn_back(known)
        return Defence(
            f"rotation, {count} pairs known",
            "rotation",
            lambda vectors, _: vectors @ back,
            lambda queries: queries @ back,
        )

    def _turn_back(self, known: np.ndarray) -> np.ndarray:
        return procrustes(self.stored[known] @ self.turn, self.stored[known])


def advice(family: str, search: Utility, words: Figure, bare: DefenceResult | None) -> str:
    """One sentence: does it help, and does search survive it?"""
    if bare is None:
        return "The store as it is."
    helps = words.high < bare.words.low
    if not helps and family == "rotation":
        return "Broken: with these pairs about as much comes back as without it."
    if not helps:
        return "Does not help: what comes back is not clearly less than without it."
    if search.recall < USEFUL:
        return f"Hides words, but spoils search: of the {TOP} nearest, {100 * search.recall:.0f} % are left."
    if family == "rotation":
        return "Hides words only until pairs of text and vector are known; see the table of known pairs."
    if words.value > bare.words.value / 2:
        return "Helps a little: more than half of what came back without it still does."
    return "Helps against this attacker; measure one who trains on defended vectors before relying on it."
