"""Scores of words that were read off vectors, and the calibration of their probabilities."""

import numpy as np
import torch
from torch import Tensor

from ..generation_config_embinv import Calibration
from .calibration import WrittenTokens, fit_calibration
from .held_out import Score
from .intervals import share_interval

# words of less probability say nothing about those that anybody would list, and there are thousands for each of these
LEAST = 0.01


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """(B,) mean precision over the ranks of the words of each text, scores and target (B, V); NaN without any word.

    Words of equal scores all have the last one's rank.
    """
    negative, order = (-scores).sort(dim=1)
    right = target.gather(1, order).double()
    rank = torch.searchsorted(negative, negative, right=True)
    found = right.cumsum(dim=1).gather(1, rank - 1)
    return (right * found / rank).sum(dim=1) / right.sum(dim=1)


def fit_words(p: Tensor, target: Tensor) -> Calibration:
    """The calibration of the word head's probabilities p (N, V), given which words are there, target (N, V) bool.

    Raises:
        EmbInvError: when no word, or every word, of probability 0.01 and more is there.
    """
    size = p.double().sum(dim=1, keepdim=True).clamp_min(1).expand_as(p)
    text = torch.arange(len(p))[:, None].expand_as(p)
    chosen = p >= LEAST
    tokens = WrittenTokens(p[chosen], target[chosen], size[chosen], torch.zeros_like(p[chosen]), text[chosen])
    return fit_calibration(tokens)


def ratio(parts: Tensor, wholes: Tensor, by_text: bool = False, seed: int = 0) -> Score | None:
    """Σ parts / Σ wholes over N texts, both (N,), with its interval; None where the wholes sum to 0.

    Args:
        by_text: the mean of the texts' own ratios in its place.
    """
    above, below = parts.double().numpy(), wholes.double().numpy()
    if not below.sum():
        return None
    if by_text:  # a text without any has no ratio
        above, below = above[below > 0] / below[below > 0], np.ones(int((below > 0).sum()))
    low, high = share_interval(above, below, seed)
    return Score(float(above.sum() / below.sum()), low, high)
