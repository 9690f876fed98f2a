"""Random spans of a tokenised corpus, drawn on the fly, so that a small corpus never repeats a pair."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..errors_embinv import EmbInvError
from .parts import whole
from .sources import SPLITS, Document, split_of
from .tokens import Vocabulary, tokenize

TOKENIZE_BATCH = 16_384


@dataclass(frozen=True)
class TokenizedCorpus:
    """The documents of one split as token ids, without special tokens; made by `build`.

    Attributes:
        ids: (T,) int32, all documents one after the other.
        offsets: (N + 1,) int64; document i is `ids[offsets[i]:offsets[i + 1]]`.
        vocabulary: what their tokenizer knows.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def build(
        cls,
        documents: Iterable[Document],
        vocabulary: Vocabulary,
        cache_dir: str | Path | None = None,
        split: str = "train",
        validation_share: float = 0.01,
        test_share: float = 0.0,
        show_progress: bool = True,
    ) -> "TokenizedCorpus":
        """Tokenizes the documents of one split; those with unknown or special tokens are left out.

        Args:
            documents: `(key, text)`; not read if the cache holds them already.
            vocabulary: the encoder's.
            cache_dir: a folder for this corpus only; None = keep in memory. Other tokenizers, shares and splits get
                their own files in it, changed documents do not: then give another folder.
            split: "train", "validation" or "test", decided for each document as in `prepare`. Of the training split
                those are left out whose tokens are a held-out document's, as where the letter case alone differs.
            validation_share: share of the documents in the validation split.
            test_share: share of the documents in the test split.
            show_progress: whether to show a bar (on a terminal).

        Raises:
            EmbInvError: no such split, no document in it, or a damaged cache.
        """
        if split not in SPLITS:
            raise EmbInvError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        splits = ((text, split_of(key, validation_share, test_share)) for key, text, *_ in documents)
        # training leaves out what reads like a held-out text, so it must know these
        needed = ((text, of) for text, of in splits if split in (of, "train"))
        if cache_dir is None:
            ids, offsets = _tokenize_all(needed, vocabulary, split, show_progress)
            return cls(ids, offsets, vocabulary)
        folder = Path(cache_dir) / f"{split}-{_fingerprint(vocabulary.tokenizer, validation_share, test_share)}"
        if not folder.exists():
            _save_arrays(folder, *_tokenize_all(needed, vocabulary, split, show_progress))
        with whole(folder):
            ids, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "offsets"))
        return cls(ids, offsets, vocabulary)


def _tokenize_all(
    texts: Iterator[tuple[str, str]], vocabulary: Vocabulary, split: str, show_progress: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The ids and offsets of those texts, each with its split, that are of `split` and read like none of another."""
    parts: list[NDArray[np.int32]] = []
    lengths: list[int] = []
    others: set[bytes] = set()
    found = 0  # texts of the split, whatever their tokens
    with tqdm(unit=" documents", disable=None if show_progress else True) as bar:
        while batch := list(islice(texts, TOKENIZE_BATCH)):
            tokens = tokenize(vocabulary.tokenizer, [text for text, _ in batch])
            found += sum(of == split for _, of in batch)
            rows = [(np.array(row, dtype=np.int32), of) for row, (_, of) in zip(tokens, batch, strict=True)]
            # A special token in a text would end it early, or be lost when it is decoded for the encoder.
            rows = [(ids, of) for ids, of in rows if len(ids) and not vocabulary.special[ids].any()]
            others.update(ids.tobytes() for ids, of in rows if of != split)
            mine = [ids for ids, of in rows if of == split]
            parts += [np.concatenate(mine)] if mine else []
            lengths += map(len, mine)
            bar.update(len(batch))
    ids, sizes = np.concatenate([np.zeros(0, np.int32), *parts]), np.array(lengths, dtype=np.int64)
    ends = np.cumsum(sizes)
    kept = np.array([ids[end - size : end].tobytes() not in others for end, size in zip(ends, sizes, strict=True)])
    if not kept.any():
        raise EmbInvError(_why_none(split, found, len(sizes)))
    if not kept.all():
        ids, sizes = ids[np.repeat(kept, sizes)], sizes[kept]
    return ids, np.concatenate([[0], np.cumsum(sizes)])


def _why_none(split: str, found: int, known: int) -> str:
    """Why a split has no text to draw from, in a line: of those `found`, so many have only known tokens."""
    if not found:
        return f"no text fell into split {split!r}, which takes a share of them by chance; give more texts (hundreds)"
    if not known:
        return (
            f"no text in split {split!r} can be used: each of {found:,} is empty, or has an unknown or special token"
        )
    return f"no text in split {split!r} can be used: each of {found:,} reads like a held-out text; give others besides"


def _fingerprint(tokenizer: PreTrainedTokenizerBase, *shares: float) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call left behind, not what the tokenizer is.
    state["truncation"] = state["padding"] = None
    return hashlib.blake2b(json.dumps([state, shares]).encode(), digest_size=8).hexdigest()


def _save_arrays(folder: Path, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
    """Both files or none; several processes may do this at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(exist_ok=True)
    np.save(temporary / "ids.npy", ids)
    np.save(temporary / "offsets.npy", offsets)
    try:
        temporary.replace(folder)
    except OSError:
        if not folder.exists():
            raise
        # Another process was first, with the same content.
        shutil.rmtree(temporary)


class SpanSampler:
    """Draws random canvas rows from a corpus; a batch depends on (seed, batch_index, its size, canvas) alone.

    Half of the rows (`whole_share`) are documents from their beginning, the others spans that begin and, if they can,
    end at a word; a span's length is drawn uniformly. Documents are drawn uniformly.

    Args:
        corpus: where to draw from.
        length: L, the canvas length.
        seed: a whole number of at least 0.
        min_tokens: shorter documents are not drawn, nor shorter spans.
        whole_share: share of the rows that are whole documents, cut at the canvas.
    """

    # A word of more tokens than this counts as beginning with its document.
    LONGEST_WORD = 16

    def __init__(
        self, corpus: TokenizedCorpus, length: int, seed: int, min_tokens: int = 3, whole_share: float = 0.5
    ) -> None:
        if not 1 <= min_tokens <= length:
            raise EmbInvError(f"min_tokens must be between 1 and the length {length}, not {min_tokens}")
        if not 0 <= whole_share <= 1:
            raise EmbInvError(f"whole_share must be between 0 and 1, not {whole_share}")
        self.corpus, self.length, self.seed = corpus, length, seed
        self.min_tokens, self.whole_share = min_tokens, whole_share
        lengths = np.diff(corpus.offsets)
        order = np.argsort(lengths, kind="stable")
        # Sorted by length, the documents that fit a canvas are the first ones.
        self._documents = order[lengths[order] >= min_tokens]
        self._lengths = lengths[self._documents]
        if not len(self._documents):
            raise EmbInvError(f"none of the {len(corpus)} documents has {min_tokens} tokens")

    def batch(self, batch_index: int, batch_size: int, canvas: int | None = None) -> Tensor:
        """One batch of rows.

        Args:
            batch_index: which batch; the same index gives the same rows.
            batch_size: B.
            canvas: C, columns of the result; None = L. With C < L only texts of at most C tokens are drawn, and whole
                documents only if their end token fits as well.

        Returns:
            (B, C) int64.
        """
        width = self.length if canvas is None else canvas
        if not self.min_tokens <= width <= self.length:
            raise EmbInvError(f"canvas must be between {self.min_tokens} and {self.length} tokens, not {width}")
        rng = np.random.default_rng([self.seed, batch_index])
        which, kind, where, how_long = rng.random((4, batch_size))
        fitting = len(self._lengths) if width == self.length else np.searchsorted(self._lengths, width)
        whole = (kind < self.whole_share) & (fitting > 0)
        drawn = (which * np.where(whole, fitting, len(self._lengths))).astype(np.int64)
        begin, size = self.corpus.offsets[self._documents[drawn]], self._lengths[drawn]
        room = (where * (size - self.min_tokens + 1)).astype(np.int64)
        start = np.where(whole, begin, self._word_start(begin, begin + room))
        wanted = self.min_tokens + (how_long * (width - self.min_tokens + 1)).astype(np.int64)

        columns = np.arange(width + 1)
        positions = start[:, None] + columns
        tokens = self.corpus.ids[np.minimum(positions, len(self.corpus.ids) - 1)].astype(np.int64)
        rest = (begin + size - start)[:, None]
        ends = (self.corpus.vocabulary.word_starts[tokens] | (columns >= rest)) & (columns >= self.min_tokens)
        length = np.where(whole, width, _nearest_end(ends, wanted))[:, None]
        is_text = columns < np.minimum(length, rest)
        return torch.from_numpy(np.where(is_text, tokens, self.corpus.vocabulary.end)[:, :width])

    def _word_start(self, begin: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nearest word start at or before each position, or its document's beginning."""
        window = np.maximum(position[:, None] - np.arange(self.LONGEST_WORD), begin[:, None])
        is_start = self.corpus.vocabulary.word_starts[self.corpus.ids[window]]
        first = window[np.arange(len(window)), is_start.argmax(axis=1)]
        return np.where(is_start.any(axis=1), first, begin)


def _nearest_end(ends: NDArray[np.bool_], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """In each row of (B, C + 1) bool, the first True column from `wanted` on; else the last one; else `wanted`."""
    later = ends & (np.arange(ends.shape[1]) >= wanted[:, None])
    last = ends.shape[1] - 1 - ends[:, ::-1].argmax(axis=1)
    return np.where(later.any(axis=1), later.argmax(axis=1), np.where(ends.any(axis=1), last, wanted))
