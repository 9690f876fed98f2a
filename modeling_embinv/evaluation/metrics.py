"""Measures of a recovered text against its original: pure functions of ids, texts and vectors."""

from collections.abc import Sequence

import numpy as np
import torch
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics.bleu import BLEU
from torch import Tensor

from ..diffusion_embinv import text_positions


def token_accuracy(predicted: Tensor, target: Tensor, end_token_id: int) -> Tensor:
    """(B,) share of the target's tokens, its end token included, that stand at their own position."""
    counted = text_positions(target, end_token_id)
    return ((predicted == target) & counted).sum(dim=1) / counted.sum(dim=1)


def accuracy_by_position(predicted: Tensor, target: Tensor, end_token_id: int) -> tuple[Tensor, Tensor]:
    """(L,) share of right tokens at each position, NaN where no text reaches, and (L,) the number of texts there."""
    counted = text_positions(target, end_token_id)
    count = counted.sum(dim=0)
    return ((predicted == target) & counted).sum(dim=0) / count, count


def exact_match(predicted: Sequence[str], target: Sequence[str]) -> list[float]:
    """1 where the whole text is equal, else 0."""
    return [float(ours.strip() == theirs.strip()) for ours, theirs in zip(predicted, target, strict=True)]


def token_f1(predicted: Sequence[str], target: Sequence[str]) -> list[float]:
    """F1 of the sets of words of each pair (vec2text's definition, arXiv 2310.06816)."""
    scores = []
    for ours, theirs in zip(predicted, target, strict=True):
        written, wanted = set(ours.split()), set(theirs.split())
        common = len(written & wanted)
        scores.append(2 * common / (len(written) + len(wanted)) if common else 0.0)
    return scores


def rouge_l(predicted: Sequence[str], target: Sequence[str]) -> list[float]:
    """ROUGE-L: F1 of the longest common subsequence of each pair's words (Lin, 2004)."""
    scores = []
    for ours, theirs in zip(predicted, target, strict=True):
        written, wanted = ours.split(), theirs.split()
        common = LCSseq.similarity(written, wanted)
        scores.append(2 * common / (len(written) + len(wanted)) if common else 0.0)
    return scores


def bleu_counts(predicted: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """(N, 10) what corpus BLEU sums over texts: 4 n-gram matches, 4 n-gram totals, both lengths."""
    metric = BLEU(effective_order=True)  # of single texts; the counts do not depend on it
    scores = [metric.sentence_score(ours, [theirs]) for ours, theirs in zip(predicted, target, strict=True)]
    return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])


def has_four_words(counts: np.ndarray) -> bool:
    """Whether an original of these counts (N, 10) has the four words in a row that BLEU compares."""
    return bool((counts[:, 9] >= 4).any())


def bleu_of_counts(counts: np.ndarray) -> float:
    """Corpus BLEU in [0, 100] of summed counts (10,)."""
    whole = [int(count) for count in counts]
    # its own default is no smoothing, that of sacrebleu's corpus_bleu is exponential
    return BLEU.compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp").score


def cosine(vectors: Tensor, target: Tensor) -> Tensor:
    """(N,) cosine similarity of rows of (N, D)."""
    return torch.nn.functional.cosine_similarity(vectors.float(), target.float(), dim=1)


def rank_correlation(left: Tensor, right: Tensor) -> Tensor:
    """(N,) Spearman's ρ of each row of left and right (N, K), ties at their mean rank; NaN where a row is constant."""
    from scipy.stats import rankdata  # the import takes half a second

    ranks = [torch.from_numpy(rankdata(values.numpy(force=True), axis=1)) for values in (left, right)]
    centred = [values - values.mean(dim=1, keepdim=True) for values in ranks]
    size = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return (centred[0] * centred[1]).sum(dim=1) / size
