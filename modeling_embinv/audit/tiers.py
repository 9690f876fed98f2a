"""Each attacker tried on the sample, and what that measures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..vectors_embinv import unit_rows
from .attack import Attacker, Recovered, Tier
from .figures import Figure, share
from .findings import KindFigures, measure, measure_kinds, other_texts
from .kinds import Entity, Finder
from .public import nearest_texts, public_sentences
from .sample import Sample, some_rows

OTHER_TEXT, PUBLIC_TEXT = "vector of another text", "nearest public sentence"


@dataclass(frozen=True)
class TierResult:
    """What an attacker reads.

    Attributes:
        tier: the attacker.
        sample: the rows that were attacked.
        recovered: their texts.
        figures: as `measure` names them; without texts in the store there are none.
        kinds: as of `measure_kinds`; none without texts, or without the extra `audit`.
        entities: those of each row's text.
        expected: mean confidence, the share of tokens that the checkpoint expects to be right; None where it was
            never calibrated, or was fine-tuned since.
        nearest: content words that the nearest of the texts that the attacker knows holds, without any inversion;
            None where the attacker knows none.
    """

    tier: Tier
    sample: Sample
    recovered: Recovered
    figures: dict[str, Figure]
    kinds: dict[str, KindFigures]
    entities: list[list[Entity]]
    expected: Figure | None
    nearest: Figure | None = None


def run_tier(attacker: Attacker, sample: Sample, tier: Tier, finder: Finder | None, name: str = "") -> TierResult:
    """Inverts the sample, or a part of it by the tier's limit, and measures what came back.

    Args:
        attacker: the checkpoint.
        sample: the rows.
        tier: who attacks.
        finder: of entities; None = no figures by kind.
        name: of the files with unfinished work; the tier's by default.
    """
    part = sample
    if tier.limit is not None and tier.limit < len(sample.rows):
        part = sample.take(some_rows(sample, tier.limit, attacker.seed))
    recovered = attacker.invert(part, name or tier.name, tier)
    expected = share(recovered.confidence, seed=attacker.seed) if attacker.is_calibrated(tier) else None
    if part.texts is None:
        return TierResult(tier, part, recovered, {}, {}, [], expected)
    floors = _floors(attacker, part, recovered)
    figures = measure(part.texts, recovered.texts, floors, cosines(attacker, part, recovered), attacker.seed)
    entities = finder.find(part.texts) if finder is not None else [[] for _ in part.texts]
    kinds = measure_kinds(entities, recovered.texts, floors, attacker.seed)
    return TierResult(tier, part, recovered, figures, kinds, entities, expected)


def beside_known(result: TierResult, texts: Sequence[str], vectors: np.ndarray, seed: int) -> TierResult:
    """The result, beside what the nearest of m known texts with vectors (m, D) holds of each row's words."""
    if result.sample.texts is None:
        return result
    nearest = nearest_texts(texts, vectors, result.sample.vectors)
    return replace(result, nearest=measure(result.sample.texts, nearest, {}, seed=seed).get("words"))


def cosines(attacker: Attacker, sample: Sample, recovered: Recovered) -> list[float] | None:
    """(n,) of the recovered texts' vectors with the sample's: by the encoder, else as the judge saw them."""
    if attacker.encode is None:
        return recovered.cosine
    ours: Any = np.asarray(attacker.encode(recovered.texts), dtype=float)
    return list(map(float, (ours * unit_rows(sample.vectors)[0]).sum(axis=1)))


def _floors(attacker: Attacker, sample: Sample, recovered: Recovered) -> dict[str, Sequence[str]]:
    """Texts of guesses that do not come from the row's vector, or that nobody had to invert."""
    floors: dict[str, Sequence[str]] = {}
    if others := other_texts(recovered.texts, sample.texts):
        floors[OTHER_TEXT] = others
    if attacker.public_vectors is not None:
        floors[PUBLIC_TEXT] = nearest_texts(public_sentences(), attacker.public_vectors, sample.vectors)
    return floors
