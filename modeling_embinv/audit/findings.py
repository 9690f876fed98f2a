"""How much of the texts came back, beside guesses that do not invert their vectors."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..evaluation.metrics import token_f1
from ..evaluation.other_rows import other_rows
from .figures import Figure, share
from .kinds import KINDS, Entity
from .words import content_words, holds_phrase, text_key, words

Floors = Mapping[str, Sequence[str]]
Phrases = Sequence[tuple[str, ...]]


class KindFigures(NamedTuple):
    """Of the entities of a kind: the share that came back whole, and the share of their words that came back."""

    whole: Figure
    words: Figure


def measure(
    originals: Sequence[str],
    recovered: Sequence[str],
    floors: Floors,
    cosines: Sequence[float] | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """Figures of n recovered texts; capitals and punctuation do not count.

    Args:
        originals: n texts; those without a word do not count.
        recovered: n texts.
        floors: name → n texts that are measured in place of the recovered ones.
        cosines: n cosines of the recovered texts' vectors with the originals'.
        seed: of the intervals.

    Returns:
        "words" (distinct content words of the originals that came back, of all), "f1" (mean F1 of the sets of words),
        "exact" (texts of which every word came back, in order, and no other) and "cosine", where they are measured.
    """
    wanted = [content_words(text) for text in originals]
    has_words = [int(bool(words(text))) for text in originals]

    def hits(texts: Sequence[str]) -> list[float]:
        return [float(len(one & set(words(text)))) for one, text in zip(wanted, texts, strict=True)]

    def f1(texts: Sequence[str]) -> list[float]:
        return token_f1([" ".join(words(text)) for text in texts], [" ".join(words(text)) for text in originals])

    def exact(texts: Sequence[str]) -> list[float]:
        pairs = zip(originals, texts, strict=True)
        return [float(bool(words(theirs)) and words(theirs) == words(ours)) for theirs, ours in pairs]

    totals = [len(one) for one in wanted]
    figures = {"words": share(hits(recovered), totals, {name: hits(texts) for name, texts in floors.items()}, seed)}
    for name, score in (("f1", f1), ("exact", exact)):
        beside = {floor: score(texts) for floor, texts in floors.items()}
        figures[name] = share(score(recovered), has_words, beside, seed)
    figures["cosine"] = None if cosines is None else share(cosines, None, seed=seed)
    return {name: figure for name, figure in figures.items() if figure is not None}


def measure_kinds(
    entities: Sequence[Sequence[Entity]], recovered: Sequence[str], floors: Floors, seed: int = 0
) -> dict[str, KindFigures]:
    """Figures of each kind that the originals hold.

    An entity came back whole if its words stand side by side, in their order, in the recovered text.

    Args:
        entities: those of n originals.
        recovered: n texts.
        floors: as of `measure`.
        seed: of the intervals.
    """
    figures = {}
    for kind in KINDS:
        own = [[one.words for one in row if one.kind == kind] for row in entities]
        whole = _share(own, recovered, floors, seed, found_whole, len)
        parts = _share(own, recovered, floors, seed, _parts, lambda phrases: sum(map(len, phrases)))
        if whole is not None and parts is not None:
            figures[kind] = KindFigures(whole, parts)
    return figures


def _share(
    phrases: Sequence[Phrases], recovered: Sequence[str], floors: Floors, seed: int,
    hits: Callable[[Phrases, list[str]], int], total: Callable[[Phrases], int],
) -> Figure | None:  # fmt: skip
    def of(texts: Sequence[str]) -> list[float]:
        return [float(hits(own, words(text))) for own, text in zip(phrases, texts, strict=True)]

    totals = [total(own) for own in phrases]
    return share(of(recovered), totals, {name: of(texts) for name, texts in floors.items()}, seed)


def found_whole(phrases: Phrases, text: list[str]) -> int:
    """How many of the phrases stand in the words of a text, each side by side and in its order."""
    return sum(holds_phrase(text, list(phrase)) for phrase in phrases)


def _parts(phrases: Phrases, text: list[str]) -> int:
    return sum(word in text for phrase in phrases for word in phrase)


def other_texts(recovered: Sequence[str], originals: Sequence[str] | None = None) -> list[str]:
    """What the vector of another text gives: of each row, the text recovered from a later one; [] without another.

    Args:
        recovered: n texts.
        originals: n texts, of which some may be alike; None = no two are.
    """
    keys = range(len(recovered)) if originals is None else [text_key(text) for text in originals]
    return [recovered[row] for row in other_rows(keys)]
