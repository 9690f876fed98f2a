"""`generate`: its settings, its output, and the closed loop around the sampler."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from .closed_loop_embinv import LIKELIHOOD_WEIGHT
from .closed_loop_embinv import SURROGATE_LIKELIHOOD_WEIGHT
from .closed_loop_embinv import ClosedLoop
from .closed_loop_embinv import Judge
from .diffusion_embinv import after_first
from .sampler_embinv import Sampler
from .sampler_embinv import calibrated

COUNTS = (
    "num_steps", "max_length", "num_candidates", "num_beams", "num_proposals", "num_checked", "num_hops",
    "num_searches",
)  # fmt: skip
STRATEGIES = ("sequential", "euler", "euler_remask", "confidence", "two_stage", "autoregressive")


class EmbInvGenerationConfig(GenerationConfig):
    """Sampler settings; unknown names raise.

    Args:
        strategy: "sequential" left to right, one token a pass (Eq. 11); "euler" the reverse diffusion (Eq. 12);
            "euler_remask" with re-masking of doubtful tokens (Eq. 13); "confidence" the surest tokens first
            (Eqs. 14–15); "two_stage" sequential, then euler from that hypothesis; "autoregressive" left to right by
            causal attention, for a model with `causal_share` above 0: each pass computes one token of each text.
        num_steps: forward passes at most, default 8. Sequential and autoregressive take one a token; two_stage adds
            that to num_steps.
        remask_ratio: τ of Eq. 13, the share of committed tokens that each step of euler_remask opens again.
        restart_ratio: share of its hypothesis' tokens, the least sure ones, that two_stage opens again.
        guidance_scale: classifier-free guidance (arXiv 2207.12598): logits = null + scale · (conditional − null).
            1.0, the default, is none; anything else runs both branches in one batch of twice the rows.
        temperature: of the token distribution; 0 takes the most likely token. None is the strategy's own: 1 for the
            euler family, which samples, 0 for the others. The first stage of two_stage is always greedy.
        confidence_temperature, confidence_bias: T and b of the confidence that is returned, σ(logit(p) / T + b),
            fitted on held-out texts by `embinv calibrate`, so that tokens of confidence 0.8 stand right eight times in
            ten. No token is chosen by it.
        num_candidates: texts that are written for each vector, one greedily, the others sampled; the best is returned.
        num_corrections: rounds in which the best texts are edited and judged again; needs `feedback`.
        num_beams, num_proposals: texts that survive a round of corrections, and edits of each.
        num_checked: of a text's edits, those that the encoder is asked about; the surrogate picks them. Without one,
            so many edits are made.
        num_scouted: of the rounds, the first ones, which the surrogate judges in the encoder's place. None is half of
            them, which reads about as much in half the calls; without an encoder or a surrogate it is nothing.
        num_hops: where the encoder judges and the surrogate picks, the surrogate's best edits are edited again, so
            that what the encoder is asked about lies up to so many edits away. 1 is faster, and reads less for as
            many calls.
        num_searches: searches from new candidates, of vectors that no text has reached yet; the best text stays.
        candidate_temperature: of sampled candidates and of edits; higher ones differ more.
        likelihood_weight: λ of the score cosine + λ · mean log p(token | e, the others) by which texts are ranked.
            None is 0 for the encoder, and 0.006 for the surrogate, whose cosine is less to be trusted.
        overshoot: α of e + α(e − ê), which edits of a text with vector ê are filled in for: what it lacks counts more.
        max_length: canvas length, the model's `max_sequence_length` by default; shorter to say "at most so long".
        suppress_tokens: ids that are never written, [MASK] is always among them.
        return_history: keep the canvas and its confidence after each pass.

    Raises:
        ValueError: for an unknown argument or strategy, or a value out of range.
    """

    def __init__(self, **kwargs):
        # the parent's many attributes are about left-to-right decoding; taking none of them makes unknown names errors
        self.strategy: str = kwargs.pop("strategy", "confidence")
        self.num_steps: int = kwargs.pop("num_steps", 8)
        self.remask_ratio: float = kwargs.pop("remask_ratio", 0.05)
        self.restart_ratio: float = kwargs.pop("restart_ratio", 0.3)
        self.guidance_scale: float = kwargs.pop("guidance_scale", 1.0)
        self.temperature: float | None = kwargs.pop("temperature", None)
        self.confidence_temperature: float = kwargs.pop("confidence_temperature", 1.0)
        self.confidence_bias: float = kwargs.pop("confidence_bias", 0.0)
        self.num_candidates: int = kwargs.pop("num_candidates", 1)
        self.num_corrections: int = kwargs.pop("num_corrections", 0)
        self.num_beams: int = kwargs.pop("num_beams", 4)
        self.num_proposals: int = kwargs.pop("num_proposals", 64)
        self.num_checked: int = kwargs.pop("num_checked", 8)
        self.num_scouted: int | None = kwargs.pop("num_scouted", None)
        self.num_hops: int = kwargs.pop("num_hops", 3)
        self.num_searches: int = kwargs.pop("num_searches", 1)
        self.candidate_temperature: float = kwargs.pop("candidate_temperature", 0.7)
        self.likelihood_weight: float | None = kwargs.pop("likelihood_weight", None)
        self.overshoot: float = kwargs.pop("overshoot", 1.5)
        self.max_length: int | None = kwargs.pop("max_length", None)
        self.suppress_tokens: list[int] | None = kwargs.pop("suppress_tokens", None)
        self.return_history: bool = kwargs.pop("return_history", False)
        self._commit_hash: str | None = kwargs.pop("_commit_hash", None)
        self._from_model_config: bool | None = kwargs.pop("_from_model_config", None)
        self.transformers_version: str | None = kwargs.pop("transformers_version", None)
        if kwargs:
            raise ValueError(f"unknown generation argument {', '.join(kwargs)}; known are {', '.join(self.names())}.")
        self.validate()

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names of the settings."""
        return (
            "strategy", "num_steps", "remask_ratio", "restart_ratio", "guidance_scale", "temperature",
            "confidence_temperature", "confidence_bias", "num_candidates", "num_corrections", "num_beams",
            "num_proposals", "num_checked", "num_scouted", "num_hops", "num_searches", "candidate_temperature",
            "likelihood_weight", "overshoot", "max_length", "suppress_tokens", "return_history",
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: getattr(self, name) for name in self.names()}

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the settings that differ from the defaults, so that better defaults reach old checkpoints."""
        usual = type(self)().settings()
        changed = {name: value for name, value in self.settings().items() if value != usual[name]}
        return changed | {"transformers_version": self.to_dict()["transformers_version"]}

    def validate(self, **_):
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}.")
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if not isinstance(self.num_corrections, int) or self.num_corrections < 0:
            raise ValueError(f"num_corrections must be a whole number of at least 0, got {self.num_corrections!r}.")
        if self.num_scouted is not None and (not isinstance(self.num_scouted, int) or self.num_scouted < 0):
            raise ValueError(f"num_scouted must be a whole number of at least 0, got {self.num_scouted!r}.")
        for name in ("remask_ratio", "restart_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}.")
        if self.temperature is not None and not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature!r}.")

        for name in ("confidence_temperature", "candidate_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}.")

    @classmethod
    def from_model_config(cls, model_config):
        raise NotImplementedError("a model configuration holds no sampler settings.")

    def get_generation_mode(self, *args, **kwargs):
        raise NotImplementedError("masked diffusion has no left-to-right generation mode.")


@dataclass
class EmbInvGenerationOutput(ModelOutput):
    """What `generate` returns.

    sequences: (B, L) int64, the text, its end token when it has one, then padding.
    confidence: (B, L) float32, the calibrated probability of each token when it was written, 0 at padding.
    num_forward_passes: how often the network ran; guidance runs twice the rows in a pass.
    cosine: (B,) of the text's vector with e, when there was feedback. num_feedback_calls: texts that the encoder
        embedded. num_surrogate_calls: those that the surrogate did.
    history, history_confidence: on request, the canvas (B, L) and its confidence after each pass.
    """

    sequences: Tensor | None = None
    confidence: Tensor | None = None
    num_forward_passes: int | None = None
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
        embeddings: Any,
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
            embeddings: (B, D) or (D,), tensor, array or list; rows of another length than 1 are normalised, with a
                warning.
            generation_config: the model's own by default; `kwargs` override its settings.
            generator: makes sampling repeatable. Each row takes a fixed amount of its randomness, so the batch
                size changes no text.
            draft_ids: (B, L) canvas to start from, [MASK] where the text is unknown; what is known stays, with a
                confidence of 1. Rows are texts with end tokens behind them; L is `max_length`. By default all unknown.
            streamer: for a batch of one: `put_draft` receives the canvas after each pass, and the keyword `confidence`
                (1, L); `put` receives the text.
            feedback: what checks candidates and corrections: "surrogate", the model's own stand-in for the encoder, or
                the encoder: N texts → (N, D) when the `tokenizer` is given, otherwise ids (N, L) → (N, D). Without it,
                candidates are ranked by likelihood alone.
            tokenizer: this model's, to hand texts to `feedback`.

        Raises:
            ValueError: for vectors of another width than `config.embedding_dim`, NaN, infinite or all-zero ones, and
                for unknown or impossible settings.
        """
        config = self._generation_settings(generation_config, kwargs)
        embeddings = check_embeddings(embeddings, self.config.embedding_dim).to(self.device)
        if len(embeddings) and (config.num_candidates > 1 or config.num_corrections):
            if draft_ids is not None or config.return_history:
                raise ValueError("candidates and corrections take no draft_ids and keep no history.")
            return self._closed_loop(embeddings, config, generator, streamer, feedback, tokenizer)
        sampler = Sampler(self, embeddings, config, generator, streamer, draft_ids)
        canvas = sampler.run()
        sequences, confidence = self._finish(canvas.ids, canvas.confidence, config, streamer)
        scaling = config.confidence_temperature, config.confidence_bias
        drafts = sampler.history
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=sampler.num_forward_passes,
            num_feedback_calls=0,
            num_surrogate_calls=0,
            history=tuple(draft.ids for draft in drafts) if config.return_history else None,
            history_confidence=(
                tuple(calibrated(draft.confidence, *scaling) for draft in drafts) if config.return_history else None
            ),
        )

    def _closed_loop(self, embeddings: Tensor, config, generator, streamer, feedback, tokenizer):
        """The best of several texts, corrected by what feedback says of them."""
        if config.num_corrections and feedback is None:
            raise ValueError('num_corrections needs feedback: "surrogate", or an encoder to check the text by.')
        passes = 0

        def write(rows: Tensor, changes: dict, drafts=None, barred=None) -> Tensor:
            nonlocal passes
            settings = {**config.settings(), "num_candidates": 1, "num_corrections": 0, **changes}
            sampler = Sampler(self, rows, type(config)(**settings), generator, None, drafts, barred)
            ids = sampler.run().ids
            passes += sampler.num_forward_passes
            return ids

        judge, scout = self._judges(config, feedback, tokenizer)
        checked = min(config.num_checked, config.num_proposals)
        loop = ClosedLoop(
            self, embeddings, write, judge, scout, config.overshoot, config.num_beams,
            config.num_proposals if scout or feedback == "surrogate" else checked, checked, config.num_hops,
            config.candidate_temperature, generator,
        )  # fmt: skip
        scouted = config.num_corrections // 2 if config.num_scouted is None else config.num_scouted
        scouted = min(scouted, config.num_corrections)
        found = loop.run(config.num_candidates, config.num_corrections, scouted, config.num_searches)
        sequences, confidence = self._finish(found.ids[:, 0], found.log_p[:, 0].exp(), config, streamer)
        by_encoder, by_surrogate = (None, judge) if feedback == "surrogate" else (judge, scout)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=passes + loop.num_forward_passes,
            cosine=None if feedback is None else found.cosine[:, 0],
            num_feedback_calls=by_encoder.num_calls if by_encoder else 0,
            num_surrogate_calls=by_surrogate.num_calls if by_surrogate else 0,
        )

    def _judges(self, config, feedback: Callable | str | None, tokenizer) -> tuple[Judge | None, Judge | None]:
        """What texts are judged by, and the surrogate as its scout, where there is one and both are asked."""
        if isinstance(feedback, str) and feedback != "surrogate":
            raise ValueError(f'feedback must be "surrogate", an encoder or None, got {feedback!r}.')
        given = config.likelihood_weight
        if feedback is None:
            return None, None
        if feedback == "surrogate":
            return self._surrogate_judge(given), None
        embed = feedback
        if tokenizer is not None:
            embed = lambda ids: torch.as_tensor(feedback(_texts(tokenizer, ids, self.config.eos_token_id)))  # noqa: E731
        judge = Judge(embed, LIKELIHOOD_WEIGHT if given is None else given)
        if self.surrogate is None or config.num_checked >= config.num_proposals:
            return judge, None
        return judge, self._surrogate_judge(given)

    def _surrogate_judge(self, likelihood_weight: float | None) -> Judge:
        weight = SURROGATE_LIKELIHOOD_WEIGHT if likelihood_weight is None else likelihood_weight
        return Judge(self.embedder(), weight)

    def _finish(self, ids: Tensor, confidence: Tensor, config, streamer) -> tuple[Tensor, Tensor]:
        """ids (B, L) with padding behind the end, streamed, and their calibrated confidence, 0 there."""
        behind_end = after_first(ids == self.config.eos_token_id)
        sequences = ids.masked_fill(behind_end, self.config.pad_token_id)
        if streamer is not None:
            streamer.put(sequences.cpu())
            streamer.end()
        confidence = calibrated(confidence, config.confidence_temperature, config.confidence_bias)
        return sequences, confidence.masked_fill(behind_end, 0.0)

    def _generation_settings(self, generation_config, overrides: dict) -> EmbInvGenerationConfig:
        base = self.generation_config if generation_config is None else generation_config
        config = type(base)(**{**base.settings(), **overrides})
        if config.max_length is None:
            config.max_length = self.config.max_sequence_length
        if config.max_length > self.config.max_sequence_length:
            raise ValueError(
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
            try:
                self.generation_config = self.generation_config_class.from_pretrained(
                    pretrained_model_name_or_path,
                    _from_auto=from_auto_class,
                    _from_pipeline=from_pipeline,
                    **kwargs,
                )
            except OSError:
                pass  # a folder without the file: the defaults stand


def _texts(tokenizer, ids: Tensor, end: int) -> list[str]:
    """The texts of ids (N, L), each before its first end token."""
    rows = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
    return tokenizer.batch_decode(rows, skip_special_tokens=True)


def check_embeddings(embeddings: Any, embedding_dim: int) -> Tensor:
    """Vectors as (B, D) float32 rows of length 1; see `generate` for what it refuses."""
    embeddings = torch.as_tensor(embeddings).float()
    embeddings = embeddings[None] if embeddings.ndim == 1 else embeddings
    if embeddings.ndim != 2 or embeddings.shape[1] != embedding_dim:
        raise ValueError(f"embeddings must have shape (batch, {embedding_dim}), got {tuple(embeddings.shape)}.")
    if not embeddings.isfinite().all():
        row = int((~embeddings.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"embedding {row} has NaN or infinite entries; every entry must be a finite number.")
    norms = embeddings.norm(dim=1, keepdim=True)
    if (norms == 0).any():
        raise ValueError(f"embedding {int((norms == 0).nonzero()[0, 0])} is all zeros and has no direction to invert.")
    if ((norms - 1).abs() > 1e-2).any():
        warnings.warn("embeddings are not of length 1: normalising them.", stacklevel=3)
    return embeddings / norms
