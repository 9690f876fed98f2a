"""What leaks: which names, numbers and other content words of a text come back out of its vector."""

import re
from collections import Counter
from html import escape
from typing import Any

import torch
from torch import Tensor

WORD = re.compile(r"[^\W_]+(?:[.,:/]\d+)*")
KINDS = ("names and places", "numbers", "other content words")
# words that say nothing about a text; pronouns stay out of the count because every fluent text has them
COMMON = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each even every few for from further get go got had has have having
    he her here hers him his how i if in into is it its itself just let like ll made make many may me might more
    most much must my no nor not now of off on once one only or other our out over own re s said same she should so
    some such t than that the their them then there these they this those through to too under until up us ve very
    was we well were what when where which while who whom why will with would yes you your
    """.split()  # noqa: SIM905  # words read more easily without quotes around each
)


def classify(text: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each content word: a capital inside a sentence makes a name, a digit a number."""
    found, starts_sentence, last_end = [], True, 0
    for match in WORD.finditer(text):
        word = match.group()
        starts_sentence = starts_sentence or any(mark in text[last_end : match.start()] for mark in ".!?\n")
        if any(letter.isdigit() for letter in word):
            found.append((*match.span(), "numbers"))
        elif word.lower() not in COMMON and len(word) > 1:
            is_name = word[0].isupper() and not starts_sentence
            found.append((*match.span(), "names and places" if is_name else "other content words"))
        starts_sentence, last_end = False, match.end()
    return found


def survivors(text: str, recovered: str) -> list[tuple[int, int, str, bool]]:
    """`classify` of a text, with whether each word stands in the recovered one."""
    words = {match.group().lower() for match in WORD.finditer(recovered)}
    return [(start, end, kind, text[start:end].lower() in words) for start, end, kind in classify(text)]


def protect(vectors: Tensor, noise: float = 0.0, int8: bool = False, seed: int = 0) -> Tensor:
    """The vectors (N, D) as a cautious database would store them, at unit length again.

    Args:
        noise: λ, standard deviation of Gaussian noise on every number (vec2text's λ; a unit vector of 384 has ±0.05).
        int8: rounded to 255 steps between plus and minus the largest number of each vector.
    """
    draws = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
    vectors = vectors + noise * draws
    if int8:
        step = vectors.abs().amax(dim=1, keepdim=True) / 127
        vectors = (vectors / step).round() * step
    return torch.nn.functional.normalize(vectors, dim=-1)


def leaks_html(texts: list[str], recovered: list[str]) -> str:
    """The originals, with what survived marked and what was lost struck through, above what was read."""
    parts = []
    for text, found in zip(texts, recovered, strict=True):
        marked, position = [], 0
        for start, end, kind, survived in survivors(text, found):
            state = "survived" if survived else "lost"
            word = f'<mark class="{state}" title="{kind}">{escape(text[start:end])}</mark>'
            marked += [escape(text[position:start]), word]
            position = end
        marked.append(escape(text[position:]))
        parts.append(f'<p class="leak">{"".join(marked)}<br><small>read: {escape(found)}</small></p>')
    return "".join(parts)


def summary(texts: list[str], recovered: list[str]) -> list[list[Any]]:
    """Rows of (kind, how many there are, how many survived, share)."""
    total, kept = Counter(), Counter()
    for text, found in zip(texts, recovered, strict=True):
        for *_, kind, survived in survivors(text, found):
            total[kind] += 1
            kept[kind] += survived
    return [[kind, total[kind], kept[kind], f"{kept[kind] / total[kind]:.0%}"] for kind in KINDS if total[kind]]


def explanation(rows: list[list[Any]], cosine: float) -> str:
    """One plain sentence for people who have never heard of a vector, and what the protection costs."""
    words, kept = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if not words:
        return "There are no content words in this text."
    share = kept / words
    verdict = "nearly all of it" if share > 0.8 else "a good part of it" if share > 0.3 else "little of it"
    return (
        f"Whoever copies these vectors out of a database, and nothing else, reads **{kept} of {words} content words** "
        f"({verdict}). The stored vectors have a cosine of {cosine:.3f} with the true ones: the further below 1, the "
        "worse the search that they were made for works, too."
    )
