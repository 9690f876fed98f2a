"""The attacker who knows some texts of a store, or of one that is defended alike, beside their vectors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from .alignment import Alignment, align
from .attack import Attacker, Recovered, Tier
from .embedding import embedded
from .kinds import KindFinder
from .public import public_sentences
from .retrieval import labelled_texts
from .sample import Sample
from .tiers import TierResult, beside_known, run_tier
from .words import text_key, without

# pairs that are used at most, and that are needed at least
MOST, FEWEST = 5000, 20


class KnownPairs(NamedTuple):
    """Texts and their vectors.

    Attributes:
        texts: m texts.
        held: (m, D) as the store holds them.
        true: (m, D) as the encoder makes them.
    """

    texts: Sequence[str]
    held: np.ndarray
    true: np.ndarray


def known_pairs(pairs: Sample, attacked: Sample, encode: Callable[..., Any]) -> KnownPairs:
    """Pairs that an attacker knows, each text once, without those of the rows that are attacked.

    Copies of a pair would lie among those that a map is fitted to and among those that judge it, see `align`.

    Args:
        pairs: with texts.
        attacked: rows of the store.
        encode: N texts → (N, D).

    Raises:
        EmbInvError: fewer than `FEWEST` are left, or vectors of another width than the store's.
    """
    if pairs.vectors.shape[1] != attacked.vectors.shape[1]:
        raise EmbInvError(
            f"--pairs: vectors of {pairs.vectors.shape[1]} numbers, the store's have {attacked.vectors.shape[1]}; "
            "give texts with their vectors as the store holds them."
        )
    held = {row.tobytes() for row in attacked.vectors}
    texts, seen, kept = pairs.texts or [], set(map(text_key, attacked.texts or [])), []
    for index, (text, row) in enumerate(zip(texts, pairs.vectors, strict=True)):
        if row.tobytes() not in held and text_key(text) not in seen:
            kept.append(index)
            seen.add(text_key(text))
    if len(kept) < FEWEST:
        raise EmbInvError(
            f"--pairs: {len(kept)} pairs of different texts, without those that are attacked; at least {FEWEST} are "
            "needed."
        )
    chosen = [texts[index] for index in kept]
    return KnownPairs(chosen, pairs.vectors[kept], embedded(encode, chosen))


def public_texts(attacked: Sequence[str]) -> list[str]:
    """The 1,200 public texts of the package, without those that are attacked."""
    return without((*public_sentences(), *sum(labelled_texts(), ())), attacked)


def run_pairs_tier(
    attacker: Attacker, sample: Sample, pairs: KnownPairs, limit: int, finder: KindFinder | None
) -> tuple[TierResult, Alignment]:
    """Aligns the sample by the pairs, fine-tunes the checkpoint on them where that is wanted, and attacks.

    Args:
        attacker: with the encoder.
        sample: the rows.
        pairs: none of these rows.
        limit: rows that are attacked.
        finder: of entities.
    """
    alignment = align(pairs.held, pairs.true, attacker.seed)
    aligned = alignment.apply(pairs.held)
    if attacker.train_steps:
        attacker = attacker.trained_on(pairs.texts, aligned, "pairs", attacker.train_steps)
    holds = f"a copy of the vectors, the encoder, and {len(pairs.texts):,} known pairs of text and vector"
    attacked = sample._replace(vectors=alignment.apply(sample.vectors))
    result = run_tier(attacker, attacked, Tier("pairs", holds, "encoder", limit=limit), finder)
    return beside_known(result, pairs.texts, aligned, attacker.seed), alignment


def recover(
    attacker: Attacker, leaked: Sample, pairs: KnownPairs, name: str
) -> tuple[Alignment, dict[str, Recovered]]:
    """What comes back from defended vectors by what pairs teach: a linear map, and a checkpoint that is fine-tuned.

    Args:
        attacker: judges by the checkpoint's surrogate.
        leaked: the defended rows.
        pairs: of other texts, defended alike.
        name: of the files of unfinished work.

    Returns:
        The map; and "adapted", unless the map leaves the vectors as they are, and "re-trained", where that is wanted.
    """
    alignment, tier = align(pairs.held, pairs.true, attacker.seed), attacker.vectors_tier
    aligned, found = leaked._replace(vectors=alignment.apply(leaked.vectors)), {}
    if alignment.kind != "none":
        found["adapted"] = attacker.invert(aligned, f"{name}-adapted", tier)
    if attacker.train_steps:
        label = f"{name}-re-trained"
        trained = attacker.trained_on(pairs.texts, alignment.apply(pairs.held), label, attacker.train_steps)
        found["re-trained"] = trained.invert(aligned, label, tier)
    return alignment, found
