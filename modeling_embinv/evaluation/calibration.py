"""Calibration: are tokens of confidence 0.8 right eight times in ten?"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from ..diffusion_embinv import text_positions
from ..errors_embinv import EmbInvError
from ..generation_config_embinv import Calibration, bounded, evidence
from ..generation_embinv import EmbInvGenerationOutput
from ..modeling_embinv import EmbInvForMaskedDiffusion
from ..presets_embinv import NARROW, PRESETS
from ..progress.bar import RowBar
from ..runtime import generator_for

BINS = 10
# given, as a checkpoint's own settings may search
OPEN_LOOP: dict[str, Any] = dict(PRESETS["quick"].settings)
CANDIDATES: dict[str, Any] = {**OPEN_LOOP, "num_candidates": 32}
# searches of three strengths: texts that came near and texts that did not, as users will have them
SEARCHES: tuple[dict[str, Any], ...] = (
    dict(PRESETS["standard"].settings),
    dict(NARROW),
    dict(PRESETS["thorough"].settings),
)


@dataclass
class WrittenTokens:
    """M tokens of texts that the model wrote, and what its confidence in each rests on.

    confidence: (M,) uncalibrated. correct: (M,) bool, whether it stands at its own position in the original.
    size: (M,) tokens of its text. cosine: (M,) of its text's vector with e, 0 where nothing measured it. text: (M,)
    the number of its text.
    """

    confidence: Tensor
    correct: Tensor
    size: Tensor
    cosine: Tensor
    text: Tensor

    @classmethod
    def joined(cls, parts: Iterable["WrittenTokens"]) -> "WrittenTokens":
        """All tokens of several parts, whose texts stay apart."""
        parts, first = list(parts), 0
        for part in parts:
            part.text = part.text + first
            first = int(part.text.max()) + 1 if len(part.text) else first
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def where(self, chosen: Tensor) -> "WrittenTokens":
        """The tokens of `chosen` (M,) bool."""
        return WrittenTokens(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def calibrated(self, calibration: Calibration) -> Tensor:
        """(M,) their confidence under a calibration."""
        return calibration.weigh(evidence(bounded(self.confidence), self.size, self.cosine))


def reliability(confidence: Tensor, correct: Tensor) -> dict[str, np.ndarray]:
    """Mean confidence, share of right tokens and count (10,) in ten equal bins of confidence.

    confidence: (N,). correct: (N,) bool. Means of empty bins are NaN.
    """
    index = (confidence * BINS).long().clamp(0, BINS - 1)
    count = torch.bincount(index, minlength=BINS)
    sums = (torch.bincount(index, weights=values.double(), minlength=BINS) for values in (confidence, correct))
    means = [(total / count).numpy() for total in sums]
    return {"confidence": means[0], "accuracy": means[1], "count": count.numpy()}


def expected_calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Mean distance of confidence and accuracy over all tokens, by bins (arXiv 1706.04599), in [0, 1]."""
    bins = reliability(confidence, correct)
    filled = bins["count"] > 0
    distance = np.abs(bins["confidence"] - bins["accuracy"])[filled]
    return float((distance * bins["count"][filled]).sum() / bins["count"].sum())


def calibration_report(confidence: Tensor, correct: Tensor) -> dict[str, Any]:
    """Expected calibration error and bins, ready for JSON."""
    bins = {name: values.tolist() for name, values in reliability(confidence, correct).items()}
    return {"expected_calibration_error": expected_calibration_error(confidence, correct), **bins}


def fit_calibration(tokens: WrittenTokens) -> Calibration:
    """The calibration that predicts best which tokens are right: the least −log likelihood.

    Raises:
        EmbInvError: when all tokens are right or all wrong, so that nothing is best.
    """
    if tokens.correct.all() or not tokens.correct.any():
        raise EmbInvError("calibration needs right and wrong tokens; give more texts.")
    inputs = evidence(bounded(tokens.confidence), tokens.size, tokens.cosine)
    varies = inputs.amax(dim=0) > inputs.amin(dim=0)
    # what never varies, as the cosine of an open loop, is left to the bias; p always has a weight
    inputs = inputs * varies.index_fill(0, torch.tensor([0, 3]), True)
    log_first = torch.zeros(1, dtype=torch.float64, requires_grad=True)  # so that more p is never less confidence
    others = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    fitted = [log_first, others] if varies[0] else [others]  # the weight of a p that never varies stays 1
    optimizer = torch.optim.LBFGS(fitted, max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ torch.cat([log_first.exp(), others])
        # a touch of decay: where every near text is right, the likelihood alone would go on for ever
        value = F.binary_cross_entropy_with_logits(logits, tokens.correct.double()) + 1e-4 * others.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weights = torch.cat([log_first.exp().clamp_min(1e-3), others]).tolist()
    return Calibration(*(round(weight, 4) for weight in weights))


def cross_fitted(tokens: WrittenTokens) -> Tensor:
    """(M,) confidence of each half of the texts by the calibration of the other half: what new texts will see."""
    odd = tokens.text % 2 == 1
    confidence = torch.empty_like(tokens.confidence)
    for half in (odd, ~odd):
        confidence[half] = tokens.where(half).calibrated(fit_calibration(tokens.where(~half)))
    return confidence


def written_tokens(
    model: EmbInvForMaskedDiffusion,
    input_ids: Tensor,
    embeddings: Tensor,
    settings: Iterable[dict[str, Any]] = (OPEN_LOOP,),
    feedback: Callable[..., Any] | str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    batch_size: int = 64,
    progress: str | None = None,
) -> WrittenTokens:
    """What the model writes for embeddings (N, D) of texts input_ids (N, L), end tokens included.

    Args:
        settings: of `generate`; batches take them in turn.
        feedback, tokenizer: as in `generate`.
        progress: the name of a bar; None = no bar.
    """
    settings, parts = list(settings), []
    batches = zip(input_ids.split(batch_size), embeddings.split(batch_size), strict=True)
    with RowBar(len(embeddings), progress is not None, leave=False, name=progress or "") as bar:
        for index, (target, part) in enumerate(batches):
            output = model.generate(
                part, generator=generator_for(0, index), feedback=feedback, tokenizer=tokenizer,
                on_round=partial(bar.show_round, batch=len(part)),
                **{**settings[index % len(settings)], "calibration": None},
            )  # fmt: skip
            parts.append(_written(output, target, model.config.eos_token_id))
            bar.reach(bar.reached + len(part))
    return WrittenTokens.joined(parts)


def _written(output: EmbInvGenerationOutput, target: Tensor, end: int) -> WrittenTokens:
    """The tokens of one batch, beside the texts that they should be, (B, L)."""
    ids = output.sequences.cpu()
    shown = text_positions(ids, end)
    cosine = torch.zeros(len(ids)) if output.cosine is None else output.cosine.cpu()
    columns = shown.sum(dim=1), cosine, torch.arange(len(ids))
    return WrittenTokens(
        output.confidence.cpu()[shown], (ids == target[:, : ids.shape[1]])[shown],
        *(values[:, None].expand_as(ids)[shown] for values in columns),
    )  # fmt: skip
