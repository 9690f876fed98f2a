"""An encoder of token ids and of texts, whose vectors an exhaustive search can know."""

import torch

from tests.shipped.word_tokenizer import TOKENIZER
from tests.tiny_models import END, VOCAB, unit_vectors

TABLE = unit_vectors(VOCAB, seed=5)
POSITIONS = unit_vectors(40, seed=6)


def encode_ids(ids: torch.Tensor) -> torch.Tensor:
    """An encoder that knows words and, a little, their order."""
    vectors = TABLE[ids] * (1 + POSITIONS[: ids.shape[1]])
    return torch.nn.functional.normalize((vectors * (ids != END)[..., None]).sum(dim=1), dim=-1)


def encode_texts(given: list[str], tokenizer=TOKENIZER) -> torch.Tensor:
    """The same of texts."""
    rows = tokenizer(list(given), add_special_tokens=False)["input_ids"]
    return torch.cat([encode_ids(torch.tensor([row])) for row in rows])


def vector_of(row: list[int]) -> torch.Tensor:
    return encode_ids(torch.tensor([row]))
