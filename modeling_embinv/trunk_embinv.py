"""The two families of trunks with adaptive layer norms: BERT (post-norm) and ModernBERT (pre-norm).

Each layer extends the library's own, so attention, MLP, position code and weight names stay the library's and
pretrained checkpoints load by name. A norm keeps its pretrained weight and bias as the base of (γ, β); the
modulation adds to them.

A trunk attends in two orders: in full, or, with `causal`, each position to itself and what stands to its left.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask
from transformers import BertConfig, Cache, ModernBertConfig
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.masking_utils import create_causal_mask, sliding_window_bidirectional_overlay
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.modernbert.modeling_modernbert import ModernBertAttention
from transformers.models.modernbert.modeling_modernbert import ModernBertEncoderLayer
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb
from transformers.models.modernbert.modeling_modernbert import eager_attention_forward

from .errors_embinv import EmbInvError

Mask = Tensor | BlockMask | None


def adaptive_norm(hidden: Tensor, norm: nn.LayerNorm, modulation: Tensor) -> Tensor:
    """AdaLN(h) = γ ⊙ norm(h) + β (Eq. 10) with γ = norm.weight + Δγ and β = norm.bias + Δβ.

    Args:
        hidden: (B, L, H). modulation: (B, 2, H), Δγ and Δβ.
    """
    gamma = norm.weight + modulation[:, 0]
    beta = modulation[:, 1] if norm.bias is None else norm.bias + modulation[:, 1]
    normed = F.layer_norm(hidden, norm.normalized_shape, eps=norm.eps).to(hidden.dtype)
    return torch.addcmul(beta[:, None], gamma[:, None], normed).to(hidden.dtype)


class AdaptiveBertLayer(BertLayer):
    """A post-norm layer; `modulation` (B, 2, 2, H) holds Δγ, Δβ of the norms after attention and after the MLP."""

    num_norms = 2

    def forward(
        self,
        hidden_states: Tensor,
        modulation: Tensor,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        **order: Any,
    ) -> Tensor:
        """hidden_states (B, L, H) → (B, L, H); `cache` and `order` as of attention, see `_order`."""
        # by position: transformers 5.24 renamed the argument, and will refuse the old name
        attended, _ = self.attention.self(hidden_states, attention_mask, cache, **order)  # (B, L, H)
        output = self.attention.output
        residual = output.dropout(output.dense(attended)) + hidden_states
        hidden_states = adaptive_norm(residual, output.LayerNorm, modulation[:, 0])
        residual = self.output.dropout(self.output.dense(self.intermediate(hidden_states))) + hidden_states
        return adaptive_norm(residual, self.output.LayerNorm, modulation[:, 1])


class CachedModernBertAttention(ModernBertAttention):
    """The library's attention, which knows no cache, with one for keys and values."""

    layer_idx: int

    def forward(  # type: ignore[override]  # nor does it need positions
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states (B, L, H) → (B, L, H), and the weights where the implementation returns them."""
        if cache is None:
            return super().forward(hidden_states, position_embeddings, attention_mask, **kwargs)
        qkv = self.Wqkv(hidden_states).unflatten(-1, (3, -1, self.head_dim))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=-3))  # (B, heads, L, H / heads)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings, unsqueeze_dim=1)
        key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, weights = attend(
            self, query, key, value, attention_mask, scaling=self.head_dim**-0.5, sliding_window=self.sliding_window,
            deterministic=self.deterministic_flash_attn, **kwargs,
        )  # fmt: skip
        return self.out_drop(self.Wo(attended.flatten(2))), weights


class AdaptiveModernBertLayer(ModernBertEncoderLayer):
    """A pre-norm layer; `modulation` (B, num_norms, 2, H). The first layer has no norm before its attention."""

    def __init__(self, config: ModernBertConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.attn.__class__ = CachedModernBertAttention
        self.num_norms = 1 if isinstance(self.attn_norm, nn.Identity) else 2

    def forward(  # type: ignore[override]  # the library's layer has no modulation
        self,
        hidden_states: Tensor,
        modulation: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **order: Any,
    ) -> Tensor:
        """hidden_states (B, L, H) → (B, L, H); `order` as of attention, see `_order`."""
        normed = hidden_states
        if isinstance(self.attn_norm, nn.LayerNorm):
            normed = adaptive_norm(hidden_states, self.attn_norm, modulation[:, 0])
        attended, _ = self.attn(
            normed, position_embeddings=position_embeddings, attention_mask=attention_mask, **order
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(adaptive_norm(hidden_states, self.mlp_norm, modulation[:, -1]))


class BertTrunkEmbeddings(nn.Module):
    """BERT's embeddings under the library's names, without its buffers; their norm is applied by the trunk."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # RoBERTa's family counts positions from behind its padding id
        padding = None if config.model_type == "bert" else config.pad_token_id
        self.first_position = 0 if padding is None else padding + 1

    def forward(self, inputs_embeds: Tensor, positions: Tensor) -> Tensor:
        """(B, L, H) at positions (L,)."""
        positions = self.position_embeddings(positions + self.first_position)
        return inputs_embeds + positions + self.token_type_embeddings.weight[0]


class BertTrunkEncoder(nn.Module):
    """Holds the layers under the library's name `encoder.layer`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            AdaptiveBertLayer(config, index)  # type: ignore[no-untyped-call]  # the library's constructor
            for index in range(config.num_hidden_layers)
        )


class BertTrunk(nn.Module):
    """Post-norm trunk of the BERT, RoBERTa and XLM-RoBERTa kind."""

    embedding_name = "embeddings.word_embeddings.weight"

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertTrunkEmbeddings(config)
        self.encoder = BertTrunkEncoder(config)
        self.norms = [AdaptiveBertLayer.num_norms] * config.num_hidden_layers  # of each layer
        self.num_norms = 1 + sum(self.norms)

    @property
    def layers(self) -> nn.ModuleList:
        """The N layers."""
        return self.encoder.layer

    @property
    def num_positions(self) -> int | None:
        """Positions of a prefix and a text together that its table holds."""
        return self.embeddings.position_embeddings.num_embeddings - self.embeddings.first_position

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table (V, H)."""
        return self.embeddings.word_embeddings

    def forward(
        self,
        inputs_embeds: Tensor,
        modulation: Tensor,
        attention_mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        num_seen: int = 0,
    ) -> Tensor:
        """(B, L, H) → (B, L, H); `modulation` (B, num_norms, 2, H), `attention_mask` (B, L) or None for no padding.

        With `causal`, `cache` holds what stands before inputs_embeds, and is given their keys and values.
        The first `num_seen` of all are then seen by all. `positions` (L,) count on from there by default.
        """
        embeds = self.embeddings(inputs_embeds, _positions(inputs_embeds, cache, positions))
        hidden = adaptive_norm(embeds, self.embeddings.LayerNorm, modulation[:, 0])
        mask, order = None, _order(causal, cache)
        if causal:
            mask = create_causal_mask(self.config, hidden, attention_mask, cache, **_seen_by_all(num_seen))
        elif attention_mask is not None:
            mask = create_bidirectional_mask(self.config, inputs_embeds=hidden, attention_mask=attention_mask)
        for layer, part in zip(self.layers, modulation[:, 1:].split(self.norms, dim=1), strict=True):
            hidden = layer(hidden, part, attention_mask=mask, **order)
        return hidden

    def first_layers(self, count: int) -> "BertTrunk":
        """This trunk without its later layers; the weights are the same ones, not copies."""
        if count == len(self.layers):
            return self
        short = _without_children(self, "encoder")
        short.encoder = _without_children(self.encoder, "layer")
        short.encoder.layer = nn.ModuleList(list(self.layers)[:count])
        short.norms = self.norms[:count]
        short.num_norms = 1 + sum(short.norms)
        return short


class ModernBertTrunkEmbeddings(nn.Module):
    """ModernBERT's embeddings under the library's names; their norm is applied by the trunk."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class ModernBertTrunk(nn.Module):
    """Pre-norm trunk of the ModernBERT kind, mmBERT among them."""

    embedding_name = "embeddings.tok_embeddings.weight"

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ModernBertTrunkEmbeddings(config)
        layers = [AdaptiveModernBertLayer(config, index) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(layers)
        self.norms = [layer.num_norms for layer in layers]
        self.kinds: list[str] = [layer.attention_type for layer in layers]
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.rotary_emb = ModernBertRotaryEmbedding(config)
        self.num_norms = 2 + sum(self.norms)

    @property
    def num_positions(self) -> int | None:
        """None: vectors are turned by distances alone, which have no end."""
        return None

    @property
    def token_embeddings(self) -> nn.Embedding:
        """The table (V, H)."""
        return self.embeddings.tok_embeddings

    def forward(
        self,
        inputs_embeds: Tensor,
        modulation: Tensor,
        attention_mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        num_seen: int = 0,
    ) -> Tensor:
        """(B, L, H) → (B, L, H); `modulation` (B, num_norms, 2, H), `attention_mask` (B, L) or None for no padding.

        With `causal`, `cache` holds what stands before inputs_embeds, and is given their keys and values.
        The first `num_seen` of all are then seen by all. `positions` (L,) count on from there by default.
        """
        hidden = adaptive_norm(inputs_embeds, self.embeddings.norm, modulation[:, 0])
        order = _order(causal, cache)
        if causal:
            masks = self._causal_masks(hidden, attention_mask, cache, num_seen)
        else:
            masks = self._attention_masks(hidden, attention_mask)
        positions = _positions(hidden, cache, positions)[None]
        rotations = {kind: self.rotary_emb(hidden, positions, kind) for kind in masks}
        parts = modulation[:, 1:-1].split(self.norms, dim=1)
        for layer, part, kind in zip(self.layers, parts, self.kinds, strict=True):
            hidden = layer(hidden, part, attention_mask=masks[kind], position_embeddings=rotations[kind], **order)
        return adaptive_norm(hidden, self.final_norm, modulation[:, -1])

    def first_layers(self, count: int) -> "ModernBertTrunk":
        """This trunk without its later layers; the weights are the same ones, not copies."""
        if count == len(self.layers):
            return self
        short = _without_children(self, "layers")
        short.layers = nn.ModuleList(list(self.layers)[:count])
        short.norms, short.kinds = self.norms[:count], self.kinds[:count]
        short.num_norms = 2 + sum(short.norms)
        return short

    def _attention_masks(self, hidden: Tensor, attention_mask: Tensor | None) -> dict[str, Mask]:
        kinds = sorted(set(self.kinds))
        if attention_mask is None and hidden.shape[1] <= self.config.sliding_window:
            return dict.fromkeys(kinds)  # nothing to hide: attention without a mask is the fast path
        makers = {
            "full_attention": create_bidirectional_mask,
            "sliding_attention": create_bidirectional_sliding_window_mask,
        }
        return {kind: makers[kind](self.config, inputs_embeds=hidden, attention_mask=attention_mask) for kind in kinds}

    def _causal_masks(
        self, hidden: Tensor, attention_mask: Tensor | None, cache: Cache | None, num_seen: int
    ) -> dict[str, Mask]:
        """The left half of what each kind of layer sees in full, and the first `num_seen` positions."""
        inputs, window = (self.config, hidden, attention_mask, cache), self.config.sliding_window
        seen = _seen_by_all(num_seen)
        masks: dict[str, Mask] = dict.fromkeys(sorted(set(self.kinds)), create_causal_mask(*inputs, **seen))
        if "sliding_attention" in masks and _length(cache) + hidden.shape[1] > window:
            within = sliding_window_bidirectional_overlay(window)
            masks["sliding_attention"] = create_causal_mask(*inputs, and_mask_function=within, **seen)
        return masks


def _without_children(module: nn.Module, *names: str) -> Any:
    """A shallow copy of a module, whose children of those names may be set without changing the module."""
    shallow = copy.copy(module)
    shallow._modules = {name: child for name, child in module._modules.items() if name not in names}
    return shallow


def _order(causal: bool, cache: Cache | None) -> dict[str, Any]:
    """What attention must be told for it to see the left only; nothing where it sees all."""
    return {"is_causal": True, "cache": cache} if causal else {}


def _seen_by_all(count: int) -> dict[str, Any]:
    """What the maker of a causal mask is told for the first `count` positions to be seen from everywhere."""
    return {"or_mask_function": lambda _batch, _head, _query, key: key < count} if count else {}


def _positions(hidden: Tensor, cache: Cache | None, given: Tensor | None) -> Tensor:
    """(L,) the positions of hidden (B, L, H)."""
    if given is not None:
        return given
    return torch.arange(hidden.shape[1], device=hidden.device) + _length(cache)


def _length(cache: Cache | None) -> int:
    return 0 if cache is None else cache.get_seq_length()


TRUNKS = {"bert": BertTrunk, "roberta": BertTrunk, "xlm-roberta": BertTrunk, "modernbert": ModernBertTrunk}
Trunk = BertTrunk | ModernBertTrunk


def build_trunk(config: Any) -> Trunk:
    """The trunk of a backbone configuration.

    Raises:
        EmbInvError: when the family is not supported, or layers are causal.
    """
    if config.model_type not in TRUNKS:
        raise EmbInvError(f"backbone {config.model_type!r} is not supported; choose one of {', '.join(TRUNKS)}.")
    if getattr(config, "is_decoder", False):
        raise EmbInvError("the trunk must be bidirectional: set is_decoder to false in backbone_config.")
    return TRUNKS[config.model_type](config)


def check_positions(trunk: Trunk, prefix: int, length: int) -> None:
    """Raises EmbInvError for a trunk whose table of positions does not hold a prefix and a text of that length."""
    room = trunk.num_positions
    if room is not None and prefix + length > room:
        raise EmbInvError(
            f"max_sequence_length {length} and {prefix} positions before the text do not fit the trunk's {room}."
        )
