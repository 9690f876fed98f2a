"""Training settings: one dataclass, read from YAML, overridden by command-line flags."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from transformers import HfArgumentParser

from .diffusion_embinv import NoiseSchedule


@dataclass
class TrainingConfig:
    """Everything that a training run depends on; the defaults are the paper's where it names one."""

    output_dir: str = field(metadata={"help": "folder of checkpoints, logs and exported models"})
    encoder: str = field(metadata={"help": "YAML of the encoder (configs/encoders/…), relative to this file"})

    # data: prepared pairs, or texts whose spans are embedded on the fly
    pairs: str | None = field(default=None, metadata={"help": "folder that `embinv prepare` wrote"})
    texts: list[str] | None = field(default=None, metadata={"help": "text files: spans are embedded on the fly"})
    text_column: str = field(default="text", metadata={"help": "column of jsonl and parquet texts"})
    token_cache: str | None = field(default=None, metadata={"help": "folder that keeps the tokenised texts"})
    whole_share: float = field(
        default=0.5, metadata={"help": "share of texts from their beginning; the rest are spans"}
    )
    validation_size: int = field(default=512, metadata={"help": "held-out texts with fixed masks"})
    generation_size: int = field(default=128, metadata={"help": "held-out texts that are generated at validation"})

    # model
    backbone: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the trunk's weights; 'encoder' is the encoder itself"}
    )
    backbone_config: str | None = field(default=None, metadata={"help": "JSON of a trunk that starts at random"})
    init_from: str | None = field(
        default=None, metadata={"help": "trained inverter (folder or user/name@revision) to continue from"}
    )
    num_hidden_layers: int | None = field(default=None, metadata={"help": "depth, when not the backbone's own"})
    max_sequence_length: int = field(default=32, metadata={"help": "L, tokens of the canvas"})
    num_condition_tokens: int = field(default=0, metadata={"help": "prefix positions projected from the embedding"})
    freeze_backbone: bool = field(default=False, metadata={"help": "train projector, modulation, output layer only"})
    attn_implementation: str = field(default="sdpa", metadata={"help": "eager is faster on CPU for short texts"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory for a third more work"})
    compile: bool = field(default=False, metadata={"help": "torch.compile the trunk"})

    # diffusion
    noise_schedule: Literal["log_linear", "linear", "cosine"] = field(default="log_linear", metadata={"help": "α(t)"})
    noise_lambda: float = field(default=5.0, metadata={"help": "λ of the log-linear schedule"})
    mask_ratio: float | None = field(default=None, metadata={"help": "fixed share of masked tokens (Appendix A)"})
    full_mask_share: float = field(default=0.0, metadata={"help": "share of rows that are masked throughout"})
    loss_weight: Literal["inverse_t", "elbo", "none"] = field(default="inverse_t", metadata={"help": "w(t), Eq. 4"})
    tail_share: float = field(
        default=1.0, metadata={"help": "share of the positions behind the end that is scored, reweighted"}
    )
    condition_dropout: float = field(default=0.1, metadata={"help": "share of rows under the null condition"})
    causal_share: float = field(default=0.0, metadata={"help": "share of the updates that learn from left to right"})
    surrogate_rank: int = field(
        default=0, metadata={"help": "last stage: train nothing but a surrogate encoder of this rank"}
    )

    # optimisation
    max_steps: int = field(default=200_000, metadata={"help": "optimizer updates"})
    batch_size: int = field(default=384, metadata={"help": "texts a process and micro-batch"})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "micro-batches an update"})
    canvas_lengths: list[int] | None = field(
        default=None, metadata={"help": "canvas lengths of batches, each gets as many tokens; default is L alone"}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "peak rate"})
    embedding_rate: float = field(
        default=1.0, metadata={"help": "rate of the token embeddings as a share of learning_rate; 0 freezes them"}
    )
    lr_scheduler: Literal["cosine", "constant"] = field(default="cosine", metadata={"help": "after the warm-up"})
    warmup_steps: int = field(default=2000, metadata={"help": "linear warm-up"})
    weight_decay: float = field(default=0.01, metadata={"help": "of matrices; norms and biases have none"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "clipping"})
    ema_decay: float = field(default=0.9999, metadata={"help": "of the exported weights; min(it, (1 + n)/(10 + n))"})
    bag_of_words_steps: int = field(default=0, metadata={"help": "warm-up updates on unordered tokens"})
    bag_of_words_batch_size: int = field(default=1024, metadata={"help": "texts an update of that warm-up"})
    bag_of_words_rate: float = field(default=2e-3, metadata={"help": "learning rate of that warm-up"})
    seed: int = field(default=0, metadata={"help": "of everything random"})

    # bookkeeping
    log_steps: int = field(default=20, metadata={"help": "updates between log lines"})
    eval_steps: int = field(default=1000, metadata={"help": "updates between validations"})
    save_steps: int = field(default=1000, metadata={"help": "updates between checkpoints"})
    keep_checkpoints: int = field(default=2, metadata={"help": "newest checkpoints that are kept"})
    trackers: list[str] = field(
        default_factory=lambda: ["jsonl"], metadata={"help": "jsonl, tensorboard, trackio: any of them"}
    )
    resume: bool = field(default=True, metadata={"help": "continue from the newest checkpoint of output_dir"})

    def __post_init__(self):
        if (self.pairs is None) == (self.texts is None):
            raise ValueError("give either pairs (a prepared folder) or texts (files to embed on the fly).")
        if sum(source is not None for source in (self.backbone, self.backbone_config, self.init_from)) != 1:
            raise ValueError("give exactly one of backbone, backbone_config and init_from.")
        counts = ("max_steps", "batch_size", "gradient_accumulation_steps", "log_steps", "eval_steps", "save_steps")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("full_mask_share", "condition_dropout", "whole_share", "causal_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")
        if self.causal_share and not self.num_condition_tokens and self.init_from is None:
            raise ValueError("causal_share needs num_condition_tokens of at least 1, which predict the first token.")
        if self.causal_share and self.surrogate_rank:
            raise ValueError("the surrogate's stage leaves the inverter as it is: set causal_share to 0.")
        if self.surrogate_rank < 0:
            raise ValueError(f"surrogate_rank must be 0 or more, got {self.surrogate_rank}.")
        if self.embedding_rate < 0:
            raise ValueError(f"embedding_rate must be 0 or more, got {self.embedding_rate}.")
        if not 0 < self.tail_share <= 1:
            raise ValueError(f"tail_share must be in (0, 1], got {self.tail_share}.")
        if self.mask_ratio is not None and self.loss_weight == "elbo":
            raise ValueError("a fixed mask_ratio has no ELBO weight; use loss_weight none or inverse_t.")
        lengths = self.canvas_lengths or [self.max_sequence_length]
        if max(lengths) != self.max_sequence_length or min(lengths) < 2:
            raise ValueError(
                f"canvas_lengths must be 2 or more, the longest equal to max_sequence_length "
                f"{self.max_sequence_length}, got {lengths}."
            )

    @property
    def schedule(self) -> NoiseSchedule:
        """α(t) of training, a fixed mask ratio if one is set."""
        if self.mask_ratio is not None:
            return NoiseSchedule("fixed", mask_ratio=self.mask_ratio)
        return NoiseSchedule(self.noise_schedule, self.noise_lambda)


def parse_training_config(arguments: list[str]) -> TrainingConfig:
    """`[config.yaml] [--flag value …]` → settings; flags override the file.

    Paths in the YAML's `encoder` are relative to the YAML.

    Raises:
        ValueError: for an unknown key or flag, or an impossible value.
    """
    parser = HfArgumentParser(TrainingConfig, description="Train an embedding inverter.", allow_abbrev=False)
    if arguments and not arguments[0].startswith("-"):
        defaults = read_yaml(arguments[0], TrainingConfig)
        if "encoder" in defaults:
            defaults["encoder"] = _beside(arguments[0], defaults["encoder"])
        for action in parser._actions:
            if action.dest in defaults:
                action.required = False
        parser.set_defaults(**defaults)
        arguments = arguments[1:]
    config, unknown = parser.parse_args_into_dataclasses(args=arguments, return_remaining_strings=True)
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]!r}; see --help for the known ones.")
    return config


def _beside(yaml_path: str, path: str) -> str:
    candidate = Path(yaml_path).parent / path
    return str(candidate) if candidate.exists() else path


def read_yaml(path: str | Path, schema: type) -> dict:
    """A YAML mapping whose keys are fields of the dataclass `schema`.

    Raises:
        ValueError: naming an unknown key, or when the file holds no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold `key: value` lines.")
    known = {entry.name: entry.type for entry in dataclasses.fields(schema)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}.")
        if "float" in str(known[key]) and isinstance(value, str):
            values[key] = float(value)  # YAML 1.1 reads 1e-4, without a point, as text
    return values
