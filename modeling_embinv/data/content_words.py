"""Words that say something of a text: which of them came back, and how they are masked."""

import re
import unicodedata
from functools import cache

# runs of letters and digits: 4,500 is two, as the model writes it
WORD = re.compile(r"[^\W_]+")
# letters of the longest word that a mask leaves: among the longer stop words are "fire", "bill" and "five"
LONGEST_READABLE = 3
_MASK = "***"


@cache
def stop_words() -> frozenset[str]:
    """scikit-learn's English stop words, which every text has; they count for nothing."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # the import takes a second

    return frozenset(ENGLISH_STOP_WORDS)


def plain(text: str) -> str:
    """The text in lower case and in compatibility form."""
    return unicodedata.normalize("NFKC", text).casefold()


def words(text: str) -> list[str]:
    """The runs of letters and digits of a text, in its order, plain."""
    return WORD.findall(plain(text))


def is_content(word: str) -> bool:
    """Whether a plain word says something: no stop word, and no single letter."""
    return word not in stop_words() and (len(word) > 1 or not word.isascii() or word.isdigit())


def content_words(text: str) -> set[str]:
    """The plain content words of a text."""
    return set(filter(is_content, words(text)))


def count_recovered(original: str, recovered: str) -> tuple[int, int]:
    """How many distinct content words of the original stand in the recovered text, and how many there are."""
    wanted = content_words(original)
    return len(wanted & set(words(recovered))), len(wanted)


def masked(text: str) -> str:
    """The text with its words cut to their first letters, and its numbers to none: "my p*** is ***".

    Stop words of up to `LONGEST_READABLE` letters stay, and so do single letters.
    """
    return WORD.sub(lambda match: _mask(match.group()), text)


def _mask(word: str) -> str:
    if any(character.isdigit() for character in word):
        return _MASK
    if len(word) <= LONGEST_READABLE and not is_content(plain(word)):
        return word
    return word[0] * (len(word) > 1) + _MASK
