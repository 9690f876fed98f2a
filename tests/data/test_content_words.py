"""Content words: what counts as recovered, and what a mask leaves."""

import unicodedata

import pytest

from modeling_embinv.data.content_words import content_words, count_recovered, masked, stop_words, word_spans, words


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Server password: hunter2", {"server", "password", "hunter2"}),
        ("It is what it is.", set()),
        ("She paid 4,500 to Maria; Maria's brother got 7.", {"paid", "4", "500", "maria", "brother", "got", "7"}),
        ("The CAFÉ, the café", {"cafe"}),
        ("我 and I", {"我"}),
        ("I don't think it's Maria's.", {"think", "maria"}),
        ("They’ve said we'll see; he isn't Don, nor O'Brien's.", {"said", "don", "brien"}),
        ("DIDN'T won't can't ain't won' t", {"won"}),
        ("", set()),
    ],
)
def test_content_words(text, expected):
    """A word that is counted twice, a name that capitals hide, or a digit that is taken for a letter.

    So were "don", "isn", "ll" and "ve", and the s of "Maria's", which every guess has.
    """
    assert content_words(text) == expected


def test_contractions_as_the_model_writes_them():
    """The tokenizer puts spaces around an apostrophe, so that a text which came back whole had other words."""
    text = "I don't think we'll see Maria's."
    assert words("i don ' t think we ' ll see maria ' s .") == words(text)
    assert words(text) == ["i", "don't", "think", "we", "'ll", "see", "maria", "'s"]
    assert count_recovered("Don isn't here", "don ' t go") == (0, 1)
    spans = [(word, text[start:end]) for word, start, end in word_spans(text)]
    assert ("don't", "don't") in spans and ("maria", "Maria") in spans and ("'ll", "'ll") in spans


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_do_not_hide_a_leak(form):
    """An uncased encoder's vocabulary has no accents: José, who came back as "jose", was counted as safe.

    With accents as characters of their own, a word ended at each of them.
    """
    text = unicodedata.normalize(form, "José García flew to Zürich.")
    assert count_recovered(text, "jose garcia flew to zurich.") == (4, 4)
    assert [text[start:end] for _, start, end in word_spans(text)] == text.removesuffix(".").split()
    assert masked(text) == "J*** G*** f*** to Z***."


def test_marks_that_are_letters_stay():
    """Without their marks, two words of Hindi or Japanese would be one, and one word would be cut up."""
    assert words("が か") == ["が", "か"]
    assert words("한국") == ["한국"]


def test_quotes_are_no_contractions():
    """A word in single quotes that is glued to its neighbours would be found nowhere."""
    assert words("the word 'list' and the dogs' dinner, d'accord") == [
        "the", "word", "list", "and", "the", "dogs", "dinner", "d", "accord",
    ]  # fmt: skip


def test_there_is_one_list_of_stop_words():
    """A word of the list by hand counted in the audit and not in the demo, and the other way round."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    from modeling_embinv.audit import words

    assert stop_words() == ENGLISH_STOP_WORDS and words.content_words is content_words


def test_recovered_words_are_whole_words():
    """A "red" that was found within "reduced"; the order does not matter."""
    assert count_recovered("Server password: hunter2", "hunter2, server password") == (3, 3)
    assert count_recovered("A red kite", "kites reduced") == (0, 2)
    assert count_recovered("Is it?", "anything") == (0, 0)


def test_a_mask_leaves_the_first_letter_and_no_digit():
    """A mask that keeps the length of a password, a number's first digit, or a name in capitals."""
    assert masked("my password is hunter2, said Anna") == "my p*** is ***, s*** A***"
    assert masked("call 555-0199 or 24 5th st.") == "c*** ***-*** or *** *** s***."
    assert masked("we'll see that he isn't Maria's") == "we'll see t*** he i*** M***'s"
    assert masked("我 is here, I see it") == "*** is h***, I see it"


def test_a_mask_hides_content_words_of_the_list():
    """The words "fire", "bill" and "five" are stop words of scikit-learn's, and say something all the same."""
    assert masked("Bill has five fire alarms") == "B*** has f*** f*** a***"
