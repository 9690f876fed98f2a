"""Batches for training: a pure function of (seed, index), so that a resumed run repeats an uninterrupted one."""

import time
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from ..errors_embinv import EmbInvError
from ..texts_embinv import decode_rows
from .chunks import ChunkSampler
from .encoders import Encoder, SentenceEncoder
from .pairs import load_pairs, read_manifest
from .parts import PartFolder, whole
from .spans import SpanSampler


class Batches(Protocol):
    """Where training takes its texts and vectors from."""

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """Originals (B, canvas) int64 and embeddings (B, D) float32 of batch `index`; the whole canvas by default."""
        ...

    def ids(self, index: int, batch_size: int, canvas: int | None = None) -> Tensor:
        """Originals as those of `batch`, without any call of an encoder."""
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
                "prepare more text, or lower batch_size (bag_of_words_batch_size in that warm-up)."
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

    def ids(self, index: int, batch_size: int, canvas: int | None = None) -> Tensor:
        """As `batch`, without the vectors."""
        return self.batch(index, batch_size, canvas)[0]


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

    def __init__(self, sampler: SpanSampler | ChunkSampler, encoder: Encoder) -> None:
        self.sampler, self.encoder = sampler, encoder

    def ids(self, index: int, batch_size: int, canvas: int | None = None) -> Tensor:
        """As `batch`, without the vectors."""
        return self.sampler.batch(index, batch_size, canvas)

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """As `PairBatches.batch`."""
        ids = self.sampler.batch(index, batch_size, canvas)
        return ids, embed_rows(self.encoder, ids)


class ChunkBatches(SpanBatches):
    """A pool of chunks that training goes through again and again; each is embedded when it first comes to it.

    The texts are of very different lengths. So they are embedded in pieces of 1,024, among which each has its like: a
    batch alone would be padding for the most part. The first epoch is in the order of the pieces.

    Args:
        sampler: where the texts come from.
        encoder: embeds them.
        size: texts of the pool, a multiple of 1,024 or less than that.
        folder: keeps the vectors, so that a run that was killed need not embed them again. It must be of this
            sampler, encoder and size of a piece alone.
    """

    PIECE = 1024

    def __init__(self, sampler: ChunkSampler, encoder: Encoder, size: int, folder: Path) -> None:
        super().__init__(sampler, encoder)
        self.piece = self.piece_of(size)
        self.size, self.parts = size - size % self.piece, PartFolder(folder)
        self._rows = np.zeros((self.size, sampler.most), dtype=np.int32)
        self._vectors = np.zeros((self.size, encoder.embedding_dim), dtype=np.float32)
        self._ready: set[int] = set()
        self._embedded, self._seconds = 0, 0.0  # pieces that were embedded here, and how long that took
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @classmethod
    def piece_of(cls, size: int) -> int:
        """Texts of a piece of a pool of `size` texts."""
        return min(cls.PIECE, size)

    def batch(self, index: int, batch_size: int, canvas: int | None = None) -> tuple[Tensor, Tensor]:
        """As `PairBatches.batch`.

        Raises:
            EmbInvError: for a batch that is larger than the pool, or a damaged file of vectors.
        """
        if batch_size > self.size:
            raise EmbInvError(f"a pool of {self.size} texts has no batch of {batch_size}: lower batch_size.")
        epoch, part = divmod(index, self.size // batch_size)
        if self._order is None or self._order[0] != epoch:
            later = np.random.default_rng((self.sampler.seed, epoch)).permutation(self.size)
            self._order = epoch, later if epoch else np.arange(self.size)
        rows = self._order[1][part * batch_size : (part + 1) * batch_size]
        for piece in sorted({int(row) // self.piece for row in rows} - self._ready):
            self._fill(piece)
        ids = torch.from_numpy(self._rows[rows, :canvas].astype(np.int64))
        return ids, torch.from_numpy(self._vectors[rows])

    def embedding_time(self, reach: int) -> tuple[float, float | None]:
        """Seconds that embedding has taken so far, and those that a run over `reach` texts in all will still take.

        The second is None where pieces are left and none was embedded yet.
        """
        pieces = -(-min(reach, self.size) // self.piece)
        left = sum(piece not in self._ready and not self._path(piece).exists() for piece in range(pieces))
        if left and not self._embedded:
            return self._seconds, None
        return self._seconds, left * self._seconds / max(self._embedded, 1)

    def _path(self, piece: int) -> Path:
        return self.parts.folder / f"{piece:06d}.npy"

    def _fill(self, piece: int) -> None:
        """Read the vectors of a piece from its file, or make that file."""
        ids = self.sampler.batch(piece, self.piece)
        path = self._path(piece)
        if not path.exists():
            began = time.perf_counter()
            vectors = embed_rows(self.encoder, ids).cpu().numpy()
            self._embedded, self._seconds = self._embedded + 1, self._seconds + time.perf_counter() - began
            with self.parts.written(path.name, is_shared=True) as partial, partial.open("wb") as file:
                np.save(file, vectors)
        rows = slice(piece * self.piece, (piece + 1) * self.piece)
        with whole(path):
            self._vectors[rows] = np.load(path)
        self._rows[rows] = ids.numpy()
        self._ready.add(piece)


def embed_rows(encoder: Encoder, ids: Tensor) -> Tensor:
    """Canvas rows (B, L) → their vectors (B, D), from the ids where the encoder takes them, else from the texts."""
    if isinstance(encoder, SentenceEncoder) and encoder.takes_ids:
        return encoder.encode_ids(ids)
    vocabulary = encoder.vocabulary
    return encoder.encode(decode_rows(vocabulary.tokenizer, ids, vocabulary.end), batch_size=len(ids))
