"""Do vectors behave as the encoder's own when they are attacked?

The fingerprint knows an encoder by the variances of its numbers, which relatives of it share: another version, or the
same one with another pooling. Texts that a search writes for a relative's vectors stay far from them, while those of
a few control sentences come near.
"""

from collections.abc import Sequence

import numpy as np

from ..verdicts_embinv import verdict_of
from .attack import Attacker, Recovered, Tier
from .public import public_sentences
from .sample import Sample
from .tiers import TierResult

# control sentences, and words that they have at most: a checkpoint must be able to write them
CONTROLS, MOST_WORDS = 8, 12


def foreign(attacker: Attacker, results: Sequence[TierResult]) -> str | None:
    """What the vectors of attacked rows look like if they are not the encoder's; None where they may be.

    Not where nothing embeds the control sentences, and not where these stay far as well: the checkpoint is weak then.

    Args:
        attacker: the checkpoint, with the encoder.
        results: of the attackers who take the vectors as they are.
    """
    judged = [(result.tier, near) for result in results if (near := nearness(result.recovered)) is not None]
    if attacker.encode is None or not judged or not all(is_far(tier, near) for tier, near in judged):
        return None
    tier, near = max(judged, key=lambda pair: pair[1])
    usual = nearness(attacker.invert(control_sample(attacker), f"control-{tier.name}", tier))
    if usual is None or is_far(tier, usual):
        return None
    return (
        "vectors of another version of this encoder, or ones that were noised or cut, or of texts that this "
        f"checkpoint cannot write: the recovered texts have a median cosine of {near:.2f} with them, control "
        f"sentences of {usual:.2f}"
    )


def nearness(recovered: Recovered) -> float | None:
    """The median cosine of recovered texts with the rows' vectors; None without a judge."""
    return float(np.median(recovered.cosine)) if recovered.cosine else None


def is_far(tier: Tier, cosine: float) -> bool:
    """Whether a cosine by the tier's judge says that the vector is not of the text's kind at all."""
    return verdict_of(cosine, tier.feedback) == "unrelated"


def control_sample(attacker: Attacker) -> Sample:
    """Public sentences with the encoder's vectors."""
    texts = [text for text in public_sentences() if len(text.split()) <= MOST_WORDS][:CONTROLS]
    return Sample(attacker.embedded(texts), np.arange(len(texts)), None, texts, len(texts), "control")
