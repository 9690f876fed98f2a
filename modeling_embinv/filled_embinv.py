"""What `fill` gives: the filled words with their probabilities, the runners-up, and a verdict in words."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import torch

from .gap_states_embinv import EXACT
from .gap_states_embinv import UNRELATED
from .gap_states_embinv import Filling
from .gap_states_embinv import Fillings
from .gap_states_embinv import Gap
from .gap_states_embinv import Hypothesis
from .gap_states_embinv import RedactedText
from .gap_states_embinv import TextSearch
from .gap_states_embinv import spliced

# what a verdict says, by its name
VERDICTS = {
    "verified": "the text with these words has exactly this vector",
    "likely": "these words are probably right",
    "undecided": "other words fit the vector about as well, or the text does not quite reach it",
    "distant": "no words that were tried bring the text near this vector, which may be noised, cut, or another text's",
    "unrelated": "this vector does not belong to this text, whatever is hidden",
    "literal": "the mark is part of the text that this vector was made of: nothing is hidden there, "
    "or only what the tokenizer does not know",
    "unread": "the encoder does not read as far as a gap of this text: the vector says nothing of it",
}
# a text is likely when all of its gaps are right with this probability; farther from the vector than NEAR none is
LIKELY, NEAR = 0.75, 0.9
# two fillings whose vectors differ by less have the same vector
SAME = 1e-6
# nats for each unit of score: how fast the probability of a filling falls behind the best one
NATS = {"surrogate": 150.0, "encoder": 400.0}
# canvases of text for which a cosine by the surrogate says how sure its words are
LONGEST = 4
NUM_ALTERNATIVES = 5
# a filling of so many tokens, in a text that does not reach its vector, is right with this probability at most: of
# untouched vectors, by the surrogate, none of 94 was, of those with noise of 0.01 in each number 9 of 18
PHRASE, OF_PHRASE = 5, 0.2


@dataclass(frozen=True)
class Alternative:
    """Words that may stand in a gap: with the cosine of the best text that has them, and their probability."""

    text: str
    ids: Filling
    cosine: float
    probability: float


@dataclass(frozen=True)
class FilledGap:
    """What stands in a gap.

    Attributes:
        text, ids: the words, as text and as token ids. start, end: their characters in the filled text.
        mark: what stood there, and kind: of its words.
        probability: calibrated, that they are right.
        alternatives: the runners-up, the best first.
    """

    text: str
    ids: Filling
    start: int
    end: int
    mark: str
    kind: str
    probability: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class FilledText:
    """A redacted text, filled.

    Attributes:
        text: the whole text; empty where token ids and no tokenizer were given. ids: its token ids.
        gaps: from left to right. cosine: of its vector, by the judge, with the given one.
        verdict: a key of `VERDICTS`.
    """

    text: str
    ids: tuple[int, ...]
    gaps: tuple[FilledGap, ...]
    cosine: float
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, without token ids."""
        gaps = [
            {
                **{name: getattr(gap, name) for name in ("text", "start", "end", "mark", "kind", "probability")},
                "alternatives": [
                    {name: getattr(one, name) for name in ("text", "cosine", "probability")}
                    for one in gap.alternatives
                ],
            }
            for gap in self.gaps
        ]
        verdict = {"verdict": self.verdict, "verdict_in_words": VERDICTS[self.verdict]}
        return {"text": self.text, "cosine": self.cosine, **verdict, "gaps": gaps}


@dataclass(frozen=True)
class FillingOutput:
    """What `fill` returns: the texts in their order, and what they cost together."""

    texts: list[FilledText]
    num_forward_passes: int
    num_feedback_calls: int
    num_surrogate_calls: int


@dataclass
class Finish:
    """Makes the result of a search, at any time of it.

    Attributes:
        calibrated: the share of the texts, the number of gaps and the cosine → the probability that a gap is right.
        canvas: the number of tokens that it holds. longest: those that the encoder reads; None if that is not known.
        mask: the token of what is hidden.
    """

    tokenizer: Any
    judge: str
    calibrated: Callable[[float, int, float], float]
    canvas: int
    longest: int | None = None
    mask: int = 0

    def __call__(self, search: TextSearch) -> FilledText:
        """The text as it is filled so far."""
        best, text = search.best, search.text
        tried, num_tokens = self._told_apart(search), len(text.ids(best.fillings)[: self.longest])
        cosines = [self._cosines(tried, gap) for gap in range(len(text.gaps))]
        weights = self._weights([one.score for one in tried], num_tokens)
        words = text.words(self.tokenizer, best.fillings)
        spans = self._spans(text, words)
        gaps = []
        for index, gap in enumerate(text.gaps):
            filling, shares = best.fillings[index], self._shares(tried, weights, index)
            most = self._ceiling(search, gap, filling)
            chances = self._chances(shares, filling, len(text.gaps), best.cosine, num_tokens, most)
            if _is_unread(cosines[index]):  # the text's cosine says nothing of this gap
                chances = shares
            if best.cosine < EXACT:  # what the tokenizer would not write is never right
                chances |= {one: 0.0 for one in shares if (index, one) in search.misspelt}
            others = sorted((one for one in shares if one != filling), key=lambda one: -shares[one])
            alternatives = tuple(
                Alternative(gap.word(self.tokenizer, one), one, cosines[index][one], chances[one])
                for one in others[:NUM_ALTERNATIVES]
            )
            known = words[index], filling, *spans[index], gap.mark, gap.kind, chances[filling]
            gaps.append(FilledGap(*known, alternatives))
        whole = "" if self.tokenizer is None else text.text(self.tokenizer, best.fillings)
        verdict = self._verdict(search, gaps, cosines)
        ids = tuple(text.judged_ids(self.tokenizer, best.fillings))
        if text.unread is not None:
            behind = self._unread(text.unread, len(whole))
            return FilledText(whole + behind.text, ids + behind.ids, (*gaps, *behind.gaps), best.cosine, verdict)
        return FilledText(whole, ids, tuple(gaps), best.cosine, verdict)

    def _unread(self, text: RedactedText, start: int) -> FilledText:
        """What stands behind character `start` of a text, where nothing is read: its marks stay."""
        marks, fillings = zip(
            *((gap.mark, gap.literal or (self.mask,) * gap.shortest) for gap in text.gaps), strict=True
        )
        spans = ((start + first, start + last) for first, last in self._spans(text, marks))
        gaps = (
            FilledGap(mark, filling, *span, mark, gap.kind, 0.0, ())
            for gap, mark, filling, span in zip(text.gaps, marks, fillings, spans, strict=True)
        )
        # without pieces of text, as where token ids were given, the tokenizer says what they are
        has_words = text.texts or self.tokenizer is None
        marked = text.joined(marks) if has_words else " " + text.text(self.tokenizer, fillings)
        return FilledText(marked, tuple(text.ids(fillings)), tuple(gaps), 0.0, "unread")

    def _told_apart(self, search: TextSearch) -> list[Hypothesis]:
        """What was tried, the best first, each text once: in a gap that is apart other tokens may be the same text."""
        known: dict[tuple[int, str], Filling] = {}
        found: dict[Fillings, Hypothesis] = {}
        for one in [search.best, *search.ranked]:
            fillings = one.fillings
            for at, gap in enumerate(search.text.gaps):
                if gap.is_apart:
                    same = known.setdefault((at, gap.word(self.tokenizer, fillings[at])), fillings[at])
                    fillings = spliced(fillings, at, at + 1, same)
            found.setdefault(fillings, one if fillings == one.fillings else replace(one, fillings=fillings))
        return list(found.values())

    @staticmethod
    def _cosines(ranked: Sequence[Hypothesis], gap: int) -> dict[Filling, float]:
        """The cosine of the best text that has each filling of a gap."""
        cosines: dict[Filling, float] = {}
        for one in ranked:
            cosines.setdefault(one.fillings[gap], one.cosine)
        return cosines

    @staticmethod
    def _shares(tried: Sequence[Hypothesis], weights: Sequence[float], gap: int) -> dict[Filling, float]:
        """The weights of the texts that have each filling of a gap, added up."""
        shares: dict[Filling, float] = {}
        for one, weight in zip(tried, weights, strict=True):
            shares[one.fillings[gap]] = shares.get(one.fillings[gap], 0.0) + weight
        return shares

    @staticmethod
    def _spans(text: RedactedText, words: Sequence[str]) -> list[tuple[int, int]]:
        """Start and end of each gap's words in the filled text."""
        spans, position = [], 0
        for piece, word in zip(text.texts or [""] * len(words), words, strict=False):
            start = position + len(piece)
            position = start + len(word)
            spans.append((start, position))
        return spans

    def _weights(self, scores: Sequence[float], num_tokens: int) -> list[float]:
        """The share of each whole text in all that were tried, by their scores.

        One of N tokens moves a mean of states by 1 / N, and the cosine by 1 / N²: so much less in a long text, which
        the calibration has not seen.
        """
        nats = NATS[self.judge] * max(1.0, num_tokens / self.canvas) ** 2
        weights: list[float] = (torch.tensor(scores, dtype=torch.float64) * nats).softmax(dim=0).tolist()
        return weights

    def _chances(
        self,
        shares: dict[Filling, float],
        best: Filling,
        num_gaps: int,
        cosine: float,
        num_tokens: int,
        most: float = 1.0,
    ) -> dict[Filling, float]:
        """The probability of each filling; that of the best text's is calibrated, and the others share the rest.

        Args:
            shares: of the texts that have each filling, added up: how far the runners-up fall behind, and whether the
                texts that come near agree. Of an unrelated vector no filling is right.
            most: the highest probability that the best one may have.
        """
        calibrated = min(most, self.probability(shares[best], num_gaps, cosine, num_tokens))
        rest = (1 - calibrated) / max(1 - shares[best], 1e-9) if cosine >= UNRELATED else 0.0
        return {one: calibrated if one == best else share * rest for one, share in shares.items()}

    @staticmethod
    def _ceiling(search: TextSearch, gap: Gap, filling: Filling) -> float:
        """The highest probability of a filling: of a phrase the calibration, fitted to single words, knows too little.

        Nothing is lowered where the judge cannot tell whether a text reaches its vector, and where a list or a number
        of tokens was given.
        """
        is_free = gap.choices is None and len(gap.lengths) > 1 and filling != gap.literal
        is_missed = search.stop_cosine is not None and not search.is_found
        return OF_PHRASE if is_free and is_missed and len(filling) >= PHRASE else 1.0

    def probability(self, p: float, num_gaps: int, cosine: float, num_tokens: int) -> float:
        """The calibrated probability that a gap is right.

        The surrogate's cosine says nothing of a text that is longer than LONGEST canvases, and an exact cosine by the
        encoder leaves no doubt that comes from the cosine: there the share p alone counts.

        Args:
            p: the share of the texts with the filling. num_gaps, cosine, num_tokens: of the whole text.
        """
        if cosine < UNRELATED:
            return 0.0
        p = min(max(p, 1e-6), 1 - 1e-6)
        calibrated = self.calibrated(p, num_gaps, cosine)
        if self.judge == "surrogate" and num_tokens > LONGEST * self.canvas:
            return min(calibrated, p)
        return max(calibrated, p) if self.judge == "encoder" and cosine >= EXACT else calibrated

    def _verdict(self, search: TextSearch, gaps: list[FilledGap], cosines: list[dict[Filling, float]]) -> str:
        cosine = search.best.cosine
        if cosine < UNRELATED:
            return "unrelated"
        if cosine >= NEAR and search.text.has_literal(search.best.fillings):
            return "literal"
        if search.text.unread is not None or any(map(_is_unread, cosines)):
            return "unread"
        if self.judge == "encoder" and cosine >= EXACT:
            return "verified"
        return verdict_of_gaps(cosine, [gap.probability for gap in gaps])


def _is_unread(cosines: dict[Filling, float]) -> bool:
    """Whether the vector tells a gap's fillings apart by nothing: the encoder does not read that far."""
    return len(cosines) > 1 and max(cosines.values()) - min(cosines.values()) < SAME


def verdict_of_gaps(cosine: float, probabilities: Sequence[float]) -> str:
    """The verdict where probabilities decide: of the text's cosine and those of its gaps."""
    if cosine < NEAR:
        return "distant"
    return "likely" if min(probabilities) >= LIKELY else "undecided"
