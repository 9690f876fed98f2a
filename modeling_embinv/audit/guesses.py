"""Which of a list of guesses are in the store? Needs the encoder, and no inverter."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..vectors_embinv import unit_rows
from .hits import redacted
from .public import public_sentences
from .sample import Sample
from .words import words

# share of decoys that may raise an alarm, and how many decoys and members of each length are tried
FALSE_ALARMS, TRIED = 0.01, 300
# words of a guess: guesses of one class are judged by decoys of its lengths
CLASSES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 10**9))


@dataclass(frozen=True)
class Rates:
    """Of guesses of one class of lengths.

    Attributes:
        fewest, most: words.
        threshold: cosine from which a guess raises an alarm.
        decoys: pieces of public sentences that were tried. false_alarms: the share of them above the threshold.
        members: pieces of the sample's own texts that were tried; 0 where there are none. true_alarms: likewise.
        on_topic: the share of these pieces that raise an alarm by another row than their own: false alarms of guesses
            about the store's subject, which are far more frequent.
    """

    fewest: int
    most: int
    threshold: float
    decoys: int
    false_alarms: float
    members: int
    true_alarms: float | None
    on_topic: float | None


@dataclass(frozen=True)
class Guess:
    """One guess.

    Attributes:
        number: of the guess in the given list, from 1, which names it where its text is hidden.
        text: as it was given.
        cosine: with the nearest vector of the sample.
        collection, row, id: of that vector; see `Sample`.
        is_alarm: whether the cosine reaches the threshold of its class.
        chance: the share of decoys that come as near.
    """

    number: int
    text: str
    cosine: float
    collection: str | None
    row: int
    id: str | None
    is_alarm: bool
    chance: float


@dataclass(frozen=True)
class Guesses:
    """All guesses, the nearest first, and how far alarms can be trusted."""

    ranking: list[Guess]
    rates: list[Rates]
    rows: int

    def as_dict(self, reveal: bool) -> dict[str, Any]:
        """As JSON has it; guesses that raise an alarm are recovered text, and redacted as such."""
        ranking = [asdict(guess) for guess in self.ranking]
        for guess in ranking:
            guess["text"] = guess["text"] if reveal else redacted(guess["text"])
        return {"rows": self.rows, "rates": [asdict(rates) for rates in self.rates], "ranking": ranking}


def rank_guesses(
    guesses: Sequence[str], encode: Callable[..., Any], sample: Sample, seed: int
) -> Guesses:  # fmt: skip
    """Embeds the guesses and compares each with all vectors of a sample.

    The threshold of a class is the cosine that 1 % of its decoys reach: pieces of as many words from public sentences.
    Where the texts are known, pieces of them show how many true guesses raise an alarm.

    Args:
        guesses: texts.
        encode: N texts → (N, D).
        sample: the vectors, and their texts where there are any.
        seed: of the pieces.
    """
    unit, keys = unit_rows(sample.vectors)[0], sample.row_keys()
    generator = np.random.default_rng(seed)
    lengths = np.array([len(words(guess)) for guess in guesses])
    nearest = np.asarray(encode(list(guesses)), dtype=np.float32) @ unit.T
    ranking, found = [], []
    for fewest, most in CLASSES:
        own = np.flatnonzero((lengths >= fewest) & (lengths <= most))
        if not len(own):
            continue
        sizes = lengths[own]
        decoys, _ = _scores(_pieces(public_sentences(), sizes, generator), encode, unit)
        members, others = _scores(_pieces(sample.texts or (), sizes, generator), encode, unit)
        threshold = float(np.quantile(decoys, 1 - FALSE_ALARMS, method="higher"))
        found.append(
            Rates(
                fewest, int(sizes.max()) if most > 10**6 else most, threshold, len(decoys),
                float((decoys > threshold).mean()), len(members),
                *(float((scores > threshold).mean()) if len(scores) else None for scores in (members, others)),
            )
        )  # fmt: skip
        for index in own.tolist():
            row = int(nearest[index].argmax())
            cosine = float(nearest[index, row])
            chance = float((decoys >= cosine).mean())
            name = None if sample.ids is None else sample.ids[row]
            ranking.append(Guess(index + 1, guesses[index], cosine, *keys[row], name, cosine > threshold, chance))
    ranking.sort(key=lambda guess: (guess.chance, -guess.cosine))
    return Guesses(ranking, found, len(unit))


def _pieces(texts: Sequence[str], sizes: np.ndarray, generator: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Runs of words from the texts, of the lengths that the guesses have, and the indices of their texts."""
    found, indices = [], []
    for index in generator.permutation(len(texts))[:TRIED]:
        size, whole = int(generator.choice(sizes)), texts[index].split()
        start = int(generator.integers(max(len(whole) - size, 0) + 1))
        if piece := " ".join(whole[start : start + size]):
            found.append(piece)
            indices.append(index)
    return found, np.array(indices, dtype=int)


def _scores(
    pieces: tuple[list[str], np.ndarray], encode: Callable[..., Any], unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of each piece with the nearest of the unit vectors (n, D), and with the nearest but its own text's."""
    texts, indices = pieces
    if not texts:
        return np.empty(0), np.empty(0)
    cosine = np.asarray(encode(texts), dtype=np.float32) @ unit.T
    nearest = cosine.max(axis=1)
    cosine[np.arange(len(texts)), indices % len(unit)] = -1  # of public sentences nobody reads these
    return nearest, cosine.max(axis=1)
