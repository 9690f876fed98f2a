"""Marks in texts: what is found, what it may hide, and that what is known keeps its tokens."""

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import normalizers

from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.gap_kinds_embinv import UNLIKE, log_prior
from modeling_embinv.gap_marks_embinv import GapReader
from modeling_embinv.gap_states_embinv import Gap, RedactedText
from tests.shipped.word_tokenizer import (
    BYTE_TOKENIZER,
    PIECE_TOKENIZER,
    SPECIAL,
    TOKENIZER,
    WORDS,
    ids_of,
    word_tokenizer,
)
from tests.tiny_models import MASK


def lowercase_tokenizer():
    """Like that of the released checkpoint, for which Anna is anna."""
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


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
        ("dear [FIRST NAME] : [PHONE NUMBER]", ["[FIRST NAME]", "[PHONE NUMBER]"], ["name", "number"]),
        ("dear <PERSON_1> : [PHONE 12]", ["<PERSON_1>", "[PHONE 12]"], ["name", "number"]),
    ],
)
def test_marks_are_found_with_their_kinds(text, marks, kinds):
    """A mark that is not seen is taken for a part of the text, and its vector fits nothing."""
    redacted = reader().read(text, 0)
    assert [gap.mark for gap in redacted.gaps] == marks and [gap.kind for gap in redacted.gaps] == kinds
    assert len(redacted.pieces) == len(redacted.texts) == len(marks) + 1
    known = TOKENIZER("".join(redacted.texts), add_special_tokens=False)["input_ids"]
    assert [token for piece in redacted.pieces for token in piece] == known


def test_numbered_marks_have_the_list_of_their_tag():
    """The list for PERSON was ignored for <PERSON_1>, as anonymisers write it, with a warning that no mark has it."""
    lists = {"PERSON": ["anna", "li"], "PERSON_2": ["li"]}
    gaps = reader(choices=lists).read("dear <PERSON_1> , you owe <PERSON_2> .", 0).gaps
    assert [list(gap.choices.values()) for gap in gaps] == [["anna", "li"], ["li"]]  # its own list wins
    assert set(reader(choices=lists).choices_for(["dear <PERSON_1> ."])) == {"PERSON"}


@pytest.mark.parametrize(
    "marks, text, found",
    [
        (["XX", "XXXX"], "dear XXXX, you owe XX", ["XXXX", "XX"]),
        (["brackets", "[NAME]4"], "dear [NAME]4, you [NAME] owe", ["[NAME]4", "[NAME]"]),
        (["_", "lines"], "dear ____, you owe _", ["____", "_"]),
    ],
)
def test_the_longest_mark_is_taken(marks, text, found):
    """The first mark given that fits took two gaps for one: two words were made up, and called likely."""
    for order in (marks, marks[::-1]):
        redacted = reader(marks=order).read(text, 0)
        assert [gap.mark for gap in redacted.gaps] == found
        assert len(reader(marks=order, choices={"NAME": ["anna"]}).choices_for([text])) == ("[NAME]" in found)


def test_the_first_spelling_of_a_word_is_shown():
    """A list with Anna, anna and ANNA, which are the same tokens, filled ANNA in."""
    same = GapReader(lowercase_tokenizer(), MASK, choices={"NAME": ["Anna", "anna", "ANNA", "Li"]})
    (gap,) = same.read("dear <NAME> you", 0).gaps
    assert list((gap.choices or {}).values()) == ["Anna", "Li"]


def test_words_of_a_list_that_are_the_same_to_the_tokenizer_are_named(recwarn):
    """Of two emojis, both unknown to the tokenizer, one was filled in and called verified, whichever it was."""
    reader(choices={"NAME": ["anna", "😀"], "PLACE": ["Zürich", "zürich"]})
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"choices for MOOD: 😀, 🎉: .* cannot tell them apart"):
        reader(choices={"MOOD": ["😀", "anna", "🎉"]})


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
        ({}, " \r\n", "text 7 is empty: it has no gap"),
        ({}, "dear anna", "text 7 has no gap: nothing in it is hidden by the marks bars, brackets"),
        ({}, "▇▇▇ ***", "text 7 is nothing but gaps; generate, and the command `embinv invert`, recover it"),
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
        ({"choices": {"": [1, 2]}}, "you ***", "the choices of a mark must be a list of words, got"),
        ({"choices": {"": 5}}, "you ***", "the choices of a mark must be a list of words, got 5"),
        ({"choices": ["a"]}, "you ***", "choices must be lists by the word in the mark"),
        ({"choices": {1: ["a"]}}, "you ***", "choices must be lists by the word in the mark"),
        ({"marks": 5}, "dear ***", "marks must be a list"),
        ({"vocab_size": 60}, [5, MASK, 999], "text 7 must be token ids below this model's vocabulary of 60, got 999"),
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
        ("money", ["350", "4", "€", ",", ".", "dollars"]),
    ],
)
def test_a_kind_favours_its_tokens(kind, words):
    """A date that may as well be any word is no narrower than a free gap; a price is written with its currency.

    Other words must stay possible: <DATE_TIME> hides "the other day", which no list of tokens has.
    """
    forbidden = torch.zeros(len(SPECIAL + WORDS), dtype=torch.bool)
    forbidden[: len(SPECIAL)] = True
    prior = log_prior(TOKENIZER, kind, forbidden)
    assert {(SPECIAL + WORDS)[index] for index in (prior == 0).nonzero().flatten()} == set(words)
    assert set(prior.tolist()) == {0.0, UNLIKE, -torch.inf} and (prior.isinf() == forbidden).all()
    assert torch.equal(
        log_prior(TOKENIZER, "free", forbidden), torch.zeros(len(prior)).masked_fill(forbidden, -torch.inf)
    )


@pytest.mark.parametrize(
    "kind, words",
    [
        ("number", ["three", "twenty", "million", "half"]),
        ("date", ["yesterday", "Monday", "years", "ago", "three", "evening", "19th"]),
        ("money", ["thousand", "dollars", "$"]),
    ],
)
def test_words_are_numbers_dates_and_sums_too(kind, words):
    """Only digits and months counted: of the numbers that Presidio tags in everyday texts most are words."""
    tokenizer = word_tokenizer([*words, "table"])
    prior = log_prior(tokenizer, kind, torch.zeros(len(tokenizer), dtype=torch.bool))
    assert prior[tokenizer.convert_tokens_to_ids(words)].tolist() == [0.0] * len(words)
    assert prior[tokenizer.convert_tokens_to_ids("table")] == UNLIKE


@pytest.mark.parametrize("key", ["FIRST_NAME", "FIRST NAME", "First name", "first_name"])
def test_a_list_is_found_by_the_words_of_its_mark(key):
    """Choices for "FIRST NAME" or "Name" were ignored without a word, and any word filled the gap."""
    (gap,) = reader(choices={key: ["anna"]}).read("dear [FIRST NAME] , you", 0).gaps
    assert gap.tag == "FIRST_NAME" and list(gap.choices.values()) == ["anna"]


def test_a_word_that_goes_on_is_spelled_without_its_mark():
    """Behind a currency sign an amount has tokens of its own: its text was "€##350", and it was never tried."""
    pieces = GapReader(PIECE_TOKENIZER, MASK)
    text = pieces.read("you owe us €▇▇▇ .", 0)
    amount, alone = ids_of(PIECE_TOKENIZER, "##35", "##0"), ids_of(PIECE_TOKENIZER, "350")
    assert text.text(PIECE_TOKENIZER, (amount,)) == "you owe us €350 ."
    assert pieces.are_canonical([(text, (amount,)), (text, (alone,))]) == [True, False]


@pytest.mark.parametrize(
    "tokenizer, text, words, expected",
    [
        (PIECE_TOKENIZER, "you owe us €<X> .", ["35", "350"], [["##35"], ["##35", "##0"]]),
        (PIECE_TOKENIZER, "you owe us <X> .", ["4", "350"], [["4"], ["350"]]),
        (BYTE_TOKENIZER, "dear <X>, you owe us", ["anna", "li"], [["Ġanna"], ["Ġli"]]),
        (BYTE_TOKENIZER, "<X> you owe us", ["anna", "li"], [["anna"], ["l", "i"]]),
        (BYTE_TOKENIZER, "dear <X>  *** you", ["anna li"], [["Ġanna", "Ġli"]]),
    ],
)
def test_words_of_a_list_have_the_tokens_of_their_place(tokenizer, text, words, expected):
    """Tokenized alone, a name has other tokens than behind a space: no entry but the first and the last was tried."""
    placed = GapReader(tokenizer, tokenizer.mask_token_id, choices={"X": words})
    redacted = placed.read(text, 0)
    spelled = [tokenizer.convert_ids_to_tokens(list(filling)) for filling in redacted.gaps[0].choices]
    assert spelled == expected and not redacted.gaps[0].is_apart
    fillings = [(filling, *((),) * (len(redacted.gaps) - 1)) for filling in redacted.gaps[0].choices]
    assert all(placed.are_canonical([(redacted, one) for one in fillings]))


def test_letters_before_a_mark_are_tokenized_again():
    """As "unable" is one token, "un" is none: it stayed one, and no word behind it could be the right one.

    A word that goes on where "un" stays must have that form alone, or its probability is shared by two.
    """
    pieces = GapReader(PIECE_TOKENIZER, MASK)
    text = pieces.read("you un▇▇▇ , us", 0)
    able, goes_on, li, li_goes_on = (ids_of(PIECE_TOKENIZER, one) for one in ("able", "##able", "li", "##li"))
    tried = [(able,), (goes_on,), (li,), (li_goes_on,)]
    assert pieces.are_canonical([(text, one) for one in tried]) == [True, False, False, True]
    unable = PIECE_TOKENIZER("you unable , us", add_special_tokens=False)["input_ids"]
    assert text.judged_ids(PIECE_TOKENIZER, (able,)) == unable


def test_words_behind_a_space_are_tried_with_byte_tokens():
    """[MASK] left the space before it as a token of its own, and then no word had the tokenizer's own tokens."""
    bytes_ = GapReader(BYTE_TOKENIZER, BYTE_TOKENIZER.mask_token_id)
    text = bytes_.read("dear ▇▇▇, you owe ███", 0)
    (anna,), (us,) = ids_of(BYTE_TOKENIZER, "Ġanna"), ids_of(BYTE_TOKENIZER, "Ġus")
    whole = BYTE_TOKENIZER("dear anna, you owe us", add_special_tokens=False)["input_ids"]
    assert text.ids(((anna,), (us,))) == whole
    assert text.text(BYTE_TOKENIZER, ((anna,), (us,))) == "dear anna, you owe us"
    without_space = ids_of(BYTE_TOKENIZER, "anna")
    tried = [((anna,), (us,)), ((anna,), ()), ((), (us,)), (without_space, (us,))]
    assert bytes_.are_canonical([(text, one) for one in tried]) == [True, True, True, False]


def test_letters_behind_a_mark_are_tokenized_again():
    """4 in the place of ▇▇▇th made "4" and "th" of what the tokenizer writes as one token, so no word was tried."""
    pieces = GapReader(PIECE_TOKENIZER, MASK)
    text = pieces.read("the ▇▇▇th of ███, you", 0)
    (four,), (may,), (goes_on,) = (ids_of(PIECE_TOKENIZER, one) for one in ("4", "may", "##0"))
    assert [gap.is_apart for gap in text.gaps] == [True, False]
    tried = [((four,), (may,)), ((four,), ()), ((goes_on,), (may,)), ((four,), (goes_on,))]
    assert pieces.are_canonical([(text, one) for one in tried]) == [True, True, False, False]
    assert text.text(PIECE_TOKENIZER, tried[0]) == "the 4th of may, you"
    whole = PIECE_TOKENIZER("the 4th of may, you", add_special_tokens=False)["input_ids"]
    assert text.judged_ids(PIECE_TOKENIZER, tried[0]) == whole
    (gap,) = GapReader(BYTE_TOKENIZER, BYTE_TOKENIZER.mask_token_id).read("dear ▇▇▇th", 0).gaps
    assert not gap.is_apart  # byte tokens of what follows stay


def test_words_of_a_list_are_tried_whatever_they_change():
    """An entry that makes another word of the letters around was left out, though the list says it may stand there."""
    pieces = GapReader(PIECE_TOKENIZER, MASK, choices={"": ["able", "li"]})
    text = pieces.read("you un▇▇▇ , us", 0)
    (gap,) = text.gaps
    assert gap.is_apart and sorted(gap.choices.values()) == ["able", "li"]
    able = next(filling for filling, word in gap.choices.items() if word == "able")
    assert pieces.are_canonical([(text, (able,))]) == [True]
    unable = PIECE_TOKENIZER("you unable , us", add_special_tokens=False)["input_ids"]
    assert text.judged_ids(PIECE_TOKENIZER, (able,)) == unable


def test_a_column_of_a_table_is_a_list():
    """A Series of names ended in "the truth value is ambiguous"."""
    for words in (np.array(["anna", "li"]), pd.Series(["anna", "li"])):
        assert set(GapReader(TOKENIZER, MASK, choices={"NAME": words}).entries["NAME"]) == {"anna", "li"}


def test_spaces_around_a_word_of_a_list_are_not_filled_in():
    """A word of a file of names that ends in a space left two of them in the text."""
    (gap,) = reader(choices={"NAME": [" anna "]}).read("dear [NAME] , you", 0).gaps
    assert list(gap.choices.values()) == ["anna"]
