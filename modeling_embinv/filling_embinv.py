"""`fill`: a redacted text and its vector in, the hidden words out, each with how sure it is."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .errors_embinv import warn
from .filled_embinv import LONGEST
from .filled_embinv import NATS
from .filled_embinv import FilledText
from .filled_embinv import FillingOutput
from .filled_embinv import Finish
from .gap_affixes_embinv import InsideWords
from .gap_combinations_embinv import CLIMBS
from .gap_states_embinv import EXACT
from .gap_states_embinv import Fillings
from .gap_states_embinv import TextSearch
from .gap_proposals_embinv import Proposer
from .gap_reach_embinv import WITHOUT_SPECIAL
from .gap_reach_embinv import judged_text
from .gap_reach_embinv import warn_of_long_choices
from .gap_search_embinv import GapSearch
from .gap_search_embinv import TextJudge
from .gap_kinds_embinv import log_prior
from .gap_marks_embinv import MARKS
from .gap_marks_embinv import GapReader
from .gap_states_embinv import RedactedText
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_longest
from .inputs_embinv import check_texts
from .inputs_embinv import checked_feedback
from .inputs_embinv import start_token
from .settings_embinv import GAP_TOKENS
from .settings_embinv import FillSettings

# texts that are searched for side by side: what each of them tried takes about 15 MB
PART_TEXTS = 64


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
        longest: int | None = None,
        **settings: Any,
    ) -> FillingOutput:
        """Recover the hidden words of redacted texts, given the vectors of the whole texts.

        1. Marks of hidden words are looked for in the texts; what stands between them is known and stays.
        2. The denoiser fills all gaps, and says which one it is most certain of.
        3. From that gap on, one after another, it proposes fillings for each of the best texts, given e + α(e − ê).
           The judge embeds the whole texts, and the `num_beams` nearest to e are kept.
        4. Texts that differ in several gaps at once follow, chosen by sums of the changes that single gaps made.
        5. This is repeated over all gaps until no text improves, or until a text has exactly the vector e.

        Examples:
            >>> output = model.fill(vectors, ["Dear <NAME>, you owe us ▇▇▇."], tokenizer=tokenizer)
            >>> for gap in output.texts[0].gaps:
            ...     print(gap.text, gap.probability)

        Args:
            embeddings: (B, D) or (D,), the vectors of the texts before they were redacted.
            texts: B texts with marks, or rows of token ids with [MASK] for each hidden token, without start and end
                tokens, as a tokenizer gives them with `add_special_tokens=False`.
            tokenizer: this model's; not needed for token ids.
            feedback: what judges whole texts: "surrogate", or the encoder, N texts → (N, D); without a tokenizer its
                ids (N, L) → (N, D).
            marks: names of `MARKS`, or marks as they stand in the texts; all of `MARKS` by default.
            choices: the only words that a mark may hide, by the words in the mark, in any case, as {"NAME": ["Anna",
                "Li"], "FIRST NAME": ["Bob"]}; "" for marks without a word.
            num_tokens: tokens of every gap where that is known; from 1 to `max_gap_tokens` are tried by default, and
                the mark itself, which may be part of the text.
            on_step: called after each gap of a sweep with the texts as they are filled so far. Many texts are searched
                for in parts: those of later parts are not among them yet.
            first_row: number of the first text, for errors to name.
            longest: tokens of a text that the encoder, as the judge, reads; gaps behind keep their marks. None =
                unknown. A surrogate with the layers of the encoder reads as far.
            **settings: of the search, see `FillSettings`.

        Raises:
            EmbInvError: for bad vectors, another number of texts, a text without gaps that are read, with nothing else
                or that is too long for the surrogate, and unknown or impossible settings.
        """
        vectors = check_embeddings(embeddings, self.config.embedding_dim, first_row).to(self.device)
        if mismatch := self._mismatch(embeddings, vectors.shape):
            warn(mismatch)
        if feedback is None:
            raise EmbInvError('fill needs feedback: "surrogate", or an encoder to check the texts by.')
        check_feedback(feedback, tokenizer)
        if on_step is not None and not callable(on_step):
            raise EmbInvError(f"on_step must be a function of the texts so far, got {shown(on_step)}.")
        check_longest(longest)
        given = check_texts(texts, len(vectors))
        search = FillSettings.of(**settings)
        mask, vocab_size = self.config.mask_token_id, self.config.vocab_size
        reader = GapReader(tokenizer, mask, marks, choices or {}, search.max_gap_tokens, num_tokens, vocab_size)
        if given and (unused := set(reader.choices) - set(reader.choices_for(given))):
            names, last = ", ".join(map(repr, sorted(unused))), first_row + len(given) - 1
            warn(f"choices for {names}: no mark of texts {first_row} to {last} has this word.")
        self._warn_of_start(given)
        filler = _Filler(self, tokenizer, feedback, reader, search, self.generation_config.suppress_tokens, longest)
        redacted = filler.read(given, range(first_row, first_row + len(given)))  # all, before any is searched for
        filled: list[FilledText] = []
        for start in range(0, len(given), PART_TEXTS):
            part = slice(start, start + PART_TEXTS)
            show = None if on_step is None else partial(_shown_behind, on_step, filled)
            filled = [*filled, *filler.fill(redacted[part], vectors[part], show)]
        return filler.output(filled)

    def _warn_of_start(self, given: Sequence[str | Sequence[int]]) -> None:
        """Warns where rows of token ids begin with a tokenizer's start token."""
        ids = [row for row in given if not isinstance(row, str) and hasattr(row, "__len__") and len(row)]
        firsts = [int(row[0]) for row in ids if is_whole(row[0], 0)]
        first = start_token(firsts, self.config, self.generation_config.suppress_tokens)
        if first is not None:
            warn(f"texts begin with token {first}, which this checkpoint never writes. {WITHOUT_SPECIAL}")

    def fill_drafts(
        self,
        embeddings: Tensor,
        draft_ids: Tensor,
        feedback: Callable[..., Any] | str,
        tokenizer: Any,
        suppressed: Sequence[int] | None,
    ) -> tuple[Tensor, Tensor, Tensor, FillingOutput]:
        """`fill` for canvases: what `generate` does with `draft_ids` and a search; those without a gap stay.

        Args:
            embeddings: (B, D), of unit length.
            draft_ids: (B, L), [MASK] where the text is unknown, end tokens behind the text.
            feedback, tokenizer: as of `fill`.
            suppressed: tokens that are never written.

        Returns:
            The filled canvases (B, L), the probability of each token (B, L), 1 where it was given, the cosines (B,), 0
            of those without a gap, and what it cost.
        """
        end, mask = self.config.eos_token_id, self.config.mask_token_id
        rows = (draft_ids == mask).any(dim=1).nonzero().squeeze(1)
        drafts = [row[: row.index(end)] if end in row else row for row in draft_ids[rows].tolist()]
        search = FillSettings.of(max_gap_tokens=GAP_TOKENS)
        reader = GapReader(tokenizer, mask, tuple(MARKS), {}, search.max_gap_tokens, None)
        numbers = rows.tolist()
        filler = _Filler(self, tokenizer, feedback, reader, search, suppressed)
        output = filler.output(filler.fill(filler.read(drafts, numbers), embeddings[rows]))
        ids, confidence = draft_ids.clone(), torch.ones(draft_ids.shape, device=draft_ids.device)
        cosine = embeddings.new_zeros(len(embeddings))
        for index, text in zip(numbers, output.texts, strict=True):
            cosine[index] = text.cosine
            tokens = [(token, gap.probability) for gap in text.gaps for token in gap.ids]
            columns = draft_ids[index] == mask
            ids[index, columns] = ids.new_tensor([token for token, _ in tokens])
            confidence[index, columns] = confidence.new_tensor([probability for _, probability in tokens])
        return ids, confidence, cosine, output


class _Filler:
    """One call of `fill`, its arguments checked.

    Attributes:
        suppressed: tokens that are never written.
        room: tokens of the longest text that the surrogate may be given. One with the encoder's own layers may be
            given any text, None, as it reads as far as the encoder does.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        feedback: Callable[..., Any] | str,
        reader: GapReader,
        settings: FillSettings,
        suppressed: Sequence[int] | None,
        longest: int | None = None,
    ) -> None:
        self.model, self.config, self.tokenizer, self.feedback = model, model.config, tokenizer, feedback
        self.reader, self.settings, self.suppressed, self.longest = reader, settings, suppressed, longest
        self.canvas, self.room = self.config.max_sequence_length - 1, None
        if self.config.surrogate_length is None:
            self.room = self.config.longest_judged
        # put together once: without merged weights each call of `embedder` multiplies all its matrices
        has_surrogate = isinstance(feedback, str) or model.surrogate is not None
        self.embed = model.embedder() if has_surrogate else None
        self.judge, self.scout = self._judges()
        embed_rows = None if self.embed is None else self._embedded
        self.proposer = Proposer(model, settings.overshoot, embed_rows)
        self.priors: dict[str, Tensor] = {}
        self.finishes = {kind: self._finisher(kind) for kind in NATS}

    def read(self, given: Sequence[str | Sequence[int]], rows: Sequence[int]) -> list[RedactedText]:
        """The texts with their gaps, as far as they are read; `rows` number them.

        Raises:
            EmbInvError: for a text that cannot be filled.
        """
        redacted = [self.reader.read(text, row) for row, text in zip(rows, given, strict=True)]
        known = self.config, self.feedback, self.longest
        redacted = [judged_text(text, row, *known) for row, text in zip(rows, redacted, strict=True)]
        if self.room is not None and self.judge.kind == "surrogate":
            for row, text in zip(rows, redacted, strict=True):
                warn_of_long_choices(text, row, self.room)
        return redacted

    def fill(
        self,
        texts: Sequence[RedactedText],
        vectors: Tensor,
        on_step: Callable[[list[FilledText]], None] | None = None,
    ) -> list[FilledText]:
        """The texts, filled by vectors (B, D) side by side."""
        if not texts:
            return []
        searches = [self._search(text, vector) for text, vector in zip(texts, vectors, strict=True)]
        inside = InsideWords(self.reader, self._alone)
        climbs = (*CLIMBS, (inside.may_climb, inside.of_tried))
        first = ((inside.may_climb, inside.of_whole_words),)
        known = self.judge, self.scout, self.reader.are_canonical
        show = None if on_step is None else lambda: on_step([self._finish(one) for one in searches])
        GapSearch(self.proposer, self.settings, *known, climbs, first).run(searches, show)
        return [self._finish(one) for one in searches]

    def output(self, texts: list[FilledText]) -> FillingOutput:
        """The filled texts, and what all of them cost."""
        calls = {one.kind: one.num_calls for one in (self.scout, self.judge) if one is not None}
        num_forward_passes = self.proposer.denoiser.num_forward_passes
        return FillingOutput(texts, num_forward_passes, calls.get("encoder", 0), calls.get("surrogate", 0))

    def _begun(self, text: RedactedText, vector: Tensor, judge: str) -> TextSearch:
        """A search by one judge alone."""
        most = self.room if judge == "surrogate" else None
        text = text.within(most) if most is not None else text
        num_read = min(text.num_tokens_at_least, self.config.surrogate_length or text.num_tokens_at_least)
        weight = self.settings.likelihood_weight * min(1.0, self.canvas / num_read) ** 2
        priors = [self._prior(gap.kind) for gap in text.gaps]
        return TextSearch(text, vector, priors, most, weight, self._stop_cosine(judge, text))

    def _search(self, text: RedactedText, vector: Tensor) -> TextSearch:
        """A search by the judge, with its scout."""
        one, reach = self._begun(text, vector, self.judge.kind), self.config.longest_judged
        can_scout = self.scout is not None and not one.text.holds(self.config.eos_token_id)
        reads_as_far = self.room is None and self.longest is not None and self.longest <= reach
        # it chooses among all that the encoder may be given; its own search is of texts that fit
        one.has_scout = can_scout and (reads_as_far or one.text.num_tokens_at_most <= reach)
        # of longer texts its cosine says too little for the seconds that its own search takes
        if can_scout and one.text.num_tokens_at_least <= min(reach, LONGEST * self.canvas):
            one.rehearsal = self._begun(one.text, vector, "surrogate")
        return one

    def _alone(self, text: RedactedText, outer: TextSearch) -> TextSearch:
        """A search of its own for a text, by the scout, or by the judge where there is none."""
        alone = self.scout or self.judge
        whole = self._begun(text, outer.target, alone.kind)
        GapSearch(self.proposer, self.settings, alone, None, self.reader.are_canonical, CLIMBS).run([whole])
        return whole

    def _finish(self, one: TextSearch) -> FilledText:
        """The text so far; the judge has seen nothing while the scout searches."""
        rehearsal = None if one.beam else one.rehearsal
        return self.finishes[self.judge.kind](one) if rehearsal is None else self.finishes["surrogate"](rehearsal)

    def _finisher(self, judge: str) -> Finish:
        calibration = self.model.generation_config.calibration_of(f"fill_{judge}")
        longest, mask = self.config.surrogate_length, self.config.mask_token_id
        return Finish(self.tokenizer, judge, calibration.probability_of, self.canvas, longest, mask)

    def _judges(self) -> tuple[TextJudge, TextJudge | None]:
        """The judge that `feedback` is, and the surrogate as the scout of an encoder."""
        surrogate = None if self.embed is None else TextJudge(self._by_surrogate, "surrogate")
        if isinstance(self.feedback, str):  # "surrogate", the one word that `check_feedback` allows
            assert surrogate is not None  # `embedder` refuses a model without one
            return surrogate, None
        return TextJudge(self._by_encoder, "encoder"), surrogate

    def _by_encoder(self, items: list[tuple[RedactedText, Fillings]]) -> Tensor:
        """(N, D) of whole texts."""
        if self.tokenizer is None:
            inputs: Any = self._padded([text.ids(fillings) for text, fillings in items])
        else:
            inputs = [text.text(self.tokenizer, fillings) for text, fillings in items]
        assert callable(self.feedback)
        return checked_feedback(self.feedback, inputs, len(inputs), self.config.embedding_dim)

    def _by_surrogate(self, items: list[tuple[RedactedText, Fillings]]) -> Tensor:
        """(N, D) of whole texts, as far as the surrogate reads."""
        # letters around a gap that are tokenized again may be a token or two more than were counted
        most = self.config.longest_judged
        return self._embedded([text.judged_ids(self.tokenizer, fillings)[:most] for text, fillings in items])

    def _embedded(self, rows: list[list[int]]) -> Tensor:
        """(N, D) by the surrogate of rows of token ids."""
        assert self.embed is not None
        return self.embed(self._padded(rows))

    def _padded(self, rows: list[list[int]]) -> Tensor:
        """(N, L) ids with ends behind them."""
        ids = torch.full((len(rows), max(map(len, rows)) + 1), self.config.eos_token_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.model.device)

    def _stop_cosine(self, judge: str, text: RedactedText) -> float | None:
        """The cosine of a text that is the vector's own.

        A wrong word of a long text costs less than the surrogate errs; the checkpoint's value is of short ones.
        """
        if judge == "encoder":
            return EXACT
        stop: float | None = self.model.generation_config.search.stop_cosine
        return stop if text.num_tokens_at_least <= self.canvas else None

    def _prior(self, kind: str) -> Tensor:
        """(V,) of a kind of gap, see `log_prior`."""
        if kind not in self.priors:
            forbidden = torch.zeros(self.config.vocab_size, dtype=torch.bool)
            special = () if self.tokenizer is None else self.tokenizer.all_special_ids
            own = self.config.mask_token_id, self.config.eos_token_id, self.config.pad_token_id
            forbidden[[*own, *special, *(self.suppressed or ())]] = True
            self.priors[kind] = log_prior(self.tokenizer, kind, forbidden).to(self.model.device)
        return self.priors[kind]


def _shown_behind(
    on_step: Callable[[list[FilledText]], None], done: list[FilledText], texts: list[FilledText]
) -> None:
    """Calls `on_step` with texts that are being filled, behind those that are done."""
    on_step([*done, *texts])
