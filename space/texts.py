"""A visitor's text as the model can write it, and one line for each thing that it cannot."""

import re
import unicodedata
from dataclasses import dataclass

from inverter import Inverter
from torch import Tensor

from modeling_embinv.errors_embinv import EmbInvError

# a few words that are frequent in one language and rare in English
FOREIGN = {
    "German": "der das und ist nicht ein eine mit für auf dem den wir ich sie wurde",
    "French": "le la les de des est et une dans pour que je nous vous pas",
    "Spanish": "el la los las de una es por con para que y del en está",
    "Italian": "il gli una di per con che non della sono",
    "Portuguese": "o os uma não com para que do da em",
    "Dutch": "het een en van niet voor met ik zijn",
}
ENGLISH = frozenset("the a an is was are of to in and for with on at my he she it we they i you her has".split())  # noqa: SIM905
FEW = 3  # unknown characters that are named
OTHER_SCRIPT = 0.3  # share of letters that are not Latin


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
        EmbInvError: for a text without a word that the model knows.
    """
    text = " ".join(text.split())
    if not text:
        raise EmbInvError("Type a sentence first.")
    kept, ids, was_cut = inverter.cut(text)
    if not set(ids) - {inverter.tokenizer.unk_token_id}:
        raise EmbInvError("The model knows none of these characters: it recovers English words.")
    cut = [f"Only the first {inverter.max_tokens} tokens are read: “{kept}”"] * was_cut
    return Reading(kept, ids, (*cut, *notes_of(inverter, kept)))


def notes_of(inverter: Inverter, text: str) -> list[str]:
    """One line on characters that the model does not know, and one on another language."""
    notes = []
    if unknown := inverter.unknown(text):
        named = ", ".join(unknown[:FEW]) + ", …" * (len(unknown) > FEW)
        notes.append(f"The model does not know {named}: that cannot come back.")
    if language := language_of(text):
        notes.append(f"This looks like {language}; the model recovers English only: expect little that makes sense.")
    return notes


def language_of(text: str) -> str | None:
    """The language of a text that looks like no English, else None; a guess by script and frequent words."""
    letters = [letter for letter in text if letter.isalpha()]
    foreign = [letter for letter in letters if "LATIN" not in unicodedata.name(letter, "")]
    if letters and len(foreign) > OTHER_SCRIPT * len(letters):
        return "another script"
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = {name: sum(word in frequent.split() for word in words) for name, frequent in FOREIGN.items()}
    likeliest = max(counts, key=lambda name: counts[name])
    enough = counts[likeliest] >= 2 and counts[likeliest] > sum(word in ENGLISH for word in words)
    return likeliest if enough else None


def vectors_of(inverter: Inverter, readings: list[Reading]) -> Tensor:
    """(N, D) of the texts."""
    return inverter.embed([reading.text for reading in readings])
