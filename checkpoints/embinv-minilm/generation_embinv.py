"""`generate`: its output, and the closed loop around the sampler."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .errors_embinv import EmbInvError
from .search_embinv import LIKELIHOOD_WEIGHT
from .search_embinv import ROWS
from .search_embinv import SURROGATE_LIKELIHOOD_WEIGHT
from .search_embinv import ClosedLoop
from .search_embinv import Judge
from .search_embinv import Targets
from .diffusion_embinv import after_first
from .inputs_embinv import Fingerprint
from .generation_config_embinv import EmbInvGenerationConfig
from .inputs_embinv import BEAMS
from .inputs_embinv import as_rows
from .inputs_embinv import check_draft
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_generator
from .inputs_embinv import check_streamer
from .inputs_embinv import check_suppressed
from .inputs_embinv import checked_feedback
from .errors_embinv import shown
from .sampler_embinv import Sampler
from .sampler_embinv import shape_of_draws
from .texts_embinv import decode_rows

# uniform draws at a time, 256 MiB
MAX_DRAWS = 2**26


@dataclass
class EmbInvGenerationOutput(ModelOutput):
    """What `generate` returns.

    sequences: (B, L) int64, the text, its end token when it has one, then padding.
    confidence: (B, L) float32, the calibrated probability of each token when it was written, 0 at padding.
    num_forward_passes: how often the network ran; guidance runs twice the rows in a pass.
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


class EmbInvGenerationMixin:
    """Gives a model `generate`."""

    @torch.no_grad()
    def generate(
        self,
        embeddings: Any = None,
        generation_config: EmbInvGenerationConfig | None = None,
        generator: torch.Generator | None = None,
        streamer: Any | None = None,
        draft_ids: Tensor | None = None,
        feedback: Callable | str | None = None,
        tokenizer: Any | None = None,
        **kwargs,
    ) -> EmbInvGenerationOutput:
        """Read the text back out of embeddings.

        Args:
            embeddings: (B, D) or (D,), tensor, array or list of floating-point numbers; rows of another length than 1
                are normalised, with a warning.
            generation_config: the model's own by default; `kwargs` override its settings.
            generator: makes sampling repeatable. Each row takes a fixed amount of its randomness, so one generator
                for many calls makes the batch size change no text, in a search neither.
            draft_ids: (B, L) canvas to start from, [MASK] where the text is unknown; what is known stays, with a
                confidence of 1. Rows are texts with end tokens behind them; L is `max_length`. By default all unknown.
            streamer: for a batch of one: `put_draft` receives the canvas after each pass, and the keyword `confidence`
                (1, L); `put` receives the text. In a search there are no drafts.
            feedback: what checks candidates and corrections: "surrogate", the model's own stand-in for the encoder, or
                the encoder: N texts → (N, D) when the `tokenizer` is given, otherwise ids (N, L) → (N, D), as a
                tensor, an array or lists; they are normalised. Without candidates and corrections it only gives the
                cosine of each text; without feedback, candidates are ranked by likelihood alone.
            tokenizer: this model's, to hand texts to `feedback`.

        Raises:
            EmbInvError: for vectors of another width than `config.embedding_dim`, NaN, infinite or all-zero ones, for
                unknown or impossible settings, and for vectors of another shape, NaN or infinite ones by `feedback`.
        """
        config = self._generation_settings(generation_config, kwargs)
        given, embeddings = embeddings, check_embeddings(embeddings, self.config.embedding_dim).to(self.device)
        if mismatch := self._mismatch(given, embeddings.shape):
            warnings.warn(mismatch, stacklevel=2)
        search = config.num_candidates > 1 or config.num_corrections > 0
        check_feedback(feedback, tokenizer)
        check_generator(generator)
        if streamer is not None:
            check_streamer(streamer, len(embeddings))
        if search and (draft_ids is not None or config.return_history):
            raise EmbInvError("candidates and corrections take no draft_ids and keep no history.")
        if config.num_corrections and feedback is None:
            raise EmbInvError('num_corrections needs feedback: "surrogate", or an encoder to check the text by.')
        if draft_ids is not None:
            shape = torch.Size([len(embeddings), config.max_length])
            draft_ids = check_draft(draft_ids, shape, self.config.vocab_size, self.config.eos_token_id)
        if search and len(embeddings):
            return self._closed_loop(embeddings, config, generator, streamer, feedback, tokenizer)
        judge, _ = self._judges(config, feedback, tokenizer)
        sampler = Sampler(self, embeddings, config, [generator] * len(embeddings), streamer, draft_ids)
        canvas = sampler.run()
        cosine = None if judge is None else judge.cosine(canvas.ids, embeddings)
        calls = judge.num_calls if judge else 0
        sequences, confidence = self._finish(canvas.ids, sampler.confidence(canvas), streamer)
        drafts = sampler.history
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=sampler.num_forward_passes,
            cosine=cosine,
            num_feedback_calls=0 if feedback == "surrogate" else calls,
            num_surrogate_calls=calls if feedback == "surrogate" else 0,
            history=tuple(draft.ids for draft in drafts) if config.return_history else None,
            history_confidence=tuple(map(sampler.confidence, drafts)) if config.return_history else None,
        )

    def mismatch(self, embeddings: Any) -> str | None:
        """One line when vectors (N, D) look like none of the encoder that this model inverts, else None.

        A first test, by the fingerprint in the configuration; without one, or for no vectors, it says nothing.

        Raises:
            EmbInvError: as `generate`, for vectors of another width, NaN, infinite or all-zero ones.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that they are normalised is for `generate` to say
            checked = check_embeddings(embeddings, self.config.embedding_dim)
        return self._mismatch(embeddings, checked.shape)

    def _mismatch(self, embeddings: Any, shape: torch.Size) -> str | None:
        """`mismatch` of vectors that were checked, (N, D) in `shape`, as they came: their lengths count."""
        if self.config.encoder_fingerprint is None or not shape[0]:
            return None
        vectors = as_rows(embeddings, "embeddings").reshape(shape)
        looks = Fingerprint.from_text(self.config.encoder_fingerprint).mismatch(vectors)
        encoder = self.config.encoder_id or "one encoder"
        return looks and f"this model inverts vectors of {encoder}; these look like {looks}."

    def _closed_loop(self, embeddings: Tensor, config, generator, streamer, feedback, tokenizer):
        """The best of several texts, corrected by what feedback says of them."""
        passes = 0

        def write(targets: Targets, changes: dict, drafts=None, barred=None) -> Tensor:
            nonlocal passes
            settings = type(config)(**{**config.settings(), "num_candidates": 1, "num_corrections": 0, **changes})
            samplers, ids = [], []
            for rows in torch.arange(len(targets)).split(_rows_at_a_time(settings)):
                part = targets.rows(rows)
                fixed = (None if given is None else given[rows] for given in (drafts, barred))
                samplers.append(Sampler(self, part.vectors, settings, part.generators, None, *fixed))
                ids.append(samplers[-1].run().ids)
            passes += max(sampler.num_forward_passes for sampler in samplers)
            return torch.cat(ids)

        judge, scout = self._judges(config, feedback, tokenizer)
        checked = min(config.num_checked, config.num_proposals)
        loop = ClosedLoop(
            self, write, judge, scout, config.overshoot, config.num_beams,
            config.num_proposals if scout or feedback == "surrogate" else checked, checked, config.num_hops,
            config.candidate_temperature,
        )  # fmt: skip
        scouted = config.num_corrections // 2 if config.num_scouted is None else config.num_scouted
        scouted = min(scouted, config.num_corrections)
        targets = Targets.of(embeddings, generator)
        found = loop.run(targets, config.num_candidates, config.num_corrections, scouted, config.num_searches)
        ids, cosine = found.ids[:, 0], found.cosine[:, 0]
        kind = "candidates" if feedback is None else "surrogate" if feedback == "surrogate" else "encoder"
        confidence = config.calibration_of(kind)(found.log_p[:, 0].exp(), ids, self.config.eos_token_id, cosine)
        sequences, confidence = self._finish(ids, confidence, streamer)
        by_encoder, by_surrogate = (None, judge) if feedback == "surrogate" else (judge, scout)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=passes + loop.num_forward_passes,
            cosine=None if feedback is None else cosine,
            num_feedback_calls=by_encoder.num_calls if by_encoder else 0,
            num_surrogate_calls=by_surrogate.num_calls if by_surrogate else 0,
        )

    def _judges(self, config, feedback: Callable | str | None, tokenizer) -> tuple[Judge | None, Judge | None]:
        """What texts are judged by, and the surrogate as its scout, where there is one and both are asked."""
        given = config.likelihood_weight
        if feedback is None:
            return None, None
        if feedback == "surrogate":
            return self._surrogate_judge(given), None

        def embed(ids: Tensor) -> Tensor:
            inputs = ids if tokenizer is None else decode_rows(tokenizer, ids, self.config.eos_token_id)
            return checked_feedback(feedback, inputs, len(ids), self.config.embedding_dim)

        judge = Judge(embed, LIKELIHOOD_WEIGHT if given is None else given)
        if self.surrogate is None or config.num_checked >= config.num_proposals:
            return judge, None
        return judge, self._surrogate_judge(given)

    def _surrogate_judge(self, likelihood_weight: float | None) -> Judge:
        weight = SURROGATE_LIKELIHOOD_WEIGHT if likelihood_weight is None else likelihood_weight
        return Judge(self.embedder(), weight)

    def _finish(self, ids: Tensor, confidence: Tensor, streamer) -> tuple[Tensor, Tensor]:
        """ids (B, L) with padding behind the end, streamed, and their confidence, 0 there."""
        behind_end = after_first(ids == self.config.eos_token_id)
        sequences = ids.masked_fill(behind_end, self.config.pad_token_id)
        if streamer is not None:
            streamer.put(sequences.cpu())
            streamer.end()
        return sequences, confidence.masked_fill(behind_end, 0.0)

    def _generation_settings(self, generation_config, overrides: dict) -> EmbInvGenerationConfig:
        base = self.generation_config if generation_config is None else generation_config
        if isinstance(base, type) or not callable(getattr(base, "settings", None)):
            raise EmbInvError(
                f"generation_config must be an EmbInvGenerationConfig, got {shown(base)}; "
                "single settings are arguments of their own."
            )
        config = type(base)(**{**base.settings(), **overrides})
        search = config.num_candidates > 1 or config.num_corrections
        if "num_beams" in overrides and "num_corrections" not in overrides and not search:
            raise EmbInvError(BEAMS)
        check_suppressed(config.suppress_tokens, self.config)
        if config.max_length is None:
            config.max_length = self.config.max_sequence_length
        if config.max_length > self.config.max_sequence_length:
            raise EmbInvError(
                f"max_length {config.max_length} is more than this model's {self.config.max_sequence_length} tokens."
            )
        return config

    def adjust_generation_fn(
        self, generation_config, from_auto_class, from_pipeline, pretrained_model_name_or_path, *args, **kwargs
    ):
        """Called by `from_pretrained`: without it, `generation_config.json` would be ignored."""
        if generation_config is not None:
            self.generation_config = self.generation_config_class(**generation_config.settings())
        elif pretrained_model_name_or_path is not None:
            names = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder")
            kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
            kwargs.pop("trust_remote_code", None)
            kwargs = {name: value for name, value in kwargs.items() if not hasattr(self.config, name)}
            try:
                self.generation_config = self.generation_config_class.from_pretrained(
                    pretrained_model_name_or_path,
                    _from_auto=from_auto_class,
                    _from_pipeline=from_pipeline,
                    **kwargs,
                )
            except OSError as error:
                if isinstance(error.__context__, (JSONDecodeError, UnicodeDecodeError)):
                    raise
                # a folder without the file: the defaults stand


def _rows_at_a_time(config) -> int:
    """Texts whose noise and conditions fit into memory together."""
    passes, kinds, length = shape_of_draws(config)
    return min(ROWS, max(1, MAX_DRAWS // (passes * kinds * length)))
