"""Wanted tokens of a text: a bonus on the log-probability of each until the text contains it."""

from typing import NamedTuple

from torch import Tensor


class Favoured(NamedTuple):
    """Words of texts that exist already, for texts (B,) that are written from left to right.

    ids: (B, W) int64, −1 for none; what stands there twice is favoured twice. bonus: (B,) in nats, added to a word's
    log-probability.
    """

    ids: Tensor
    bonus: Tensor

    @classmethod
    def of(cls, ids: Tensor, end: int, bonus: Tensor) -> "Favoured":
        """The words of texts (B, L) with end tokens behind them."""
        return cls(ids.masked_fill(ids == end, -1), bonus)

    def rows(self, index: Tensor) -> "Favoured":
        """Those of the rows `index`."""
        return Favoured(self.ids[index], self.bonus[index])

    def added(self, logits: Tensor, written: Tensor) -> Tensor:
        """Logits (B, V) of the next token, changed in place: a bonus for every word that texts (B, n) lack yet."""
        same = self.ids[:, :, None] == self.ids[:, None, :]
        number = same.tril(-1).sum(dim=2)  # of a word: how often it stands further left
        used = (self.ids[:, :, None] == written[:, None, :]).sum(dim=2)
        is_next = (self.ids >= 0) & (number == used)  # one of equal words, so that none gets the bonus twice
        return logits.float().scatter_add_(1, self.ids.clamp_min(0), (is_next * self.bonus[:, None]).float())
