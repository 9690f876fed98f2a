"""Configuration of an embedding inverter: its trunk, its condition and the encoder that it reads."""

import math
from collections.abc import Collection
from difflib import get_close_matches
from functools import wraps
from typing import Any
from typing import ClassVar
from typing import Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers import PreTrainedConfig

from .errors_embinv import EmbInvError
from .integrity_embinv import check_settings

# without these in a config.json, their defaults would stand in for what the weights were trained with
REQUIRED = (
    "model_type", "backbone_config", "embedding_dim", "max_sequence_length", "vocab_size", "mask_token_id",
    "eos_token_id", "pad_token_id", "noise_schedule", "noise_lambda", "num_condition_tokens",
)  # fmt: skip
# keys that transformers writes, and that are no fields of a configuration; and what its calls hand on
_OTHERS = {"model_type", "auto_map", "torch_dtype", *PreTrainedConfig().to_dict()}
_ARGUMENTS = {"attn_implementation", "experts_implementation", "name_or_path", "num_labels"}


def _in_one_line(cls: Any) -> Any:
    """The class with EmbInvError in place of what `strict` raises: another kind of error, of several lines."""
    cls.__init__, cls.validate = _told(cls.__init__), _told(cls.validate)
    return cls


def _told(method: Any) -> Any:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except StrictDataclassError as error:
            own = error.__cause__ if isinstance(error.__cause__, EmbInvError) else error
            raise EmbInvError(" ".join(str(own).split())) from error

    return call


@_in_one_line
@strict
class EmbInvConfig(PreTrainedConfig):
    """Model configuration; sampler settings live in `EmbInvGenerationConfig`, training settings in `TrainingConfig`.

    Args:
        backbone_config: configuration of the trunk, a `dict` with `model_type` or a config object. The families
            are ModernBERT (`modernbert`: pre-norm, mmBERT too) and BERT (`bert`, `roberta`, `xlm-roberta`: post-norm).
        embedding_dim: D, width of the vectors that are inverted.
        max_sequence_length: L, number of tokens on the canvas, the end token included.
        canvas_lengths: canvases that the model was trained on, None for L alone: `generate` fills in a draft whose end
            is known on the shortest that holds it.
        vocab_size: V, size of the tokenizer's vocabulary with [MASK]; equals the trunk's.
        mask_token_id, eos_token_id, pad_token_id: ids of [MASK], of the end token and of padding in the output; None
            pads with the end token.
        noise_schedule: α(t): "log_linear" exp(−λt) (Eq. 2), "linear" 1 − t, "cosine" 1 − cos(π(1 − t)/2).
        noise_lambda: λ of the log-linear schedule.
        num_condition_tokens: prefix positions projected from the embedding, 0 in the paper's model.
        causal_share: share of the training updates that were from left to right; 0 for a model that learned masked
            tokens alone, which writes with no "autoregressive" strategy.
        correction_share: share of the training updates that corrected a hypothesis; 0 for a model without a corrector.
        timestep_features: number of sinusoidal features φ(t) of the timestep.
        surrogate_rank: rank of the surrogate encoder's changes to the trunk (the last stage of training), 0 for none;
            from the trunk's width on they are whole matrices.
        surrogate_layers: depth of the surrogate encoder, None for the trunk's.
        surrogate_length: tokens of the longest texts that the surrogate encoder judges, None for those of the canvas.
        surrogate_table: whether the surrogate encoder adds a table of its own to the trunk's token embeddings; a
            checkpoint in 8 bits stores it in 4.
        word_head_size: width of the head that says which words are in a vector, 0 for none.
        encoder_id, encoder_revision, encoder_prompt: the encoder whose vectors this model inverts.
        encoder_fingerprint: mean and variance of that encoder's vectors, see `Fingerprint`; None where none was taken.
        weight_bits: 8 in a checkpoint whose matrices are stored in 8 bits; None once it is loaded.
        custom_pipelines: where `pipeline("embedding-inversion")` finds its class.
        checksums: of settings, weights and vocabulary, as they were saved; `save_pretrained` of the model writes them.

    Raises:
        EmbInvError: for unknown settings, another type, sizes out of range, tokens outside the vocabulary, a mask
            token that has another role, and a trunk of another vocabulary.
    """

    model_type = "embinv"
    sub_configs: ClassVar = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    embedding_dim: int = 384
    max_sequence_length: int = 32
    canvas_lengths: list[int] | None = None
    vocab_size: int = 30522
    mask_token_id: int = 103
    eos_token_id: int = 102
    pad_token_id: int | None = 0
    noise_schedule: Literal["log_linear", "linear", "cosine"] = "log_linear"
    noise_lambda: float | int = 5.0
    num_condition_tokens: int = 0
    causal_share: float | int = 0.0
    correction_share: float | int = 0.0
    timestep_features: int = 64
    surrogate_rank: int = 0
    surrogate_layers: int | None = None
    surrogate_length: int | None = None
    surrogate_table: bool = False
    word_head_size: int = 0
    encoder_id: str | None = None
    encoder_revision: str | None = None
    encoder_prompt: str | None = None
    encoder_fingerprint: str | None = None
    initializer_range: float | int = 0.02
    tie_word_embeddings: bool = True
    weight_bits: int | None = None
    custom_pipelines: dict[str, Any] | None = None
    checksums: dict[str, str] | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from the content of a config.json, which must be whole; `kwargs` change it afterwards.

        Raises:
            EmbInvError: for missing or unknown keys, a value of another type or out of range, or another checksum.
        """
        check_settings(config_dict)
        if missing := [key for key in REQUIRED if key not in config_dict]:
            raise EmbInvError(f"config.json has no {', '.join(missing)}: it is not whole; download it again.")
        if unknown := cls._unknown(set(config_dict) - _OTHERS):
            raise EmbInvError(
                f"config.json has unknown keys, {', '.join(unknown)}: remove them, or update EmbInv's code."
            )
        if config_dict["model_type"] != cls.model_type or not isinstance(config_dict["backbone_config"], dict):
            raise EmbInvError(f"config.json must have model_type {cls.model_type!r} and a table as backbone_config.")
        stored = config_dict.get("dtype") or config_dict.get("torch_dtype")
        config_dict = {**config_dict, "dtype": stored or "float32"}  # not that of the stored weights, float16
        try:
            return super().from_dict(config_dict, **kwargs)
        except Exception as error:  # of several libraries, and of several lines
            raise EmbInvError(f"config.json: {' '.join(str(error).split())}") from error

    @classmethod
    def _unknown(cls, names: Collection[str]) -> list[str]:
        """Those of the names that are no settings; what begins with _ is transformers' own."""
        return sorted(name for name in names if name not in cls.__dataclass_fields__ and not name.startswith("_"))

    def __post_init__(self, **kwargs: Any) -> None:
        if unknown := self._unknown(set(kwargs) - _OTHERS - _ARGUMENTS):
            near = get_close_matches(unknown[0], self.__dataclass_fields__, 1)
            hint = f"; did you mean {near[0]}?" if near else "; its docstring lists them all."
            raise EmbInvError(f"{type(self).__name__} has no setting {unknown[0]}{hint}")
        if self.backbone_config is None:
            self.backbone_config = {"model_type": "bert", "vocab_size": self.vocab_size}
        if isinstance(self.backbone_config, dict):
            backbone = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(backbone.pop("model_type", "bert"), **backbone)
        if self.pad_token_id is None:
            self.pad_token_id = self.eos_token_id
        implementation = {"impl": "pipeline_embinv.EmbeddingInversionPipeline", "pt": ["AutoModel"]}
        self.custom_pipelines = {"embedding-inversion": implementation}
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]

    @property
    def hidden_size(self) -> int:
        """H, width of the trunk."""
        return self._trunk.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """N, depth of the trunk."""
        return self._trunk.num_hidden_layers

    @property
    def longest_judged(self) -> int:
        """Tokens of the longest texts that the surrogate encoder judges."""
        return self.surrogate_length or self.max_sequence_length - 1

    @property
    def _trunk(self) -> Any:
        """The trunk's configuration, an object since construction; what it holds depends on the family."""
        return self.backbone_config

    def validate_sizes(self) -> None:
        """Runs at construction and at saving."""
        for name in ("embedding_dim", "max_sequence_length", "vocab_size"):
            if getattr(self, name) < 1:
                raise EmbInvError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.canvas_lengths or [1]) < 1:
            raise EmbInvError(f"canvas_lengths must be at least 1 each, got {self.canvas_lengths}.")
        if self.timestep_features < 2 or self.timestep_features % 2:
            raise EmbInvError(f"timestep_features must be an even number of at least 2, got {self.timestep_features}.")
        if self.num_condition_tokens < 0:
            raise EmbInvError(f"num_condition_tokens must be 0 or more, got {self.num_condition_tokens}.")
        if not 0 <= self.causal_share <= 1:
            raise EmbInvError(f"causal_share must be in [0, 1], got {self.causal_share}.")
        if not 0 <= self.correction_share <= 1:
            raise EmbInvError(f"correction_share must be in [0, 1], got {self.correction_share}.")
        if self.surrogate_rank < 0:
            raise EmbInvError(f"surrogate_rank must be 0 or more, got {self.surrogate_rank}.")
        if self.surrogate_layers is not None and not 1 <= self.surrogate_layers <= self.num_hidden_layers:
            most = self.num_hidden_layers
            raise EmbInvError(f"surrogate_layers must be 1 to {most}, the trunk's, got {self.surrogate_layers}.")
        if self.surrogate_length is not None and self.surrogate_length < 1:
            raise EmbInvError(f"surrogate_length must be at least 1, got {self.surrogate_length}.")
        if self.surrogate_table and not self.surrogate_rank:
            raise EmbInvError("surrogate_table is of the surrogate: set surrogate_rank above 0, or leave it out.")
        if self.surrogate_table and self.hidden_size % 2:
            raise EmbInvError(f"surrogate_table needs a trunk of even width, got {self.hidden_size}.")
        if self.word_head_size < 0:
            raise EmbInvError(f"word_head_size must be 0 or more, got {self.word_head_size}.")
        if self.weight_bits not in (None, 8):
            raise EmbInvError(f"weight_bits must be 8 or null, got {self.weight_bits}.")
        if not 0 < self.noise_lambda < math.inf:
            raise EmbInvError(f"noise_lambda must be positive, got {self.noise_lambda}.")

    def validate_vocabulary(self) -> None:
        """Runs at construction and at saving."""
        if not 0 <= self.mask_token_id < self.vocab_size:
            raise EmbInvError(f"mask_token_id {self.mask_token_id} is outside the vocabulary of {self.vocab_size}.")
        if not 0 <= self.eos_token_id < self.vocab_size:
            raise EmbInvError(f"eos_token_id must be one id below {self.vocab_size}, got {self.eos_token_id}.")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise EmbInvError(f"pad_token_id must be below {self.vocab_size}, got {self.pad_token_id}.")
        if self.mask_token_id in (self.eos_token_id, self.pad_token_id):
            raise EmbInvError(f"mask_token_id must be no end token and no padding, got {self.mask_token_id} for both.")
        trunk = self._trunk.vocab_size
        if trunk != self.vocab_size:
            raise EmbInvError(f"backbone_config.vocab_size {trunk} differs from vocab_size {self.vocab_size}.")


EmbInvConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
