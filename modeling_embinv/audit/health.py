"""Illnesses and drugs in texts: by MeSH's lists, and by the everyday names that these leave out."""

import re
from collections.abc import Callable, Iterable, Iterator

from .words import WORD

# of MeSH's tree: diseases, without those of animals, and mental disorders; its feelings and habits are no health data
_ILLNESSES, _ANIMALS = ("C", "F03"), "C22"
# MeSH has them under longer names alone; of surnames the form with 's
_EVERYDAY = re.compile(
    r"\b(?:abortion|alcoholi[cs]m?|alzheimer['’]?s|anaemia|autis(?:m|tic)|bipolar|chemo(?:therapy)?|coronavirus|covid|"
    r"dementia|depression|diabet(?:es|ics?)|dialysis|flu|herpes|hiv|leukaemia|lupus|parkinson['’]?s|pregnan(?:t|cy)|"
    r"radiotherapy|suicid(?:e|al))\b",
    re.IGNORECASE,
)
# words of the lists that mostly mean something else: drugs called as towns, injuries as what a fire does
_HOMONYMS = {
    "armour", "bites", "burn", "burns", "caps", "combined", "diamonds", "drives", "drowning", "fargo",
    "fertilizers", "hana", "panic", "panics", "rash", "shock", "sid", "sits", "strain", "strains", "tartar",
}  # fmt: skip


def health_finder() -> Callable[[str], Iterator[tuple[str, int, int]]]:
    """What finds ("health", start, end) in a text.

    Raises:
        ImportError: the extra `audit` is not installed.
    """
    from drug_named_entity_recognition import find_drugs
    from medical_named_entity_recognition import find_diseases

    def find(text: str) -> Iterator[tuple[str, int, int]]:
        for everyday in _EVERYDAY.finditer(text):
            yield "health", *everyday.span()
        pieces = list(WORD.finditer(text))
        tokens = [piece.group() for piece in pieces]
        for finder in (find_diseases, find_drugs):
            for match, first, _ in finder(tokens, is_ignore_case=True):
                # one library counts the last token in, the other does not
                last = first + len(WORD.findall(match["matching_string"])) - 1
                if not 0 <= first <= last < len(pieces) or _is_homonym(tokens[first : last + 1]):
                    continue
                if finder is find_drugs or _is_illness(match["mesh_tree"]):
                    yield "health", pieces[first].start(), pieces[last].end()

    return find


def _is_homonym(tokens: list[str]) -> bool:
    """Whether a single word mostly means something else."""
    return len(tokens) == 1 and (tokens[0].lower() in _HOMONYMS or tokens[0] == "aids")


def _is_illness(places: Iterable[str]) -> bool:
    """Whether a disease stands among those of people in MeSH's tree, at any of its places."""
    return any(place.startswith(_ILLNESSES) and not place.startswith(_ANIMALS) for place in places)
