"""The conditional masked diffusion language model: noised tokens, a timestep and an embedding in, logits out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding
from transformers.utils.generic import ModelOutput

from .errors_embinv import EmbInvError
from .causal_embinv import CausalMixin
from .causal_embinv import check_prefix
from .conditioning_embinv import Condition
from .conditioning_embinv import ConditionProjector
from .conditioning_embinv import ConditionTokens
from .conditioning_embinv import Hypothesis
from .conditioning_embinv import Modulation
from .conditioning_embinv import TimestepFeatures
from .configuration_embinv import EmbInvConfig
from .correction_embinv import CorrectionMixin
from .correction_embinv import CorrectionTokens
from .cross_entropy_embinv import chunked_cross_entropy
from .cross_entropy_embinv import cross_entropies
from .diffusion_embinv import NoiseSchedule
from .filling_embinv import FillingMixin
from .generation_config_embinv import EmbInvGenerationConfig
from .generation_embinv import EmbInvGenerationMixin
from .integrity_embinv import CheckedLoading
from .likelihood_embinv import LikelihoodMixin
from .linear_embinv import use_linear
from .pipeline_embinv import EmbeddingInversionPipeline
from .storage_embinv import add_peaks
from .storage_embinv import as_built
from .storage_embinv import halve_table
from .surrogate_embinv import Surrogate
from .surrogate_embinv import SurrogateMixin
from .trunk_embinv import Trunk
from .trunk_embinv import adaptive_norm
from .trunk_embinv import build_trunk
from .trunk_embinv import check_positions
from .words_embinv import WordHead
from .words_embinv import WordsMixin


@dataclass
class EmbInvOutput(ModelOutput):
    """What a forward pass returns.

    loss: () float32, the weighted sum of cross entropies, when targets were given.
    losses: (M,) float32, −log p(x0) at each scored position, without gradient, when targets were given.
    logits: (B, L, V), or (M, V) at the requested positions, when no targets were given.
    """

    loss: Tensor | None = None
    losses: Tensor | None = None
    logits: Tensor | None = None


class PredictionHead(nn.Module):
    """The transform before the output layer: dense, activation, adaptive norm."""

    def __init__(self, config: EmbInvConfig) -> None:
        super().__init__()
        backbone: Any = config.backbone_config
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        activation = getattr(backbone, "classifier_activation", None) or getattr(backbone, "hidden_act", "gelu")
        self.act = ACT2FN[activation]
        eps = getattr(backbone, "norm_eps", None) or backbone.layer_norm_eps
        self.norm = nn.LayerNorm(config.hidden_size, eps=eps)

    def forward(self, hidden: Tensor, modulation: Tensor) -> Tensor:
        """hidden (M, 1, H) or (B, L, H), modulation (M, 2, H) or (B, 2, H)."""
        return adaptive_norm(self.act(self.dense(hidden)), self.norm, modulation)


class EmbInvForMaskedDiffusion(
    CheckedLoading,
    PreTrainedModel,
    CausalMixin,
    LikelihoodMixin,
    CorrectionMixin,
    EmbInvGenerationMixin,
    FillingMixin,
    SurrogateMixin,
    WordsMixin,
):
    """Masked diffusion language model conditioned on a sentence embedding by adaptive layer norms.

    The same weights predict in two orders: a [MASK] from all that is visible, or (`causal`) each token from those to
    its left.
    """

    config_class = EmbInvConfig
    generation_config_class = EmbInvGenerationConfig
    base_model_prefix = "embinv"
    main_input_name = "noised_ids"
    output_modalities = ("text",)  # the library's `GenerationMixin` has it, and its pipelines ask for it
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    config: EmbInvConfig
    # what the mixins leave open
    decoder: nn.Linear
    head: PredictionHead
    modulation: Modulation
    timestep_features: TimestepFeatures
    trunk: Trunk

    def __init__(self, config: EmbInvConfig) -> None:
        config = as_built(config)
        super().__init__(config)
        # the trunk is no PreTrainedModel of its own, so nobody else hands the choice of attention down
        backbone: Any = config.backbone_config
        backbone._attn_implementation = config._attn_implementation
        self.projector = ConditionProjector(config)
        self.timestep_features = TimestepFeatures(config)
        # registered although it may be None: added later, it stands where loading puts it, and so do its row peaks
        for name in ("condition_tokens", "correction_tokens", "trunk", "surrogate", "word_head"):
            self.register_module(name, None)
        self.condition_tokens = ConditionTokens(config) if config.num_condition_tokens else None
        self.correction_tokens = CorrectionTokens(config.hidden_size) if config.correction_share else None
        self.trunk = build_trunk(backbone)
        check_positions(self.trunk, config.num_condition_tokens, config.max_sequence_length)
        self.surrogate = Surrogate(config, self.trunk) if config.surrogate_rank else None
        self.word_head = WordHead(config) if config.word_head_size else None
        self.modulation = Modulation(config, self.trunk.num_norms + 1)  # the trunk's norms, then the head's
        self.head = PredictionHead(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        # sharding wraps this class, and fails on a name that the model does not hold
        self._no_split_modules = [type(self.trunk.layers[0]).__name__]
        self._tied_weights_keys = {"decoder.weight": f"trunk.{self.trunk.embedding_name}"}
        use_linear(self)
        self.post_init()  # type: ignore[no-untyped-call]
        if config.weight_bits:
            add_peaks(self)
            halve_table(self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """How new weights start: by the module's own `initialize`, where it has one."""
        std = self.config.initializer_range
        if (initialize := getattr(module, "initialize", None)) is not None:
            initialize(std)
        elif isinstance(module, ModernBertRotaryEmbedding):
            # not saved with the weights, so loading must compute them again
            for kind in module.layer_types:
                inv_freq, _ = module.compute_default_rope_parameters(module.config, layer_type=kind)
                init.copy_(getattr(module, f"{kind}_inv_freq"), inv_freq)
                init.copy_(getattr(module, f"{kind}_original_inv_freq"), inv_freq)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """α(t) that this model was trained with."""
        return NoiseSchedule(self.config.noise_schedule, self.config.noise_lambda)

    def get_input_embeddings(self) -> nn.Embedding:
        """The trunk's table of tokens (V, H)."""
        return self.trunk.token_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace it, as the library does for another vocabulary."""
        parent, name = self.trunk.embedding_name.removesuffix(".weight").split(".")
        setattr(getattr(self.trunk, parent), name, value)

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer, whose weight is that table."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace it, as the library does for another vocabulary."""
        self.decoder = new_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *args: Any, **kwargs: Any
    ) -> nn.Embedding:
        """Another number of tokens, as the library has it, in the trunk and in the output layer.

        Raises:
            EmbInvError: for a model with a word head, or a surrogate with a table, whose tokens are its encoder's.
        """
        is_fixed = self.word_head is not None or self.config.surrogate_table
        if is_fixed and (new_num_tokens not in (None, self.config.vocab_size) or pad_to_multiple_of):
            size = f"{self.config.vocab_size:,}"
            raise EmbInvError(f"this model has the vocabulary of its encoder, {size} tokens: it cannot be resized.")
        embeddings: nn.Embedding = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, *args, **kwargs)
        backbone: Any = self.config.backbone_config
        backbone.vocab_size = self.config.vocab_size
        return embeddings

    def freeze_backbone(self) -> None:
        """Train the projector, the modulations and the output layer (tied to the token embeddings) only."""
        self.trunk.requires_grad_(False)
        self.get_input_embeddings().requires_grad_(True)

    def to_int8(self) -> "EmbInvForMaskedDiffusion":
        """Matrix products of `generate` and `embed` in int8, on the CPU, in place; float weights are kept and saved.

        1.3 to 2.3 times as fast, most with one thread and in large batches. Inputs are rounded over a whole batch, so
        what shares it may change a word. Call it again when weights have changed or had another precision: until then
        those layers compute in float. A changed surrogate is not seen, nor what is written into a weight's `.data`, or
        into weights made in inference mode.

        Raises:
            EmbInvError: for a model that is not in float32 on the CPU.
        """
        from .int8_embinv import pack

        pack(self)
        return self

    def as_pipeline(self, tokenizer: PreTrainedTokenizerBase) -> EmbeddingInversionPipeline:
        """This model as `pipeline("embedding-inversion")`."""
        return EmbeddingInversionPipeline(model=self, tokenizer=tokenizer)

    def condition(
        self, embedding: Tensor, condition_mask: Tensor | None = None, hypothesis: Hypothesis | None = None
    ) -> Condition:
        """The part of a forward pass that depends on e (B, D) and a hypothesis alone; arguments as in `forward`."""
        projected = self.projector(embedding, condition_mask)  # (B, H)
        prefix = None if self.condition_tokens is None else self.condition_tokens(projected)
        condition = Condition(self.modulation.of_condition(projected), prefix)
        return condition if hypothesis is None else self._correction_condition(condition, embedding, hypothesis)

    def forward(
        self,
        noised_ids: Tensor,
        embedding: Tensor | None,
        timestep: Tensor | None,
        attention_mask: Tensor | None = None,
        condition_mask: Tensor | None = None,
        positions: Tensor | None = None,
        targets: Tensor | None = None,
        target_weights: Tensor | None = None,
        condition: Condition | None = None,
        causal: bool = False,
        hypothesis: Hypothesis | None = None,
    ) -> EmbInvOutput:
        """Logits of x0 given xt, t and e (Eq. 3). Draws no noise: see `mask_tokens`.

        Args:
            noised_ids: xt (B, L) int64.
            embedding: e (B, D), unit norm.
            timestep: t (B,) in [0, 1]; None when causal.
            attention_mask: (B, L), 0 at padding; None when there is none, the fast path.
            condition_mask: (B,) bool, false where the null condition replaces e; None for none.
            positions: (M,) int64, flat indexes b·L + i of the positions to score; None for all B·L.
            targets: (M,) int64, x0 there, or (B, L) of all: return the loss, computed in chunks, in place of logits.
            target_weights: as targets, float, factor of each position's loss; None for their mean.
            condition: `condition(embedding, …)`, for many passes over the same texts; takes the place of embedding and
                condition_mask.
            causal: predict from left to right: noised_ids are x0, and the logits of position i are those of x0[i]
                given e and x0[:i]. They come from the state at token i − 1, for i = 0 at the last condition token, so
                the last token is no input. t is 0 throughout: nothing is masked, and no state depends on what
                follows it, so that keys and values can be kept.
            hypothesis: when causal, texts (B, L′) and their vectors, which x0 corrects.

        Raises:
            EmbInvError: when causal, for a model without condition tokens; without embedding and condition; without
                timestep, unless causal; with a hypothesis, for a model without a corrector.
        """
        batch_size, length = noised_ids.shape
        if causal:
            check_prefix(self.config)
            timestep = torch.zeros(1, device=noised_ids.device)
        elif timestep is None:
            raise EmbInvError("forward needs a timestep, the share of the way to all masked, unless it is causal.")
        if condition is None:
            if embedding is None:
                raise EmbInvError("forward needs an embedding, or the condition that was made of one.")
            condition = self.condition(embedding, condition_mask, hypothesis)
        modulation = condition.modulation + self.modulation.of_timestep(self.timestep_features(timestep))
        inputs_embeds = self.trunk.token_embeddings(noised_ids)  # (B, L, H)
        if self.training and self.correction_tokens is not None:  # several processes ask for every weight's gradient
            inputs_embeds = inputs_embeds + 0 * self.correction_tokens.segments.sum()
        prefix = 0 if condition.prefix is None else condition.prefix.shape[1]
        if condition.prefix is not None:
            inputs_embeds = torch.cat(
                [condition.prefix.to(inputs_embeds.dtype), inputs_embeds], dim=1
            )  # (B, P + L, H)
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (prefix, 0), value=1)
        if causal:
            inputs_embeds = inputs_embeds[:, :-1]
            attention_mask = None if attention_mask is None else attention_mask[:, :-1]
            order = condition.order(self.config.num_condition_tokens, length - 1)
            hidden = self.trunk(inputs_embeds, modulation[:, :-1], attention_mask, causal=True, **order)
            hidden = hidden[:, prefix - 1 :]
        else:
            hidden = self.trunk(inputs_embeds, modulation[:, :-1], attention_mask)[:, prefix:]  # (B, L, H)
        if positions is None and targets is None:
            return EmbInvOutput(logits=self.decoder(self.head(hidden, modulation[:, -1])))
        if positions is None:
            positions = torch.arange(batch_size * length, device=noised_ids.device)
        hidden = hidden.reshape(batch_size * length, -1)[positions]  # (M, H)
        hidden = self.head(hidden[:, None], modulation[positions // length, -1])[:, 0]
        if targets is None:
            return EmbInvOutput(logits=self.decoder(hidden))
        targets = targets.flatten()
        if target_weights is None:
            target_weights = torch.full(targets.shape, 1 / max(targets.shape[0], 1), device=targets.device)
        weights = target_weights.flatten()
        if not torch.is_grad_enabled():
            losses = cross_entropies(self.decoder, hidden, targets)
            return EmbInvOutput(loss=(losses * weights).sum(), losses=losses)
        loss, losses = chunked_cross_entropy(
            self._compute_dtype(hidden), self.decoder.weight, self.decoder.bias, targets, weights
        )
        return EmbInvOutput(loss=loss, losses=losses)

    @staticmethod
    def _compute_dtype(hidden: Tensor) -> Tensor:
        """Autocast ends at a custom function, so its choice is applied by hand."""
        kind = hidden.device.type
        return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden


EmbInvForMaskedDiffusion.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
