"""Words that say something of a text: which of them came back, and how they are masked."""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

# accents of Latin, Greek and Cyrillic letters, as characters of their own
_ACCENTS = "\u0300-\u036f"
# runs of letters and digits: 4,500 is two, as the model writes it
WORD = re.compile(rf"(?:[^\W_][{_ACCENTS}]*)+")
# verbs as n't leaves them: don't, won't
_NEGATED = "ai|are|could|ca|did|does|do|had|has|have|is|might|must|need|sha|should|was|were|would|wo"
# the model writes spaces on both sides of an apostrophe
_APOSTROPHE = "(?:['’]| ['’] )"
# a negated verb is one word, and what ends another contraction is one: don't, we and 'll; all else are runs as above
_WORD = re.compile(
    rf"(?:{_NEGATED})n{_APOSTROPHE}t(?![^\W_])|(?<=[^\W_]){_APOSTROPHE}(?:s|d|m|ll|re|ve)(?![^\W_])|{WORD.pattern}",
    re.IGNORECASE,
)
# tokens of a vocabulary that are parts of contractions, and no words by themselves as "won" and "haven" are
FRAGMENTS = {f"{verb}n" for verb in _NEGATED.split("|")} - {"can", "haven", "won"} | {"ll", "re", "ve"}
# letters of the longest word that a mask leaves: among the longer stop words are "fire", "bill" and "five"
LONGEST_READABLE = 3
_MASK = "***"


@cache
def stop_words() -> frozenset[str]:
    """scikit-learn's English stop words, which every text has; they count for nothing."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # the import takes a second

    return frozenset(ENGLISH_STOP_WORDS)


def plain(text: str) -> str:
    """The text in lower case, in compatibility form and without accents, which an uncased encoder does not know."""
    bare = re.sub(f"[{_ACCENTS}]", "", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", bare).casefold()


def words(text: str) -> list[str]:
    """The words of a text in its order, plain: "Don't, it's 4,500" has don't, it, 's, 4 and 500."""
    return [word for word, _, _ in word_spans(plain(text))]


def word_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """The words of a text, plain, and the characters between which each stands."""
    for match in _WORD.finditer(text):
        yield plain(match.group()).replace(" ", "").replace("’", "'"), *match.span()


def is_stop_word(word: str) -> bool:
    """Whether a plain word is in every text: a stop word, a negated verb, or the end of a contraction."""
    return word in stop_words() or "'" in word


def is_content(word: str) -> bool:
    """Whether a plain word says something: no stop word, and no single letter."""
    return not is_stop_word(word) and (len(word) > 1 or not word.isascii() or word.isdigit())


def content_words(text: str) -> set[str]:
    """The plain content words of a text."""
    return set(filter(is_content, words(text)))


def count_recovered(original: str, recovered: str) -> tuple[int, int]:
    """How many distinct content words of the original stand in the recovered text, and how many there are."""
    wanted = content_words(original)
    return len(wanted & set(words(recovered))), len(wanted)


def masked(text: str) -> str:
    """The text with its words cut to their first letters, and its numbers to none: "my p*** is ***".

    Stop words of up to `LONGEST_READABLE` letters stay, and so do single letters and the ends of contractions.
    """
    return _WORD.sub(lambda match: _mask(match.group()), text)


def _mask(word: str) -> str:
    if not word[0].isalnum():
        return word
    if any(character.isdigit() for character in word):
        return _MASK
    if len(word) <= LONGEST_READABLE and not is_content(plain(word)):
        return word
    return word[0] * (len(word) > 1) + _MASK
