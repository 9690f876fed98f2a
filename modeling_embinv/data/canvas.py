"""Texts as canvas rows.

Canvas convention: a row has exactly L tokens. They are the text's own tokens (no [CLS] or [SEP] around them), then the
end token, which also fills the rest. A text of L or more tokens is cut to L and has no end token. There is no padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..texts_embinv import decode
from .tokens import Vocabulary, tokenize


class EncodedTexts(NamedTuple):
    """Texts in canvas form.

    Attributes:
        input_ids: (N, L) int64.
        texts: N texts; what the encoder must read, and exactly what `input_ids` decodes to.
        kept: N indexes into the texts that were given.
    """

    input_ids: Tensor
    texts: list[str]
    kept: list[int]


def encode_canvas(vocabulary: Vocabulary, texts: Sequence[str], length: int) -> EncodedTexts:
    """Tokenizes texts into canvas rows and decodes them back, so that encoder and decoder see the same.

    Dropped are empty texts and those that do not tokenize to the same ids once decoded (unknown characters, special
    tokens written out, a cut inside a character).

    Args:
        vocabulary: the encoder's.
        texts: any number of texts.
        length: L, the canvas length; longer texts are cut.
    """
    return canvas_of_rows(vocabulary, [ids[:length] for ids in tokenize(vocabulary.tokenizer, texts)], length)


def canvas_of_rows(vocabulary: Vocabulary, rows: Sequence[list[int]], length: int) -> EncodedTexts:
    """As `encode_canvas`, of token rows, each of at most L."""
    texts = decode(vocabulary.tokenizer, rows)
    again = tokenize(vocabulary.tokenizer, texts)
    kept = [index for index, row in enumerate(rows) if row and row == again[index] and texts[index].strip()]
    input_ids = torch.full((len(kept), length), vocabulary.end)
    for target, index in zip(input_ids, kept, strict=True):
        target[: len(rows[index])] = torch.tensor(rows[index])
    return EncodedTexts(input_ids, [texts[index] for index in kept], kept)
