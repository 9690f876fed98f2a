"""The state of a gap search: texts with gaps, the fillings that were tried, and the changes of one gap."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .texts_embinv import decode

# a cosine that only rounding keeps from 1, of vectors in float32 or float16: the text is the vector's own
EXACT = 1 - 1e-6
# farther from a vector than this, a text does not belong to it. Texts had 0.94 and more with their own vectors, and at
# most 0.76 with others (gaps of many tokens come near to any); of one bit a dimension a right text has 0.8
UNRELATED = 0.75
# nats by which a hypothesis' proposals fall behind for each unit of score that it falls behind the best one
SCORE_TO_NATS = 100.0
# log p that a mark is given as part of the text itself, and a move of words between gaps: enough to be tried
LITERAL = MOVED = -5.0
# log p that a gap hides one token more: the denoiser is told how many, and so cannot say that most words have one
LONGER = -1.0

Filling = tuple[int, ...]  # the tokens of one gap
Fillings = tuple[Filling, ...]
Proposal = tuple[Filling, float]  # tokens of a gap, and their log p


def spliced(values: tuple[Any, ...], start: int, stop: int, *new: Any) -> tuple[Any, ...]:
    """The values with `new` in place of those from `start` to before `stop`."""
    return (*values[:start], *new, *values[stop:])


@dataclass(frozen=True)
class Gap:
    """What is hidden at one position of a text.

    Attributes:
        mark: as it stands in the text; empty where token ids were given.
        tag: the word inside the mark, as PERSON of <PERSON>; empty for bars and stars.
        kind: of the hidden words: name, place, number, date, money, e-mail, or free.
        lengths: numbers of tokens that the hidden words may have at first; edits may make one of several longer.
        choices: the only fillings that are allowed, with their spelling; None for any.
        literal: the mark's own tokens, as it may be part of the text by chance; none where token ids were given, or
            another number of tokens is known.
        is_apart: whether words there may change the tokens of the text around, as those of £▇▇▇ and of the "th" of
            ▇▇▇th. What judges token ids is then given those of the whole text.
    """

    mark: str = ""
    tag: str = ""
    kind: str = "free"
    lengths: tuple[int, ...] = (1,)
    choices: Mapping[Filling, str] | None = None
    literal: Filling = ()
    is_apart: bool = False

    @property
    def shortest(self) -> int:
        """Tokens that are hidden at least."""
        return min(self.lengths) if self.choices is None else min(map(len, self.choices))

    def fits(self, size: int) -> bool:
        """Whether so many tokens may be hidden: if their number is not known, up to twice the longest first guess."""
        most = max(self.lengths) * (1 if len(self.lengths) == 1 else 2)
        return min(self.lengths) <= size <= most

    @property
    def longest(self) -> int:
        """Tokens that are tried at first, at most, those of the mark itself among them."""
        return max(len(self.literal), *(self.lengths if self.choices is None else map(len, self.choices)))

    def word(self, tokenizer: Any, filling: Filling) -> str:
        """A filling as text, without spaces around it; a literal one is the mark. Empty without a tokenizer."""
        if filling == self.literal or tokenizer is None:
            return self.mark
        listed = (self.choices or {}).get(filling)
        return _spelled(tokenizer, filling) if listed is None else listed


def _spelled(tokenizer: Any, filling: Filling) -> str:
    """Tokens as text; the mark of one that goes on with the word before it, as ## of ##35, is no part of the text."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    continuation = getattr(model, "continuing_subword_prefix", None) or ""
    return decode(tokenizer, [filling])[0].strip().removeprefix(continuation)


@dataclass(frozen=True)
class RedactedText:
    """A text with G gaps.

    Attributes:
        pieces: the token ids of the G + 1 known pieces around the gaps; some may be empty.
        texts: the same pieces as text; empty where token ids were given.
        gaps: the G gaps.
        unread: what follows, from the first gap that the judge does not read on; None if it reads all gaps.
    """

    pieces: tuple[Filling, ...]
    texts: tuple[str, ...]
    gaps: tuple[Gap, ...]
    unread: "RedactedText | None" = None

    @property
    def num_tokens_at_least(self) -> int:
        """Tokens of the whole text if every gap is as short as it may be."""
        return sum(map(len, self.pieces)) + sum(gap.shortest for gap in self.gaps)

    @property
    def num_tokens_at_most(self) -> int:
        """Tokens of the longest text that is tried at first."""
        return sum(map(len, self.pieces)) + sum(gap.longest for gap in self.gaps)

    def holds(self, token: int) -> bool:
        """Whether a token is part of what is known, of a mark or of an entry of a list."""
        entries = (one for gap in self.gaps for one in (gap.literal, *(gap.choices or ())))
        return any(token in ids for ids in (*self.pieces, *entries))

    def within(self, most: int) -> "RedactedText":
        """The same text, without the entries of lists that would make it longer than `most` tokens."""
        spare, gaps = most - self.num_tokens_at_least, []
        for gap in self.gaps:
            choices = gap.choices
            if choices is not None:
                choices = {one: word for one, word in choices.items() if len(one) <= gap.shortest + spare}
            gaps.append(replace(gap, choices=choices))
        return replace(self, gaps=tuple(gaps))

    def ids(self, fillings: Sequence[Sequence[int]]) -> list[int]:
        """The token ids of the whole text with these fillings."""
        ids = list(self.pieces[0])
        for filling, piece in zip(fillings, self.pieces[1:], strict=True):
            ids += [*filling, *piece]
        return ids

    def words(self, tokenizer: Any, fillings: Sequence[Filling]) -> list[str]:
        """Fillings as text."""
        return [gap.word(tokenizer, filling) for gap, filling in zip(self.gaps, fillings, strict=True)]

    def unlisted(self, fillings: Sequence[Filling]) -> Fillings:
        """The same with () for entries of lists and marks that stand for themselves."""
        pairs = zip(self.gaps, fillings, strict=True)
        return tuple(() if gap.choices is not None or one == gap.literal else one for gap, one in pairs)

    def without_apart(self, fillings: Sequence[Filling]) -> Fillings:
        """The same with () in the gaps that are apart."""
        return tuple(() if gap.is_apart else one for gap, one in zip(self.gaps, fillings, strict=True))

    def has_literal(self, fillings: Sequence[Filling]) -> bool:
        """Whether one of the gaps holds its own mark."""
        pairs = zip(self.gaps, fillings, strict=True)
        return any(bool(filling) and filling == gap.literal for gap, filling in pairs)

    def text(self, tokenizer: Any, fillings: Sequence[Filling]) -> str:
        """The whole text with these fillings; what is known stays as it was given."""
        if not self.texts:
            return decode(tokenizer, [self.ids(fillings)])[0]
        return self.joined(self.words(tokenizer, fillings))

    def joined(self, words: Sequence[str]) -> str:
        """The whole text with these words in its gaps; empty where token ids were given."""
        return "".join(a + b for a, b in zip(self.texts, [*words, ""], strict=False))

    def judged_ids(self, tokenizer: Any, fillings: Sequence[Filling]) -> list[int]:
        """The token ids by which the whole text is judged."""
        if not any(gap.is_apart for gap in self.gaps):
            return self.ids(fillings)
        whole = self.text(tokenizer, fillings)
        ids: list[int] = tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def starts(self, fillings: Sequence[Sequence[int]]) -> list[int]:
        """The position of the first token of each gap."""
        starts, position = [], 0
        for piece, filling in zip(self.pieces, fillings, strict=False):
            starts.append(position + len(piece))
            position = starts[-1] + len(filling)
        return starts


@dataclass(frozen=True)
class Hypothesis:
    """A whole filling of a text.

    Attributes:
        fillings: the tokens of each gap.
        log_p: the log-likelihood of each gap's filling when it was proposed.
        vector: (D,) of the whole text, by the judge. cosine: of it with e.
        score: cosine + λ · (1 − cosine) · the sum of log_p.
    """

    fillings: Fillings
    log_p: tuple[float, ...]
    vector: Tensor
    cosine: float
    score: float


@dataclass(frozen=True)
class Candidate:
    """A whole filling that no judge has seen.

    Attributes:
        priority: orders the candidates of a text, the highest first. parent: the hypothesis that it comes from.
    """

    fillings: Fillings
    log_p: tuple[float, ...]
    priority: float
    parent: Hypothesis


@dataclass
class TextSearch:
    """The search for one text's fillings.

    Attributes:
        text: with its gaps. target: e (D,). log_prior: for each gap (V,), see `gap_kinds_embinv`.
        most: tokens that the whole text may have; None for any number.
        likelihood_weight: λ of the score.
        stop_cosine: of a text that the judge takes for the vector's own; None where the judge cannot tell.
        has_scout: whether the scout chooses which of its candidates the judge embeds.
        rehearsal: the same search by the scout alone, which goes before; None where there is none.
        tried: the fillings that the judge has embedded. scouted: vectors (D,) by the scout.
        beam: the best hypotheses, the best first. order: the gaps, the most certain first.
        width: factor of the number of proposals.
        open: the gaps that no step has filled yet: proposals for the others see [MASK] there.
        misspelt: first guesses, by gap, whose tokens the tokenizer would not give their text: they are never right.
    """

    text: RedactedText
    target: Tensor
    log_prior: list[Tensor]
    most: int | None = None
    likelihood_weight: float = 0.0
    stop_cosine: float | None = None
    has_scout: bool = False
    rehearsal: "TextSearch | None" = None
    tried: dict[Fillings, Hypothesis] = field(default_factory=dict)
    scouted: dict[Fillings, Tensor] = field(default_factory=dict)
    beam: list[Hypothesis] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    misspelt: set[tuple[int, Filling]] = field(default_factory=set)
    width: int = 1
    is_done: bool = False

    @property
    def best(self) -> Hypothesis:
        """The best hypothesis so far."""
        return self.beam[0]

    @property
    def is_found(self) -> bool:
        """Whether the judge takes the best hypothesis for the vector's own text."""
        return self.stop_cosine is not None and self.best.cosine >= self.stop_cosine

    @property
    def standing(self) -> tuple[bool, float]:
        """Grows where the best hypothesis improves: any that can be right beats one that cannot."""
        return not self.is_misspelt(self.best), self.best.score

    def is_misspelt(self, one: Hypothesis) -> bool:
        """Whether a hypothesis holds a misspelt guess; a text with exactly the vector is right all the same."""
        return one.cosine < EXACT and not self.misspelt.isdisjoint(enumerate(one.fillings))

    def is_new(self, fillings: Fillings) -> bool:
        """Whether they were not tried and are not too long."""
        return fillings not in self.tried and (self.most is None or len(self.text.ids(fillings)) <= self.most)

    def may_hold(self, gap: int, filling: Filling) -> bool:
        """Whether a gap may have a filling, by its length and its tokens."""
        may_stand = self.log_prior[gap][list(filling)] > -torch.inf
        return self.text.gaps[gap].fits(len(filling)) and bool(may_stand.all())

    def without_guesses(self, fillings: Fillings) -> Fillings:
        """The same with () in the gaps that no step has filled yet."""
        return tuple(() if gap in self.open else filling for gap, filling in enumerate(fillings))

    @property
    def ranked(self) -> list[Hypothesis]:
        """What was tried, the best first."""
        return sorted(self.tried.values(), key=lambda one: -one.score)

    def runners_up(self) -> list[Hypothesis]:
        """For each gap the best hypothesis with another filling there, if there is one.

        One with another vector, if there is one: where a gap is apart, other tokens may be the same text.
        """
        best, *others = self.ranked
        found = []
        for gap in range(len(self.text.gaps)):
            filled = [one for one in others if one.fillings[gap] != best.fillings[gap]]
            told_apart = (one for one in filled if float(one.vector @ best.vector) < EXACT)
            found += [next(told_apart, filled[0])] if filled else []
        return found

    def behind(self, one: Hypothesis) -> float:
        """Nats, negative, by which candidates of a hypothesis fall behind those of the best one."""
        return SCORE_TO_NATS * (one.score - self.best.score)

    def rank(self, num_beams: int) -> None:
        """Keep the best of what was tried; a text that the vector is exactly of ends the search.

        Misspelt guesses are forgotten once all gaps are filled, unless there is nothing else.
        """
        if self.misspelt and not self.open:
            spelt = {fillings: one for fillings, one in self.tried.items() if not self.is_misspelt(one)}
            self.tried = spelt or self.tried
        self.beam = self.ranked[:num_beams]
        self.is_done |= self.best.cosine >= EXACT


@dataclass(frozen=True)
class Job:
    """A gap of a hypothesis that a step fills anew.

    Attributes:
        is_open: whether no step has filled it yet.
        count: fillings that are wanted, at most.
    """

    search: TextSearch
    gap: int
    parent: Hypothesis
    is_open: bool
    count: int

    def candidate(self, filling: Filling, log_p: float) -> Candidate:
        """The hypothesis with another filling of the gap."""
        here = self.gap, self.gap + 1
        fillings = spliced(self.parent.fillings, *here, filling)
        return Candidate(fillings, spliced(self.parent.log_p, *here, log_p), self.priority(log_p), self.parent)

    def moves(self) -> list[Candidate]:
        """Words that change gaps: a token of another gap goes to this one, or the two exchange their fillings.

        No step that fills one gap alone gets there. The likelihoods stay about what they were.
        """
        parent, gaps = self.parent, self.search.text.gaps
        if self.is_open or self.choices is not None:
            return []
        mine, moved = parent.fillings[self.gap], []
        for other, theirs in enumerate(parent.fillings):
            if other == self.gap or gaps[other].choices is not None:
                continue
            pairs = [(theirs, mine)]
            for index, token in enumerate(theirs):
                shorter = spliced(theirs, index, index + 1)
                pairs += [(spliced(mine, at, at, token), shorter) for at in range(len(mine) + 1)]
            for here, there in pairs:
                if self.search.may_hold(self.gap, here) and self.search.may_hold(other, there):
                    fillings = spliced(parent.fillings, self.gap, self.gap + 1, here)
                    fillings = spliced(fillings, other, other + 1, there)
                    moved.append(Candidate(fillings, parent.log_p, self.priority(MOVED), parent))
        return moved

    def priority(self, log_p: float) -> float:
        """Of a filling with this log p, among the candidates of all hypotheses of the text."""
        return log_p + self.search.behind(self.parent)

    @property
    def choices(self) -> Mapping[Filling, str] | None:
        """The only fillings that the gap may have, with their spelling; None for any."""
        return self.search.text.gaps[self.gap].choices

    def aim(self, overshoot: float) -> Tensor:
        """(D,) e + α(e − ê), of length 1: what the text lacks counts more."""
        return normalize(self.search.target + overshoot * self.lacking, dim=-1)

    @property
    def lacking(self) -> Tensor:
        """(D,) e − ê: what the text lacks."""
        return self.search.target - self.parent.vector.to(self.search.target)

    def canvases(self, mask: int) -> list[Proposal]:
        """The gap with [MASK] where the denoiser is to write, and about log p of what stands beside them."""
        gap, filling = self.search.text.gaps[self.gap], self.parent.fillings[self.gap]
        if self.is_open:  # what stands there is a first guess, which is not worth an edit
            tried = gap.lengths if self.parent is self.search.best else (len(filling),)
            return [((mask,) * length, LONGER * (length - min(gap.lengths))) for length in tried]
        canvases = [(mask,) * len(filling), (mask,) * (len(filling) - 1)]  # as "have" in the place of "has been"
        for index in range(len(filling) + 1):
            canvases += [spliced(filling, index, stop, mask) for stop in (index, index + 1)]
        each = self.parent.log_p[self.gap] / len(filling)
        kept = ((canvas, each * sum(token != mask for token in canvas)) for canvas in dict.fromkeys(canvases))
        return [(canvas, log_p) for canvas, log_p in kept if gap.fits(len(canvas))]

    def without_denoiser(self) -> list[Proposal]:
        """Fillings that need no denoiser: the mark itself, and the gap with one token less."""
        gap, filling = self.search.text.gaps[self.gap], self.parent.fillings[self.gap]
        proposals = [(gap.literal, LITERAL)] if gap.literal else []
        if not self.is_open and gap.choices is None and gap.fits(len(filling) - 1):
            each = self.parent.log_p[self.gap] / len(filling)
            shorter = (spliced(filling, index, index + 1) for index in range(len(filling)))
            proposals += [(one, each * len(one)) for one in shorter]
        return proposals
