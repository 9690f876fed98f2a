"""Marks of hidden words: where texts have gaps, and the tokens that may stand there."""

import calendar
import re
import unicodedata
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import torch
from torch import Tensor

from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .gap_states_embinv import Filling
from .gap_states_embinv import Fillings
from .gap_states_embinv import Gap
from .gap_states_embinv import RedactedText
from .settings_embinv import GAP_TOKENS

# what hides words in a text, by name: bars (▇▇▇), [REDACTED], ***, ___, <PERSON>
MARKS = {
    "bars": r"[\u2580-\u259f\u25a0]+",
    "brackets": r"\[[A-Z][A-Z0-9_ ]*\]",
    "stars": r"\*{3,}",
    "lines": r"_{3,}",
    "tags": r"<[A-Z][A-Z0-9_]*>",
}
# the tags of Presidio and spaCy, and everyday ones, by the kind of what they hide; other tags hide anything
KINDS = {
    "name": ("PERSON", "NAME", "FIRST_NAME", "LAST_NAME"),
    "place": ("LOCATION", "PLACE", "GPE", "LOC", "CITY", "COUNTRY"),
    "number": ("NUMBER", "CARDINAL", "PHONE_NUMBER", "PHONE", "CREDIT_CARD", "US_SSN", "ID"),
    "date": ("DATE", "DATE_TIME", "TIME"),
    "money": ("MONEY", "AMOUNT"),
    "e-mail": ("EMAIL_ADDRESS", "EMAIL"),
}
KIND_OF_TAG = {tag: kind for kind, tags in KINDS.items() for tag in tags}
CALENDAR = "|".join(filter(None, (*calendar.month_name, *calendar.month_abbr, *calendar.day_name, *calendar.day_abbr)))
# what the tokens of each kind look like, without the tokenizer's own marks
PATTERNS = {
    "name": r"[^\W\d_]+|['.-]",
    "place": r"[^\W\d_]+|['.-]",
    "number": r"[\d.,:+/-]*\d[\d.,:+/-]*|[.,:+/-]",
    "date": rf"\d+(st|nd|rd|th)?|st|nd|rd|th|[.,:/-]|{CALENDAR}",
    "money": r"[\d.,]*\d[\d.,]*|[.,]",
    "e-mail": r"[\w.+-]*@?[\w.+-]*",
}


@dataclass
class GapReader:
    """Makes `RedactedText` of texts and rows of ids.

    Attributes:
        tokenizer: the model's; None where all texts are given as token ids.
        mask: the id of [MASK], which stands for each hidden token in rows of ids.
        marks: names of `MARKS`, or marks as they stand in the text.
        choices: the only fillings of a gap by the tag of its mark, as texts; "" is the tag of bars, stars and lines.
        max_gap_tokens: tokens of a hidden phrase, at most.
        num_tokens: the number of tokens of every hidden phrase where it is known, else None.
    """

    tokenizer: Any
    mask: int
    marks: Sequence[str] = tuple(MARKS)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    max_gap_tokens: int = 6
    num_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.marks or isinstance(self.marks, str):
            raise EmbInvError(f"marks must be a list: of {', '.join(MARKS)}, or of marks as they stand in the text.")
        if not all(isinstance(mark, str) and mark.strip() for mark in self.marks):
            raise EmbInvError(f"a mark must be a text that is not empty, got {shown(list(self.marks))}.")
        if self.num_tokens is not None and not is_whole(self.num_tokens, 1, GAP_TOKENS):
            raise EmbInvError(
                f"num_tokens must be a whole number from 1 to {GAP_TOKENS}, or None, got {shown(self.num_tokens)}."
            )
        # a longer mark first: [MASK] itself is one of the brackets
        self.pattern = re.compile("|".join(MARKS.get(mark) or re.escape(mark) for mark in self.marks))
        self.lengths = (self.num_tokens,) if self.num_tokens else tuple(range(1, self.max_gap_tokens + 1))
        self.entries = {tag: self._entries(tag, words) for tag, words in self.choices.items()}

    def read(self, text: str | Sequence[int], row: int) -> RedactedText:
        """One text with its gaps.

        Raises:
            EmbInvError: for a text without a gap, one that is nothing but gaps, and a gap that is too long; the line
                names the `row`.
        """
        redacted = self._of_text(text, row) if isinstance(text, str) else self._of_ids(text, row)
        if not redacted.gaps:
            marks = f" by the marks {', '.join(self.marks)}" if isinstance(text, str) else " by [MASK]"
            raise EmbInvError(f"text {row} has no gap: nothing in it is hidden{marks}.")
        if not any(redacted.pieces):
            raise EmbInvError(f"text {row} is nothing but gaps; generate recovers a text of which nothing is known.")
        return redacted

    def are_canonical(self, texts: list[tuple[RedactedText, Fillings]]) -> list[bool]:
        """Of filled texts, whether their tokens are those that the tokenizer gives them.

        Token ids that were given are taken as they are; so are marks that stand for themselves.
        """
        if self.tokenizer is None:
            return [True] * len(texts)
        # a mark that the tokenizer does not know is not written so either
        asked = [i for i, (text, fillings) in enumerate(texts) if text.texts and not text.has_literal(fillings)]
        written = [texts[index][0].text(self.tokenizer, texts[index][1]) for index in asked]
        keep = [True] * len(texts)
        for index, ids in zip(asked, self._tokenize(written) if written else (), strict=True):
            text, fillings = texts[index]
            keep[index] = ids == text.ids(fillings)
        return keep

    def _of_text(self, text: str, row: int) -> RedactedText:
        if self.tokenizer is None:
            raise EmbInvError("texts need the model's tokenizer: give it as tokenizer.")
        marks = list(self.pattern.finditer(text))
        bounds = [0, *(edge for mark in marks for edge in mark.span()), len(text)]
        texts = tuple(text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True))
        # the tokenizer sees the whole text: at some gaps a word begins, at others it goes on
        ids = self._tokenize(self.tokenizer.mask_token.join(texts))
        pieces: list[list[int]] = [[]]
        for token in ids:
            pieces.append([]) if token == self.mask else pieces[-1].append(token)
        if len(pieces) != len(texts):
            mask = self.tokenizer.mask_token
            raise EmbInvError(f"text {row} holds {mask}, the tokenizer's own mark; add brackets to the marks.")
        gaps = tuple(self._gap(mark.group()) for mark in marks)
        return RedactedText(tuple(map(tuple, pieces)), texts, gaps)

    def _of_ids(self, given: Sequence[int], row: int) -> RedactedText:
        ids = given.tolist() if hasattr(given, "tolist") else given
        if not isinstance(ids, list | tuple) or not all(is_whole(token, 0) for token in ids):
            raise EmbInvError(f"text {row} must be a text or token ids, got {shown(given)}.")
        pieces: list[list[int]] = [[]]
        counts: list[int] = []
        previous = None
        for token in ids:
            if token != self.mask:
                pieces[-1].append(token)
            elif previous == self.mask:
                counts[-1] += 1
            else:
                pieces.append([])
                counts.append(1)
            previous = token
        longest = max(counts, default=0)
        if longest > self.max_gap_tokens:
            raise EmbInvError(
                f"a gap of text {row} has {longest} tokens, more than max_gap_tokens, {self.max_gap_tokens}."
            )
        return RedactedText(tuple(map(tuple, pieces)), (), tuple(Gap(lengths=(count,)) for count in counts))

    def _gap(self, mark: str) -> Gap:
        tag = re.sub(r"\W", "", mark).strip("_")
        choices = self.entries.get(tag)
        return Gap(mark, tag, KIND_OF_TAG.get(tag, "free"), self.lengths, choices, tuple(self._tokenize(mark)))

    def _entries(self, tag: str, words: Sequence[str]) -> dict[Filling, str]:
        """A list's entries by their token ids, each once and of any length."""
        if isinstance(words, str) or not words:
            raise EmbInvError(f"the choices of {tag or 'a mark'} must be a list of words, got {shown(words)}.")
        if self.tokenizer is None:
            raise EmbInvError("choices need the model's tokenizer: give it as tokenizer.")
        entries = zip(map(tuple, self._tokenize(list(words))), words, strict=True)
        known = {ids: word for ids, word in entries if ids}
        if not known:
            raise EmbInvError(f"the choices of {tag or 'a mark'} are all empty.")
        return known

    def _tokenize(self, text: Any) -> Any:
        """The ids of a text, or of each of several."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def allowed_tokens(tokenizer: Any, kind: str, forbidden: Tensor) -> Tensor:
    """(V,) bool: the tokens that may fill a gap of a kind; `forbidden` (V,) bool ones never do."""
    if kind == "free" or tokenizer is None:
        return ~forbidden
    pattern, allowed = re.compile(PATTERNS[kind], re.IGNORECASE), torch.zeros_like(forbidden)
    for token, index in tokenizer.get_vocab().items():
        bare = token.removeprefix("##").lstrip("▁Ġ")
        is_symbol = kind == "money" and len(bare) == 1 and unicodedata.category(bare) == "Sc"
        if index < len(allowed) and bare and (is_symbol or pattern.fullmatch(bare)):
            allowed[index] = True
    return allowed & ~forbidden
