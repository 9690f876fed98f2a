"""The words of a text that say something about it, and whether they came back."""

import re
import unicodedata
from functools import cache

WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The runs of letters and digits of a text, in its order, in lower case and in compatibility form."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def content_words(text: str) -> set[str]:
    """The words of a text without scikit-learn's English stop words and without single letters."""
    return {word for word in words(text) if word not in _stop_words() and (len(word) > 1 or word.isdigit())}


def holds_phrase(text_words: list[str], phrase: list[str]) -> bool:
    """Whether the words of a phrase stand in a text side by side, in their order."""
    size = len(phrase)
    return any(text_words[start : start + size] == phrase for start in range(len(text_words) - size + 1))


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def stop_share(text: str) -> float | None:
    """The share of a text's words that are English stop words; None for fewer than five words."""
    own = words(text)
    return sum(word in _stop_words() for word in own) / len(own) if len(own) >= 5 else None
