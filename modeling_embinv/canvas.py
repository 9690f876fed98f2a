"""Texts as canvas rows, and back.

Canvas convention: a row has exactly L tokens. They are the text's own tokens (no [CLS] or [SEP] around them), then the
end token, which also fills the rest. A text of L or more tokens is cut to L and has no end token. There is no padding.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

SPLITS = ("train", "validation", "test")


class Canvas(NamedTuple):
    """Texts in canvas form.

    Attributes:
        input_ids: (N, L) int64.
        texts: N texts; what the encoder must read, and exactly what `input_ids` decodes to.
        kept: N indexes into the texts that were given.
    """

    input_ids: torch.Tensor
    texts: list[str]
    kept: list[int]


def end_token_id(tokenizer) -> int:
    """The token that ends a text: the tokenizer's eos, or its sep if it has no eos."""
    for token_id in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token_id is not None:
            return token_id
    raise ValueError(f"{type(tokenizer).__name__} has neither an eos nor a sep token to end a text with")


def tokenize(tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The texts' token ids, without special tokens and uncut."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def text_lengths(ids: torch.Tensor, end_token_id: int) -> torch.Tensor:
    """(B,) number of tokens before the first end token of each row of `ids` (B, L)."""
    ends = ids == end_token_id
    first = ends.int().argmax(dim=1)
    return torch.where(ends.any(dim=1), first, ids.shape[1])


def decode_rows(tokenizer, ids: torch.Tensor | np.ndarray, end_id: int) -> list[str]:
    """The texts of canvas rows: what stands before the first end token.

    Args:
        ids: (B, L) integers, on the CPU.
        end_id: see `end_token_id`.
    """
    ids = torch.as_tensor(ids)
    lengths = text_lengths(ids, end_id).tolist()
    return _decode(tokenizer, [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)])


def _decode(tokenizer, rows: list[list[int]]) -> list[str]:
    # The backend's decoder, since transformers' own cleaning would remove spaces that tokenize differently.
    return tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)


def encode_canvas(tokenizer, texts: Sequence[str], length: int) -> Canvas:
    """Tokenizes texts into canvas rows and decodes them back, so that encoder and decoder see the same.

    Dropped are empty texts and those that do not tokenize to the same ids once decoded (unknown characters, special
    tokens written out, a cut inside a character).

    Args:
        tokenizer: the encoder's fast tokenizer.
        texts: any number of texts.
        length: L, the canvas length; longer texts are cut.
    """
    return canvas_of_rows(tokenizer, [ids[:length] for ids in tokenize(tokenizer, texts)], length)


def canvas_of_rows(tokenizer, rows: list[list[int]], length: int) -> Canvas:
    texts = _decode(tokenizer, rows)
    again = tokenize(tokenizer, texts)
    kept = [i for i, row in enumerate(rows) if row and row == again[i] and texts[i].strip()]
    input_ids = torch.full((len(kept), length), end_token_id(tokenizer))
    for place, i in enumerate(kept):
        input_ids[place, : len(rows[i])] = torch.tensor(rows[i])
    return Canvas(input_ids, [texts[i] for i in kept], kept)


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


def split_of(key: str, validation_share: float, test_share: float = 0.0) -> str:
    """The split of a document: a function of its key alone, so neither order nor other documents matter."""
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"
