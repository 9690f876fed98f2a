"""Training settings: one dataclass, which checks itself."""

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..data.settings import Bounds, check_settings
from ..errors_embinv import EmbInvError, shown

Precision = Literal["auto", "bf16", "float32"]

if TYPE_CHECKING:  # a page of help needs no torch
    from ..configuration_embinv import EmbInvConfig
    from ..data.noise import Noise
    from ..modeling_embinv import EmbInvForMaskedDiffusion
    from .bag_of_words import WordWarmUp
    from .optimizers import Rates

Updates = Annotated[int, Bounds(1, 1_000_000_000)]
UpdatesOrNone = Annotated[int, Bounds(0, 1_000_000_000)]
Texts = Annotated[int, Bounds(1, 100_000)]
Positions = Annotated[int, Bounds(2, 100_000)]
Share = Annotated[float, Bounds(0, 1)]
ShareAboveZero = Annotated[float, Bounds(above=0, most=1)]
Rate = Annotated[float, Bounds(0)]
AboveZero = Annotated[float, Bounds(above=0)]
_LARGEST_SIZE = 1_000_000


@dataclass
class TrainingConfig:
    """Everything that a training run depends on; the defaults are the paper's where it names one."""

    output_dir: str = field(metadata={"help": "folder of checkpoints, logs and exported models"})
    encoder: str = field(
        metadata={"help": "YAML of the encoder, relative to this file, or the name of one that comes with EmbInv"}
    )

    # data: prepared pairs, or texts whose spans are embedded on the fly
    pairs: str | None = field(default=None, metadata={"help": "folder that `embinv prepare` wrote"})
    texts: list[str] | None = field(default=None, metadata={"help": "text files: spans are embedded on the fly"})
    text_column: str = field(default="text", metadata={"help": "column of jsonl and parquet texts"})
    token_cache: str | None = field(default=None, metadata={"help": "folder that keeps the tokenised texts"})
    whole_share: Share = field(
        default=0.5, metadata={"help": "share of texts from their beginning; the rest are spans"}
    )
    validation_size: Texts = field(default=512, metadata={"help": "held-out texts with fixed masks"})
    generation_size: Annotated[int, Bounds(0, 100_000)] = field(
        default=128, metadata={"help": "held-out texts that are generated at validation"}
    )

    # model
    backbone: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the trunk's weights; 'encoder' is the encoder itself"}
    )
    backbone_config: str | None = field(default=None, metadata={"help": "JSON of a trunk that starts at random"})
    init_from: str | None = field(
        default=None, metadata={"help": "trained inverter (folder or user/name@revision) to continue from"}
    )
    num_hidden_layers: Annotated[int, Bounds(1, 1000)] | None = field(
        default=None, metadata={"help": "depth, when not the backbone's own"}
    )
    max_sequence_length: Positions | None = field(
        default=None, metadata={"help": "L, tokens of the canvas; default is init_from's own, else 32"}
    )
    num_condition_tokens: Annotated[int, Bounds(0, 1000)] = field(
        default=0, metadata={"help": "prefix positions projected from the embedding; init_from may gain some"}
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "train projector, modulation, output layer only"})
    attn_implementation: str = field(
        default="auto",
        metadata={"help": "auto: eager on a CPU, which is faster there for short texts, else sdpa"},
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "less memory for a third more work"})
    mixed_precision: Precision = field(
        default="auto",
        metadata={"help": "of matrix products; auto: what the launch says, else bf16 where the machine is fast in it"},
    )
    compile: bool = field(default=False, metadata={"help": "torch.compile the trunk"})

    # diffusion
    noise_schedule: Literal["log_linear", "linear", "cosine"] = field(default="log_linear", metadata={"help": "α(t)"})
    noise_lambda: AboveZero = field(default=5.0, metadata={"help": "λ of the log-linear schedule"})
    mask_ratio: ShareAboveZero | None = field(
        default=None, metadata={"help": "fixed share of masked tokens (Appendix A)"}
    )
    full_mask_share: Share = field(default=0.0, metadata={"help": "share of rows that are masked throughout"})
    loss_weight: Literal["inverse_t", "elbo", "none"] = field(default="inverse_t", metadata={"help": "w(t), Eq. 4"})
    tail_share: ShareAboveZero = field(
        default=1.0, metadata={"help": "share of the positions behind the end that is scored, reweighted"}
    )
    condition_dropout: Share = field(default=0.1, metadata={"help": "share of rows under the null condition"})
    causal_share: Share | None = field(
        default=None,
        metadata={"help": "share of the updates that learn from left to right; default is init_from's own, else 0"},
    )
    correction_share: Share | None = field(
        default=None,
        metadata={
            "help": "share of the updates that learn to correct hypotheses, which the model writes; default is "
            "init_from's own, or 0 where causal_share is given"
        },
    )
    draft_share: Share = field(
        default=0.0,
        metadata={"help": "share of masked rows some of whose tokens are sampled left to right, and scored"},
    )
    complementary_masks: bool = field(
        default=False, metadata={"help": "half as many texts a batch, each with a mask and with its complement"}
    )
    surrogate_rank: Annotated[int, Bounds(0, 10_000)] = field(
        default=0, metadata={"help": "last stage: train nothing but a surrogate encoder of this rank"}
    )
    surrogate_table: bool = field(
        default=False, metadata={"help": "add a table of tokens of its own to that surrogate"}
    )
    word_head_size: Annotated[int, Bounds(0, 10_000)] = field(
        default=0,
        metadata={"help": "last stage: train nothing but a word head of this width; texts are of 8 to 254 tokens"},
    )
    word_texts: Updates = field(
        default=65_536, metadata={"help": "texts that the word head learns again and again, each embedded once"}
    )

    # optimisation
    max_steps: Updates = field(default=200_000, metadata={"help": "optimizer updates"})
    batch_size: Texts = field(default=384, metadata={"help": "texts a process and micro-batch"})
    gradient_accumulation_steps: Annotated[int, Bounds(1, 10_000)] = field(
        default=1, metadata={"help": "micro-batches an update"}
    )
    canvas_lengths: list[Positions] | None = field(
        default=None, metadata={"help": "canvas lengths of batches, each gets as many tokens; default is L alone"}
    )
    optimizer: Literal["adamw", "muon"] = field(
        default="adamw", metadata={"help": "of the trunk's matrices; all other weights have AdamW"}
    )
    learning_rate: Rate = field(default=1e-4, metadata={"help": "peak rate"})
    embedding_rate: Rate = field(
        default=1.0, metadata={"help": "rate of the token embeddings as a share of learning_rate; 0 freezes them"}
    )
    lr_scheduler: Literal["cosine", "constant"] = field(default="cosine", metadata={"help": "after the warm-up"})
    decay_steps: UpdatesOrNone = field(
        default=0, metadata={"help": "last updates, over which a constant rate falls to 0 in a line"}
    )
    warmup_steps: UpdatesOrNone = field(default=2000, metadata={"help": "linear warm-up"})
    weight_decay: Rate = field(default=0.01, metadata={"help": "of matrices; norms and biases have none"})
    max_grad_norm: AboveZero = field(default=1.0, metadata={"help": "clipping"})
    ema_decay: Share = field(default=0.9999, metadata={"help": "of the exported weights; min(it, (1 + n)/(10 + n))"})
    bag_of_words_steps: UpdatesOrNone = field(default=0, metadata={"help": "warm-up updates on unordered tokens"})
    bag_of_words_batch_size: Texts = field(default=1024, metadata={"help": "texts an update of that warm-up"})
    bag_of_words_rate: Rate = field(default=2e-3, metadata={"help": "learning rate of that warm-up"})
    seed: Annotated[int, Bounds(0, 2**32 - 1)] = field(default=0, metadata={"help": "of everything random"})

    # bookkeeping
    log_steps: Updates = field(default=20, metadata={"help": "updates between log lines"})
    eval_steps: Updates = field(default=1000, metadata={"help": "updates between validations"})
    save_steps: Updates = field(default=1000, metadata={"help": "updates between checkpoints"})
    keep_checkpoints: Annotated[int, Bounds(1, 1_000_000)] = field(
        default=2, metadata={"help": "newest checkpoints that are kept"}
    )
    trackers: list[str] = field(
        default_factory=lambda: ["jsonl"],
        metadata={"help": "tensorboard, trackio: beside log.jsonl, which is always written"},
    )
    resume: bool = field(default=True, metadata={"help": "continue from the newest checkpoint of output_dir"})

    def __post_init__(self) -> None:
        check_settings(self)
        if (self.pairs is None) == (self.texts is None):
            got = "neither" if self.pairs is None else f"pairs {self.pairs} and texts {shown(self.texts)}"
            raise EmbInvError(
                f"give either pairs (a prepared folder) or texts (files to embed on the fly), got {got}."
            )
        if sum(source is not None for source in (self.backbone, self.backbone_config, self.init_from)) != 1:
            raise EmbInvError("give exactly one of backbone, backbone_config and init_from.")
        if self.backbone_config is not None:
            read_sizes(self.backbone_config)
        if self.surrogate_table and not self.surrogate_rank:
            raise EmbInvError("surrogate_table is of the surrogate: set surrogate_rank above 0, or leave it out.")
        self._fill_shares()
        if self.max_sequence_length is None and self.init_from is None:
            self.max_sequence_length = 32
        if self.causal_share is not None:
            self._check_shares()
        if self.complementary_masks and self.batch_size % 2:
            raise EmbInvError(f"complementary_masks needs an even batch_size, got {self.batch_size}.")
        if self.decay_steps and self.lr_scheduler != "constant":
            raise EmbInvError(f"decay_steps is for a constant rate: lr_scheduler {self.lr_scheduler} falls by itself.")
        if self.causal_share and self.surrogate_rank:
            raise EmbInvError("the surrogate's stage leaves the inverter as it is: set causal_share to 0.")
        if self.word_head_size and (self.causal_share or self.surrogate_rank or self.init_from is None):
            raise EmbInvError(
                "the word head's stage leaves everything else as it is: set init_from to a trained inverter, "
                "and causal_share and surrogate_rank to 0."
            )
        if self.is_part and self.bag_of_words_steps:
            raise EmbInvError(
                "bag_of_words_steps warms up the inverter, which the stage of a surrogate or a word head leaves as it "
                "is: set it to 0."
            )
        if self.mask_ratio is not None and self.loss_weight == "elbo":
            raise EmbInvError("a fixed mask_ratio has no ELBO weight; use loss_weight none or inverse_t.")
        if self.max_sequence_length and max(self.canvases) != self.max_sequence_length:
            raise EmbInvError(
                f"canvas_lengths must have max_sequence_length, {self.max_sequence_length}, for the longest, "
                f"got {shown(self.canvas_lengths)}."
            )

    def _fill_shares(self) -> None:
        """Set the shares to 0 where no checkpoint has any, and that of corrections where causal_share is given."""
        if self.causal_share is None and (self.init_from is None or self.is_part):
            self.causal_share = 0.0
        if self.correction_share is None and self.causal_share is not None:
            self.correction_share = 0.0

    def _check_shares(self) -> None:
        """Raises EmbInvError for shares of the updates that do not fit together, or with what needs them."""
        causal, correction = self.shares
        masked = masked_share(causal, correction)
        if causal and not self.num_condition_tokens and self.init_from is None:
            raise EmbInvError("causal_share needs num_condition_tokens of at least 1, which predict the first token.")
        if correction and not causal:
            raise EmbInvError("the corrector learns from drafts: with correction_share, set causal_share above 0.")
        if masked < 0:
            raise EmbInvError(
                f"causal_share and correction_share must be at most 1 together, got {causal:g} and {correction:g}."
            )
        if self.draft_share and not (causal and masked):
            raise EmbInvError(
                "draft_share samples tokens from left to right for masked rows: set causal_share above 0 and below 1, "
                "and with correction_share below 1 together."
            )
        if self.draft_share and self.loss_weight != "none":
            raise EmbInvError(
                f"draft_share scores tokens that are not masked, which loss_weight {self.loss_weight} knows no weight "
                "for: set loss_weight to none."
            )
        if self.complementary_masks and not masked:
            raise EmbInvError(
                "complementary_masks is of masked updates, and there are none: set causal_share and correction_share "
                "below 1 together."
            )

    @property
    def shares(self) -> tuple[float, float]:
        """Of all updates, those from left to right and those that correct; of a checkpoint's own, unknown yet, 0."""
        return self.causal_share or 0.0, self.correction_share or 0.0

    @property
    def length(self) -> int:
        """L, which is unknown before `with_canvas_of` where it is a checkpoint's own."""
        assert self.max_sequence_length is not None
        return self.max_sequence_length

    @property
    def canvases(self) -> list[int]:
        """The lengths that a batch may have."""
        return self.canvas_lengths or [self.length]

    def with_canvas_of(self, config: "EmbInvConfig") -> "TrainingConfig":
        """The settings with the canvas of the checkpoint that the run starts from, unless they have their own.

        Raises:
            EmbInvError: for canvas_lengths beside which that is not the longest.
        """
        if self.max_sequence_length is not None:
            return self
        return replace(self, max_sequence_length=config.max_sequence_length)

    def with_shares_of(self, config: "EmbInvConfig") -> "TrainingConfig":
        """The settings with the shares of the model that `build_model` made of them, which may be a checkpoint's own.

        Raises:
            EmbInvError: for shares that do not fit together, or with other settings.
        """
        if self.causal_share is not None:
            return self
        return replace(self, causal_share=config.causal_share, correction_share=config.correction_share)

    def noise_of(self, model: "EmbInvForMaskedDiffusion") -> "Noise":
        """What training does to a batch; α(t) is a fixed mask ratio if one is set, else the model's own.

        A trained model keeps the noise that it knows, whatever `noise_schedule` says.

        Raises:
            EmbInvError: for complementary masks whose weights would not be those of their timesteps.
        """
        from ..data.noise import Noise
        from ..diffusion_embinv import NoiseSchedule

        fixed = None if self.mask_ratio is None else NoiseSchedule("fixed", mask_ratio=self.mask_ratio)
        schedule = fixed or model.noise_schedule
        if self.complementary_masks and schedule.name != "linear" and self.loss_weight != "none":
            raise EmbInvError(
                f"complementary_masks with loss_weight {self.loss_weight} need linear noise, this is {schedule.name}: "
                "elsewhere the complements' timesteps are not uniform. Set loss_weight to none."
            )
        return Noise(
            schedule,
            model.config.mask_token_id,
            model.config.eos_token_id,
            self.full_mask_share,
            self.condition_dropout,
            self.tail_share,
            self.draft_share,
            self.complementary_masks,
        )

    @property
    def is_part(self) -> bool:
        """Whether it trains a part beside the inverter, which stays as it is."""
        return bool(self.surrogate_rank or self.word_head_size)

    def rates(self) -> "Rates":
        """How fast which weights learn, and when."""
        from .optimizers import Rates

        return Rates(
            self.optimizer,
            self.learning_rate,
            self.embedding_rate,
            self.weight_decay,
            self.lr_scheduler,
            self.max_steps,
            self.warmup_steps,
            self.decay_steps,
        )

    def word_warm_up(self) -> "WordWarmUp":
        """The warm-up on unordered tokens."""
        from .bag_of_words import WordWarmUp

        return WordWarmUp(
            self.bag_of_words_steps,
            self.bag_of_words_batch_size,
            self.bag_of_words_rate,
            self.length,
            self.log_steps,
        )


def masked_share(causal_share: float, correction_share: float) -> float:
    """What both leave of the updates, which fill in masks; below 0 for too much, and rounding errors count as 0."""
    rest = 1 - causal_share - correction_share
    return 0.0 if abs(rest) < 1e-9 else rest


def read_sizes(backbone_config: str) -> dict[str, Any]:
    """The settings of a trunk from their JSON.

    Raises:
        EmbInvError: for other text than a JSON object, or a whole number in it beyond a million.
    """
    try:
        sizes = json.loads(backbone_config)
    except (ValueError, RecursionError) as error:
        raise EmbInvError(f"backbone_config {shown(backbone_config)} is no JSON: {error}") from error
    if not isinstance(sizes, dict):
        raise EmbInvError(f"backbone_config must be a JSON object, got {shown(backbone_config)}.")
    for name, value in sizes.items():
        if isinstance(value, int) and abs(value) > _LARGEST_SIZE:
            raise EmbInvError(f"backbone_config: {name} must be at most {_LARGEST_SIZE:,}, got {shown(value)}.")
    return sizes
