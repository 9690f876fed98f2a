"""Moves: texts with the same words in another order, or with one word less, as the causal order likes them best."""

from functools import lru_cache

import torch
from torch import Tensor

from .diffusion_embinv import text_positions

# words of the shorter of two spans that change places; the other one has any number
LONGEST = 4
# numbers at a time, 64 MiB in float32
MAX_GAINS = 2**24


def num_draws(length: int) -> int:
    """Uniform draws that the moves of a text of L places take: one for each pair of spans, and one for each place."""
    return len(_pairs(length)[0]) + length


def likely_moves(
    ids: Tensor, follow: Tensor, end: int, num_swaps: int, num_deletions: int, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Texts with two neighbouring spans swapped, and texts with one word less, drawn without replacement.

    The probability of a move grows with e to the power of its gain: what the logits at its seams gain, where words
    follow others than before. A text with fewer possible moves stands there as it was.

    Args:
        ids: (R, L), ends behind the texts. follow: (R, L, L), see `follow_logits`.
        draws: (R, num_draws(L)) uniform in [0, 1).

    Returns:
        (R, num_swaps, L) and (R, num_deletions, L).
    """
    parts = torch.arange(len(ids), device=ids.device).split(max(1, MAX_GAINS // draws.shape[1]))
    moved = [_moves(ids[part], follow[part], end, num_swaps, num_deletions, draws[part]) for part in parts]
    swapped, shorter = zip(*moved, strict=True)
    return torch.cat(swapped), torch.cat(shorter)


def _moves(
    ids: Tensor, follow: Tensor, end: int, num_swaps: int, num_deletions: int, draws: Tensor
) -> tuple[Tensor, Tensor]:
    length = ids.shape[1]
    size = text_positions(ids, end).sum(dim=1) - (ids == end).any(dim=1).long()  # (R,) without the end
    # a place and a word behind the canvas: nothing is known of what follows there
    follow = torch.nn.functional.pad(follow, (0, 1, 0, 1))
    gumbel = -torch.log(-torch.log(draws.clamp(1e-9, 1 - 1e-7)))
    start, middle, stop = (edge.to(ids.device) for edge in _pairs(length))
    gain = _seam(follow, start, middle) + _seam(follow, stop, start) + _seam(follow, middle, stop)
    impossible = stop > size[:, None]
    chosen, is_there = _drawn(gain, impossible, gumbel[:, : len(start)], num_swaps)
    swapped = _swapped(ids, start[chosen], middle[chosen], stop[chosen])
    place = torch.arange(length, device=ids.device)
    gone, may_go = _drawn(
        _seam(follow, place, place + 1),
        (place >= size[:, None]) | (size[:, None] < 2),  # no text is empty
        gumbel[:, len(start) :],
        num_deletions,
    )
    behind = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=end)[:, None]
    shorter = torch.where(place >= gone[..., None], behind, ids[:, None])
    ids = ids[:, None]
    return torch.where(is_there[..., None], swapped, ids), torch.where(may_go[..., None], shorter, ids)


@lru_cache(maxsize=8)
def _pairs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Start, middle and stop (T,) of all pairs of neighbouring spans: the places a to b − 1, and b to c − 1."""
    words = range(1, length)
    sizes = [(one, other) for one in words for other in words if min(one, other) <= LONGEST]
    first, second = torch.tensor(sizes, dtype=torch.long).view(-1, 2).T
    start = torch.arange(length)[:, None]
    middle, stop = start + first, start + first + second  # (L, sizes)
    possible = stop <= length
    return start.expand_as(stop)[possible], middle[possible], stop[possible]


def _seam(follow: Tensor, place: Tensor, word: Tensor) -> Tensor:
    """(R, T) what the logit at a place gains when the word from another one comes there."""
    return follow[:, place, word] - follow[:, place, place]


def _drawn(gain: Tensor, impossible: Tensor, gumbel: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` of the columns of gain (R, T) for each row, and whether each of them is possible: (R, count) each."""
    score = (gain + gumbel).masked_fill(impossible, -torch.inf)
    value, index = score.topk(min(count, score.shape[1]))
    missing = (0, count - index.shape[1])
    return torch.nn.functional.pad(index, missing), torch.nn.functional.pad(value > -torch.inf, missing)


def _swapped(ids: Tensor, start: Tensor, middle: Tensor, stop: Tensor) -> Tensor:
    """(R, K, L) of texts (R, L), two spans of each changed by edges (R, K)."""
    start, middle, stop = (edge[..., None] for edge in (start, middle, stop))
    place = torch.arange(ids.shape[1], device=ids.device)
    second = stop - middle  # words of the second span, which comes first now
    moved = torch.where(place < start + second, place + middle - start, place - second)
    source = torch.where((place >= start) & (place < stop), moved, place)
    return ids[:, None].expand(-1, source.shape[1], -1).gather(2, source)
