"""Settings of `generate`: their names, types, bounds and defaults, and the calibration of its confidence."""

import math
from dataclasses import dataclass
from dataclasses import fields
from numbers import Integral
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from .diffusion_embinv import text_positions
from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown

# arguments of other libraries, and what to use here
INSTEAD = {
    **dict.fromkeys(
        ("inputs", "input_ids", "inputs_embeds", "prompt"),
        "give vectors as embeddings; what is known of a text as draft_ids",
    ),
    "attention_mask": "leave it out, vectors have no padding",
    **dict.fromkeys(("max_new_tokens", "max_tokens"), "use max_length, the tokens of a text and its end"),
    **dict.fromkeys(("min_new_tokens", "min_length"), "leave it out, the model decides where a text ends"),
    "do_sample": "use temperature, 0 takes the likeliest tokens and 1 samples from the model's distribution",
    **dict.fromkeys(
        ("top_k", "top_p", "min_p", "typical_p"), "use temperature, or candidate_temperature for a search"
    ),
    "num_return_sequences": "each vector gets one text; repeat a vector and set temperature to sample several",
    **dict.fromkeys(("num_inference_steps", "num_diffusion_steps"), "use num_steps"),
    "bad_words_ids": "use suppress_tokens, a list of ids",
    "seed": "use generator=torch.Generator().manual_seed(seed)",
    **dict.fromkeys(("eos_token_id", "pad_token_id"), "it is set in the model's config"),
}
# texts of a round: their ids and vectors of 384 numbers take a gigabyte
TEXTS = 2**17
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
    "likelihood_weight": (0.0, 1_000.0),
    "overshoot": (0.0, 100.0),
}
OPTIONAL = ("temperature", "num_scouted", "likelihood_weight", "max_length")
STRATEGIES = ("sequential", "euler", "euler_remask", "confidence", "two_stage", "autoregressive")


# what a confidence rests on: the sampler alone, likelihoods of several candidates, or a search with a judge
KINDS = ("open_loop", "candidates", "surrogate", "encoder")
# cosines nearer to 1 than this differ by rounding
NEAREST = 1e-4


@dataclass(frozen=True)
class Calibration:
    """P(a token is right) = σ(probability · logit p + length · log n + nearness · d + bias) (Platt, 1999).

    p is the probability that the model gave the token, n the number of tokens of its text with the end token, and
    d = −log10(1 − cosine + 1e-4) says how near the text's vector came to e, where a search knows that. A right token
    stands at its own position, which is harder in longer texts. `embinv calibrate` fits the four numbers on held-out
    texts; by default p stays as it is. p = 0 (masked) and p = 1 (given by the user) always do.
    """

    probability: float = 1.0
    length: float = 0.0
    nearness: float = 0.0
    bias: float = 0.0

    def __post_init__(self):
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise EmbInvError(f"{name} of a calibration must be a finite number, got {value!r}.")
        if self.probability <= 0:
            raise EmbInvError(f"probability of a calibration must be above 0, got {self.probability}.")

    def __call__(self, confidence: Tensor, ids: Tensor, end_token_id: int, cosine: Tensor | None = None) -> Tensor:
        """Calibrated confidence (B, L) of p (B, L) for texts ids (B, L) whose vectors have `cosine` (B,) with e."""
        if self == Calibration():
            return confidence
        size = text_positions(ids, end_token_id).sum(dim=1, keepdim=True)
        cosine = torch.zeros(len(ids), device=ids.device) if cosine is None else cosine
        return self.weigh(evidence(confidence, size.expand_as(ids), cosine[:, None].expand_as(confidence)))

    def weigh(self, evidence: Tensor) -> Tensor:
        """Calibrated confidence (…) float32 of `evidence` (…, 4)."""
        weights = [self.probability, self.length, self.nearness, self.bias]
        return torch.sigmoid(evidence @ evidence.new_tensor(weights)).float()


def evidence(confidence: Tensor, size: Tensor, cosine: Tensor) -> Tensor:
    """What a calibration weighs, (…, 4) float64: logit p, log n, nearness d and 1; all arguments (…)."""
    nearness = -torch.log10((1 - cosine.double()).clamp_min(0) + NEAREST)
    columns = torch.logit(confidence.double()), size.double().log(), nearness, torch.ones_like(nearness)
    return torch.stack(columns, dim=-1)


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
        calibration: how the probability of a token becomes the confidence that is returned: arguments of `Calibration`
            by what the confidence rests on, "open_loop", "candidates" (without feedback), "surrogate" or "encoder".
            Fitted by `embinv calibrate`, so that of the tokens of confidence 0.8 eight in ten are right; None is the
            probability itself. No token is chosen by it.
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
        EmbInvError: for an unknown argument or strategy, or a value of another type or out of range.
    """

    def __init__(self, **kwargs):
        # the parent's many attributes are about left-to-right decoding; taking none of them makes unknown names errors
        self.strategy: str = kwargs.pop("strategy", "confidence")
        self.num_steps: int = kwargs.pop("num_steps", 8)
        self.remask_ratio: float = kwargs.pop("remask_ratio", 0.05)
        self.restart_ratio: float = kwargs.pop("restart_ratio", 0.3)
        self.guidance_scale: float = kwargs.pop("guidance_scale", 1.0)
        self.temperature: float | None = kwargs.pop("temperature", None)
        self.calibration: dict[str, dict[str, float]] | None = _calibrations(kwargs)
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
                raise EmbInvError(f"unknown generation argument {name}: {INSTEAD[name]}.")
            raise EmbInvError(f"unknown generation argument {name}; known are {', '.join(self.names())}.")
        self.validate()

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names of the settings."""
        return (
            "strategy", "num_steps", "remask_ratio", "restart_ratio", "guidance_scale", "temperature", "calibration",
            "num_candidates", "num_corrections", "num_beams", "num_proposals", "num_checked", "num_scouted",
            "num_hops", "num_searches", "candidate_temperature", "likelihood_weight", "overshoot", "max_length",
            "suppress_tokens", "return_history",
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
            EmbInvError: for the first setting that is not as it should be.
        """
        if not isinstance(self.strategy, str) or self.strategy not in STRATEGIES:
            raise EmbInvError(f"strategy must be one of {', '.join(STRATEGIES)}, got {shown(self.strategy)}.")
        for name in BOUNDS:
            setattr(self, name, _number(name, getattr(self, name)))
        if self.num_beams * self.num_proposals * self.num_hops > TEXTS:
            raise EmbInvError(f"num_beams · num_proposals · num_hops must be at most {TEXTS:,} texts of a vector.")
        if not isinstance(self.return_history, bool):
            raise EmbInvError(f"return_history must be True or False, got {shown(self.return_history)}.")
        self.suppress_tokens = _token_ids(self.suppress_tokens)
        for kind in KINDS:
            self.calibration_of(kind)  # raises for impossible values

    def calibration_of(self, kind: str) -> Calibration:
        """The calibration of confidences that rest on `kind`; one that changes nothing where none was fitted."""
        fitted = (self.calibration or {}).get(kind, {})
        try:
            return Calibration(**fitted)
        except TypeError as error:
            raise EmbInvError(f"calibration of {kind} must hold {_CALIBRATION_KEYS}, got {shown(fitted)}.") from error

    @classmethod
    def from_model_config(cls, model_config):
        raise NotImplementedError("a model configuration holds no sampler settings.")

    def get_generation_mode(self, *args, **kwargs):
        raise NotImplementedError("masked diffusion has no left-to-right generation mode.")


_CALIBRATION_KEYS = "numbers for probability, length, nearness and bias"


def _calibrations(settings: dict) -> dict[str, dict[str, float]] | None:
    """Takes `calibration` out of settings, or what older files hold in its place: T and b of σ(logit(p) / T + b)."""
    temperature, bias = settings.pop("confidence_temperature", None), settings.pop("confidence_bias", None)
    calibration = settings.pop("calibration", None)
    if calibration is not None and (not isinstance(calibration, dict) or set(calibration) - set(KINDS)):
        raise EmbInvError(f"calibration must be by {', '.join(KINDS)}, got {calibration!r}.")
    if calibration is None and (temperature, bias) != (None, None):
        return {"open_loop": {"probability": 1 / (temperature or 1.0), "bias": bias or 0.0}}
    return calibration


def _number(name: str, value: Any) -> int | float | None:
    """A setting as a Python number within its bounds."""
    if value is None and name in OPTIONAL:
        return None
    least, most = BOUNDS[name]
    whole = isinstance(least, int)
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and least <= value <= most
    if not fits:
        kind, none = "a whole number" if whole else "a number", ", or None" if name in OPTIONAL else ""
        raise EmbInvError(f"{name} must be {kind} from {least:,g} to {most:,g}{none}, got {shown(value)}.")
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
        raise EmbInvError(f"suppress_tokens must be a list of token ids, whole numbers from 0, got {shown(ids)}.")
    return [int(token) for token in ids]
