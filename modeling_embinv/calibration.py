"""Calibration: are tokens of confidence 0.8 right eight times in ten?"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import generator_for
from .diffusion_embinv import text_positions
from .modeling_embinv import EmbInvForMaskedDiffusion

BINS = 10


def reliability(confidence: Tensor, correct: Tensor) -> dict[str, np.ndarray]:
    """Mean confidence, share of right tokens and count (10,) in ten equal bins of confidence.

    confidence: (N,). correct: (N,) bool. Means of empty bins are NaN.
    """
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    count = torch.bincount(place, minlength=BINS)
    sums = (torch.bincount(place, weights=values.double(), minlength=BINS) for values in (confidence, correct))
    means = [(total / count).numpy() for total in sums]
    return {"confidence": means[0], "accuracy": means[1], "count": count.numpy()}


def expected_calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Mean distance of confidence and accuracy over all tokens, by bins (arXiv 1706.04599), in [0, 1]."""
    bins = reliability(confidence, correct)
    filled = bins["count"] > 0
    distance = np.abs(bins["confidence"] - bins["accuracy"])[filled]
    return float((distance * bins["count"][filled]).sum() / bins["count"].sum())


def fit_calibration(confidence: Tensor, correct: Tensor) -> tuple[float, float]:
    """The T and b at which σ(logit(p) / T + b) predicts correctness best: the least −log likelihood (Platt, 1999).

    A temperature alone (b = 0) keeps 0.5 at 0.5: no help where most tokens of confidence 0.5 are wrong.

    Raises:
        ValueError: when all tokens are right or all wrong, so that no finite b is best.
    """
    if correct.all() or not correct.any():
        raise ValueError("calibration needs right and wrong tokens; give more texts.")
    logits = torch.logit(confidence.double().clamp(1e-6, 1 - 1e-6))
    log_temperature, bias = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([log_temperature, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits / log_temperature.exp() + bias, correct.double())
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_temperature.detach().exp()), float(bias.detach())


def calibration_report(confidence: Tensor, correct: Tensor) -> dict:
    """Expected calibration error and bins, ready for JSON."""
    bins = {name: values.tolist() for name, values in reliability(confidence, correct).items()}
    return {"expected_calibration_error": expected_calibration_error(confidence, correct), **bins}


def judged_tokens(
    model: EmbInvForMaskedDiffusion, input_ids: Tensor, embeddings: Tensor, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Uncalibrated confidence (M,) and correctness (M,) of all tokens that the model writes for embeddings (N, D).

    A token is right that stands at its own position in `input_ids` (N, L); end tokens count, what is behind does not.
    """
    confidence, correct = [], []
    for target, part in zip(input_ids.split(batch_size), embeddings.split(batch_size), strict=True):
        raw = {"confidence_temperature": 1.0, "confidence_bias": 0.0}
        output = model.generate(part, generator=generator_for(0), **raw)
        shown = text_positions(output.sequences, model.config.eos_token_id).cpu()
        confidence.append(output.confidence.cpu()[shown])
        correct.append((output.sequences.cpu() == target)[shown])
    return torch.cat(confidence), torch.cat(correct)
