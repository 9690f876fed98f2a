"""Which of a list of guesses are in the store? Needs the encoder, and no inverter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from .figures import Figure, share
from .hits import redacted
from .nearest_rows import Batches, NearestRows
from .public import public_sentences
from .severity import alarm_severity
from .words import words

# share of decoys that may raise an alarm; how many decoys of each length set the threshold, as many more and so many
# members are tried on it
FALSE_ALARMS, TRIED = 0.01, 300
# words of a guess: guesses of one class are judged by decoys of its lengths
CLASSES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 10**9))
Encode = Callable[..., Any]


@dataclass(frozen=True)
class Rates:
    """Of guesses of one class of lengths; all rates are against the same vectors as the guesses, the whole store's.

    Attributes:
        fewest, most: words.
        guesses: how many there are.
        threshold: cosine from which a guess raises an alarm, by 300 pieces of public sentences.
        decoys: other such pieces that were tried. false_alarms: the share of them above the threshold.
        members: pieces of the sample's own texts that were tried; 0 where there are none. true_alarms: likewise.
        on_topic: the share of these pieces that raise an alarm by a row of another text than their own: false alarms
            of guesses about the store's subject, which are far more frequent.
    """

    fewest: int
    most: int
    guesses: int
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
        number: its line in the list, from 1, which names it where its text is hidden.
        text: as it was given.
        cosine: with the nearest vector of the store.
        collection, row, id: of that vector.
        is_alarm: whether the cosine is above the threshold of its class.
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
    """All guesses, the nearest first, and how far alarms can be trusted.

    Attributes:
        ranking: the guesses.
        rates: of each class of lengths.
        rows: vectors of the store, with all of which they were compared.
    """

    ranking: list[Guess]
    rates: list[Rates]
    rows: int

    @property
    def alarms(self) -> list[Guess]:
        """Those that raise an alarm."""
        return [guess for guess in self.ranking if guess.is_alarm]

    @property
    def figure(self) -> Figure | None:
        """The share of guesses that raise an alarm, beside that of unrelated texts; None without a guess."""
        found = share([float(guess.is_alarm) for guess in self.ranking])
        return found and replace(found, floors={"unrelated texts": self.false_alarms})

    @property
    def false_alarms(self) -> float:
        """The share of unrelated texts, of the guesses' lengths, that raise an alarm."""
        return self._mean([one.false_alarms for one in self.rates])

    @property
    def on_topic(self) -> float | None:
        """The same of texts on the store's subject; None where the store holds no texts."""
        shares = [one.on_topic for one in self.rates if one.on_topic is not None]
        return self._mean(shares) if len(shares) == len(self.rates) else None

    @property
    def severity(self) -> str:
        """By the levels of `GUESS_LEVELS`; "none" without an alarm."""
        nearest = max((guess.cosine for guess in self.alarms), default=0.0)
        rate = max(self.false_alarms, FALSE_ALARMS)
        return alarm_severity(len(self.alarms), len(self.ranking), nearest, rate, self.on_topic)

    def _mean(self, shares: Sequence[float]) -> float:
        return float(np.average(shares, weights=[one.guesses for one in self.rates]))

    def as_dict(self, reveal: bool) -> dict[str, Any]:
        """As JSON has it; guesses that raise an alarm are recovered text, and redacted as such."""
        ranking = [asdict(guess) for guess in self.ranking]
        for guess in ranking:
            guess["text"] = guess["text"] if reveal else redacted(guess["text"])
        return {
            "rows": self.rows, "alarms": len(self.alarms), "severity": self.severity,
            "rates": [asdict(rates) for rates in self.rates], "ranking": ranking,
        }  # fmt: skip


class _Class(NamedTuple):
    """Guesses of one class of lengths, and what they are judged by.

    Attributes:
        fewest, most: words.
        indices: of the guesses.
        decoys: pieces of public sentences; every other one sets the threshold, the others are tried on it.
        members: pieces of the store's texts.
    """

    fewest: int
    most: int
    indices: list[int]
    decoys: NearestRows
    members: NearestRows

    def rates(self) -> Rates:
        """How often decoys and members raise an alarm, when the whole store was read."""
        threshold = float(np.quantile(self.decoys.cosine[::2], 1 - FALSE_ALARMS, method="higher"))
        tried, members = self.decoys.cosine[1::2], self.members
        shares = (float((one > threshold).mean()) if len(one) else None for one in (members.cosine, members.others))
        return Rates(
            self.fewest, self.most, len(self.indices), threshold, len(tried), float((tried > threshold).mean()),
            len(members.cosine), *shares,
        )  # fmt: skip


def rank_guesses(
    guesses: Sequence[str], encode: Encode, texts: Sequence[str] | None, batches: Batches, width: int, seed: int
) -> Guesses:
    """Embeds the guesses and compares each with all vectors of a store.

    The threshold of a class is the cosine that 1 % of its decoys reach: pieces of as many words from public sentences.
    Where the texts are known, pieces of them show how many true guesses raise an alarm.

    Args:
        guesses: n texts.
        encode: N texts → (N, D), of unit length.
        texts: some of the store's, where it holds any.
        batches: all rows of the store, with their texts where it holds any; they are read once.
        width: D, numbers of the store's vectors.
        seed: of the pieces.

    Raises:
        EmbInvError: the encoder gives vectors of another width.
    """
    vectors = np.asarray(encode(list(guesses)), dtype=np.float32)
    if vectors.shape[1] != width:
        raise EmbInvError(
            f"the encoder of the guesses gives vectors of {vectors.shape[1]} numbers, the store's have {width}: name "
            "the encoder that made them with --encoder."
        )
    found, classes = NearestRows(vectors), list(_classes(guesses, encode, texts or (), seed))
    for collection, batch in batches:
        for one in (found, *(part for own in classes for part in (own.decoys, own.members))):
            one.add(collection, batch)
    ranking, rates = [], []
    for own in classes:
        rates.append(own.rates())
        for index in own.indices:
            cosine = float(found.cosine[index])
            chance = float((own.decoys.cosine >= cosine).mean())
            is_alarm = cosine > rates[-1].threshold
            ranking.append(Guess(index + 1, guesses[index], cosine, *found.rows[index], is_alarm, chance))
    ranking.sort(key=lambda guess: (guess.chance, -guess.cosine))
    return Guesses(ranking, rates, found.total)


def _classes(guesses: Sequence[str], encode: Encode, texts: Sequence[str], seed: int) -> Iterator[_Class]:
    """The classes that have guesses, with their pieces embedded."""
    generator = np.random.default_rng(seed)
    lengths = np.array([max(len(words(guess)), 1) for guess in guesses])
    for fewest, most in CLASSES:
        own = np.flatnonzero((lengths >= fewest) & (lengths <= most))
        if not len(own):
            continue
        sizes = lengths[own]
        decoys, _ = _pieces(public_sentences(), 2 * TRIED, sizes, generator)
        members, origins = _pieces(texts, TRIED, sizes, generator)
        yield _Class(
            fewest, int(sizes.max()) if most > 10**6 else most, own.tolist(),
            NearestRows(encode(decoys)), NearestRows(encode(members), origins),
        )  # fmt: skip


def _pieces(
    texts: Sequence[str], count: int, sizes: np.ndarray, generator: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Runs of words from as many texts, of the lengths that the guesses have, and the texts that they are from."""
    found, origins = [], []
    for index in generator.permutation(len(texts))[:count]:
        size, whole = int(generator.choice(sizes)), texts[index].split()
        start = int(generator.integers(max(len(whole) - size, 0) + 1))
        if piece := " ".join(whole[start : start + size]):
            found.append(piece)
            origins.append(texts[index])
    return found, origins
