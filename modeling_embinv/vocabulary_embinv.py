"""Which tokens of a tokenizer begin words, go on with them, or are whole words."""

from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WordVocabulary:
    """Which tokens of a vocabulary are words of letters and digits; lists of V entries.

    words: each token as text, without its mark of a word's beginning or continuation. is_word: whether it may be a
    whole word. continues: whether it is part of the word that stands before it.
    """

    words: list[str]
    is_word: list[bool]
    continues: list[bool]

    @classmethod
    @lru_cache(maxsize=2)  # a third of a second for 30,000 tokens
    def of(cls, tokenizer: Any) -> "WordVocabulary":
        """Of a fast tokenizer."""
        starts = word_starts(tokenizer)
        special, mark = set(tokenizer.all_special_ids), _marks(tokenizer)[1]
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(starts))))
        words = [(token or "").removeprefix(mark) for token in tokens]
        is_text = [word.isalnum() and index not in special for index, word in enumerate(words)]
        is_word = [start and text for start, text in zip(starts, is_text, strict=True)]
        continues = [text and not start for start, text in zip(starts, is_text, strict=True)]
        return cls(words, is_word, continues)

    def present(self, ids: Tensor) -> Tensor:
        """(B, V) bool: the whole words of texts ids (B, L), whatever fills the rows behind them."""
        is_word, continues = self.masks
        behind = nn.functional.pad(continues[ids[:, 1:]], (0, 1))
        row, column = (is_word[ids] & ~behind).nonzero(as_tuple=True)
        found = torch.zeros(len(ids), len(is_word), dtype=torch.bool)
        found[row, ids[row, column]] = True
        return found

    @cached_property
    def masks(self) -> tuple[Tensor, Tensor]:
        """`is_word` and `continues` as tensors (V,), made once: that takes longer than to look at a batch."""
        return torch.tensor(self.is_word), torch.tensor(self.continues)


def word_starts(tokenizer: Any) -> list[bool]:
    """Whether each token of a fast tokenizer begins a word; V entries.

    WordPiece marks what continues a word ("##"), SentencePiece and byte-level BPE what begins one ("▁", "Ġ").
    """
    is_continuation, mark = _marks(tokenizer)
    ids = tokenizer.get_vocab()
    starts = [False] * (max(ids.values()) + 1)
    for token, index in ids.items():
        starts[index] = token.startswith(mark) != is_continuation
    return starts


def _marks(tokenizer: Any) -> tuple[bool, str]:
    """Whether a tokenizer marks continuations, or else beginnings; and its mark."""
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    if prefix:
        return True, prefix
    ids = tokenizer.get_vocab()
    return False, max(("▁", "Ġ"), key=lambda mark: sum(token.startswith(mark) for token in ids))
