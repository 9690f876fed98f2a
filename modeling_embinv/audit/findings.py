"""How much of the texts came back, beside guesses that never saw their vectors."""

from collections.abc import Sequence

import numpy as np

from ..evaluation.metrics import token_f1
from .figures import Figure, share
from .words import content_words, words


def measure(
    originals: Sequence[str],
    recovered: Sequence[str],
    floors: dict[str, Sequence[str]],
    cosines: Sequence[float] | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """Figures of n recovered texts; capitals, accents' spelling and punctuation do not count.

    Args:
        originals: n texts.
        recovered: n texts.
        floors: name → n texts that are measured in place of the recovered ones.
        cosines: n cosines of the recovered texts' vectors with the originals'.
        seed: of the intervals.

    Returns:
        "words" (distinct content words of the originals that came back, of all), "f1" (mean F1 of the sets of words),
        "exact" (texts of which every word came back, in order, and no other) and "cosine", where they are measured.
    """
    wanted = [content_words(text) for text in originals]
    totals = [len(one) for one in wanted]
    figures = {
        "words": share(
            _hits(wanted, recovered), totals, {name: _hits(wanted, texts) for name, texts in floors.items()}, seed
        ),
        "f1": share(
            _f1(originals, recovered), None, {name: _f1(originals, texts) for name, texts in floors.items()}, seed
        ),
        "exact": share(
            _exact(originals, recovered),
            None,
            {name: _exact(originals, texts) for name, texts in floors.items()},
            seed,
        ),
        "cosine": None if cosines is None else share(cosines, None, seed=seed),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def other_texts(texts: Sequence[str]) -> list[str]:
    """Each text's place is taken by another one's: what the vector of another text gives."""
    return [*texts[1:], *texts[:1]]


def _hits(wanted: list[set[str]], recovered: Sequence[str]) -> list[float]:
    return [float(len(one & set(words(text)))) for one, text in zip(wanted, recovered, strict=True)]


def _f1(originals: Sequence[str], recovered: Sequence[str]) -> list[float]:
    plain = [[" ".join(words(text)) for text in texts] for texts in (recovered, originals)]
    return token_f1(*plain)


def _exact(originals: Sequence[str], recovered: Sequence[str]) -> list[float]:
    pairs = zip(originals, recovered, strict=True)
    return [float(bool(words(theirs)) and words(theirs) == words(ours)) for theirs, ours in pairs]
