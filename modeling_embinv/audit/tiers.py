"""Each attacker tried on the sample, and what that measures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .attack import Attacker, Recovered, Tier
from .figures import Figure, share
from .findings import measure, other_texts
from .sample import Sample, subset

OTHER_TEXT = "another text's vector"


@dataclass(frozen=True)
class TierResult:
    """What an attacker reads.

    Attributes:
        tier: the attacker.
        sample: the rows that were attacked.
        recovered: their texts.
        figures: as `measure` names them; without texts in the store there are none.
        expected: mean confidence, the share of tokens that the checkpoint expects to be right.
    """

    tier: Tier
    sample: Sample
    recovered: Recovered
    figures: dict[str, Figure]
    expected: Figure | None


def run_tier(attacker: Attacker, sample: Sample, tier: Tier) -> TierResult:
    """Inverts the sample, or a part of it by the tier's limit, and measures what came back."""
    part = sample
    if tier.limit is not None and tier.limit < len(sample.rows):
        part = sample.take(subset(len(sample.rows), tier.limit, attacker.seed))
    recovered = attacker.invert(part, tier.name, tier)
    figures: dict[str, Figure] = {}
    if part.texts is not None:
        floors: dict[str, Sequence[str]] = {OTHER_TEXT: other_texts(recovered.texts)} if len(part.rows) > 1 else {}
        figures = measure(part.texts, recovered.texts, floors, cosines(attacker, part, recovered), attacker.seed)
    return TierResult(tier, part, recovered, figures, share(recovered.confidence, seed=attacker.seed))


def cosines(attacker: Attacker, sample: Sample, recovered: Recovered) -> list[float] | None:
    """(n,) of the recovered texts' vectors with the sample's: by the encoder, else as the judge saw them."""
    if attacker.encode is None:
        return recovered.cosine
    ours: Any = np.asarray(attacker.encode(recovered.texts), dtype=float)
    theirs = sample.vectors / np.linalg.norm(sample.vectors.astype(float), axis=1, keepdims=True)
    return list(map(float, (ours * theirs).sum(axis=1)))
