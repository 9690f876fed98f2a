"""`fill`: a redacted text and its vector in, the hidden words out, each with how sure it is."""

import warnings
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors_embinv import EmbInvError
from .gap_states_embinv import EXACT
from .gap_states_embinv import UNRELATED
from .gap_states_embinv import Fillings
from .gap_states_embinv import TextSearch
from .gap_proposals_embinv import Proposer
from .gap_search_embinv import GapSearch
from .gap_search_embinv import TextJudge
from .gap_marks_embinv import MARKS
from .gap_states_embinv import Filling
from .gap_marks_embinv import GapReader
from .gap_states_embinv import RedactedText
from .gap_marks_embinv import allowed_tokens
from .generation_config_embinv import Calibration
from .generation_config_embinv import evidence
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_texts
from .inputs_embinv import checked_feedback
from .settings_embinv import FillSettings

# what a verdict says, by its name
VERDICTS = {
    "verified": "the text with these words has exactly this vector",
    "likely": "these words are probably right",
    "undecided": "other words fit the vector about as well",
    "unrelated": "this vector does not belong to this text, whatever is hidden",
    "literal": "the mark is part of the text that this vector was made of: nothing is hidden there",
    "unread": "the vector says nothing of this gap: the encoder does not read that far",
}
# a text is likely when all of its gaps are right with this probability, and it is as near to the vector as NEAR
LIKELY, NEAR = 0.75, 0.9
# two fillings whose vectors differ by less have the same vector
SAME = 1e-6
# nats for each unit of score: how fast the probability of a filling falls behind the best one
NATS = {"surrogate": 150.0, "encoder": 400.0}
# canvases of text for which a cosine by the surrogate says how sure its words are
LONGEST = 4
NUM_ALTERNATIVES = 5


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


class FillingMixin:
    """Gives a model `fill`."""

    config: Any
    device: Any
    embedder: Callable[[], Callable[[Tensor], Tensor]]
    generation_config: Any
    surrogate: Any
    _mismatch: Callable[[Any, torch.Size], str | None]

    @torch.no_grad()
    def fill(
        self,
        embeddings: Any,
        texts: Sequence[str | Sequence[int]],
        tokenizer: Any = None,
        feedback: Callable[..., Any] | str = "surrogate",
        marks: Sequence[str] = tuple(MARKS),
        choices: Mapping[str, Sequence[str]] | None = None,
        num_tokens: int | None = None,
        on_step: Callable[[list[FilledText]], None] | None = None,
        first_row: int = 0,
        **settings: Any,
    ) -> FillingOutput:
        """Recover the hidden words of redacted texts, given the vectors of the whole texts.

        1. Marks of hidden words are looked for in the texts; what stands between them is known and stays.
        2. The denoiser fills all gaps, and says which one it is most certain of.
        3. From that gap on, one after another, it proposes fillings for each of the best texts, given e + α(e − ê).
           The judge embeds the whole texts, and the `num_beams` nearest to e are kept.
        4. This is repeated over all gaps until no text improves, or until a text has exactly the vector e.

        Example:
            >>> output = model.fill(vectors, ["Dear <NAME>, you owe us ▇▇▇."], tokenizer=tokenizer)
            >>> for gap in output.texts[0].gaps:
            ...     print(gap.text, gap.probability)

        Args:
            embeddings: (B, D) or (D,), the vectors of the texts before they were redacted.
            texts: B texts with marks, or rows of token ids with [MASK] for each hidden token.
            tokenizer: this model's; not needed for token ids.
            feedback: what judges whole texts: "surrogate", or the encoder, N texts → (N, D); without a tokenizer its
                ids (N, L) → (N, D).
            marks: names of `MARKS`, or marks as they stand in the texts; all of `MARKS` by default.
            choices: the only words that a mark may hide, by the word in the mark: {"NAME": ["Anna", "Li"]}; "" for
                marks without a word.
            num_tokens: tokens of every gap where that is known; from 1 to `max_gap_tokens` are tried by default.
            on_step: called after each gap of a sweep with the texts as they are filled so far.
            first_row: number of the first text, for errors to name.
            **settings: of the search, see `FillSettings`.

        Raises:
            EmbInvError: for bad vectors, another number of texts, a text without gaps, with nothing else or that is
                too long for the surrogate, and unknown or impossible settings.
        """
        vectors = check_embeddings(embeddings, self.config.embedding_dim, first_row).to(self.device)
        if mismatch := self._mismatch(embeddings, vectors.shape):
            warnings.warn(mismatch, stacklevel=2)
        if feedback is None:
            raise EmbInvError('fill needs feedback: "surrogate", or an encoder to check the texts by.')
        check_feedback(feedback, tokenizer)
        given = check_texts(texts, len(vectors))
        search = FillSettings.of(**settings)
        reader = GapReader(
            tokenizer, self.config.mask_token_id, marks, choices or {}, search.max_gap_tokens, num_tokens
        )
        reach = self.config.longest_judged
        redacted = [reader.read(text, row) for row, text in enumerate(given, first_row)]
        if isinstance(feedback, str):
            for row, text in enumerate(redacted, first_row):
                check_reach(text, row, reach)
        # put together once: without merged weights each call of `embedder` multiplies all its matrices
        embed = self.embedder() if isinstance(feedback, str) or self.surrogate is not None else None
        judge, scout = self._text_judges(feedback, tokenizer, embed)
        allowed = self._allowed(tokenizer, redacted)
        searches = [
            TextSearch(
                text,
                vector,
                [allowed[gap.kind] for gap in text.gaps],
                most=reach if isinstance(feedback, str) else None,
                likelihood_weight=search.likelihood_weight_of(judge.kind, self._is_long(text)),
                stop_cosine=self._stop_cosine(judge.kind, text),
                has_scout=scout is not None and text.num_tokens_at_least <= reach,
            )
            for text, vector in zip(redacted, vectors, strict=True)
        ]
        finish = _Finish(
            tokenizer, judge.kind, self._fill_calibration(judge.kind), self.config.max_sequence_length - 1
        )
        embed_rows = None if embed is None else lambda rows: embed(self._padded(rows))
        proposer = Proposer(self, search.overshoot, embed_rows)
        gap_search = GapSearch(proposer, search, judge, scout, reader.are_canonical)
        if searches:
            show = None if on_step is None else lambda: on_step([finish(one) for one in searches])
            gap_search.run(searches, show)
        calls = {one.kind: one.num_calls for one in (scout, judge) if one is not None}
        return FillingOutput(
            [finish(one) for one in searches],
            proposer.denoiser.num_forward_passes,
            calls.get("encoder", 0),
            calls.get("surrogate", 0),
        )

    def _text_judges(
        self, feedback: Any, tokenizer: Any, embed: Callable[[Tensor], Tensor] | None
    ) -> tuple[TextJudge, TextJudge | None]:
        """The judge that `feedback` is, and the surrogate, `embed`, as the scout of an encoder."""
        surrogate = None
        if embed is not None:
            surrogate = TextJudge(lambda items: embed(self._canvases(items)), "surrogate")
        if isinstance(feedback, str):  # "surrogate", the one word that `check_feedback` allows
            assert surrogate is not None  # `embedder` refuses a model without one
            return surrogate, None

        def by_encoder(items: list[tuple[RedactedText, Fillings]]) -> Tensor:
            if tokenizer is None:
                inputs: Any = self._canvases(items)
            else:
                inputs = [text.text(tokenizer, fillings) for text, fillings in items]
            return checked_feedback(feedback, inputs, len(inputs), self.config.embedding_dim)

        return TextJudge(by_encoder, "encoder"), surrogate

    def _stop_cosine(self, judge: str, text: RedactedText) -> float | None:
        """The cosine of a text that is the vector's own.

        A wrong word of a long text costs less than the surrogate errs; the checkpoint's value is of short ones.
        """
        if judge == "encoder":
            return EXACT
        stop: float | None = self.generation_config.search.stop_cosine
        return None if self._is_long(text) else stop

    def _is_long(self, text: RedactedText) -> bool:
        """Whether the canvas does not hold a text."""
        return text.num_tokens_at_least >= self.config.max_sequence_length

    def _canvases(self, items: list[tuple[RedactedText, Fillings]]) -> Tensor:
        """(N, L) ids of whole texts, ends behind them."""
        return self._padded([text.ids(fillings) for text, fillings in items])

    def _padded(self, rows: list[list[int]]) -> Tensor:
        ids = torch.full((len(rows), max(map(len, rows)) + 1), self.config.eos_token_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.device)

    def _allowed(self, tokenizer: Any, texts: list[RedactedText]) -> dict[str, Tensor]:
        """(V,) bool by kind of gap: the tokens that may fill it."""
        forbidden = torch.zeros(self.config.vocab_size, dtype=torch.bool)
        special = () if tokenizer is None else tokenizer.all_special_ids
        own = self.config.mask_token_id, self.config.eos_token_id, self.config.pad_token_id
        forbidden[[*own, *special, *(self.generation_config.suppress_tokens or ())]] = True
        kinds = {gap.kind for text in texts for gap in text.gaps}
        return {kind: allowed_tokens(tokenizer, kind, forbidden).to(self.device) for kind in kinds}

    def _fill_calibration(self, judge: str) -> Calibration:
        return self.generation_config.calibration_of(f"fill_{judge}")


def check_reach(text: RedactedText, row: int, most: int) -> None:
    """Raises EmbInvError for a text of more tokens than the surrogate judges, `most`; the line names the `row`."""
    if text.num_tokens_at_least > most:
        raise EmbInvError(
            f"text {row} has at least {text.num_tokens_at_least} tokens; the surrogate judges {most} at most: "
            "give the encoder as feedback."
        )


@dataclass
class _Finish:
    """Makes the result of a search, at any time of it; `canvas` is the number of tokens that it holds."""

    tokenizer: Any
    judge: str
    calibration: Calibration
    canvas: int

    def __call__(self, search: TextSearch) -> FilledText:
        best, text = search.best, search.text
        rankings = [self._ranking(search, gap) for gap in range(len(text.gaps))]
        words = text.words(self.tokenizer, best.fillings)
        spans = self._spans(text, words)
        gaps = []
        for index, (gap, ranking) in enumerate(zip(text.gaps, rankings, strict=True)):
            filling = best.fillings[index]
            chances = self._chances(ranking, filling, len(text.gaps), len(text.ids(best.fillings)))
            others = sorted((one for one in ranking if one != filling), key=lambda one: -ranking[one][0])
            alternatives = tuple(
                Alternative(gap.word(self.tokenizer, one), one, ranking[one][1], chances[one])
                for one in others[:NUM_ALTERNATIVES]
            )
            known = words[index], filling, *spans[index], gap.mark, gap.kind, chances[filling]
            gaps.append(FilledGap(*known, alternatives))
        whole = "" if self.tokenizer is None else text.text(self.tokenizer, best.fillings)
        verdict = self._verdict(search, gaps, rankings)
        return FilledText(whole, tuple(text.ids(best.fillings)), tuple(gaps), best.cosine, verdict)

    @staticmethod
    def _ranking(search: TextSearch, gap: int) -> dict[Filling, tuple[float, float]]:
        """Score and cosine of the best text that has each filling of a gap."""
        ranking: dict[Filling, tuple[float, float]] = {}
        for one in search.tried.values():
            filling, value = one.fillings[gap], (one.score, one.cosine)
            ranking[filling] = max(ranking.get(filling, value), value)
        return ranking

    @staticmethod
    def _spans(text: RedactedText, words: list[str]) -> list[tuple[int, int]]:
        """Start and end of each gap's words in the filled text."""
        spans, position = [], 0
        for piece, word in zip(text.texts or [""] * len(words), words, strict=False):
            start = position + len(piece)
            position = start + len(word)
            spans.append((start, position))
        return spans

    def _chances(
        self, ranking: dict[Filling, tuple[float, float]], best: Filling, num_gaps: int, num_tokens: int
    ) -> dict[Filling, float]:
        """The probability of each filling; that of the best one is calibrated, and the others share the rest.

        Of an unrelated vector no filling is right. One of N tokens moves a mean of states by 1 / N, and the cosine by
        1 / N²: so much less in a long text, which the calibration has not seen. Of a text that is longer than LONGEST
        canvases the surrogate's cosine says nothing, and the scores alone count.
        """
        nats = NATS[self.judge] * max(1.0, num_tokens / self.canvas) ** 2
        scores = torch.tensor([score for score, _ in ranking.values()], dtype=torch.float64)
        raw = dict(zip(ranking, (scores * nats).softmax(dim=0).tolist(), strict=True))
        p = min(max(raw[best], 1e-6), 1 - 1e-6)
        cosine = ranking[best][1]
        given = evidence(torch.tensor([p]), torch.tensor([num_gaps]), torch.tensor([cosine]))
        calibrated = float(self.calibration.weigh(given)) if cosine >= UNRELATED else 0.0
        if self.judge == "surrogate" and num_tokens > LONGEST * self.canvas:
            calibrated = min(calibrated, p)
        if self.judge == "encoder" and cosine >= EXACT:
            calibrated = max(calibrated, p)
        rest = (1 - calibrated) / max(1 - raw[best], 1e-9) if cosine >= UNRELATED else 0.0
        return {one: calibrated if one == best else chance * rest for one, chance in raw.items()}

    def _verdict(
        self, search: TextSearch, gaps: list[FilledGap], rankings: list[dict[Filling, tuple[float, float]]]
    ) -> str:
        cosine = search.best.cosine
        if cosine < UNRELATED:
            return "unrelated"
        if search.text.has_literal(search.best.fillings):
            return "literal"
        if any(len(r) > 1 and max(c for _, c in r.values()) - min(c for _, c in r.values()) < SAME for r in rankings):
            return "unread"
        if self.judge == "encoder" and cosine >= EXACT:
            return "verified"
        is_likely = cosine >= NEAR and min(gap.probability for gap in gaps) >= LIKELY
        return "likely" if is_likely else "undecided"
