"""The model of a training run: a new inverter, a trained one to go on with, or a part to train beside it."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.logging import get_logger
from transformers import PreTrainedTokenizerBase

from ..causal_embinv import check_prefix
from ..data.encoder_config import packaged_folder
from ..data.encoders import Encoder
from ..errors_embinv import EmbInvError
from ..generation_config_embinv import KINDS
from ..loading import load_inverter
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..trunk_embinv import check_positions
from .backbone import new_inverter, prepare_tokenizer
from .config import TrainingConfig, read_sizes
from .fine_tuning import adopt_encoder, drop_stale, forget_settings, grow_prefix, set_corrector
from .kept_surrogate import KeptSurrogate, can_be_kept, trunk_trains
from .machine import attention_of


def build_model(config: TrainingConfig, encoder: Encoder) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """The inverter that a run starts from, and its tokenizer."""
    if config.length > encoder.config.max_length:
        raise EmbInvError(
            f"{encoder.config.id} is set to read {encoder.config.max_length} tokens (max_length in its YAML), "
            f"the canvas has {config.length}."
        )
    if config.correction_share and not encoder.can_encode:
        raise EmbInvError(
            "correction_share needs an encoder that embeds hypotheses: "
            f"{encoder.config.id} is known by its vectors alone."
        )
    if config.init_from is not None:
        model, tokenizer, has_changed = _trained_model(config.init_from, config, encoder)
    else:
        (model, tokenizer), has_changed = _new_model(config, encoder), False
    if model.config.causal_share:
        check_prefix(model.config)
    if config.is_part:
        _only_part(model, config, tokenizer, encoder).requires_grad_(True)
        return model.train(), tokenizer
    if config.freeze_backbone:
        model.freeze_backbone()
    if config.embedding_rate == 0:
        model.get_input_embeddings().requires_grad_(False)
    # the surrogate reads with the trunk's layers and token embeddings
    is_stale = trunk_trains(model) and not can_be_kept(model)
    words = has_changed or model.get_input_embeddings().weight.requires_grad
    _drop_stale(model, has_changed or is_stale, words, [kind for kind in KINDS if words or kind != "words"])
    for part in (model.surrogate, model.word_head):
        if part is not None:
            part.requires_grad_(False)
    return model.train(), tokenizer


def _only_part(
    model: EmbInvForMaskedDiffusion, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase, encoder: Encoder
) -> torch.nn.Module:
    """The part of a last stage, new where the model has none; nothing of the model trains."""
    _drop_stale(model, False, False, ["surrogate" if config.surrogate_rank else "words"])
    if config.surrogate_rank:
        first = tokenizer.cls_token_id
        table, longest = config.surrogate_table, encoder.longest
        model.add_surrogate(config.surrogate_rank, first, encoder.weights, has_table=table, length=longest)
    else:
        model.add_word_head(config.word_head_size)
    model.requires_grad_(False)
    part = model.surrogate if config.surrogate_rank else model.word_head
    assert part is not None  # it was added just now
    return part


def _trained_model(
    name: str, config: TrainingConfig, encoder: Encoder
) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase, bool]:
    """The trained inverter of that name, its tokenizer, and whether it was another encoder's."""
    changes: dict[str, Any] = {}
    if not config.is_part and config.causal_share is not None:  # such a stage leaves the inverter as it is
        changes["causal_share"] = config.causal_share
    model, tokenizer = load_inverter(name, attn_implementation=attention_of(config.attn_implementation), **changes)
    _tell_ignored(config, model)
    inverted = f"{model.config.embedding_dim} numbers by {model.config.encoder_id}"
    has_changed = adopt_encoder(model, tokenizer, encoder)
    if config.is_part and has_changed:
        part = "surrogate" if config.surrogate_rank else "word head"
        raise EmbInvError(
            f"the stage of the {part} leaves the inverter as it is: {name} inverts vectors of "
            f"{inverted}, these have {encoder.embedding_dim} by {encoder.config.id}. Fine-tune it for them first."
        )
    if config.surrogate_rank:
        check_positions(model.trunk, 1, config.length)  # it reads a first token and the text
    if not config.is_part:
        _outfit(model, config, encoder)
    return model, tokenizer, has_changed


def _outfit(model: EmbInvForMaskedDiffusion, config: TrainingConfig, encoder: Encoder) -> None:
    """Give a trained inverter what these settings ask for beyond its own, and take what they let go."""
    prefix = max(config.num_condition_tokens, model.config.num_condition_tokens)
    check_positions(model.trunk, prefix, config.length)
    longest, canvases = config.length, model.config.canvas_lengths
    kept = canvases and [*(length for length in canvases if length < longest), longest]
    model.config.max_sequence_length, model.config.canvas_lengths = longest, config.canvas_lengths or kept
    surrogate = KeptSurrogate(model) if can_be_kept(model) else None
    if grow_prefix(model, config.num_condition_tokens):
        if surrogate is None:
            _drop_stale(model, True, False, [])
        else:
            surrogate.restore(model)
    own = model.config.correction_share if encoder.can_encode else 0.0
    set_corrector(model, own if config.correction_share is None else config.correction_share)
    forget_settings(model)


def _tell_ignored(config: TrainingConfig, model: EmbInvForMaskedDiffusion) -> None:
    """A line for a depth or noise that was asked for in vain; a default says nothing of what the user wants."""
    for name in ("num_hidden_layers", "noise_schedule", "noise_lambda"):
        given, own = getattr(config, name), getattr(model.config, name)
        if given not in (own, getattr(TrainingConfig, name)):
            get_logger(__name__).warning("%s stays %s, as the checkpoint has it: %s is ignored.", name, own, given)


def _new_model(config: TrainingConfig, encoder: Encoder) -> tuple[EmbInvForMaskedDiffusion, PreTrainedTokenizerBase]:
    """An untrained inverter and its tokenizer."""
    tokenizer = prepare_tokenizer(encoder.tokenizer)
    model = new_inverter(
        tokenizer,
        _trunk(config, encoder),
        config.num_hidden_layers,
        embedding_dim=encoder.embedding_dim,
        max_sequence_length=config.length,
        canvas_lengths=config.canvas_lengths,
        num_condition_tokens=config.num_condition_tokens,
        causal_share=config.causal_share,
        correction_share=config.correction_share,
        noise_schedule=config.noise_schedule,
        noise_lambda=config.noise_lambda,
        encoder_id=encoder.config.id,
        encoder_revision=encoder.config.revision,
        encoder_prompt=encoder.config.prompt,
        attn_implementation=attention_of(config.attn_implementation),
    )
    return model, tokenizer


def _trunk(config: TrainingConfig, encoder: Encoder) -> str | dict[str, Any]:
    """Where the trunk's weights are, or the sizes of one that starts at random."""
    if config.backbone_config is not None:
        return read_sizes(config.backbone_config)
    backbone = config.backbone or ""
    if backbone != "encoder":
        return packaged_folder(backbone) or backbone
    if encoder.path is None:
        raise EmbInvError(
            f"{encoder.config.id} is known by its vectors alone and has no layers: set another backbone."
        )
    return encoder.path


def _drop_stale(model: EmbInvForMaskedDiffusion, surrogate: bool, words: bool, calibrations: Sequence[str]) -> None:
    if dropped := drop_stale(model, surrogate, words, calibrations):
        get_logger(__name__).warning(
            "dropped from the checkpoint: %s. This training changes what was measured for it. Make it anew afterwards "
            "(%s).",
            " and ".join(dropped),
            ", ".join(dropped.values()),
        )
