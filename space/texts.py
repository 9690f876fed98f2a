"""A visitor's text as the model can write it, and one line for each thing that it cannot."""

import unicodedata
from dataclasses import dataclass

from inverter import Inverter
from torch import Tensor

from modeling_embinv.audit.words import stop_share
from modeling_embinv.errors_embinv import EmbInvError

FEW = 3  # unknown parts that are named
LONGEST_PART = 30  # characters of each that are shown
OTHER_SCRIPT = 0.3  # share of letters that are not Latin
ENGLISH = 0.15  # of its words an English text has more that are stop words


@dataclass(frozen=True)
class Reading:
    """A text as it is embedded.

    Attributes:
        text: cut to what the model can write.
        ids: its token ids.
        notes: one line for each thing that a visitor should know: what was cut, unknown, or in another language.
    """

    text: str
    ids: list[int]
    notes: tuple[str, ...]


def read_text(inverter: Inverter, text: str) -> Reading:
    """A visitor's text, its white space made single spaces.

    Raises:
        EmbInvError: for a text without a word that the model knows, or with a special token.
    """
    text = " ".join(text.split())
    if not text:
        raise EmbInvError("Type a sentence first.")
    check_plain(inverter, text)
    kept, ids, was_cut = inverter.cut(text)
    if not set(ids) - {inverter.tokenizer.unk_token_id}:
        raise EmbInvError("The model knows none of these words: it recovers English.")
    cut = [f"Only the first {inverter.max_tokens} tokens are read: “{kept}”"] * was_cut
    return Reading(kept, ids, (*cut, *notes_of(inverter, kept)))


def check_plain(inverter: Inverter, text: str) -> None:
    """Raises EmbInvError for a text that names a special token: the encoder does not read it as a word."""
    if special := inverter.special(text):
        raise EmbInvError(f"The text holds {special[0]}, which the encoder takes for its own token: leave it out.")


def notes_of(inverter: Inverter, text: str) -> list[str]:
    """One line on characters that the model does not know, and one on another language."""
    notes = []
    if unknown := inverter.unknown(text):
        named = ", ".join(shorten(part) for part in unknown[:FEW]) + ", …" * (len(unknown) > FEW)
        notes.append(f"The model does not know {named}: that cannot come back.")
    return [*notes, *foreign_note(text)]


def foreign_note(text: str) -> list[str]:
    """One line on another language, or none."""
    told = "This does not look like English; the model recovers English only: expect little of it."
    return [told] * looks_foreign(text)


def shorten(part: str) -> str:
    """A part of a visitor's text, as a line can hold it."""
    return part if len(part) <= LONGEST_PART else f"{part[:LONGEST_PART]}…"


def looks_foreign(text: str) -> bool:
    """Whether a text looks like no English: by its script, and by how many of its words are English stop words."""
    letters = [letter for letter in text if letter.isalpha()]
    others = [letter for letter in letters if "LATIN" not in unicodedata.name(letter, "")]
    if len(others) > OTHER_SCRIPT * len(letters):
        return True
    share = stop_share(text)
    return share is not None and share < ENGLISH


def vectors_of(inverter: Inverter, readings: list[Reading]) -> Tensor:
    """(N, D) of the texts."""
    return inverter.embed([reading.text for reading in readings])
