"""Marks in texts: what is found, what it may hide, and that what is known keeps its tokens."""

import pytest
import torch

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.gap_marks_embinv import GapReader, allowed_tokens
from modeling_embinv.gap_states_embinv import Gap, RedactedText
from tests.shipped.word_tokenizer import SPECIAL, TOKENIZER, WORDS
from tests.tiny_models import MASK


def reader(**arguments) -> GapReader:
    return GapReader(TOKENIZER, MASK, **arguments)


@pytest.mark.parametrize(
    "text, marks, kinds",
    [
        ("dear ▇▇▇ , you owe us ███ .", ["▇▇▇", "███"], ["free", "free"]),
        ("dear <PERSON>, you owe us [REDACTED]", ["<PERSON>", "[REDACTED]"], ["name", "free"]),
        ("*** owe us <MONEY> on <DATE_TIME>", ["***", "<MONEY>", "<DATE_TIME>"], ["free", "money", "date"]),
        ("dear ____ : <EMAIL_ADDRESS>", ["____", "<EMAIL_ADDRESS>"], ["free", "e-mail"]),
        ("dear [MASK] on <LOCATION> 4", ["[MASK]", "<LOCATION>"], ["free", "place"]),
    ],
)
def test_marks_are_found_with_their_kinds(text, marks, kinds):
    """A mark that is not seen is taken for a part of the text, and its vector fits nothing."""
    redacted = reader().read(text, 0)
    assert [gap.mark for gap in redacted.gaps] == marks and [gap.kind for gap in redacted.gaps] == kinds
    assert len(redacted.pieces) == len(redacted.texts) == len(marks) + 1
    known = TOKENIZER("".join(redacted.texts), add_special_tokens=False)["input_ids"]
    assert [token for piece in redacted.pieces for token in piece] == known


def test_a_filled_text_keeps_what_was_known():
    """Case and spaces of the known words that change would change the vector of the text."""
    redacted = reader().read("Dear  ▇▇▇, you owe us [REDACTED]!", 0)
    anna, amount = (TOKENIZER.convert_tokens_to_ids(word) for word in ("anna", "350"))
    assert redacted.text(TOKENIZER, [(anna,), (amount,)]) == "Dear  anna, you owe us 350!"
    ids = redacted.ids([(anna,), (amount, amount)])
    assert redacted.starts([(anna,), (amount, amount)]) == [ids.index(anna), ids.index(amount)]


def test_a_mark_can_stand_for_itself():
    """Stars that are part of a text are no gap; who takes them for one is told so, with the mark in its place."""
    redacted = reader().read("dear *** you", 0)
    (gap,) = redacted.gaps
    assert gap.literal and redacted.has_literal([gap.literal])
    assert redacted.text(TOKENIZER, [gap.literal]) == "dear *** you"


def test_rows_of_ids_have_gaps_of_known_length():
    """Two [MASK] in a row are one gap of two tokens, not two gaps of any length."""
    redacted = reader().read([5, MASK, MASK, 6, MASK], 0)
    assert redacted == RedactedText(((5,), (6,), ()), (), (Gap(lengths=(2,)), Gap(lengths=(1,))))
    assert GapReader(None, MASK).read(torch.tensor([5, MASK]), 0).gaps == (Gap(lengths=(1,)),)


@pytest.mark.parametrize(
    "arguments, text, message",
    [
        ({}, "dear anna", "text 7 has no gap: nothing in it is hidden by the marks bars, brackets"),
        ({}, "▇▇▇ ***", "text 7 is nothing but gaps; generate recovers"),
        ({"marks": ["stars"]}, "dear [MASK] ***", r"text 7 holds \[MASK\], the tokenizer's own mark; add brackets"),
        ({"marks": []}, "dear ***", "marks must be a list: of bars, brackets, stars"),
        ({"marks": "stars"}, "dear ***", "marks must be a list"),
        ({"marks": ["stars", ""]}, "dear ***", "a mark must be a text that is not empty"),
        ({"marks": [" "]}, "dear ***", "a mark must be a text that is not empty"),
        ({"num_tokens": 0}, "dear ***", "num_tokens must be a whole number from 1 to 64, or None, got 0"),
        ({"num_tokens": 65}, "dear ***", "num_tokens must be a whole number from 1 to 64"),
        ({"num_tokens": 2.0}, "dear ***", "num_tokens must be a whole number from 1 to 64"),
        ({"max_gap_tokens": 2}, [5, MASK, MASK, MASK], "a gap of text 7 has 3 tokens, more than max_gap_tokens, 2"),
        ({}, [5, 6], r"text 7 has no gap: nothing in it is hidden by \[MASK\]"),
        ({}, [5, 0.5], "text 7 must be a text or token ids"),
        ({}, None, "text 7 must be a text or token ids, got None"),
        ({"choices": {"NAME": "anna"}}, "dear <NAME>", "the choices of NAME must be a list of words"),
        ({"choices": {"NAME": []}}, "dear <NAME>", "the choices of NAME must be a list of words"),
        ({"choices": {"": [" "]}}, "you ***", "the choices of a mark are all empty"),
    ],
)
def test_bad_texts_are_refused_in_one_line(arguments, text, message):
    """An IndexError deep in a search does not say which of a thousand texts was wrong."""
    with pytest.raises(EmbInvError, match=message) as raised:
        reader(**arguments).read(text, 7)
    assert "\n" not in str(raised.value)


def test_texts_need_a_tokenizer():
    """None has no mask_token: AttributeError."""
    with pytest.raises(EmbInvError, match="give it as tokenizer"):
        GapReader(None, MASK).read("dear ***", 0)


@pytest.mark.parametrize(
    "kind, words",
    [
        ("number", ["350", "4", ",", ".", ":"]),
        ("date", ["350", "4", "may", ",", ".", ":"]),
        ("money", ["350", "4", "€", ",", "."]),
    ],
)
def test_a_kind_narrows_the_tokens(kind, words):
    """A date that may be any word is no narrower than a free gap; a price without its currency cannot be right."""
    forbidden = torch.zeros(len(SPECIAL + WORDS), dtype=torch.bool)
    forbidden[: len(SPECIAL)] = True
    allowed = allowed_tokens(TOKENIZER, kind, forbidden)
    assert {(SPECIAL + WORDS)[index] for index in allowed.nonzero().flatten()} == set(words)
    assert torch.equal(allowed_tokens(TOKENIZER, "free", forbidden), ~forbidden)
    forbidden[allowed] = True
    assert not allowed_tokens(TOKENIZER, kind, forbidden).any()
