"""Edits of texts: what the closed loop proposes, before the denoiser fills in what is open."""

import torch
from torch import Tensor

from .diffusion_embinv import text_positions

EDITS = ("replace", "insert", "delete", "swap", "exchange", "reopen")
# uniform draws that an edit takes, besides one for each position
NUM_DRAWS = 6


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
    size = text_positions(ids, end).sum(dim=1) - (ids == end).any(dim=1).long()  # (R,) without the end

    draw, kind = draws[:, :5], (draws[:, 5:NUM_DRAWS] * len(EDITS)).long()
    column = torch.arange(length, device=device)[None]  # (1, L)
    text = column < size[:, None]

    # Gumbel noise on −log p draws positions without replacement, the unlikely ones first
    gumbel = -torch.log(-torch.log(draws[:, NUM_DRAWS:].clamp(1e-9, 1 - 1e-7)))
    order = (log_p - gumbel).masked_fill(~text, torch.inf).argsort(dim=1)
    rank = order.argsort(dim=1)
    position = order[:, :1]  # (R, 1)
    few = 1 + (draw[:, 1] * 3).long()
    many = (0.4 * size).ceil().long()
    hidden = text & (rank < torch.where(kind[:, 0] == EDITS.index("reopen"), many, few)[:, None])
    result = ids.masked_fill(hidden, mask)

    inserted = ids.gather(1, column - (column > position).long()).masked_fill(column == position, mask)
    behind = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=end)
    deleted = torch.where(column >= position, behind, ids)
    swapped = ids.gather(1, _swap_order(size, draw[:, 2:5], length))
    other = torch.minimum((draw[:, :1] * size[:, None]).long(), (size[:, None] - 1).clamp_min(0))  # (R, 1)
    exchanged = ids.scatter(1, position, ids.gather(1, other)).scatter(1, other, ids.gather(1, position))
    moved = {"insert": inserted, "delete": deleted, "swap": swapped, "exchange": exchanged}
    for name, edited in moved.items():
        result = torch.where(kind == EDITS.index(name), edited, result)
    only_end = result[:, :1] == end  # no text is empty
    result = torch.where(only_end, ids, result)
    return result, torch.where((result == mask) & hidden & (rank == 0), ids, -1)


def _swap_order(size: Tensor, draws: Tensor, length: int) -> Tensor:
    """(R, L) positions to read from when the spans [a, b) and [b, c) of each text change places.

    One has 1 to 4 words; the other has any number, as what stands at the wrong end of a text has all of it to pass.
    """
    short = torch.minimum(1 + (draws[:, 1] * 4).long(), size - 1).clamp_min(0)  # both fit into any text
    room = size - short
    side, far = (draws[:, 2] * 2).long(), draws[:, 2] * 2 % 1
    long = torch.minimum((room + 1.0).pow(far).long(), room)  # uniform in its logarithm
    first, second = torch.where(side == 0, short, long), torch.where(side == 0, long, short)
    start = (draws[:, :1] * (size - first - second + 1)[:, None]).long()
    middle = start + first[:, None]
    stop = middle + second[:, None]
    column = torch.arange(length, device=size.device)[None].expand(len(size), -1)
    from_second = column + (middle - start)
    from_first = column - (stop - middle)
    inside = (column >= start) & (column < stop)
    moved = torch.where(column < start + (stop - middle), from_second, from_first)
    return torch.where(inside, moved, column)
