"""`generate`: its settings, its output, and the closed loop around the sampler."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from .closed_loop_embinv import LIKELIHOOD_WEIGHT
from .closed_loop_embinv import ROWS
from .closed_loop_embinv import SURROGATE_LIKELIHOOD_WEIGHT
from .closed_loop_embinv import TEXTS
from .closed_loop_embinv import ClosedLoop
from .closed_loop_embinv import Judge
from .closed_loop_embinv import Targets
from .diffusion_embinv import after_first
from .inputs_embinv import BEAMS
from .inputs_embinv import INSTEAD
from .inputs_embinv import check_draft
from .inputs_embinv import check_embeddings
from .inputs_embinv import check_feedback
from .inputs_embinv import check_generator
from .inputs_embinv import check_streamer
from .inputs_embinv import check_suppressed
from .inputs_embinv import checked_feedback
from .inputs_embinv import is_whole
from .inputs_embinv import shown
from .sampler_embinv import Sampler
from .sampler_embinv import calibrated
from .sampler_embinv import shape_of_draws

# the least and the most of each number; whole numbers where these are. Counts end where nothing is gained any more
BOUNDS = {
    "num_steps": (1, 1_000),
    "max_length": (1, 100_000),
    "num_candidates": (1, 10_000),
    "num_corrections": (0, 10_000),
    "num_beams": (1, 1_000),
    "num_proposals": (1, 10_000),
    "num_checked": (1, 10_000),
    "num_scouted": (0, 10_000),
    "num_hops": (1, 100),
    "num_searches": (1, 1_000),
    "remask_ratio": (0.0, 1.0),
    "restart_ratio": (0.0, 1.0),
    "guidance_scale": (-100.0, 100.0),
    "temperature": (0.0, 100.0),
    "candidate_temperature": (0.001, 100.0),
    "confidence_temperature": (0.001, 1_000.0),
    "confidence_bias": (-1_000.0, 1_000.0),
    "likelihood_weight": (0.0, 1_000.0),
    "overshoot": (0.0, 100.0),
}
OPTIONAL = ("temperature", "num_scouted", "likelihood_weight", "max_length")
# uniform draws at a time, 256 MiB
MAX_DRAWS = 2**26
STRATEGIES = ("sequential", "euler", "euler_remask", "confidence", "two_stage")


class EmbInvGenerationConfig(GenerationConfig):
    """Sampler settings; unknown names raise.

    Args:
        strategy: "sequential" left to right, one token a pass (Eq. 11); "euler" the reverse diffusion (Eq. 12);
            "euler_remask" with re-masking of doubtful tokens (Eq. 13); "confidence" the surest tokens first
            (Eqs. 14–15); "two_stage" sequential, then euler from that hypothesis.
        num_steps: forward passes at most, default 8. Sequential takes one a token; two_stage adds that to num_steps.
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

    Numbers are bounded, see `BOUNDS`.

    Raises:
        ValueError: for an unknown argument or strategy, or a value of another type or out of range.
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
        for name in kwargs:
            if name in INSTEAD:
                raise ValueError(f"unknown generation argument {name}: {INSTEAD[name]}.")
            raise ValueError(f"unknown generation argument {name}; known are {', '.join(self.names())}.")
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
        return self._changed() | {"transformers_version": self.to_dict()["transformers_version"]}

    def _changed(self) -> dict[str, Any]:
        usual = type(self)().settings()
        return {name: value for name, value in self.settings().items() if value != usual[name]}

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"{type(self).__name__}({changed})"

    def validate(self, **_):
        """Checks types and ranges; numbers of numpy become Python's.

        Raises:
            ValueError: for the first setting that is not as it should be.
        """
        if not isinstance(self.strategy, str) or self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {shown(self.strategy)}.")
        for name in BOUNDS:
            setattr(self, name, _number(name, getattr(self, name)))
        if self.num_beams * self.num_proposals * self.num_hops > TEXTS:
            raise ValueError(f"num_beams · num_proposals · num_hops must be at most {TEXTS:,} texts of a vector.")
        if not isinstance(self.return_history, bool):
            raise ValueError(f"return_history must be True or False, got {shown(self.return_history)}.")
        self.suppress_tokens = _token_ids(self.suppress_tokens)

    @classmethod
    def from_model_config(cls, model_config):
        raise NotImplementedError("a model configuration holds no sampler settings.")

    def get_generation_mode(self, *args, **kwargs):
        raise NotImplementedError("masked diffusion has no left-to-right generation mode.")


def _number(name: str, value: Any) -> int | float | None:
    """A setting as a Python number within its bounds."""
    if value is None and name in OPTIONAL:
        return None
    least, most = BOUNDS[name]
    whole = isinstance(least, int)
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and least <= value <= most
    if not fits:
        kind, none = "a whole number" if whole else "a number", ", or None" if name in OPTIONAL else ""
        raise ValueError(f"{name} must be {kind} from {least:,g} to {most:,g}{none}, got {shown(value)}.")
    return int(value) if whole else float(value)


def _token_ids(ids: Any) -> list[int] | None:
    """`suppress_tokens` as a list."""
    if ids is None:
        return None
    try:
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
    except RuntimeError:
        pass  # a tensor without numbers of its own: refused below
    listed = isinstance(ids, list | tuple | set | range)
    if not listed or not all(is_whole(token, 0) for token in ids):
        raise ValueError(f"suppress_tokens must be a list of token ids, whole numbers from 0, got {shown(ids)}.")
    return [int(token) for token in ids]


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
            ValueError: for vectors of another width than `config.embedding_dim`, NaN, infinite or all-zero ones, for
                unknown or impossible settings, and for vectors of another shape, NaN or infinite ones by `feedback`.
        """
        config = self._generation_settings(generation_config, kwargs)
        embeddings = check_embeddings(embeddings, self.config.embedding_dim).to(self.device)
        search = config.num_candidates > 1 or config.num_corrections > 0
        check_feedback(feedback, tokenizer)
        check_generator(generator)
        if streamer is not None:
            check_streamer(streamer, len(embeddings))
        if search and (draft_ids is not None or config.return_history):
            raise ValueError("candidates and corrections take no draft_ids and keep no history.")
        if config.num_corrections and feedback is None:
            raise ValueError('num_corrections needs feedback: "surrogate", or an encoder to check the text by.')
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
        sequences, confidence = self._finish(canvas.ids, canvas.confidence, config, streamer)
        scaling = config.confidence_temperature, config.confidence_bias
        drafts = sampler.history
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence,
            num_forward_passes=sampler.num_forward_passes,
            cosine=cosine,
            num_feedback_calls=0 if feedback == "surrogate" else calls,
            num_surrogate_calls=calls if feedback == "surrogate" else 0,
            history=tuple(draft.ids for draft in drafts) if config.return_history else None,
            history_confidence=(
                tuple(calibrated(draft.confidence, *scaling) for draft in drafts) if config.return_history else None
            ),
        )

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
        given = config.likelihood_weight
        if feedback is None:
            return None, None
        if feedback == "surrogate":
            return self._surrogate_judge(given), None

        def embed(ids: Tensor) -> Tensor:
            inputs = ids if tokenizer is None else _texts(tokenizer, ids, self.config.eos_token_id)
            return checked_feedback(feedback, inputs, len(ids), self.config.embedding_dim)

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
        if isinstance(base, type) or not callable(getattr(base, "settings", None)):
            raise ValueError(
                f"generation_config must be an EmbInvGenerationConfig, got {shown(base)}; "
                "single settings are arguments of their own."
            )
        config = type(base)(**{**base.settings(), **overrides})
        search = config.num_candidates > 1 or config.num_corrections
        if "num_beams" in overrides and "num_corrections" not in overrides and not search:
            raise ValueError(BEAMS)
        check_suppressed(config.suppress_tokens, self.config)
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


def _rows_at_a_time(config) -> int:
    """Texts whose noise and conditions fit into memory together."""
    passes, kinds, length = shape_of_draws(config)
    return min(ROWS, max(1, MAX_DRAWS // (passes * kinds * length)))
