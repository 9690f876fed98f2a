"""The words of a text that say something about it, and whether they came back."""

from ..data.content_words import FRAGMENTS, WORD, content_words, is_stop_word, plain, words

__all__ = ["FRAGMENTS", "WORD", "content_words", "holds_phrase", "plain", "stop_share", "text_key", "words"]


def holds_phrase(text_words: list[str], phrase: list[str]) -> bool:
    """Whether the words of a phrase stand in a text side by side, in their order."""
    size = len(phrase)
    return any(text_words[start : start + size] == phrase for start in range(len(text_words) - size + 1))


def text_key(text: str) -> str:
    """The same for texts that differ in capitals, accents and spaces alone, whose vectors tell of each other."""
    return " ".join(plain(text).split())


def stop_share(text: str) -> float | None:
    """The share of a text's words that are English stop words; None for fewer than five words."""
    own = words(text)
    return sum(map(is_stop_word, own)) / len(own) if len(own) >= 5 else None
