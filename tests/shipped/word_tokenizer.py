"""Tokenizers that tiny models can use, shared by the tests of gaps and fillings: of words, and of their pieces."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [
    "dear", "anna", "li", "you", "owe", "us", "350", "dollars", "on", "may", "4", ",",
    ".", ":", "@", "london", "€",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[SEP]", "[MASK]"]
ROLES = dict(pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]", mask_token="[MASK]")


def word_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word a token, with the special tokens where the tiny models have them."""
    vocabulary = {word: index for index, word in enumerate(SPECIAL + words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


# 350 goes on with a word after the sign, and "4th" and "unable" are words, not their pieces
PIECES = [
    "dear", "anna", "li", "you", "owe", "us", "€", "##35", "##0", "35", "350", "4", "th", "##th", "##h", "4th", "5",
    "5th", "of", "may", ",", ".", "un", "##able", "able", "unable", "##li", "london",
]  # fmt: skip


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """Words and pieces that go on with them, as BERT has them."""
    vocabulary = {piece: index for index, piece in enumerate(SPECIAL + PIECES)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: the space before a word belongs to its token, and [MASK] takes none, as where it was added."""
    words = ["dear", "Ġanna", "Ġli", "Ġbob", "anna", "Ġyou", "Ġowe", "Ġus", "Ġ4", "th", "Ġof"]
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        merges |= {(word[:end], word[end]): None for end in range(1, len(word))}
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in merges)]
    vocabulary = {token: index for index, token in enumerate(SPECIAL[:3] + list(dict.fromkeys(tokens)))}
    backend = Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


TOKENIZER, PIECE_TOKENIZER, BYTE_TOKENIZER = word_tokenizer(), piece_tokenizer(), byte_tokenizer()


def ids_of(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> tuple[int, ...]:
    return tuple(tokenizer.convert_tokens_to_ids(list(tokens)))
