"""What a tokenizer knows: texts as token ids, the end of a text, where words begin, which tokens are special."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ..errors_embinv import EmbInvError
from ..integrity_embinv import role_ids
from ..vocabulary_embinv import word_starts


class Vocabulary:
    """A tokenizer and what it says of its tokens, worked out once and handed on.

    Attributes:
        tokenizer: the fast tokenizer.
        end: the token that ends a text: the tokenizer's eos, or its sep if it has no eos.
        mask: [MASK], or None.
        pad: the padding token, or the end token where there is none.

    Raises:
        EmbInvError: for a tokenizer with neither an eos nor a sep token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        roles = role_ids(tokenizer)
        end, pad = roles["eos_token_id"], roles["pad_token_id"]
        if end is None or pad is None:
            raise EmbInvError(f"{type(tokenizer).__name__} has neither an eos nor a sep token to end a text with")
        self.tokenizer, self.end, self.pad = tokenizer, end, pad
        self.mask = roles["mask_token_id"]

    @cached_property
    def special(self) -> NDArray[np.bool_]:
        """(V,) bool: the tokens that decoding leaves out, unknown and end among them."""
        special = np.zeros(max(self.tokenizer.get_vocab().values()) + 1, bool)
        special[self.tokenizer.all_special_ids] = True
        added = self.tokenizer.added_tokens_decoder.items()
        special[[token_id for token_id, token in added if token.special]] = True
        return special

    @cached_property
    def word_starts(self) -> NDArray[np.bool_]:
        """(V,) bool: the tokens with which a word begins; special tokens are none."""
        return np.array(word_starts(self.tokenizer)) & ~self.special

    @property
    def suppressed(self) -> list[int]:
        """Special tokens that no text holds: all but the end token."""
        return sorted(set(self.tokenizer.all_special_ids) - {self.end})


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The texts' token ids, without special tokens and uncut."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
