"""The generation configuration, as files and models hold it, and the calibration of the confidence."""

import sys
import os
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from functools import lru_cache
from json import JSONDecodeError
from typing import Any
from typing import NoReturn

import torch
from torch import Tensor
from transformers import GenerationConfig

from .causal_embinv import check_causal
from .causal_embinv import check_corrector
from .diffusion_embinv import text_positions
from .errors_embinv import EmbInvError
from .errors_embinv import shown
from .inputs_embinv import BEAMS
from .inputs_embinv import check_draft_beams
from .inputs_embinv import check_suppressed
from .settings_embinv import SETTINGS
from .settings_embinv import SamplerSettings
from .settings_embinv import SearchSettings
from .settings_embinv import documented

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
    **dict.fromkeys(
        ("confidence_temperature", "confidence_bias"),
        'use calibration={"open_loop": {"probability": 1 / temperature, "bias": bias}}',
    ),
}

# settings that were found for a checkpoint's weights, so that they stay with them
OF_WEIGHTS = ("calibration", "suppress_tokens", "stop_cosine")
# what a confidence rests on: the sampler alone, likelihoods of several candidates, a search with a judge, a search for
# the words of gaps, or the word head
KINDS = ("open_loop", "candidates", "surrogate", "encoder", "fill_surrogate", "fill_encoder", "words")
# cosines nearer to 1 than this differ by rounding
NEAREST = 1e-4
# the bounds of p, which float32 rounds to 0 and 1: no token that a model wrote is certain
LEAST_P, MOST_P = 1e-6, 1 - 1e-6


@dataclass(frozen=True)
class Calibration:
    """P(a token is right) = σ(probability · logit p + length · log n + nearness · d + bias) (Platt, 1999).

    p is the probability that the model gave the token, n the number of tokens of its text with the end token, and
    d = −log10(1 − cosine + 1e-4) says how near the text's vector came to e, where a search knows that. A right token
    stands at its own position, which is harder in longer texts. `embinv calibrate` fits the four numbers on held-out
    texts; by default p stays as it is. p = 0 (masked) and p = 1 (given by the user) always do; that of a token that
    the model wrote counts as 1e-6 at least and 1 − 1e-6 at most. For "words", p is that of a word being in the text,
    and n the number of words that are expected in it.
    """

    probability: float = 1.0
    length: float = 0.0
    nearness: float = 0.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            # of NaN no comparison is true, and a whole number may be too large for a float
            if not is_number or not abs(value) <= sys.float_info.max:
                raise EmbInvError(f"{name} of a calibration must be a finite number, got {shown(value)}.")
        if self.probability <= 0:
            raise EmbInvError(f"probability of a calibration must be above 0, got {self.probability}.")

    @property
    def is_neutral(self) -> bool:
        """Whether it leaves p as it is."""
        return self == Calibration()

    def __call__(
        self,
        confidence: Tensor,
        ids: Tensor,
        end_token_id: int,
        cosine: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Calibrated confidence (B, L) of p (B, L).

        Args:
            ids: (B, L), the texts.
            cosine: (B,) of their vectors with e; None where nothing measured it.
            known: (B, L) bool, masked and given positions, whose p of 0 and 1 stays; None for none.
        """
        if self.is_neutral:
            return confidence
        size = text_positions(ids, end_token_id).sum(dim=1, keepdim=True)
        cosine = torch.zeros(len(ids), device=ids.device) if cosine is None else cosine
        given = exact(confidence)
        p = bounded(given)
        if known is not None:
            p = torch.where(known.to(p.device), given, p)
        calibrated = self.weigh(evidence(p, size.expand_as(ids), cosine[:, None].expand_as(p)))
        return calibrated.to(confidence.device)

    def weigh(self, evidence: Tensor) -> Tensor:
        """Calibrated confidence (…) float32 of `evidence` (…, 4)."""
        weights = [self.probability, self.length, self.nearness, self.bias]
        return torch.sigmoid(evidence @ evidence.new_tensor(weights)).float()

    def probability_of(self, confidence: float, size: int, cosine: float) -> float:
        """The calibrated confidence of one, from what `evidence` takes."""
        p = bounded(torch.tensor([confidence], dtype=torch.float64))
        return float(self.weigh(evidence(p, torch.tensor([size]), torch.tensor([cosine]))))


@lru_cache
def has_float64(device_type: str) -> bool:
    """Whether a kind of device computes in float64: Apple's and some of Intel's do not."""
    try:
        torch.zeros((), dtype=torch.float64, device=device_type)
    except (RuntimeError, TypeError):
        return False
    return True


def exact(values: Tensor) -> Tensor:
    """Values in float64, on the CPU where their device has none."""
    return (values if has_float64(values.device.type) else values.cpu()).double()


def bounded(confidence: Tensor) -> Tensor:
    """p of written tokens in float64, within the bounds by which calibrations are fitted."""
    return exact(confidence).clamp(LEAST_P, MOST_P)


def evidence(confidence: Tensor, size: Tensor, cosine: Tensor) -> Tensor:
    """What a calibration weighs, (…, 4) float64: logit p, log n, nearness d and 1; all arguments (…)."""
    nearness = -torch.log10((1 - exact(cosine)).clamp_min(0) + NEAREST)
    columns = torch.logit(exact(confidence)), exact(size).log(), nearness, torch.ones_like(nearness)
    return torch.stack(columns, dim=-1)


@documented
class EmbInvGenerationConfig(SamplerSettings, GenerationConfig):
    """Settings of `generate`: those of the sampler, which are listed below, and `search`, the `SearchSettings`.

    A setting of the search can also be given, read and set by its own name, as if it were one of these: files hold
    them so. `EmbInvGenerationConfig(search={"num_candidates": 8}, num_beams=2)` has both. An unknown name, a value of
    another type and one out of bounds are an `EmbInvError`.

    `calibration`, `suppress_tokens` and `stop_cosine` belong to a checkpoint's weights. A configuration that is given
    to `generate` or `from_pretrained` and leaves them None gets the checkpoint's own; `{}` and `[]` mean none.
    """

    def __init__(self, **kwargs: Any) -> None:
        # the parent's many attributes are about left-to-right decoding; taking none of them makes unknown names errors
        for name, one in self.table().items():
            setattr(self, name, kwargs.pop(name, one.default))
        by_name = {name: kwargs.pop(name) for name in SearchSettings.table() if name in kwargs}
        self.search: SearchSettings = SearchSettings.of(kwargs.pop("search", None), **by_name)
        self._commit_hash: str | None = kwargs.pop("_commit_hash", None)
        self._from_model_config: bool | None = kwargs.pop("_from_model_config", None)
        self.transformers_version: str | None = kwargs.pop("transformers_version", None)
        for name in kwargs:
            self._check_name(name)
        self.validate()

    def __getattr__(self, name: str) -> Any:
        if name in SearchSettings.table() and "search" in vars(self):
            return getattr(self.search, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "search":
            value = SearchSettings.of(value)
        if name in SearchSettings.table():
            name, value = "search", replace(self.search, **{name: value})
        if not name.startswith("_"):  # the library's own
            self._check_name(name)
        super().__setattr__(name, value)

    @classmethod
    def _check_name(cls, name: str) -> None:
        if name in INSTEAD:
            raise EmbInvError(f"unknown generation argument {name}: {INSTEAD[name]}.")
        if name not in (*SETTINGS, "search", "transformers_version"):
            raise EmbInvError(f"unknown generation argument {name}; known are {', '.join(cls.names())}.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from the content of a generation_config.json, older ones too; `kwargs` change it.

        Raises:
            EmbInvError: for unknown or impossible settings, and for what is no table of them.
        """
        return super().from_dict(_with_calibration(_checked_table(config_dict)), **kwargs)

    @classmethod
    def _dict_from_json_file(cls, json_file: Any) -> Any:
        # transformers 5.17 writes into what the file holds before `from_dict` sees it
        return _checked_table(super()._dict_from_json_file(json_file))

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names of the settings, those of the search among them."""
        return tuple(SETTINGS)

    def settings(self) -> dict[str, Any]:
        """The settings by name, those of the search among them."""
        return {name: getattr(self, name) for name in SETTINGS}

    def with_changes(self, **changes: Any) -> "EmbInvGenerationConfig":
        """A copy with other values of some settings; `search` replaces the whole search, its names single settings."""
        sampler = {name: getattr(self, name) for name in self.table()}
        return type(self)(**{**sampler, "search": self.search, **changes})

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""
        values = super().to_dict()
        return values | asdict(values.pop("search"))

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the settings that differ from the defaults, so that better defaults reach old checkpoints."""
        return self.changed() | {"transformers_version": self.to_dict()["transformers_version"]}

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults, those of the search among them."""
        return super().changed() | self.search.changed()

    def validate(self, *_: Any, **__: Any) -> None:
        """Checks types and ranges; numbers of numpy become Python's. The search has checked itself.

        Raises:
            EmbInvError: for the first setting that is not as it should be.
        """
        for name, one in self.table().items():
            setattr(self, name, one.check(getattr(self, name)))
        if set(self.calibration or ()) - set(KINDS):
            raise EmbInvError(f"calibration must be by {', '.join(KINDS)}, got {shown(self.calibration)}.")
        for kind in KINDS:
            self.calibration_of(kind)  # raises for impossible values

    def is_calibrated(self, kind: str) -> bool:
        """Whether the confidences that rest on `kind` were fitted to how often tokens are right."""
        return bool((self.calibration or {}).get(kind))

    def calibration_of(self, kind: str) -> Calibration:
        """The calibration of confidences that rest on `kind`; one that changes nothing where none was fitted."""
        fitted = (self.calibration or {}).get(kind, {})
        try:
            return Calibration(**fitted)
        except TypeError as error:
            raise EmbInvError(f"calibration of {kind} must hold {_CALIBRATION_KEYS}, got {shown(fitted)}.") from error

    @classmethod
    def from_model_config(cls, model_config: Any) -> NoReturn:
        """Not possible: raises NotImplementedError."""
        raise NotImplementedError("a model configuration holds no sampler settings.")

    def get_generation_mode(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not possible: raises NotImplementedError."""
        raise NotImplementedError("masked diffusion has no left-to-right generation mode.")


_CALIBRATION_KEYS = "numbers for probability, length, nearness and bias"


def _checked_table(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise EmbInvError(f"generation_config.json must hold a table of settings, got {shown(content)}.")
    return content


def _with_calibration(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file, with a calibration for what older files hold: T and b of σ(logit(p) / T + b)."""
    content = dict(content)
    temperature, bias = content.pop("confidence_temperature", None), content.pop("confidence_bias", None)
    if content.get("calibration") is not None or (temperature, bias) == (None, None):
        return content
    temperature, bias = 1.0 if temperature is None else temperature, 0.0 if bias is None else bias
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature > 0:
        raise EmbInvError(f"confidence_temperature must be a number above 0, got {shown(temperature)}.")
    return content | {"calibration": {"open_loop": {"probability": 1 / temperature, "bias": bias}}}


class GenerationConfigMixin:
    """Gives a model the generation configuration of its folder, and the settings of a call."""

    # of the model that this goes into
    config: Any
    generation_config: Any
    generation_config_class: type[EmbInvGenerationConfig]

    def adjust_generation_fn(
        self,
        generation_config: Any,
        from_auto_class: bool,
        from_pipeline: str | None,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Called by `from_pretrained`: without it, `generation_config.json` would be ignored.

        A `generation_config` that is given takes the file's place, but for what belongs to the weights, see
        `EmbInvGenerationConfig`.
        """
        if pretrained_model_name_or_path is not None:
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
        if generation_config is not None:
            self.generation_config = self._completed(generation_config)

    def _completed(self, given: Any) -> EmbInvGenerationConfig:
        """A configuration that somebody gives, with the model's own of `OF_WEIGHTS` where it leaves them None.

        Raises:
            EmbInvError: for anything but a configuration.
        """
        if isinstance(given, type) or not callable(getattr(given, "settings", None)):
            raise EmbInvError(
                f"generation_config must be an EmbInvGenerationConfig, got {shown(given)}; "
                "single settings are arguments of their own."
            )
        settings, own = given.settings(), self.generation_config.settings()
        kept = {name: own[name] for name in OF_WEIGHTS if settings[name] is None}
        # a configuration of a checkpoint's own code is of another class
        return self.generation_config_class(**{**settings, **kept})

    def generation_settings(self, generation_config: Any, overrides: dict[str, Any]) -> EmbInvGenerationConfig:
        """The settings of a call of `generate`: a configuration, the model's own if None, with changes of single ones.

        A configuration that leaves None what belongs to the weights gets the model's own of it; a change to None is
        none.

        Raises:
            EmbInvError: for unknown or impossible settings, for those that do not fit this model, and for those of a
                search in `overrides` where there is none.
        """
        base = self.generation_config if generation_config is None else generation_config
        config = self._completed(base).with_changes(**overrides)
        if "num_beams" in overrides and "num_corrections" not in overrides and not config.search.is_search:
            raise EmbInvError(BEAMS)
        if config.search.num_drafts or config.search.num_redrafts or config.search.num_moves:
            check_causal(self.config)
        if config.search.num_rewrites:
            check_corrector(self.config)
        config.search.check_alone(overrides)
        if "num_draft_beams" in overrides:  # a checkpoint's own are for its own strategy
            check_draft_beams(config)
        check_suppressed(config.suppress_tokens, self.config)
        if config.max_length is None:
            config.max_length = self.config.max_sequence_length
        if config.max_length > self.config.max_sequence_length:
            raise EmbInvError(
                f"max_length {config.max_length} is more than this model's {self.config.max_sequence_length} tokens."
            )
        return config
