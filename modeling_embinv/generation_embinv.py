"""`generate`: the five decoding strategies of the paper around one loop, and the closed loop around those."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import ModelOutput

from .closed_loop_embinv import ClosedLoop
from .diffusion_embinv import Canvas
from .diffusion_embinv import after_first
from .diffusion_embinv import confidence_step
from .diffusion_embinv import euler_step
from .diffusion_embinv import remask_step
from .diffusion_embinv import sequential_step

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
        candidate_temperature: of sampled candidates and of edits; higher ones differ more.
        likelihood_weight: λ of the score cosine + λ · mean log p(token | e, the others) by which texts are ranked.
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
        self.num_beams: int = kwargs.pop("num_beams", 2)
        self.num_proposals: int = kwargs.pop("num_proposals", 8)
        self.candidate_temperature: float = kwargs.pop("candidate_temperature", 0.7)
        self.likelihood_weight: float = kwargs.pop("likelihood_weight", 0.03)
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
            "num_proposals", "candidate_temperature", "likelihood_weight", "max_length", "suppress_tokens",
            "return_history",
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {name: getattr(self, name) for name in self.names()}

    def validate(self, **_):
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}.")
        for name in ("num_steps", "max_length", "num_candidates", "num_beams", "num_proposals"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")
        if not isinstance(self.num_corrections, int) or self.num_corrections < 0:
            raise ValueError(f"num_corrections must be a whole number of at least 0, got {self.num_corrections!r}.")
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
    cosine: (B,) of the text's vector with e, when there was feedback. num_feedback_calls: texts that it embedded.
    history, history_confidence: on request, the canvas (B, L) and its confidence after each pass.
    """

    sequences: Tensor | None = None
    confidence: Tensor | None = None
    num_forward_passes: int | None = None
    cosine: Tensor | None = None
    num_feedback_calls: int | None = None
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
        feedback: Callable | None = None,
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

            feedback: the encoder, or a stand-in, for candidates and corrections: N texts → (N, D) when the `tokenizer`
                is given, otherwise ids (N, L) → (N, D). Without it, candidates are ranked by likelihood alone.
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
        sampler = _Sampler(self, embeddings, config, generator, streamer, draft_ids)
        canvas = sampler.run()
        behind_end = after_first(canvas.ids == canvas.end_token_id)
        sequences = canvas.ids.masked_fill(behind_end, self.config.pad_token_id)
        if streamer is not None:
            streamer.put(sequences.cpu())
            streamer.end()
        scaling = config.confidence_temperature, config.confidence_bias
        drafts = sampler.history
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=calibrated(canvas.confidence, *scaling).masked_fill(behind_end, 0.0),
            num_forward_passes=sampler.num_forward_passes,
            num_feedback_calls=0,
            history=tuple(draft.ids for draft in drafts) if config.return_history else None,
            history_confidence=(
                tuple(calibrated(draft.confidence, *scaling) for draft in drafts) if config.return_history else None
            ),
        )

    def _closed_loop(self, embeddings: Tensor, config, generator, streamer, feedback, tokenizer):
        """The best of several texts, corrected by what feedback says of them."""
        if config.num_corrections and feedback is None:
            raise ValueError("num_corrections needs feedback: an encoder to check the text by.")
        passes = 0

        def write(rows: Tensor, changes: dict, drafts: Tensor | None = None) -> Tensor:
            nonlocal passes
            settings = {**config.settings(), "num_candidates": 1, "num_corrections": 0, **changes}
            sampler = _Sampler(self, rows, type(config)(**settings), generator, None, drafts)
            ids = sampler.run().ids
            passes += sampler.num_forward_passes
            return ids

        judge = feedback
        if feedback is not None and tokenizer is not None:
            end = self.config.eos_token_id
            judge = lambda ids: torch.as_tensor(feedback(_texts(tokenizer, ids, end)))  # noqa: E731
        loop = ClosedLoop(
            self, embeddings, write, judge, config.likelihood_weight, config.num_beams, config.num_proposals,
            config.candidate_temperature, generator,
        )  # fmt: skip
        found = loop.run(config.num_candidates, config.num_corrections)
        ids = found.ids[:, 0]
        behind_end = after_first(ids == self.config.eos_token_id)
        sequences = ids.masked_fill(behind_end, self.config.pad_token_id)
        if streamer is not None:
            streamer.put(sequences.cpu())
            streamer.end()
        confidence = calibrated(found.log_p[:, 0].exp(), config.confidence_temperature, config.confidence_bias)
        return EmbInvGenerationOutput(
            sequences=sequences,
            confidence=confidence.masked_fill(behind_end, 0.0),
            num_forward_passes=passes + loop.num_forward_passes,
            cosine=None if feedback is None else found.cosine[:, 0],
            num_feedback_calls=loop.num_feedback_calls,
        )

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


def check_draft(draft_ids: Tensor, shape: torch.Size) -> Tensor:
    """Raises ValueError for another shape than the canvas'."""
    if draft_ids.shape != shape:
        raise ValueError(f"draft_ids must have shape {tuple(shape)}, got {tuple(draft_ids.shape)}.")
    return draft_ids


def calibrated(confidence: Tensor, temperature: float = 1.0, bias: float = 0.0) -> Tensor:
    """σ(logit(p) / T + b) (Platt, 1999): b < 0 for a model that is surer than it is right; 0 and 1 stay."""
    if (temperature, bias) == (1.0, 0.0):
        return confidence
    return torch.sigmoid(torch.logit(confidence.double()) / temperature + bias).float()


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


class _Sampler:
    """One call of `generate`: the canvas, its noise, and the loop that every strategy shares."""

    def __init__(self, model, embeddings: Tensor, config: EmbInvGenerationConfig, generator, streamer, draft_ids=None):
        self.model, self.embeddings, self.config, self.streamer = model, embeddings, config, streamer
        tokens = model.config.mask_token_id, model.config.eos_token_id
        self.canvas = Canvas.fully_masked(len(embeddings), config.max_length, *tokens, embeddings.device)
        if draft_ids is not None:
            self.canvas = self.canvas.filled(check_draft(draft_ids, self.canvas.ids.shape).to(embeddings.device))
        samples = config.strategy in ("euler", "euler_remask", "two_stage")
        self.temperature = float(samples) if config.temperature is None else config.temperature
        self.suppressed = torch.tensor(
            sorted({model.config.mask_token_id, *(config.suppress_tokens or ())}), device=embeddings.device
        )
        self.num_forward_passes = 0
        self.history: list[Canvas] = []
        self.draws = self._draw(generator) if samples or self.temperature > 0 else None

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        """Uniform draws (B, passes, 2, L): for the choice of tokens, and of positions. Row by row, see `generate`."""
        length = self.config.max_length
        passes = {"sequential": length, "two_stage": length + self.config.num_steps}
        shape = (passes.get(self.config.strategy, self.config.num_steps), 2, length)
        device = "cpu" if generator is None else generator.device
        rows = [torch.rand(shape, generator=generator, device=device) for _ in self.embeddings]
        return torch.stack(rows).to(self.embeddings.device) if rows else torch.empty(0, *shape)

    def run(self) -> Canvas:
        """The canvas with every position filled."""
        strategy, num_steps = self.config.strategy, self.config.num_steps
        if strategy == "confidence":
            self._loop(num_steps, lambda canvas, tokens, p, i, *_: confidence_step(canvas, tokens, p, num_steps - i))
        elif strategy == "sequential":
            self._sequential()
        elif strategy == "two_stage":
            temperature, self.temperature = self.temperature, 0.0
            self._sequential()
            self.temperature = temperature
            self._reopen(self.config.restart_ratio)
            self._euler(first_draw=self.config.max_length)
        else:
            self._euler(self.config.remask_ratio if strategy == "euler_remask" else 0.0)
        return self.canvas

    def _sequential(self):
        self._loop(
            self.config.max_length,
            lambda canvas, tokens, p, *_: sequential_step(canvas, tokens, p),
            wanted=lambda masked: masked & ~after_first(masked),
        )

    def _euler(self, remask_ratio: float = 0.0, first_draw: int = 0):
        """Uniform timesteps from where each row stands down to 0."""
        num_steps, schedule = self.config.num_steps, self.model.noise_schedule
        start = schedule.timestep(self.canvas.masked.float().mean(dim=1))  # (B,)
        alphas = schedule.alpha(start * torch.linspace(1, 0, num_steps + 1, device=start.device)[:, None])

        def step_fn(canvas, tokens, p, step, draws, active):
            canvas = euler_step(canvas, tokens, p, alphas[step, active], alphas[step + 1, active], draws)
            return remask_step(canvas, remask_ratio) if remask_ratio and step + 1 < num_steps else canvas

        self._loop(num_steps, step_fn, first_draw=first_draw)

    def _reopen(self, ratio: float):
        """Mask the least sure tokens of each row's text, its end token among them."""
        self.canvas = remask_step(self.canvas, ratio) if ratio else self.canvas

    def _loop(self, num_steps: int, step_fn: Callable, wanted: Callable = lambda masked: masked, first_draw: int = 0):
        """Up to `num_steps` passes over the rows that still have masked positions; only `wanted` ones get logits.

        Noise is taken from `first_draw` on, not from where the passes stand, which other rows decide.
        """
        for step in range(num_steps):
            active = self.canvas.masked.any(dim=1).nonzero().squeeze(1)
            if not len(active):
                break
            canvas = self.canvas.rows(active)
            noise = None if self.draws is None else self.draws[active, first_draw + step]  # (A, 2, L)
            tokens, confidence = self._denoise(canvas, self.embeddings[active], wanted(canvas.masked), noise)
            canvas = step_fn(canvas, tokens, confidence, step, None if noise is None else noise[:, 1], active)
            self.canvas.ids[active], self.canvas.confidence[active] = canvas.ids, canvas.confidence
            self._record()

    def _denoise(self, canvas: Canvas, embeddings: Tensor, wanted: Tensor, noise: Tensor | None):
        """A token and its probability at each wanted position, (A, L) each; others hold [MASK] and 0."""
        self.num_forward_passes += 1
        positions = wanted.flatten().nonzero().squeeze(1)
        logits = self._logits(canvas, embeddings, positions).float()  # (M, V)
        logits[:, self.suppressed] = -torch.inf
        at_start = positions % wanted.shape[1] == 0
        logits[at_start, canvas.end_token_id] = -torch.inf  # no text is empty
        probabilities = logits.softmax(dim=-1)
        if self.temperature == 0:
            chosen_p, chosen = probabilities.max(dim=-1)
        else:
            chosen = _sample(logits / self.temperature, noise[:, 0].flatten()[positions])
            chosen_p = probabilities.gather(1, chosen[:, None]).squeeze(1)
        tokens = torch.full_like(canvas.ids, canvas.mask_token_id).flatten()
        confidence = torch.zeros_like(canvas.confidence).flatten()
        tokens[positions], confidence[positions] = chosen, chosen_p
        return tokens.view_as(canvas.ids), confidence.view_as(canvas.confidence)

    def _logits(self, canvas: Canvas, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Logits (M, V) at flat positions; with guidance, both branches in one batch."""
        timestep = self.model.noise_schedule.timestep(canvas.masked.float().mean(dim=1))
        scale = self.config.guidance_scale
        if scale == 1.0:
            return self.model(canvas.ids, embeddings, timestep, positions=positions).logits
        rows = len(embeddings)
        logits = self.model(
            canvas.ids.repeat(2, 1),
            embeddings.repeat(2, 1),
            timestep.repeat(2),
            condition_mask=torch.arange(2 * rows, device=embeddings.device) < rows,
            positions=torch.cat([positions, positions + canvas.ids.numel()]),
        ).logits
        conditional, null = logits.float().log_softmax(dim=-1).chunk(2)
        return null + scale * (conditional - null)

    def _record(self):
        if self.config.return_history:
            self.history.append(self.canvas.rows(torch.arange(len(self.canvas.ids), device=self.canvas.ids.device)))
        if hasattr(self.streamer, "put_draft"):
            scaling = self.config.confidence_temperature, self.config.confidence_bias
            self.streamer.put_draft(
                self.canvas.ids.cpu(), confidence=calibrated(self.canvas.confidence, *scaling).cpu()
            )


def _sample(logits: Tensor, draws: Tensor) -> Tensor:
    """Tokens (M,) from softmax(logits) (M, V) by inverting its distribution function at uniform draws (M,)."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    # the last sum may fall short of 1 by rounding: a draw is scaled into what is there
    tokens = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True).squeeze(1)
    return tokens.clamp_max(logits.shape[-1] - 1)
