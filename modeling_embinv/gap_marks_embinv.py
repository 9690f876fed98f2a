"""Marks of hidden words: where texts have gaps."""

import re
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from .errors_embinv import EmbInvError
from .errors_embinv import is_whole
from .errors_embinv import shown
from .errors_embinv import warn
from .gap_kinds_embinv import KIND_OF_TAG
from .gap_states_embinv import Filling
from .gap_states_embinv import Fillings
from .gap_states_embinv import Gap
from .gap_states_embinv import RedactedText
from .inputs_embinv import check_characters
from .settings_embinv import GAP_TOKENS

# what hides words in a text, by name: bars (▇▇▇), [REDACTED], ***, ___, <PERSON>
MARKS = {
    "bars": r"[\u2580-\u259f\u25a0]+",
    "brackets": r"\[[A-Z][A-Z0-9_ ]*\]",
    "stars": r"\*{3,}",
    "lines": r"_{3,}",
    "tags": r"<[A-Z][A-Z0-9_]*>",
}
# what stands beside a piece in trials whether words there change its tokens: a letter, and a digit
PROBES = ("x", "7")
# where words change the tokens around them, they are tried with the tokens that they have beside a space
SPACED = ("{}", " {}", "{} ", " {} ")


@dataclass
class GapReader:
    """Makes `RedactedText` of texts and rows of ids.

    Attributes:
        tokenizer: the model's; None where all texts are given as token ids.
        mask: the id of [MASK], which stands for each hidden token in rows of ids.
        marks: names of `MARKS`, or marks as they stand in the text.
        choices: the only fillings of a gap by the words in its mark, as `tag_of` has them, as texts; "" for bars,
            stars and lines.
        max_gap_tokens: tokens of a hidden phrase, at most.
        num_tokens: the number of tokens of every hidden phrase where it is known, else None.
        vocab_size: of the model, for rows of ids; None = not checked.
    """

    tokenizer: Any
    mask: int
    marks: Sequence[str] = tuple(MARKS)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    max_gap_tokens: int = 6
    num_tokens: int | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if not self.marks or isinstance(self.marks, str) or not isinstance(self.marks, Collection):
            raise EmbInvError(f"marks must be a list: of {', '.join(MARKS)}, or of marks as they stand in the text.")
        if not all(isinstance(mark, str) and mark.strip() for mark in self.marks):
            raise EmbInvError(f"a mark must be a text that is not empty, got {shown(list(self.marks))}.")
        if self.num_tokens is not None and not is_whole(self.num_tokens, 1, GAP_TOKENS):
            raise EmbInvError(
                f"num_tokens must be a whole number from 1 to {GAP_TOKENS}, or None, got {shown(self.num_tokens)}."
            )
        self.patterns = [re.compile(MARKS.get(mark) or re.escape(mark)) for mark in self.marks]
        self.lengths = (self.num_tokens,) if self.num_tokens else tuple(range(1, self.max_gap_tokens + 1))
        self.entries = self._entries()
        self.spelled: dict[tuple[tuple[str, ...], int, Filling], bool] = {}

    def read(self, text: str | Sequence[int], row: int) -> RedactedText:
        """One text with its gaps.

        Raises:
            EmbInvError: for a text without a gap, one that is nothing but gaps, and a gap that is too long; the line
                names the `row`.
        """
        if isinstance(text, str):
            check_characters(text, f"text {row}")
        redacted = self._of_text(text, row) if isinstance(text, str) else self._of_ids(text, row)
        if isinstance(text, str) and not text.strip():
            raise EmbInvError(f"text {row} is empty: it has no gap.")
        if not redacted.gaps:
            marks = f" by the marks {', '.join(self.marks)}" if isinstance(text, str) else " by [MASK]"
            raise EmbInvError(f"text {row} has no gap: nothing in it is hidden{marks}.")
        if not any(redacted.pieces):
            if isinstance(text, str):
                instead = "generate, and the command `embinv invert`, recover it from the vector alone"
            else:
                instead = "generate recovers it, without draft_ids"
            raise EmbInvError(f"text {row} is nothing but gaps; {instead}.")
        return redacted

    def without_letters(self, text: RedactedText) -> RedactedText | None:
        """The text without the letters that stand beside gaps inside words; None where these are between two gaps."""
        pieces = list(text.texts)
        for at, gap in enumerate(text.gaps):
            if gap.is_apart and gap.choices is None:
                pieces[at] = re.sub(r"\w+$", "", pieces[at])
                pieces[at + 1] = re.sub(r"^\w+", "", pieces[at + 1])
        marks = [gap.mark for gap in text.gaps]
        whole = "".join(part for pair in zip(pieces, [*marks, ""], strict=True) for part in pair)
        found = self._of_text(whole, 0)
        return found if [gap.mark for gap in found.gaps] == marks else None

    def choices_for(self, texts: Sequence[str | Sequence[int]]) -> dict[str, Sequence[str]]:
        """The choices that a mark of these texts has words for."""
        written = (text for text in texts if isinstance(text, str))
        tags = {self._known_tag(mark.group()) for text in written for mark in self._marks_in(text)}
        return {tag: words for tag, words in self.choices.items() if tag_of(tag) in tags}

    def _marks_in(self, text: str) -> list[re.Match[str]]:
        """The marks of a text from left to right; of those that begin at one place the longest: XXXX is not two XX."""
        found: list[re.Match[str]] = []
        start = 0
        while matches := [mark for one in self.patterns if (mark := one.search(text, start))]:
            found.append(min(matches, key=lambda mark: (mark.start(), -mark.end())))
            start = found[-1].end()
        return found

    def are_canonical(self, texts: list[tuple[RedactedText, Fillings]]) -> list[bool]:
        """Of filled texts, whether their tokens are those that the tokenizer gives them.

        Token ids that were given are taken as they are; so are entries of lists, and marks that stand for themselves.
        A gap whose filling is () is not looked at.
        """
        keep = [True] * len(texts)
        if self.tokenizer is None:
            return keep
        # a mark that the tokenizer does not know is not written so either
        seen = [text.unlisted(fillings) for text, fillings in texts]
        asked = [index for index, (text, _) in enumerate(texts) if text.texts and any(seen[index])]
        alone = [texts[index][0].without_apart(seen[index]) for index in asked]
        written = [self._written(texts[index][0], fillings) for index, fillings in zip(asked, alone, strict=True)]
        rows = self._tokenize(written) if written else []
        for index, fillings, ids in zip(asked, alone, rows, strict=True):
            text = texts[index][0]
            apart = [at for at, filling in enumerate(seen[index]) if filling and not fillings[at]]
            keep[index] = [token for token in ids if token != self.mask] == text.ids(fillings) and all(
                self._is_spelled(text, at, seen[index][at]) for at in apart
            )
        return keep

    def _is_spelled(self, text: RedactedText, at: int, filling: Filling) -> bool:
        """Whether words of a gap that is apart have their tokens: those in which the text around keeps its own."""
        key = text.texts, at, filling
        if key not in self.spelled:
            word = text.gaps[at].word(self.tokenizer, filling)
            self.spelled[key] = self.spelled_in_place(text, at, word) == filling
        return self.spelled[key]

    def spelled_in_place(self, text: RedactedText, at: int, word: str) -> Filling | None:
        """The tokens of words in a gap that is apart: those in which the text around keeps its own; None for none."""
        placed = self._in_place([spaced.format(word) for spaced in SPACED], _Place(text.texts, text.pieces, at))
        return next((ids for ids in placed if ids is not None), None)

    def _written(self, text: RedactedText, fillings: Fillings) -> str:
        """A text with its fillings, and [MASK] for ()."""
        parts = [text.texts[0]]
        for gap, filling, piece in zip(text.gaps, fillings, text.texts[1:], strict=True):
            if filling:
                parts += [gap.word(self.tokenizer, filling), piece]
            else:
                parts[-1:] = [parts[-1].removesuffix(" "), self.tokenizer.mask_token, piece]
        return "".join(parts)

    def _of_text(self, text: str, row: int) -> RedactedText:
        if self.tokenizer is None:
            raise EmbInvError("texts need the model's tokenizer: give it as tokenizer.")
        marks = self._marks_in(text)
        bounds = [0, *(edge for mark in marks for edge in mark.span()), len(text)]
        texts = tuple(text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True))
        # the tokenizer sees the whole text: at some gaps a word begins, at others it goes on
        ids = self._tokenize(self._hidden(texts))
        pieces: list[list[int]] = [[]]
        for token in ids:
            pieces.append([]) if token == self.mask else pieces[-1].append(token)
        if len(pieces) != len(texts):
            mask = self.tokenizer.mask_token
            raise EmbInvError(f"text {row} holds {mask}, the tokenizer's own mark; add brackets to the marks.")
        known = tuple(map(tuple, pieces))
        gaps = tuple(self._gap(mark.group(), _Place(texts, known, at)) for at, mark in enumerate(marks))
        return RedactedText(known, texts, gaps)

    def _of_ids(self, given: Sequence[int], row: int) -> RedactedText:
        ids = given.tolist() if hasattr(given, "tolist") else given
        if not isinstance(ids, list | tuple) or not all(is_whole(token, 0) for token in ids):
            raise EmbInvError(f"text {row} must be a text or token ids, got {shown(given)}.")
        if self.vocab_size is not None and max(ids, default=0) >= self.vocab_size:
            vocabulary = f"this model's vocabulary of {self.vocab_size}"
            raise EmbInvError(f"text {row} must be token ids below {vocabulary}, got {max(ids)}.")
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

    def _gap(self, mark: str, place: "_Place") -> Gap:
        tag = self._known_tag(mark)
        literal = self._in_place([mark], place)[0] or tuple(self._tokenize(mark))
        known = mark, tag, KIND_OF_TAG.get(tag, "free"), self.lengths
        if tag not in self.entries:
            literal = literal if self.num_tokens in (None, len(literal)) else ()
            return Gap(*known, literal=literal, is_apart=self._changes(place))
        alone = self.entries[tag]
        placed = self._in_place(list(alone), place)
        choices: dict[Filling, str] = {}
        for word, ids in zip(alone, placed, strict=True):
            choices.setdefault(ids or alone[word], word)  # of Anna and ANNA, which are the same tokens, the first
        return Gap(*known, choices, literal, is_apart=None in placed)

    def _known_tag(self, mark: str) -> str:
        """The words in a mark; without their number, as in <PERSON_1>, where no list is for them alone."""
        tag = tag_of(mark)
        return tag if tag in self.entries else unnumbered(tag)

    def _in_place(self, words: list[str], place: "_Place") -> list[Filling | None]:
        """The ids of words where they stand in the text; None where they change those around."""
        texts, at = place.texts, place.at
        before, after = self._hidden(texts[: at + 1]), self._hidden(texts[at + 1 :])
        head, tail = (self._hidden_ids(pieces) for pieces in (place.pieces[: at + 1], place.pieces[at + 1 :]))
        placed: list[Filling | None] = []
        for ids in self._tokenize([before + word + after for word in words]):
            stop = len(ids) - len(tail)
            fits = stop > len(head) and ids[: len(head)] == head and ids[stop:] == tail
            placed.append(tuple(ids[len(head) : stop]) if fits else None)
        return placed

    def _changes(self, place: "_Place") -> bool:
        """Whether words in the gap may change the tokens around, as those of £▇▇▇ and of the "th" of ▇▇▇th."""
        left, piece = place.texts[place.at], list(place.pieces[place.at + 1])
        if left and not left[-1].isspace():
            glued, spaced = self._tokenize([left + PROBES[0], f"{left} {PROBES[0]}"])
            if glued != spaced:
                return True
        right = self._hidden(place.texts[place.at + 1 : place.at + 3]).split(self.tokenizer.mask_token)[0]
        if not piece or not right or right[0].isspace():
            return False
        return all(ids[-len(piece) :] != piece for ids in self._tokenize([probe + right for probe in PROBES]))

    def _hidden(self, texts: Sequence[str]) -> str:
        """Pieces with [MASK] between them; a space before it is left out, as it may belong to the hidden token."""
        return self.tokenizer.mask_token.join([*(text.removesuffix(" ") for text in texts[:-1]), *texts[-1:]])

    def _hidden_ids(self, pieces: Sequence[Filling]) -> list[int]:
        """The ids of pieces with that of [MASK] between them."""
        ids = list(pieces[0])
        for piece in pieces[1:]:
            ids += [self.mask, *piece]
        return ids

    def _entries(self) -> dict[str, dict[str, Filling]]:
        """The entries of each list with their ids where nothing stands around them, by the list's tag."""
        if not isinstance(self.choices, Mapping) or not all(isinstance(tag, str) for tag in self.choices):
            raise EmbInvError(
                f'choices must be lists by the word in the mark, as {{"NAME": ["Anna"]}}, got {shown(self.choices)}.'
            )
        entries: dict[str, dict[str, Filling]] = {}
        for tag, words in self.choices.items():
            entries.setdefault(tag_of(tag), {}).update(self._alone(tag, words))
        return entries

    def _alone(self, tag: str, words: Sequence[str]) -> dict[str, Filling]:
        is_list = isinstance(words, Collection) and not isinstance(words, str)
        if not is_list or not len(words) or not all(isinstance(word, str) for word in words):
            raise EmbInvError(f"the choices of {tag or 'a mark'} must be a list of words, got {shown(words)}.")
        if self.tokenizer is None:
            raise EmbInvError("choices need the model's tokenizer: give it as tokenizer.")
        for word in words:
            check_characters(word, f"the choices of {tag or 'a mark'}")
        words = [word.strip() for word in words]
        ids = map(tuple, self._tokenize(words))
        alone = {word: one for word, one in zip(words, ids, strict=True) if one and word}
        if not alone:
            raise EmbInvError(f"the choices of {tag or 'a mark'} are all empty.")
        self._warn_of_unknown(tag, alone)
        return alone

    def _warn_of_unknown(self, tag: str, alone: Mapping[str, Filling]) -> None:
        """Warns of different words of a list that are the same tokens, as characters in them are not known."""
        unknown, words = self.tokenizer.unk_token_id, dict[Filling, dict[str, str]]()
        for word, ids in alone.items():
            if unknown in ids:
                words.setdefault(ids, {}).setdefault(word.casefold(), word)
        same = [word for spellings in words.values() if len(spellings) > 1 for word in spellings.values()]
        if same:
            named = ", ".join(same[:3]) + ", …" * (len(same) > 3)
            warn(
                f"choices for {tag or 'marks without a word'}: {named}: the tokenizer does not know "
                "such words, and cannot tell them apart."
            )

    def _tokenize(self, text: Any) -> Any:
        """The ids of a text, or of each of several."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@dataclass(frozen=True)
class _Place:
    """Where a gap stands: a text's pieces around all gaps, as texts and as token ids, and the gap's number."""

    texts: tuple[str, ...]
    pieces: tuple[Filling, ...]
    at: int


def tag_of(mark: str) -> str:
    """The words in a mark, as choices are looked up: FIRST_NAME of [First name]; empty for bars, stars and lines."""
    return "_".join(re.findall(r"[^\W_]+", mark)).upper()


def unnumbered(tag: str) -> str:
    """A tag without the number that anonymisers put behind it: PERSON of PERSON_1."""
    return re.sub(r"_\d+$", "", tag)
