"""The words of a text that say something about it, and whether they came back."""

from collections.abc import Iterable

from ..data.content_words import FRAGMENTS, WORD, content_words, is_stop_word, plain, word_spans, words

__all__ = [
    "FRAGMENTS", "WORD", "content_words", "english_share", "holds_phrase", "plain", "stop_share", "text_key",
    "without", "word_spans", "words",
]  # fmt: skip
# common words of English that are no words of its neighbours: "de", "con", "un", "a", "me", "no" and "on" are
_ENGLISH_ALONE = {
    "and", "are", "at", "be", "but", "by", "can", "could", "did", "do", "does", "for", "from", "had", "have",
    "he", "his", "how", "if", "into", "is", "it", "my", "not", "of", "our", "out", "she", "should", "some",
    "that", "the", "their", "them", "then", "there", "these", "they", "this", "to", "were", "what", "when",
    "which", "with", "would", "you", "your",
}  # fmt: skip


def holds_phrase(text_words: list[str], phrase: list[str]) -> bool:
    """Whether the words of a phrase stand in a text side by side, in their order."""
    size = len(phrase)
    return any(text_words[start : start + size] == phrase for start in range(len(text_words) - size + 1))


def text_key(text: str) -> str:
    """The same for texts that differ in capitals, accents and spaces alone, whose vectors tell of each other."""
    return " ".join(plain(text).split())


def without(texts: Iterable[str], others: Iterable[str]) -> list[str]:
    """The texts that are none of the others, by their `text_key`."""
    keys = set(map(text_key, others))
    return [text for text in texts if text_key(text) not in keys]


def english_share(text: str) -> float | None:
    """The share of a text's words that are common in English alone; None for fewer than five words.

    Of English texts it is 0.2 and more on average, of texts in nine other languages 0.
    """
    own = words(text)
    return sum(word in _ENGLISH_ALONE for word in own) / len(own) if len(own) >= 5 else None


def stop_share(text: str) -> float | None:
    """The share of a text's words that are English stop words; None for fewer than five words."""
    own = words(text)
    return sum(map(is_stop_word, own)) / len(own) if len(own) >= 5 else None
