"""What a tokenizer knows: the end of a text, where words begin, which tokens are special."""

from collections.abc import Sequence

import numpy as np

from ..errors_embinv import EmbInvError


def end_token_id(tokenizer) -> int:
    """The token that ends a text: the tokenizer's eos, or its sep if it has no eos."""
    for token_id in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token_id is not None:
            return token_id
    raise EmbInvError(f"{type(tokenizer).__name__} has neither an eos nor a sep token to end a text with")


def tokenize(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The texts' token ids, without special tokens and uncut."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def word_starts(tokenizer) -> np.ndarray:
    """(V,) bool: the tokens with which a word begins; special tokens are none.

    WordPiece marks what continues a word ("##"), SentencePiece and byte-level BPE what begins one ("▁", "Ġ").
    """
    vocabulary = tokenizer.get_vocab()
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    mark = max(("▁", "Ġ"), key=lambda mark: sum(token.startswith(mark) for token in vocabulary))
    starts = np.zeros(max(vocabulary.values()) + 1, bool)
    for token, token_id in vocabulary.items():
        starts[token_id] = not token.startswith(prefix) if prefix else token.startswith(mark)
    return starts & ~special_tokens(tokenizer)


def special_tokens(tokenizer) -> np.ndarray:
    """(V,) bool: the tokens that decoding leaves out, unknown and end among them."""
    special = np.zeros(max(tokenizer.get_vocab().values()) + 1, bool)
    special[tokenizer.all_special_ids] = True
    special[[token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
    return special
