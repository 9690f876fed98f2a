"""A tokenizer of whole words that tiny models can use, shared by the tests of gaps and fillings."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "dear", "anna", "li", "you", "owe", "us", "350", "dollars", "on", "may", "4", ",",
    ".", ":", "@", "london", "€",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[SEP]", "[MASK]"]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word a token, with the special tokens where the tiny models have them."""
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = dict(pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


TOKENIZER = word_tokenizer()
