"""Texts as long as the chunks of a vector store, cut from consecutive lines of a tokenised corpus."""

import numpy as np
import torch
from torch import Tensor

from ..errors_embinv import EmbInvError
from .spans import TokenizedCorpus

# tokens of a text for the word head: those of a short request, and what 256 leave beside two special tokens
FEWEST, MOST = 8, 254


class ChunkSampler:
    """Draws random texts of consecutive documents; a batch depends on (seed, batch_index, its size, canvas) alone.

    A text's length is drawn log-uniformly, so that each doubling has as many texts. It begins with a document, drawn
    uniformly, and ends where a word ends. Documents of one file stand one after the other, so nearly all texts are of
    one file.

    Args:
        corpus: where to draw from.
        fewest, most: tokens of a text.
        seed: a whole number of at least 0.
    """

    def __init__(self, corpus: TokenizedCorpus, fewest: int, most: int, seed: int) -> None:
        if not 1 <= fewest <= most:
            raise EmbInvError(f"a chunk has at least 1 token, and at most {most}: got {fewest}.")
        self.corpus, self.fewest, self.most, self.seed = corpus, fewest, most, seed

    def batch(self, batch_index: int, batch_size: int, canvas: int | None = None) -> Tensor:
        """One batch of rows.

        Args:
            batch_index: which batch; the same index gives the same rows.
            batch_size: B.
            canvas: the most tokens of a text here; None = `most`.

        Returns:
            (B, canvas) int64, filled with the end token.
        """
        most = self.most if canvas is None else canvas
        rng = np.random.default_rng([self.seed, batch_index])
        documents = rng.integers(len(self.corpus), size=batch_size)
        fewest = min(self.fewest, most)
        lengths = np.exp(rng.uniform(np.log(fewest), np.log(most + 1), size=batch_size)).astype(np.int64)
        rows = np.full((batch_size, most), self.corpus.vocabulary.end, dtype=np.int64)
        for row, document, length in zip(rows, documents, lengths, strict=True):
            ids = self._text(int(self.corpus.offsets[document]), int(length))
            row[: len(ids)] = ids
        return torch.from_numpy(rows)

    def _text(self, start: int, length: int) -> np.ndarray:
        """At most `length` tokens from `start` on, without a word that is cut."""
        ids = self.corpus.ids[start : start + length + 1]
        if len(ids) <= length:  # the corpus ends here
            return ids
        starts = np.flatnonzero(self.corpus.vocabulary.word_starts[ids])
        # a word longer than the text is cut after all
        return ids[: starts[-1]] if len(starts) and starts[-1] else ids[:length]
