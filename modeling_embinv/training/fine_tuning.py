"""Make an earlier inverter ready for other vectors, more condition tokens, or a corrector."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..conditioning_embinv import ConditionProjector, ConditionTokens
from ..correction_embinv import CorrectionTokens
from ..data.encoder_config import same_setting
from ..data.encoders import Encoder
from ..errors_embinv import EmbInvError
from ..modeling_embinv import EmbInvForMaskedDiffusion

logger = logging.get_logger(__name__)

# settings of `generate`, beside strategies, that a model without the causal order refuses
_CAUSAL_SETTINGS = ("num_draft_beams", "num_drafts", "num_moves", "num_redrafts")


def adopt_encoder(model: EmbInvForMaskedDiffusion, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> bool:
    """Make a trained inverter one of `encoder`; of another width, its projector starts anew.

    Returns:
        Whether it was one of another encoder: another id, revision, prompt or width.

    Raises:
        EmbInvError: when the encoder's texts are written with another tokenizer than the inverter's.
    """
    if not encoder.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items():
        raise EmbInvError(
            f"{encoder.config.id} comes with another tokenizer than the inverter writes with: set `tokenizer:` to the "
            "inverter's folder in the encoder's YAML, and prepare the pairs with that."
        )
    config = model.config
    named = {f"encoder_{key}": getattr(encoder.config, key) for key in ("id", "revision", "prompt")}
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
    config.encoder_fingerprint = None
    return True


@torch.no_grad()
def grow_prefix(model: EmbInvForMaskedDiffusion, count: int) -> bool:
    """Give a trained inverter `count` condition tokens, if it has fewer: the new ones stand before the old ones.

    The old ones and the text keep their position embeddings, so that nothing but attention to the new ones changes.

    Returns:
        Whether the table of positions has moved for it, from whose start a surrogate reads.
    """
    config = model.config
    added = count - config.num_condition_tokens
    if added <= 0:
        return False
    old, config.num_condition_tokens = model.condition_tokens, count
    model.condition_tokens = ConditionTokens(config)
    model._init_weights(model.condition_tokens)
    if old is not None:
        model.condition_tokens.weight[-len(old.weight) :] = old.weight
        model.condition_tokens.bias[-len(old.bias) :] = old.bias
    embeddings: Any = model.trunk.embeddings  # each kind of trunk has a class of its own
    if not hasattr(embeddings, "position_embeddings"):  # they turn their vectors by distances alone
        return False
    weight, first = embeddings.position_embeddings.weight, embeddings.first_position
    weight[first:] = weight[first:].roll(added, dims=0)
    weight[first : first + added] = weight[first + added]
    return True


def set_corrector(model: EmbInvForMaskedDiffusion, share: float) -> None:
    """Give a trained inverter a corrector, untrained where it has none; of a share of 0, take it away."""
    if model.correction_tokens is not None and not share:
        logger.warning(
            "dropped from the checkpoint: its corrector. To keep it, train with correction_share above 0 and an "
            "encoder that embeds texts."
        )
    model.config.correction_share = share
    if not share:
        model.correction_tokens = None
    elif model.correction_tokens is None:
        model.correction_tokens = CorrectionTokens(model.config.hidden_size).to(model.device, model.dtype)
        model._init_weights(model.correction_tokens)


def forget_settings(model: EmbInvForMaskedDiffusion) -> None:
    """Take the settings out of a model's generation that need what it does not learn any more."""
    config = model.config
    generation: Any = model.generation_config  # transformers declares its own class, without these settings
    needing: set[str] = set() if config.correction_share else {"num_rewrites"}
    if not config.causal_share:
        needing.update(_CAUSAL_SETTINGS)
        needing.update(name for name in ("strategy", "draft") if getattr(generation, name) == "autoregressive")
    if lost := sorted(needing & set(generation.changed())):
        defaults = type(generation)()
        model.generation_config = generation.with_changes(**{name: getattr(defaults, name) for name in lost})
        logger.warning("%s dropped: the checkpoint's settings that need what it loses here.", " and ".join(lost))


def drop_stale(
    model: EmbInvForMaskedDiffusion, surrogate: bool, words: bool, calibrations: Sequence[str]
) -> dict[str, str]:
    """Drop what was fitted to weights or vectors that are others from now on.

    Args:
        surrogate: whether the surrogate encoder goes.
        words: whether the word head goes.
        calibrations: the kinds of confidence whose calibration goes.

    Returns:
        What there was of them, in words → what makes it anew.
    """
    dropped: dict[str, str] = {}
    generation: Any = model.generation_config  # transformers declares its own class, without a calibration
    if surrogate and model.surrogate is not None:
        model.drop_surrogate()
        dropped["the surrogate encoder"] = "--surrogate-rank"
    if words and model.word_head is not None:
        model.drop_word_head()
        dropped["the word head"] = "--word-head-size"
    fitted = generation.calibration or {}
    kept = {kind: values for kind, values in fitted.items() if kind not in calibrations}
    if len(kept) < len(fitted):
        generation.calibration = kept or None
        dropped["the calibration of its confidence"] = "embinv calibrate"
    return dropped
