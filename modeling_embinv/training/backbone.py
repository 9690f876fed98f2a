"""Start an inverter from pretrained weights: an encoder, or a masked language model."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..configuration_embinv import EmbInvConfig
from ..data.files import one_line
from ..data.tokens import Vocabulary
from ..errors_embinv import EmbInvError
from ..integrity_embinv import role_ids
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..trunk_embinv import TRUNKS

logger = logging.get_logger(__name__)

# a mistyped size asks for all the memory there is
MOST_LAYERS, MOST_WEIGHTS = 1000, 2_000_000_000

_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "embedding_dropout", "mlp_dropout",
)  # fmt: skip
# where masked language models keep the parts of their head, by family
_HEADS = {
    "cls.predictions.transform.dense.": "head.dense.",
    "cls.predictions.transform.LayerNorm.": "head.norm.",
    "cls.predictions.bias": "decoder.bias",
    "lm_head.dense.": "head.dense.",
    "lm_head.layer_norm.": "head.norm.",
    "lm_head.bias": "decoder.bias",
    "head.dense.": "head.dense.",
    "head.norm.": "head.norm.",
    "decoder.bias": "decoder.bias",
}


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of the encoder's tokenizer that has a [MASK] (added when missing) and a token to end a text with.

    Raises:
        EmbInvError: for a tokenizer without an end or separator token.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": "[MASK]"})
        logger.warning("the tokenizer has no [MASK]: added one.")
    Vocabulary(tokenizer)  # raises when there is none
    return tokenizer


def new_inverter(
    tokenizer: PreTrainedTokenizerBase,
    backbone: str | Path | dict[str, Any],
    num_hidden_layers: int | None = None,
    **settings: Any,
) -> EmbInvForMaskedDiffusion:
    """An inverter whose trunk starts from `backbone`.

    Args:
        tokenizer: a prepared tokenizer, see `prepare_tokenizer`.
        backbone: Hub id or folder of pretrained weights, loaded by name, or a `dict` of a backbone configuration
            for a trunk that starts at random.
        num_hidden_layers: depth, when not the backbone's own; a pretrained trunk keeps its first layers.
        settings: other arguments of `EmbInvConfig`.

    Raises:
        EmbInvError: when the trunk's family is not supported, or pretrained weights do not fill it.
    """
    vocabulary, size = Vocabulary(tokenizer), len(tokenizer)
    if vocabulary.mask is None:
        raise EmbInvError("the tokenizer has no [MASK]: take what prepare_tokenizer gives.")
    source, shared_tokens = None, None
    if isinstance(backbone, dict):
        backbone_config = _random_trunk({"model_type": "bert", **backbone, "vocab_size": size})
    else:
        source, shared_tokens = _load_source(backbone), _shared_tokens(vocabulary, backbone)
        backbone_config = copy.deepcopy(source.config)
        backbone_config.vocab_size = size
    positions = settings.get("num_condition_tokens", 0) + settings["max_sequence_length"]
    _adapt(backbone_config, num_hidden_layers, positions)
    config = EmbInvConfig(
        backbone_config=backbone_config,
        vocab_size=size,
        mask_token_id=vocabulary.mask,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
        **settings,
    )
    _check_size(config)
    model = EmbInvForMaskedDiffusion(config)
    if source is not None:
        load_backbone(model, source, shared_tokens)
    model.generation_config.suppress_tokens = vocabulary.suppressed
    return model


def _random_trunk(sizes: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of a trunk that starts at random.

    Raises:
        EmbInvError: in one line, when transformers takes the sizes for impossible.
    """
    try:
        return AutoConfig.for_model(**sizes)
    except Exception as error:  # among them errors of its own that are no ValueError
        raise EmbInvError(f"backbone_config is impossible: {one_line(error)}") from error


def _check_size(config: EmbInvConfig) -> None:
    """Build the inverter without memory first.

    Raises:
        EmbInvError: for sizes that do not fit together, or a model beyond what is meant to be trained here.
    """
    if not 1 <= config.num_hidden_layers <= MOST_LAYERS:
        raise EmbInvError(f"the trunk must have 1 to {MOST_LAYERS:,} layers, got {config.num_hidden_layers:,}.")
    try:
        with torch.device("meta"):
            count = EmbInvForMaskedDiffusion(copy.deepcopy(config)).num_parameters()
    except Exception as error:  # whatever a layer says of its sizes
        raise EmbInvError(f"no model can be built of these settings: {one_line(error)}") from error
    if count > MOST_WEIGHTS:
        raise EmbInvError(f"the model may have {MOST_WEIGHTS:,} weights at most, these sizes make {count:,}.")


def _adapt(config: PreTrainedConfig, num_hidden_layers: int | None, positions: int) -> None:
    """Depth, no dropout (diffusion noise regularises already), and room for every position."""
    config._name_or_path = ""  # a folder of this machine is nobody else's business
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    if num_hidden_layers is not None:
        if getattr(config, "layer_types", None):
            config.layer_types = (config.layer_types * num_hidden_layers)[:num_hidden_layers]
        config.num_hidden_layers = num_hidden_layers
    if positions > config.max_position_embeddings - 2:  # RoBERTa's family starts at position 2
        raise EmbInvError(f"{positions} positions do not fit the trunk's {config.max_position_embeddings}.")


def _load_source(name: str | Path) -> PreTrainedModel:
    """The pretrained model with its language-model head if it has one, on the CPU in float32.

    Raises:
        EmbInvError: there is none of that name, or a damaged one.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        has_head = any("MaskedLM" in architecture for architecture in config.architectures or ())
        kind = AutoModelForMaskedLM if has_head else AutoModel
        _check_family(name, config)
        model: PreTrainedModel = kind.from_pretrained(name, dtype=torch.float32)
    except EmbInvError:
        raise
    except Exception as error:  # of several libraries, and of several kinds
        raise EmbInvError(f"backbone {name} cannot be loaded: {one_line(error)}") from error
    return model


def _check_family(name: str | Path, config: PreTrainedConfig) -> None:
    """Raises EmbInvError for a network that is no trunk."""
    if config.model_type == EmbInvConfig.model_type:
        raise EmbInvError(f"backbone {name} is an inverter: give it as init_from.")
    if config.model_type not in TRUNKS:
        raise EmbInvError(f"backbone {name} is of the family {config.model_type}; known: {', '.join(TRUNKS)}.")


def _shared_tokens(vocabulary: Vocabulary, backbone: str | Path) -> dict[int, int]:
    """Our id → the backbone's id of every token that both vocabularies have; mask and end by their roles."""
    tokenizer = vocabulary.tokenizer
    try:
        theirs = AutoTokenizer.from_pretrained(backbone)
    except (OSError, ValueError):
        logger.warning("%s has no tokenizer: its layers are taken, token embeddings start at random.", backbone)
        return {}
    known = theirs.get_vocab()
    shared = {index: known[token] for token, index in tokenizer.get_vocab().items() if token in known}
    roles = role_ids(theirs)
    for ours, role in ((vocabulary.end, roles["eos_token_id"]), (vocabulary.mask, roles["mask_token_id"])):
        if ours is not None and role is not None:
            shared[ours] = role
    if len(shared) < len(tokenizer):
        new = len(tokenizer) - len(shared)
        logger.warning("%d of %d tokens are unknown to %s and start at random.", new, len(tokenizer), backbone)
    return shared


@torch.no_grad()
def load_backbone(
    model: EmbInvForMaskedDiffusion, source: PreTrainedModel, shared_tokens: dict[int, int] | None = None
) -> None:
    """Copy pretrained weights into the trunk, and the head where `source` has one, by name.

    Args:
        shared_tokens: our id → the source's id of the tokens that start from its weights, see `_shared_tokens`; the
            others stay as they are. `None` = all tokens have the same id in both.

    Raises:
        EmbInvError: naming the first trunk weight that the source lacks or has in another shape.
    """
    weights = source.state_dict()
    prefix = f"{source.base_model_prefix}." if hasattr(source, source.base_model_prefix) else ""
    if shared_tokens is None:
        shared_tokens = {token: token for token in range(min(source.config.vocab_size, model.config.vocab_size))}
    for name, target in model.trunk.named_parameters():
        pretrained = weights.get(prefix + name)
        if pretrained is None:
            raise EmbInvError(f"the backbone's weights have no {prefix + name}, which its trunk needs.")
        _copy(target, pretrained, name, shared_tokens if name == model.trunk.embedding_name else None)
    own = dict(model.named_parameters(remove_duplicate=False))
    for theirs, ours in _HEADS.items():
        for name in [name for name in weights if name.startswith(theirs)]:
            held = own.get(ours + name.removeprefix(theirs))
            if held is not None:
                _copy(held, weights[name], name, shared_tokens if ours == "decoder.bias" else None)


def _copy(target: torch.Tensor, pretrained: torch.Tensor, name: str, rows: dict[int, int] | None) -> None:
    """The whole weight, or the given rows of it."""
    if rows is not None and target.shape[1:] == pretrained.shape[1:]:
        target[list(rows)] = pretrained[list(rows.values())].to(target)
    elif target.shape == pretrained.shape:
        target.copy_(pretrained)
    else:
        raise EmbInvError(f"the backbone's {name} has {tuple(pretrained.shape)}, the trunk {tuple(target.shape)}.")
