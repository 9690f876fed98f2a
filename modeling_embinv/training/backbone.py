"""Start an inverter from pretrained weights: an encoder, a masked language model, or an earlier inverter."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ..conditioning_embinv import ConditionProjector, ConditionTokens
from ..configuration_embinv import EmbInvConfig
from ..data.encoders import same_setting
from ..data.files import one_line
from ..data.tokens import end_token_id
from ..errors_embinv import EmbInvError
from ..generation_config_embinv import KINDS
from ..modeling_embinv import EmbInvForMaskedDiffusion

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
    end_token_id(tokenizer)  # raises when there is none
    return tokenizer


def token_settings(tokenizer: PreTrainedTokenizerBase) -> dict:
    """The ids that `EmbInvConfig` needs from a prepared tokenizer."""
    end = end_token_id(tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    ids = {"mask_token_id": tokenizer.mask_token_id, "eos_token_id": end, "pad_token_id": pad}
    return {"vocab_size": len(tokenizer), **ids}


def suppressed_tokens(tokenizer: PreTrainedTokenizerBase, end_token_id: int) -> list[int]:
    """Special tokens that no text holds: all but the end token."""
    return sorted(set(tokenizer.all_special_ids) - {end_token_id})


def new_inverter(
    tokenizer: PreTrainedTokenizerBase,
    backbone: str | Path | dict,
    num_hidden_layers: int | None = None,
    **settings,
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
    tokens = token_settings(tokenizer)
    if isinstance(backbone, dict):
        backbone_config, source = (
            _random_trunk({"model_type": "bert", **backbone, "vocab_size": tokens["vocab_size"]}),
            None,
        )
    else:
        source = _load_source(backbone)
        backbone_config = copy.deepcopy(source.config)
        backbone_config.vocab_size = tokens["vocab_size"]
    positions = settings.get("num_condition_tokens", 0) + settings["max_sequence_length"]
    _adapt(backbone_config, num_hidden_layers, positions)
    config = EmbInvConfig(backbone_config=backbone_config, **tokens, **settings)
    _check_size(config)
    model = EmbInvForMaskedDiffusion(config)
    if source is not None:
        load_backbone(model, source, _shared_tokens(tokenizer, backbone))
    model.generation_config.suppress_tokens = suppressed_tokens(tokenizer, tokens["eos_token_id"])
    return model


def _random_trunk(sizes: dict):
    """The configuration of a trunk that starts at random.

    Raises:
        EmbInvError: in one line, when transformers takes the sizes for impossible.
    """
    try:
        return AutoConfig.for_model(**sizes)
    except Exception as error:  # among them errors of its own that are no ValueError
        raise EmbInvError(f"backbone_config is impossible: {one_line(error)}") from error


def _check_size(config: EmbInvConfig):
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


def _adapt(config, num_hidden_layers: int | None, positions: int):
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


def _load_source(name: str | Path) -> nn.Module:
    """The pretrained model with its language-model head if it has one, on the CPU in float32.

    Raises:
        EmbInvError: there is none of that name, or a damaged one.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        has_head = any("MaskedLM" in architecture for architecture in config.architectures or ())
        return (AutoModelForMaskedLM if has_head else AutoModel).from_pretrained(name, dtype=torch.float32)
    except Exception as error:  # of several libraries, and of several kinds
        raise EmbInvError(f"backbone {name} cannot be loaded: {one_line(error)}") from error


def _shared_tokens(tokenizer: PreTrainedTokenizerBase, backbone: str | Path) -> dict[int, int]:
    """Our id → the backbone's id of every token that both vocabularies have; mask and end by their roles."""
    try:
        theirs = AutoTokenizer.from_pretrained(backbone)
    except (OSError, ValueError):
        logger.warning("%s has no tokenizer: its layers are taken, token embeddings start at random.", backbone)
        return {}
    known = theirs.get_vocab()
    shared = {place: known[token] for token, place in tokenizer.get_vocab().items() if token in known}
    ends = theirs.eos_token_id if theirs.eos_token_id is not None else theirs.sep_token_id
    for ours, role in ((end_token_id(tokenizer), ends), (tokenizer.mask_token_id, theirs.mask_token_id)):
        if role is not None:
            shared[ours] = role
    if len(shared) < len(tokenizer):
        new = len(tokenizer) - len(shared)
        logger.warning("%d of %d tokens are unknown to %s and start at random.", new, len(tokenizer), backbone)
    return shared


@torch.no_grad()
def load_backbone(model: EmbInvForMaskedDiffusion, source: nn.Module, shared_tokens: dict[int, int] | None = None):
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
            target = own.get(ours + name.removeprefix(theirs))
            if target is not None:
                _copy(target, weights[name], name, shared_tokens if ours == "decoder.bias" else None)


def _copy(target: torch.Tensor, pretrained: torch.Tensor, name: str, rows: dict[int, int] | None):
    """The whole weight, or the given rows of it."""
    if rows is not None and target.shape[1:] == pretrained.shape[1:]:
        target[list(rows)] = pretrained[list(rows.values())].to(target)
    elif target.shape == pretrained.shape:
        target.copy_(pretrained)
    else:
        raise EmbInvError(f"the backbone's {name} has {tuple(pretrained.shape)}, the trunk {tuple(target.shape)}.")


def adopt_encoder(model: EmbInvForMaskedDiffusion, tokenizer: PreTrainedTokenizerBase, encoder) -> bool:
    """Make a trained inverter one of `encoder` (a `SentenceEncoder`); of another width, its projector starts anew.

    Returns:
        Whether it was one of another encoder: another id, revision, prompt or width.

    Raises:
        EmbInvError: when the encoder's texts are written with another tokenizer than the inverter's.
    """
    ours = tokenizer.get_vocab()
    if any(ours.get(token) != place for token, place in encoder.tokenizer.get_vocab().items()):
        raise EmbInvError(
            f"{encoder.config.id} comes with another tokenizer than the inverter writes with: set `tokenizer:` to the "
            "inverter's folder in the encoder's YAML, and prepare the pairs with that."
        )
    config, named = (
        model.config,
        {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt")},
    )
    width, wanted = config.embedding_dim, encoder.embedding_dim
    if width == wanted and all(same_setting(name, getattr(config, name), value) for name, value in named.items()):
        return False
    if width != wanted:
        logger.warning("the inverter read vectors of %d, these have %d: its projector starts anew.", width, wanted)
        config.embedding_dim = wanted
        model.projector = ConditionProjector(config)
        model._init_weights(model.projector)
    for name, value in named.items():
        setattr(config, name, value)
    return True


@torch.no_grad()
def grow_prefix(model: EmbInvForMaskedDiffusion, count: int):
    """Give a trained inverter `count` condition tokens, if it has fewer: the new ones stand before the old ones.

    The old ones and the text keep their position embeddings, so that nothing but attention to the new ones changes.
    """
    config = model.config
    added = count - config.num_condition_tokens
    if added <= 0:
        return
    old, config.num_condition_tokens = model.condition_tokens, count
    model.condition_tokens = ConditionTokens(config)
    model._init_weights(model.condition_tokens)
    if old is not None:
        model.condition_tokens.weight[-len(old.weight) :] = old.weight
        model.condition_tokens.bias[-len(old.bias) :] = old.bias
    embeddings = model.trunk.embeddings
    if hasattr(embeddings, "position_embeddings"):  # others turn their vectors by distances alone
        weight, first = embeddings.position_embeddings.weight, embeddings.first_position
        weight[first:] = weight[first:].roll(added, dims=0)
        weight[first : first + added] = weight[first + added]


def drop_stale(model: EmbInvForMaskedDiffusion, surrogate: bool, calibrations: Sequence[str] = KINDS) -> list[str]:
    """Drop what was fitted to weights or vectors that are others from now on.

    Args:
        surrogate: whether the surrogate encoder goes.
        calibrations: the kinds of confidence whose calibration goes.

    Returns:
        What there was of them, in words.
    """
    dropped, generation = [], model.generation_config
    if surrogate and model.surrogate is not None:
        model.drop_surrogate()
        dropped.append("the surrogate encoder")
    fitted = generation.calibration or {}
    kept = {kind: values for kind, values in fitted.items() if kind not in calibrations}
    if len(kept) < len(fitted):
        generation.calibration = kept or None
        dropped.append("the calibration of its confidence")
    return dropped
