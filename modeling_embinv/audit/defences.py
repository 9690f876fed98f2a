"""What a defence costs in search, and what it keeps from attackers.

The released attacker does not know the defence. The adapted one knows texts with their defended vectors, and learns
the linear map back to the encoder's vectors from them; the re-trained one fine-tunes the checkpoint on them besides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors_embinv import EmbInvError
from ..vectors_embinv import unit_rows
from .alignment import procrustes
from .attack import Attacker
from .figures import Figure
from .findings import measure
from .known_pairs import KnownPairs, recover
from .protections import BARE, Defence, defences, rotation
from .retrieval import TOP, LabelledSet, Utility, at_recall, labelled_texts, nearest, originals, utility
from .sample import Sample, subset
from .words import content_words

# rows that are attacked under each defence, and that utility is measured on
ATTACKED, STORED, QUERIES = 50, 5000, 500
# search that keeps this share of the ten nearest is called useful
USEFUL = 0.8
ATTACKERS = ("released", "adapted", "re-trained")


@dataclass(frozen=True)
class DefenceResult:
    """What a defence costs and buys.

    Attributes:
        name, family: of the defence.
        utility: of search in the store, beside the undefended ranking.
        labelled: of search in the labelled set; None without the encoder.
        attacks: attacker → share of content words that come back.
        cosine: mean, of defended with true vectors. aligned: the same after the map that pairs teach; None without it.
        noise_words: share that comes back under noise of the same recall, by interpolation; None where no noise that
            was tried has as low a recall, and for noise itself.
        advice: one sentence.
    """

    name: str
    family: str
    utility: Utility
    labelled: Utility | None
    attacks: dict[str, Figure]
    cosine: float
    aligned: float | None
    noise_words: float | None = None
    advice: str = "The store as it is."

    @property
    def strongest(self) -> str:
        """The attacker who recovers most; of equals the one who needs least."""
        return max(self.attacks, key=lambda name: self.attacks[name].value)

    @property
    def words(self) -> Figure:
        """What the strongest attacker recovers."""
        return self.attacks[self.strongest]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        labelled = None if self.labelled is None else self.labelled._asdict()
        found = {"utility": self.utility._asdict(), "labelled": labelled, "words": asdict(self.words)}
        return {**asdict(self), **found, "strongest": self.strongest}


@dataclass(frozen=True)
class DefenceReport:
    """All defences, the undefended store first and the others by search quality.

    Attributes:
        results: of the defences.
        rows: that were attacked. stored: that were searched.
        known: pairs that the adapted attacker knows; 0 where there is none.
        pairs: (number of known pairs, cosine of other vectors, turned back by them), for the rotation.
        left_out: name → why it was not tried.
        planted: whether the rows that were attacked are invented sentences, as the store holds no texts.
    """

    results: list[DefenceResult]
    rows: int
    stored: int
    known: int
    pairs: list[tuple[int, float]]
    left_out: dict[str, str]
    planted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        pairs = [{"pairs": count, "cosine": cosine} for count, cosine in self.pairs]
        return {**asdict(self), "results": [one.as_dict() for one in self.results], "pairs": pairs}


def compare(
    attacker: Attacker, sample: Sample, vectors: np.ndarray, families: Sequence[str], texts: Sequence[str]
) -> DefenceReport:
    """Tries each defence: the leak on the sample, search on the store and on the labelled set.

    Args:
        attacker: who inverts the defended vectors; without the encoder nobody learns from pairs.
        sample: rows with texts, of the store or planted, of which `told_rows` are attacked.
        vectors: (N, D) of the store, for search, as `distinct` gives them.
        families: of `FAMILIES`.
        texts: that the attackers with pairs know, none of the sample's.
    """
    rows = told_rows(sample)
    part = sample.take(rows[subset(len(rows), ATTACKED, attacker.seed)])
    tried, left_out = defences(families, vectors, attacker.seed)
    known, labelled = None, None
    if attacker.encode is None:
        left_out |= dict.fromkeys(("attackers with known pairs", "the labelled set"), "needs the encoder")
    else:
        known = attacker.embedded(texts).astype(np.float64)
        labelled = LabelledSet(*(attacker.embedded(one).astype(np.float64) for one in labelled_texts()))
    trial = _Trial(attacker, part, vectors, texts, known, labelled)
    results = [trial.run(defence) for defence in (BARE, *tried)]
    pairs = trial.rotation_pairs() if "rotation" in families else []
    return DefenceReport(
        judged(results), len(part.rows), len(vectors), 0 if known is None else len(known), pairs, left_out
    )


def told_rows(sample: Sample) -> np.ndarray:
    """The places of the rows whose texts have words that can come back."""
    return np.array([place for place, text in enumerate(sample.texts or []) if content_words(text)], int)


def distinct(stored: Sample) -> np.ndarray:
    """(N, D) the unit vectors of a store for search, of copies the first.

    Raises:
        EmbInvError: fewer than search needs.
    """
    vectors = unit_rows(stored.vectors)[0]
    kept = originals(vectors)
    if len(kept) <= TOP:
        raise EmbInvError(
            f"--defences needs more than {TOP} different vectors to search among; the store holds {len(kept)}."
        )
    return vectors[kept].astype(np.float64)


def judged(results: Sequence[DefenceResult]) -> list[DefenceResult]:
    """Results with their advice and with noise of the same recall, the first as it is and the others by recall."""
    bare, *others = results
    noise = [(one.utility.recall, one.words.value) for one in results if one.family in ("none", "noise")]
    found = []
    for one in sorted(others, key=lambda one: -one.utility.recall):
        matched = at_recall(one.utility.recall, noise) if one.family != "noise" and len(noise) > 1 else None
        found.append(replace(one, noise_words=matched, advice=advice(one, bare)))
    return [bare, *found]


@dataclass
class _Trial:
    """Defences on one sample.

    Attributes:
        attacker, part: who attacks which rows.
        stored: (N, D) unit vectors of the store.
        texts, known: m texts that are known with their vectors, and (m, D) the encoder's; None without the encoder.
        labelled: the labelled set; None without the encoder.
    """

    attacker: Attacker
    part: Sample
    stored: np.ndarray
    texts: Sequence[str]
    known: np.ndarray | None
    labelled: LabelledSet | None

    def __post_init__(self) -> None:
        self.own = subset(len(self.stored), QUERIES, self.attacker.seed)
        self.true = nearest(self.stored[self.own], self.stored, self.own)

    def run(self, defence: Defence) -> DefenceResult:
        """What a defence costs and buys."""
        generator = np.random.default_rng(self.attacker.seed)
        plain = unit_rows(self.part.vectors)[0].astype(np.float64)
        leaked = self.part._replace(vectors=unit_rows(defence.protect(plain, generator))[0])
        kept = unit_rows(defence.protect(self.stored, generator))[0]
        search = utility(self.true, nearest(unit_rows(defence.query(self.stored[self.own]))[0], kept, self.own))
        labelled = None if self.labelled is None else self.labelled.utility(defence, generator)
        name = f"defence-{defence.name.replace(' ', '-').replace(',', '')}"
        recovered = {"released": self.attacker.invert(leaked, name, self.attacker.vectors_tier)}
        aligned = None
        if self.known is not None and defence is not BARE:  # of bare vectors pairs teach nothing new
            held = unit_rows(defence.protect(self.known, generator))[0]
            alignment, more = recover(self.attacker, leaked, KnownPairs(self.texts, held, self.known), name)
            aligned = float((alignment.apply(leaked.vectors) * plain).sum(axis=1).mean())
            recovered |= more
        attacks = {
            who: measure(self.part.texts or [], one.texts, {}, seed=self.attacker.seed)["words"]
            for who, one in recovered.items()
        }
        cosine = float((leaked.vectors * plain).sum(axis=1).mean())
        return DefenceResult(defence.name, defence.family, search, labelled, attacks, cosine, aligned)

    def rotation_pairs(self) -> list[tuple[int, float]]:
        """(number of known pairs, mean cosine of other vectors, turned back by them, with the true ones)."""
        order = np.random.default_rng(self.attacker.seed).permutation(len(self.stored))
        width, found = self.stored.shape[1], []
        turn = rotation(width, self.attacker.seed)
        for count in (width // 16, width // 8, width // 4, width // 2, width, 2 * width):
            rows, others = order[:count], order[count : count + QUERIES]
            if len(rows) == count and len(others):
                plain = self.stored[others]
                back = plain @ turn @ procrustes(self.stored[rows] @ turn, self.stored[rows])
                found.append((count, float((back * plain).sum(axis=1).mean())))
        return found


def advice(one: DefenceResult, bare: DefenceResult) -> str:
    """One sentence: does it help, and does search survive it?"""
    kept, rest = bare.words.low, "What comes back is not clearly less than without it"
    if one.words.high >= kept and one.attacks["released"].high < kept:
        return f"Does not help against who knows pairs of text and vector. {rest}."
    if one.words.high >= kept:
        return f"Does not help. {rest}."
    if one.utility.recall < USEFUL:
        return f"Hides words, but spoils search: of the {TOP} nearest, {100 * one.utility.recall:.0f} % are left."
    if "rotation" in one.name and len(one.attacks) == 1:
        return "Hides words only until pairs of text and vector are known; see the table of known pairs."
    if one.words.value > bare.words.value / 2:
        return "Helps a little: more than half of what came back without it still does."
    return "Helps against the attackers that were tried; one who trains for longer may recover more."
