"""Token ids as texts: a row's text is what stands before its first end token."""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import torch
from torch import Tensor


class WrittenText(NamedTuple):
    """A text with the tokens it is made of.

    Attributes:
        text: as the tokenizer decodes it.
        ids: the text's token ids.
        tokens: the same, as the tokenizer's vocabulary spells them.
        token_confidence: the probability that each token is right.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    token_confidence: list[float]

    @property
    def confidence(self) -> float:
        """The share of tokens that are expected to be right, 0 for a text without any."""
        return sum(self.token_confidence) / max(len(self.token_confidence), 1)


def text_lengths(ids: Tensor, end: int) -> Tensor:
    """(B,) number of tokens before the first end token of each row of `ids` (B, L)."""
    ends = ids == end
    first = ends.int().argmax(dim=1)
    return torch.where(ends.any(dim=1), first, ids.shape[1])


def text_ids(ids: Tensor, end: int) -> list[list[int]]:
    """The token ids of each text of `ids` (B, L)."""
    lengths = text_lengths(ids, end).tolist()
    return [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]


def decode(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of rows of token ids.

    transformers' own clean-up stays off: it would remove spaces, and the text would tokenize differently.
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return [tokenizer.decode(row, **options) for row in rows]


def decode_rows(tokenizer: Any, ids: Tensor, end: int) -> list[str]:
    """The texts of `ids` (B, L)."""
    return decode(tokenizer, text_ids(ids, end))


def written_texts(tokenizer: Any, ids: Tensor, confidence: Tensor, end: int) -> list[WrittenText]:
    """The texts of `ids` (B, L) with the confidence (B, L) of their tokens."""
    rows = text_ids(ids, end)
    texts, confidences = decode(tokenizer, rows), confidence.tolist()
    return [
        WrittenText(text, row, tokenizer.convert_ids_to_tokens(row), values[: len(row)])
        for text, row, values in zip(texts, rows, confidences, strict=True)
    ]


def stream(streamer: Any, ids: Tensor, end: int) -> None:
    """Hand the text of `ids` (1, L), its end token included, to a streamer.

    One that skips a prompt would take the text for it, so it gets an empty prompt first.
    """
    if getattr(streamer, "skip_prompt", False):
        streamer.put(ids[:, :0])
    streamer.put(ids[:, : int(text_lengths(ids, end)[0]) + 1])
    streamer.end()
