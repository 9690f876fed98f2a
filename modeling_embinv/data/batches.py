"""Batches for training: a pure function of (seed, index), so that a resumed run repeats an uninterrupted one."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from ..errors_embinv import EmbInvError
from ..texts_embinv import decode_rows
from .encoders import Encoder, SentenceEncoder
from .pairs import load_pairs, read_manifest
from .spans import SpanSampler


class Batches(Protocol):
    """Where training takes its texts and vectors from."""

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """Originals (B, canvas) int64 and embeddings (B, D) float32 of batch `index`; the whole canvas by default."""
        ...


class PairBatches:
    """Prepared pairs in an order drawn anew for each epoch.

    Args:
        pairs: data set with columns input_ids (L) and embedding (D).
        end: the token that fills a canvas behind its text.
        seed: of the order.
    """

    def __init__(self, pairs: Dataset, end: int, seed: int) -> None:
        self.pairs = pairs.with_format("numpy")
        self.seed = seed
        ids = self.pairs[:]["input_ids"]
        ends = ids == end
        # tokens with the end; a text that fills its canvas needs none
        self.needed = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, ids.shape[1])
        self.length = ids.shape[1]
        self._pools: dict[int, NDArray[np.int64]] = {}
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """Originals (B, canvas) int64 and embeddings (B, D) float32 of batch `index`.

        Raises:
            EmbInvError: when fewer texts than a batch fit the canvas.
        """
        canvas = canvas or self.length
        pool = self._pools.setdefault(canvas, np.flatnonzero(self.needed <= canvas))
        if len(pool) < batch_size:
            raise EmbInvError(
                f"{len(pool)} texts fit a canvas of {canvas} tokens, fewer than a batch of {batch_size}: "
                "prepare more text or lower batch_size."
            )
        epoch, position = divmod(index, len(pool) // batch_size)
        if self._order is None or self._order[0] != (canvas, epoch):
            self._order = (canvas, epoch), np.random.default_rng((self.seed, canvas, epoch)).permutation(pool)
        drawn = self._order[1][position * batch_size : (position + 1) * batch_size]
        # read in the order of the file, given in the order drawn: a row's index must say nothing of its text
        sorted_rows, where = np.unique(drawn, return_inverse=True)
        rows = self.pairs[sorted_rows]
        ids = torch.from_numpy(np.asarray(rows["input_ids"])[where, :canvas].astype(np.int64))
        return ids, torch.from_numpy(np.asarray(rows["embedding"])[where].astype(np.float32))


def held_out_pairs(
    folder: str | Path, length: int, count: int | None = None, split: str = "validation"
) -> tuple[Tensor, Tensor]:
    """The same `count` pairs of a split that fit the canvas at every call, all if there are fewer: (N, L), (N, D).

    L is `length`; pairs that were prepared for a shorter canvas are filled up with the end token.
    """
    end = read_manifest(folder)["end_token_id"]
    pairs = PairBatches(load_pairs(folder, split), end, seed=0)
    available = int((pairs.needed <= length).sum())
    if not available:
        raise EmbInvError(f"{folder}: no text of the {split} split fits {length} tokens.")
    ids, embeddings = pairs.batch(0, min(count or available, available), length)
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=end), embeddings


class SpanBatches:
    """Random spans of a tokenised corpus, embedded as training goes, so that a small corpus never repeats a pair."""

    def __init__(self, sampler: SpanSampler, encoder: Encoder) -> None:
        self.sampler, self.encoder = sampler, encoder

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """As `PairBatches.batch`."""
        ids = self.sampler.batch(index, batch_size, canvas)
        return ids, embed_rows(self.encoder, ids)


def embed_rows(encoder: Encoder, ids: Tensor) -> Tensor:
    """Canvas rows (B, L) → their vectors (B, D), from the ids where the encoder takes them, else from the texts."""
    if isinstance(encoder, SentenceEncoder) and encoder.takes_ids:
        return encoder.encode_ids(ids)
    vocabulary = encoder.vocabulary
    return encoder.encode(decode_rows(vocabulary.tokenizer, ids, vocabulary.end), batch_size=len(ids))
