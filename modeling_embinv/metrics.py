"""Measures of a recovered text against its original: pure functions of ids, texts and vectors."""

from collections.abc import Sequence

import sacrebleu
import torch
from torch import Tensor


def text_lengths(ids: Tensor, end_token_id: int) -> Tensor:
    """(B,) number of tokens before the first end token of each row of `ids` (B, L)."""
    ends = ids == end_token_id
    first = ends.int().argmax(dim=1)
    return torch.where(ends.any(dim=1), first, ids.shape[1])


def token_accuracy(predicted: Tensor, target: Tensor, end_token_id: int) -> Tensor:
    """(B,) share of the target's tokens, its end token included, that stand at their own position.

    Positions behind the target's end do not count: on a long canvas they would flatter every short text.
    """
    lengths = text_lengths(target, end_token_id)
    positions = torch.arange(target.shape[1], device=target.device)
    counted = positions <= lengths[:, None]
    return ((predicted == target) & counted).sum(dim=1) / counted.sum(dim=1)


def exact_match(predicted: Sequence[str], target: Sequence[str]) -> list[float]:
    """1 where the whole text is equal, else 0."""
    return [float(ours.strip() == theirs.strip()) for ours, theirs in zip(predicted, target, strict=True)]


def token_f1(predicted: Sequence[str], target: Sequence[str]) -> list[float]:
    """F1 of the sets of words of each pair (vec2text's definition, arXiv 2310.06816)."""
    scores = []
    for ours, theirs in zip(predicted, target, strict=True):
        ours, theirs = set(ours.split()), set(theirs.split())
        common = len(ours & theirs)
        scores.append(2 * common / (len(ours) + len(theirs)) if common else 0.0)
    return scores


def bleu(predicted: Sequence[str], target: Sequence[str]) -> float:
    """Corpus BLEU in [0, 100] by sacrebleu with its default tokenizer."""
    return sacrebleu.corpus_bleu(list(predicted), [list(target)]).score


def cosine(vectors: Tensor, target: Tensor) -> Tensor:
    """(N,) cosine similarity of rows of (N, D)."""
    return torch.nn.functional.cosine_similarity(vectors.float(), target.float(), dim=1)
