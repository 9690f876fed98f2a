"""Token ids as texts: the text ends before its first end token, and nothing else is changed in it."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from modeling_embinv.texts_embinv import decode_rows, text_ids, text_lengths, written_texts

END = 3
WORDS = ["yes", "no", ",", "[SEP]", "[PAD]"]


@pytest.fixture(scope="module")
def tokenizer():
    """Words with a space before each, whose class would like to clean "yes , no" up."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[PAD]"))
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, sep_token="[SEP]", pad_token="[PAD]", clean_up_tokenization_spaces=True
    )


IDS = torch.tensor([[0, 2, 1, END, 4], [0, 1, 0, 1, 0], [END, 0, END, 0, 0]])


def test_a_text_ends_before_its_first_end():
    """Catches padding or what was written behind the end within a text, and a full row that loses its last token."""
    assert text_lengths(IDS, END).tolist() == [3, 5, 0]
    assert text_ids(IDS, END) == [[0, 2, 1], [0, 1, 0, 1, 0], []]


def test_spaces_stay_as_they_are(tokenizer):
    """The library's clean-up made "yes, no" of "yes , no": the encoder was given another text than was written."""
    assert decode_rows(tokenizer, IDS, END) == ["yes , no", "yes no yes no yes", ""]


def test_no_rows_are_no_texts(tokenizer):
    """`batch_decode` of an empty list gives one empty text, which an encoder would be asked for."""
    assert decode_rows(tokenizer, IDS[:0], END) == []
    assert written_texts(tokenizer, IDS[:0], torch.zeros(0, 5), END) == []


def test_confidence_is_of_the_texts_own_tokens(tokenizer):
    """Catches the zeros behind the end counted in the mean, and a division by zero for an empty text."""
    confidence = torch.tensor([[0.5, 1.0, 0.75, 0.0, 0.0]]).expand(3, -1)
    first, _, empty = written_texts(tokenizer, IDS, confidence, END)
    assert first.tokens == ["yes", ",", "no"] and first.token_confidence == [0.5, 1.0, 0.75]
    assert first.confidence == 0.75 and empty.confidence == 0
