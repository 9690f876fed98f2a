"""What guesses are compared with: decoys of their own form, and pieces of the store's texts of that form.

An address is nearer to texts with an address in them than any run of prose is, whoever it belongs to. So it is judged
by addresses that nobody has, a name by invented names, and a number by other numbers.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..data.word_lists import word_list
from ..errors_embinv import EmbInvError
from .public import public_sentences
from .words import words

# those that have decoys: "text" of each class of lengths, see `guesses.CLASSES`, and the others as one class each
FORMS = ("text", "e-mail", "names", "digits")
_MAIL = re.compile(r"[^\s@<>,;:]+@[\w-]+(?:\.[\w-]+)+")
_NAME = re.compile(r"[^\W\d_]['\w-]*\.?")
_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}")
# words of a name, or of a title of which there are no decoys, at most
_LONGEST = 4


class Forms:
    """Tells the forms of guesses, and makes others of the same form.

    Args:
        seed: of the decoys.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._faker: Any = None
        self._first: set[str] = set()
        self._last: set[str] = set()
        try:
            from faker import Faker

            self._first, self._last = (
                {name.casefold() for name in word_list(names)} for names in ("first-names", "last-names")
            )
        except (ImportError, EmbInvError):
            return  # without the extra there are no decoys of names and addresses
        self._faker = Faker("en_US")
        self._faker.seed_instance(seed)

    def of(self, guess: str) -> str:
        """One of `FORMS`, or "other" where no decoys are like the guess: a company, a code."""
        if _MAIL.fullmatch(guess.strip()):
            return "e-mail" if self._faker else "other"
        parts = guess.split()
        if _is_number(guess) or (len(parts) <= _LONGEST and any(map(_is_long_number, parts))):
            return "digits"
        if len(parts) > _LONGEST:
            return "text"
        if self._is_name(parts):
            return "names"
        is_running = any(part.strip(".,;:!?'\"()").isalpha() and part == part.lower() for part in parts)
        return "text" if is_running else "other"

    def variant(self, guess: str) -> str:
        """Another text of the form of a guess, which is no text."""
        return {"e-mail": self._address, "names": self._name, "digits": self._number}[self.of(guess)](guess.strip())

    def decoys(self, guesses: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
        """Up to `count` texts like guesses of one form and class of lengths, which are not about a store."""
        if self.of(guesses[0]) == "text":
            return _runs(public_sentences(), count, guesses, generator)[0]
        return [self.variant(guesses[index]) for index in generator.integers(len(guesses), size=count)]

    def pieces(
        self, guesses: Sequence[str], texts: Sequence[str], count: int, generator: np.random.Generator
    ) -> tuple[list[str], list[str]]:
        """What stands in texts in the form of guesses: a piece of each text, and the text it is of.

        Args:
            guesses: of one form.
            texts: the store's.
            count: pieces, at most.
            generator: chooses among texts, and among the pieces of each.
        """
        if self.of(guesses[0]) == "text":
            return _runs(texts, count, guesses, generator)
        find = self._finder(guesses)
        found: list[str] = []
        origins: list[str] = []
        for index in generator.permutation(len(texts)):
            if len(found) < count and (own := find(texts[index])):
                found.append(own[int(generator.integers(len(own)))])
                origins.append(texts[index])
        return found, origins

    def _finder(self, guesses: Sequence[str]) -> Callable[[str], list[str]]:
        form = self.of(guesses[0])
        if form == "e-mail":
            return _MAIL.findall
        if form == "names":
            is_single = all(len(guess.split()) == 1 for guess in guesses)
            return lambda text: self._names_in(text, is_single)
        shapes = {re.sub(r"\d", r"\\d", re.escape(guess.strip())) for guess in guesses}
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(shapes))})(?!\w)", re.IGNORECASE)
        return pattern.findall

    def _names_in(self, text: str, is_single: bool) -> list[str]:
        """Listed names with capitals: whole ones, of a first and a last name, or the first names alone."""
        pieces = list(_NAME.finditer(text))
        firsts = [piece.group() for piece in pieces if piece.group()[0].isupper() and self._is_first(piece.group())]
        if is_single:
            return firsts
        return [
            f"{first.group()} {last.group()}"
            for first, last in pairwise(pieces)
            if first.group()[0].isupper() and last.group()[0].isupper() and text[first.end() : last.start()] == " "
            and self._is_first(first.group()) and last.group().casefold() in self._last
        ]  # fmt: skip

    def _is_first(self, word: str) -> bool:
        return word.casefold() in self._first

    def _is_name(self, parts: Sequence[str]) -> bool:
        """Whether words are a person's name: listed ones, and initials; a single one with a capital."""
        if not parts or not all(_NAME.fullmatch(part) for part in parts):
            return False
        if len(parts) == 1:
            return parts[0][0].isupper() and parts[0].casefold() in self._first | self._last
        *before, last = (part.casefold() for part in parts)
        return last in self._last and before[0] in self._first and all(
            part in self._first | self._last or len(part.rstrip(".")) == 1 for part in before
        )  # fmt: skip

    def _name(self, guess: str) -> str:
        parts = guess.split()
        made = [self._faker.first_name() for _ in parts]
        if len(parts) > 1 or parts[0].casefold() not in self._first:
            made[-1] = self._faker.last_name()
        return " ".join(map(self._like, parts, made))

    def _like(self, part: str, name: str) -> str:
        """A name in the capitals of another, or as its initial."""
        if len(part.rstrip(".")) == 1:
            name = name[0] + part[1:]
        return name.upper() if part.isupper() and len(part) > 2 else name.lower() if part == part.lower() else name

    def _address(self, guess: str) -> str:
        """Another owner at the same domain: "anna.smith7" becomes two names and a digit."""
        local, _, domain = guess.rpartition("@")
        count = len(re.findall(r"[^\W\d_]+", local))
        names = iter(
            [re.sub(r"[\d_.]", "", self._faker.user_name())]
            if count == 1
            else [self._faker.first_name(), *(self._faker.last_name() for _ in range(count))]
        )

        def other(run: re.Match[str]) -> str:
            name = next(names).lower()
            return name[0] if len(run.group()) == 1 else name

        return self._number(re.sub(r"[^\W\d_]+", other, local)) + "@" + domain

    def _number(self, guess: str) -> str:
        """Other digits in their places; a date becomes another date."""
        other = self._part_of_date if _DATE.fullmatch(guess) else self._digits
        return re.sub(r"\d+", lambda run: other(run.group()), guess)

    def _digits(self, run: str) -> str:
        if re.fullmatch(r"(?:19|20)\d\d", run):
            return self._part_of_date(run)
        first = "0" if run[0] == "0" else str(self._generator.integers(1, 10))
        return first + "".join(map(str, self._generator.integers(0, 10, len(run) - 1)))

    def _part_of_date(self, run: str) -> str:
        """Another year, month or day."""
        first, last = (1930, 2030) if len(run) > 2 else (1, 13 if int(run) <= 12 else 32)
        return str(self._generator.integers(first, last)).zfill(len(run))


def _is_number(text: str) -> bool:
    """Whether at least half of the letters and digits are digits."""
    marks = [character for character in text if character.isalnum()]
    return bool(marks) and 2 * sum(map(str.isdigit, marks)) >= len(marks)


def _is_long_number(word: str) -> bool:
    """Whether a word is a number that tells a guess from others, as in "order 4711"; the 5 of "5 days" does not."""
    return _is_number(word) and sum(map(str.isdigit, word)) > 2


def sizes_of(guesses: Sequence[str]) -> np.ndarray:
    """(n,) words of each guess, at least one."""
    return np.array([max(len(words(guess)), 1) for guess in guesses])


def _runs(
    texts: Sequence[str], count: int, guesses: Sequence[str], generator: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Runs of words from as many texts, of the lengths that the guesses have, and the texts that they are from."""
    found, origins, sizes = [], [], sizes_of(guesses)
    for index in generator.permutation(len(texts))[:count]:
        size, whole = int(generator.choice(sizes)), texts[index].split()
        start = int(generator.integers(max(len(whole) - size, 0) + 1))
        if piece := " ".join(whole[start : start + size]):
            found.append(piece)
            origins.append(texts[index])
    return found, origins
