"""Which of a list of guesses are in the store? Needs the encoder, and no inverter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..errors_embinv import EmbInvError
from ..evaluation.intervals import share_interval
from .decoys import FORMS, Forms, sizes_of
from .embedding import embedded
from .figures import Figure, share
from .hits import redacted
from .nearest_rows import Batches, NearestRows
from .severity import SAME_TEXT, alarm_severity

# share of decoys that may raise an alarm; how many decoys of each length set the threshold, as many more and so many
# members are tried on it
FALSE_ALARMS, TRIED = 0.01, 300
# of fewer members no rate is given: one alarm would be a large share of them
FEWEST = 20
# words of a guess of running text: guesses of one class are judged by decoys of its lengths
CLASSES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 10**9))
Encode = Callable[..., Any]


@dataclass(frozen=True)
class Rates:
    """Of guesses of one class; all rates are against the same vectors as the guesses, the whole store's.

    Attributes:
        fewest, most: words.
        guesses: how many there are.
        threshold: cosine from which a guess raises an alarm, by 300 decoys.
        decoys: others that were tried. false_alarms: the share of them above the threshold.
        members: pieces of the sample's own texts that were tried, of texts besides which the store holds others.
        true_alarms: the share of them above the threshold; None for fewer than 20.
        on_topic: the share of these pieces that raise an alarm by a row of another text than their own: false alarms
            of guesses about the store's subject, which are far more frequent. None for fewer than 20.
        form: one of `FORMS`; classes of lengths are of texts.
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
    form: str = "text"

    @property
    def highest_on_topic(self) -> float | None:
        """The upper end of the 95 % interval of `on_topic`."""
        if self.on_topic is None:
            return None
        hits = round(self.on_topic * self.members)
        return share_interval((np.arange(self.members) < hits).astype(float), np.ones(self.members))[1]


@dataclass(frozen=True)
class Guess:
    """One guess.

    Attributes:
        number: its line in the list, from 1, which names it where its text is hidden.
        text: as it was given.
        cosine: with the nearest vector of the store.
        collection, row, id: of that vector.
        is_alarm: whether the cosine is above the threshold of its class.
        chance: the share of decoys that come as near; None where nothing is like the guess.
        form: one of `FORMS`, or "other" where it has no decoys: its very text alone raises an alarm.
    """

    number: int
    text: str
    cosine: float
    collection: str | None
    row: int
    id: str | None
    is_alarm: bool
    chance: float | None
    form: str = "text"


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
    def nearest(self) -> float:
        """The largest cosine of a guess that raises an alarm; 0 without one."""
        return max((guess.cosine for guess in self.alarms), default=0.0)

    @property
    def unjudged(self) -> int:
        """How many guesses have no fair comparison."""
        return sum(guess.chance is None for guess in self.ranking)

    @property
    def figure(self) -> Figure | None:
        """The share of guesses that raise an alarm, beside that of unrelated texts; None without a guess."""
        found, floor = share([float(guess.is_alarm) for guess in self.ranking]), self.false_alarms
        return found and replace(found, floors={} if floor is None else {"unrelated texts": floor})

    @property
    def false_alarms(self) -> float | None:
        """The share of unrelated texts, of the guesses' forms, that raise an alarm; None where none is like them."""
        return self._mean([one.false_alarms for one in self.rates])

    @property
    def on_topic(self) -> float | None:
        """The same of texts on the store's subject; None where there are too few."""
        return self._mean([one.on_topic for one in self.rates])

    @property
    def severity(self) -> str:
        """By the levels of `GUESS_LEVELS`; "none" without an alarm."""
        judged = [guess for guess in self.ranking if guess.chance is not None]
        rate = max(self.false_alarms or 0.0, FALSE_ALARMS)
        on_topic = self._mean([one.highest_on_topic for one in self.rates])
        return alarm_severity(sum(guess.is_alarm for guess in judged), len(judged), self.nearest, rate, on_topic)

    def _mean(self, shares: Sequence[float | None]) -> float | None:
        """That of all judged guesses, of the shares of each class; None where one was not measured."""
        known = [one for one in shares if one is not None]
        if not known or len(known) < len(shares):
            return None
        return float(np.average(known, weights=[one.guesses for one in self.rates]))

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
    """Guesses of one class, and what they are judged by.

    Attributes:
        form: of the guesses.
        fewest, most: words.
        indices: of the guesses.
        decoys: every other one sets the threshold, the others are tried on it.
        members: pieces of the store's texts.
    """

    form: str
    fewest: int
    most: int
    indices: list[int]
    decoys: NearestRows
    members: NearestRows

    def rates(self) -> Rates:
        """How often decoys and members raise an alarm, when the whole store was read."""
        threshold = float(np.quantile(self.decoys.cosine[::2], 1 - FALSE_ALARMS, method="higher"))
        tried = self.decoys.cosine[1::2]
        has_others = self.members.others > -1
        near, others = self.members.cosine[has_others], self.members.others[has_others]
        true, on_topic = (float((one > threshold).mean()) if len(one) >= FEWEST else None for one in (near, others))
        return Rates(
            self.fewest, self.most, len(self.indices), threshold, len(tried), float((tried > threshold).mean()),
            len(near), true, on_topic, self.form,
        )  # fmt: skip


def rank_guesses(
    guesses: Sequence[str], encode: Encode, texts: Sequence[str] | None, batches: Batches, width: int, seed: int
) -> Guesses:
    """Embeds the guesses and compares each with all vectors of a store.

    The threshold of a class is the cosine that 1 % of its decoys reach, see `Forms`. Where the texts are known, pieces
    of them show how many true guesses raise an alarm. Where no decoys are like a guess, its very text alone does.

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
    vectors = embedded(encode, guesses)
    if vectors.shape[1] != width:
        raise EmbInvError(
            f"the encoder of the guesses gives vectors of {vectors.shape[1]} numbers, the store's have {width}: name "
            "the encoder that made them with --encoder."
        )
    forms = Forms(seed)
    form_of = [forms.of(guess) for guess in guesses]
    found, classes = NearestRows(vectors), list(_classes(guesses, form_of, forms, encode, texts or (), seed))
    for collection, batch in batches:
        for nearest in (found, *(part for own in classes for part in (own.decoys, own.members))):
            nearest.add(collection, batch)
    rates = [own.rates() for own in classes]
    judged = {index: (own, one) for own, one in zip(classes, rates, strict=True) for index in own.indices}
    ranking = []
    for index, (guess, form) in enumerate(zip(guesses, form_of, strict=True)):
        cosine = float(found.cosine[index])
        is_alarm, chance = cosine >= SAME_TEXT, None
        if index in judged:
            own, one = judged[index]
            is_alarm, chance = cosine > one.threshold, float((own.decoys.cosine >= cosine).mean())
        ranking.append(Guess(index + 1, guess, cosine, *found.rows[index], is_alarm, chance, form))
    ranking.sort(key=lambda guess: (not guess.is_alarm if guess.chance is None else guess.chance, -guess.cosine))
    return Guesses(ranking, rates, found.total)


def _classes(
    guesses: Sequence[str], form_of: Sequence[str], forms: Forms, encode: Encode, texts: Sequence[str], seed: int
) -> Iterator[_Class]:
    """The classes that have guesses, with their decoys and members embedded."""
    generator = np.random.default_rng(seed)
    lengths = sizes_of(guesses)
    for form in FORMS:
        for fewest, most in CLASSES if form == "text" else ((1, 10**9),):
            own = np.flatnonzero((lengths >= fewest) & (lengths <= most) & (np.array(form_of) == form))
            if not len(own):
                continue
            sizes, chosen = lengths[own], [guesses[int(index)] for index in own]
            decoys = forms.decoys(chosen, 2 * TRIED, generator)
            members, origins = forms.pieces(chosen, texts, TRIED, generator)
            yield _Class(
                form, fewest if form == "text" else int(sizes.min()),
                int(sizes.max()) if most > 10**6 else most, own.tolist(),
                NearestRows(embedded(encode, decoys)), NearestRows(embedded(encode, members), origins),
            )  # fmt: skip
