"""What the closed loop makes of a text: random edits, whose open places the denoiser fills in, and likely moves.

Moves have the same words in another order, or one word less, as the causal order likes them best.
"""

from functools import lru_cache

import torch
from torch import Tensor

from .texts_embinv import text_lengths

EDITS = ("replace", "insert", "delete", "swap", "exchange", "reopen")
# uniform draws that an edit takes, besides one for each position
NUM_DRAWS = 6
# words of the shorter of two spans that change places; the other one has any number
LONGEST = 4
# numbers at a time, 64 MiB in float32
MAX_GAINS = 2**24


def random_edits(ids: Tensor, log_p: Tensor, mask: int, end: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One edit of each text (R, L), the kind drawn at random; unlikely words are likelier to be edited.

    replace: 1 to 3 of its words are masked. insert: a [MASK] is put before one. delete: a word goes. swap: two
    neighbouring spans change places, one of them of up to 4 words. exchange: two words do, wherever they are. reopen:
    about 40 % of the words are masked.

    Args:
        log_p: (R, L) log-likelihood of each token.
        draws: (R, NUM_DRAWS + L) uniform in [0, 1), all the noise that an edit takes.

    Returns:
        (R, L) the edited texts, and (R, L) tokens that a [MASK] must not become, −1 for none: the likeliest one to be
        wrong of those that were masked, or else many edits would write what stood there; the word that an insertion
        stands before.
    """
    length, device = ids.shape[1], ids.device
    size = text_lengths(ids, end)  # (R,)

    draw, kind = draws[:, :5], (draws[:, 5:NUM_DRAWS] * len(EDITS)).long()
    column = torch.arange(length, device=device)[None]  # (1, L)
    text = column < size[:, None]

    # Gumbel noise on −log p draws positions without replacement, the unlikely ones first
    order = (log_p - gumbel(draws[:, NUM_DRAWS:])).masked_fill(~text, torch.inf).argsort(dim=1)
    rank = order.argsort(dim=1)
    position = order[:, :1]  # (R, 1)
    few = 1 + (draw[:, 1] * 3).long()
    many = (0.4 * size).ceil().long()
    hidden = text & (rank < torch.where(kind[:, 0] == EDITS.index("reopen"), many, few)[:, None])
    result = ids.masked_fill(hidden, mask)

    inserted = ids.gather(1, column - (column > position).long()).masked_fill(column == position, mask)
    swapped = ids.gather(1, _random_swaps(size, draw[:, 2:5], length))
    other = torch.minimum((draw[:, :1] * size[:, None]).long(), (size[:, None] - 1).clamp_min(0))  # (R, 1)
    exchanged = ids.scatter(1, position, ids.gather(1, other)).scatter(1, other, ids.gather(1, position))
    moved = {"insert": inserted, "delete": without_word(ids, position, end), "swap": swapped, "exchange": exchanged}
    for name, edited in moved.items():
        result = torch.where(kind == EDITS.index(name), edited, result)
    only_end = result[:, :1] == end  # no text is empty
    result = torch.where(only_end, ids, result)
    return result, torch.where((result == mask) & hidden & (rank == 0), ids, -1)


def gumbel(draws: Tensor) -> Tensor:
    """Gumbel noise of uniform draws in [0, 1): the highest of log p + noise are draws without replacement."""
    return -torch.log(-torch.log(draws.clamp(1e-9, 1 - 1e-7)))


def without_word(ids: Tensor, place: Tensor, end: int) -> Tensor:
    """Texts (…, L) with one word less, at a place (…, 1)."""
    behind = torch.nn.functional.pad(ids[..., 1:], (0, 1), value=end)
    return torch.where(torch.arange(ids.shape[-1], device=ids.device) >= place, behind, ids)


def swap_order(length: int, start: Tensor, middle: Tensor, stop: Tensor) -> Tensor:
    """(…, L) places to read from when the spans [start, middle) and [middle, stop), edges (…, 1), change places."""
    place = torch.arange(length, device=start.device)
    second = stop - middle  # words of the second span, which comes first now
    moved = torch.where(place < start + second, place + (middle - start), place - second)
    return torch.where((place >= start) & (place < stop), moved, place)


def _random_swaps(size: Tensor, draws: Tensor, length: int) -> Tensor:
    """(R, L) positions to read from when the spans [a, b) and [b, c) of each text change places.

    One has 1 to LONGEST words; the other any number, as what stands at the wrong end of a text has all of it to pass.
    """
    short = torch.minimum(1 + (draws[:, 1] * LONGEST).long(), size - 1).clamp_min(0)  # both fit into any text
    room = size - short
    side, far = (draws[:, 2] * 2).long(), draws[:, 2] * 2 % 1
    long = torch.minimum((room + 1.0).pow(far).long(), room)  # uniform in its logarithm
    first, second = torch.where(side == 0, short, long), torch.where(side == 0, long, short)
    start = (draws[:, :1] * (size - first - second + 1)[:, None]).long()
    middle = start + first[:, None]
    return swap_order(length, start, middle, middle + second[:, None])


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
    if ids.shape[1] < 2:  # one word has no other place, and no text is empty
        return ids[:, None].expand(-1, num_swaps, -1), ids[:, None].expand(-1, num_deletions, -1)
    parts = torch.arange(len(ids), device=ids.device).split(max(1, MAX_GAINS // draws.shape[1]))
    moved = [_moves(ids[part], follow[part], end, num_swaps, num_deletions, draws[part]) for part in parts]
    swapped, shorter = zip(*moved, strict=True)
    return torch.cat(swapped), torch.cat(shorter)


def _moves(
    ids: Tensor, follow: Tensor, end: int, num_swaps: int, num_deletions: int, draws: Tensor
) -> tuple[Tensor, Tensor]:
    length = ids.shape[1]
    size = text_lengths(ids, end)  # (R,)
    # a place and a word behind the canvas: nothing is known of what follows there
    follow = torch.nn.functional.pad(follow, (0, 1, 0, 1))
    noise = gumbel(draws)
    start, middle, stop = (edge.to(ids.device) for edge in _pairs(length))
    gain = _seam(follow, start, middle) + _seam(follow, stop, start) + _seam(follow, middle, stop)
    impossible = stop > size[:, None]
    chosen, is_there = _drawn(gain, impossible, noise[:, : len(start)], num_swaps)
    order = swap_order(length, *(edge[chosen][..., None] for edge in (start, middle, stop)))  # (R, num_swaps, L)
    place = torch.arange(length, device=ids.device)
    gone, may_go = _drawn(
        _seam(follow, place, place + 1),
        (place >= size[:, None]) | (size[:, None] < 2),  # no text is empty
        noise[:, len(start) :],
        num_deletions,
    )
    ids = ids[:, None]
    swapped, shorter = ids.expand(-1, num_swaps, -1).gather(2, order), without_word(ids, gone[..., None], end)
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


def _drawn(gain: Tensor, impossible: Tensor, noise: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` of the columns of gain (R, T) for each row, and whether each of them is possible: (R, count) each."""
    score = (gain + noise).masked_fill(impossible, -torch.inf)
    value, index = score.topk(min(count, score.shape[1]))
    missing = (0, count - index.shape[1])
    return torch.nn.functional.pad(index, missing), torch.nn.functional.pad(value > -torch.inf, missing)
