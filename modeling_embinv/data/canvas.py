"""Texts as canvas rows, and back.

Canvas convention: a row has exactly L tokens. They are the text's own tokens (no [CLS] or [SEP] around them), then the
end token, which also fills the rest. A text of L or more tokens is cut to L and has no end token. There is no padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..texts_embinv import decode
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
    texts = decode(tokenizer, rows)
    again = tokenize(tokenizer, texts)
    kept = [i for i, row in enumerate(rows) if row and row == again[i] and texts[i].strip()]
    input_ids = torch.full((len(kept), length), end_token_id(tokenizer))
    for place, i in enumerate(kept):
        input_ids[place, : len(rows[i])] = torch.tensor(rows[i])
    return EncodedTexts(input_ids, [texts[i] for i in kept], kept)
