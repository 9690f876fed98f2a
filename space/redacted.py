"""The gap attack behind the tab "Redacted": words of a sentence are hidden, and come back by its vector."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from inverter import Inverter
from streaming import Clock, streamed
from texts import check_plain, foreign_note, shorten
from torch import Tensor

from modeling_embinv.data.content_words import WORD as RUN
from modeling_embinv.data.content_words import plain
from modeling_embinv.errors_embinv import EmbInvError
from modeling_embinv.filled_embinv import FilledText
from modeling_embinv.gap_marks_embinv import MARKS

BAR = "▇▇▇"
# letters and digits, also with marks between them: 4,500, o'neil, 2024-03-01, anna@example.org
WORD = re.compile(r"[^\W_]+(?:['’.,:/@&_-][^\W_]+)*")
MAX_GAPS, MAX_GAP_TOKENS = 6, 6
# whose vectors the control takes; the second one serves a visitor who types something like the first
CONTROLS = ("The Nile flows through eleven countries in Africa.", "My neighbour repairs old bicycles.")
NEAR = 0.5  # cosine
ADVICE = "hide fewer words, or shorten the text"


@dataclass(frozen=True)
class Word:
    """A word of a sentence, from character `start` to `end`; its key is itself, with a number from its second time."""

    text: str
    key: str
    start: int
    end: int


def tidy(text: str) -> str:
    """The text on one line, single spaces between its words; a letter and its accent are one character."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words_of(text: str) -> list[Word]:
    """The words of a text that can be hidden."""
    seen: Counter[str] = Counter()
    words = []
    for match in WORD.finditer(text):
        word = match.group()
        seen[word] += 1
        words.append(Word(word, word if seen[word] == 1 else f"{word} ({seen[word]})", *match.span()))
    return words


def followed(old: str, new: str, keys: Sequence[str]) -> list[str]:
    """The keys that words of an old text have in a new one; a word that is gone has none."""
    before, after = words_of(old), words_of(new)
    matcher = SequenceMatcher(None, [word.text for word in before], [word.text for word in after], autojunk=False)
    spans = [(slice(at, at + size), slice(to, to + size)) for at, to, size in matcher.get_matching_blocks()]
    pairs = [pair for at, to in spans for pair in zip(before[at], after[to], strict=True)]
    return [word.key for same, word in pairs if same.key in keys]


@dataclass(frozen=True)
class Redacted:
    """A sentence with bars for what is hidden.

    Attributes:
        original, text: without and with the bars.
        hidden: what each bar hides; neighbouring hidden words have one bar.
    """

    original: str
    text: str
    hidden: tuple[str, ...]

    @property
    def pieces(self) -> list[str]:
        """What stands around the bars."""
        return self.text.split(BAR)


def redact(text: str, keys: Sequence[str]) -> Redacted:
    """The text with bars for the words of these keys; other keys say nothing."""
    spans: list[tuple[int, int]] = []
    for word in words_of(text):
        if word.key in keys:
            joins = spans and not text[spans[-1][1] : word.start].strip()
            spans[-1:] = [(spans[-1][0], word.end)] if joins else [*spans[-1:], (word.start, word.end)]
    shown, position = [], 0
    for start, end in spans:
        shown += [text[position:start], BAR]
        position = end
    return Redacted(text, "".join([*shown, text[position:]]), tuple(text[start:end] for start, end in spans))


@dataclass
class Attack:
    """The filling of a redacted sentence by one vector, as far as it has come.

    Attributes:
        filled: the best text so far; None before the first gap.
        cosines: of the best text with the vector, after each gap. seconds: since the search began.
        calls: what it cost, by name; empty until it has ended.
    """

    redacted: Redacted
    filled: FilledText | None = None
    cosines: list[float] = field(default_factory=list)
    seconds: float = 0.0
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether the search has ended."""
        return bool(self.calls)

    @property
    def came_back(self) -> tuple[int, int]:
        """How many of the hidden words stand in their own gap, of how many."""
        gaps = [""] * len(self.redacted.hidden) if self.filled is None else [gap.text for gap in self.filled.gaps]
        found = total = 0
        for hidden, text in zip(self.redacted.hidden, gaps, strict=True):
            rest = _parts(text)
            for word in words_of(hidden):
                total += 1
                if _parts(word.text) <= rest:
                    rest -= _parts(word.text)
                    found += 1
        return found, total

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        found, total = self.came_back
        known = {
            "redacted": self.redacted.text, "cosines": self.cosines, "seconds": round(self.seconds, 3),
            "hidden_words": total, "words_back": found, "is_done": self.is_done, **self.calls,
        }  # fmt: skip
        return known if self.filled is None else known | self.filled.as_dict()


def _parts(text: str) -> Counter[str]:
    """Runs of letters and of digits, as the model writes them: 4,500 is "4, 500", José is "jose"."""
    return Counter(RUN.findall(plain(text)))


@dataclass(frozen=True)
class Both:
    """The attack with the sentence's own vector, and the control: the same gaps with another sentence's."""

    own: Attack
    control: Attack
    control_sentence: str

    @property
    def is_done(self) -> bool:
        """Whether both have ended; the control comes last."""
        return self.control.is_done

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        control = self.control.as_json() | {"vector_of": self.control_sentence}
        return {"own": self.own.as_json(), "control": control}


def attack(inverter: Inverter, text: str, keys: Sequence[str], judge: str) -> Iterator[Both | None]:
    """Hide the words of these keys in a text, and fill the gaps by its vector, then by another sentence's.

    Args:
        judge: what embeds the fillings, "surrogate" or "encoder".

    Yields:
        The same `Both` after each step, None each second without one. Once the generator is closed, the model stops
        at its next forward pass.

    Raises:
        EmbInvError: where nothing is hidden, or everything, and for a text that is too long.
    """
    redacted, max_gap_tokens = checked(inverter, tidy(text), keys, judge)
    own, *controls = inverter.embed([redacted.original, *CONTROLS])
    other = next(index for index, vector in enumerate(controls) if float(vector @ own) < NEAR or index)
    both = Both(Attack(redacted), Attack(redacted), CONTROLS[other])
    yield both
    for one, vector in ((both.own, own), (both.control, controls[other])):
        for step in _filled(inverter, one, vector, judge, max_gap_tokens):
            yield both if step else None


def checked(inverter: Inverter, text: str, keys: Sequence[str], judge: str) -> tuple[Redacted, int]:
    """The redacted text, and how many tokens may be tried in a gap.

    Raises:
        EmbInvError: see `attack`.
    """
    words = words_of(text)
    if not words:
        raise EmbInvError("Type a sentence first.")
    if mark := re.search(f"{MARKS['bars']}|{re.escape(inverter.tokenizer.mask_token)}", text):
        raise EmbInvError(
            f"The text holds “{shorten(mark.group())}”, where something is hidden already: type the whole sentence, "
            "then click the words to hide."
        )
    check_plain(inverter, text)
    if set(keys) - {word.key for word in words}:
        raise EmbInvError("A hidden word is not in the sentence: choose among the sentence's own words.")
    redacted = redact(text, keys)
    if not redacted.hidden:
        raise EmbInvError("No word is hidden: click the words to hide.")
    if len(set(keys)) == len(words):
        raise EmbInvError("All words are hidden: leave one visible. The tab Recover needs none.")
    if len(redacted.hidden) > MAX_GAPS:
        raise EmbInvError(f"There are {len(redacted.hidden)} gaps; at most {MAX_GAPS} are filled at once here.")
    return redacted, _room(inverter, redacted, judge)


def notes_of_redacting(text: str) -> list[str]:
    """One line on each thing that a visitor should know of a text to redact."""
    marks = [mark.group() for kind, pattern in MARKS.items() if kind != "bars" for mark in re.finditer(pattern, text)]
    told = [f"“{shorten(mark)}” is embedded as it stands: type what it hides, then click that." for mark in marks[:1]]
    return [*told, *foreign_note(text)]


def _room(inverter: Inverter, redacted: Redacted, judge: str) -> int:
    """How many tokens may be tried in each gap: the surrogate judges texts up to its own length.

    Raises:
        EmbInvError: where the hidden words need more.
    """

    def tokens(text: str) -> list[int]:
        ids: list[int] = inverter.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        return ids

    hidden = [tokens(text) for text in redacted.hidden]
    if any(inverter.tokenizer.unk_token_id in ids for ids in hidden):
        raise EmbInvError("A hidden word has characters that the model does not know: hide another one.")
    longest = max(map(len, hidden))
    if longest > MAX_GAP_TOKENS:
        raise EmbInvError(
            f"One gap hides {longest} tokens; at most {MAX_GAP_TOKENS} are tried: leave a word of it visible."
        )
    size = len(tokens(redacted.original))
    known = size - sum(map(len, hidden))
    most = inverter.model.config.longest_judged
    room: int = min(MAX_GAP_TOKENS, (most - known) // len(hidden))
    if judge != "surrogate":
        return MAX_GAP_TOKENS
    if room < longest:
        raise EmbInvError(
            f"This text has {size} tokens; the surrogate judges {most} at most, and must be able to "
            "try longer words: shorten it, or choose the encoder."
        )
    return room


def _filled(inverter: Inverter, one: Attack, vector: Tensor, judge: str, max_gap_tokens: int) -> Iterator[bool]:
    """Fill the gaps of an attack, which grows; True after each step, False each second without one."""

    def work(put: Callable[[tuple[FilledText, float]], None]) -> tuple[Any, float]:
        clock = Clock()
        output = inverter.model.fill(
            vector[None],
            [one.redacted.text],
            tokenizer=inverter.tokenizer,
            feedback="surrogate" if judge == "surrogate" else inverter.embed,
            marks=(BAR,),
            on_step=lambda texts: put((texts[0], clock())),
            max_gap_tokens=max_gap_tokens,
        )
        return output, clock()

    for is_last, item in streamed(inverter.watch, work, ADVICE):
        if item is None:
            yield False
            continue
        result, one.seconds = item
        one.filled = result.texts[0] if is_last else result
        if is_last:
            one.calls = {
                "forward_passes": result.num_forward_passes, "surrogate_calls": result.num_surrogate_calls,
                "encoder_calls": result.num_feedback_calls,
            }  # fmt: skip
        if not is_last or not one.cosines or one.filled.cosine != one.cosines[-1]:
            one.cosines.append(one.filled.cosine)
        yield True
