"""Content words of a text, by kind, and which of them came back."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from modeling_embinv.data.content_words import COMMON

# letters and digits, also with marks between them: 4,500, o'neil, 2024-03-01, anna@example.org
WORD = re.compile(r"[^\W_]+(?:['’.,:/@&_-][^\W_]+)*")
NAMES, NUMBERS, OTHERS = "names and places", "numbers and dates", "other content words"
KINDS = (NAMES, NUMBERS, OTHERS)
LEAKED, CLOSE, LOST = "leaked", "close", "lost"
STEM = 5  # letters that two forms of one word share: treated, treatment
DATES = frozenset(
    """
    monday tuesday wednesday thursday friday saturday sunday january february march april june july august september
    october november december
    """.split()  # noqa: SIM905
)


class ContentWord(NamedTuple):
    """A content word from character `start` to `end` of its text, its kind, and whether it came back."""

    start: int
    end: int
    kind: str
    state: str


def content_words(text: str, recovered: str) -> list[ContentWord]:
    """The content words of a text: leaked where they stand in the recovered one, close where a form of them does."""
    whole = {match.group().lower() for match in WORD.finditer(recovered)}
    parts = set().union(*map(_parts, whole))
    found = []
    for start, end, kind in classify(text):
        word = text[start:end].lower()
        is_leaked = word in whole or _parts(word) <= parts  # the model writes 4,500 as "4, 500"
        found.append(ContentWord(start, end, kind, LEAKED if is_leaked else CLOSE if _near(word, parts) else LOST))
    return found


def classify(text: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each content word: a capital inside a sentence makes a name, a digit a number."""
    found, starts_sentence, last_end = [], True, 0
    matches = list(WORD.finditer(text))
    for index, match in enumerate(matches):
        word = match.group()
        starts_sentence = starts_sentence or any(mark in text[last_end : match.start()] for mark in ".!?\n")
        # "Maria Lopez left": two capitals in a row make a name at the start, too
        follower = matches[index + 1].group() if index + 1 < len(matches) else ""
        is_name = word[0].isupper() and (not starts_sentence or _is_name(follower))
        if any(letter.isdigit() for letter in word) or (word[0].isupper() and word.lower() in DATES):
            found.append((*match.span(), NUMBERS))
        elif word.lower() not in COMMON and len(word) > 1:
            found.append((*match.span(), NAMES if is_name else OTHERS))
        starts_sentence, last_end = False, match.end()
    return found


def counts(found: Sequence[ContentWord]) -> tuple[int, int]:
    """How many content words leaked, of how many."""
    return sum(word.state == LEAKED for word in found), len(found)


def by_kind(texts: Sequence[Sequence[ContentWord]]) -> dict[str, tuple[int, int]]:
    """`counts` of each kind that there is, over several texts."""
    words = [word for found in texts for word in found]
    total = Counter(word.kind for word in words)
    return {kind: counts([word for word in words if word.kind == kind]) for kind in KINDS if total[kind]}


def _is_name(word: str) -> bool:
    return word[:1].isupper() and word.lower() not in COMMON | DATES


def _parts(word: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", word.lower()))


def _near(word: str, parts: set[str]) -> bool:
    """Whether one of the words is another form of this one, or a part of this number."""
    mine = _parts(word)
    if any(letter.isdigit() for letter in word):
        return bool(mine & parts)
    return any(one[:STEM] == other[:STEM] for one in mine for other in parts if len(one) >= STEM)
