"""The content words of a text where they stand in it, and which of them came back."""

from typing import NamedTuple

from modeling_embinv.data.content_words import is_content, word_spans, words

LEAKED, CLOSE, LOST = "leaked", "close", "lost"
STEM = 5  # letters that two forms of one word share: treated, treatment
# what may follow them
ENDINGS = {
    "", "able", "al", "ance", "ant", "ation", "ations", "d", "e", "ed", "ence", "ent", "er", "ers", "es", "ful", "ied",
    "ies", "ing", "ings", "ion", "ions", "ist", "ists", "ity", "ive", "ly", "ment", "ments", "ness", "or", "ors", "s",
    "y",
}  # fmt: skip


class ContentWord(NamedTuple):
    """A content word from character `start` to `end` of its text, and whether it came back."""

    start: int
    end: int
    state: str


def content_words(text: str, recovered: str) -> list[ContentWord]:
    """The content words of a text: leaked where they stand in the recovered one, close where a form of them does."""
    there = set(words(recovered))
    found = []
    for word, start, end in word_spans(text):
        if is_content(word):
            state = LEAKED if word in there else CLOSE if _near(word, there) else LOST
            found.append(ContentWord(start, end, state))
    return found


def _near(word: str, there: set[str]) -> bool:
    """Whether another form of the word is there."""
    return any(_stems(word) & _stems(other) for other in there)


def _stems(word: str) -> set[str]:
    """What the word may be a form of."""
    return {word[:size] for size in range(STEM, len(word) + 1) if word[size:] in ENDINGS}
