"""Gaps inside words, as in ▇▇▇th and un▇▇▇able: what they may hold, less the letters that stand beside them.

The denoiser writes words as it knows them: where "th" stands behind the gap, it writes "19th" into it. So the whole
word is searched for, and the letters that are known are taken off it. Where that does not find the text, the search
goes on with the letters, and takes them off what it has tried.
"""

import re
from collections.abc import Callable
from typing import Any

from .gap_states_embinv import EXACT
from .gap_states_embinv import MOVED
from .gap_states_embinv import Candidate
from .gap_states_embinv import Filling
from .gap_states_embinv import Fillings
from .gap_states_embinv import Hypothesis
from .gap_states_embinv import RedactedText
from .gap_states_embinv import TextSearch
from .gap_states_embinv import spliced

# the best texts whose words are looked at
LOOKED_AT = 16


class InsideWords:
    """Candidates for the gaps inside words, see `GapSearch`.

    Args:
        reader: the `GapReader` of the texts.
        search_for: the search for a text's fillings, given the search for the text with letters beside its gaps.
    """

    def __init__(self, reader: Any, search_for: Callable[[RedactedText, TextSearch], TextSearch]) -> None:
        self.reader, self.search_for = reader, search_for
        # by the vector, which a search has in common with its rehearsal
        self.whole: dict[int, TextSearch | None] = {}

    def may_climb(self, search: TextSearch) -> bool:
        """Whether a gap stands inside a word, and the text is not found."""
        return bool(_gaps(search)) and search.best.cosine < EXACT and not search.is_found

    def of_whole_words(self, search: TextSearch) -> list[Candidate]:
        """Untried texts of a search for the text without these letters, where its words have them.

        What the denoiser has guessed for them so far, with the letters twice, is forgotten.
        """
        key = id(search.target)
        if key not in self.whole:
            text = self.reader.without_letters(search.text)
            self.whole[key] = None if text is None else self.search_for(text, search)
        if (whole := self.whole[key]) is None:
            return []
        found = []
        for one in whole.ranked:
            fillings = self._inside(search, whole, one)
            if fillings is not None and search.is_new(fillings):
                found.append(Candidate(fillings, one.log_p, MOVED + whole.behind(one), search.best))
        # what the tokenizer would not write is not judged; with that alone nothing would be left
        can_be = self.reader.are_canonical([(search.text, one.fillings) for one in found])
        found = [one for one, keep in zip(found, can_be, strict=True) if keep]
        if found:
            for fillings in [*search.tried]:
                if any(self._shorter(search, at, fillings[at]) for at in _gaps(search)):
                    del search.tried[fillings]
        return found

    def of_tried(self, search: TextSearch) -> list[Candidate]:
        """Untried texts in which the known letters stand once: the best ones that were tried, with fewer letters.

        A text whose version with fewer letters was tried, and is better, is forgotten.
        """
        found = []
        for parent in search.ranked[:LOOKED_AT]:
            for at in _gaps(search):
                for filling in self._shorter(search, at, parent.fillings[at]):
                    fillings = spliced(parent.fillings, at, at + 1, filling)
                    if search.is_new(fillings):
                        found.append(Candidate(fillings, parent.log_p, MOVED + search.behind(parent), parent))
                    elif fillings in search.tried and search.tried[fillings].score > parent.score:
                        search.tried.pop(parent.fillings, None)
        return found

    def _shorter(self, search: TextSearch, at: int, filling: Filling) -> list[Filling]:
        """The words of a gap without the known letters beside it."""
        word = search.text.gaps[at].word(self.reader.tokenizer, filling)
        shorter = (self._filling(search, at, one) for one in shortened_words(word, *search.text.texts[at : at + 2]))
        return [one for one in shorter if one is not None]

    def _inside(self, search: TextSearch, whole: TextSearch, one: Hypothesis) -> Fillings | None:
        """The fillings of whole words without the letters beside them; None where a word has others."""
        fillings = one.fillings
        for at in _gaps(search):
            word = whole.text.gaps[at].word(self.reader.tokenizer, fillings[at])
            head, tail = letters_beside(*search.text.texts[at : at + 2])
            inside = word[len(head) : len(word) - len(tail)]
            if (head + inside + tail).lower() != word.lower() or inside != inside.strip() or not inside:
                return None
            filling = self._filling(search, at, inside)
            if filling is None:
                return None
            fillings = spliced(fillings, at, at + 1, filling)
        return fillings

    def _filling(self, search: TextSearch, at: int, word: str) -> Filling | None:
        """The tokens of words in a gap, if it may have them."""
        filling: Filling | None = self.reader.spelled_in_place(search.text, at, word)
        return filling if filling is not None and search.may_hold(at, filling) else None


def letters_beside(before: str, after: str) -> tuple[str, str]:
    """The letters and digits that end the text before a gap, and those that begin the text after it; lower case."""
    head, tail = re.search(r"\w*$", before), re.match(r"\w*", after)
    return (head[0] if head else "").lower(), (tail[0] if tail else "").lower()


def shortened_words(words: str, before: str, after: str) -> list[str]:
    """The words of a gap without the letters before it, without those after it, or without both.

    What stands farther out than these letters goes, too: of "shed unrest" behind "un" "rest" is left.
    """
    head, tail = letters_beside(before, after)
    text = words.lower()
    starts = [at + len(head) for at in _places(text, head) if at == 0 or text[at - 1].isspace()] if head else []
    ends = [at for at in _places(text, tail) if text[at + len(tail) :][:1].strip() == ""] if tail else []
    spans = [(start, end) for start in (0, *starts) for end in (len(words), *ends)]
    shorter = (words[start:end] for start, end in spans if (start, end) != (0, len(words)))
    return [one for one in dict.fromkeys(shorter) if one == one.strip() != ""]


def _places(text: str, part: str) -> list[int]:
    """Where a part begins in a text."""
    return [match.start() for match in re.finditer(re.escape(part), text)]


def _gaps(search: TextSearch) -> list[int]:
    """The gaps inside words that may hold any."""
    pairs = enumerate(zip(search.text.gaps, search.text.texts, search.text.texts[1:], strict=False))
    return [
        at for at, (gap, *beside) in pairs if gap.is_apart and gap.choices is None and any(letters_beside(*beside))
    ]
