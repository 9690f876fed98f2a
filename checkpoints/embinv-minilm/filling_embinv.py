"""`fill`: a redacted text and its vector in, the hidden words out, each with how sure it is."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
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
from .gap_reach_embinv import read_text
from .gap_reach_embinv import warn_of_long_choices
from .gap_search_embinv import GapSearch
from .gap_search_embinv import TextJudge
from .gap_kinds_embinv import log_prior
from .gap_marks_embinv import MARKS
from .gap_marks_embinv import GapReader
from .gap_states_embinv import RedactedText
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_texts
from .inputs_embinv import checked_feedback
from .inputs_embinv import start_token
from .settings_embinv import GAP_TOKENS
from .settings_embinv import FillSettings


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

        Example:
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
            num_tokens: tokens of every gap where that is known; from 1 to `max_gap_tokens` are tried by default.
            on_step: called after each gap of a sweep with the texts as they are filled so far.
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
        given = check_texts(texts, len(vectors))
        search = FillSettings.of(**settings)
        mask, vocab_size = self.config.mask_token_id, self.config.vocab_size
        reader = GapReader(tokenizer, mask, marks, choices or {}, search.max_gap_tokens, num_tokens, vocab_size)
        if given and (unused := set(reader.choices) - set(reader.choices_for(given))):
            names, last = ", ".join(map(repr, sorted(unused))), first_row + len(given) - 1
            warn(f"choices for {names}: no mark of texts {first_row} to {last} has this word.")
        suppressed = self.generation_config.suppress_tokens
        self._warn_of_start(given, suppressed)
        rows = range(first_row, first_row + len(given))
        return self._searched(vectors, given, rows, tokenizer, feedback, reader, search, suppressed, longest, on_step)

    def _warn_of_start(self, given: Sequence[str | Sequence[int]], suppressed: Sequence[int] | None) -> None:
        """Warns where rows of token ids begin with a tokenizer's start token."""
        ids = [row for row in given if not isinstance(row, str) and hasattr(row, "__len__") and len(row)]
        first = start_token([int(row[0]) for row in ids if is_whole(row[0], 0)], self.config, suppressed)
        if first is not None:
            warn(f"texts begin with token {first}, which this checkpoint never writes. {WITHOUT_SPECIAL}")

    def _searched(
        self,
        vectors: Tensor,
        given: Sequence[str | Sequence[int]],
        rows: Sequence[int],
        tokenizer: Any,
        feedback: Callable[..., Any] | str,
        reader: GapReader,
        search: FillSettings,
        suppressed: Sequence[int] | None,
        longest: int | None = None,
        on_step: Callable[[list[FilledText]], None] | None = None,
    ) -> FillingOutput:
        """`fill` once its arguments are checked: `rows` number the texts; `suppressed` tokens are never written."""
        reach, canvas = self.config.longest_judged, self.config.max_sequence_length - 1
        # a surrogate with the encoder's own layers may be given any text: it reads as far as the encoder does
        room = reach if self.config.surrogate_length is None else None
        redacted = [reader.read(text, row) for row, text in zip(rows, given, strict=True)]
        if isinstance(feedback, str):
            redacted = [judged_text(text, row, self.config) for row, text in zip(rows, redacted, strict=True)]
            for row, text in zip(rows, redacted, strict=True):
                if room is not None:
                    warn_of_long_choices(text, row, room)
        elif longest is not None:
            redacted = [read_text(text, row, longest) for row, text in zip(rows, redacted, strict=True)]
        # put together once: without merged weights each call of `embedder` multiplies all its matrices
        embed = self.embedder() if isinstance(feedback, str) or self.surrogate is not None else None
        judge, scout = self._text_judges(feedback, tokenizer, embed)
        priors = self._priors(tokenizer, redacted, suppressed)

        def begun(text: RedactedText, vector: Tensor, kind: str) -> TextSearch:
            most = room if kind == "surrogate" else None
            text = text.within(most) if most is not None else text
            prior, stop = [priors[gap.kind] for gap in text.gaps], self._stop_cosine(kind, text)
            num_read = min(text.num_tokens_at_least, self.config.surrogate_length or text.num_tokens_at_least)
            weight = search.likelihood_weight * min(1.0, canvas / num_read) ** 2
            return TextSearch(text, vector, prior, most, weight, stop)

        reads_as_far = room is None and longest is not None and longest <= reach
        searches = [begun(text, vector, judge.kind) for text, vector in zip(redacted, vectors, strict=True)]
        for one in searches:
            can_scout = scout is not None and not one.text.holds(self.config.eos_token_id)
            # it chooses among all that the encoder may be given; its own search is of texts that fit
            one.has_scout = can_scout and (reads_as_far or one.text.num_tokens_at_most <= reach)
            # of longer texts its cosine says too little for the seconds that its own search takes
            if can_scout and one.text.num_tokens_at_least <= min(reach, LONGEST * canvas):
                one.rehearsal = begun(one.text, one.target, "surrogate")
        finishes = {kind: self._finisher(tokenizer, kind) for kind in NATS}

        def finish(one: TextSearch) -> FilledText:  # the judge has seen nothing while the scout searches
            rehearsal = None if one.beam else one.rehearsal
            return finishes[judge.kind](one) if rehearsal is None else finishes["surrogate"](rehearsal)

        embed_rows = None if embed is None else lambda rows: embed(self._padded(rows))
        proposer = Proposer(self, search.overshoot, embed_rows)

        def search_for(text: RedactedText, outer: TextSearch) -> TextSearch:
            alone = scout or judge
            whole = begun(text, outer.target, alone.kind)
            GapSearch(proposer, search, alone, None, reader.are_canonical, CLIMBS).run([whole])
            return whole

        inside = InsideWords(reader, search_for)
        climbs = (*CLIMBS, (inside.may_climb, inside.of_tried))
        first = ((inside.may_climb, inside.of_whole_words),)
        gap_search = GapSearch(proposer, search, judge, scout, reader.are_canonical, climbs, first)
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
        output = self._searched(embeddings[rows], drafts, numbers, tokenizer, feedback, reader, search, suppressed)
        ids, confidence = draft_ids.clone(), torch.ones(draft_ids.shape, device=draft_ids.device)
        cosine = embeddings.new_zeros(len(embeddings))
        for index, text in zip(numbers, output.texts, strict=True):
            cosine[index] = text.cosine
            tokens = [(token, gap.probability) for gap in text.gaps for token in gap.ids]
            columns = draft_ids[index] == mask
            ids[index, columns] = ids.new_tensor([token for token, _ in tokens])
            confidence[index, columns] = confidence.new_tensor([probability for _, probability in tokens])
        return ids, confidence, cosine, output

    def _text_judges(
        self, feedback: Any, tokenizer: Any, embed: Callable[[Tensor], Tensor] | None
    ) -> tuple[TextJudge, TextJudge | None]:
        """The judge that `feedback` is, and the surrogate, `embed`, as the scout of an encoder."""
        surrogate = None
        if embed is not None:
            surrogate = TextJudge(lambda items: embed(self._canvases(items, tokenizer)), "surrogate")
        if isinstance(feedback, str):  # "surrogate", the one word that `check_feedback` allows
            assert surrogate is not None  # `embedder` refuses a model without one
            return surrogate, None

        def by_encoder(items: list[tuple[RedactedText, Fillings]]) -> Tensor:
            if tokenizer is None:
                inputs: Any = self._padded([text.ids(fillings) for text, fillings in items])
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

    def _canvases(self, items: list[tuple[RedactedText, Fillings]], tokenizer: Any) -> Tensor:
        """(N, L) ids of whole texts as the surrogate judges them, ends behind them."""
        # letters around a gap that are tokenized again may be a token or two more than were counted
        most = self.config.longest_judged
        return self._padded([text.judged_ids(tokenizer, fillings)[:most] for text, fillings in items])

    def _padded(self, rows: list[list[int]]) -> Tensor:
        ids = torch.full((len(rows), max(map(len, rows)) + 1), self.config.eos_token_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.device)

    def _priors(
        self, tokenizer: Any, texts: list[RedactedText], suppressed: Sequence[int] | None
    ) -> dict[str, Tensor]:
        """(V,) by kind of gap, see `log_prior`."""
        forbidden = torch.zeros(self.config.vocab_size, dtype=torch.bool)
        special = () if tokenizer is None else tokenizer.all_special_ids
        own = self.config.mask_token_id, self.config.eos_token_id, self.config.pad_token_id
        forbidden[[*own, *special, *(suppressed or ())]] = True
        kinds = {gap.kind for text in texts for gap in text.gaps}
        return {kind: log_prior(tokenizer, kind, forbidden).to(self.device) for kind in kinds}

    def _finisher(self, tokenizer: Any, judge: str) -> Finish:
        calibration = self.generation_config.calibration_of(f"fill_{judge}")
        canvas, longest = self.config.max_sequence_length - 1, self.config.surrogate_length
        return Finish(tokenizer, judge, calibration.probability_of, canvas, longest, self.config.mask_token_id)
