"""Words that say something of a text: which of them came back, and how they are masked."""

import re
import unicodedata

# runs of letters and digits: 4,500 is two, as the model writes it
WORD = re.compile(r"[^\W_]+")
# English words that every text has; they count for nothing
COMMON = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could d did do does doing down during each even every few for from further get go got had has have having
    he her here hers him his how i if in into is it its itself just let like ll m made make many may me might more
    most much must my no nor not now of off on once one only or other our out over own re s said same she should so
    some such t than that the their them then there these they this those through to too under until up us ve very
    was we well were what when where which while who whom why will with would yes you your
    """.split()  # noqa: SIM905  # words are easier to read without quotes around each
)
_MASK = "***"


def content_words(text: str) -> list[str]:
    """The content words of a text, in its order, in lower case and in compatibility form; each once."""
    found = (_plain(word) for word in WORD.findall(text))
    return list(dict.fromkeys(word for word in found if _is_content(word)))


def count_recovered(original: str, recovered: str) -> tuple[int, int]:
    """How many content words of the original stand in the recovered text, and how many there are."""
    words, found = content_words(original), set(map(_plain, WORD.findall(recovered)))
    return sum(word in found for word in words), len(words)


def masked(text: str) -> str:
    """The text with every content word cut to its first letter, and every number to none: "my p*** is ***"."""
    return WORD.sub(lambda match: _mask(match.group()), text)


def _mask(word: str) -> str:
    if len(word) == 1 or any(character.isdigit() for character in word):
        return _MASK if _is_content(_plain(word)) else word
    return word[0] + _MASK if _is_content(_plain(word)) else word


def _plain(word: str) -> str:
    return unicodedata.normalize("NFKC", word).casefold()


def _is_content(word: str) -> bool:
    return word not in COMMON and (len(word) > 1 or not word.isascii() or word.isdigit())
