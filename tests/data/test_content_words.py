"""Content words: what counts as recovered, and what a mask leaves."""

import pytest

from modeling_embinv.data.content_words import content_words, count_recovered, masked


@pytest.mark.parametrize(
    "text, words",
    [
        ("Server password: hunter2", ["server", "password", "hunter2"]),
        ("It is what it is.", []),
        ("She paid 4,500 to Maria; Maria's brother got 7.", ["paid", "4", "500", "maria", "brother", "7"]),
        ("The CAFÉ, the café", ["café"]),
        ("", []),
    ],
)
def test_content_words(text, words):
    """A word that is counted twice, a name that capitals hide, or a digit that is taken for a letter."""
    assert content_words(text) == words


def test_recovered_words_are_whole_words():
    """A "red" that was found within "reduced"; the order does not matter."""
    assert count_recovered("Server password: hunter2", "hunter2, server password") == (3, 3)
    assert count_recovered("A red kite", "kites reduced") == (0, 2)
    assert count_recovered("Is it?", "anything") == (0, 0)


def test_a_mask_leaves_the_first_letter_and_no_digit():
    """A mask that keeps the length of a password, a number's first digit, or a name in capitals."""
    assert masked("my password is hunter2, said Anna") == "my p*** is ***, said A***"
    assert masked("call 555-0199 or 24 5th st.") == "c*** ***-*** or *** *** s***."
    assert masked("it is what it is") == "it is what it is"
