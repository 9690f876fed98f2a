"""`generate`: one text for each vector, by the sampler alone or by a search around it."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from .conditioning_embinv import Hypothesis
from .diffusion_embinv import Canvas
from .diffusion_embinv import after_first
from .errors_embinv import EmbInvError
from .errors_embinv import shown
from .errors_embinv import warn
from .favoured_embinv import Favoured
from .fingerprint_embinv import FingerprintMixin
from .generation_config_embinv import EmbInvGenerationConfig
from .generation_config_embinv import GenerationConfigMixin
from .hypotheses_embinv import SearchRound
from .hypotheses_embinv import Targets
from .inputs_embinv import check_draft
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_generator
from .inputs_embinv import check_streamer
from .inputs_embinv import checked_feedback
from .inputs_embinv import warn_of_idle_steps
from .inputs_embinv import warn_of_rows
from .judge_embinv import Judge
from .likelihood_embinv import NUM_PASSES
from .likelihood_embinv import ROWS
from .likelihood_embinv import follow_logits
from .likelihood_embinv import token_log_likelihood
from .sampler_embinv import Sampler
from .sampler_embinv import shape_of_draws
from .search_embinv import ClosedLoop
from .settings_embinv import SearchSettings
from .texts_embinv import decode_rows
from .texts_embinv import stream


# uniform draws at a time, 256 MiB
MAX_DRAWS = 2**26
# texts from left to right at a time on a CPU: the cache of 36 tokens in 12 layers of 768 takes 2.7 MB a text, twice
# that while it grows; more texts at a time are hardly faster
CACHED_ROWS_CPU = 256


@dataclass
class EmbInvGenerationOutput(ModelOutput):
    """What `generate` returns.

    sequences: (B, L) int64, the text, its end token when it has one, then padding.
    confidence: (B, L) float32, the calibrated probability of each token when it was written, 0 at padding.
    num_forward_passes: how often the network ran; guidance runs twice the rows in a pass. The parts of a batch that is
        too large for memory count as one.
    cosine: (B,) of the text's vector by `feedback` with e, whenever that was given. num_feedback_calls: texts that the
        encoder embedded. num_surrogate_calls: those that the surrogate did.
    history, history_confidence: on request, the canvas (B, L) and its confidence after each pass.
    """

    # always there; `ModelOutput` wants a default of every field
    sequences: Tensor = None  # type: ignore[assignment]
    confidence: Tensor = None  # type: ignore[assignment]
    num_forward_passes: int = None  # type: ignore[assignment]
    cosine: Tensor | None = None
    num_feedback_calls: int | None = None
    num_surrogate_calls: int | None = None
    history: tuple[Tensor, ...] | None = None
    history_confidence: tuple[Tensor, ...] | None = None


class Denoiser:
    """A model as a search uses it: it writes texts, gives the likelihood of their tokens, and counts its passes.

    num_forward_passes: so far. The parts of a batch that is too large for memory count as one.
    """

    def __init__(self, model: Any, config: EmbInvGenerationConfig) -> None:
        self.model, self.config = model, config
        self.num_forward_passes = 0

    def write(
        self,
        targets: Targets,
        changes: dict[str, Any],
        draft_ids: Tensor | None = None,
        barred_ids: Tensor | None = None,
        hypothesis: Hypothesis | None = None,
        favoured: Favoured | None = None,
    ) -> Tensor:
        """Texts (R, L) for targets, with `changes` of the settings; the other arguments (R, …) are as in `Sampler`."""
        config = self.config.with_changes(**changes)
        samplers, ids = [], []
        for rows in torch.arange(len(targets)).split(_rows_at_a_time(config, targets.vectors.device)):
            part = targets.rows(rows)
            draft, barred = (None if given is None else given[rows] for given in (draft_ids, barred_ids))
            corrected = None if hypothesis is None else hypothesis.rows(rows)
            words = None if favoured is None else favoured.rows(rows)
            inputs = self.model, part.vectors, config, part.generators
            samplers.append(Sampler(*inputs, draft_ids=draft, barred_ids=barred, hypothesis=corrected, favoured=words))
            ids.append(samplers[-1].run().ids)
        self.num_forward_passes += max(sampler.num_forward_passes for sampler in samplers)
        return torch.cat(ids)

    def token_log_likelihood(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """(R, L) of each token of ids (R, L), given its vector of embeddings (R, D)."""
        self.num_forward_passes += NUM_PASSES
        return token_log_likelihood(self.model, ids, embeddings)

    def follow_logits(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """(R, L, L) how well each word of texts would stand in the place of each other one."""
        self.num_forward_passes += 1
        return follow_logits(self.model, ids, embeddings)


def _rows_at_a_time(config: EmbInvGenerationConfig, device: torch.device) -> int:
    """Texts whose noise, conditions and caches fit into memory together."""
    passes, kinds, length = shape_of_draws(config)
    first = config.draft if config.strategy == "two_stage" else config.strategy
    rows = CACHED_ROWS_CPU if first == "autoregressive" and device.type == "cpu" else ROWS
    return max(1, min(rows // config.num_draft_beams, MAX_DRAWS // (passes * kinds * length)))


class EmbInvGenerationMixin(FingerprintMixin, GenerationConfigMixin):
    """Gives a model `generate`."""

    # of the model that this goes into
    device: Any
    embedder: Callable[[], Callable[[Tensor], Tensor]]
    fill_drafts: Callable[..., tuple[Tensor, Tensor, Tensor, Any]]
    surrogate: Any

    @torch.no_grad()
    def generate(
        self,
        embeddings: Any = None,
        generation_config: EmbInvGenerationConfig | None = None,
        generator: torch.Generator | None = None,
        streamer: Any = None,
        draft_ids: Tensor | None = None,
        feedback: Callable[..., Any] | str | None = None,
        tokenizer: Any = None,
        on_round: Callable[[SearchRound], None] | None = None,
        **kwargs: Any,
    ) -> EmbInvGenerationOutput:
        """Recover the texts of embeddings.

        1. The vectors are checked and brought to length 1.
        2. Without a search, each vector gets one canvas, all [MASK] or `draft_ids`. The steps of `strategy` fill it:
           a pass of the network predicts every masked token from e and the visible ones, and some are kept.
        3. With `num_candidates` above 1 or `num_corrections`, several texts are written for each vector: one greedily,
           the others at `candidate_temperature`. They are ranked by cosine + λ · mean log p, the cosine by `feedback`.
        4. Each round of corrections edits the `num_beams` best texts and fills in what an edit masks, given
           e + α(e − ê). With `num_hops`, the best new texts are edited again. Then old and new texts are ranked
           together. A vector that a text has reached leaves; so does one whose best text has not changed for five
           rounds.
        5. The best text is returned, with the calibrated probability of its tokens.

        Examples:
            >>> model = AutoModel.from_pretrained("embinv/embinv-minilm", trust_remote_code=True)
            >>> tokenizer = PreTrainedTokenizerFast.from_pretrained("embinv/embinv-minilm")
            >>> output = model.generate(vectors, num_draft_beams=8)
            >>> texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            >>> search = {"num_candidates": 16, "num_corrections": 10}
            >>> output = model.generate(vectors, search=search, feedback=encoder.encode, tokenizer=tokenizer)
            >>> output.cosine  # of each text's vector with the given one

        Args:
            embeddings: (B, D) or (D,), tensor, array or list of floating-point numbers; rows of another length than 1
                are normalised, with a warning.
            generation_config: the model's own by default. `calibration`, `suppress_tokens` and `stop_cosine` that it
                leaves None are the model's own.
            generator: makes sampling repeatable. Each row takes a fixed amount of its randomness, so that with one
                generator for many calls the batch size changes no text.
            streamer: for a batch of one: `put_draft` receives the canvas after each pass, and the keyword `confidence`
                (1, L); `put` receives the text (1, N) with its end token. One that skips a prompt gets an empty one
                before. In a search there are no drafts.
            draft_ids: (B, L) canvas to start from, [MASK] where the text is unknown; what is given stays, with a
                confidence of 1. Rows are texts with end tokens behind them and no start token, which a tokenizer
                leaves out with `add_special_tokens=False`; L is `max_length`. All [MASK] by default.
                A search fills its gaps as `fill` does, by the settings of `FillSettings`: a token for each [MASK],
                which is never the end.
            feedback: judges candidates and corrections: "surrogate", the model's own stand-in for the encoder, or the
                encoder: N texts → (N, D) when the `tokenizer` is given, otherwise ids (N, L) → (N, D), as a tensor,
                an array or lists; its vectors are normalised. Without a search it only gives the cosine of each text.
                None, the default, ranks candidates by likelihood alone.
            tokenizer: this model's, to hand texts to `feedback`. Without it, `feedback` is given token ids.
            on_round: called in a search, and there alone, after its first candidates and after each round, with a
                `SearchRound`: the number of the round, the best text of each vector so far and its cosine. What it
                raises ends the search.
            **kwargs: settings that differ from `generation_config`, see `EmbInvGenerationConfig`. `search`, a
                `SearchSettings` or a dictionary, replaces the whole search; `num_candidates` and its like replace
                single settings of it.

        Raises:
            EmbInvError: for vectors of another width than `config.embedding_dim`, NaN, infinite or all-zero ones, for
                unknown or impossible settings, for those of a search where there is none, and for vectors of another
                shape, NaN or infinite ones by `feedback`.
        """
        config = self.generation_settings(generation_config, kwargs)
        given, embeddings = embeddings, check_embeddings(embeddings, self.config.embedding_dim).to(self.device)
        if mismatch := self._mismatch(given, embeddings.shape):
            warn(mismatch)
        warn_of_idle_steps(config, kwargs)
        search = config.search.is_search
        check_feedback(feedback, tokenizer)
        check_generator(generator)
        if on_round is not None and not callable(on_round):
            raise EmbInvError(f"on_round must be a function of a round, got {shown(on_round)}.")
        if streamer is not None:
            check_streamer(streamer, len(embeddings))
        if search and config.return_history:
            raise EmbInvError("candidates and corrections keep no history.")
        if search and draft_ids is not None and (feedback is None or on_round is not None):
            raise EmbInvError("candidates for draft_ids need feedback and have no rounds: model.fill has on_step.")
        if config.search.num_corrections and feedback is None:
            raise EmbInvError('num_corrections needs feedback: "surrogate", or an encoder to check the text by.')
        if draft_ids is not None:
            assert config.max_length is not None  # `generation_settings` fills it in
            shape = torch.Size([len(embeddings), config.max_length])
            draft_ids = check_draft(draft_ids, shape, self.config.vocab_size, self.config.eos_token_id)
            warn_of_rows(draft_ids, "draft_ids", self.config, config.suppress_tokens)
            if search:
                assert feedback is not None  # as checked above
                return self._filled(embeddings, draft_ids.to(self.device), config, feedback, tokenizer, streamer)
        judge, scout = self._judges(config.search, feedback, tokenizer)
        if search and len(embeddings):
            return self._closed_loop(Targets.of(embeddings, generator), config, streamer, judge, scout, on_round)
        return self._open_loop(embeddings, config, generator, streamer, draft_ids, judge)

    def _open_loop(
        self,
        embeddings: Tensor,
        config: EmbInvGenerationConfig,
        generator: torch.Generator | None,
        streamer: Any,
        draft_ids: Tensor | None,
        judge: Judge | None,
    ) -> EmbInvGenerationOutput:
        """A text for each vector, as many at a time as memory holds; a history is of all together."""
        size = max(1, len(embeddings)) if config.return_history else _rows_at_a_time(config, embeddings.device)
        parts = [
            self._drafted(
                embeddings[rows], config, generator, streamer, None if draft_ids is None else draft_ids[rows]
            )
            for rows in torch.arange(len(embeddings)).split(size)
        ]
        ids = torch.cat([part.sequences for part in parts])
        cosine = None if judge is None else judge.cosine(ids, embeddings)
        sequences, confidence = self._finish(ids, torch.cat([part.confidence for part in parts]), streamer)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=max(part.num_forward_passes for part in parts),
            cosine=cosine,
            **_calls(judge),
            history=parts[0].history,
            history_confidence=parts[0].history_confidence,
        )

    def _drafted(
        self,
        embeddings: Tensor,
        config: EmbInvGenerationConfig,
        generator: torch.Generator | None,
        streamer: Any,
        draft_ids: Tensor | None,
    ) -> EmbInvGenerationOutput:
        """One call of the sampler: canvases with end tokens behind the texts, and their calibrated confidence."""
        calibration = config.calibration_of("open_loop")

        def confidence_of(canvas: Canvas) -> Tensor:
            known = canvas.masked | sampler.fixed
            return calibration(canvas.confidence, canvas.ids, canvas.end_token_id, known=known)

        def show(canvas: Canvas) -> None:
            streamer.put_draft(canvas.ids.cpu(), confidence=confidence_of(canvas).cpu())

        on_draft = show if hasattr(streamer, "put_draft") else None
        generators = [generator] * len(embeddings)
        sampler = Sampler(self, embeddings, config, generators, on_draft, draft_ids, keeps_draft=True)
        canvas = sampler.run()
        drafts = sampler.history
        return EmbInvGenerationOutput(
            sequences=canvas.ids,
            confidence=confidence_of(canvas),
            num_forward_passes=sampler.num_forward_passes,
            history=tuple(draft.ids for draft in drafts) if config.return_history else None,
            history_confidence=tuple(map(confidence_of, drafts)) if config.return_history else None,
        )

    def _closed_loop(
        self,
        targets: Targets,
        config: EmbInvGenerationConfig,
        streamer: Any,
        judge: Judge | None,
        scout: Judge | None,
        on_round: Callable[[SearchRound], None] | None,
    ) -> EmbInvGenerationOutput:
        """The best of several texts, corrected by what the judge says of them."""
        denoiser = Denoiser(self, config)

        def report(one: SearchRound) -> None:
            assert on_round is not None  # else there is no `report`
            on_round(replace(one, sequences=self._padded_sequences(one.sequences).cpu(), cosine=one.cosine.cpu()))

        best = ClosedLoop(denoiser, config.search, judge, scout, on_round and report).run(targets)
        ids, cosine = best.ids[:, 0], best.cosine[:, 0]
        calibration = config.calibration_of("candidates" if judge is None else judge.kind)
        confidence = calibration(best.log_p[:, 0].exp(), ids, self.config.eos_token_id, cosine)
        sequences, confidence = self._finish(ids, confidence, streamer)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=denoiser.num_forward_passes,
            cosine=None if judge is None else cosine,
            **_calls(judge, scout),
        )

    def _filled(
        self,
        embeddings: Tensor,
        draft_ids: Tensor,
        config: EmbInvGenerationConfig,
        feedback: Callable[..., Any] | str,
        tokenizer: Any,
        streamer: Any,
    ) -> EmbInvGenerationOutput:
        """Drafts (B, L) with their gaps filled by `fill_drafts`; of those without one a judge gives the cosine."""
        suppressed = config.suppress_tokens
        ids, confidence, cosine, output = self.fill_drafts(embeddings, draft_ids, feedback, tokenizer, suppressed)
        whole = (draft_ids != self.config.mask_token_id).all(dim=1)
        judge, _ = self._judges(config.search, feedback, tokenizer) if whole.any() else (None, None)
        if judge is not None:
            cosine[whole] = judge.cosine(ids[whole], embeddings[whole])
        sequences, confidence = self._finish(ids, confidence, streamer)
        calls = _calls(judge)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=output.num_forward_passes,
            cosine=cosine,
            num_feedback_calls=calls["num_feedback_calls"] + output.num_feedback_calls,
            num_surrogate_calls=calls["num_surrogate_calls"] + output.num_surrogate_calls,
        )

    def _judges(
        self, search: SearchSettings, feedback: Callable[..., Any] | str | None, tokenizer: Any
    ) -> tuple[Judge | None, Judge | None]:
        """The judge that `feedback` is, and the surrogate as its scout, where it has edits to choose from."""
        if feedback is None:
            return None, None
        if isinstance(feedback, str):  # "surrogate", the one word that `check_feedback` allows
            return _judge(self.embedder(), search, "surrogate"), None

        def embed(ids: Tensor) -> Tensor:
            inputs = ids if tokenizer is None else decode_rows(tokenizer, ids, self.config.eos_token_id)
            return checked_feedback(feedback, inputs, len(ids), self.config.embedding_dim)

        has_scout = self.surrogate is not None and search.num_checked < search.num_proposals
        scout = _judge(self.embedder(), search, "surrogate") if has_scout else None
        return _judge(embed, search, "encoder"), scout

    def _finish(self, ids: Tensor, confidence: Tensor, streamer: Any) -> tuple[Tensor, Tensor]:
        """ids (B, L) with padding behind the end, streamed, and their confidence, 0 there."""
        sequences = self._padded_sequences(ids)
        behind_end = after_first(ids == self.config.eos_token_id)
        if streamer is not None:
            stream(streamer, sequences.cpu(), self.config.eos_token_id)
        return sequences, confidence.masked_fill(behind_end, 0.0)

    def _padded_sequences(self, ids: Tensor) -> Tensor:
        """ids (B, L) with padding behind the end."""
        return ids.masked_fill(after_first(ids == self.config.eos_token_id), self.config.pad_token_id)


def _judge(embed: Callable[[Tensor], Tensor], search: SearchSettings, kind: str) -> Judge:
    """What embeds texts, with the settings for a judge of its kind."""
    return Judge(embed, search.likelihood_weight_of(kind), kind, search.stop_cosine_of(kind))


def _calls(*judges: Judge | None) -> dict[str, Any]:
    """Texts that the encoder and the surrogate embedded, as the output names them."""
    calls = {"encoder": 0, "surrogate": 0}
    for judge in judges:
        if judge is not None:
            calls[judge.kind] += judge.num_calls
    return {"num_feedback_calls": calls["encoder"], "num_surrogate_calls": calls["surrogate"]}
