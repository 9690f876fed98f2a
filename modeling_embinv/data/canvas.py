"""Texts as canvas rows, and back.

Canvas convention: a row has exactly L tokens. They are the text's own tokens (no [CLS] or [SEP] around them), then the
end token, which also fills the rest. A text of L or more tokens is cut to L and has no end token. There is no padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .tokens import end_token_id, tokenize


class EncodedTexts(NamedTuple):
    """Texts in canvas form.

    Attributes:
        input_ids: (N, L) int64.
        texts: N texts; what the encoder must read, and exactly what `input_ids` decodes to.
        kept: N indexes into the texts that were given.
    """

    input_ids: torch.Tensor
    texts: list[str]
    kept: list[int]


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


def encode_canvas(tokenizer, texts: Sequence[str], length: int) -> EncodedTexts:
    """Tokenizes texts into canvas rows and decodes them back, so that encoder and decoder see the same.

    Dropped are empty texts and those that do not tokenize to the same ids once decoded (unknown characters, special
    tokens written out, a cut inside a character).

    Args:
        tokenizer: the encoder's fast tokenizer.
        texts: any number of texts.
        length: L, the canvas length; longer texts are cut.
    """
    return canvas_of_rows(tokenizer, [ids[:length] for ids in tokenize(tokenizer, texts)], length)


def canvas_of_rows(tokenizer, rows: list[list[int]], length: int) -> EncodedTexts:
    texts = _decode(tokenizer, rows)
    again = tokenize(tokenizer, texts)
    kept = [i for i, row in enumerate(rows) if row and row == again[i] and texts[i].strip()]
    input_ids = torch.full((len(kept), length), end_token_id(tokenizer))
    for place, i in enumerate(kept):
        input_ids[place, : len(rows[i])] = torch.tensor(rows[i])
    return EncodedTexts(input_ids, [texts[i] for i in kept], kept)
